"""The one place that holds runs: retention, limits, class aggregates and the change feed."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from .analysis import Analysis, analyse, expected_end
from .history import History
from .ledger import ClassLedger, Ledger
from .model import Run, RunStatus, Task, TaskState
from .settings import Settings
from .snapshot import ClassTotals, ClassView, RunView, Snapshot

_FEED_LENGTH = 10_000
_REASONS = ("max_finished_runs", "max_tasks_per_run", "max_stages_per_class")


@dataclass(frozen=True)
class Change:
    """One thing that changed: a run's status, a task's state, or a run that is gone.

    `moment` is when it happened by the source's own clock, None where the source does not say.
    """

    seq: int
    workflow_id: str
    task_id: Optional[str]
    state: Optional[str]  # the new status or state, None for a run that is gone
    moment: Optional[float]


@dataclass
class _Held:
    run: Run
    analysis: Analysis
    view: Optional[RunView] = None
    slim: bool = False  # its tasks were let go: it is too old to be exposed


class Catalog:
    """All runs that the sources know, and what of them is exposed.

    Written by the poll thread alone; readers get immutable snapshots.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._history = History()
        self._held: dict[str, _Held] = {}
        self._feed: deque[Change] = deque(maxlen=_FEED_LENGTH)
        self._seq = 0
        self._dirty = True
        self._next_expiry = 0.0
        self._runs: tuple[RunView, ...] = ()
        self._classes: tuple[ClassView, ...] = ()
        self._totals: dict[str, ClassTotals] = {}
        self._dropped: dict[str, int] = {}

    def get(self, workflow_id: str) -> Optional[Run]:
        """Return the run as it was put last, its tasks let go if it is too old to be exposed."""
        held = self._held.get(workflow_id)
        return held.run if held else None

    def outline(self, workflow_id: str) -> Optional[Run]:
        """Return the run if its tasks were let go to save memory; storage still has them."""
        held = self._held.get(workflow_id)
        return held.run if held and held.slim else None

    def view(self, workflow_id: str) -> Optional[RunView]:
        """Return one run with all its tasks, whatever the limits of exposure are."""
        held = self._held.get(workflow_id)
        return _whole(held) if held else None

    def views(self) -> list[RunView]:
        """Return all runs held: live ones first, then those that ended, newest first."""
        # A copy made by one C call: readers come from other threads while the dict changes.
        held = list(self._held.values())
        held.sort(key=lambda it: (not it.run.status.finished, _age_key(it.run)), reverse=True)
        return [_whole(it) for it in held]

    def ids(self) -> Sequence[str]:
        """Return the ids of all runs held."""
        return list(self._held)

    def put(self, run: Run, mark_time: Optional[float] = None) -> None:
        """Take a run as it is now; an equal one changes nothing."""
        held = self._held.get(run.workflow_id)
        old = held.run if held else None
        slim = held is not None and held.slim
        if old is not None and (replace(run, tasks={}) if slim else run) == old:
            return
        before = None if slim else old
        self._ledger.observe(old, run, mark_time)
        if run.status is RunStatus.SUCCESSFUL and self._history.add(run):
            self._expect_anew(run.workflow)
        self._held[run.workflow_id] = _Held(run, analyse(run, self._history))
        self._feed.extend(self._changes(old, before, run))
        self._totals.pop(run.workflow, None)
        self._dirty = True

    def remove(self, workflow_id: str) -> None:
        """Forget a run that its source no longer has."""
        if self._held.pop(workflow_id, None) is None:
            return
        self._ledger.forget(workflow_id)
        self._seq += 1
        self._feed.append(Change(self._seq, workflow_id, None, None, None))
        self._dirty = True

    def changes(self, after: int) -> list[Change]:
        """Return what changed after sequence number `after`, oldest first.

        Only the newest 10,000 changes are kept: a reader that finds a gap reads all runs anew.
        """
        feed = self._feed.copy()  # one C call: readers come from other threads
        return [change for change in feed if change.seq > after]

    @property
    def last_change(self) -> int:
        """The sequence number of the newest change."""
        return self._seq

    def snapshot(
        self,
        now: float,
        *,
        storage_up: bool,
        manager_up: bool,
        running_limit: Optional[int] = None,
        pending_limit: Optional[int] = None,
        folded_classes: int = 0,
    ) -> Snapshot:
        """Return what is exposed at `now`; views of unchanged runs are the same objects."""
        if self._dirty or now >= self._next_expiry:
            self._expose(now)
        return Snapshot(
            at=now,
            storage_up=storage_up,
            manager_up=manager_up,
            runs=self._runs,
            classes=self._classes,
            running_limit=running_limit,
            pending_limit=pending_limit,
            dropped={**self._dropped, "max_classes": folded_classes},
        )

    def _expect_anew(self, workflow: str) -> None:
        """Work out the expected ends of a class's live runs after its history changed."""
        for held in self._held.values():
            if held.run.workflow == workflow and not held.run.status.finished:
                end = expected_end(held.run, self._history)
                held.analysis = replace(held.analysis, expected_end=end)
                held.view = None

    def _changes(self, old: Optional[Run], before: Optional[Run], new: Run) -> Iterable[Change]:
        for task_id, task in new.tasks.items():
            was = before.tasks.get(task_id) if before else None
            if task is not was and (was is None or was.state is not task.state):
                self._seq += 1
                moment = task.end_time if task.state.finished else task.start_time
                yield Change(self._seq, new.workflow_id, task_id, task.state.value, moment)
        if old is None or old.status is not new.status:
            self._seq += 1
            moment = new.end_time if new.status.finished else new.start_time
            yield Change(self._seq, new.workflow_id, None, new.status.value, moment)

    def _expose(self, now: float) -> None:
        """Choose what is exposed, by the limits of each tier; count what a limit holds back."""
        settings = self._settings
        # Every reason is there from the start, so that an alert can compare with zero.
        dropped: Counter[str] = Counter(dict.fromkeys(_REASONS, 0))
        finished_since = now - settings.finished_retention
        expiry = float("inf")
        live: list[_Held] = []
        finished: list[_Held] = []
        for held in self._held.values():
            (finished if held.run.status.finished else live).append(held)
        finished.sort(key=lambda held: _age_key(held.run), reverse=True)

        views = [self._view(held, True, dropped) for held in live]
        for held in finished:
            end = _age_key(held.run)
            if end < finished_since:
                self._slim(held)
                continue
            if len(views) - len(live) >= settings.max_finished_runs:
                dropped["max_finished_runs"] += 1
                self._slim(held)
                continue
            young = end >= now - settings.task_retention
            views.append(self._view(held, young, dropped))
            retention = settings.task_retention if young else settings.finished_retention
            expiry = min(expiry, end + retention)

        self._runs = tuple(views)
        self._classes = self._class_views()
        dropped["max_stages_per_class"] = self._ledger.folded_stages
        self._dropped = dict(dropped)
        self._dirty, self._next_expiry = False, expiry

    def _view(self, held: _Held, all_tasks: bool, dropped: Counter[str]) -> RunView:
        run, limit = held.run, self._settings.max_tasks_per_run
        stages = len(held.analysis.stages) <= limit
        if not stages:
            dropped["max_tasks_per_run"] += len(held.analysis.stages)
        tasks: tuple[Task, ...] = ()
        if len(run.tasks) > limit:
            dropped["max_tasks_per_run"] += len(run.tasks)
        elif all_tasks:
            tasks = tuple(run.tasks.values())
        else:
            tasks = tuple(it for it in run.tasks.values() if it.state is TaskState.FAILED)
        view = held.view
        # The same object as long as nothing changed: by it the renderer knows what is cached.
        if view is None or view.stages != stages or len(view.tasks) != len(tasks):
            view = held.view = RunView(run, held.analysis, stages, tasks)
        return view

    @staticmethod
    def _slim(held: _Held) -> None:
        if not held.slim:
            held.run = replace(held.run, tasks={})
            held.analysis = replace(held.analysis, stages=(), stage_edges=(), task_edges=())
            held.view, held.slim = None, True

    def _class_views(self) -> tuple[ClassView, ...]:
        counts: defaultdict[str, Counter[RunStatus]] = defaultdict(Counter)
        for held in self._held.values():
            counts[held.run.workflow][held.run.status] += 1
        views = []
        for name in sorted({*self._ledger.classes, *counts}):
            ledger = self._ledger.classes.get(name) or ClassLedger()
            settings = self._settings.classes.get(name)
            totals = self._totals.get(name)
            if totals is None:
                totals = self._totals[name] = ledger.totals()
            views.append(
                ClassView(
                    workflow=name,
                    runs=_all_statuses(counts[name]),
                    totals=totals,
                    last_success=ledger.last_success,
                    last_status=ledger.last_status,
                    expected_interval=settings.expected_interval if settings else None,
                )
            )
        return tuple(views)


def _whole(held: _Held) -> RunView:
    return RunView(held.run, held.analysis, True, tuple(held.run.tasks.values()))


def _all_statuses(counts: Mapping[RunStatus, int]) -> dict[RunStatus, int]:
    return {status: counts.get(status, 0) for status in RunStatus}


def _age_key(run: Run) -> float:
    return run.end_time or run.last_transition or run.start_time or 0.0
