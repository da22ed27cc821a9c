"""Which tasks may have started since the last poll: only their files tell, so whose to look at."""

from __future__ import annotations

from collections.abc import Collection
from typing import Optional

from .model import Run, TaskState

# Of the oldest tasks, and of the others by turns.
FEWEST_CHECKS, MOST_CHECKS = 50, 500


class Pending:
    """The tasks of one run that were submitted to Ray and not seen to start, oldest first.

    Ray submits all ready tasks at once, so thousands may wait for a CPU. They start about in the
    order of their submission, save those that need other resources than the ones before them.
    """

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._checks = MOST_CHECKS
        self._turn = 0

    def choose(self) -> set[str]:
        """Choose tasks to look at: the oldest ones, and as many of the others by turns."""
        ids, checks = list(self._ids), self._checks
        turn = self._turn if self._turn < len(ids) else 0
        self._turn = turn + checks
        return {*ids[:checks], *ids[turn : turn + checks]}

    def found(self, started: int) -> None:
        """Take how many of those chosen had started: while many do, more are looked at."""
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
