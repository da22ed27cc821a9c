"""The failure because of which a run failed."""

from typing import Any, Optional

import pytest
from hypothesis import given

from ray_workflow_exporter.analysis.analysis import RootCause
from ray_workflow_exporter.model import Run, RunStatus, Task
from support.analysis import analyse
from support.runs import (
    CRASH,
    ERROR,
    FAILED,
    NOT_RUN,
    any_runs,
    run,
    task,
)


def root_cause(it: Run) -> Optional[RootCause]:
    return analyse(it).root_cause


def known_upstream(it: Run, task_id: str) -> set[str]:
    return {up for up in it.tasks[task_id].upstream if up in it.tasks} - {task_id}


def naive_blocked(it: Run, failed: str) -> set[str]:
    reached = {failed}
    while True:
        more = {
            task_id
            for task_id, one in it.tasks.items()
            if reached & known_upstream(it, task_id) or one.continuation in reached
        }
        if more <= reached:
            return {task_id for task_id in reached if it.tasks[task_id].state is NOT_RUN}
        reached |= more


@given(any_runs())
def test_a_failed_run_has_a_root_cause_with_a_text_and_no_other_run_has(it):
    cause = root_cause(it)
    failed = {
        one.task_id for one in it.tasks.values() if one.state is FAILED and one.failure is not None
    }
    assert (cause is not None) == (it.status is RunStatus.FAILED)
    if cause is not None:
        assert bool(cause.task_id) == bool(failed)
    if cause is not None and failed:
        culprit = it.tasks[cause.task_id]
        assert culprit.task_id in failed
        assert (cause.stage, cause.failure) == (culprit.stage, culprit.failure)
        assert cause.blocked == len(naive_blocked(it, cause.task_id))


def failed_task(task_id: str, *upstream: str, end: Any = None, **fields: Any) -> Task:
    fields.setdefault("failure", ERROR)
    return task(task_id, *upstream, span=(0, end), state=FAILED, **fields)


@pytest.mark.parametrize(
    ("ends", "culprit"),
    [((5, 3), "b"), ((3, 3), "a"), ((None, 9), "b"), ((None, None), "a"), ((0, None), "a")],
)
def test_the_root_cause_is_the_failure_that_came_first(ends, culprit):
    it = run(failed_task("a", end=ends[0]), failed_task("b", end=ends[1]), status=RunStatus.FAILED)
    assert root_cause(it).task_id == culprit


def test_a_task_that_failed_without_a_known_failure_is_no_root_cause():
    it = run(failed_task("a", end=1, failure=None), status=RunStatus.FAILED)
    cause = root_cause(it)
    assert (cause.task_id, cause.stage, cause.failure.exception) == ("", "", "NoRecord")
    assert "no task of it left a record" in cause.failure.message


@pytest.mark.parametrize("tasks", [(), ("a", "b")])
def test_a_run_that_failed_before_its_first_task_started_says_so(tasks):
    it = run(*(task(name, state=NOT_RUN) for name in tasks), status=RunStatus.FAILED)
    cause = root_cause(it)
    assert (cause.task_id, cause.blocked) == ("", len(tasks))
    assert "failed before its first task started" in cause.failure.message
    assert analyse(it).critical_path == ()


@pytest.mark.parametrize(("failure", "culprit"), [(ERROR, "later"), (CRASH, "caught")])
def test_what_a_creator_caught_is_no_root_cause_unless_the_worker_died(failure, culprit):
    it = run(
        task("p", continuation="q", catch_exceptions=True),
        task("q", continuation="c"),
        failed_task("caught", end=1, failure=failure),
        failed_task("caught too", end=2),
        task("c", "caught", "caught too", state=NOT_RUN),
        failed_task("later", end=5),
        status=RunStatus.FAILED,
    )
    assert root_cause(it).task_id == culprit


def test_a_root_cause_blocks_the_consumers_of_the_task_whose_workflow_it_is_in():
    it = run(
        task("a"),
        task("p", "a", continuation="c"),
        failed_task("x", end=1),
        task("c", "x", state=NOT_RUN),
        task("after", "p", state=NOT_RUN),
        task("last", "after", "other", state=NOT_RUN),
        task("other", "a", state=NOT_RUN),
        status=RunStatus.FAILED,
    )
    assert root_cause(it).blocked == 3
