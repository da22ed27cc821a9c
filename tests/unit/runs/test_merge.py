"""Each row of what storage and the management actor may say, and the state that follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.model import FailureKind, Run, RunStatus, TaskState, changed_tasks
from ray_workflow_exporter.runs.merge import Evidence, merge
from ray_workflow_exporter.sources.records import (
    LiveRun,
    LiveTask,
    RayTaskDetail,
    StoredRun,
    StoredTask,
)

T0 = 1_700_000_000.0
RAISED = {"exception": ("ValueError", "bad row"), "exception_time": T0 + 2.5}


def stored_run(*tasks: StoredTask, **fields: Any) -> StoredRun:
    fields = {"start_time": T0, "end_time": T0 + 10, "output_task_id": "out", **fields}
    return StoredRun("run", tasks={task.task_id: task for task in tasks}, **fields)


def merged(
    status: RunStatus, stored: StoredRun, live: Optional[LiveRun] = None, **fields: Any
) -> Run:
    return merge(Evidence("etl", status, stored, live=live, **fields))


def one_state(status: RunStatus, **files: Any) -> TaskState:
    return merged(status, stored_run(StoredTask("t", **files))).tasks["t"].state


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
    ("interrupted", {"start_time": T0}, "RESUMABLE", "CANCELED"),
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
    run = merged(RunStatus.RUNNING, stored_run(StoredTask("t", **files), end_time=None), live)
    assert run.tasks["t"].state is TaskState(state)


def test_a_resumed_run_keeps_what_its_earlier_life_finished() -> None:
    stored = stored_run(
        StoredTask("kept", start_time=T0 - 50, end_time=T0 - 49, output_bytes=7, checkpoint=True),
        StoredTask("again", start_time=T0 - 50, upstream=("kept",), checkpoint=True, **RAISED),
        StoredTask("waits", upstream=("again",)),
    )
    live = LiveRun(
        "run",
        queued=False,
        resumed=True,
        tasks={
            "again": LiveTask(submit_time=T0 + 1, running=True),
            "waits": LiveTask(upstream=("again",)),
        },
    )
    states = {key: it.state for key, it in merged(RunStatus.RUNNING, stored, live).tasks.items()}
    assert states == {
        "kept": TaskState.SUCCESSFUL,
        "again": TaskState.PENDING,  # its start is of the earlier life
        "waits": TaskState.WAITING,
    }


def test_an_end_before_its_start_is_no_end() -> None:
    stored = stored_run(StoredTask("t", start_time=T0), end_time=T0 - 100)
    run = merged(RunStatus.CANCELED, stored, mark_time=T0 + 3)
    assert (run.start_time, run.end_time, run.duration) == (T0, T0 + 3, 3.0)


def test_a_rerun_of_a_successful_id_keeps_the_times_in_which_it_ran() -> None:
    task = StoredTask("t", start_time=T0 - 60, end_time=T0 - 20, output_bytes=1)
    run = merged(RunStatus.SUCCESSFUL, stored_run(task, end_time=T0 + 0.01))
    assert run.duration == 40.0


def test_a_crash_without_a_record_is_blamed_on_the_task_at_work() -> None:
    stored = stored_run(
        StoredTask("done", start_time=T0, end_time=T0 + 1, output_bytes=1),
        StoredTask("crashed", start_time=T0 + 1, upstream=("done",)),
        StoredTask("never", upstream=("crashed",)),
    )
    run = merged(RunStatus.FAILED, stored, may_still_write=True)
    assert run.tasks["crashed"].state is TaskState.FAILED
    assert run.tasks["crashed"].end_time == T0 + 10
    failure = run.tasks["crashed"].failure
    assert failure is not None
    assert (failure.kind, failure.exception) == (FailureKind.SYSTEM, "NoRecord")
    assert run.tasks["never"].state is TaskState.NOT_RUN


def test_what_the_state_api_says_names_the_culprit_among_several() -> None:
    stored = stored_run(StoredTask("a", start_time=T0), StoredTask("b", start_time=T0))
    first = merged(
        RunStatus.RUNNING,
        stored,
        LiveRun(
            "run",
            queued=False,
            tasks={
                name: LiveTask(submit_time=T0, running=True, ray_task_id=name * 4) for name in "ab"
            },
        ),
    )
    blamed = merged(RunStatus.FAILED, stored, previous=first)
    assert {it.state for it in blamed.tasks.values()} == {TaskState.FAILED}
    details = {"bbbb": RayTaskDetail("node", "WORKER_DIED", "exit code 1")}
    run = merged(RunStatus.FAILED, stored, previous=blamed, details=details)
    assert run.tasks["a"].state is TaskState.CANCELED
    assert run.tasks["b"].state is TaskState.FAILED
    failure = run.tasks["b"].failure
    assert failure is not None
    assert (failure.exception, failure.message) == ("WorkerCrashedError", "exit code 1")


def test_siblings_of_a_failed_task_run_on_until_they_are_known_to_have_ended() -> None:
    failed = StoredTask("bad", start_time=T0 + 1, **RAISED)
    sibling = StoredTask("sibling", start_time=T0 + 1)
    run = merged(RunStatus.FAILED, stored_run(failed, sibling), may_still_write=True)
    assert run.tasks["sibling"].state is TaskState.RUNNING
    over = merged(RunStatus.FAILED, stored_run(failed, sibling), previous=run)
    assert over.tasks["sibling"].state is TaskState.CANCELED
    wrote = StoredTask("sibling", start_time=T0 + 1, end_time=T0 + 30, output_bytes=8)
    late = merged(RunStatus.FAILED, stored_run(failed, wrote), previous=run)
    assert late.tasks["sibling"].state is TaskState.SUCCESSFUL


def test_what_both_sources_have_lost_is_carried_over() -> None:
    live = LiveRun(
        "run",
        queued=False,
        tasks={
            "t": LiveTask(
                submit_time=T0 - 1, finish_time=T0 + 2, retries=2, output_bytes=99, ray_task_id="f0"
            )
        },
    )
    files = StoredTask("t", start_time=T0, end_time=T0 + 2, checkpoint=False, upstream=())
    before = merged(RunStatus.RUNNING, stored_run(files, end_time=None), live)
    task = merged(RunStatus.SUCCESSFUL, stored_run(files), previous=before).tasks["t"]
    assert (task.submit_time, task.attempts, task.output_bytes) == (T0 - 1, 3, 99)
    assert task.ray_task_id == "f0"


def live_run(*names: str, **fields: Any) -> LiveRun:
    task = LiveTask(submit_time=T0, running=True)
    return LiveRun("run", queued=False, tasks=dict.fromkeys(names, task), **fields)


def test_only_touched_tasks_are_made_anew() -> None:
    live = live_run("a", "b")
    before = merged(RunStatus.RUNNING, stored_run(end_time=None), live)
    begun = stored_run(*(StoredTask(name, start_time=T0 + 1) for name in "ab"), end_time=None)
    run = merged(RunStatus.RUNNING, begun, live, previous=before, touched={"b"})
    assert run.tasks["a"] is before.tasks["a"]
    assert run.tasks["b"].state is TaskState.RUNNING
    assert run.last_transition == T0 + 1


def test_what_did_not_change_stays_the_same_object() -> None:
    live, stored = live_run("a", "b"), stored_run(StoredTask("a", start_time=T0), end_time=None)
    before = merged(RunStatus.RUNNING, stored, live)
    assert merged(RunStatus.RUNNING, stored, live, previous=before) is before
    assert merged(RunStatus.RUNNING, stored, live, previous=before, touched={"a"}) is before
    run = merged(RunStatus.RUNNING, stored, live, previous=before, deadline=T0 + 5)
    assert run.tasks["a"] is before.tasks["a"]
    ended = merged(RunStatus.CANCELED, stored, previous=before)
    assert changed_tasks(before.tasks, ended.tasks) == ["a", "b"]


def test_new_tasks_come_in_the_order_of_ray_and_then_by_id() -> None:
    before = merged(RunStatus.RUNNING, stored_run(end_time=None), live_run("b", "a"))
    stored = stored_run(*map(StoredTask, "uba"), end_time=None)
    live = live_run("b", "a", "z", "y")
    run = merged(RunStatus.RUNNING, stored, live, previous=before, touched=set("uzay"))
    assert list(run.tasks) == [*"bazyu"]
    assert merged(RunStatus.RUNNING, stored, live, previous=before) == run


@given(st.data())
def test_merging_what_was_touched_is_as_good_as_merging_all(data: st.DataObject) -> None:
    times = st.none() | st.integers(0, 9).map(lambda seconds: T0 + seconds)
    live_task = st.builds(
        lambda *fields: LiveTask(
            **dict(zip(("upstream", "submit_time", "finish_time", "running", "done"), fields))
        ),
        st.sampled_from([None, (), ("a",)]),
        times,
        times,
        st.booleans(),
        st.booleans(),
    )

    def stored_task(task_id: str) -> StoredTask:
        return StoredTask(
            task_id,
            start_time=data.draw(times),
            end_time=data.draw(times),
            output_bytes=data.draw(st.none() | st.integers(0, 9)),
            exception=data.draw(st.sampled_from([None, ("E", "no")])),
        )

    ids = [*"abcdefgh"]
    old, new = sorted([data.draw(st.integers(0, 5)), data.draw(st.integers(0, 8))])
    tasks = {task_id: data.draw(live_task) for task_id in ids[:old]}
    stored = {task_id: stored_task(task_id) for task_id in ids[:old] if data.draw(st.booleans())}
    before = merged(
        RunStatus.RUNNING,
        StoredRun("run", start_time=T0, tasks=stored),
        LiveRun("run", False, tasks=tasks),
    )
    touched = set(data.draw(st.lists(st.sampled_from(ids[:old]), unique=True)) if old else ())
    touched.update(ids[old:new])
    tasks = {**tasks, **{task_id: data.draw(live_task) for task_id in sorted(touched)}}
    stored = {**stored, **{task_id: stored_task(task_id) for task_id in sorted(touched)}}
    evidence = Evidence(
        "etl",
        RunStatus.RUNNING,
        StoredRun("run", start_time=T0, tasks=stored),
        LiveRun("run", False, tasks=tasks),
        previous=before,
    )
    part = merge(replace(evidence, touched=touched))
    assert part == merge(evidence)
    assert list(part.tasks) == list(merge(evidence).tasks)


def test_an_exception_time_in_whole_seconds_still_belongs_to_its_attempt() -> None:
    # S3 cuts 102.7 to 102, which lies before the start of the very attempt that raised.
    files = {"start_time": T0 + 2.3, "exception": ("E", ""), "exception_time": T0 + 2}
    assert one_state(RunStatus.FAILED, **files) is TaskState.FAILED
