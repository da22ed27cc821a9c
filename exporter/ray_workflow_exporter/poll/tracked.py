"""What the poller remembers of one run, and when it reads a finished one again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Optional

from ..model import Run, RunStatus, TaskState
from ..sources.records import EndedLife, Mark, StoredRun

# Tasks beside a failed one continue and write their files after the end of the run: read it again
# after so many seconds, as long as they write.
_RECHECKS = (2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
FOLLOWED_SECONDS = sum(_RECHECKS)  # after its end; tasks that have not ended by then never will

# A run of which something cannot be read is tried again after a pause that doubles each time.
UNREADABLE_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0

# Of the oldest tasks, and of the others in turn.
FEWEST_CHECKS, MOST_CHECKS = 50, 500


class Pending:
    """The tasks of one run that were submitted to Ray and have not started, oldest first.

    Ray submits all ready tasks at once, so thousands may wait for a CPU. They start about in the
    order of their submission, except those that need other resources than the ones before them.
    """

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._checks = MOST_CHECKS
        self._turn = 0

    def choose(self) -> set[str]:
        """Choose tasks to check: the oldest ones, and as many of the others in turn."""
        ids, checks = list(self._ids), self._checks
        turn = self._turn if self._turn < len(ids) else 0
        self._turn = turn + checks
        return {*ids[:checks], *ids[turn : turn + checks]}

    def found(self, started: int) -> None:
        """Take how many of those chosen had started: if many did, the next choice is larger."""
        self._checks = min(MOST_CHECKS, FEWEST_CHECKS + 4 * started)

    def update(self, run: Run, touched: Optional[Collection[str]]) -> None:
        """Take a run as it is now; `touched` are the tasks that may have changed, None for all."""
        if touched is None:
            self._ids.clear()
            touched = run.tasks
        new = []
        for task_id in touched:
            task = run.tasks.get(task_id)
            if task is None or task.state is not TaskState.PENDING:
                self._ids.pop(task_id, None)
            elif task_id not in self._ids:
                new.append((task.submit_time or 0.0, task_id))
        self._ids.update(dict.fromkeys([task_id for _, task_id in sorted(new)]))


@dataclass
class Tracked:
    """One run between polls.

    `stored` is kept for runs that may still change. `lost` and `absent` count polls in a row.
    """

    mark: Optional[Mark] = None
    stored: Optional[StoredRun] = None
    was_live: bool = False
    lost: int = 0
    absent: int = 0
    disagreed: int = 0
    ended: Optional[EndedLife] = None  # its last life in the management actor, until it is used
    recheck: int = 0
    recheck_at: Optional[float] = None
    touched: set[str] = field(default_factory=set)
    pending: Pending = field(default_factory=Pending)


def recheck_time(
    mark: Mark, now: float, rechecks: int, *, unreadable: bool, at_work: bool
) -> Optional[float]:
    """Return when to read a finished run again after so many `rechecks`, None if never.

    `at_work` is whether tasks of it still run.
    """
    if unreadable:
        return now + min(UNREADABLE_PAUSE * 2.0**rechecks, _LONGEST_PAUSE)
    unsettled = mark.status in (RunStatus.FAILED, RunStatus.CANCELED)
    young = now - mark.time < _RECHECKS[-1]
    needed = unsettled and (at_work or young) and rechecks < len(_RECHECKS)
    return now + _RECHECKS[rechecks] if needed else None
