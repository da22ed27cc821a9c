"""What the poller remembers of one run, and when it looks at an ended one again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .model import Run, RunStatus, TaskState
from .pending import Pending
from .sources.records import Mark, StoredRun

# Tasks beside a failed one run on and write their files after the run's end: look again after
# these many seconds, as long as they write.
_RECHECKS = (2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
FOLLOWED_SECONDS = sum(_RECHECKS)  # after its end; what has not ended by then was cut off


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
    recheck: int = 0
    recheck_at: Optional[float] = None
    touched: set[str] = field(default_factory=set)
    pending: Pending = field(default_factory=Pending)

    def plan_recheck(self, run: Run, mark: Mark, now: float, *, again: bool) -> bool:
        """Plan when to look at an ended run the next time; tell whether that is needed.

        `again` says whether its mark was known before.
        """
        self.recheck = self.recheck + 1 if again else 0
        still = any(it.state is TaskState.RUNNING for it in run.tasks.values())
        unsettled = mark.status in (RunStatus.FAILED, RunStatus.CANCELED)
        young = now - mark.time < _RECHECKS[-1]
        needed = unsettled and (still or young) and self.recheck < len(_RECHECKS)
        self.recheck_at = now + _RECHECKS[self.recheck] if needed else None
        return needed
