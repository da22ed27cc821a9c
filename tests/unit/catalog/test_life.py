"""Starts and ends are counted by the life of a run: not by its status, nor by times of files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from ray_workflow_exporter.catalog.counters import Counters
from ray_workflow_exporter.catalog.life import Life
from ray_workflow_exporter.catalog.workflow_counters import WorkflowCounters
from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState
from ray_workflow_exporter.sources.records import EndedLife, Mark

T0 = 1_700_000_000.0
SUCCESSFUL, FAILED, CANCELED = RunStatus.SUCCESSFUL, RunStatus.FAILED, RunStatus.CANCELED


def a_run(
    status: str,
    start: Optional[float],
    end: Optional[float] = None,
    task: str = "RUNNING",
    **facts: Any,
) -> Run:
    """Make a run of one task that takes the whole time of the run."""
    began = None if start is None else start + 0.1
    only = Task("t", "t", TaskState(task), start_time=began, end_time=end, attempts=1)
    tasks = {} if start is None else {"t": only}
    known = {"workflow_id": "etl", "workflow": "etl", "tasks": tasks, **facts}
    return Run(status=RunStatus(status), start_time=start, end_time=end, **known)


def new_counters() -> Counters:
    counters = Counters()
    counters.begin({}, now=T0)
    return counters


def counts(counters: Counters) -> tuple[int, int, int, int]:
    """Return started, SUCCESSFUL, FAILED and CANCELED runs of the workflow."""
    it = counters.workflows.get("etl") or WorkflowCounters()
    return it.started, it.finished[SUCCESSFUL], it.finished[FAILED], it.finished[CANCELED]


def durations(counters: Counters, status: RunStatus) -> tuple[int, float]:
    histogram = counters.workflows["etl"].run_durations[status]
    return sum(histogram.counts), histogram.total


def test_an_id_that_is_deleted_and_run_again_at_once_is_another_run_each_time() -> None:
    counters = new_counters()
    before = None
    for number in range(4):
        start = T0 + 1 + 8 * number
        run = a_run("RUNNING", start)
        ended = EndedLife(SUCCESSFUL, start - 0.5) if before else None
        counters.observe(before, run, number=number, ended=ended)
        before = run
    counters.observe(before, a_run("SUCCESSFUL", T0 + 25, T0 + 33, "SUCCESSFUL"))
    assert counts(counters) == (4, 4, 0, 0)
    assert durations(counters, SUCCESSFUL) == (4, 3 * 7.5 + 8.0)


def test_a_run_that_is_resumed_before_its_failure_was_seen_failed_all_the_same() -> None:
    counters = new_counters()
    first, second, third = (a_run("RUNNING", T0 + at) for at in (1, 11, 21))
    counters.observe(None, first, number=1)
    counters.observe(first, second, number=2, ended=EndedLife(FAILED, T0 + 10.8))
    counters.observe(second, third, number=3, ended=EndedLife(FAILED, T0 + 20.8))
    counters.observe(third, a_run("SUCCESSFUL", T0 + 21, T0 + 30, "SUCCESSFUL"))
    assert counts(counters) == (3, 1, 2, 0)


def test_a_start_that_ray_writes_twice_is_one_start() -> None:
    counters = new_counters()
    submitted = replace(a_run("RUNNING", T0 + 1), tasks={"t": Task("t", "t", TaskState.WAITING)})
    executed = replace(submitted, start_time=T0 + 1.8)
    counters.observe(None, submitted)
    counters.observe(submitted, executed)
    counters.observe(executed, a_run("SUCCESSFUL", T0 + 1.8, T0 + 3, "SUCCESSFUL"))
    assert counts(counters) == (1, 1, 0, 0)
    assert durations(counters, SUCCESSFUL) == (1, pytest.approx(1.2))


def test_a_run_that_waited_in_the_queue_is_one_start() -> None:
    counters = new_counters()
    queued, running = a_run("PENDING", None), a_run("RUNNING", T0 + 5)
    counters.observe(None, queued, number=7)
    counters.observe(queued, running, number=7)
    counters.observe(running, a_run("FAILED", T0 + 5, T0 + 6, "FAILED"))
    again = a_run("PENDING", T0 + 5)  # resumed and queued: the start is still the old one
    counters.observe(a_run("FAILED", T0 + 5, T0 + 6, "FAILED"), again, number=8)
    counters.observe(again, a_run("RUNNING", T0 + 9), number=8)
    assert counts(counters) == (2, 0, 1, 0)


@pytest.mark.parametrize("seen", [False, True], ids=["between polls", "by a poll"])
def test_a_replay_of_a_run_that_succeeded_is_no_run(seen: bool) -> None:
    counters = new_counters()
    done = a_run("SUCCESSFUL", T0 + 1, T0 + 5, "SUCCESSFUL")
    counters.observe(None, done)
    replayed = replace(done, start_time=T0 + 50, end_time=T0 + 50.01)
    if seen:
        running = replace(replayed, status=RunStatus.RUNNING, end_time=None)
        counters.observe(done, running, number=4)
        counters.observe(running, replayed)
    else:
        counters.observe(done, replayed)
    assert counts(counters) == (1, 1, 0, 0)
    counters.observe(replayed, a_run("RUNNING", T0 + 60), number=5)  # deleted, and run for real
    assert counts(counters) == (2, 1, 0, 0)


def test_a_run_that_was_there_before_the_exporter_never_finishes_without_a_start() -> None:
    counters = Counters()
    counters.begin({"etl": Mark(RunStatus.PENDING, T0 - 30)}, now=T0)
    queued = a_run("PENDING", None)
    counters.observe(None, queued, T0 - 30)
    counters.observe(queued, a_run("SUCCESSFUL", T0 + 2, T0 + 3, "SUCCESSFUL"))
    assert counts(counters) == (1, 1, 0, 0)


def test_a_run_that_ended_and_was_deleted_between_two_polls_is_counted() -> None:
    counters = new_counters()
    running = a_run("RUNNING", T0 + 1)
    counters.observe(None, running, number=1)
    counters.remove(running, EndedLife(SUCCESSFUL, T0 + 4))
    assert counts(counters) == (1, 1, 0, 0)


def test_a_life_that_was_interrupted_has_neither_failed_nor_ended() -> None:
    counters = new_counters()
    running, lost = a_run("RUNNING", T0 + 1), a_run("RESUMABLE", T0 + 1)
    counters.observe(None, running, number=1)
    counters.observe(running, lost)
    counters.observe(lost, a_run("RUNNING", T0 + 30), number=2)  # in another actor
    assert counts(counters) == (2, 0, 0, 0)


def test_files_that_were_copied_back_are_no_news(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    first = Counters()
    old = a_run("FAILED", T0 - 300, T0 - 290, "FAILED", workflow_id="old")
    canceled = a_run("CANCELED", T0 - 300, T0 - 290, "CANCELED", workflow_id="canceled")
    marks = {"old": Mark(FAILED, T0 - 290), "canceled": Mark(CANCELED, T0 - 290)}
    first.begin(marks, T0, file)
    counted = a_run("SUCCESSFUL", T0 + 1, T0 + 2, "SUCCESSFUL", workflow_id="counted")
    for run, mark_time in ((old, T0 - 290), (canceled, T0 - 290), (counted, T0 + 2)):
        first.observe(None, run, mark_time)
    first.save()
    assert counts(first) == (1, 1, 0, 0)
    second = Counters()
    second.begin({}, T0 + 86_400, file)
    copied = T0 + 86_400  # what the marks say now, and with it the end of a canceled run
    restored = a_run("FAILED", T0 - 900, T0 - 890, "FAILED", workflow_id="from the backup")
    for run in (old, replace(canceled, end_time=copied), counted, restored):
        second.observe(None, run, copied)
    assert counts(second) == (1, 1, 0, 0)


def test_a_store_without_mtimes_counts_by_the_runs_own_times() -> None:
    counters = new_counters()
    counters.observe(None, a_run("SUCCESSFUL", T0 + 1, T0 + 2, "SUCCESSFUL"), 0.0)
    assert counts(counters) == (1, 1, 0, 0)


def test_history_that_is_still_to_be_read_at_a_restart_stays_history(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    first = Counters()
    first.begin({"etl": Mark(FAILED, T0 + 3)}, T0, file)  # its clock is ahead
    first.save()
    second = Counters()
    second.begin({}, T0 + 9, file)
    second.observe(None, a_run("FAILED", T0 + 1, T0 + 3, "FAILED"), T0 + 3)
    assert counts(second) == (0, 0, 0, 0)


def test_what_happens_during_a_restart_is_counted_by_lives(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    first = Counters()
    first.begin({}, T0, file)
    failed = a_run("FAILED", T0 + 1, T0 + 5, "FAILED")
    first.observe(None, failed)
    first.save()
    second = Counters()
    second.begin({}, T0 + 60, file)
    second.observe(None, failed)
    assert counts(second) == (1, 0, 1, 0)
    second.observe(failed, a_run("FAILED", T0 + 20, T0 + 25, "FAILED"))
    assert counts(second) == (2, 0, 2, 0)


def test_a_life_survives_the_state_file() -> None:
    life = Life(T0, T0 + 1, T0 + 2, FAILED, started=True, settled=True)
    assert Life.from_json(life.to_json()) == replace(life, restored=True)
