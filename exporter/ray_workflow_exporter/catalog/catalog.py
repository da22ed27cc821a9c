"""All known runs: retention, limits, totals of workflows and the change feed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from ..analysis.analysis import Analysis, Analyst, outline, places_of_tasks
from ..analysis.durations import History, expected_end
from ..model import Run, RunStatus, Task, TaskState, changed_tasks, slotted
from ..settings.settings import Settings, WorkflowSettings
from ..sources.records import EndedLife
from .counters import Counters
from .feed import Change as Change
from .feed import ChangeFeed
from .snapshot import RunView, Snapshot, WorkflowView
from .workflow_counters import WorkflowCounters

_REASONS = ("max_finished_runs", "max_tasks_per_run", "max_stages_per_workflow")


@slotted
@dataclass
class _Held:
    run: Run
    age: tuple[float, str]  # sorts by age, newest first
    analysis: Optional[Analysis]  # None until it is needed
    analyst: Optional[Analyst]  # of a run that may still change
    view: Optional[RunView] = None
    young: bool = False  # whether the view contains all tasks
    hidden: int = 0  # objects that the view leaves out
    slim: bool = False  # its tasks were dropped: it is too old to be exposed


class Catalog:
    """All runs that the sources know, and what of them is exposed.

    Only the poll thread writes; readers get immutable snapshots.
    """

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._history = History()
        self._held: dict[str, _Held] = {}
        # What a snapshot needs of them, so that it skips what is not exposed.
        self._live: dict[str, _Held] = {}
        self._ended: list[tuple[float, str]] = []  # by age, newest first
        self._counts: defaultdict[str, Counter[RunStatus]] = defaultdict(Counter)
        self._relearned: set[str] = set()  # workflows whose history changed since the last snapshot
        self._not_slim: set[str] = set()  # runs that ended and still have their tasks
        self.feed = ChangeFeed()
        self._dirty = True
        self._next_expiry = 0.0
        self._runs: tuple[RunView, ...] = ()
        self._workflows: tuple[WorkflowView, ...] = ()
        self._hidden: dict[str, int] = {}

    def get(self, workflow_id: str) -> Optional[Run]:
        """Return the run as it was put last, without tasks if it is too old to be exposed."""
        held = self._held.get(workflow_id)
        return held.run if held else None

    def outline(self, workflow_id: str) -> Optional[Run]:
        """Return the run if its tasks were dropped to save memory; storage still has them."""
        held = self._held.get(workflow_id)
        return held.run if held and held.slim else None

    def view(self, workflow_id: str) -> Optional[RunView]:
        """Return one run with all its tasks, regardless of the limits."""
        held = self._held.get(workflow_id)
        return _whole(held) if held else None

    def views(self) -> list[RunView]:
        """Return all runs held: live ones first, then those that ended, newest first."""
        # A copy made by one C call: readers are in other threads while the dict changes.
        held = list(self._held.values())
        held.sort(key=lambda it: (it.run.status.finished, it.age))
        return [_whole(it) for it in held]

    def ids(self) -> Sequence[str]:
        """Return the ids of all runs held."""
        return list(self._held)

    def needs_outline_only(
        self, workflow_id: str, workflow: str, start: Optional[float], end: float, now: float
    ) -> bool:
        """Whether no more of a SUCCESSFUL run is needed than its times.

        It is too old to be exposed, it is not to be counted, and newer runs of its workflow give
        the usual durations.
        """
        limit = self._settings.max_finished_runs
        full = len(self._ended) >= limit
        hidden = full and (limit == 0 or -end > self._ended[limit - 1][0])
        expired = end <= now - self._settings.finished_retention
        return (
            (hidden or expired)
            and workflow_id not in self._held
            and not self._counters.is_news(workflow_id, start, end)
            and self._history.is_past(workflow, end)
        )

    def put(
        self,
        run: Run,
        mark_time: Optional[float] = None,
        number: Optional[int] = None,
        ended: Optional[EndedLife] = None,
    ) -> None:
        """Take a run as it is now; an equal one changes nothing.

        For `mark_time`, `number` and `ended` see `Counters.observe`.
        """
        held = self._held.get(run.workflow_id)
        old = held.run if held else None
        changed: Optional[Collection[str]] = None
        if held is not None and old is not None:
            if run is old or (held.slim and replace(run, tasks={}) == old):
                return
            changed = None if held.slim else changed_tasks(old.tasks, run.tasks)
            if (
                changed is not None
                and replace(run, tasks=old.tasks) == old
                and all(run.tasks[task_id] == old.tasks.get(task_id) for task_id in changed)
            ):
                return
        self._counters.observe(old, run, mark_time, changed=changed, number=number, ended=ended)
        if run.status is RunStatus.SUCCESSFUL and self._history.add(run):
            self._relearned.add(run.workflow)
        analyst = held.analyst if held and changed is not None else None
        if analyst is None and not run.status.finished:
            analyst = Analyst(self._history)
        # Most runs of a long history are never exposed.
        analysis = analyst.update(run, changed) if analyst else None
        self.feed.add_run(old, run, changed)
        if held is not None:
            self._let_go(held)
        age = -(run.end_time or run.last_transition or run.start_time or 0.0), run.workflow_id
        self._held[run.workflow_id] = held = _Held(run, age, analysis, analyst)
        self._counts[run.workflow][run.status] += 1
        if run.status.finished:
            insort(self._ended, age)
            self._not_slim.add(run.workflow_id)
            held.analyst = None
        else:
            self._live[run.workflow_id] = held
        if run.outlined:
            self._slim(held)
        self._dirty = True

    def remove(self, workflow_id: str, ended: Optional[EndedLife] = None) -> None:
        """Drop a run that was deleted; `ended` is its end if that was not observed."""
        held = self._held.pop(workflow_id, None)
        if held is None:
            return
        workflow = held.run.workflow
        self._let_go(held)
        self._counters.remove(held.run, ended)
        last = self._counters.workflows[workflow].last_run
        if last is not None and last.workflow_id == workflow_id:
            self._counters.set_last_run(workflow, self._newest_ended(workflow))
        self.feed.add_deleted(workflow_id)
        self._dirty = True

    def _let_go(self, held: _Held) -> None:
        run = held.run
        counts = self._counts[run.workflow]
        counts[run.status] -= 1
        if not any(counts.values()):
            del self._counts[run.workflow]
        self._not_slim.discard(run.workflow_id)
        if run.status.finished:
            del self._ended[bisect_left(self._ended, held.age)]
        else:
            del self._live[run.workflow_id]

    def snapshot(self, now: float, *, folded_workflows: int = 0, **sources: Any) -> Snapshot:
        """Return what is exposed at `now`; views of unchanged runs are the same objects.

        `sources` are the fields of the Snapshot about storage and manager.
        """
        if self._dirty or now >= self._next_expiry:
            self._expose(now)
        hidden = {**self._hidden, "max_workflows": folded_workflows}
        return Snapshot(now, runs=self._runs, workflows=self._workflows, hidden=hidden, **sources)

    def check_workflows(self, now: float) -> list[str]:
        """Drop workflows without a run, a setting or a recent count; return their names.

        Corrects also which run of a workflow ended last, if it was deleted while the exporter was
        away. To be called after all of storage was read.
        """
        for name, counters in self._counters.workflows.items():
            if counters.last_run is not None and counters.last_run.workflow_id not in self._held:
                self._counters.set_last_run(name, self._newest_ended(name))
                self._dirty = True
        oldest = now - self._settings.workflow_retention
        counted = self._counters.workflows.items()
        old = [key for key, it in counted if it.newest < oldest and self.may_forget(key)]
        for name in old:
            self.forget_workflow(name)
        return old

    def may_forget(self, workflow: str) -> bool:
        """Whether a workflow has counters, but no run and no setting."""
        return (
            workflow in self._counters.workflows
            and workflow not in self._counts
            and workflow not in self._settings.workflows
        )

    def forget_workflow(self, workflow: str) -> None:
        """Drop the counters of a workflow."""
        self._counters.drop(workflow)
        self._dirty = True

    def _newest_ended(self, workflow: str) -> Optional[Run]:
        if workflow not in self._counts:
            return None
        runs = (self._held[workflow_id].run for _, workflow_id in self._ended)
        return next((run for run in runs if run.workflow == workflow), None)

    def _update_expected_ends(self) -> None:
        """Estimate the ends of live runs again if the history of their workflow changed."""
        for held in self._live.values() if self._relearned else ():
            if held.run.status is RunStatus.RUNNING and held.run.workflow in self._relearned:
                known = held.analysis or Analyst().update(held.run)
                end = expected_end(held.run, self._history, known.stages, known.stage_edges)
                if end != known.expected_end:
                    held.analysis, held.view = replace(known, expected_end=end), None
        self._relearned.clear()

    def _expose(self, now: float) -> None:
        """Choose what is exposed, by the limits of each tier; count what a limit hides."""
        settings = self._settings
        # Every reason is exposed from the start, so that an alert can compare with zero.
        hidden = dict.fromkeys(_REASONS, 0)
        self._update_expected_ends()
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
        for workflow_id in self._not_slim.difference([workflow_id for _, workflow_id in newest]):
            self._slim(self._held[workflow_id])
        hidden["max_tasks_per_run"] = sum([held.hidden for held in exposed])
        hidden["max_stages_per_workflow"] = self._counters.folded_stages
        self._hidden = hidden
        self._runs = tuple(views)
        self._workflows = self._workflow_views()
        self._dirty, self._next_expiry = False, expiry

    def _view(self, held: _Held, young: bool) -> RunView:
        view = held.view
        # The same object as long as nothing changed: the renderer reuses its lines then.
        if view is not None and held.young is young:
            return view
        run, limit = held.run, self._settings.max_tasks_per_run
        analysis = held.analysis = held.analysis or Analyst().update(run)
        stages, whole = len(analysis.stages) <= limit, len(run.tasks) <= limit
        held.hidden = (0 if stages else len(analysis.stages)) + (0 if whole else len(run.tasks))
        tasks: tuple[Task, ...] = ()
        if whole and young:
            tasks = tuple(run.tasks.values())
        elif whole:
            tasks = tuple([it for it in run.tasks.values() if it.state is TaskState.FAILED])
        if view is None or len(view.tasks) != len(tasks):
            view = RunView(run, analysis, stages, tasks, places_of_tasks(analysis, tasks))
        held.view, held.young = view, young
        return view

    def _slim(self, held: _Held) -> None:
        held.analysis = outline(held.run)  # first: other threads may read at any time
        held.run = replace(held.run, tasks={})
        held.view, held.slim = None, True
        self._not_slim.discard(held.run.workflow_id)

    def _workflow_views(self) -> tuple[WorkflowView, ...]:
        views = []
        # Those in the settings too: it must be visible that one of them never ran.
        for name in sorted({*self._counters.workflows, *self._counts, *self._settings.workflows}):
            counters = self._counters.workflows.get(name) or WorkflowCounters()
            settings = self._settings.workflows.get(name) or WorkflowSettings()
            runs = self._counts.get(name, Counter())
            views.append(
                WorkflowView(
                    workflow=name,
                    runs={status: runs[status] for status in RunStatus},
                    totals=counters.totals(),
                    last_success=counters.last_success,
                    last_status=counters.last_run.status if counters.last_run else None,
                    expected_interval=settings.expected_interval,
                    objective=settings.objective or self._settings.objective,
                )
            )
        return tuple(views)


def _whole(held: _Held) -> RunView:
    run = held.run
    return RunView(run, held.analysis or Analyst().update(run), True, tuple(run.tasks.values()))
