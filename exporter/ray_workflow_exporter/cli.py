"""The command line. To add a command, write it under `commands/` and add it to COMMANDS."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from . import __version__
from .client import RefusedActionError, UnreachableError, WorkflowNotFoundError
from .commands.act import cancel, delete, resume
from .commands.export import grafana, prometheus
from .commands.options import output_option, settings_flags
from .commands.ray_dashboard import ray_dashboard
from .commands.serve import serve
from .commands.show import list_runs, show, watch
from .commands.token import token
from .settings.settings import SettingsError


class _Main(click.Group):
    """Ends a command that failed with one sentence; 2 says that the settings are wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise _WrongSettings(str(error)) from None
        except (UnreachableError, WorkflowNotFoundError, RefusedActionError) as error:
            raise click.ClickException(str(error)) from None


class _WrongSettings(click.ClickException):
    exit_code = 2


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@settings_flags()
def main() -> None:
    """Eyes and hands for Ray Workflows: a Prometheus exporter, and its command line.

    A setting comes from its flag, else from the variable RAY_WORKFLOW_EXPORTER_<FLAG>, else from
    the settings file. Flags may stand before or after the command.

    \b
    Examples:
      ray-workflow-exporter serve
      ray-workflow-exporter list --status FAILED
      ray-workflow-exporter show my-run
      ray-workflow-exporter watch
      ray-workflow-exporter resume my-run --address auto
    """
    for stream in (sys.stdout, sys.stderr):
        # Ids hold any character; a terminal that cannot show one is no reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@click.command("version")
@output_option
def show_version(output: str) -> None:
    """Print the versions of the exporter, Python and Ray."""
    try:
        ray = version("ray")
    except PackageNotFoundError:
        ray = None
    versions = {"version": __version__, "python": platform.python_version(), "ray": ray}
    if output == "json":
        click.echo(json.dumps(versions))
    else:
        click.echo(
            f"ray-workflow-exporter {__version__} "
            f"(Python {versions['python']}, Ray {ray or 'not installed'})"
        )


COMMANDS = (
    *(serve, list_runs, show, watch, cancel, resume, delete),
    *(ray_dashboard, grafana, prometheus, token, show_version),
)

for _command in COMMANDS:
    main.add_command(_command)
