"""The command line: `commands/__init__.py` has the table of its commands."""

from __future__ import annotations

import sys
from typing import Any, Optional

import click

from .client.reader import RefusedActionError, UnreachableError, WorkflowNotFoundError
from .commands import COMMANDS, load
from .commands.options import settings_flags
from .settings.problems import SettingsError


class _Main(click.Group):
    """Imports a command on demand; ends one that fails with a sentence, 2 for wrong settings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        return load(cmd_name) if cmd_name in COMMANDS else None

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

    A setting comes from its flag, else from the variable `RAY_WORKFLOW_EXPORTER_<SETTING>`, else
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
