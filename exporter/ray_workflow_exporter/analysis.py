"""Pure functions over a Run: stages, edges, progress, critical path, root cause, time to finish."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Optional

from .dag import Dag, continuation_ends
from .history import History as History  # callers find it here
from .model import Edge, Failure, FailureKind, Run, RunStatus, Task, TaskState


@dataclass(frozen=True)
class Stage:
    """All tasks of one run with the same task name."""

    name: str
    tasks: Mapping[TaskState, int]  # every state, zeros included
    output_bytes: Optional[int]  # sum of the known sizes, None when none is known
    start_time: Optional[float]  # the first start of a task
    end_time: Optional[float]  # the last end, None while a task may still run


@dataclass(frozen=True)
class RootCause:
    """The failure that brought a run down, and how many tasks it kept from running."""

    task_id: str
    stage: str
    failure: Failure
    blocked: int


@dataclass(frozen=True)
class Analysis:
    """All that is derived from one Run, made once each time the Run changes."""

    tasks: Mapping[TaskState, int]  # every state, zeros included
    progress: float  # 0..1
    output_bytes: Optional[int]
    stages: tuple[Stage, ...]
    stage_edges: tuple[Edge, ...]
    task_edges: tuple[Edge, ...]
    critical_path: tuple[str, ...]  # task ids, first to last
    critical_seconds: Optional[float]
    expected_end: Optional[float]
    root_cause: Optional[RootCause]


# A task in one of these may still change without anybody's doing.
_ACTIVE = (TaskState.WAITING, TaskState.PENDING, TaskState.RUNNING)


def analyse(run: Run, history: Optional[History] = None) -> Analysis:
    """Derive everything from a run, in time linear in its tasks and edges."""
    dag = Dag.of(run)
    edges = dag.edges()
    members = stages(run)
    between = _stage_edges(run, edges)
    sizes = [stage.output_bytes for stage in members if stage.output_bytes is not None]
    cause = _root_cause(run, dag)
    path, seconds = _critical_path(run, dag, cause)
    return Analysis(
        tasks={state: sum(stage.tasks[state] for stage in members) for state in TaskState},
        progress=progress(run),
        output_bytes=sum(sizes) if sizes else None,
        stages=members,
        stage_edges=between,
        task_edges=edges,
        critical_path=path,
        critical_seconds=seconds,
        expected_end=None if history is None else _expected_end(run, history, members, between),
        root_cause=cause,
    )


def task_edges(run: Run) -> tuple[Edge, ...]:
    """List the dependencies between known tasks, each once, in the order of the tasks.

    A data edge goes from each upstream task to its consumer. A continuation edge goes from the
    task that returned a workflow to each task of it that depends on nothing.
    """
    return Dag.of(run).edges()


def stage_edges(run: Run) -> tuple[Edge, ...]:
    """List the dependencies between stages, each once. A stage's edge to itself is left out."""
    return _stage_edges(run, task_edges(run))


def stages(run: Run) -> tuple[Stage, ...]:
    """Sum up the tasks of each stage, in the order in which the stages became known."""
    members: dict[str, list[Task]] = {}
    for task in run.tasks.values():
        members.setdefault(task.stage, []).append(task)
    return tuple(_stage(name, tasks) for name, tasks in members.items())


def progress(run: Run) -> float:
    """Return the SUCCESSFUL share of the known tasks, 0..1; a SUCCESSFUL run is at 1.0.

    A continuation that adds tasks to the run takes it back.
    """
    if run.status is RunStatus.SUCCESSFUL:
        return 1.0
    if not run.tasks:
        return 0.0
    done = sum(task.state is TaskState.SUCCESSFUL for task in run.tasks.values())
    return done / len(run.tasks)


def critical_path(run: Run) -> tuple[tuple[str, ...], Optional[float]]:
    """Find the chain of tasks that decided when the run ended, or decides how far it is.

    Returns the task ids, first to last, and the seconds that the finished ones among them took:
    no time that still runs is in it. The chain ends at the root cause of a FAILED run, at the
    output task of a SUCCESSFUL one, at the task that has been running longest in a run that
    lives, else at the task that ended last. Each task comes after the one it waited for longest;
    a consumer of a task that returned a workflow waited for the end of that workflow.
    """
    dag = Dag.of(run)
    return _critical_path(run, dag, _root_cause(run, dag))


def root_cause(run: Run) -> Optional[RootCause]:
    """Find the failure that brought a FAILED run down: the first one that nobody caught.

    Ray fails the run with the first such task and starts no other one. `blocked` counts the
    NOT_RUN tasks that depend on it, at any distance.
    """
    return _root_cause(run, Dag.of(run))


def expected_end(run: Run, history: History) -> Optional[float]:
    """Estimate when a RUNNING run will end, in Unix seconds; None when its class has no history.

    The longest way through the stages that are left, each with its median span. Only fixed
    moments go in, so that the estimate changes only when the run or the history does; it is
    never before the run's last transition.
    """
    return _expected_end(run, history, stages(run), stage_edges(run))


def _stage(name: str, tasks: list[Task]) -> Stage:
    states = [task.state for task in tasks]
    sizes = [task.output_bytes for task in tasks if task.output_bytes is not None]
    starts = [task.start_time for task in tasks if task.start_time is not None]
    ends = [task.end_time for task in tasks if task.end_time is not None]
    return Stage(
        name=name,
        tasks={state: states.count(state) for state in TaskState},
        output_bytes=sum(sizes) if sizes else None,
        start_time=min(starts, default=None),
        end_time=None if any(state in states for state in _ACTIVE) else max(ends, default=None),
    )


def _stage_edges(run: Run, edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
    tasks = run.tasks
    between = dict.fromkeys(
        (tasks[edge.source].stage, tasks[edge.target].stage, edge.kind) for edge in edges
    )
    return tuple(Edge(*ends) for ends in between if ends[0] != ends[1])


def _critical_path(
    run: Run, dag: Dag, cause: Optional[RootCause]
) -> tuple[tuple[str, ...], Optional[float]]:
    tasks = run.tasks
    ends = continuation_ends(tasks)
    path: dict[str, None] = {}  # last to first
    current = _last_of_path(run, ends, cause)
    while current is not None and current not in path:
        path[current] = None
        waited_for = [ends.get(source, source) for source in dag.upstream[current]]
        creator = dag.creators.get(current)
        if not waited_for and creator is not None:
            waited_for = [creator]
        current = max(waited_for, key=lambda task_id: _moment(tasks[task_id]), default=None)
    known = [tasks[task_id].duration for task_id in path]
    seconds = [duration for duration in known if duration is not None]
    return tuple(reversed(path)), sum(seconds) if seconds else None


def _last_of_path(run: Run, ends: dict[str, str], cause: Optional[RootCause]) -> Optional[str]:
    tasks = run.tasks
    if cause is not None:
        return cause.task_id
    output = run.output_task_id
    if run.status is RunStatus.SUCCESSFUL and output is not None and output in tasks:
        end = ends.get(output, output)
        if tasks[end].end_time is not None:
            return end
    if not run.status.finished:
        running = [
            (task.start_time, task_id)
            for task_id, task in tasks.items()
            if task.state is TaskState.RUNNING and task.start_time is not None
        ]
        if running:
            return min(running, key=lambda begun: begun[0])[1]
    finished = [
        task_id
        for task_id, task in tasks.items()
        if task.state.finished and task.end_time is not None
    ]
    return max(finished, key=lambda task_id: _moment(tasks[task_id]), default=None)


def _moment(task: Task) -> float:
    return -math.inf if task.end_time is None else task.end_time


def _root_cause(run: Run, dag: Dag) -> Optional[RootCause]:
    if run.status is not RunStatus.FAILED:
        return None
    failed = [
        (math.inf if task.end_time is None else task.end_time, task, task.failure)
        for task in run.tasks.values()
        if task.state is TaskState.FAILED and task.failure is not None
    ]
    if not failed:
        return None
    failed.sort(key=lambda candidate: candidate[0])
    caught = _caught(run, dag, [task.task_id for _, task, _ in failed])
    uncaught = (
        candidate
        for candidate in failed
        # Ray catches what the task raised, never that its worker died.
        if candidate[2].kind is FailureKind.SYSTEM or candidate[1].task_id not in caught
    )
    _, task, failure = next(uncaught, failed[0])
    return RootCause(task.task_id, task.stage, failure, _blocked(run, dag, task.task_id))


def _caught(run: Run, dag: Dag, failed: list[str]) -> set[str]:
    """Pick those whose failure is caught by the task that returned their sub-DAG, or further out.

    Ray looks for the catcher in the same way (`_iter_callstack` in
    `ray/workflow/workflow_executor.py`) and goes on with the run.
    """
    catches: dict[str, bool] = {}  # a task or one of its creators
    caught = set()
    for task_id in failed:
        passed = []
        creator = dag.creators.get(task_id)
        while creator is not None and creator not in catches:
            catches[creator] = bool(run.tasks[creator].catch_exceptions)
            if catches[creator]:
                break
            passed.append(creator)
            creator = dag.creators.get(creator)
        if creator is not None and catches[creator]:
            catches.update(dict.fromkeys(passed, True))
            caught.add(task_id)
    return caught


def _blocked(run: Run, dag: Dag, failed: str) -> int:
    waiting: dict[str, list[str]] = {}  # for the end of a task
    for task_id, sources in dag.upstream.items():
        for source in sources:
            waiting.setdefault(source, []).append(task_id)
        output = run.tasks[task_id].continuation
        if output is not None:
            waiting.setdefault(output, []).append(task_id)
    reached = {failed}
    queue = [failed]
    while queue:
        for task_id in waiting.get(queue.pop(), ()):
            if task_id not in reached:
                reached.add(task_id)
                queue.append(task_id)
    return sum(run.tasks[task_id].state is TaskState.NOT_RUN for task_id in reached)


def _expected_end(
    run: Run, history: History, stages: tuple[Stage, ...], edges: tuple[Edge, ...]
) -> Optional[float]:
    usual = history.run_seconds(run.workflow)
    start = run.start_time
    if run.status is not RunStatus.RUNNING or start is None or usual is None:
        return None
    # What has not begun or ended by the last transition cannot do so before it.
    earliest = start if run.last_transition is None else max(start, run.last_transition)
    upstream: dict[str, list[str]] = {}
    for edge in edges:
        upstream.setdefault(edge.target, []).append(edge.source)
    ends: dict[str, float] = {}
    # The run may still unfold: stages come into being when a task returns a workflow.
    known = history.expected_stages(run.workflow) <= {stage.name for stage in stages}
    for stage in _upstream_first(stages, edges):
        ready = max((ends[up] for up in upstream.get(stage.name, ()) if up in ends), default=start)
        if not any(stage.tasks[state] for state in _ACTIVE):
            ends[stage.name] = ready if stage.end_time is None else stage.end_time
            continue
        seconds = history.stage_seconds(run.workflow, stage.name)
        known = known and seconds is not None
        begun = max(earliest, ready)
        if stage.start_time is not None:
            begun = max(start, stage.start_time)  # the task's is older after a resume
        ends[stage.name] = max(earliest, ready, begun + (seconds or 0.0))
    return max(earliest, *ends.values(), earliest if known else start + usual)


def _upstream_first(stages: tuple[Stage, ...], edges: tuple[Edge, ...]) -> Iterator[Stage]:
    """Order the stages; a cycle (`f` continues into `g`, `g` into `f`) is cut where it began."""
    left = {stage.name: stage for stage in stages}
    missing = dict.fromkeys(left, 0)
    downstream: dict[str, list[str]] = {}
    for edge in edges:
        missing[edge.target] += 1
        downstream.setdefault(edge.source, []).append(edge.target)
    beginnings = [name for name, sources in missing.items() if not sources]
    for beginning in [*beginnings, *missing]:  # after the beginnings only cycles are left
        ready = [beginning]
        while ready:
            name = ready.pop()
            if name not in left:
                continue
            yield left.pop(name)
            for target in downstream.get(name, ()):
                missing[target] -= 1
                if not missing[target]:
                    ready.append(target)
