"""This object in, this text out: a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ray_workflow_exporter.metrics.family import Options, Tier
from ray_workflow_exporter.model import Failure, FailureKind, RunStatus, TaskState
from support.expositions import render, series_of, value, values
from support.snapshots import START, make_run, make_snapshot, make_task, make_view


def test_a_failed_run() -> None:
    error = Failure(FailureKind.APPLICATION, "ValueError", 'bad "row"')
    tasks = [make_task("load", TaskState.FAILED, failure=error), make_task("t", TaskState.NOT_RUN)]
    run = make_run("etl-1", RunStatus.FAILED, tasks, deadline=START + 5)
    labels = 'workflow="etl",workflow_id="etl-1"'
    assert series_of(make_snapshot(make_view(run)), Tier.RUN) == [
        f"run_info{{{labels}}} 1",
        *(f'run_status{{{labels},status="{it.value}"}} {int(it.value == "FAILED")}'
          for it in RunStatus),
        f"run_start_timestamp_seconds{{{labels}}} 1700000000.0",
        f"run_end_timestamp_seconds{{{labels}}} 1700000060.5",
        f"run_duration_seconds{{{labels}}} 60.5",
        f"run_last_transition_timestamp_seconds{{{labels}}} 1700000060.5",
        f"run_deadline_timestamp_seconds{{{labels}}} 1700000005.0",
        *(f'run_tasks{{{labels},state="{it.value}"}} {int(it.value in ("FAILED", "NOT_RUN"))}'
          for it in TaskState),
        f"run_progress_ratio{{{labels}}} 0.0",
        f"run_critical_path_seconds{{{labels}}} 2.25",
        f'run_failure_info{{{labels},task_id="load",stage="load",kind="application",'
        'exception="ValueError",message="bad \\"row\\""} 1',
    ]  # fmt: skip


@pytest.mark.parametrize("status", RunStatus)
def test_a_run_is_in_one_status(status: RunStatus) -> None:
    found = values(make_snapshot(make_view(make_run("r", status))), "ray_workflow_run_status")
    assert found == {other.value: str(int(other is status)) for other in RunStatus}


def test_a_live_run_has_neither_end_nor_duration() -> None:
    # A resumed run still carries the end of its earlier life.
    view = make_view(make_run("r", RunStatus.RUNNING, end_time=START - 5))
    assert value(view, "run_start_timestamp_seconds") == "1700000000.0"
    assert value(view, "run_end_timestamp_seconds") is None
    assert value(view, "run_duration_seconds") is None


def test_only_a_failed_run_has_a_failure() -> None:
    failed = make_view(make_run("r", RunStatus.FAILED, [make_task("t", TaskState.FAILED)]))
    assert value(failed, "run_failure_info") == "1"
    resumed = replace(failed, run=replace(failed.run, status=RunStatus.RUNNING))
    assert resumed.analysis.root_cause is not None
    assert value(resumed, "run_failure_info") is None


def test_metadata_labels_are_the_same_for_all_runs_and_never_collide() -> None:
    keys = ("team", "cost-center", "cost.center", "cost_center_2")
    with_data = make_run("a", user_metadata={"team": "x", "cost.center": {"n": [1, True]}})
    snapshot = make_snapshot(make_view(with_data), make_view(make_run("b")))
    text = render(snapshot, options=Options(meta_labels=keys), tiers=["run"]).decode()
    assert [line for line in text.splitlines() if line.startswith("ray_workflow_run_info")] == [
        'ray_workflow_run_info{workflow="etl",workflow_id="a",meta_team="x",meta_cost_center="",'
        r'meta_cost_center_2="{\"n\": [1, true]}",meta_cost_center_2_2=""} 1',
        'ray_workflow_run_info{workflow="etl",workflow_id="b",meta_team="",meta_cost_center="",'
        'meta_cost_center_2="",meta_cost_center_2_2=""} 1',
    ]


def test_the_end_of_a_run_before_its_start_is_not_shown() -> None:
    view = make_view(make_run("r", RunStatus.CANCELED, end_time=START - 5))
    for name in ("run_end_timestamp", "run_duration"):
        assert value(view, f"{name}_seconds") is None
