"""`grafana export`, `prometheus export` and others: write the files of the package."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Optional

import click

from ..settings.problems import SettingsError, hint, read_yaml

PACKAGE = "ray_workflow_exporter"

# One threshold, with the comment above it.
_ROW = re.compile(r"(?m)(?:^ *#.*\n)*^ *- \{record: .*\{name: (\w+)\}, expr: vector\(.*\n")


def ray_dashboards() -> Path:
    """Return the folder that Ray's own provisioning of Grafana reads dashboards from.

    From ray/dashboard/modules/metrics/metrics_head.py and the variables that it looks at.
    """
    if folder := os.environ.get("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"):
        return Path(folder)
    root = os.environ.get("RAY_METRICS_OUTPUT_ROOT")
    temp = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray")  # noqa: S108
    return Path(root or temp / "session_latest" / "metrics", "grafana", "dashboards")


def _url(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[str]:
    if value is None:
        return None
    if not re.fullmatch(r"https?://[^\s/]\S*", value):
        raise click.BadParameter("must be a URL that begins with http:// or https://", ctx, param)
    return value.rstrip("/")


def _write(texts: dict[str, str], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error.strerror}.") from None
    click.echo(f"Wrote {', '.join(sorted(texts))} to {folder}.")


def _shipped(folder: str) -> dict[str, str]:
    return {
        it.name: it.read_text(encoding="utf-8")
        for it in files(PACKAGE).joinpath(folder).iterdir()
        if it.name.endswith((".json", ".yml", ".service"))
    }


@click.group("grafana")
def grafana() -> None:
    """Export dashboards for Grafana.

    \b
    Examples:
      ray-workflow-exporter grafana export /var/lib/grafana/dashboards/ray-workflow
      ray-workflow-exporter grafana export --ray
    """


@grafana.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), required=False)
@click.option("--ray", is_flag=True, help="Write to the folder of Ray's own dashboards.")
def export_dashboards(folder: Optional[Path], ray: bool) -> None:
    """Write the dashboards to FOLDER, for Grafana's provisioning.

    With --ray, write them beside the dashboards that `ray start --head` writes: a Grafana that is
    set up as in Ray's documentation shows both. Each start of Ray rewrites that folder, so export
    again after it.

    \b
    Examples:
      ray-workflow-exporter grafana export /var/lib/grafana/dashboards/ray-workflow
      ray-workflow-exporter grafana export --ray
    """
    if ray == (folder is not None):
        raise click.UsageError("Give a folder or --ray: one of the two.")
    if folder is None:
        folder = ray_dashboards()
        if not folder.is_dir():
            raise click.ClickException(
                f"Ray has no dashboards in {folder}: start the head node first. If it was started "
                "with --temp-dir, set RAY_METRICS_OUTPUT_ROOT to its session's folder `metrics`."
            )
    _write(_shipped("dashboards"), folder)


@click.group("prometheus")
def prometheus() -> None:
    """Export alerts and rules for Prometheus.

    \b
    Example:
      ray-workflow-exporter prometheus export rules --grafana-url https://grafana.example.org
    """


@prometheus.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    *("--grafana-url", "--grafana"), callback=_url, metavar="<url>", help="Link alerts to Grafana."
)
@click.option(
    "--exporter-url", callback=_url, metavar="<url>", help="Link alerts to the exporter's page."
)
@click.option(
    *("--runbook-url", "--runbooks"),
    callback=_url,
    metavar="<url>",
    help="Link alerts to runbooks here. Default: /runbooks of the exporter.",
)
@click.option(
    "--threshold",
    "changes",
    multiple=True,
    metavar="<name=number>",
    help="Change a threshold of the alerts, such as slow_factor=5; may be repeated.",
)
@click.option(
    "--thresholds",
    "thresholds_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML file of thresholds to change, one `name: number` per line.",
)
def export_rules(
    folder: Path,
    grafana_url: Optional[str],
    exporter_url: Optional[str],
    runbook_url: Optional[str],
    changes: tuple[str, ...],
    thresholds_file: Optional[Path],
) -> None:
    """Write alerts, recording rules and thresholds to FOLDER, for Prometheus's `rule_files`.

    A `thresholds.yml` that exists already is kept: only the thresholds that are given change, and
    those that a new version has are added.

    \b
    Examples:
      ray-workflow-exporter prometheus export rules --grafana-url https://grafana.example.org
      ray-workflow-exporter prometheus export rules --threshold slow_factor=5
    """
    texts = _shipped("rules")
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
    existing = folder / "thresholds.yml"
    if existing.exists():
        kept = existing.read_text(encoding="utf-8")
        text = _with_thresholds(_with_new_rows(kept, texts.pop("thresholds.yml")), values)
        if text != kept:
            texts["thresholds.yml"] = text
    else:
        texts["thresholds.yml"] = _with_thresholds(texts["thresholds.yml"], values)
    _write(texts, folder)


@click.group("alertmanager")
def alertmanager() -> None:
    """Export example routes for Alertmanager.

    \b
    Example:
      ray-workflow-exporter alertmanager export .
    """


@alertmanager.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export_routes(folder: Path) -> None:
    """Write alertmanager.yml to FOLDER: a route per severity, and what inhibits what.

    \b
    Example:
      ray-workflow-exporter alertmanager export .
    """
    _write(_shipped(""), folder)


@click.group("systemd")
def systemd() -> None:
    """Export a unit for systemd.

    \b
    Example:
      ray-workflow-exporter systemd export /etc/systemd/system
    """


@systemd.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export_unit(folder: Path) -> None:
    """Write the unit of the exporter to FOLDER.

    \b
    Example:
      ray-workflow-exporter systemd export /etc/systemd/system
    """
    _write(_shipped("systemd"), folder)


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
