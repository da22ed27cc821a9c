"""This object in, this text out: a workflow."""

from __future__ import annotations

from ray_workflow_exporter.catalog.snapshot import WorkflowTotals, WorkflowView
from ray_workflow_exporter.metrics.family import Tier
from ray_workflow_exporter.model import RunStatus
from support.expositions import series_of, values
from support.snapshots import make_snapshot, make_workflow


def test_a_workflow() -> None:
    shown = series_of(make_snapshot(workflows=[make_workflow(stages=["load"])]), Tier.WORKFLOW)
    assert [line for line in shown if "duration_seconds" not in line] == [
        'runs{workflow="etl",status="PENDING"} 0',
        'runs{workflow="etl",status="RUNNING"} 1',
        'runs{workflow="etl",status="RESUMABLE"} 0',
        'runs{workflow="etl",status="SUCCESSFUL"} 2',
        'runs{workflow="etl",status="FAILED"} 0',
        'runs{workflow="etl",status="CANCELED"} 0',
        'runs_started_total{workflow="etl"} 3',
        'runs_finished_total{workflow="etl",status="SUCCESSFUL"} 2',
        'runs_finished_total{workflow="etl",status="FAILED"} 0',
        'runs_finished_total{workflow="etl",status="CANCELED"} 0',
        'tasks_finished_total{workflow="etl",state="SUCCESSFUL"} 4',
        'tasks_finished_total{workflow="etl",state="FAILED"} 4',
        'tasks_finished_total{workflow="etl",state="CANCELED"} 4',
        'tasks_retried_total{workflow="etl"} 1',
        'tasks_resource_seconds_total{workflow="etl",stage="load",resource="CPU"} 4.5',
        'tasks_resource_seconds_total{workflow="etl",stage="load",resource="GPU"} 0.25',
        'last_success_timestamp_seconds{workflow="etl"} 1700000060.5',
        'last_run_status{workflow="etl",status="SUCCESSFUL"} 1',
        'last_run_status{workflow="etl",status="FAILED"} 0',
        'last_run_status{workflow="etl",status="CANCELED"} 0',
        'expected_interval_seconds{workflow="etl"} 3600.0',
        'objective_ratio{workflow="etl"} 0.99',
    ]
    assert 'tasks_duration_seconds_bucket{workflow="etl",stage="load",le="60.0"} 1' in shown
    assert 'tasks_duration_seconds_count{workflow="etl",stage="load"} 2' in shown


def test_a_new_workflow_has_all_its_counters_at_zero() -> None:
    snapshot = make_snapshot(workflows=[WorkflowView("new", {}, WorkflowTotals())])
    zeros = {"SUCCESSFUL": "0", "FAILED": "0", "CANCELED": "0"}
    assert values(snapshot, "ray_workflow_runs_finished_total") == zeros
    assert values(snapshot, "ray_workflow_tasks_finished_total") == zeros
    assert values(snapshot, "ray_workflow_runs_started_total") == {"new": "0"}
    assert values(snapshot, "ray_workflow_tasks_retried_total") == {"new": "0"}
    assert values(snapshot, "ray_workflow_runs") == {status.value: "0" for status in RunStatus}


def test_a_workflow_that_never_ended_a_run_has_no_last_status_and_no_last_success() -> None:
    snapshot = make_snapshot(workflows=[make_workflow(last_success=None, last_status=None)])
    assert values(snapshot, "ray_workflow_last_run_status") == {}
    assert values(snapshot, "ray_workflow_last_success_timestamp_seconds") == {}


def test_the_last_run_of_a_workflow_has_one_status() -> None:
    snapshot = make_snapshot(workflows=[make_workflow(last_status=RunStatus.FAILED)])
    assert values(snapshot, "ray_workflow_last_run_status") == {
        "SUCCESSFUL": "0",
        "FAILED": "1",
        "CANCELED": "0",
    }


def test_a_histogram_is_cumulative_and_ends_with_all_observations() -> None:
    snapshot = make_snapshot(workflows=[make_workflow()])
    name = "ray_workflow_runs_duration_seconds"
    buckets = values(snapshot, f"{name}_bucket", status="SUCCESSFUL")
    assert buckets == {"1.0": "1", "60.0": "1", "+Inf": "2"}
    assert values(snapshot, f"{name}_sum", status="SUCCESSFUL") == {"SUCCESSFUL": "61.25"}
    assert values(snapshot, f"{name}_count", status="SUCCESSFUL") == {"SUCCESSFUL": "2"}
