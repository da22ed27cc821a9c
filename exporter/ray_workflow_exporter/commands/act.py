"""`cancel`, `resume` and `delete`: act on runs; `forget`: drop the counters of a workflow."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

import click

from ..actions import ActionState, Verb
from ..client.http_reader import HttpReader
from ..display import printable
from .options import Command
from .show import complete_id, id_argument, read_options, reader

if TYPE_CHECKING:
    from ..client.client import Reader

_POLL_SECONDS = 0.2

_yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
_wait = click.option(
    "--wait",
    is_flag=True,
    help="Wait for the outcome. Implied when the command acts itself (--address).",
)
_start_manager = click.option(
    "--start-manager",
    is_flag=True,
    help="Start a workflow management actor if Ray has none.",
)


def act_options(command: Command) -> Command:
    """Give a command the options that all actions have."""
    return _yes(_wait(_start_manager(read_options(command))))


@click.command()
@id_argument
@click.option(
    "--when-started",
    is_flag=True,
    help="Cancel a queued run as soon as it starts.",
)
@act_options
def cancel(workflow_id: str, when_started: bool, **how: Any) -> None:
    """Cancel a live run, or give up a RESUMABLE one.

    Ask the exporter on this machine or at --url, with a token that may act; or act directly on the
    cluster at --address.

    \b
    Examples:
      ray-workflow-exporter cancel nightly-etl --url http://head-node:20729 --token-file token
      ray-workflow-exporter cancel nightly-etl --address auto --yes
    """
    _act(Verb.CANCEL, workflow_id, {"when_started": when_started}, **how)


@click.command()
@click.argument("workflow_id", metavar="ID", required=False, shell_complete=complete_id)
@click.option("--all", "everything", is_flag=True, help="Resume all RESUMABLE runs.")
@click.option(
    "--max-running",
    type=click.IntRange(1, 1_000_000),
    help="With --start-manager: how many runs the new management actor runs at once.",
)
@act_options
def resume(
    workflow_id: Optional[str], everything: bool, max_running: Optional[int], **how: Any
) -> None:
    """Resume a run, or all RESUMABLE runs.

    A run can be resumed when it is FAILED, CANCELED or RESUMABLE (its cluster ended before it).

    \b
    Examples:
      ray-workflow-exporter resume nightly-etl --url http://head-node:20729 --token-file token
      ray-workflow-exporter resume --all --address auto --start-manager --max-running 4
    """
    if (workflow_id is None) is not everything:
        raise click.UsageError("Give the id of a run, or --all: one of the two.")
    verb = Verb.RESUME_ALL if everything else Verb.RESUME
    _act(verb, workflow_id, {"max_running_workflows": max_running}, **how)


@click.command()
@id_argument
@act_options
def delete(workflow_id: str, **how: Any) -> None:
    """Delete a run that is not live, with all its outputs.

    \b
    Examples:
      ray-workflow-exporter delete nightly-etl --url http://head-node:20729 --token-file token
      ray-workflow-exporter delete nightly-etl --address auto --yes --wait
    """
    _act(Verb.DELETE, workflow_id, {}, **how)


@click.command()
@click.argument("workflow")
@read_options
def forget(workflow: str, url: Optional[str], output: str) -> None:
    """Forget a workflow that no longer exists: drop its counters.

    Ask the exporter on this machine or at --url, with a token that may act. The workflow must have
    no runs. Storage is not changed.

    \b
    Example:
      ray-workflow-exporter forget retired-etl --url http://head-node:20729 --token-file token
    """
    with reader(url) as source:
        if not isinstance(source, HttpReader):
            raise click.UsageError("Only a running exporter has counters: name it with --url.")
        if not source.forget(workflow):
            raise click.ClickException(f"There is no workflow {workflow!r}.")
    name = printable(workflow)
    click.echo(json.dumps({"workflow": workflow}) if output == "json" else f"{name}: forgotten.")


def _act(
    verb: Verb,
    workflow_id: Optional[str],
    options: Mapping[str, Any],
    *,
    start_manager: bool,
    yes: bool,
    wait: bool,
    url: Optional[str],
    output: str,
) -> None:
    with reader(url) as source:
        if not yes:
            _confirm(source, verb, workflow_id)
        action = source.order(verb, workflow_id, {"start_manager": start_manager, **options})
        # An action of this process itself ends with it.
        while (wait or source.acts_itself) and not ActionState(action["state"]).finished:
            time.sleep(_POLL_SECONDS)
            source.refresh()
            action = source.action(action["action_id"])
    if output == "json":
        click.echo(json.dumps(action, indent=2))
    else:
        _print_outcome(action)
    if action["state"] in (ActionState.REFUSED, ActionState.FAILED):
        raise click.exceptions.Exit(1)


def _confirm(source: Reader, verb: Verb, workflow_id: Optional[str]) -> None:
    if not _is_a_terminal():
        raise click.UsageError("Not a terminal, so no confirmation is possible: add --yes.")
    if workflow_id is None:
        runs = source.runs(["RESUMABLE"])
        click.confirm(f"Resume {len(runs)} runs?", abort=True, err=True)
        return
    run = source.run(workflow_id)
    name = printable(workflow_id)
    question = f"{verb.value.capitalize()} {name} ({run['status']}, {run['progress']:.0%} done)?"
    click.confirm(question, abort=True, err=True)


def _is_a_terminal() -> bool:
    return sys.stdin.isatty()


def _print_outcome(action: Any) -> None:
    for outcome in action["outcomes"]:
        name = printable(outcome["workflow_id"])
        click.echo(f"{name}: {outcome['state']}: {printable(outcome['detail'])}")
    detail = printable(action["detail"] or f"Ordered as action {action['action_id']}.")
    click.echo(f"{action['state']}: {detail}")
