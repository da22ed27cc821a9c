"""This object in, this text out: a task."""

from __future__ import annotations

import re
from typing import Optional

import pytest

from ray_workflow_exporter.metrics.family import Tier
from ray_workflow_exporter.model import Failure, FailureKind, RunStatus, TaskState
from support.expositions import series_of, value, values
from support.snapshots import START, make_run, make_snapshot, make_task, make_view

EDGE = "ray_workflow_task_edge"


def test_two_tasks_and_the_edge_between_them() -> None:
    error = Failure(FailureKind.SYSTEM, "WorkerCrashedError", "killed")
    asked = {"CPU": 0.5, "memory": 2.0**30}
    tasks = [
        make_task("a"),
        make_task("b_1", TaskState.FAILED, upstream=("a",), failure=error, resources=asked),
    ]
    view = make_view(make_run("r", RunStatus.FAILED, tasks), critical_path=("b_1",))
    shown = series_of(make_snapshot(view), Tier.TASK)
    of_b = 'workflow_id="r",task_id="b_1"'
    assert [line for line in shown if of_b in line] == [
        f'task_state{{{of_b},stage="b",state="FAILED"}} 1',
        f'task_info{{{of_b},stage="b",max_retries="3",checkpoint="true",catch_exceptions="false",'
        'ray_task_id="ab01",node_id="cd02",resources="CPU 0.5, memory 1.0 GiB"} 1',
        f"task_submit_timestamp_seconds{{{of_b}}} 1700000001.0",
        f"task_start_timestamp_seconds{{{of_b}}} 1700000001.5",
        f"task_end_timestamp_seconds{{{of_b}}} 1700000003.75",
        f"task_duration_seconds{{{of_b}}} 2.25",
        f"task_attempts{{{of_b}}} 1",
        f"task_critical{{{of_b}}} 1",
        f'task_failure_info{{{of_b},stage="b",kind="system",exception="WorkerCrashedError",'
        'message="killed"} 1',
        f'task_column{{{of_b},stage="b"}} 1',
        f'task_row{{{of_b},stage="b"}} 0.0',
    ]
    assert 'task_output_size_bytes{workflow_id="r",task_id="a"} 2048' in shown
    edge = 'workflow_id="r",source="a",target="b_1",kind="data",edge="52f85090149e"'
    assert shown[-1] == f"task_edge{{{edge}}} 1"


def test_the_id_of_an_edge_is_plain_whatever_its_ends_are_called() -> None:
    names = ['a "b" (c)', "d#e\n'f'", "g\x07", "x" * 300]
    tasks = [make_task(it, upstream=tuple(names[:at])) for at, it in enumerate(names)]
    edges = values(make_snapshot(make_view(make_run("r", tasks=tasks))), "ray_workflow_task_edge")
    assert len(edges) == 6
    assert all(re.fullmatch("[0-9a-f]{12}", edge) for edge in edges)


def test_the_id_of_an_edge_stays_while_the_run_grows() -> None:
    tasks = [make_task("a"), make_task("b", upstream=("a",))]
    (edge,) = values(make_snapshot(make_view(make_run("r", tasks=tasks))), EDGE)
    tasks.append(make_task("c", upstream=("a", "b")))
    later = values(make_snapshot(make_view(make_run("r", tasks=tasks))), EDGE)
    assert len(later) == 3
    assert edge in later


def test_in_a_large_run_a_task_has_its_place_in_its_stage() -> None:
    tasks = [make_task(f"{name}_{at}") for name in "ab" for at in range(150)]
    snapshot = make_snapshot(make_view(make_run("r", tasks=tasks)))
    for name in "ab":
        columns = values(snapshot, "ray_workflow_task_column", task_id=f"{name}_17")
        assert columns == {name: "1"}
        assert values(snapshot, "ray_workflow_task_row", task_id=f"{name}_17") == {name: "1.5"}


@pytest.mark.parametrize("state", TaskState)
def test_a_task_has_a_series_for_its_current_state_only(state: TaskState) -> None:
    view = make_view(make_run("r", RunStatus.RUNNING, [make_task("t", state)]))
    assert values(make_snapshot(view), "ray_workflow_task_state") == {state.value: "1"}


def test_a_retried_task_that_runs_has_no_end() -> None:
    view = make_view(
        make_run("r", RunStatus.RUNNING, [make_task("t", TaskState.RUNNING, end_time=START + 9)])
    )
    assert value(view, "task_start_timestamp_seconds") == "1700000001.5"
    assert value(view, "task_end_timestamp_seconds") is None


@pytest.mark.parametrize(
    ("state", "shown"), [(TaskState.FAILED, "1"), (TaskState.SUCCESSFUL, None)]
)
def test_only_a_failed_task_has_a_failure(state: TaskState, shown: Optional[str]) -> None:
    failure = Failure(FailureKind.APPLICATION, "ValueError", "caught")
    view = make_view(make_run("r", RunStatus.RUNNING, [make_task("t", state, failure=failure)]))
    assert value(view, "task_failure_info") == shown


def test_only_tasks_on_the_critical_path_are_critical() -> None:
    run = make_run("r", tasks=[make_task("a"), make_task("b")])
    snapshot = make_snapshot(make_view(run, critical_path=("b",)))
    assert values(snapshot, "ray_workflow_task_critical") == {"b": "1"}


def test_the_end_of_a_task_before_its_start_is_not_shown() -> None:
    view = make_view(make_run("r", tasks=[make_task("t", TaskState.CANCELED, end_time=START)]))
    for name in ("task_end_timestamp", "task_duration"):
        assert value(view, f"{name}_seconds") is None
