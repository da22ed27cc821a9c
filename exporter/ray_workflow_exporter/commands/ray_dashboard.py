"""`ray-dashboard`: run the exporter inside Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from ..inside_ray import install as shim

T = TypeVar("T")


@click.group("ray-dashboard")
def ray_dashboard() -> None:
    """Run the exporter inside Ray: the head node's dashboard agent starts it and watches over it.

    \b
    Examples:
      ray-workflow-exporter ray-dashboard install
      ray-workflow-exporter ray-dashboard status
    """


@ray_dashboard.command()
def install() -> None:
    """Let the Ray of this Python start the exporter with `ray start --head`.

    Writes one file into the installed Ray; `remove` removes it. Settings come from the
    environment of `ray start`: RAY_WORKFLOW_EXPORTER_… or RAY_WORKFLOW_EXPORTER_CONFIG.
    """
    click.echo(_done(shim.install))


@ray_dashboard.command()
def remove() -> None:
    """Undo `install`: the next `ray start` is as if it had never been."""
    click.echo(_done(shim.remove))


@ray_dashboard.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Tell whether the next `ray start --head` starts the exporter; exit with 1 if not."""
    installed, sentence = _done(shim.status)
    click.echo(sentence)
    ctx.exit(0 if installed else 1)


def _done(work: Callable[[], T]) -> T:
    try:
        return work()
    except shim.InstallError as error:
        raise click.ClickException(str(error)) from None
