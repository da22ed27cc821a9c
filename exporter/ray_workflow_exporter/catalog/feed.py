"""The change feed: what changed, in order, for those who follow it by sequence number."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Optional

from ..model import Run, RunStatus, Task

_LENGTH = 10_000


class Change(NamedTuple):
    """One change: a run's status, a task's state, or a run that was deleted.

    `moment` is when it happened by the source's own clock, None if the source does not say.
    """

    seq: int
    workflow_id: str
    task_id: Optional[str]
    state: Optional[str]  # the new status or state, None for a run that was deleted
    moment: Optional[float]


class ChangeFeed:
    """The newest changes. One thread adds, others may read."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=_LENGTH)
        self._moments: deque[float] = deque(maxlen=_LENGTH)
        self.last = 0  # sequence number of the newest change

    def after(self, seq: int) -> list[Change]:
        """Return what changed after sequence number `seq`, oldest first.

        Only the newest 10,000 changes are kept: a reader that finds a gap reads all runs again.
        """
        if seq >= self.last:
            return []
        changes = self._changes.copy()  # one C call: readers are in other threads
        return [change for change in changes if change.seq > seq]

    def take_moments(self) -> list[float]:
        """Return when the changes since the last call happened, where the sources say so."""
        moments = list(self._moments)
        self._moments.clear()
        return moments

    def add_run(self, old: Optional[Run], new: Run, changed: Optional[Iterable[str]]) -> None:
        """Add what differs between two states of a run; `changed` are the tasks that may differ.

        Without them (None), all tasks count as changed.
        """
        before: Mapping[str, Task] = {} if old is None or changed is None else old.tasks
        found: list[tuple[Optional[str], str, Optional[float]]] = []
        for key in new.tasks if changed is None else changed:
            task, was = new.tasks[key], before.get(key)
            if was is None or was.state is not task.state:
                moment = task.end_time if task.state.finished else task.start_time
                found.append((key, task.state.value, moment))
        if old is None or old.status is not new.status:
            moment = new.start_time if new.status is RunStatus.RUNNING else None
            # Unknown if the run was lost, or canceled after its end.
            if new.status.finished and (old is None or not old.status.finished):
                moment = new.end_time
            found.append((None, new.status.value, moment))
        for task_id, state, moment in found:
            self.last += 1
            self._changes.append(Change(self.last, new.workflow_id, task_id, state, moment))
            if moment is not None:
                self._moments.append(moment)

    def add_deleted(self, workflow_id: str) -> None:
        """Add that a run was deleted."""
        self.last += 1
        self._changes.append(Change(self.last, workflow_id, None, None, None))
