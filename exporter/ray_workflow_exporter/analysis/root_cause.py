"""Why a run failed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Optional

from ..model import Failure, FailureKind, Run, RunStatus, TaskState, slotted
from .dag import Dag


@slotted
@dataclass(frozen=True)
class RootCause:
    """The failure that ended a run, and how many tasks did not run because of it.

    `task_id` and `stage` are empty where no task is known to have failed.
    """

    task_id: str
    stage: str
    failure: Failure
    blocked: int


_NO_TASK_STARTED = Failure(
    FailureKind.SYSTEM,
    "NoRecord",
    "The run failed before its first task started, and left no record: the arguments or the code "
    "of a task could not be loaded on the worker, or its runtime environment could not be built.",
)
_NO_TASK_FAILED = Failure(
    FailureKind.SYSTEM, "NoRecord", "The run failed, and no task of it left a record of a failure."
)


def root_cause(run: Run, dag: Dag) -> Optional[RootCause]:
    """Find the failure that ended a FAILED run: the first one that no task caught.

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
        tasks = run.tasks.values()
        unstarted = all(it.start_time is None and not it.state.finished for it in tasks)
        blocked = len([task for task in tasks if task.state is TaskState.NOT_RUN])
        return RootCause("", "", _NO_TASK_STARTED if unstarted else _NO_TASK_FAILED, blocked)
    failed.sort(key=itemgetter(0))
    caught = _caught(run, dag, [task.task_id for _, task, _ in failed]) if dag.creators else ()
    uncaught = (
        candidate
        for candidate in failed
        # Ray catches what the task raised, never that its worker died.
        if candidate[2].kind is FailureKind.SYSTEM or candidate[1].task_id not in caught
    )
    _, task, failure = next(uncaught, failed[0])
    waiting: dict[str, list[str]] = {}  # for the end of a task
    for task_id, sources in dag.upstream.items():
        for source in sources:
            waiting.setdefault(source, []).append(task_id)
        output = run.tasks[task_id].continuation
        if output is not None:
            waiting.setdefault(output, []).append(task_id)
    reached = {task.task_id}
    queue = [task.task_id]
    while queue:
        for task_id in waiting.get(queue.pop(), ()):
            if task_id not in reached:
                reached.add(task_id)
                queue.append(task_id)
    blocked = len([it for it in reached if run.tasks[it].state is TaskState.NOT_RUN])
    return RootCause(task.task_id, task.stage, failure, blocked)


def _caught(run: Run, dag: Dag, failed: list[str]) -> set[str]:
    """Return those whose failure is caught by the task that returned their sub-DAG, or further out.

    Ray searches for the catcher in the same way (`_iter_callstack` in
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
