"""This object in, this text out: the exporter itself."""

from __future__ import annotations

from ray_workflow_exporter.metrics.family import Tier
from support.expositions import series_of
from support.snapshots import make_snapshot


def test_what_a_limit_hides() -> None:
    shown = series_of(make_snapshot(hidden={"max_finished_runs": 7}), Tier.EXPORTER)
    assert shown == ['exporter_hidden_objects{reason="max_finished_runs"} 7']
