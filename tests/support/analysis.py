"""The analysis of one whole run."""

from __future__ import annotations

from typing import Optional

from ray_workflow_exporter.analysis.analysis import Analysis, Analyst, History
from ray_workflow_exporter.model import Run


def analyse(run: Run, history: Optional[History] = None) -> Analysis:
    """Derive everything from a run."""
    return Analyst(history).update(run)
