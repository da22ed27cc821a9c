"""What is known of one run at one poll, and the clocks by which it is known.

Three clocks write the times of a run: the node of each task (the times inside the task's files),
the node of the management actor (the run's own times, submit times) and the file server (mtimes).
They may differ by minutes. Each folder holds one file with a time of both kinds, written at the
same moment: from these, the offset of a clock to that of the file server is measured, and times
of two clocks are compared only with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Optional, Union

from ..model import Run, RunStatus
from ..sources.records import LiveRun, RayTaskDetail, StoredRun, StoredTask

# Beyond it, the mtimes are not those of the run: its files were copied.
MOST_OFFSET = 300.0


@dataclass(frozen=True)
class Evidence:
    """All that is known of one run at one poll.

    `mark_time` is when the run got its status, by the clock of the file server; `may_still_write`
    says that left-over siblings of a failed task may be at work; `touched` are the tasks that may
    differ from `previous`, None for all of them.
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
    offset: Optional[float] = field(init=False)  # of the file server's clock to the actor's
    end_time: Optional[float] = field(init=False)  # of the run, by the actor's clock
    ended_at: Optional[float] = field(init=False)  # the same, by the clock of the file server

    def __post_init__(self) -> None:
        """Work out once what is needed for each task."""
        stored, finished = self.stored, self.status.finished
        offset, start, end = clock_offset(stored), stored.start_time, stored.end_time
        mark = self.mark_time or None  # 0 on a store that gives files no times
        if offset is None and self.status is RunStatus.RUNNING and mark is not None:
            # The mark of a RUNNING run is written together with its start.
            offset = clock_offset(replace(stored, start_file_time=mark))
        # A resume overwrites the start and keeps the old end: an end before its start is stale.
        if end is not None and (not finished or (start is not None and end < start)):
            end = None
        ended_at = mark if finished else None
        if ended_at is not None and end is None:
            # Ray writes no end for a cancelled run; the moment it got its mark is the end.
            end = ended_at - (offset or 0.0)
            end = end if start is None else max(start, end)
        for name, value in (("offset", offset), ("end_time", end), ("ended_at", ended_at)):
            object.__setattr__(self, name, value)


def clock_offset(stored: Union[StoredRun, StoredTask]) -> Optional[float]:
    """Return how far the file server's clock is ahead of the one that wrote the start.

    None where that is not known, or where the files were copied since.
    """
    if stored.start_file_time is None or stored.start_time is None:
        return None
    offset = stored.start_file_time - stored.start_time
    return offset if abs(offset) <= MOST_OFFSET else None
