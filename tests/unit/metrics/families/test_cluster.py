"""This object in, this text out: the cluster."""

from __future__ import annotations

from ray_workflow_exporter.catalog.snapshot import Snapshot
from ray_workflow_exporter.metrics.family import Tier
from support.expositions import render, series_of
from support.snapshots import make_snapshot


def test_a_healthy_cluster() -> None:
    assert series_of(make_snapshot(running_limit=10, pending_limit=1000), Tier.CLUSTER) == [
        "storage_up 1",
        "manager_up 1",
        "running_limit 10",
        "pending_limit 1000",
    ]


def test_a_storage_that_cannot_be_read_and_no_manager_to_ask() -> None:
    snapshot = Snapshot(0.0, storage_up=False, manager_up=None)
    assert series_of(snapshot, Tier.CLUSTER) == ["storage_up 0"]


def test_a_limit_that_is_not_set_has_no_series() -> None:
    assert b"_limit" not in render(make_snapshot())
    assert b"ray_workflow_running_limit 0\n" in render(make_snapshot(running_limit=0))
