"""`grafana export` and `prometheus export`: write the files of the package."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Optional

import click

PACKAGE = "ray_workflow_exporter"


def ray_dashboards() -> Path:
    """Return the folder that Ray's own provisioning of Grafana reads dashboards from.

    From ray/dashboard/modules/metrics/metrics_head.py and the variables that it looks at.
    """
    if folder := os.environ.get("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"):
        return Path(folder)
    root = os.environ.get("RAY_METRICS_OUTPUT_ROOT")
    temp = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray")  # noqa: S108
    return Path(root or temp / "session_latest" / "metrics", "grafana", "dashboards")


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
        if it.name.endswith((".json", ".yml"))
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
      ray-workflow-exporter prometheus export rules --grafana https://grafana.example.org
    """


@prometheus.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--grafana", metavar="URL", help="URL of Grafana, for links in alerts.")
@click.option("--runbooks", metavar="URL", help="URL of the runbooks, for links in alerts.")
def export_rules(folder: Path, grafana: Optional[str], runbooks: Optional[str]) -> None:
    """Write alerts, recording rules and thresholds to FOLDER, for Prometheus's `rule_files`.

    A `thresholds.yml` that exists already is kept.

    \b
    Example:
      ray-workflow-exporter prometheus export rules --grafana https://grafana.example.org
    """
    texts = _shipped("rules")
    links = (("dashboard_url", grafana, "/d/"), ("runbook_url", runbooks, "/RayWorkflow"))
    for annotation, url, rest in links:
        if url:
            # All up to where a link begins to say what it leads to.
            pattern = re.compile(rf"(?<={annotation}: )\S*?(?={rest})")
            texts["alerts.yml"] = pattern.sub(url.rstrip("/"), texts["alerts.yml"])
    if (folder / "thresholds.yml").exists():
        del texts["thresholds.yml"]
    _write(texts, folder)
