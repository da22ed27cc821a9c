"""Counters and histograms of each workflow, which a restart neither loses nor counts twice.

What the exporter finds when it first meets a storage is history and counts nowhere. From then
on the counters remembers, in a small file, up to which moment it has counted; what ended while
the exporter was away is counted when it comes back.
"""

from __future__ import annotations

import bisect
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Optional

from ..model import FINISHED_STATES, FINISHED_STATUSES, Run, RunStatus, Task, TaskState
from ..runs.merge import SUSPECT
from ..sources.records import Mark
from .snapshot import Histogram, WorkflowTotals

RUN_SECONDS_BOUNDS = (
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0, 7200.0, 14400.0, 43200.0, 86400.0,
)  # fmt: skip
TASK_SECONDS_BOUNDS = (
    0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0,
)  # fmt: skip

# Storage may show a status late or in another order than it was set; within this many seconds
# before the newest mark, runs are remembered one by one instead of by their time.
_RECENT_SECONDS = 600.0
MAX_STAGES = 100  # of one workflow; tasks of further stages count under OTHER_STAGES
OTHER_STAGES = "other"
_CLOCK_GRAIN = 2.0  # seconds: object stores tell times in whole ones
_FORMAT = 2

logger = logging.getLogger(__name__)


class _Buckets:
    """A histogram that can still be added to."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def frozen(self) -> Histogram:
        return Histogram(self.bounds, tuple(self.counts), self.total)

    def to_json(self) -> dict[str, Any]:
        return {"bounds": self.bounds, "counts": self.counts, "total": self.total}

    def load(self, data: Mapping[str, Any]) -> None:
        # Other bounds are of another version: its observations cannot be spread anew.
        if tuple(data["bounds"]) == self.bounds:
            self.counts = [int(count) for count in data["counts"]]
            self.total = float(data["total"])


class WorkflowCounters:
    """What is counted for one workflow; every status and state is there from the start, at zero."""

    def __init__(self) -> None:
        self.started = 0
        self.finished = dict.fromkeys(FINISHED_STATUSES, 0)
        self.run_durations = {status: _Buckets(RUN_SECONDS_BOUNDS) for status in FINISHED_STATUSES}
        self.tasks_finished = dict.fromkeys(FINISHED_STATES, 0)
        self.task_retries = 0
        self.stage_durations: dict[str, _Buckets] = {}
        self.folded_stages = False
        self.last_success: Optional[float] = None
        self.last_status: Optional[RunStatus] = None
        self.last_end: Optional[float] = None

    def totals(self) -> WorkflowTotals:
        """Freeze the counters as they are now."""
        return WorkflowTotals(
            started=self.started,
            finished=dict(self.finished),
            run_durations={key: value.frozen() for key, value in self.run_durations.items()},
            tasks_finished=dict(self.tasks_finished),
            task_retries=self.task_retries,
            stage_durations={key: value.frozen() for key, value in self.stage_durations.items()},
        )

    def finish_run(self, run: Run) -> None:
        """Count a run that came to its end."""
        self.finished[run.status] += 1
        if run.duration is not None:
            self.run_durations[run.status].observe(run.duration)

    def finish_task(self, task: Task) -> None:
        """Count a task that came to its end."""
        self.tasks_finished[task.state] += 1
        if task.duration is None or task.state is TaskState.CANCELED:
            return
        name = task.stage
        if name not in self.stage_durations and len(self.stage_durations) >= MAX_STAGES:
            # Stages are bounded by the code unless every task is given an id of its own.
            self.folded_stages = True
            name = OTHER_STAGES
        self.stage_durations.setdefault(name, _Buckets(TASK_SECONDS_BOUNDS)).observe(task.duration)

    def note_end(self, run: Run) -> None:
        """Remember the last success and the status of the run that finished last."""
        end = run.end_time
        if end is None:
            return
        if run.status is RunStatus.SUCCESSFUL:
            self.last_success = max(end, self.last_success or end)
        if self.last_end is None or end >= self.last_end:
            self.last_end, self.last_status = end, run.status

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON that `from_json` understands."""
        return {
            "started": self.started,
            "finished": {key.value: count for key, count in self.finished.items()},
            "run_durations": {key.value: it.to_json() for key, it in self.run_durations.items()},
            "tasks_finished": {key.value: count for key, count in self.tasks_finished.items()},
            "task_retries": self.task_retries,
            "stage_durations": {key: it.to_json() for key, it in self.stage_durations.items()},
            "last_success": self.last_success,
            "last_status": self.last_status.value if self.last_status else None,
            "last_end": self.last_end,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkflowCounters:
        """Rebuild what `to_json` wrote; anything else raises KeyError, TypeError or ValueError."""
        self = cls()
        self.started = int(data["started"])
        self.finished.update({RunStatus(key): int(n) for key, n in data["finished"].items()})
        for key, value in data["run_durations"].items():
            self.run_durations[RunStatus(key)].load(value)
        states = data["tasks_finished"].items()
        self.tasks_finished.update({TaskState(key): int(n) for key, n in states})
        self.task_retries = int(data["task_retries"])
        for key, value in data["stage_durations"].items():
            self.stage_durations[key] = _Buckets(TASK_SECONDS_BOUNDS)
            self.stage_durations[key].load(value)
        self.last_success, self.last_end = data["last_success"], data["last_end"]
        self.last_status = RunStatus(data["last_status"]) if data["last_status"] else None
        return self


class Counters:
    """All workflows' counters, with the watermarks up to which they are complete."""

    def __init__(self) -> None:
        self.workflows: dict[str, WorkflowCounters] = {}
        self._path: Optional[Path] = None
        self._floor = 0.0  # marks up to here are counted or history
        self._recent: dict[str, float] = {}  # run -> its newest mark, where above the floor
        # Runs counted as started and not as finished, each with the time up to which the ends of
        # its tasks are counted.
        self._live: dict[str, float] = {}
        self._changed = False
        self._failing = False

    def begin(self, marks: Mapping[str, Mark], now: float, path: Optional[Path] = None) -> None:
        """Take the first listing of storage: on the very first start it is all history.

        With `path` the counters are read from and kept in that file.
        """
        self._path = path
        if path is not None and path.exists() and self._load(path):
            return
        self._floor = now - _CLOCK_GRAIN
        self._recent = {workflow_id: mark.time for workflow_id, mark in marks.items()}
        self._live = {key: now for key, mark in marks.items() if not mark.status.finished}
        self._changed = True

    def observe(
        self,
        old: Optional[Run],
        new: Run,
        mark_time: Optional[float],
        changed: Optional[Iterable[str]] = None,
    ) -> None:
        """Count what is new in `new`; `old` is None when this process sees the run first.

        `changed` is what `changed_tasks` lists, None for all tasks.
        """
        counters = self.workflows.get(new.workflow)
        if counters is None:
            counters = self.workflows[new.workflow] = WorkflowCounters()
            self._changed = True
        if new.status.finished:
            counters.note_end(new)
        if old is None and new.status.finished and not self.is_news(new.workflow_id, mark_time):
            return
        workflow_id = new.workflow_id
        counted_until = self._live.get(workflow_id)
        self._count_run(counters, old, new, counted_until is not None)
        changed = new.tasks if changed is None else changed
        newest = self._count_tasks(counters, old, new, changed, counted_until)
        if new.status.finished:
            self._live.pop(workflow_id, None)
        else:
            self._live[workflow_id] = newest
        if mark_time is not None:
            self._recent[workflow_id] = mark_time

    def advance(self, now: float) -> None:
        """Move the watermark on; only when all that storage lists was observed.

        A run that is still to be read must not fall below it: it would pass for history.
        """
        # A mark from the future, by a clock that is wrong, must not take the watermark along.
        newest = max((at for at in self._recent.values() if at <= now), default=0.0)
        floor = newest - _RECENT_SECONDS
        # Rarely, so that a poll does not pay for all recent runs.
        if floor > self._floor + _RECENT_SECONDS / 10:
            self._floor = floor
            self._recent = {key: at for key, at in self._recent.items() if at > floor}
            self._changed = True

    @property
    def folded_stages(self) -> int:
        """How many workflows have more stages than are counted one by one."""
        return sum(it.folded_stages for it in self.workflows.values())

    def forget(self, workflow_id: str) -> None:
        """Drop what is remembered of a deleted run; its counts stay."""
        self._recent.pop(workflow_id, None)
        self._live.pop(workflow_id, None)

    def save(self) -> None:
        """Write the state if it changed.

        To be called before the counters are exposed: a counter that a crash takes back would be
        read by Prometheus as a reset, and all of it counted again.
        """
        if not self._changed or self._path is None:
            return
        state = {
            "format": _FORMAT,
            "floor": self._floor,
            "recent": self._recent,
            "live": self._live,
            "workflows": {name: it.to_json() for name, it in self.workflows.items()},
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(".new")
            beside.write_text(json.dumps(state), encoding="utf-8")
            os.replace(beside, self._path)
            self._changed = self._failing = False
        except OSError as error:
            if not self._failing:
                logger.error(
                    "The counters cannot be kept in %s (%s): a restart now would count again what "
                    "ended since they last were. Make room there, or name another folder with "
                    "--state-dir.", self._path, error,
                )  # fmt: skip
            self._failing = True

    def is_news(self, workflow_id: str, mark_time: Optional[float]) -> bool:
        """Whether a run that this process sees first is to be counted, by its newest mark."""
        if workflow_id in self._live:
            return True
        if mark_time is None:
            return False
        return mark_time > self._recent.get(workflow_id, self._floor)

    def _count_run(
        self, counters: WorkflowCounters, old: Optional[Run], new: Run, known: bool
    ) -> None:
        if new.status.finished:
            if old is not None and old.status.finished:
                # Ray answers a re-run of a successful id with the old result: nothing ran. A
                # cancel of a finished run only changes its mark. A resume between two polls ran.
                if old.status is RunStatus.SUCCESSFUL or new.start_time == old.start_time:
                    return
                counters.started += 1
            elif not known:
                counters.started += 1
            counters.finish_run(new)
            self._changed = True
            return
        at_work = new.status in _AT_WORK
        if old is None:
            begins = at_work and not known
        elif old.status is RunStatus.RESUMABLE:
            # Out of reach for a while, or resumed? Only a resume begins anew.
            begins = at_work and new.start_time != old.start_time
        else:
            begins = at_work and old.status not in _AT_WORK
        if begins:
            counters.started += 1
        self._changed = self._changed or begins or not known

    def _count_tasks(
        self,
        counters: WorkflowCounters,
        old: Optional[Run],
        new: Run,
        changed: Iterable[str],
        counted_until: Optional[float],
    ) -> float:
        """Count the tasks that ended; return the newest end that is counted."""
        floor = counted_until
        if floor is None:
            floor = self._recent.get(new.workflow_id, self._floor)
        newest = floor
        if old is not None:
            # Tasks that were let go since were counted up to then.
            slim = old.status.finished and not old.tasks
            floor = max(old.end_time or 0.0, old.last_transition or 0.0) if slim else 0.0
        for task_id in changed:
            task = new.tasks[task_id]
            before = old.tasks.get(task_id) if old is not None else None
            if before is None and floor >= (task.end_time or task.start_time or floor + 1.0):
                continue
            # What a run that we knew did before we began anew was counted then.
            attempts = task.attempts if old is None and counted_until is not None else 1
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
        return newest

    def _load(self, path: Path) -> bool:
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["format"] != _FORMAT:
                raise ValueError(f"format {state['format']!r} is not {_FORMAT}")
            self.workflows = {
                str(name): WorkflowCounters.from_json(data)
                for name, data in state["workflows"].items()
            }
            self._floor = float(state["floor"])
            self._recent = {str(key): float(at) for key, at in state["recent"].items()}
            self._live = {str(key): float(until) for key, until in state["live"].items()}
            return True
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            aside = path.with_suffix(".broken")
            os.replace(path, aside)
            self.workflows = {}
            logger.warning(
                "The counters in %s cannot be read (%s); they begin again at zero, and the file "
                "was kept as %s.", path, error, aside,
            )  # fmt: skip
            return False


_AT_WORK = (RunStatus.PENDING, RunStatus.RUNNING)


def _counts(run: Run, task: Task) -> bool:
    """Whether a task has come to an end that will stand."""
    if not task.state.finished:
        return False
    if task.failure is not None and task.failure.exception == SUSPECT:
        return False  # one of several, of which Ray's state API may yet name the culprit
    # While a run is RESUMABLE nobody may have been asked: its tasks may be at work all the same.
    return not (run.status is RunStatus.RESUMABLE and task.state is TaskState.CANCELED)


def _ran_again(before: Task, task: Task) -> bool:
    """Whether a resumed run ran a task anew, rather than its start becoming known late."""
    return (
        before.start_time is not None
        and task.start_time is not None
        and task.start_time > before.start_time
    )
