"""All that is derived from a Run: stages, edges, progress, critical path, root cause, its end."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Optional

from ..model import Edge, Run, RunStatus, Task, TaskState, slotted
from .dag import Dag
from .durations import History as History
from .durations import expected_end
from .root_cause import RootCause as RootCause
from .root_cause import root_cause
from .stages import NONE_YET, Tally
from .stages import Stage as Stage

_NEVER = -math.inf


@slotted
@dataclass(frozen=True)
class Analysis:
    """All that is derived from one Run, made once each time the Run changes.

    `progress` is the SUCCESSFUL share of the known tasks: a continuation that adds tasks takes it
    back. `stages` are in the order in which they became known, `task_edges` in the order of the
    tasks. `critical_path` is the chain of tasks that decided when the run ended, or decides how
    far it is; `critical_seconds` is what the finished ones among them took.
    """

    tasks: Mapping[TaskState, int]  # every state, zeros included
    progress: float  # 0..1
    output_bytes: Optional[int]
    stages: tuple[Stage, ...]
    stage_edges: tuple[Edge, ...]  # between different ones
    task_edges: tuple[Edge, ...]
    critical_path: tuple[str, ...]  # task ids, first to last
    critical_seconds: Optional[float]
    expected_end: Optional[float]
    root_cause: Optional[RootCause]


def outline(run: Run) -> Analysis:
    """Derive what is told of a run that is no longer exposed: no stages, no edges, no path."""
    counts = dict(NONE_YET)
    for task in run.tasks.values():
        counts[task.state] += 1
    sizes = [task.output_bytes for task in run.tasks.values() if task.output_bytes is not None]
    failed = run.status is RunStatus.FAILED
    return Analysis(
        tasks=counts,
        progress=_progress(run, counts),
        output_bytes=sum(sizes) if sizes else None,
        stages=(),
        stage_edges=(),
        task_edges=(),
        critical_path=(),
        critical_seconds=None,
        expected_end=None,
        root_cause=root_cause(run, Dag(run.tasks)) if failed else None,
    )


def analyse(run: Run, history: Optional[History] = None) -> Analysis:
    """Derive everything from a run, in time linear in its tasks and edges."""
    return Analyst(history).look(run)


class Analyst:
    """Analyses one run again and again, each time at the cost of what changed."""

    def __init__(self, history: Optional[History] = None) -> None:
        self._history = history

    def _begin(self, tasks: Mapping[str, Task]) -> None:
        self._tasks: Mapping[str, Task] = {}
        self._dag = Dag(tasks)
        self._counts = dict(NONE_YET)
        self._tallies: dict[str, Tally] = {}
        self._stage_edges: tuple[Edge, ...] = ()
        self._starts: dict[str, float] = {}  # of the tasks at work
        self._ends: dict[str, float] = {}  # of all tasks, the beginning of time for no end
        self._latest: Optional[tuple[float, str]] = (_NEVER, "")  # None: to be looked for

    def look(self, run: Run, changed: Optional[Collection[str]] = None) -> Analysis:
        """Derive everything from a run.

        `changed` is what `changed_tasks` lists between the last look's run and this one, None
        for a run that has nothing to do with it. The result is that of `analyse` either way.
        """
        tasks = run.tasks
        if changed is None or not self._dag.grow(self._tasks, tasks, changed):
            self._begin(tasks)
            changed = tasks
        for task_id in changed:
            self._count(self._tasks.get(task_id), tasks[task_id])
        self._tasks = tasks
        dag = self._dag
        stages = tuple([tally.stage(tasks) for tally in self._tallies.values()])
        stage_edges = self._sorted_stage_edges()
        cause = root_cause(run, dag) if run.status is RunStatus.FAILED else None
        path = self._critical_path(run, cause)
        known = [tasks[task_id].duration for task_id in path]
        seconds = [duration for duration in known if duration is not None]
        sizes = [stage.output_bytes for stage in stages if stage.output_bytes is not None]
        return Analysis(
            tasks=self._counts.copy(),
            progress=_progress(run, self._counts),
            output_bytes=sum(sizes) if sizes else None,
            stages=stages,
            stage_edges=stage_edges,
            task_edges=dag.edges(),
            critical_path=path,
            critical_seconds=sum(seconds) if seconds else None,
            expected_end=(
                None
                if self._history is None
                else expected_end(run, self._history, stages, stage_edges)
            ),
            root_cause=cause,
        )

    def _count(self, old: Optional[Task], new: Task) -> None:
        task_id, state = new.task_id, new.state
        tally = self._tallies.get(new.stage)
        if tally is None:
            tally = self._tallies[new.stage] = Tally(new.stage)
        tally.change(old, new)
        if old is not None:
            self._counts[old.state] -= 1
        self._counts[state] += 1
        if state is TaskState.RUNNING and new.start_time is not None:
            self._starts[task_id] = new.start_time
        else:
            self._starts.pop(task_id, None)
        end = _NEVER if new.end_time is None or not state.finished else new.end_time
        self._ends[task_id] = end
        if self._latest is not None:
            if (end, task_id) > self._latest:
                self._latest = (end, task_id)
            elif task_id == self._latest[1]:
                self._latest = None

    def _sorted_stage_edges(self) -> tuple[Edge, ...]:
        edges = self._dag.stage_edges()
        if len(edges) != len(self._stage_edges):
            rank = {name: number for number, name in enumerate(self._tallies)}
            self._stage_edges = tuple(
                sorted(edges, key=lambda it: (rank[it.target], rank[it.source], it.kind))
            )
        return self._stage_edges

    def _critical_path(self, run: Run, cause: Optional[RootCause]) -> tuple[str, ...]:
        """Follow the tasks from the last one back, each time to the one that was waited for.

        The chain ends at the root cause of a FAILED run, at the output task of a SUCCESSFUL one,
        at the task that has been running longest in a run that lives, else at the task that ended
        last. A consumer of a task that returned a workflow waited for the end of that workflow.
        """
        dag, closed = self._dag, dict[str, str]()
        path: dict[str, None] = {}  # last to first
        current = cause.task_id if cause is not None else self._last_of_path(run, closed)
        while current is not None and current not in path:
            path[current] = None
            waited_for: Collection[str] = dag.upstream[current]
            if dag.entries:
                waited_for = [
                    self._closed_by(up, closed) if up in dag.entries else up for up in waited_for
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
            return min((start, task_id) for task_id, start in self._starts.items())[1]
        if self._latest is None:
            self._latest = max(zip(self._ends.values(), self._ends))
        return self._latest[1] if self._latest[0] != _NEVER else None

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
            following = self._tasks[current].continuation
            if following is None or following not in self._tasks:
                break
            if not self._tasks[following].state.finished:
                break
            current = following
        end = closed[current]
        closed.update(dict.fromkeys(chain, end))
        return end


def _progress(run: Run, counts: Mapping[TaskState, int]) -> float:
    if run.status is RunStatus.SUCCESSFUL:
        return 1.0
    return counts[TaskState.SUCCESSFUL] / len(run.tasks) if run.tasks else 0.0
