"""The metric contract: one row for each family, in one file for each tier.

A row says what a family is called, what it means, and how its samples come from an object of its
tier. Headers, samples, the exporter's own metrics, the docs and the tests all follow the rows: to
add a family, add a row.
"""

from __future__ import annotations

from ..family import Family
from . import cluster, exporter, run, stage, task, workflow

FAMILIES: tuple[Family, ...] = (
    *cluster.FAMILIES,
    *workflow.FAMILIES,
    *run.FAMILIES,
    *stage.FAMILIES,
    *task.FAMILIES,
    *exporter.FAMILIES,
)
