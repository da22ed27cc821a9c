"""The command line. To add a command, write it under `commands/` and add a row to COMMANDS."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NamedTuple, Optional

import click

from .client.reader import RefusedActionError, UnreachableError, WorkflowNotFoundError
from .commands.options import settings_flags
from .settings.problems import SettingsError


class _Command(NamedTuple):
    """Where a command is defined, and its line in the help text."""

    module: str
    attribute: str
    summary: str


# Imported on demand, so that `list` does not wait for the web server's libraries.
COMMANDS = {
    "serve": _Command("serve", "serve", "Run the exporter: serve metrics, page and API over HTTP."),
    "list": _Command("show", "list_runs", "List runs: live ones first, then the newest."),
    "show": _Command("show", "show", "Show one run: its state, DAG, tasks and failures."),
    "watch": _Command("show", "watch", "Watch all runs, or one run until it ends."),
    "cancel": _Command("act", "cancel", "Cancel a live run, or give up a RESUMABLE one."),
    "resume": _Command("act", "resume", "Resume a run, or all RESUMABLE runs."),
    "delete": _Command("act", "delete", "Delete a run that is not live, with all its outputs."),
    "ray-dashboard": _Command("ray_dashboard", "ray_dashboard", "Run the exporter inside Ray."),
    "grafana": _Command("export", "grafana", "Export dashboards for Grafana."),
    "prometheus": _Command("export", "prometheus", "Export alerts and rules for Prometheus."),
    "token": _Command("token", "token", "Generate a bearer token."),
    "version": _Command(
        "version", "show_version", "Print the versions of exporter, Python and Ray."
    ),
}


class _Main(click.Group):
    """Imports a command on demand; ends one that fails with a sentence, 2 for wrong settings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in COMMANDS:
            return None
        command = COMMANDS[cmd_name]
        module = import_module(f"{__package__}.commands.{command.module}")
        found: click.Command = getattr(module, command.attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, it.summary) for name, it in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise _WrongSettings(str(error)) from None
        except (UnreachableError, WorkflowNotFoundError, RefusedActionError) as error:
            raise click.ClickException(str(error)) from None


class _WrongSettings(click.ClickException):
    exit_code = 2


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .commands.version import version_line

        click.echo(version_line())
        ctx.exit()


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@settings_flags()
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the versions of the exporter, Python and Ray, and exit.",
)
def main() -> None:
    """Prometheus exporter, command line and safe actions for Ray Workflows.

    A setting comes from its flag, else from the variable RAY_WORKFLOW_EXPORTER_<SETTING>, else
    from the settings file. Flags may be given before or after the command.

    \b
    Examples:
      ray-workflow-exporter serve
      ray-workflow-exporter list --status FAILED
      ray-workflow-exporter show my-run
      ray-workflow-exporter watch
      ray-workflow-exporter resume my-run --address auto
    """
    for stream in (sys.stdout, sys.stderr):
        # Ids hold any character; one that the terminal cannot show must not end the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
