"""What brought a run down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from ..model import Failure, FailureKind, Run, RunStatus, TaskState, slotted
from .dag import Dag


@slotted
@dataclass(frozen=True)
class RootCause:
    """The failure that brought a run down, and how many tasks it kept from running."""

    task_id: str
    stage: str
    failure: Failure
    blocked: int


def root_cause(run: Run, dag: Dag) -> Optional[RootCause]:
    """Find the failure that brought a FAILED run down: the first one that nobody caught.

    Ray fails the run with the first such task and starts no other one. `blocked` counts the
    NOT_RUN tasks that depend on it, at any distance.
    """
    if run.status is not RunStatus.FAILED:
        return None
    failed = [
        (math.inf if task.end_time is None else task.end_time, task, task.failure)
        for task in run.tasks.values()
        if task.state is TaskState.FAILED and task.failure is not None
    ]
    if not failed:
        return None
    failed.sort(key=lambda candidate: candidate[0])
    caught = _caught(run, dag, [task.task_id for _, task, _ in failed])
    uncaught = (
        candidate
        for candidate in failed
        # Ray catches what the task raised, never that its worker died.
        if candidate[2].kind is FailureKind.SYSTEM or candidate[1].task_id not in caught
    )
    _, task, failure = next(uncaught, failed[0])
    return RootCause(task.task_id, task.stage, failure, _blocked(run, dag, task.task_id))


def _caught(run: Run, dag: Dag, failed: list[str]) -> set[str]:
    """Pick those whose failure is caught by the task that returned their sub-DAG, or further out.

    Ray looks for the catcher in the same way (`_iter_callstack` in
    `ray/workflow/workflow_executor.py`) and goes on with the run.
    """
    catches: dict[str, bool] = {}  # a task or one of its creators
    caught = set()
    for task_id in failed:
        passed = []
        creator = dag.creators.get(task_id)
        while creator is not None and creator not in catches:
            catches[creator] = bool(run.tasks[creator].catch_exceptions)
            if catches[creator]:
                break
            passed.append(creator)
            creator = dag.creators.get(creator)
        if creator is not None and catches[creator]:
            catches.update(dict.fromkeys(passed, True))
            caught.add(task_id)
    return caught


def _blocked(run: Run, dag: Dag, failed: str) -> int:
    waiting: dict[str, list[str]] = {}  # for the end of a task
    for task_id, sources in dag.upstream.items():
        for source in sources:
            waiting.setdefault(source, []).append(task_id)
        output = run.tasks[task_id].continuation
        if output is not None:
            waiting.setdefault(output, []).append(task_id)
    reached = {failed}
    queue = [failed]
    while queue:
        for task_id in waiting.get(queue.pop(), ()):
            if task_id not in reached:
                reached.add(task_id)
                queue.append(task_id)
    return sum(run.tasks[task_id].state is TaskState.NOT_RUN for task_id in reached)
