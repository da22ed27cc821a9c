"""Counters of all workflows, which a restart neither loses nor counts twice.

What the exporter finds when it first reads a storage is history and is not counted. From then on
a small file remembers what was counted; what ended while the exporter was away is counted when it
comes back.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Optional

from ..model import Run, RunStatus, Task, TaskState
from ..runs.failures import SUSPECT
from ..sources.records import EndedLife, Mark
from .life import AT_WORK, Life, last_moment
from .state_files import set_aside
from .workflow_counters import LastRun, WorkflowCounters

# Storage may show a status late or in another order than it was set; within this many seconds
# before the newest end, runs are remembered one by one instead of by their time.
_RECENT_SECONDS = 600.0
_CLOCK_GRAIN = 2.0  # seconds: object stores have times in whole seconds
_FORMAT = 3

logger = logging.getLogger(__name__)


class Counters:
    """The counters of all workflows, and the newest life of each run that is counted in them."""

    def __init__(self) -> None:
        self.workflows: dict[str, WorkflowCounters] = {}
        self.since = 0.0  # when the exporter first read the storage: what ended before is history
        self.saved = True  # whether the state file could be read and written
        self._path: Optional[Path] = None
        self._floor = 0.0  # what ended up to here is counted, or history
        self._history: set[str] = set()  # runs that ended before `since` and were not read yet
        self._lives: dict[str, Life] = {}  # those that go on, or ended above the floor
        self._changed = False

    def begin(self, marks: Mapping[str, Mark], now: float, path: Optional[Path] = None) -> None:
        """Take the first listing of storage: on the very first start, what ended is history.

        With `path` the counters are read from that file and saved there.
        """
        if path is not None and self._load(path):
            return
        self.since = self._floor = now - _CLOCK_GRAIN
        self._history = {key for key, mark in marks.items() if mark.status.finished}
        self._changed = True

    def observe(
        self,
        old: Optional[Run],
        new: Run,
        mark_time: Optional[float] = None,
        *,
        changed: Optional[Iterable[str]] = None,
        number: Optional[int] = None,
        ended: Optional[EndedLife] = None,
    ) -> None:
        """Count what is new in `new`; `old` is None when this process sees the run first.

        `changed` is what `changed_tasks` lists, None for all tasks. `number` identifies the life
        of a run in the management actor. `ended` is the end of the life before this one, if that
        end itself was not observed.
        """
        counters = self.workflows.get(new.workflow)
        if counters is None:
            counters = self.workflows[new.workflow] = WorkflowCounters()
            self._changed = True
        if new.status is RunStatus.SUCCESSFUL and new.end_time is not None:
            counters.last_success = max(new.end_time, counters.last_success or 0.0)
        life = self._life_of(counters, old, new, mark_time, number, ended)
        if life is None:
            return
        self._lives[new.workflow_id] = life
        life.take_start(new, number)
        self._count_tasks(counters, life, old, new, new.tasks if changed is None else changed)
        if life.end is None:
            self._count_life(counters, life, new)
        life.restored = False

    def advance(self, now: float) -> None:
        """Move the watermark; only when all that storage lists was observed.

        A run that is still to be read must not fall below it: it would pass for history.
        """
        ends = [life.end for life in self._lives.values() if life.end is not None]
        # An end in the future, by a clock that is wrong, must not move the watermark there.
        floor = max((end for end in ends if end <= now), default=0.0) - _RECENT_SECONDS
        # Rarely, so that a poll does not pay for all recent runs.
        if floor > self._floor + _RECENT_SECONDS / 10:
            self._floor = floor
            self._lives = {
                key: life
                for key, life in self._lives.items()
                if life.end is None or life.end > floor
            }
            self._changed = True

    @property
    def folded_stages(self) -> int:
        """How many workflows have more stages than are counted one by one."""
        return sum(it.folded_stages for it in self.workflows.values())

    def remove(self, run: Run, ended: Optional[EndedLife] = None) -> None:
        """Drop what is remembered of a deleted run; its counts stay.

        If its end was not observed, `ended` is that end.
        """
        self._history.discard(run.workflow_id)
        life = self._lives.pop(run.workflow_id, None)
        if life is not None and life.end is None and life.started and ended is not None:
            self._finish(self.workflows[run.workflow], life, ended.status, ended.end_time)
        self._changed = True

    def drop(self, workflow: str) -> None:
        """Drop the counters of a workflow."""
        if self.workflows.pop(workflow, None) is not None:
            self._changed = True

    def set_last_run(self, workflow: str, run: Optional[Run]) -> None:
        """Correct which run of a workflow ended last, after the one that did was deleted."""
        counters = self.workflows[workflow]
        counters.last_run = None
        if run is not None and run.end_time is not None and run.end_time > self.since:
            counters.set_last_run(LastRun(run.workflow_id, run.end_time, run.status))
        self._changed = True

    def save(self) -> None:
        """Write the state if it changed.

        To be called before the counters are exposed: a counter that a crash takes back would be
        read by Prometheus as a reset, and all of it counted again.
        """
        if not self._changed or self._path is None:
            return
        state = {
            "format": _FORMAT,
            "since": self.since,
            "floor": self._floor,
            "history": sorted(self._history),
            "lives": {key: life.to_json() for key, life in self._lives.items()},
            "workflows": self.workflows,
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(".new")
            beside.write_text(json.dumps(state, default=vars), encoding="utf-8")
            os.replace(beside, self._path)
            self._changed, self.saved = False, True
        except OSError as error:
            if self.saved:
                logger.error(
                    "Cannot write the counters to %s (%s). After a restart, what ended since the "
                    "last write would be counted again. Free some space, make the folder "
                    "writable, or set --state-dir.", self._path, error,
                )  # fmt: skip
            self.saved = False

    def is_news(self, workflow_id: str, *times: Optional[float]) -> bool:
        """Whether a finished run with these own times (start, end) is still to be counted."""
        life = self._lives.get(workflow_id)
        floor = self._floor if life is None else (life.end or 0.0)
        if workflow_id in self._history:
            return False
        return any(time is not None and time > floor for time in times)

    def _life_of(
        self,
        counters: WorkflowCounters,
        old: Optional[Run],
        new: Run,
        mark_time: Optional[float],
        number: Optional[int],
        ended: Optional[EndedLife],
    ) -> Optional[Life]:
        """Return the life that a run is in; None if there is nothing to count."""
        key = new.workflow_id
        life = self._lives.get(key)
        if life is not None and life.is_followed_by(new, number):
            if life.end is None and life.started and ended is not None:
                self._finish(counters, life, ended.status, ended.end_time)
                life.tasks_until = max(life.tasks_until, last_moment(old) if old else 0.0)
                if not life.is_followed_by(new, number):
                    return None
            return Life(new.start_time, life.tasks_until)
        if life is not None:
            # Of a run that succeeded, only the stored result is read again.
            again = life.end is not None and AT_WORK.intersection([new.status, old and old.status])
            return None if again else life
        if old is None and new.status.finished:
            canceled = new.status is RunStatus.CANCELED  # its end is the time of its mark
            times = [new.start_time, None if canceled else new.end_time]
            if not self.is_news(key, *(times if any(times) else [mark_time])):
                end = new.end_time or new.start_time or self.since
                if key in self._history and end > self._floor:
                    self._lives[key] = Life(
                        new.start_time,
                        last_moment(new),
                        end,
                        new.status,
                        started=True,
                        settled=True,
                    )
                self._changed = self._changed or key in self._history
                self._history.discard(key)
                return None
        life = Life(new.start_time, self._floor)
        if old is not None and old.status.finished and old.start_time == new.start_time:
            # Ended long ago; only tasks beside the failed one may still end.
            life.end, life.status, life.started = old.end_time or self._floor, old.status, True
        return life

    def _count_life(self, counters: WorkflowCounters, life: Life, new: Run) -> None:
        interrupted = new.status is RunStatus.RESUMABLE
        # What was interrupted before anybody could see it run is not counted until it goes on.
        if not life.started and not (interrupted and (life.start or 0.0) <= self._floor):
            life.started = self._changed = True
            counters.start_run(life.start or self._floor)
        life.status = new.status if interrupted else None
        if new.status.finished:
            self._finish(counters, life, new.status, new.end_time, new.duration)
            life.tasks_until = max(life.tasks_until, last_moment(new))
            assert life.end is not None
            counters.set_last_run(LastRun(new.workflow_id, life.end, new.status))

    def _finish(
        self,
        counters: WorkflowCounters,
        life: Life,
        status: RunStatus,
        end: Optional[float],
        duration: Optional[float] = None,
    ) -> None:
        """Count the end of a life."""
        if duration is None and end is not None and life.start is not None:
            duration = max(0.0, end - life.start)
        life.end, life.status, life.settled = end or life.start or self._floor, status, True
        counters.finish_run(status, life.end, duration)
        self._changed = True

    def _count_tasks(
        self,
        counters: WorkflowCounters,
        life: Life,
        old: Optional[Run],
        new: Run,
        changed: Iterable[str],
    ) -> None:
        """Count the tasks that ended."""
        floor = newest = life.tasks_until
        if old is not None:
            # Tasks that were let go since were counted up to then.
            slim = old.status.finished and not old.tasks
            floor = max(old.end_time or 0.0, old.last_transition or 0.0) if slim else 0.0
        for task_id in changed:
            task = new.tasks[task_id]
            before = old.tasks.get(task_id) if old is not None else None
            if before is None and floor >= (task.end_time or task.start_time or floor + 1.0):
                continue
            # Retries that were seen before a restart were counted then.
            attempts = task.attempts if old is None and life.restored else 1
            retries = task.attempts - max(before.attempts if before else attempts, 1)
            if retries > 0:
                counters.task_retries += retries
                self._changed = True
            if _counts(new, task) and not (
                before is not None and old is not None and _counts(old, before)
                and not _ran_again(before, task)
            ):  # fmt: skip
                counters.finish_task(task)
                newest = max(newest, task.end_time or 0.0)
                self._changed = True
        life.tasks_until = newest

    def _load(self, path: Path) -> bool:
        self._path = path
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["format"] != _FORMAT:
                raise ValueError(f"format {state['format']!r} is not {_FORMAT}")
            self.workflows = {
                str(name): WorkflowCounters.from_json(data)
                for name, data in state["workflows"].items()
            }
            self.since, self._floor = float(state["since"]), float(state["floor"])
            self._history = {str(key) for key in state["history"]}
            self._lives = {str(key): Life.from_json(it) for key, it in state["lives"].items()}
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self._path, self.saved = None, False  # it may belong to another user: leave it alone
            logger.error(
                "Cannot read the counters in %s (%s). The exporter starts at zero and keeps its "
                "counters in memory. Make the folder readable and writable for this user, or set "
                "--state-dir.", path, error,
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.workflows, self._lives, self._history = {}, {}, set()
            logger.warning(
                "The counters in %s are damaged (%s) and start again at zero; %s.",
                path, error, set_aside(path),
            )  # fmt: skip
        return False


def _counts(run: Run, task: Task) -> bool:
    """Whether a task has ended for good."""
    if not task.state.finished:
        return False
    if task.failure is not None and task.failure.exception == SUSPECT:
        return False  # one of several; Ray's state API may still name the one that failed
    # A run is RESUMABLE also while Ray cannot be asked: its tasks may still be running.
    return not (run.status is RunStatus.RESUMABLE and task.state is TaskState.CANCELED)


def _ran_again(before: Task, task: Task) -> bool:
    """Whether a resumed run ran a task anew, rather than its start becoming known late."""
    return (
        before.start_time is not None
        and task.start_time is not None
        and task.start_time > before.start_time
    )
