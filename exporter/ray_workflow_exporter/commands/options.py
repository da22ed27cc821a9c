"""Options that commands share, and the settings that come of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import click

from ..settings.reference import kinds
from ..settings.settings import CONFIG_VARIABLE, Settings, flag
from ..settings.values import parse_duration

Command = TypeVar("Command", bound=Callable[..., Any])


def duration(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[float]:
    """Read the value of an option as a duration, in seconds."""
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def settings_flags(*, hidden: bool = False) -> Callable[[Command], Command]:
    """Give a command `--config` and one flag for each setting.

    The values gather in the context, where flags after a command's name win over those before.
    """

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            ctx.ensure_object(dict)[param.name] = value

    def option(declaration: str, key: str, kind: str, text: str) -> Callable[[Command], Command]:
        return click.option(
            *declaration.split(),
            key,
            default=None,
            callback=remember,
            expose_value=False,
            hidden=hidden,
            metavar=f"<{kind}>",
            help=text.replace("`", ""),
        )

    def decorate(command: Command) -> Command:
        for key, kind in reversed(list(kinds().items())):
            name, field = flag(key), Settings.model_fields[key]
            declaration = f"{name}/--no-{name[2:]}" if field.annotation is bool else name
            if key == "web_config_file":
                declaration += " --web.config.file"  # as every exporter calls it
            command = option(declaration, key, kind, field.description or "")(command)
        text = f"Settings file (YAML); or in ${CONFIG_VARIABLE}."
        return option("--config", "config", "file", text)(command)

    return decorate


def given(ctx: click.Context) -> dict[str, Any]:
    """Return the settings that were given as flags."""
    return {key: value for key, value in ctx.ensure_object(dict).items() if key != "config"}


def load_settings(ctx: click.Context) -> Settings:
    """Return the settings from file, environment and flags. Raises SettingsError."""
    config = ctx.ensure_object(dict).get("config") or os.environ.get(CONFIG_VARIABLE)
    return Settings.load(Path(config) if config else None, os.environ, given(ctx))


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or JSON in the shape of the API.",
)
