"""The truth about a run, from what storage and the management actor each know of it.

Neither source knows all: the actor has no start times and forgets a run the moment it ends,
storage cannot tell a waiting task from a running one and never says RESUMABLE. What both have
lost (attempts, submit times, sizes of outputs without a checkpoint) is carried over from the
Run that was made of them before. Pure functions, no I/O.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Optional, TypeVar

from ..model import NO_METADATA, Failure, FailureKind, Run, RunStatus, Task, TaskState
from ..sources.records import RERUN_GAP, LiveRun, LiveTask, RayTaskDetail, StoredRun, StoredTask
from .naming import stage_name

T = TypeVar("T")

# File times come from a coarser clock than the times inside the files: up to 10 ms behind on a
# local disk, whole seconds on S3.
CLOCK_GRAIN = 0.05

# Exception names of failures that left no file behind: of the culprit, and of each of several
# tasks of which one is.
NO_RECORD, SUSPECT = "NoRecord", "NoRecordSuspect"
_NO_RECORD_TEXT = (
    "The worker left no record: it crashed, exited, ran out of memory, or raised something that "
    "cannot be pickled."
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
}
_NO_LIVE_TASK = LiveTask()
_NO_TASK = Task("", "", TaskState.WAITING)


@dataclass(frozen=True)
class Evidence:
    """All that is known of one run at one poll.

    `mark_time` is when the run got its status; `may_still_write` says that left-over siblings
    of a failed task may be at work; `touched` are the tasks that may differ from `previous`,
    None for all of them.
    """

    workflow: str
    status: RunStatus
    stored: StoredRun
    live: Optional[LiveRun] = None
    previous: Optional[Run] = None
    mark_time: Optional[float] = None
    may_still_write: bool = False
    deadline: Optional[float] = None
    details: Optional[Mapping[str, RayTaskDetail]] = None
    touched: Optional[Collection[str]] = None


def merge(evidence: Evidence) -> Run:
    """Make one Run of what the sources say.

    What did not change stays the same object: tasks, and the Run itself. So `changed_tasks` finds
    out what did.
    """
    if evidence.stored.outlined:
        return _in_outline(evidence)
    status, stored, live = evidence.status, evidence.stored, evidence.live
    start, end = _run_times(evidence)
    previous = evidence.previous
    if previous is not None and previous.start_time not in (None, start):
        previous = None  # another life of the same id
    known = previous.tasks if previous is not None else {}

    whole = evidence.touched is None or previous is None or previous.status is not status
    tasks = dict(known)
    changed = []
    for task_id in (
        _task_ids(known, live, stored) if whole else _in_order(evidence.touched or (), known, live)
    ):
        before = known.get(task_id)
        task = _task(evidence, task_id, before, end)
        if before is None or task != before:
            tasks[task_id] = task
            changed.append(task)
    if status is RunStatus.FAILED:
        _blame_somebody(tasks, end)
    if status is RunStatus.SUCCESSFUL:
        start, end = _true_span(tasks.values(), start, end)
    run = Run(
        workflow_id=stored.workflow_id,
        workflow=evidence.workflow,
        status=status,
        tasks=tasks,
        output_task_id=stored.output_task_id or (live.output_task_id if live else None),
        start_time=start,
        end_time=end,
        last_transition=_last_transition(changed, previous, start, end, evidence.mark_time),
        deadline=evidence.deadline,
        user_metadata=stored.user_metadata,
        outlined=stored.outlined,
    )
    if previous is not None and not changed and replace(run, tasks=known) == previous:
        return previous
    return run


def _in_outline(evidence: Evidence) -> Run:
    """Make a run of which it is known that all went well, once."""
    stored = evidence.stored
    start, end = stored.start_time, stored.end_time
    tasks = {
        task_id: Task(
            task_id,
            sys.intern(stage_name(task_id, stored.base_names)),
            TaskState.SUCCESSFUL,
            output_bytes=task.output_bytes,
        )
        for task_id, task in stored.tasks.items()
    }
    return Run(
        workflow_id=stored.workflow_id,
        workflow=evidence.workflow,
        status=evidence.status,
        tasks=tasks,
        start_time=start,
        end_time=end,
        last_transition=_last_transition((), None, start, end, evidence.mark_time),
        deadline=evidence.deadline,
        user_metadata=stored.user_metadata,
        outlined=True,
    )


def outline_suffices(stored: StoredRun) -> bool:
    """Whether all that is told of a run that is not exposed is known from its outline.

    Not if Ray overwrote its start and left its end: only the tasks tell how long it took then.
    """
    start, end = stored.start_time, stored.end_time
    return (
        stored.status is RunStatus.SUCCESSFUL
        and start is not None
        and end is not None
        and start <= end
    )


def _task_ids(
    known: Mapping[str, Task], live: Optional[LiveRun], stored: StoredRun
) -> Iterable[str]:
    """List all tasks in a stable order: as known before, then as Ray has them, then by id."""
    ids = dict.fromkeys(known)
    if live is not None:
        ids.update(dict.fromkeys(live.tasks))
    ids.update(dict.fromkeys(sorted([task_id for task_id in stored.tasks if task_id not in ids])))
    return ids


def _in_order(
    touched: Iterable[str], known: Mapping[str, Task], live: Optional[LiveRun]
) -> Iterable[str]:
    """Put those that are new into the order of `_task_ids`, without a walk over all tasks."""
    old = [task_id for task_id in touched if task_id in known]
    new = {task_id for task_id in touched if task_id not in known}
    named = []
    if live is not None:
        # What is new to Ray stands at the end.
        missing = len([task_id for task_id in new if task_id in live.tasks])
        newest_first = (task_id for task_id in reversed(tuple(live.tasks)) if task_id in new)
        named = list(islice(newest_first, missing))[::-1]
    return [*old, *named, *sorted(new.difference(named))]


def _run_times(evidence: Evidence) -> tuple[Optional[float], Optional[float]]:
    stored, status = evidence.stored, evidence.status
    start, end = stored.start_time, stored.end_time
    if not status.finished:
        return start, None
    # A resume overwrites the start and keeps the old end: an end before its start is stale.
    if end is not None and start is not None and end < start:
        end = None
    # Ray writes no end for a cancelled run; the moment it got its mark is the end.
    return start, end if end is not None else evidence.mark_time


def _true_span(
    tasks: Iterable[Task], start: Optional[float], end: Optional[float]
) -> tuple[Optional[float], Optional[float]]:
    """Undo a re-run of a successful id: Ray only returns the old result, but notes new times."""
    ends = [task.end_time for task in tasks if task.end_time is not None]
    starts = [task.start_time for task in tasks if task.start_time is not None]
    if start is not None and ends and starts and max(ends) < start - RERUN_GAP:
        return min(starts), max(ends)
    return start, end


def _last_transition(
    tasks: Iterable[Task], previous: Optional[Run], *run_times: Optional[float]
) -> Optional[float]:
    times = [moment for moment in run_times if moment is not None]
    if previous is not None and previous.last_transition is not None:
        times.append(previous.last_transition)
    for task in tasks:
        moment = task.end_time or task.start_time or task.submit_time
        if moment is not None:
            times.append(moment)
    return max(times, default=None)


def _task(
    evidence: Evidence, task_id: str, before: Optional[Task], run_end: Optional[float]
) -> Task:
    stored = evidence.stored.tasks.get(task_id) or StoredTask(task_id)
    if evidence.live is None:
        live = _NO_LIVE_TASK
        state = _stored_state(stored, evidence)
    else:
        live = evidence.live.tasks.get(task_id, _NO_LIVE_TASK)
        state = _live_state(live, stored, evidence.live)
    past = before or _NO_TASK

    ray_task_id = live.ray_task_id or past.ray_task_id
    detail = evidence.details.get(ray_task_id) if evidence.details and ray_task_id else None
    failure = _failure(stored, state, detail)
    left_over = evidence.live is None and state in (TaskState.CANCELED, TaskState.RUNNING)
    if left_over and detail is not None and _is_culprit(detail):
        state, failure = TaskState.FAILED, _from_detail(detail)
    if failure is None and state is TaskState.FAILED:
        failure = past.failure

    return Task(
        task_id=task_id,
        stage=sys.intern(stage_name(task_id, evidence.stored.base_names)),
        state=state,
        upstream=_first(live.upstream, stored.upstream, past.upstream) or (),
        continuation=_first(live.continuation, stored.continuation, past.continuation),
        submit_time=_first(live.submit_time, past.submit_time),
        start_time=None if state in (TaskState.WAITING, TaskState.PENDING) else stored.start_time,
        end_time=_end_time(live, stored, state, run_end),
        output_bytes=_first(
            stored.output_bytes, live.output_bytes, past.output_bytes if state.finished else None
        ),
        attempts=max(_attempts(live, stored, state), past.attempts),
        max_retries=_first(stored.max_retries, live.max_retries),
        checkpoint=_first(stored.checkpoint, live.checkpoint),
        catch_exceptions=_first(stored.catch_exceptions, live.catch_exceptions),
        failure=failure,
        ray_task_id=ray_task_id,
        node_id=(detail.node_id if detail else None) or past.node_id,
        user_metadata=stored.user_metadata or NO_METADATA,
    )


def _first(value: Optional[T], other: Optional[T], last: Optional[T] = None) -> Optional[T]:
    """Return the first value that is known."""
    if value is not None:
        return value
    return other if other is not None else last


def _live_state(live: LiveTask, stored: StoredTask, run: LiveRun) -> TaskState:
    if live.done or live.finish_time is not None:
        return TaskState.SUCCESSFUL
    if live.submit_time is not None and not live.running and _raised(stored):
        return TaskState.FAILED  # a creator of it caught the exception, and the run goes on
    if live.submit_time is None:
        # A resumed run: Ray holds the tasks that it does not need to run again by name only.
        if run.resumed and _left_a_result(stored) and not live.running:
            return TaskState.SUCCESSFUL
        return TaskState.PENDING if live.running else TaskState.WAITING
    started = stored.start_time is not None and (
        (live.retries == 0 and not run.resumed)
        or stored.start_time >= live.submit_time - CLOCK_GRAIN
    )
    return TaskState.RUNNING if started else TaskState.PENDING


def _left_a_result(stored: StoredTask) -> bool:
    return (
        stored.output_bytes is not None
        or stored.continuation is not None
        # Sub-tasks of a continuation without checkpoint leave times and nothing else.
        or (stored.end_time is not None and not stored.checkpoint)
    )


def _raised(stored: StoredTask) -> bool:
    """Whether exception.pkl belongs to the last attempt; Ray never removes an earlier one."""
    if stored.exception is None:
        return False
    if stored.start_time is None or stored.exception_time is None:
        return True
    grain = 1.0 if stored.exception_time.is_integer() else CLOCK_GRAIN
    return stored.exception_time + grain >= stored.start_time


def _stored_state(stored: StoredTask, evidence: Evidence) -> TaskState:
    status = evidence.status
    if not status.finished and status is not RunStatus.RESUMABLE:
        # Live by its mark, but nobody could be asked: say what the files say.
        if _left_a_result(stored):
            return TaskState.SUCCESSFUL
        return TaskState.WAITING if stored.start_time is None else TaskState.RUNNING
    if _left_a_result(stored):
        return TaskState.SUCCESSFUL
    if _raised(stored):
        return TaskState.SUCCESSFUL if stored.catch_exceptions else TaskState.FAILED
    if stored.start_time is None:
        return TaskState.NOT_RUN
    if stored.end_time is not None and stored.end_time >= stored.start_time:
        # The body returned and a checkpoint was due, yet there is no output.
        return TaskState.FAILED if status is RunStatus.FAILED else TaskState.CANCELED
    if evidence.may_still_write:
        return TaskState.RUNNING
    return TaskState.CANCELED


def _blame_somebody(tasks: dict[str, Task], run_end: Optional[float]) -> None:
    """Find the failure of a FAILED run in which no task left a record of one.

    The tasks that were at work when the run failed are the suspects. With one of them the case
    is clear; with several each gets the failure, and its message says so.
    """
    if any(task.state is TaskState.FAILED for task in tasks.values()):
        return
    suspects = [
        task
        for task in tasks.values()
        if task.state in (TaskState.CANCELED, TaskState.RUNNING)
        and (run_end is None or task.start_time is None or task.start_time <= run_end + 1.0)
    ]
    name, text = NO_RECORD, _NO_RECORD_TEXT
    if len(suspects) > 1:
        name = SUSPECT
        text = f"One of the {len(suspects)} tasks that ran when the run failed is to blame. {text}"
    for task in suspects:
        tasks[task.task_id] = replace(
            task,
            state=TaskState.FAILED,
            end_time=run_end,
            failure=Failure(FailureKind.SYSTEM, name, text),
        )


def _failure(
    stored: StoredTask, state: TaskState, detail: Optional[RayTaskDetail]
) -> Optional[Failure]:
    if stored.exception is not None and (state is not TaskState.FAILED or _raised(stored)):
        if state is TaskState.SUCCESSFUL and not stored.catch_exceptions:
            return None  # of an earlier attempt: retried, then successful
        return Failure(FailureKind.APPLICATION, *stored.exception)
    if state is not TaskState.FAILED:
        return None
    if detail is not None and detail.error_type is not None:
        return _from_detail(detail)
    return _UNPICKLABLE if stored.end_time is not None else None


def _is_culprit(detail: RayTaskDetail) -> bool:
    return detail.error_type is not None and detail.error_type != "TASK_CANCELLED"


def _from_detail(detail: RayTaskDetail) -> Failure:
    error = detail.error_type or NO_RECORD
    kind = FailureKind.APPLICATION if error == "TASK_EXECUTION_EXCEPTION" else FailureKind.SYSTEM
    message = (detail.error_message or "").strip()
    return Failure(kind, _SYSTEM_ERRORS.get(error, error), message or _NO_RECORD_TEXT)


def _attempts(live: LiveTask, stored: StoredTask, state: TaskState) -> int:
    # An exception beside a result is what a retried attempt leaves, also one that was over
    # before anybody could look.
    retried = state is TaskState.SUCCESSFUL and stored.exception and not stored.catch_exceptions
    least = 2 if retried else 1
    if live.submit_time is not None:
        return max(live.retries + 1, least)
    return 0 if stored.start_time is None else least


def _end_time(
    live: LiveTask, stored: StoredTask, state: TaskState, run_end: Optional[float]
) -> Optional[float]:
    if not state.finished:
        return None
    if state is TaskState.SUCCESSFUL and not (stored.catch_exceptions and _raised(stored)):
        end = _first(stored.end_time, live.finish_time, stored.output_time)
    elif state is TaskState.CANCELED:
        end = run_end
    else:
        end = _first(stored.exception_time if _raised(stored) else None, stored.end_time, run_end)
    start = stored.start_time
    if end is not None and start is not None and end < start:
        # The file clock may lag by its grain; anything older belongs to an earlier attempt.
        return start if start - end <= 1.0 else live.finish_time
    return end
