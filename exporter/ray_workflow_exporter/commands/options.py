"""Options that commands share, and the settings that result."""

from __future__ import annotations

import re
from typing import Any, Callable, Optional, TypeVar

import click

from ..settings.settings import CONFIG_VARIABLE, SETTINGS, USUAL_FLAGS, Settings, flag
from ..settings.values import FLAG, parse_duration

Command = TypeVar("Command", bound=Callable[..., Any])


def duration(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[float]:
    """Read the value of an option as a duration, in seconds."""
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def settings_flags(*, hidden: bool = False) -> Callable[[Command], Command]:
    """Add `--config` and one flag for each setting to a command.

    The values are kept in the context; a flag after the command's name overrides one before it.
    """

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            ctx.ensure_object(dict)[param.name] = value

    def option(
        declaration: list[str], key: str, kind: str, text: str
    ) -> Callable[[Command], Command]:
        return click.option(
            *declaration,
            key,
            default=None,
            callback=remember,
            expose_value=False,
            hidden=hidden,
            metavar=f"<{kind}>",
            help=text.replace("`", ""),
        )

    def decorate(command: Command) -> Command:
        for key, (_, kind, text) in reversed(SETTINGS.items()):
            name = flag(key)
            declaration = [f"{name}/--no-{name[2:]}" if kind is FLAG else name]
            if key in USUAL_FLAGS:
                declaration.insert(0, USUAL_FLAGS[key])
            command = option(declaration, key, kind.name, text)(command)
        text = f"Settings file (YAML). Default: the one that ${CONFIG_VARIABLE} names."
        return option(["--config"], "config", "file", text)(command)

    return decorate


def given(ctx: click.Context) -> dict[str, Any]:
    """Return the settings that were given as flags."""
    return {key: value for key, value in ctx.ensure_object(dict).items() if key != "config"}


def load_settings(ctx: click.Context, **defaults: Any) -> Settings:
    """Return the settings from file, environment and flags. Raises SettingsError."""
    return Settings.load_here(given(ctx), ctx.ensure_object(dict).get("config"), **defaults)


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table, or JSON as in the API.",
)


def web_url(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[str]:
    """Take the value of an option if it is a URL, without a slash at its end."""
    if value is None:
        return None
    if not re.fullmatch(r"https?://[^\s/]\S*", value):
        raise click.BadParameter("must be a URL that begins with http:// or https://", ctx, param)
    return value.rstrip("/")
