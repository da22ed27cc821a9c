"""Write dashboards/*.json: `python -m grafana.generate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import class_board, exporter_board, fleet_board, oncall_board, run_board
from .common import as_json

DASHBOARDS = Path(__file__).parent / "dashboards"
BOARDS = {
    "fleet": fleet_board,
    "run": run_board,
    "class": class_board,
    "oncall": oncall_board,
    "exporter": exporter_board,
}


def files() -> Mapping[Path, str]:
    """Return each generated file with its text."""
    return {
        DASHBOARDS / f"ray-workflow-{key}.json": as_json(module.build())
        for key, module in BOARDS.items()
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
