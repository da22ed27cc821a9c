"""All that is derived from a Run: stages, edges, progress, critical path, root cause, its end."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

from ..model import Edge, Run, RunStatus, Task, TaskState, slotted
from .dag import Dag
from .durations import History as History
from .durations import expected_end
from .layered import Place, fill, grid
from .root_cause import RootCause as RootCause
from .root_cause import root_cause
from .stages import NONE_YET, Tally
from .stages import Stage as Stage

MAX_PLACED = 200  # nodes; Grafana's node graph hides more
_MAX_EDGES = 3000  # more cannot be told apart
# Columns of a small, a larger and a large DAG on the dashboard of a run.
_STAGE_COLUMNS = (6, 8, 12)
_TASK_COLUMNS = (8, 12, 16)
_NEVER = -math.inf


@slotted
@dataclass(frozen=True)
class Analysis:
    """All that is derived from one Run, made once each time the Run changes.

    `progress` is the SUCCESSFUL share of the known tasks: a continuation that adds tasks takes it
    back. `stages` are in the order in which they became known, `task_edges` in the order of the
    tasks. `critical_path` is the chain of tasks that decided when the run ended, or decides how
    far it is; `critical_seconds` is what the finished ones among them took.
    `stage_places` and `task_places` are where a drawing of the DAG has them: see `places_of_tasks`.
    """

    tasks: Mapping[TaskState, int]  # every state, zeros included
    progress: float  # 0..1
    output_bytes: Optional[int]
    root_cause: Optional[RootCause]
    stages: tuple[Stage, ...] = ()
    stage_edges: tuple[Edge, ...] = ()  # between different ones
    task_edges: tuple[Edge, ...] = ()
    critical_path: tuple[str, ...] = ()  # task ids, first to last
    critical_seconds: Optional[float] = None
    expected_end: Optional[float] = None
    stage_places: Mapping[str, Place] = field(default_factory=dict)
    task_places: Mapping[str, Place] = field(default_factory=dict)


def places_of_tasks(analysis: Analysis, tasks: Iterable[Task]) -> Mapping[str, Place]:
    """Return where tasks of a run are in a drawing of its DAG.

    In a run of more than MAX_PLACED tasks, which are drawn one stage at a time, each place is that
    within the stage.
    """
    if analysis.task_places:
        return analysis.task_places
    by_stage: defaultdict[str, list[str]] = defaultdict(list)
    for task in tasks:
        by_stage[task.stage].append(task.task_id)
    places: dict[str, Place] = {}
    for members in by_stage.values():
        places.update(fill(_numbered(members), _TASK_COLUMNS[-1]))
    return places


def _numbered(task_ids: Collection[str]) -> Sequence[str]:
    """Return tasks of one name in the order of their numbers: storage has `f_10` before `f_2`."""
    ranks: dict[str, int] = {}
    keys = {}
    for task_id in task_ids:
        name, _, last = task_id.rpartition("_")
        number = int(last) if last.isdecimal() and len(last) < 10 else -1
        rank = ranks.setdefault(task_id if number < 0 else name, len(ranks))
        keys[task_id] = rank, number
    return sorted(task_ids, key=keys.__getitem__)


def _places(
    nodes: Collection[str], edges: Collection[Edge], widths: Sequence[int]
) -> Mapping[str, Place]:
    if len(nodes) > MAX_PLACED:
        return {}
    if len(edges) > _MAX_EDGES:
        return fill(_numbered(nodes), widths[-1])
    ends = dict.fromkeys((it.source, it.target) for it in edges)
    return grid(_numbered(nodes), ends, widths)


def outline(run: Run) -> Analysis:
    """Derive what is kept of a run that is no longer exposed: no stages, no edges, no path."""
    tasks, dag = run.tasks, Dag()
    if run.status is RunStatus.FAILED:
        dag.grow({}, tasks, tasks)
    counts = {**NONE_YET, **Counter([task.state for task in tasks.values()])}
    sizes = [task.output_bytes for task in tasks.values() if task.output_bytes is not None]
    return Analysis(
        tasks=counts,
        progress=_progress(run.status, counts, len(tasks)),
        output_bytes=sum(sizes) if sizes else None,
        root_cause=root_cause(run, dag),
    )


def _progress(status: RunStatus, counts: Mapping[TaskState, int], tasks: int) -> float:
    return 1.0 if status is RunStatus.SUCCESSFUL else counts[TaskState.SUCCESSFUL] / max(tasks, 1)


class Analyst:
    """Analyses one run again and again, each time at the cost of what changed."""

    def __init__(self, history: Optional[History] = None) -> None:
        self._history = history or History()
        self._clear()

    def _clear(self) -> None:
        self._tasks: Mapping[str, Task] = {}
        self._dag = Dag()
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)  # by stage
        self._stage_edges: tuple[Edge, ...] = ()
        self._stage_places: Mapping[str, Place] = {}
        self._task_places: Mapping[str, Place] = {}
        self._starts: dict[str, float] = {}  # of the tasks at work
        self._ends: dict[str, float] = {}  # of all tasks, the beginning of time for no end

    def update(self, run: Run, changed: Optional[Collection[str]] = None) -> Analysis:
        """Derive everything from a run, at first in time linear in its tasks and edges.

        `changed` is what `changed_tasks` lists between the last update's run and this one, None
        for a run that has nothing to do with it. The result is the same either way.
        """
        tasks = run.tasks
        drawn = len(self._tasks), self._dag.task_edges
        drawn_stages = len(self._tallies), self._stage_edges
        if not self._tasks or changed is None or not self._dag.grow(self._tasks, tasks, changed):
            changed = tasks
            self._clear()
            self._dag.grow({}, tasks, tasks)
            drawn, drawn_stages = (0, ()), (0, ())
        by_stage: defaultdict[str, list[Task]] = defaultdict(list)
        for task_id in changed:
            new = tasks[task_id]
            by_stage[new.stage].append(new)
            if new.state is TaskState.RUNNING and new.start_time is not None:
                self._starts[task_id] = new.start_time
            else:
                self._starts.pop(task_id, None)
            end = new.end_time if new.state.finished else None
            self._ends[task_id] = _NEVER if end is None else end
        for stage, its_tasks in by_stage.items():
            self._tallies[stage].update(its_tasks, self._tasks, tasks)
        self._tasks = tasks
        stages = tuple([tally.stage for tally in self._tallies.values()])
        edges = self._dag.stage_edges
        if len(edges) != len(self._stage_edges):
            rank = {name: number for number, name in enumerate(self._tallies)}
            places = [(rank[target], rank[source], kind) for source, target, kind in edges]
            self._stage_edges = tuple([edge for _, edge in sorted(zip(places, edges.values()))])
        if drawn != (len(tasks), self._dag.task_edges):
            self._task_places = _places(tasks, self._dag.task_edges, _TASK_COLUMNS)
        if drawn_stages != (len(stages), self._stage_edges):
            self._stage_places = _places(self._tallies, self._stage_edges, _STAGE_COLUMNS)
        counts = dict(NONE_YET)
        for it in stages:
            for state, count in it.tasks.items():
                counts[state] += count
        sizes = [it.output_bytes for it in stages if it.output_bytes is not None]
        cause = root_cause(run, self._dag)
        path = self._critical_path(run, cause)
        durations = [tasks[task_id].duration for task_id in path]
        seconds = [duration for duration in durations if duration is not None]
        end = None
        if run.status is RunStatus.RUNNING:
            end = expected_end(run, self._history, stages, self._stage_edges)
        return Analysis(
            tasks=counts,
            progress=_progress(run.status, counts, len(tasks)),
            output_bytes=sum(sizes) if sizes else None,
            stages=stages,
            stage_edges=self._stage_edges,
            task_edges=self._dag.task_edges,
            critical_path=path,
            critical_seconds=sum(seconds) if seconds else None,
            expected_end=end,
            root_cause=cause,
            stage_places=self._stage_places,
            task_places=self._task_places,
        )

    def _critical_path(self, run: Run, cause: Optional[RootCause]) -> tuple[str, ...]:
        """Follow the tasks from the last one back, each time to the one that was waited for.

        The chain ends at the root cause of a FAILED run, at the output task of a SUCCESSFUL one,
        at the task that has been running longest in a run that lives, else at the task that ended
        last. A consumer of a task that returned a workflow waited for the end of that workflow.
        """
        dag, closed = self._dag, dict[str, str]()
        path: dict[str, None] = {}  # last to first
        current = (cause and cause.task_id) or self._last_of_path(run, closed)
        while current is not None and current not in path:
            path[current] = None
            waited_for = [
                self._closed_by(up, closed) if up in dag.entries else up
                for up in dag.upstream[current]
            ]
            if waited_for:
                current = max(waited_for, key=self._ends.__getitem__)
            else:
                current = dag.creators.get(current)
        return tuple(reversed(path))

    def _last_of_path(self, run: Run, closed: dict[str, str]) -> Optional[str]:
        output = run.output_task_id
        if run.status is RunStatus.SUCCESSFUL and output is not None and output in run.tasks:
            end = self._closed_by(output, closed)
            if self._ends[end] != _NEVER:
                return end
        if not run.status.finished and self._starts:
            return min(zip(self._starts.values(), self._starts))[1]
        latest, task_id = max(zip(self._ends.values(), self._ends), default=(_NEVER, ""))
        return task_id if latest != _NEVER else None

    def _closed_by(self, task_id: str, closed: dict[str, str]) -> str:
        """Return the task whose end was the end of this one: its last continuation's last one.

        One that did not finish is not waited for: its exception was caught (`catch_exceptions`).
        `closed` remembers what was found, so that a long chain is walked once.
        """
        chain = []
        current = task_id
        while current not in closed:
            closed[current] = current  # also stops a cycle
            chain.append(current)
            following = self._tasks.get(self._tasks[current].continuation or "")
            if following is None or not following.state.finished:
                break
            current = following.task_id
        end = closed[current]
        closed.update(dict.fromkeys(chain, end))
        return end
