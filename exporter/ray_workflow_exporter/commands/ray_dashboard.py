"""`ray-dashboard`: run the exporter inside Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from ..inside_ray import install as shim

T = TypeVar("T")


@click.group("ray-dashboard")
def ray_dashboard() -> None:
    """Run the exporter inside Ray.

    The dashboard agent of the head node starts the exporter with Ray, and restarts it when it ends.

    \b
    Examples:
      ray-workflow-exporter ray-dashboard install
      ray-workflow-exporter ray-dashboard status
    """


@ray_dashboard.command()
def install() -> None:
    """Start the exporter with the next `ray start --head`.

    Write one file into the Ray that is installed for this Python; `remove` deletes it. Settings
    come from the environment of `ray start`: `RAY_WORKFLOW_EXPORTER_<SETTING>` or
    RAY_WORKFLOW_EXPORTER_CONFIG.

    \b
    Example:
      ray-workflow-exporter ray-dashboard install
    """
    click.echo(_done(shim.install))


@ray_dashboard.command()
def remove() -> None:
    """Undo `install` for the next `ray start`.

    \b
    Example:
      ray-workflow-exporter ray-dashboard remove
    """
    click.echo(_done(shim.remove))


@ray_dashboard.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Print whether the next `ray start --head` starts the exporter; exit with 1 if not.

    \b
    Example:
      ray-workflow-exporter ray-dashboard status
    """
    installed, sentence = _done(shim.status)
    click.echo(sentence)
    ctx.exit(0 if installed else 1)


def _done(work: Callable[[], T]) -> T:
    try:
        return work()
    except shim.InstallError as error:
        raise click.ClickException(str(error)) from None
