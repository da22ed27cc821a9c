"""The stages of a run, summed up task by task."""

from __future__ import annotations

from collections.abc import Mapping
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

    __slots__ = ("_bytes", "_counts", "_end", "_name", "_sizes", "_stage", "_start", "_torn")

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts = dict(NONE_YET)
        self._bytes = self._sizes = 0
        self._start: Optional[float] = None
        self._end: Optional[float] = None
        self._torn = False  # the first start or the last end was of a task that lost it since
        self._stage: Optional[Stage] = None

    def change(self, old: Optional[Task], new: Task) -> None:
        """Count `new` in the place of `old`."""
        self._stage = None
        if old is not None:
            self._counts[old.state] -= 1
            if old.output_bytes is not None:
                self._bytes -= old.output_bytes
                self._sizes -= 1
            was_first = old.start_time is not None and old.start_time == self._start
            was_last = old.end_time is not None and old.end_time == self._end
            self._torn = (
                self._torn
                or (was_first and new.start_time != old.start_time)
                or (was_last and new.end_time != old.end_time)
            )
        self._counts[new.state] += 1
        if new.output_bytes is not None:
            self._bytes += new.output_bytes
            self._sizes += 1
        start, end = new.start_time, new.end_time
        if start is not None and (self._start is None or start < self._start):
            self._start = start
        if end is not None and (self._end is None or end > self._end):
            self._end = end

    def stage(self, tasks: Mapping[str, Task]) -> Stage:
        """Return the stage as it is now; `tasks` are all of the run."""
        if self._stage is None:
            if self._torn:
                mine = [task for task in tasks.values() if task.stage == self._name]
                starts = [task.start_time for task in mine if task.start_time is not None]
                ends = [task.end_time for task in mine if task.end_time is not None]
                self._start, self._end = min(starts, default=None), max(ends, default=None)
                self._torn = False
            counts = self._counts
            active = any(map(counts.__getitem__, ACTIVE))
            self._stage = Stage(
                self._name,
                self._counts.copy(),
                self._bytes if self._sizes else None,
                self._start,
                None if active else self._end,
            )
        return self._stage
