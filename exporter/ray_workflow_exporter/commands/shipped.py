"""The files of the package that commands export."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

PACKAGE = "ray_workflow_exporter"


def shipped(folder: str) -> dict[str, str]:
    """Return the files in a folder of the package, by name."""
    return {
        it.name: it.read_text(encoding="utf-8")
        for it in files(PACKAGE).joinpath(folder).iterdir()
        if it.name.endswith((".json", ".service", ".yaml", ".yml"))
    }


def write(texts: dict[str, str], folder: Path) -> None:
    """Write files to a folder and print their names."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error.strerror}.") from None
    click.echo(f"Wrote {', '.join(sorted(texts))} to {folder}.")
