"""Alerts and rules with links and thresholds of the user's own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import click

from ..settings.problems import SettingsError, hint, read_yaml
from .options import web_url
from .shipped import shipped

Command = TypeVar("Command", bound=Callable[..., Any])

# One threshold, with the comment above it.
_ROW = re.compile(r"(?m)(?:^ *#.*\n)*^ *- \{record: .*\{name: (\w+)\}, expr: vector\(.*\n")


_OPTIONS = (
    click.option(
        *("--grafana-url", "--grafana"),
        callback=web_url,
        metavar="<url>",
        help="Link alerts to Grafana.",
    ),
    click.option(
        "--exporter-url",
        callback=web_url,
        metavar="<url>",
        help="Link alerts to the exporter's page.",
    ),
    click.option(
        *("--runbook-url", "--runbooks"),
        callback=web_url,
        metavar="<url>",
        help="Link alerts to runbooks here. Default: /runbooks of the exporter.",
    ),
    click.option(
        "--threshold",
        "changes",
        multiple=True,
        metavar="<name=number>",
        help="Change a threshold of the alerts, such as slow_factor=5; may be repeated.",
    ),
    click.option(
        "--thresholds",
        "thresholds_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="YAML file of thresholds to change, one `name: number` per line.",
    ),
)


def rule_options(command: Command) -> Command:
    """Add the options that `changed_rules` takes to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def changed_rules(
    kept: Optional[str],
    *,
    grafana_url: Optional[str],
    exporter_url: Optional[str],
    runbook_url: Optional[str],
    changes: tuple[str, ...],
    thresholds_file: Optional[Path],
) -> dict[str, str]:
    """Return the rule files, by name, as the options of a command say.

    `kept` is the `thresholds.yml` that is already there. Raises SettingsError.
    """
    texts = shipped("rules")
    if runbook_url is None and exporter_url is not None:
        runbook_url = f"{exporter_url}/runbooks"
    links = (
        ("dashboard_url", "http://localhost:3000", grafana_url),
        ("exporter_url", "http://localhost:20729", exporter_url),
        ("runbook_url", "http://localhost:20729/runbooks", runbook_url),
    )
    for annotation, default, url in links:
        if url is not None:
            texts["alerts.yml"] = texts["alerts.yml"].replace(
                f"{annotation}: {default}", f"{annotation}: {url}"
            )
    values = _from_file(thresholds_file) if thresholds_file is not None else {}
    for change in changes:
        name, _, value = change.partition("=")
        values[name] = value
    thresholds = texts["thresholds.yml"]
    if kept is not None:
        thresholds = _with_new_rows(kept, thresholds)
    texts["thresholds.yml"] = _with_thresholds(thresholds, values)
    return texts


def _from_file(file: Path) -> dict[str, Any]:
    content = read_yaml(file, f"The file {file}")
    if not isinstance(content, dict):
        raise SettingsError(f"The file {file} must hold `name: number` lines.")
    return {str(name): value for name, value in content.items()}


def _with_new_rows(text: str, shipped: str) -> str:
    """Add the thresholds that a file does not have yet, each with the comment above it."""
    rows = list(_ROW.finditer(text))
    known = {row[1] for row in rows}
    new = [row[0] for row in _ROW.finditer(shipped) if row[1] not in known]
    if not rows or not new:
        return text  # if of another form, RayWorkflowThresholdMissing names what it lacks
    end = rows[-1].end()
    return "".join([text[:end], *new, text[end:]])


def _with_thresholds(text: str, values: Mapping[str, Any]) -> str:
    known = re.findall(r"name: (\w+)\}, expr: vector\(", text)
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"There is no threshold {name!r}{hint(name, known)}")
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf or isinstance(value, bool):
            raise SettingsError(f"The threshold {name} must be a number, such as {name}=3.")
        row = rf"(name: {name}\}}, expr: vector\()[^)]*"
        text = re.sub(row, rf"\g<1>{number:.15g}", text)
    return text
