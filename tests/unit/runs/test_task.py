"""The state of a task, for each row of what its files and the management actor may say."""

from __future__ import annotations

from typing import Any

import pytest

from ray_workflow_exporter.model import RunStatus, TaskState
from ray_workflow_exporter.sources.records import (
    LiveRun,
    LiveTask,
    StoredTask,
)
from support.merging import (
    RAISED,
    T0,
    merged,
    one_state,
    returned,
    stored_run,
    stored_task,
)

FINISHED = [
    # what the folder of a task holds, in a run of which status, makes which state
    ("nothing started", {}, "SUCCESSFUL", "NOT_RUN"),
    ("nothing started", {}, "FAILED", "NOT_RUN"),
    ("nothing started", {}, "RESUMABLE", "NOT_RUN"),
    ("success", {"start_time": T0, "end_time": T0 + 1, "output_bytes": 4}, "FAILED", "SUCCESSFUL"),
    (
        "success without checkpoint",
        {"start_time": T0, "end_time": T0 + 1, "checkpoint": False, "upstream": ()},
        "SUCCESSFUL",
        "SUCCESSFUL",
    ),
    (
        "sub-task of a continuation without checkpoint",
        {"start_time": T0, "end_time": T0 + 1},
        "SUCCESSFUL",
        "SUCCESSFUL",
    ),
    (
        "continuation",
        {"start_time": T0, "end_time": T0 + 1, "continuation": "c", "checkpoint": True},
        "FAILED",
        "SUCCESSFUL",
    ),
    ("raised", {"start_time": T0 + 1, **RAISED}, "FAILED", "FAILED"),
    (
        "retried, then successful",
        {"start_time": T0 + 3, "end_time": T0 + 4, "output_bytes": 9, **RAISED},
        "SUCCESSFUL",
        "SUCCESSFUL",
    ),
    (
        "caught",
        {"start_time": T0 + 1, "catch_exceptions": True, **RAISED},
        "SUCCESSFUL",
        "SUCCESSFUL",
    ),
    (
        "output that cannot be pickled",
        {"start_time": T0, "end_time": T0 + 1, "checkpoint": True, "upstream": ()},
        "FAILED",
        "FAILED",
    ),
    ("worker crash", {"start_time": T0}, "FAILED", "FAILED"),
    ("cancelled at work", {"start_time": T0}, "CANCELED", "CANCELED"),
    ("interrupted", {"start_time": T0}, "RESUMABLE", "NOT_RUN"),
    (
        "an exception of an earlier attempt is not the failure of the last one",
        {"start_time": T0 + 5, **RAISED},
        "CANCELED",
        "CANCELED",
    ),
]


@pytest.mark.parametrize(
    ("files", "status", "state"),
    [row[1:] for row in FINISHED],
    ids=[f"{row[0]} in a run {row[2]}" for row in FINISHED],
)
def test_the_state_of_a_task_follows_from_its_files(
    files: dict[str, Any], status: str, state: str
) -> None:
    assert one_state(RunStatus(status), **files) is TaskState(state)


LIVE = [
    ("not submitted", LiveTask(upstream=("a",)), {}, "WAITING"),
    ("waits for resources", LiveTask(submit_time=T0, running=True), {}, "PENDING"),
    ("at work", LiveTask(submit_time=T0, running=True), {"start_time": T0 + 1}, "RUNNING"),
    (
        "at work on a node whose clock is behind",
        LiveTask(submit_time=T0, running=True),
        {"start_time": T0 - 3},
        "RUNNING",
    ),
    (
        "second attempt waits for resources, first one left its start",
        LiveTask(submit_time=T0 + 5, running=True, retries=1),
        {"start_time": T0 + 1, **RAISED},
        "PENDING",
    ),
    (
        "second attempt at work",
        LiveTask(submit_time=T0 + 5, running=True, retries=1),
        {"start_time": T0 + 6, **RAISED},
        "RUNNING",
    ),
    (
        "body returned",
        LiveTask(submit_time=T0, finish_time=T0 + 2),
        {"start_time": T0 + 1, "end_time": T0 + 2},
        "SUCCESSFUL",
    ),
    (
        "exception caught",
        LiveTask(submit_time=T0, done=True),
        {"start_time": T0 + 1, "catch_exceptions": True, **RAISED},
        "SUCCESSFUL",
    ),
]


@pytest.mark.parametrize(
    ("task", "files", "state"), [row[1:] for row in LIVE], ids=[row[0] for row in LIVE]
)
def test_the_state_of_a_live_task_follows_from_both_sources(
    task: LiveTask, files: dict[str, Any], state: str
) -> None:
    live = LiveRun("run", queued=False, tasks={"t": task}, changed=frozenset({"t"}))
    run = merged(RunStatus.RUNNING, stored_run(stored_task("t", **files), end_time=None), live)
    assert run.tasks["t"].state is TaskState(state)


def test_an_end_before_its_start_is_no_end() -> None:
    stored = stored_run(StoredTask("t", start_time=T0), end_time=T0 - 100)
    run = merged(RunStatus.CANCELED, stored, mark_time=T0 + 3)
    assert (run.start_time, run.end_time, run.duration) == (T0, T0 + 3, 3.0)


@pytest.mark.parametrize("ahead", [0.2, -0.2, 120.0, -120.0])
@pytest.mark.parametrize(
    ("files", "status", "state"),
    [row[1:] for row in FINISHED],
    ids=[f"{row[0]} in a run {row[2]}" for row in FINISHED],
)
def test_no_state_depends_on_the_clocks(
    ahead: float, files: dict[str, Any], status: str, state: str
) -> None:
    """`ahead` is how far the clock of the file server is ahead of the one of the node."""
    files = dict(files)
    if "start_time" in files:
        files["start_file_time"] = files["start_time"] + ahead
    if "exception_time" in files:
        files["exception_time"] += ahead
    stored = stored_run(StoredTask("t", **files))
    task = merged(RunStatus(status), stored, mark_time=T0 + 10 + ahead).tasks["t"]
    assert task.state is TaskState(state)
    if task.end_time is not None and task.start_time is not None:
        assert 0 <= task.end_time - task.start_time <= 10.01


@pytest.mark.parametrize("ahead", [0.2, -0.2, 120.0, -120.0])
@pytest.mark.parametrize(
    ("task", "files", "state"), [row[1:] for row in LIVE], ids=[row[0] for row in LIVE]
)
def test_no_live_state_depends_on_the_clocks(
    ahead: float, task: LiveTask, files: dict[str, Any], state: str
) -> None:
    """The node's clock is right, those of the file server and of the actor differ from it."""
    if "start_time" in files:
        files = {**files, "start_file_time": files["start_time"] + ahead}
    if "exception_time" in files:
        files["exception_time"] += ahead
    wma = -ahead / 2
    task = task._replace(
        submit_time=None if task.submit_time is None else task.submit_time + wma,
        finish_time=None if task.finish_time is None else task.finish_time + wma,
    )
    live = LiveRun("run", queued=False, tasks={"t": task}, changed=frozenset({"t"}))
    stored = stored_run(
        StoredTask("t", **files), start_time=T0 + wma, start_file_time=T0 + ahead, end_time=None
    )
    assert merged(RunStatus.RUNNING, stored, live).tasks["t"].state is TaskState(state)


def test_a_task_that_failed_at_once_shows_its_exception_though_its_node_is_ahead() -> None:
    # The node's clock is 0.2 s ahead of the file server's; the task failed 20 ms after its start.
    task = StoredTask(
        "t",
        start_time=T0 + 0.2,
        start_file_time=T0,
        exception=("KeyError", "'customer'"),
        exception_time=T0 + 0.02,
    )
    failed = merged(RunStatus.FAILED, stored_run(task)).tasks["t"]
    assert failed.failure is not None
    assert failed.failure.exception == "KeyError"
    assert failed.duration == pytest.approx(0.02, abs=1e-6)


@pytest.mark.parametrize("files", [{"end_time": T0 + 1}, {"end_time": None}, {"checkpoint": False}])
def test_no_task_of_a_successful_run_is_cancelled(files: dict[str, Any]) -> None:
    tasks = merged(RunStatus.SUCCESSFUL, stored_run(returned("t", **files))).tasks
    assert tasks["t"].state in (TaskState.SUCCESSFUL, TaskState.NOT_RUN)


def test_what_was_interrupted_will_run_again_and_is_not_cancelled() -> None:
    stored = stored_run(
        returned("kept", output_bytes=4),
        stored_task("interrupted", start_time=T0 + 1, checkpoint=True, upstream=("kept",)),
        returned("not stored yet"),
        stored_task("waiting", upstream=("interrupted",)),
    )
    tasks = merged(RunStatus.RESUMABLE, stored).tasks
    assert {key: it.state.value for key, it in tasks.items()} == {
        "kept": "SUCCESSFUL",
        "interrupted": "NOT_RUN",
        "not stored yet": "NOT_RUN",
        "waiting": "NOT_RUN",
    }
    assert tasks["interrupted"].start_time == T0 + 1
    assert tasks["interrupted"].end_time is None
