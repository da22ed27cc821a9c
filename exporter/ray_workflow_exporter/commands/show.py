"""`list`, `show` and `watch`: print runs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import click
from rich.live import Live

from .. import logs
from ..client.client import open_reader
from ..client.reader import Reader
from ..model import RunStatus
from . import terminal
from .options import Command, duration, given, load_settings, output_option, settings_flags

# With one of these, an exporter on this machine is not asked: it may watch another cluster.
_OF_A_CLUSTER = ("storage", "address")
_TOKEN = f"{__name__}.token"

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
        token = Path(value).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        raise click.BadParameter("must be a file that holds a token", ctx, param) from None
    ctx.meta[_TOKEN] = token


token_option = click.option(
    "--token-file",
    metavar="<file>",
    callback=_read_token,
    expose_value=False,
    help="File with the bearer token for the exporter.",
)


def look_options(command: Command) -> Command:
    """Add the options for where to read runs and how to print them."""
    return url_option(token_option(output_option(settings_flags(hidden=True)(command))))


@contextmanager
def reader(ctx: click.Context, url: Optional[str]) -> Iterator[Reader]:
    """Open the reader that the options name."""
    settings = load_settings(ctx)
    quiet = {} if "log_level" in settings.model_fields_set else {"log_level": "error"}
    logs.configure(settings.model_copy(update=quiet))
    direct = not given(ctx).keys().isdisjoint(_OF_A_CLUSTER)
    opened = open_reader(settings, url, direct=direct, token=ctx.meta.get(_TOKEN))
    try:
        yield opened
    finally:
        opened.close()


@click.command("list")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in RunStatus], case_sensitive=False),
    help="Only runs with this status; may be repeated.",
)
@click.option("--workflow", "workflow", help="Only runs of this workflow.")
@look_options
@click.pass_context
def list_runs(
    ctx: click.Context,
    statuses: tuple[str, ...],
    workflow: Optional[str],
    url: Optional[str],
    output: str,
) -> None:
    """List runs: live ones first, then the newest.

    \b
    Examples:
      ray-workflow-exporter list --status FAILED --status RESUMABLE
      ray-workflow-exporter list --workflow nightly-etl -o json
      ray-workflow-exporter list --url http://head-node:20729
    """
    with reader(ctx, url) as source:
        runs = source.runs(statuses, workflow)
    if output == "json":
        _print_json(_page(runs))
    elif runs:
        terminal.console().print(terminal.runs_table(runs, time.time()))
    else:
        click.echo("No runs.", err=True)


@click.command()
@click.argument("workflow_id", metavar="ID")
@look_options
@click.pass_context
def show(ctx: click.Context, workflow_id: str, url: Optional[str], output: str) -> None:
    """Show one run: its state, DAG, tasks and failures.

    \b
    Examples:
      ray-workflow-exporter show nightly-etl-2025-06-01
      ray-workflow-exporter show nightly-etl-2025-06-01 -o json
    """
    with reader(ctx, url) as source:
        run, tasks = source.run(workflow_id), source.tasks(workflow_id)
    if output == "json":
        _print_json({**run, "tasks": tasks})
    else:
        terminal.console().print(terminal.run_report(run, tasks, time.time()))


@click.command()
@click.argument("workflow_id", metavar="[ID]", required=False)
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
@look_options
@click.pass_context
def watch(
    ctx: click.Context,
    workflow_id: Optional[str],
    lasting: Optional[float],
    refresh: float,
    url: Optional[str],
    output: str,
) -> None:
    """Watch all runs, or one run until it ends.

    Without a terminal, print one line per change; with `-o json`, one object per change. Stop with
    Ctrl-C.

    \b
    Examples:
      ray-workflow-exporter watch
      ray-workflow-exporter watch nightly-etl-2025-06-01 --duration 10m
    """
    end = time.monotonic() + lasting if lasting is not None else math.inf
    console = terminal.console()
    try:
        with reader(ctx, url) as source:
            looks = _looks(source, workflow_id, refresh, end)
            if output == "json":
                for look in _changed(looks):
                    click.echo(json.dumps(look))
            elif console.is_terminal:
                with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
                    for look in looks:
                        live.update(
                            terminal.watched(look, time.time(), console.height), refresh=True
                        )
            else:
                for run in _news(looks):
                    console.print(terminal.news(run, time.time()))
    except KeyboardInterrupt:
        pass


def _looks(
    source: Reader, workflow_id: Optional[str], refresh: float, end: float
) -> Iterator[dict[str, Any]]:
    """Yield what there is to see, again and again, until the run or the time is over."""
    while True:
        look = source.run(workflow_id) if workflow_id is not None else _page(source.runs())
        yield look
        left = end - time.monotonic()
        if left <= 0 or RunStatus(look.get("status", RunStatus.RUNNING)).finished:
            return
        time.sleep(min(refresh, left))
        source.refresh()


def _changed(looks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    last = None
    for look in looks:
        if look != last:
            yield look
        last = look


def _news(looks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each run when it is seen first and whenever its state or its tasks' have changed."""
    known: dict[str, Any] = {}
    for look in looks:
        for run in reversed(look.get("items", [look])):
            state = (run["status"], run["task_counts"])
            if known.get(run["workflow_id"]) != state:
                known[run["workflow_id"]] = state
                yield run


def _page(runs: list[Any]) -> dict[str, Any]:
    # The API's page of a list, with everything on it.
    return {"total": len(runs), "limit": len(runs), "offset": 0, "items": runs}


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
