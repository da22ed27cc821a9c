"""The one place that holds runs: retention, limits, workflow aggregates and the change feed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Optional

from ..analysis.analysis import Analysis, Analyst, analyse, outline
from ..analysis.durations import History, expected_end
from ..model import Run, RunStatus, Task, TaskState, changed_tasks, slotted
from ..settings.settings import Settings, WorkflowSettings
from .counters import Counters, WorkflowCounters
from .snapshot import RunView, Snapshot, WorkflowTotals, WorkflowView

_FEED_LENGTH = 10_000
_REASONS = ("max_finished_runs", "max_tasks_per_run", "max_stages_per_workflow")


class Change(NamedTuple):
    """One thing that changed: a run's status, a task's state, or a run that is gone.

    `moment` is when it happened by the source's own clock, None where the source does not say.
    """

    seq: int
    workflow_id: str
    task_id: Optional[str]
    state: Optional[str]  # the new status or state, None for a run that is gone
    moment: Optional[float]


@slotted
@dataclass
class _Held:
    run: Run
    analysis: Optional[Analysis]  # None: nobody has needed it yet
    analyst: Optional[Analyst]  # of a run that may go on
    view: Optional[RunView] = None
    young: bool = False  # whether the view is one with all tasks
    hidden: int = 0  # objects that the view leaves out
    slim: bool = False  # its tasks were let go: it is too old to be exposed


class Catalog:
    """All runs that the sources know, and what of them is exposed.

    Written by the poll thread alone; readers get immutable snapshots.
    """

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._history = History()
        self._held: dict[str, _Held] = {}
        # What a snapshot needs of them, so that it walks over nothing that is not exposed.
        self._live: dict[str, _Held] = {}
        self._ended: list[tuple[float, str]] = []  # by age, the newest first
        self._counts: defaultdict[str, Counter[RunStatus]] = defaultdict(Counter)
        self._relearned: set[str] = set()  # workflows whose history changed since the last snapshot
        self._not_slim: set[str] = set()  # runs that ended and still have their tasks
        self._feed: deque[Change] = deque(maxlen=_FEED_LENGTH)
        self._seq = 0
        self._dirty = True
        self._next_expiry = 0.0
        self._runs: tuple[RunView, ...] = ()
        self._workflows: tuple[WorkflowView, ...] = ()
        self._totals: dict[str, WorkflowTotals] = {}
        self._hidden: dict[str, int] = {}

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
        held.sort(key=lambda it: (it.run.status.finished, _age_key(it.run)))
        return [_whole(it) for it in held]

    def ids(self) -> Sequence[str]:
        """Return the ids of all runs held."""
        return list(self._held)

    def needs_outline_only(
        self, workflow_id: str, workflow: str, end: float, mark_time: float, now: float
    ) -> bool:
        """Whether no more of a run has to be known than that it was SUCCESSFUL, and when.

        It is too old to be exposed, history, and the workflow's newer runs tell what it takes.
        """
        limit = self._settings.max_finished_runs
        full = len(self._ended) >= limit
        hidden = full and (limit == 0 or -end > self._ended[limit - 1][0])
        expired = end <= now - self._settings.finished_retention
        return (
            (hidden or expired)
            and workflow_id not in self._held
            and not self._counters.is_news(workflow_id, mark_time)
            and self._history.is_past(workflow, end)
        )

    def put(self, run: Run, mark_time: Optional[float] = None) -> None:
        """Take a run as it is now; an equal one changes nothing."""
        held = self._held.get(run.workflow_id)
        old = held.run if held else None
        changed: Optional[Collection[str]] = None
        analyst = held.analyst if held else None
        if held is not None and old is not None:
            if run is old or (held.slim and replace(run, tasks={}) == old):
                return
            changed = None if held.slim else changed_tasks(old.tasks, run.tasks)
            if changed is None:
                analyst = None
            elif _same(old, run, changed):
                return
        self._counters.observe(old, run, mark_time, changed)
        if run.status is RunStatus.SUCCESSFUL and self._history.add(run):
            self._relearned.add(run.workflow)
        if analyst is None:
            analyst = Analyst(self._history)
            # Most of a long history is never exposed.
            analysis = None if run.status.finished else analyst.look(run)
        else:
            analysis = analyst.look(run, changed)
        if run.outlined:
            held = _Held(replace(run, tasks={}), outline(run), None, slim=True)
        else:
            held = _Held(run, analysis, None if run.status.finished else analyst)
        self._hold(old, held)
        before = old.tasks if changed is not None and old is not None else {}
        self._feed.extend(self._changes(old, run, before, changed))
        self._totals.pop(run.workflow, None)
        self._dirty = True

    def remove(self, workflow_id: str) -> None:
        """Forget a run that its source no longer has."""
        held = self._held.pop(workflow_id, None)
        if held is None:
            return
        self._let_go(held.run)
        self._counters.forget(workflow_id)
        self._seq += 1
        self._feed.append(Change(self._seq, workflow_id, None, None, None))
        self._dirty = True

    def _hold(self, old: Optional[Run], held: _Held) -> None:
        run = held.run
        if old is not None:
            self._let_go(old)
        self._held[run.workflow_id] = held
        self._counts[run.workflow][run.status] += 1
        if run.status.finished:
            insort(self._ended, _age_key(run))
            if not held.slim:
                self._not_slim.add(run.workflow_id)
        else:
            self._live[run.workflow_id] = held

    def _let_go(self, run: Run) -> None:
        counts = self._counts[run.workflow]
        counts[run.status] -= 1
        if not any(counts.values()):
            del self._counts[run.workflow]
        self._not_slim.discard(run.workflow_id)
        if run.status.finished:
            del self._ended[bisect_left(self._ended, _age_key(run))]
        else:
            del self._live[run.workflow_id]

    def changes(self, after: int) -> list[Change]:
        """Return what changed after sequence number `after`, oldest first.

        Only the newest 10,000 changes are kept: a reader that finds a gap reads all runs anew.
        """
        if after >= self._seq:
            return []
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
        manager_up: Optional[bool],
        running_limit: Optional[int] = None,
        pending_limit: Optional[int] = None,
        folded_workflows: int = 0,
    ) -> Snapshot:
        """Return what is exposed at `now`; views of unchanged runs are the same objects."""
        if self._dirty or now >= self._next_expiry:
            self._expose(now)
        return Snapshot(
            at=now,
            storage_up=storage_up,
            manager_up=manager_up,
            runs=self._runs,
            workflows=self._workflows,
            running_limit=running_limit,
            pending_limit=pending_limit,
            hidden={**self._hidden, "max_workflows": folded_workflows},
        )

    def _expect_anew(self) -> None:
        """Work out the expected ends of live runs whose workflow's history changed."""
        for held in self._live.values() if self._relearned else ():
            if held.run.workflow in self._relearned:
                known = held.analysis or analyse(held.run)
                end = expected_end(held.run, self._history, known.stages, known.stage_edges)
                if end != known.expected_end:
                    held.analysis, held.view = replace(known, expected_end=end), None
        self._relearned.clear()

    def _changes(
        self,
        old: Optional[Run],
        new: Run,
        before: Mapping[str, Task],
        changed: Optional[Collection[str]],
    ) -> Iterable[Change]:
        for task_id in new.tasks if changed is None else changed:
            task, was = new.tasks[task_id], before.get(task_id)
            if was is None or was.state is not task.state:
                self._seq += 1
                moment = task.end_time if task.state.finished else task.start_time
                yield Change(self._seq, new.workflow_id, task_id, task.state.value, moment)
        if old is None or old.status is not new.status:
            self._seq += 1
            yield Change(self._seq, new.workflow_id, None, new.status.value, _moment(old, new))

    def _expose(self, now: float) -> None:
        """Choose what is exposed, by the limits of each tier; count what a limit holds back."""
        settings = self._settings
        # Every reason is there from the start, so that an alert can compare with zero.
        hidden = dict.fromkeys(_REASONS, 0)
        self._expect_anew()
        exposed = list(self._live.values())
        views = [self._view(held, True) for held in exposed]
        retained = bisect_left(self._ended, (settings.finished_retention - now, ""))
        shown = min(retained, settings.max_finished_runs)
        hidden["max_finished_runs"] = retained - shown
        newest = self._ended[:shown]
        expiry = float("inf")
        for age, workflow_id in newest:
            held, end = self._held[workflow_id], -age
            young = end >= now - settings.task_retention
            exposed.append(held)
            views.append(self._view(held, young))
            retention = settings.task_retention if young else settings.finished_retention
            expiry = min(expiry, end + retention)
        self._slim(self._not_slim.difference([workflow_id for _, workflow_id in newest]))
        hidden["max_tasks_per_run"] = sum([held.hidden for held in exposed])
        hidden["max_stages_per_workflow"] = self._counters.folded_stages
        self._hidden = hidden
        self._runs = tuple(views)
        self._workflows = self._workflow_views()
        self._dirty, self._next_expiry = False, expiry

    def _view(self, held: _Held, young: bool) -> RunView:
        view = held.view
        # The same object as long as nothing changed: by it the renderer knows what is cached.
        if view is not None and held.young is young:
            return view
        run, limit = held.run, self._settings.max_tasks_per_run
        analysis = held.analysis = held.analysis or analyse(run)
        stages, whole = len(analysis.stages) <= limit, len(run.tasks) <= limit
        held.hidden = (0 if stages else len(analysis.stages)) + (0 if whole else len(run.tasks))
        tasks: tuple[Task, ...] = ()
        if whole and young:
            tasks = tuple(run.tasks.values())
        elif whole:
            tasks = tuple([it for it in run.tasks.values() if it.state is TaskState.FAILED])
        if view is None or len(view.tasks) != len(tasks):
            view = RunView(run, analysis, stages, tasks)
        held.view, held.young = view, young
        return view

    def _slim(self, workflow_ids: Iterable[str]) -> None:
        for workflow_id in workflow_ids:
            held = self._held[workflow_id]
            held.analysis = outline(held.run)  # first: readers look at any time
            held.run = replace(held.run, tasks={})
            held.view, held.slim = None, True
            self._not_slim.discard(workflow_id)

    def _workflow_views(self) -> tuple[WorkflowView, ...]:
        views = []
        # Those of the settings too: that one of them never ran must show.
        for name in sorted({*self._counters.workflows, *self._counts, *self._settings.workflows}):
            counters = self._counters.workflows.get(name) or WorkflowCounters()
            settings = self._settings.workflows.get(name) or WorkflowSettings()
            totals = self._totals.get(name)
            if totals is None:
                totals = self._totals[name] = counters.totals()
            views.append(
                WorkflowView(
                    workflow=name,
                    runs=_all_statuses(self._counts.get(name, {})),
                    totals=totals,
                    last_success=counters.last_success,
                    last_status=counters.last_status,
                    expected_interval=settings.expected_interval,
                    objective=settings.objective or self._settings.objective,
                )
            )
        return tuple(views)


def _same(old: Run, new: Run, changed: Iterable[str]) -> bool:
    return all(new.tasks[task_id] == old.tasks.get(task_id) for task_id in changed) and (
        replace(new, tasks=old.tasks) == old
    )


def _moment(old: Optional[Run], new: Run) -> Optional[float]:
    """When a run came to its status; nobody notes when one is lost, or cancelled after its end."""
    if new.status is RunStatus.RUNNING:
        return new.start_time
    lately = old is None or not old.status.finished
    return new.end_time if new.status.finished and lately else None


def _whole(held: _Held) -> RunView:
    run = held.run
    return RunView(run, held.analysis or analyse(run), True, tuple(run.tasks.values()))


def _all_statuses(counts: Mapping[RunStatus, int]) -> dict[RunStatus, int]:
    return {status: counts.get(status, 0) for status in RunStatus}


def _age_key(run: Run) -> tuple[float, str]:
    """Return what puts runs into the order of their age, the newest first."""
    return -(run.end_time or run.last_transition or run.start_time or 0.0), run.workflow_id
