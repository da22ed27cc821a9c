"""`list`, `show` and `watch`: print runs."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Optional

import click

from ..client.client import find_exporter, local_url, read_directly
from ..client.http_reader import HttpReader
from ..model import RunStatus
from .options import Command, duration, given, load_settings, output_option, settings_flags

if TYPE_CHECKING:
    from ..client.client import Reader

# With one of these, an exporter on this machine is not asked: it may watch another cluster.
_OF_A_CLUSTER = ("storage", "address")
_TOKEN = f"{__name__}.token"
_COMPLETIONS = 100

Json = dict[str, Any]

# How `list` may sort, by the key of a run; "newest" is the order in which runs are read.
_ORDERS: dict[str, Callable[[Json], Any]] = {
    "newest": lambda run: 0,
    "id": lambda run: run["workflow_id"],
    "workflow": lambda run: (run["workflow"], run["workflow_id"]),
    "duration": lambda run: -(run["duration"] or 0.0),
    "output": lambda run: -(run["output_bytes"] or 0),
}
_NOT_SUCCESSFUL = (RunStatus.FAILED.value, RunStatus.CANCELED.value)

url_option = click.option(
    "--url",
    metavar="<url>",
    help="Ask the exporter at this URL. Default: the exporter on this machine. If none runs, or "
    "with --storage or --address, the command reads storage and cluster itself.",
)


def _read_token(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> None:
    if value is None:
        return
    try:
        with open(value, encoding="ascii") as file:
            token = file.read().strip()
    except OSError as error:
        raise click.BadParameter(f"{value} cannot be read: {error.strerror}", ctx, param) from None
    except ValueError:
        token = ""
    if not re.fullmatch(r"[!-~]+", token):
        raise click.BadParameter(f"{value} must hold one token and nothing else", ctx, param)
    ctx.meta[_TOKEN] = token


token_option = click.option(
    "--token-file",
    metavar="<file>",
    callback=_read_token,
    expose_value=False,
    help="File with the bearer token for the exporter.",
)


def read_options(command: Command) -> Command:
    """Add the options for where to read runs and how to print them."""
    return url_option(token_option(output_option(settings_flags(hidden=True)(command))))


def complete_id(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return ids for the shell's completion, from a running exporter; none if that fails."""
    try:
        settings = load_settings(ctx)
        opened = HttpReader(ctx.params.get("url") or local_url(settings), ctx.meta.get(_TOKEN))
        try:
            return opened.ids(incomplete, _COMPLETIONS)
        finally:
            opened.close()
    except (ValueError, ConnectionError, RuntimeError):
        return []


id_argument = click.argument("workflow_id", metavar="ID", shell_complete=complete_id)


@contextmanager
def reader(url: Optional[str]) -> Iterator[Reader]:
    """Open the reader that the options name."""
    ctx = click.get_current_context()
    settings = load_settings(ctx, log_level="error")
    opened: Optional[Reader] = None
    # Without Ray and without a storage, there is nothing else to read.
    nothing = settings.address == "none" and settings.storage is None
    if url is not None or nothing or given(ctx).keys().isdisjoint(_OF_A_CLUSTER):
        opened = find_exporter(settings, url, ctx.meta.get(_TOKEN))
    if opened is None:
        from .. import logs  # imported only where something is logged

        logs.configure(settings)
        opened = read_directly(settings)
    try:
        yield opened
    finally:
        opened.close()


def _print_notes(source: Reader, runs: Optional[Iterable[Any]] = None) -> list[str]:
    """Print warnings to stderr, and what could not be read if it matters for these runs.

    Return the warnings.
    """
    warnings = source.warnings
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    if (
        runs is None
        or not source.unsure
        or any(run["status"] == RunStatus.RESUMABLE.value for run in runs)
    ):
        for note in source.notes:
            click.echo(f"Note: {note}", err=True)
    return warnings


@click.command("list")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in RunStatus], case_sensitive=False),
    help="Only runs with this status; may be repeated.",
)
@click.option("--workflow", "workflow", help="Only runs of this workflow.")
@click.option(
    "--since",
    callback=duration,
    metavar="<duration>",
    help="Only runs that are live or ended within this time, for example 12h.",
)
@click.option(
    "--sort",
    type=click.Choice(list(_ORDERS)),
    default="newest",
    show_default=True,
    help="Order of the runs; newest lists live runs first.",
)
@click.option("--limit", type=click.IntRange(1), help="Only the first of them, at most this many.")
@read_options
def list_runs(
    statuses: tuple[str, ...],
    workflow: Optional[str],
    since: Optional[float],
    sort: str,
    limit: Optional[int],
    url: Optional[str],
    output: str,
) -> None:
    """List runs: live ones first, then the newest.

    \b
    Examples:
      ray-workflow-exporter list --status FAILED --status RESUMABLE
      ray-workflow-exporter list --workflow nightly-etl -o json
      ray-workflow-exporter list --since 12h --sort duration --limit 10
      ray-workflow-exporter list --url http://head-node:20729
    """
    now = time.time()
    selected = since is not None or sort != "newest"  # here, so that all runs are needed
    with reader(url) as source:
        runs = source.runs(statuses, workflow, None if selected else limit)
        if since is not None:
            runs = [it for it in runs if (it["end_time"] or now) >= now - since]
        if sort != "newest":
            runs.sort(key=_ORDERS[sort])
        runs = runs[:limit]
        warnings = _print_notes(source, runs)
        notes = {"notes": source.notes} if source.unsure else {}
        unsure = source.unsure
    if output == "json":
        _print_json({**_page(runs), **notes, **({"warnings": warnings} if warnings else {})})
    elif runs:
        from . import terminal  # here and below: `rich` costs a third of a command

        width = terminal.console().width
        terminal.show(terminal.runs_table(runs, now, width=width, unsure=unsure))
    else:
        click.echo("No runs.", err=True)


@click.command()
@id_argument
@click.option("--tasks", "all_tasks", is_flag=True, help="Print all tasks of a large run.")
@read_options
def show(workflow_id: str, all_tasks: bool, url: Optional[str], output: str) -> None:
    """Show one run: its state, DAG, tasks and failures.

    Of a run with more than 20 tasks, print those that failed or are not done, unless --tasks is
    given.

    \b
    Examples:
      ray-workflow-exporter show nightly-etl-2025-06-01
      ray-workflow-exporter show nightly-etl-2025-06-01 -o json
    """
    from . import terminal

    with reader(url) as source:
        run = source.run(workflow_id)
        short = not all_tasks and output == "table" and terminal.is_large(run)
        tasks = source.tasks(workflow_id, terminal.FIRST_STATES if short else ())
        _print_notes(source, [run])
        unsure = source.unsure
    if output == "json":
        _print_json({**run, "tasks": tasks})
        return
    if short:
        tasks = terminal.first_tasks(tasks)
    width = terminal.console().width
    terminal.show(terminal.run_report(run, tasks, time.time(), width=width, unsure=unsure))


@click.command()
@click.argument("workflow_id", metavar="[ID]", required=False, shell_complete=complete_id)
@click.option(
    "--duration",
    "lasting",
    callback=duration,
    metavar="<duration>",
    help="Stop after this long, for example 5m.",
)
@click.option(
    "--refresh",
    callback=duration,
    metavar="<duration>",
    default="1s",
    show_default=True,
    help="Time between two updates.",
)
@read_options
def watch(
    workflow_id: Optional[str],
    lasting: Optional[float],
    refresh: float,
    url: Optional[str],
    output: str,
) -> None:
    """Watch all runs, or one run until it ends.

    Without a terminal, print one line per change; with `-o json`, one object per change. Stop with
    Ctrl-C. Exit with 1 if the run has ended, but not as SUCCESSFUL.

    \b
    Examples:
      ray-workflow-exporter watch
      ray-workflow-exporter watch nightly-etl-2025-06-01 --duration 10m
    """
    from rich.live import Live

    from . import terminal

    end = time.monotonic() + lasting if lasting is not None else math.inf
    console = terminal.console()
    try:
        with reader(url) as source:
            _print_notes(source)
            updates = _updates(source, workflow_id, refresh, end)
            last: Json = {}
            if output == "json":
                for last in _changed(updates):
                    click.echo(json.dumps(last))
            elif console.is_terminal:
                with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
                    for last in updates:
                        frame = terminal.watched(last, time.time(), console.height, console.width)
                        live.update(frame, refresh=True)
            else:
                for last in _news(updates):
                    console.print(terminal.news(last, time.time()))
    except KeyboardInterrupt:
        return
    if workflow_id is not None and last.get("status") in _NOT_SUCCESSFUL:
        raise click.exceptions.Exit(1)


def _updates(
    source: Reader, workflow_id: Optional[str], refresh: float, end: float
) -> Iterator[Json]:
    """Yield all runs or one run, again and again, until the run has ended or the time is over."""
    while True:
        update = source.run(workflow_id) if workflow_id is not None else _page(source.runs())
        yield update
        left = end - time.monotonic()
        if left <= 0 or RunStatus(update.get("status", RunStatus.RUNNING)).finished:
            return
        time.sleep(min(refresh, left))
        source.refresh()


def _changed(updates: Iterable[Json]) -> Iterator[Json]:
    last = None
    for update in updates:
        if update != last:
            yield update
        last = update


def _news(updates: Iterable[Json]) -> Iterator[Json]:
    """Yield each run when it is seen first and whenever its state or its tasks' have changed."""
    known: dict[str, Any] = {}
    for update in updates:
        for run in reversed(update.get("items", [update])):
            state = (run["status"], run["task_counts"])
            if known.get(run["workflow_id"]) != state:
                known[run["workflow_id"]] = state
                yield run


def _page(runs: list[Any]) -> dict[str, Any]:
    # The API's page of a list, with everything on it.
    return {"total": len(runs), "limit": len(runs), "offset": 0, "items": runs}


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
