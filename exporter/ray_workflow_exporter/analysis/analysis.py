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
    """Derive what is kept of a run that is no longer exposed: no stages, no edges, no path."""
    counts = dict(NONE_YET)
    for task in run.tasks.values():
        counts[task.state] += 1
    sizes = [task.output_bytes for task in run.tasks.values() if task.output_bytes is not None]
    failed = run.status is RunStatus.FAILED
    progress = counts[TaskState.SUCCESSFUL] / len(run.tasks) if run.tasks else 0.0
    return Analysis(
        tasks=counts,
        progress=1.0 if run.status is RunStatus.SUCCESSFUL else progress,
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
    return Analyst(history).update(run)


class Analyst:
    """Analyses one run again and again, each time at the cost of what changed."""

    _tasks: Mapping[str, Task]
    _dag: Dag
    _counts: dict[TaskState, int]
    _tallies: dict[str, Tally]
    _stage_edges: tuple[Edge, ...]
    _starts: dict[str, float]  # of the tasks at work
    _ends: dict[str, float]  # of all tasks, the beginning of time for no end
    _latest: Optional[tuple[float, str]]  # None: to be searched for

    def __init__(self, history: Optional[History] = None) -> None:
        self._history = history

    def update(self, run: Run, changed: Optional[Collection[str]] = None) -> Analysis:
        """Derive everything from a run.

        `changed` is what `changed_tasks` lists between the last update's run and this one, None
        for a run that has nothing to do with it. The result is that of `analyse` either way.
        """
        tasks = run.tasks
        if changed is None or not self._dag.grow(self._tasks, tasks, changed):
            changed = tasks
            self._tasks, self._dag, self._counts, self._tallies = {}, Dag(tasks), dict(NONE_YET), {}
            self._stage_edges, self._starts, self._ends = (), {}, {}
            self._latest = (_NEVER, "")
        counts, tallies = self._counts, self._tallies
        for task_id in changed:
            old, new = self._tasks.get(task_id), tasks[task_id]
            if new.stage not in tallies:
                tallies[new.stage] = Tally(new.stage)
            tallies[new.stage].change(old, new)
            if old is not None:
                counts[old.state] -= 1
            counts[new.state] += 1
            if new.state is TaskState.RUNNING and new.start_time is not None:
                self._starts[task_id] = new.start_time
            else:
                self._starts.pop(task_id, None)
            end = _NEVER if new.end_time is None or not new.state.finished else new.end_time
            self._ends[task_id] = end
            if self._latest is not None:
                if (end, task_id) > self._latest:
                    self._latest = (end, task_id)
                elif task_id == self._latest[1]:
                    self._latest = None
        self._tasks = tasks
        dag = self._dag
        stages = tuple([tally.stage(tasks) for tally in tallies.values()])
        if len(dag.stage_edges) != len(self._stage_edges):
            rank = {name: number for number, name in enumerate(tallies)}
            edges = [(rank[it.target], rank[it.source], it.kind) for it in dag.stage_edges.values()]
            by_rank = sorted(zip(edges, dag.stage_edges.values()))
            self._stage_edges = tuple([edge for _, edge in by_rank])
        cause = root_cause(run, dag) if run.status is RunStatus.FAILED else None
        path = self._critical_path(run, cause)
        known = [tasks[task_id].duration for task_id in path]
        seconds = [duration for duration in known if duration is not None]
        sizes = [stage.output_bytes for stage in stages if stage.output_bytes is not None]
        progress = counts[TaskState.SUCCESSFUL] / len(tasks) if tasks else 0.0
        end_time = None
        if self._history is not None and run.status is RunStatus.RUNNING:
            end_time = expected_end(run, self._history, stages, self._stage_edges)
        return Analysis(
            tasks=counts.copy(),
            progress=1.0 if run.status is RunStatus.SUCCESSFUL else progress,
            output_bytes=sum(sizes) if sizes else None,
            stages=stages,
            stage_edges=self._stage_edges,
            task_edges=dag.task_edges,
            critical_path=path,
            critical_seconds=sum(seconds) if seconds else None,
            expected_end=end_time,
            root_cause=cause,
        )

    def _critical_path(self, run: Run, cause: Optional[RootCause]) -> tuple[str, ...]:
        """Follow the tasks from the last one back, each time to the one that was waited for.

        The chain ends at the root cause of a FAILED run, at the output task of a SUCCESSFUL one,
        at the task that has been running longest in a run that lives, else at the task that ended
        last. A consumer of a task that returned a workflow waited for the end of that workflow.
        """
        dag, closed = self._dag, dict[str, str]()
        path: dict[str, None] = {}  # last to first
        failed = cause.task_id if cause is not None else ""
        current = failed or self._last_of_path(run, closed)
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
