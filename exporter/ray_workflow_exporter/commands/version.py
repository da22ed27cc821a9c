"""`version` and `--version`: which versions run here."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Optional

import click

from .. import __version__
from .options import output_option


@click.command("version")
@output_option
def show_version(output: str) -> None:
    """Print the versions of exporter, Python and Ray.

    \b
    Example:
      ray-workflow-exporter version -o json
    """
    if output == "json":
        versions = {"version": __version__, "python": platform.python_version(), "ray": _ray()}
        click.echo(json.dumps(versions))
    else:
        click.echo(version_line())


def version_line() -> str:
    """Return the versions in one line."""
    ray = _ray() or "not installed"
    return f"ray-workflow-exporter {__version__} (Python {platform.python_version()}, Ray {ray})"


def _ray() -> Optional[str]:
    try:
        return version("ray")
    except PackageNotFoundError:
        return None
