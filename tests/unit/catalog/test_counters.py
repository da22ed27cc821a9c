"""Counters begin at zero, miss nothing, and count nothing twice, over restarts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Optional

from ray_workflow_exporter.catalog.counters import Counters
from ray_workflow_exporter.catalog.workflow_counters import (
    MAX_STAGES,
    OTHER_STAGES,
    WorkflowCounters,
)
from ray_workflow_exporter.model import (
    Failure,
    FailureKind,
    Run,
    RunStatus,
    Task,
    TaskState,
)
from ray_workflow_exporter.runs.failures import SUSPECT
from ray_workflow_exporter.sources.records import Mark

T0 = 1_700_000_000.0


def a_run(
    name: str,
    status: str,
    start: Optional[float] = T0,
    end: Optional[float] = None,
    **tasks: tuple[str, Optional[float], int],
) -> Run:
    """Make a run; tasks are (state, end, attempts) and start a second before their end."""
    return Run(
        workflow_id=name,
        workflow="etl",
        status=RunStatus(status),
        start_time=start,
        end_time=end,
        tasks={
            key: Task(
                key,
                key.split("_")[0],
                TaskState(state),
                start_time=ended and ended - 1,
                end_time=ended,
                attempts=attempts,
            )
            for key, (state, ended, attempts) in tasks.items()
        },
    )


def marks(**entries: tuple[str, float]) -> dict[str, Mark]:
    return {key: Mark(RunStatus(status), at) for key, (status, at) in entries.items()}


def counts(counters: Counters) -> tuple[int, int, int, int]:
    """Return started, successful runs, successful tasks and retries of the workflow."""
    it = counters.workflows.get("etl") or WorkflowCounters()
    return (
        it.started,
        it.finished[RunStatus.SUCCESSFUL],
        it.tasks_finished[TaskState.SUCCESSFUL],
        it.task_retries,
    )


OLD = a_run("old", "SUCCESSFUL", T0 - 100, T0 - 50, t=("SUCCESSFUL", T0 - 60, 1))


def test_history_is_not_counted_but_its_workflow_is_there_at_zero() -> None:
    counters = Counters()
    counters.begin(marks(old=("SUCCESSFUL", T0 - 50)), now=T0)
    counters.observe(None, OLD, T0 - 50)
    assert counts(counters) == (0, 0, 0, 0)
    assert counters.workflows["etl"].last_success == T0 - 50


def test_a_run_is_counted_as_it_goes_along() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    pending = a_run("r", "PENDING", None)
    running = a_run("r", "RUNNING", t=("RUNNING", None, 1))
    retried = a_run("r", "RUNNING", t=("RUNNING", None, 3))
    done = a_run("r", "SUCCESSFUL", end=T0 + 9, t=("SUCCESSFUL", T0 + 8, 3))
    counters.observe(None, pending, T0 + 1)
    assert counts(counters) == (1, 0, 0, 0)
    counters.observe(pending, running, T0 + 2)
    counters.observe(running, retried, T0 + 2)
    assert counts(counters) == (1, 0, 0, 2)
    counters.observe(retried, done, T0 + 9)
    assert counts(counters) == (1, 1, 1, 2)
    durations = counters.workflows["etl"].run_durations[RunStatus.SUCCESSFUL]
    assert (sum(durations.counts), durations.total) == (1, 9.0)


def test_a_run_that_came_and_went_between_two_polls_is_counted() -> None:
    counters = Counters()
    counters.begin(marks(old=("SUCCESSFUL", T0 - 50)), now=T0)
    counters.observe(
        None, a_run("quick", "SUCCESSFUL", end=T0 + 2, t=("SUCCESSFUL", T0 + 2, 2)), T0 + 2
    )
    assert counts(counters) == (1, 1, 1, 1)


def test_a_live_run_that_was_there_before_the_exporter_counts_from_now_on() -> None:
    counters = Counters()
    counters.begin(marks(r=("RUNNING", T0 - 30)), now=T0)
    running = a_run("r", "RUNNING", T0 - 30, t=("SUCCESSFUL", T0 - 9, 1), u=("RUNNING", None, 1))
    counters.observe(None, running, T0 - 30)
    assert counts(counters) == (1, 0, 0, 0)  # or it would finish without a start
    done = a_run(
        "r", "SUCCESSFUL", T0 - 30, T0 + 5, t=("SUCCESSFUL", T0 - 9, 1), u=("SUCCESSFUL", T0 + 5, 1)
    )
    counters.observe(running, done, T0 + 5)
    assert counts(counters) == (1, 1, 1, 0)


def test_a_restart_counts_what_happened_meanwhile_and_nothing_twice(tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "state.json"
    first = Counters()
    first.begin(marks(old=("SUCCESSFUL", T0 - 50)), T0, file)
    first.observe(None, OLD, T0 - 50)
    counted = a_run("counted", "SUCCESSFUL", end=T0 + 3, t=("SUCCESSFUL", T0 + 3, 1))
    live = a_run("live", "RUNNING", t=("SUCCESSFUL", T0 + 4, 1), u=("RUNNING", None, 1))
    first.observe(None, counted, T0 + 3)
    first.observe(None, live, T0 + 1)
    first.save()
    assert counts(first) == (2, 1, 2, 0)

    second = Counters()
    second.begin({}, T0 + 60, file)
    assert counts(second) == (2, 1, 2, 0)
    second.observe(None, OLD, T0 - 50)
    second.observe(None, counted, T0 + 3)
    assert counts(second) == (2, 1, 2, 0)
    ended = a_run(
        "live", "SUCCESSFUL", end=T0 + 20, t=("SUCCESSFUL", T0 + 4, 1), u=("SUCCESSFUL", T0 + 20, 1)
    )
    second.observe(None, ended, T0 + 20)
    assert counts(second) == (2, 2, 3, 0)
    second.observe(
        None, a_run("away", "SUCCESSFUL", end=T0 + 30, t=("SUCCESSFUL", T0 + 30, 1)), T0 + 30
    )
    assert counts(second) == (3, 3, 4, 0)
    assert second.workflows["etl"].last_success == T0 + 30


def test_a_state_file_that_cannot_be_read_is_kept_aside(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text('{"format": 1, "workflows": {"etl": {"started": "many"}}}')
    counters = Counters()
    counters.begin({}, T0, file)
    assert counts(counters) == (0, 0, 0, 0)
    assert (tmp_path / "state.json.broken").exists()
    counters.observe(None, a_run("r", "RUNNING"), T0 + 1)
    counters.save()
    again = Counters()
    again.begin({}, T0 + 2, file)
    assert counts(again) == (1, 0, 0, 0)


def test_a_state_folder_that_cannot_be_written_costs_no_poll(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    counters = Counters()
    counters.begin({}, T0, tmp_path / "file" / "state.json")
    counters.observe(None, a_run("r", "RUNNING"), T0 + 1)
    counters.save()
    assert counts(counters) == (1, 0, 0, 0)


def test_a_resume_is_another_start_and_another_finish() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    failed = a_run("r", "FAILED", T0 + 1, T0 + 5, t=("FAILED", T0 + 5, 1))
    counters.observe(None, failed, T0 + 5)
    resumed = a_run("r", "RUNNING", T0 + 20, t=("RUNNING", None, 1))
    counters.observe(failed, resumed, T0 + 20)
    done = a_run("r", "SUCCESSFUL", T0 + 20, T0 + 25, t=("SUCCESSFUL", T0 + 25, 1))
    counters.observe(resumed, done, T0 + 25)
    it = counters.workflows["etl"]
    assert it.started == 2
    assert it.finished == {RunStatus.SUCCESSFUL: 1, RunStatus.FAILED: 1, RunStatus.CANCELED: 0}
    assert it.tasks_finished[TaskState.FAILED] == 1
    assert it.tasks_finished[TaskState.SUCCESSFUL] == 1


def test_a_resume_between_two_polls_is_counted() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    failed = a_run("r", "FAILED", T0 + 1, T0 + 5, t=("FAILED", T0 + 5, 1))
    done = a_run("r", "SUCCESSFUL", T0 + 6, T0 + 7, t=("SUCCESSFUL", T0 + 7, 1))
    counters.observe(None, failed, T0 + 5)
    counters.observe(failed, done, T0 + 7)
    assert counts(counters) == (2, 1, 1, 0)


def test_a_rerun_or_a_cancel_of_a_successful_run_counts_nothing() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    done = a_run("r", "SUCCESSFUL", T0 + 1, T0 + 5, t=("SUCCESSFUL", T0 + 5, 1))
    rerun = a_run("r", "SUCCESSFUL", T0 + 50, T0 + 50, t=("SUCCESSFUL", T0 + 5, 1))
    canceled = a_run("r", "CANCELED", T0 + 50, T0 + 50, t=("SUCCESSFUL", T0 + 5, 1))
    counters.observe(None, done, T0 + 5)
    counters.observe(done, rerun, T0 + 50)
    counters.observe(rerun, canceled, T0 + 60)
    assert counts(counters) == (1, 1, 1, 0)
    assert counters.workflows["etl"].finished[RunStatus.CANCELED] == 0


def test_left_over_siblings_count_when_they_end() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    failed = a_run("r", "FAILED", T0 + 1, T0 + 5, t=("FAILED", T0 + 5, 1), u=("RUNNING", None, 1))
    later = a_run(
        "r", "FAILED", T0 + 1, T0 + 5, t=("FAILED", T0 + 5, 1), u=("SUCCESSFUL", T0 + 9, 1)
    )
    counters.observe(None, failed, T0 + 5)
    counters.observe(failed, later, T0 + 5)
    assert counts(counters) == (1, 0, 1, 0)


def test_a_task_id_for_each_item_does_not_make_a_histogram_for_each() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    tasks = {f"item-{number}": ("SUCCESSFUL", T0 + 2, 1) for number in range(MAX_STAGES + 50)}
    counters.observe(None, a_run("r", "SUCCESSFUL", end=T0 + 3, **tasks), T0 + 3)  # type: ignore[arg-type]
    stages = counters.workflows["etl"].stage_durations
    assert len(stages) == MAX_STAGES + 1
    assert sum(stages[OTHER_STAGES].counts) == 50
    assert counters.folded_stages == 1


def test_old_marks_are_forgotten_and_still_not_counted_again(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    counters = Counters()
    counters.begin({}, T0, file)
    for hour in range(1, 6):
        at = T0 + 3600 * hour
        counters.observe(None, a_run(f"r{hour}", "SUCCESSFUL", at - 10, at), at)
        counters.advance(at)
    counters.save()
    assert len(json.loads(file.read_text())["lives"]) == 1
    again = Counters()
    again.begin({}, T0 + 90_000, file)
    for hour in range(1, 6):
        at = T0 + 3600 * hour
        again.observe(None, a_run(f"r{hour}", "SUCCESSFUL", at - 10, at), at)
    assert counts(again)[:2] == (5, 5)


def test_what_ended_while_the_exporter_was_away_counts_however_long_and_in_any_order(
    tmp_path: Path,
) -> None:
    file = tmp_path / "state.json"
    first = Counters()
    first.begin({}, T0, file)
    first.advance(T0)
    first.save()
    second = Counters()
    second.begin({}, T0 + 10_000, file)
    for minutes in (150, 100, 60, 5):  # the newest is read first
        at = T0 + 60 * minutes
        run = a_run(f"r{minutes}", "SUCCESSFUL", at - 9, at, t=("SUCCESSFUL", at, 1))
        second.observe(None, run, at)
    second.advance(T0 + 10_000)
    assert counts(second)[:3] == (4, 4, 4)


def test_storage_that_is_mounted_late_is_history_all_the_same() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    counters.observe(None, OLD, T0 - 50)
    assert counts(counters) == (0, 0, 0, 0)


def test_a_run_out_of_sight_for_a_while_is_not_another_one() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    running = a_run("r", "RUNNING", T0 + 1, t=("RUNNING", None, 1))
    lost = a_run("r", "RESUMABLE", T0 + 1, t=("CANCELED", None, 1))
    done = a_run("r", "SUCCESSFUL", T0 + 1, T0 + 9, t=("SUCCESSFUL", T0 + 9, 1))
    before = None
    for run in (running, lost, running, lost, running, done):
        counters.observe(before, run, T0 + 1)
        before = run
    assert counts(counters) == (1, 1, 1, 0)
    assert counters.workflows["etl"].tasks_finished[TaskState.CANCELED] == 0


def test_a_start_that_becomes_known_late_is_no_second_run_of_the_task() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    task = Task("t", "t", TaskState.SUCCESSFUL, end_time=T0 + 5, attempts=1)
    known = replace(task, start_time=T0 + 4)
    run = replace(a_run("r", "RUNNING"), tasks={"t": task})
    counters.observe(None, run, T0 + 1)
    counters.observe(run, replace(run, tasks={"t": known}), T0 + 1)
    assert counts(counters) == (1, 0, 1, 0)


def test_retries_seen_before_a_restart_are_not_counted_again(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    first = Counters()
    first.begin({}, T0, file)
    live = a_run("r", "RUNNING", t=("RUNNING", None, 3))
    first.observe(None, live, T0 + 1)
    first.save()
    second = Counters()
    second.begin({}, T0 + 5, file)
    second.observe(None, live, T0 + 1)
    assert counts(second) == (1, 0, 0, 2)


def test_siblings_of_a_run_whose_tasks_were_let_go_are_counted_once_each() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    failed = a_run("r", "FAILED", T0 + 1, T0 + 5, t=("FAILED", T0 + 5, 1))
    counters.observe(None, failed, T0 + 5)
    slim = replace(failed, tasks={}, last_transition=T0 + 5)
    one = replace(failed, tasks={**failed.tasks, **a_run("r", "FAILED", u=DONE_LATE).tasks})
    counters.observe(slim, one, T0 + 5)
    counters.observe(replace(slim, last_transition=T0 + 8), one, T0 + 5)
    assert counts(counters)[2] == 1


DONE_LATE = ("SUCCESSFUL", T0 + 8, 1)


def test_suspects_are_not_counted_until_one_of_them_is_the_culprit() -> None:
    counters = Counters()
    counters.begin({}, now=T0)
    failure = Failure(FailureKind.SYSTEM, SUSPECT, "one of two")
    tasks = a_run("r", "FAILED", a=("FAILED", T0 + 5, 1), b=("FAILED", T0 + 5, 1)).tasks
    run = a_run("r", "FAILED", T0 + 1, T0 + 5)
    suspected = {key: replace(task, failure=failure) for key, task in tasks.items()}
    before = replace(run, tasks=suspected)
    counters.observe(None, before, T0 + 5)
    assert counters.workflows["etl"].tasks_finished[TaskState.FAILED] == 0
    known = {
        "a": replace(tasks["a"], failure=Failure(FailureKind.SYSTEM, "WorkerCrashedError", ""))
    }
    after = replace(run, tasks={**known, "b": replace(tasks["b"], state=TaskState.SUCCESSFUL)})
    counters.observe(before, after, T0 + 5)
    assert counters.workflows["etl"].tasks_finished[TaskState.FAILED] == 1
    assert counters.workflows["etl"].tasks_finished[TaskState.SUCCESSFUL] == 1


def test_a_mark_from_the_future_does_not_hide_the_present(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    first = Counters()
    first.begin({}, T0, file)
    first.observe(None, a_run("odd", "SUCCESSFUL", T0 + 1, T0 + 2), T0 + 1e6)
    first.advance(T0 + 10)
    first.save()
    second = Counters()
    second.begin({}, T0 + 20, file)
    second.observe(None, a_run("odd", "SUCCESSFUL", T0 + 1, T0 + 2), T0 + 1e6)
    second.observe(None, a_run("next", "SUCCESSFUL", T0 + 15, T0 + 16), T0 + 16)
    assert counts(second)[:2] == (2, 2)


def test_a_folder_that_was_full_is_written_again_when_there_is_room(tmp_path: Path) -> None:
    blocker = tmp_path / "folder"
    blocker.write_text("")
    counters = Counters()
    counters.begin({}, T0, blocker / "state.json")
    counters.observe(None, a_run("r", "RUNNING"), T0 + 1)
    counters.save()
    blocker.unlink()
    counters.save()
    again = Counters()
    again.begin({}, T0 + 2, blocker / "state.json")
    assert counts(again)[0] == 1
