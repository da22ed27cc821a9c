"""`grafana export`, `prometheus export` and others: write the files of the package."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Optional

import click

from .options import web_url
from .rules import changed_rules, rule_options
from .shipped import shipped, write


def ray_dashboards() -> Path:
    """Return the folder that Ray's own provisioning of Grafana reads dashboards from.

    From ray/dashboard/modules/metrics/metrics_head.py and the variables that it looks at.
    """
    if folder := os.environ.get("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"):
        return Path(folder)
    root = os.environ.get("RAY_METRICS_OUTPUT_ROOT")
    temp = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray")  # noqa: S108
    return Path(root or temp / "session_latest" / "metrics", "grafana", "dashboards")


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
@click.option(
    "--exporter-url",
    callback=web_url,
    metavar="<url>",
    help="Link runs to the exporter's page here.",
)
@click.option(
    "--ray-url", callback=web_url, metavar="<url>", help="Link tasks to Ray's dashboard here."
)
def export_dashboards(
    folder: Optional[Path], ray: bool, exporter_url: Optional[str], ray_url: Optional[str]
) -> None:
    """Write the dashboards to FOLDER, for Grafana's provisioning.

    With --ray, write them beside the dashboards that `ray start --head` writes: a Grafana that is
    set up as in Ray's documentation shows both. Each start of Ray rewrites that folder, so export
    again after it.

    \b
    Examples:
      ray-workflow-exporter grafana export /var/lib/grafana/dashboards/ray-workflow
      ray-workflow-exporter grafana export --ray --exporter-url https://exporter.example.org
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
    texts = shipped("dashboards")
    # The values of hidden variables; browsers open what is made of them.
    for default, url in (
        ("http://localhost:20729", exporter_url),
        ("http://localhost:8265", ray_url),
    ):
        if url is not None:
            for name, text in texts.items():
                texts[name] = text.replace(f'"query": "{default}"', f'"query": {json.dumps(url)}')
    write(texts, folder)


@click.group("prometheus")
def prometheus() -> None:
    """Export alerts and rules for Prometheus.

    \b
    Example:
      ray-workflow-exporter prometheus export rules --grafana-url https://grafana.example.org
    """


@prometheus.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@rule_options
def export_rules(folder: Path, **options: Any) -> None:
    """Write alerts, recording rules and thresholds to FOLDER, for Prometheus's `rule_files`.

    A `thresholds.yml` that exists already is kept: only the thresholds that are given change, and
    those that a new version has are added.

    \b
    Examples:
      ray-workflow-exporter prometheus export rules --grafana-url https://grafana.example.org
      ray-workflow-exporter prometheus export rules --threshold slow_factor=5
    """
    existing = folder / "thresholds.yml"
    kept = existing.read_text(encoding="utf-8") if existing.exists() else None
    texts = changed_rules(kept, **options)
    if texts["thresholds.yml"] == kept:
        del texts["thresholds.yml"]
    write(texts, folder)


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
    write(shipped(""), folder)


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
    write(shipped("systemd"), folder)
