"""One execution of a run, told apart from the one before it under the same id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..model import Run, RunStatus, TaskState

# Ray writes the start of a run twice: when it is submitted, and when it is executed.
_RESTART_SECONDS = 5.0
AT_WORK = frozenset((RunStatus.PENDING, RunStatus.RUNNING))


@dataclass
class Life:
    """One execution: a resume, or the same id deleted and run again, is another one.

    Known by the run's own times and by the management actor's number, never by the times of
    files: those change when a storage is copied, and some stores have none.
    """

    start: Optional[float]  # of the run; None while it is queued
    tasks_until: float  # the ends of its tasks are counted up to here
    end: Optional[float] = None  # None while it goes on
    status: Optional[RunStatus] = None  # that it ended with; RESUMABLE while it is interrupted
    started: bool = False  # whether its start is counted
    settled: bool = False  # whether `start` is final
    number: Optional[int] = None  # of its state in the management actor
    restored: bool = False  # from the state file, not observed since

    def to_json(self) -> Sequence[Any]:
        """Return plain JSON that `from_json` understands."""
        return self.start, self.tasks_until, self.end, self.status, self.started, self.settled

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Life:
        """Rebuild what `to_json` wrote; anything else raises a TypeError or ValueError."""
        start, tasks_until, end, status, started, settled = data
        return cls(
            None if start is None else float(start),
            float(tasks_until),
            None if end is None else float(end),
            None if status is None else RunStatus(status),
            bool(started),
            bool(settled),
            restored=True,
        )

    def take_start(self, run: Run, number: Optional[int]) -> None:
        """Take the start of the run as it is now, as long as Ray may still correct it."""
        same = number is not None and number == self.number
        if self.end is None and run.start_time is not None and (same or not self.settled):
            self.start = run.start_time
        # Ray submits no task before the start is final.
        self.settled = self.settled or any(
            task.submit_time is not None or _after(task.start_time, self.start)
            for task in run.tasks.values()
        )
        self.number = self.number if number is None else number

    def is_followed_by(self, run: Run, number: Optional[int]) -> bool:
        """Whether a run is in another, later life."""
        if self.status is RunStatus.SUCCESSFUL:
            # Ray answers for a run that succeeded with the stored result: nothing runs.
            return _after(run.start_time, self.end) and self._ran_a_task(run)
        if self.end is not None and run.status in AT_WORK:
            return True
        if self.end is None and number is not None and self.number is not None:
            return number != self.number
        if run.start_time is None or self.start is None:
            return False
        grain = 0.0 if self.settled else _RESTART_SECONDS
        return run.start_time > self.start + grain

    def _ran_a_task(self, run: Run) -> bool:
        return any(
            task.state in (TaskState.PENDING, TaskState.RUNNING)
            or _after(task.start_time, self.tasks_until)
            for task in run.tasks.values()
        )


def last_moment(run: Run) -> float:
    """Return the newest time of a run's tasks, 0 if there is none."""
    times = [it.end_time or it.start_time or 0.0 for it in run.tasks.values()]
    return max(times, default=0.0)


def _after(time: Optional[float], other: Optional[float]) -> bool:
    return time is not None and other is not None and time > other
