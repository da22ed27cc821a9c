"""Which task is blamed for the failure of a run, and for what."""

from __future__ import annotations

from ray_workflow_exporter.model import FailureKind, RunStatus, TaskState
from ray_workflow_exporter.sources.records import (
    LiveRun,
    LiveTask,
    RayTaskDetail,
    StoredTask,
)
from support.merging import (
    RAISED,
    T0,
    live_run,
    merged,
    one_state,
    returned,
    stored_run,
    stored_task,
)


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


def test_files_that_were_copied_back_keep_their_exceptions() -> None:
    task = StoredTask(
        "t",
        start_time=T0,
        start_file_time=T0 + 9_000_000.2,
        exception=("KeyError", "'customer'"),
        exception_time=T0 + 9_000_000.1,
    )
    assert merged(RunStatus.FAILED, stored_run(task)).tasks["t"].state is TaskState.FAILED


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


def test_an_exception_time_in_whole_seconds_still_belongs_to_its_attempt() -> None:
    # S3 cuts 102.7 to 102, which lies before the start of the very attempt that raised.
    files = {
        "start_time": T0 + 2.3,
        "start_file_time": T0 + 2,
        "exception": ("E", ""),
        "exception_time": T0 + 2,
    }
    assert one_state(RunStatus.FAILED, **files) is TaskState.FAILED
