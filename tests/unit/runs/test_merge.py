"""Each row of what storage and the management actor may say, and the state that follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.model import FailureKind, Run, RunStatus, TaskState, changed_tasks
from ray_workflow_exporter.runs.evidence import Evidence
from ray_workflow_exporter.runs.merge import merge
from ray_workflow_exporter.sources.records import (
    LiveRun,
    LiveTask,
    RayTaskDetail,
    StoredRun,
    StoredTask,
)

T0 = 1_700_000_000.0
RAISED: dict[str, Any] = {"exception": ("ValueError", "bad row"), "exception_time": T0 + 2.5}


def stored_task(task_id: str, **files: Any) -> StoredTask:
    """A task whose node has the clock of the file server."""
    return StoredTask(task_id, **{"start_file_time": files.get("start_time"), **files})


def stored_run(*tasks: StoredTask, **fields: Any) -> StoredRun:
    fields = {"start_time": T0, "end_time": T0 + 10, "output_task_id": "out", **fields}
    fields.setdefault("start_file_time", fields["start_time"])
    return StoredRun("run", tasks={task.task_id: task for task in tasks}, **fields)


def merged(
    status: RunStatus, stored: StoredRun, live: Optional[LiveRun] = None, **fields: Any
) -> Run:
    return merge(Evidence("etl", status, stored, live=live, **fields))


def one_state(status: RunStatus, **files: Any) -> TaskState:
    return merged(status, stored_run(stored_task("t", **files))).tasks["t"].state


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


def test_a_resumed_run_keeps_what_its_earlier_life_finished() -> None:
    stored = stored_run(
        StoredTask("kept", start_time=T0 - 50, end_time=T0 - 49, output_bytes=7, checkpoint=True),
        stored_task("again", start_time=T0 - 50, upstream=("kept",), checkpoint=True, **RAISED),
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


def test_files_that_were_copied_back_keep_their_exceptions() -> None:
    task = StoredTask(
        "t",
        start_time=T0,
        start_file_time=T0 + 9_000_000.2,
        exception=("KeyError", "'customer'"),
        exception_time=T0 + 9_000_000.1,
    )
    assert merged(RunStatus.FAILED, stored_run(task)).tasks["t"].state is TaskState.FAILED


def test_a_cancelled_run_ends_by_the_clock_of_its_start() -> None:
    stored = stored_run(start_file_time=T0 - 60, end_time=None)
    assert merged(RunStatus.CANCELED, stored, mark_time=T0 - 57).duration == 3.0


def returned(task_id: str, *upstream: str, **files: Any) -> StoredTask:
    """A task whose body returned and must have stored an output."""
    fields = {"start_time": T0, "end_time": T0 + 1, "checkpoint": True, "max_retries": 3}
    return stored_task(task_id, upstream=upstream, **{**fields, **files})


def test_an_output_that_was_removed_is_no_failure_beside_a_recorded_one() -> None:
    stored = stored_run(
        returned("extract"),
        returned("work", "extract", end_time=None, exception=("KeyError", "'customer'")),
        stored_task("load", upstream=("work",)),
    )
    tasks = merged(RunStatus.FAILED, stored).tasks
    assert {key: it.state.value for key, it in tasks.items()} == {
        "extract": "SUCCESSFUL",
        "work": "FAILED",
        "load": "NOT_RUN",
    }
    assert [it.failure.exception for it in tasks.values() if it.failure] == ["KeyError"]


def test_a_crash_is_found_among_outputs_that_were_removed() -> None:
    stored = stored_run(
        returned("extract"),
        returned("other", "extract"),
        returned("work", "extract", end_time=None),
    )
    tasks = merged(RunStatus.FAILED, stored).tasks
    assert [it.failure.exception for it in tasks.values() if it.failure] == ["NoRecord"]
    assert tasks["work"].state is TaskState.FAILED


def test_an_output_that_nobody_used_is_the_one_that_could_not_be_pickled() -> None:
    stored = stored_run(
        returned("extract", output_bytes=4), returned("work", "extract"), stored_task("load")
    )
    tasks = merged(RunStatus.FAILED, stored).tasks
    assert tasks["work"].failure is not None
    assert tasks["work"].failure.exception == "UnpicklableOutput"
    assert tasks["extract"].state is TaskState.SUCCESSFUL


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


def test_a_task_that_was_submitted_and_did_not_start_is_the_one_that_failed() -> None:
    live = live_run("t")
    before = merged(RunStatus.RUNNING, stored_run(end_time=None), live)
    failed = merged(RunStatus.FAILED, stored_run(stored_task("t")), previous=before).tasks["t"]
    assert failed.state is TaskState.FAILED
    assert failed.failure is not None
    assert "before it started" in failed.failure.message


def test_what_ray_says_of_a_task_that_did_not_start_is_its_failure() -> None:
    live = LiveRun(
        "run",
        queued=False,
        tasks={"t": LiveTask(submit_time=T0, running=True, ray_task_id="aa")},
    )
    before = merged(RunStatus.RUNNING, stored_run(end_time=None), live)
    details = {"aa": RayTaskDetail("n", "TASK_EXECUTION_EXCEPTION", "trace\nlib.Odd: no such row")}
    run = merged(RunStatus.FAILED, stored_run(), previous=before, details=details)
    failure = run.tasks["t"].failure
    assert failure is not None
    assert (failure.exception, failure.message) == ("Odd", "no such row")


def test_edges_and_options_that_were_seen_live_stay_known() -> None:
    live = LiveRun(
        "run",
        queued=False,
        tasks={
            "sub": LiveTask(upstream=(), max_retries=2, checkpoint=False, catch_exceptions=False),
            "out": LiveTask(upstream=("sub",), checkpoint=False, submit_time=T0),
        },
    )
    before = merged(RunStatus.RUNNING, stored_run(end_time=None), live)
    times = {"start_time": T0, "end_time": T0 + 1}
    stored = stored_run(stored_task("sub", **times), stored_task("out", **times))
    tasks = merged(RunStatus.SUCCESSFUL, stored, previous=before).tasks
    assert tasks["out"].upstream == ("sub",)
    assert (tasks["sub"].max_retries, tasks["sub"].checkpoint) == (2, False)


def test_an_exception_time_in_whole_seconds_still_belongs_to_its_attempt() -> None:
    # S3 cuts 102.7 to 102, which lies before the start of the very attempt that raised.
    files = {
        "start_time": T0 + 2.3,
        "start_file_time": T0 + 2,
        "exception": ("E", ""),
        "exception_time": T0 + 2,
    }
    assert one_state(RunStatus.FAILED, **files) is TaskState.FAILED
