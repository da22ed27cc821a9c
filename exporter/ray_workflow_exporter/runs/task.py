"""One task of a run: its state and its times, from both sources."""

from __future__ import annotations

import sys
from typing import Optional, Union

from ..model import NO_METADATA, Failure, FailureKind, RunStatus, Task, TaskState
from ..sources.records import LiveRun, LiveTask, StoredTask
from .evidence import Evidence, clock_offset
from .failures import failure_from_ray, is_culprit
from .naming import stage_name

# Times of files are up to 10 ms old on a local disk; S3 cuts them to whole seconds.
CLOCK_GRAIN, WHOLE_SECOND = 0.05, 1.0

_NO_LIVE_TASK = LiveTask()
_NO_TASK = Task("", "", TaskState.WAITING)
_LEFT_OVER = (TaskState.CANCELED, TaskState.RUNNING, TaskState.NOT_RUN)


def merge_task(evidence: Evidence, task_id: str, before: Optional[Task]) -> Task:
    """Make one task of what both sources say now, and of what was known `before`."""
    stored = evidence.stored.tasks.get(task_id) or StoredTask(task_id)
    past = before or _NO_TASK
    offset = clock_offset(stored)
    # Ray never removes the exception of an earlier attempt: its file is older than the last start.
    raised = stored.exception is not None and (
        offset is None
        or stored.exception_time is None
        or stored.exception_time >= (stored.start_file_time or 0.0)
    )
    if evidence.live is None:
        live = _NO_LIVE_TASK
        state = _stored_state(stored, raised, evidence)
    else:
        live = evidence.live.tasks.get(task_id, _NO_LIVE_TASK)
        state = _live_state(live, stored, raised, evidence.live, evidence.offset)

    ray_task_id = live.ray_task_id or past.ray_task_id
    detail = evidence.details.get(ray_task_id) if evidence.details and ray_task_id else None
    failure = None
    # An exception beside a result is that of an earlier attempt, unless the task catches it.
    retried = state is TaskState.SUCCESSFUL and not stored.catch_exceptions
    if evidence.status is RunStatus.FAILED and state in _LEFT_OVER and is_culprit(detail):
        state, failure = TaskState.FAILED, failure_from_ray(detail)
    elif stored.exception is not None and not retried:
        failure = Failure(FailureKind.APPLICATION, *stored.exception)

    attempts = 0 if stored.start_time is None and live.submit_time is None else live.retries + 1
    if attempts and retried and stored.exception is not None:
        attempts = max(attempts, 2)
    # A task that has not started shows no start of an earlier attempt.
    unstarted = state in (TaskState.WAITING, TaskState.PENDING)
    upstream = live.upstream if live.upstream is not None else stored.upstream
    continuation = live.continuation or stored.continuation or past.continuation
    size = stored.output_bytes if stored.output_bytes is not None else live.output_bytes
    if size is None and state.finished:
        size = past.output_bytes
    options: Union[StoredTask, LiveTask, Task] = past
    for known in (live, stored):
        if (known.max_retries, known.checkpoint, known.catch_exceptions) != (None, None, None):
            options = known
    return Task(
        task_id=task_id,
        stage=sys.intern(stage_name(task_id, evidence.stored.base_names)),
        state=state,
        upstream=past.upstream if upstream is None else upstream,
        continuation=continuation,
        submit_time=past.submit_time if live.submit_time is None else live.submit_time,
        start_time=None if unstarted else stored.start_time,
        end_time=_end_time(live, stored, state, raised, evidence) if state.finished else None,
        output_bytes=size,
        attempts=max(attempts, past.attempts),
        max_retries=options.max_retries,
        checkpoint=options.checkpoint,
        catch_exceptions=options.catch_exceptions,
        resources=stored.resources or past.resources,
        failure=failure,
        ray_task_id=ray_task_id,
        node_id=(detail.node_id if detail else None) or past.node_id,
        user_metadata=stored.user_metadata or NO_METADATA,
    )


def _stored_state(stored: StoredTask, raised: bool, evidence: Evidence) -> TaskState:
    """Return the state of a task of a run that is not live, or that Ray cannot be asked about."""
    status, start, end = evidence.status, stored.start_time, stored.end_time
    returned = end is not None and (start is None or end >= start)
    if stored.output_bytes is not None or stored.continuation is not None:
        return TaskState.SUCCESSFUL
    # Sub-tasks of a continuation without checkpoint leave times and nothing else.
    if returned and not stored.checkpoint:
        return TaskState.SUCCESSFUL
    if not status.finished and status is not RunStatus.RESUMABLE:
        return TaskState.WAITING if start is None else TaskState.RUNNING
    # The body returned, and its output is gone or was never stored: see `attribute_failure`.
    if returned and status is not RunStatus.RESUMABLE:
        return TaskState.SUCCESSFUL
    if raised:
        return TaskState.SUCCESSFUL if stored.catch_exceptions else TaskState.FAILED
    if start is None or status in (RunStatus.RESUMABLE, RunStatus.SUCCESSFUL):
        return TaskState.NOT_RUN
    return TaskState.RUNNING if evidence.may_still_write else TaskState.CANCELED


def _live_state(
    live: LiveTask, stored: StoredTask, raised: bool, run: LiveRun, offset: Optional[float]
) -> TaskState:
    """Return the state of a task that the management actor holds.

    `offset` is how far the file server's clock is ahead of the actor's, None if unknown.
    """
    if live.done or live.finish_time is not None:
        return TaskState.SUCCESSFUL
    if live.submit_time is None:
        # A resumed run: Ray holds the tasks that it does not need to run again by name only.
        left_a_result = (
            stored.output_bytes is not None
            or stored.continuation is not None
            or (stored.end_time is not None and not stored.checkpoint)
        )
        if run.resumed and left_a_result and not live.running:
            return TaskState.SUCCESSFUL
        return TaskState.PENDING if live.running else TaskState.WAITING
    if raised and not live.running:
        return TaskState.FAILED  # a creator of it caught the exception, and the run goes on
    if stored.start_time is None:
        return TaskState.PENDING
    if (live.retries or run.resumed) and offset is not None and stored.start_file_time is not None:
        # The start may be that of an earlier attempt, written before this one was submitted.
        written = stored.start_file_time
        grain = WHOLE_SECOND if written.is_integer() else CLOCK_GRAIN
        if written + grain < live.submit_time + offset:
            return TaskState.PENDING
    return TaskState.RUNNING


def _end_time(
    live: LiveTask, stored: StoredTask, state: TaskState, raised: bool, evidence: Evidence
) -> Optional[float]:
    """Return when a task ended, by the clock of its node where that is known."""
    offset = clock_offset(stored) or 0.0
    run_end = evidence.end_time
    if evidence.ended_at is not None and clock_offset(stored) is not None:
        run_end = evidence.ended_at - offset
    recorded = stored.exception_time if raised else None
    if state is TaskState.CANCELED:
        end = run_end
    elif state is TaskState.FAILED or (recorded is not None and stored.catch_exceptions):
        end = stored.end_time if recorded is None else recorded - offset
        end = run_end if end is None else end
    else:
        end = stored.end_time if stored.end_time is not None else live.finish_time
        if end is None and stored.output_time is not None:
            end = stored.output_time - offset
    start = stored.start_time
    if end is not None and start is not None and end < start:
        # Times of files lag by their grain; anything older belongs to an earlier attempt.
        return start if start - end <= WHOLE_SECOND else live.finish_time
    return end
