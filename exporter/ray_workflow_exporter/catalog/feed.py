"""The change feed: what changed, in order, for those who follow it by sequence number."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
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
        self.last = 0  # sequence number of the newest change

    def after(self, seq: int) -> list[Change]:
        """Return what changed after sequence number `seq`, oldest first.

        Only the newest 10,000 changes are kept: a reader that finds a gap reads all runs again.
        """
        if seq >= self.last:
            return []
        changes = self._changes.copy()  # one C call: readers are in other threads
        return [change for change in changes if change.seq > seq]

    def add_run(
        self,
        old: Optional[Run],
        new: Run,
        before: Mapping[str, Task],
        changed: Optional[Collection[str]],
    ) -> None:
        """Add what differs between two states of a run.

        `before` are the tasks to compare with, `changed` those that may differ (None: all).
        """
        for task_id in new.tasks if changed is None else changed:
            task, was = new.tasks[task_id], before.get(task_id)
            if was is None or was.state is not task.state:
                moment = task.end_time if task.state.finished else task.start_time
                self._add(new.workflow_id, task_id, task.state.value, moment)
        if old is None or old.status is not new.status:
            self._add(new.workflow_id, None, new.status.value, _moment(old, new))

    def add_deleted(self, workflow_id: str) -> None:
        """Add that a run was deleted."""
        self._add(workflow_id, None, None, None)

    def _add(
        self, workflow_id: str, task_id: Optional[str], state: Optional[str], at: Optional[float]
    ) -> None:
        self.last += 1
        self._changes.append(Change(self.last, workflow_id, task_id, state, at))


def _moment(old: Optional[Run], new: Run) -> Optional[float]:
    """Return when a run got its status; unknown if it was lost, or canceled after its end."""
    if new.status is RunStatus.RUNNING:
        return new.start_time
    lately = old is None or not old.status.finished
    return new.end_time if new.status.finished and lately else None
