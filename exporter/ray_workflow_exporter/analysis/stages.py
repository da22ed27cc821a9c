"""The stages of a run, summed up task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ..model import Task, TaskState, slotted

# A task in one of these may still change by itself.
ACTIVE = (TaskState.WAITING, TaskState.PENDING, TaskState.RUNNING)
NONE_YET: Mapping[TaskState, int] = dict.fromkeys(TaskState, 0)


@slotted
@dataclass(frozen=True)
class Stage:
    """All tasks of one run with the same task name."""

    name: str
    tasks: Mapping[TaskState, int]  # every state, zeros included
    output_bytes: Optional[int]  # sum of the known sizes, None when none is known
    start_time: Optional[float]  # the first start of a task
    end_time: Optional[float]  # the last end, None while a task may still run


class Tally:
    """One stage, kept up to date as its tasks change."""

    __slots__ = ("_bytes", "_counts", "_end", "_sizes", "_start", "stage")

    stage: Stage  # as of the last update

    def __init__(self) -> None:
        self._counts = dict(NONE_YET)
        self._bytes = self._sizes = 0
        self._start: Optional[float] = None
        self._end: Optional[float] = None

    def update(
        self, changed: Sequence[Task], before: Mapping[str, Task], tasks: Mapping[str, Task]
    ) -> None:
        """Count tasks that changed; `before` and `tasks` are all of the run, then and now."""
        counts, lost = self._counts, False
        for new in changed:
            old = before.get(new.task_id)
            if old is not None:
                counts[old.state] -= 1
                if old.output_bytes is not None:
                    self._bytes -= old.output_bytes
                    self._sizes -= 1
                start, end = old.start_time, old.end_time
                if start is not None and start == self._start != new.start_time:
                    lost = True  # the first start; another task may have it now
                if end is not None and end == self._end != new.end_time:
                    lost = True
            counts[new.state] += 1
            if new.output_bytes is not None:
                self._bytes += new.output_bytes
                self._sizes += 1
            start, end = new.start_time, new.end_time
            if start is not None and (self._start is None or start < self._start):
                self._start = start
            if end is not None and (self._end is None or end > self._end):
                self._end = end
        name = changed[0].stage
        if lost:
            mine = [task for task in tasks.values() if task.stage == name]
            starts = [task.start_time for task in mine if task.start_time is not None]
            ends = [task.end_time for task in mine if task.end_time is not None]
            self._start, self._end = min(starts, default=None), max(ends, default=None)
        size = self._bytes if self._sizes else None
        end = None if any(counts[state] for state in ACTIVE) else self._end
        self.stage = Stage(name, counts.copy(), size, self._start, end)
