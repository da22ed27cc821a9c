from __future__ import annotations

from dataclasses import replace

from ray_workflow_exporter.model import Run, Task, TaskState
from ray_workflow_exporter.poll.tracked import FEWEST_CHECKS, MOST_CHECKS, Pending
from support.runs import RUNNING, run

MANY = 5 * MOST_CHECKS


def waiting_run() -> Run:
    # The last one was submitted first.
    return run(
        *(Task(f"t{n}", "t", TaskState.PENDING, submit_time=float(MANY - n)) for n in range(MANY))
    )


def names(first: int, last: int) -> set[str]:
    return {f"t{MANY - 1 - n}" for n in range(first, last)}


def test_the_oldest_are_looked_at_each_time_and_the_others_by_turns() -> None:
    pending = Pending()
    pending.update(waiting_run(), None)
    assert pending.choose() == names(0, MOST_CHECKS)
    pending.found(0)
    seen = set()
    for _ in range(MANY // FEWEST_CHECKS):
        chosen = pending.choose()
        assert names(0, FEWEST_CHECKS) <= chosen
        assert len(chosen) <= 2 * FEWEST_CHECKS
        seen |= chosen
    assert seen == names(0, MANY)


def test_more_are_looked_at_while_many_start() -> None:
    pending = Pending()
    pending.update(waiting_run(), None)
    pending.found(0)
    few = len(pending.choose())
    pending.found(few)
    assert len(pending.choose()) > 4 * few
    pending.found(MANY)
    assert len(pending.choose()) <= 2 * MOST_CHECKS


def test_what_started_is_left_out_and_what_is_tried_again_comes_last() -> None:
    pending = Pending()
    it = run(*(Task(name, "t", TaskState.PENDING, submit_time=1.0) for name in "abc"))
    pending.update(it, None)
    begun = replace(it, tasks={**it.tasks, "a": replace(it.tasks["a"], state=RUNNING)})
    pending.update(begun, {"a", "gone"})
    assert pending.choose() == {"b", "c"}
    again = replace(it.tasks["a"], submit_time=9.0)
    pending.update(replace(begun, tasks={**begun.tasks, "a": again}), {"a"})
    assert pending.choose() == {"a", "b", "c"}
