"""The failed task of a FAILED run in which no task has a record of its failure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Optional

from ..model import Failure, FailureKind, Task, TaskState
from ..sources.records import RayTaskDetail, StoredTask
from .evidence import Evidence, clock_offset

# Exception names of failures that left no file behind: of the culprit, and of each of several
# tasks of which one failed.
NO_RECORD, SUSPECT = "NoRecord", "NoRecordSuspect"
_CRASHED = (
    "The worker left no record: it crashed, exited, ran out of memory, or raised something that "
    "cannot be pickled."
)
_UNSTARTED = (
    "It failed before it started: its arguments or its code could not be loaded on the worker, "
    "its runtime environment could not be built, or its worker died."
)
_UNPICKLABLE = Failure(
    FailureKind.APPLICATION,
    "UnpicklableOutput",
    "The task returned a value that cannot be pickled, so its output could not be stored.",
)
# Names that Ray's state API uses for errors, as the exceptions that users see.
_SYSTEM_ERRORS = {
    "WORKER_DIED": "WorkerCrashedError",
    "NODE_DIED": "NodeDiedError",
    "OUT_OF_MEMORY": "OutOfMemoryError",
    "OUT_OF_DISK_ERROR": "OutOfDiskError",
    "OBJECT_LOST": "ObjectLostError",
    "TASK_CANCELLED": "TaskCancelledError",
    "RUNTIME_ENV_SETUP_FAILED": "RuntimeEnvSetupError",
}
_RAISED = re.compile(r"([A-Za-z_][\w.]{0,200}): *(.*)", re.DOTALL)
_MOST_UNSTARTED = 20  # beyond, nothing is said of single tasks that did not start
_WHOLE_SECOND = 1.0  # the grain of file times on S3


def attribute_failure(tasks: dict[str, Task], evidence: Evidence) -> None:
    """Find the failed task of a FAILED run in which none has a record of its failure.

    A recorded exception decides; without one, the most telling traces do, in this order: an
    output that is missing where no other is; tasks that were at work when the run failed; tasks
    that were submitted and did not start; an output that is missing where others are as well, as
    after a clean-up. With several suspects each gets the failure, and its message
    says so.
    """
    stored = evidence.stored.tasks
    missing = [task for task_id, task in tasks.items() if _lost_output(task, stored.get(task_id))]
    used = {
        up for task in tasks.values() if task.state is not TaskState.NOT_RUN for up in task.upstream
    }
    unused = [task for task in missing if task.task_id not in used]
    unrecorded = Failure(FailureKind.SYSTEM, NO_RECORD, _CRASHED)
    suspects: Collection[Task] = unused
    if len(unused) == len(missing) and unused:
        unrecorded = _UNPICKLABLE
    elif suspects := [task for task in tasks.values() if _was_at_work(task, evidence)]:
        pass
    elif suspects := _submitted(tasks):
        unrecorded = replace(unrecorded, message=_UNSTARTED)
    elif unused:
        suspects, unrecorded = [max(unused, key=lambda task: task.end_time or 0.0)], _UNPICKLABLE
    if len(suspects) > 1 and unrecorded.exception == NO_RECORD:
        text = f"One of {len(suspects)} tasks that may have failed the run. {unrecorded.message}"
        unrecorded = replace(unrecorded, exception=SUSPECT, message=text)
    for task in suspects:
        end = task.end_time if task.state is TaskState.SUCCESSFUL else evidence.end_time
        tasks[task.task_id] = replace(
            task, state=TaskState.FAILED, end_time=end, failure=unrecorded
        )


def _lost_output(task: Task, stored: Optional[StoredTask]) -> bool:
    """Whether a task returned and must have stored its output, yet has none."""
    return (
        task.state is TaskState.SUCCESSFUL
        and stored is not None
        and stored.output_bytes is None
        and stored.continuation is None
        and bool(stored.checkpoint)
        and stored.end_time is not None
    )


def _was_at_work(task: Task, evidence: Evidence) -> bool:
    """Whether a task that left no end had started before the run failed."""
    if task.state not in (TaskState.CANCELED, TaskState.RUNNING):
        return False
    stored = evidence.stored.tasks.get(task.task_id)
    if stored is None or evidence.ended_at is None or clock_offset(stored) is None:
        return True
    return (stored.start_file_time or 0.0) <= evidence.ended_at + _WHOLE_SECOND


def _submitted(tasks: dict[str, Task]) -> list[Task]:
    """Return the tasks that were submitted to Ray and did not start; none if there are many."""
    unstarted = [
        task
        for task in tasks.values()
        if task.state is TaskState.NOT_RUN and task.submit_time is not None
    ]
    return unstarted if len(unstarted) <= _MOST_UNSTARTED else []


def is_culprit(detail: Optional[RayTaskDetail]) -> bool:
    """Whether Ray's state API has an error of the task that may have failed its run."""
    return detail is not None and detail.error_type not in (None, "TASK_CANCELLED")


def failure_from_ray(detail: Optional[RayTaskDetail]) -> Failure:
    """Return the failure that Ray's state API describes."""
    assert detail is not None
    error = detail.error_type or NO_RECORD
    message = (detail.error_message or "").strip()
    if error != "TASK_EXECUTION_EXCEPTION":
        name = _SYSTEM_ERRORS.get(error, error)
        return Failure(FailureKind.SYSTEM, name, message or _CRASHED)
    # The last line of a traceback: the exception's name and text.
    last = message.rpartition("\n")[2]
    found = _RAISED.fullmatch(last)
    name = found[1].rpartition(".")[2] if found else error
    return Failure(FailureKind.APPLICATION, name, (found[2] if found else last) or name)
