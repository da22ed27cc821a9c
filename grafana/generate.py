"""Write dashboards/*.json: `python -m grafana.generate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import (
    exporter_dashboard,
    fleet_dashboard,
    oncall_dashboard,
    run_dashboard,
    workflow_dashboard,
)
from .common import as_json

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {
    "fleet": fleet_dashboard,
    "run": run_dashboard,
    "workflow": workflow_dashboard,
    "oncall": oncall_dashboard,
    "exporter": exporter_dashboard,
}


def files() -> Mapping[Path, str]:
    """Return each generated file with its text."""
    return {
        FOLDER / f"ray-workflow-{key}.json": as_json(module.build(), module.CHART_ALERTS)
        for key, module in DASHBOARDS.items()
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
