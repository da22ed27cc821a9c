"""Make one Run of what storage and the management actor each know of it.

Neither source knows all: the actor has no start times and drops a run the moment it ends, storage
cannot distinguish a waiting task from a running one and never says RESUMABLE. What both have lost
(attempts, submit times, edges and sizes of outputs without a checkpoint) is carried over from the
Run that was made before. Pure functions, no I/O.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Optional

from ..model import Run, RunStatus, Task, TaskState
from ..sources.records import RERUN_GAP, LiveRun, StoredRun
from .evidence import Evidence
from .failures import attribute_failure
from .naming import stage_name
from .task import merge_task


def merge(evidence: Evidence) -> Run:
    """Make one Run of what the sources say.

    What did not change stays the same object: tasks, and the Run itself. So `changed_tasks` finds
    out what did.
    """
    status, stored, live = evidence.status, evidence.stored, evidence.live
    start, end = stored.start_time, evidence.end_time
    previous = evidence.previous
    if previous is not None and (stored.outlined or previous.start_time not in (None, start)):
        previous = None  # replaced by an outline, or another life of the same id
    known = previous.tasks if previous is not None else {}

    # In a stable order: as known before, then as Ray has them, then by id.
    if evidence.touched is None or previous is None or previous.status is not status:
        ids = dict.fromkeys([*known, *(live.tasks if live is not None else ())])
        ids.update(dict.fromkeys(sorted([it for it in stored.tasks if it not in ids])))
    else:
        ids = _in_order(evidence.touched, known, live)
    tasks = dict(known)
    changed = []
    transitions = [start, end, previous.last_transition if previous is not None else None]
    for task_id in ids:
        before = known.get(task_id)
        if stored.outlined:  # of it, it is known that all went well, once
            stage = sys.intern(stage_name(task_id, stored.base_names))
            size = stored.tasks[task_id].output_bytes
            task = Task(task_id, stage, TaskState.SUCCESSFUL, output_bytes=size)
        else:
            task = merge_task(evidence, task_id, before)
        if before is None or task != before:
            tasks[task_id] = task
            changed.append(task)
            transitions.append(task.end_time or task.start_time or task.submit_time)
    if status is RunStatus.FAILED and TaskState.FAILED not in [it.state for it in tasks.values()]:
        attribute_failure(tasks, evidence)
    if status is RunStatus.SUCCESSFUL:
        start, end = _times_of_the_real_run(tasks.values(), start, end)
    run = Run(
        workflow_id=stored.workflow_id,
        workflow=evidence.workflow,
        status=status,
        tasks=tasks,
        output_task_id=stored.output_task_id or (live.output_task_id if live else None),
        start_time=start,
        end_time=end,
        last_transition=max([it for it in transitions if it is not None], default=None),
        deadline=evidence.deadline,
        user_metadata=stored.user_metadata,
        outlined=stored.outlined,
    )
    if previous is not None and not changed and replace(run, tasks=known) == previous:
        return previous
    return run


def outline_suffices(stored: StoredRun) -> bool:
    """Whether all that is shown of a run that is not exposed is known from its outline.

    Not if Ray overwrote its start and left its end: only the tasks show how long it took then.
    """
    start, end = stored.start_time, stored.end_time
    return (
        stored.status is RunStatus.SUCCESSFUL
        and start is not None
        and end is not None
        and start <= end
    )


def _in_order(
    touched: Iterable[str], known: Mapping[str, Task], live: Optional[LiveRun]
) -> dict[str, None]:
    """Put those that are new into the order of `merge`, without a walk over all tasks."""
    old = [task_id for task_id in touched if task_id in known]
    new = {task_id for task_id in touched if task_id not in known}
    named = []
    if live is not None:
        # What is new to Ray stands at the end.
        missing = len([task_id for task_id in new if task_id in live.tasks])
        newest_first = (task_id for task_id in reversed(tuple(live.tasks)) if task_id in new)
        named = list(islice(newest_first, missing))[::-1]
    return dict.fromkeys([*old, *named, *sorted(new.difference(named))])


def _times_of_the_real_run(
    tasks: Iterable[Task], start: Optional[float], end: Optional[float]
) -> tuple[Optional[float], Optional[float]]:
    """Undo a re-run of a successful id: Ray only returns the old result, but notes new times."""
    ends = [task.end_time for task in tasks if task.end_time is not None]
    starts = [task.start_time for task in tasks if task.start_time is not None]
    if start is not None and ends and starts and max(ends) < start - RERUN_GAP:
        return min(starts), max(ends)
    return start, end
