"""What the API answers: the fields of each response, their meaning and where they come from.

A `Shape` is both: `Responses` builds plain JSON objects from its fields, and `server.api.openapi`
documents them. To add a field, add a line. All times are Unix seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Callable, ClassVar, Literal, NamedTuple, Optional, Union

from . import actions, model
from .catalog.snapshot import RunView
from .redact import MASK, masked, names_a_secret

MAX_METADATA = 65_536  # characters of the user metadata of one run or task
MAX_LISTED_METADATA = 4096  # the same in a list, whose pages hold up to 1,000 runs
MAX_TEXT = 8192  # characters of one text in it
CUT = "[truncated]"  # stands where something was left out

Time = Optional[float]
Counts = dict[model.TaskState, int]
Json = dict[str, Any]


def field(description: str, read: Union[str, Callable[..., Any]] = "") -> Any:
    """Declare a field: its meaning, and how it is read.

    `read` is a path of attributes (default: the field's own name) or a function of the source
    object and the `Responses`.
    """
    return dataclasses.field(metadata={"description": description, "read": read})


class Shape:
    """A JSON object with these fields and no others. A declaration only: it has no instances."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    readers: ClassVar[tuple[tuple[str, Callable[..., Any], bool], ...]]  # name, read, is_path

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(cls)
        readers: list[tuple[str, Callable[..., Any], bool]] = []
        for it in dataclasses.fields(cls):  # type: ignore[arg-type]
            read = it.metadata["read"] or it.name
            if isinstance(read, str):
                readers.append((it.name, attrgetter(read), True))
            else:
                readers.append((it.name, read, False))
        cls.readers = tuple(readers)


class Failure(Shape):
    """What went wrong in a task."""

    kind: model.FailureKind = field(
        "`application`: the task's own code; `system`: what it ran on.", "failure.kind.value"
    )
    exception: str = field("The type of the exception.", "failure.exception")
    message: Optional[str] = field(
        "Its text, secrets masked; null if `expose_error_messages` is off.",
        lambda it, to: masked(it.failure.message) if to.error_messages else None,
    )


class RootCause(Failure):
    """The failure because of which a run failed."""

    task_id: str = field("The task that failed.")
    stage: str = field("Its stage.")
    blocked: int = field("How many tasks did not run because of it.")


class Edge(Shape):
    """A dependency between two tasks or stages."""

    source: str = field("The upstream task or stage.")
    target: str = field("The downstream task or stage.")
    kind: model.EdgeKind = field(
        "`data`: an argument; `continuation`: the source returned a workflow.", "kind.value"
    )


class Stage(Shape):
    """All tasks of a run with the same task name."""

    stage: str = field("The task name.", "name")
    task_counts: Counts = field("Tasks by state.", lambda it, to: _counts(it.tasks))
    output_bytes: Optional[int] = field("Sum of the known output sizes.")
    start_time: Time = field("First start of a task.")
    end_time: Time = field("Last end of a task; null while a task may still run.")


class RunSummary(Shape):
    """A run in a list. Times are null where they are not known."""

    workflow_id: str = field("The run's id.", "run.workflow_id")
    workflow: str = field("The workflow that it is a run of.", "run.workflow")
    status: model.RunStatus = field("Ray's status of the run.", "run.status.value")
    start_time: Time = field("Its last start: a resume sets it anew.", "run.start_time")
    end_time: Time = field("Its end.", "run.end_time")
    duration: Time = field("Seconds from start to end; null until it has finished.", "run.duration")
    last_transition: Time = field(
        "The last time the run or one of its tasks changed state.", "run.last_transition"
    )
    deadline: Time = field("When it is to be finished at the latest.", "run.deadline")
    expected_end: Time = field(
        "When it ends if its tasks take as long as in earlier runs.", "analysis.expected_end"
    )
    progress: float = field("SUCCESSFUL share of the known tasks, 0 to 1.", "analysis.progress")
    task_counts: Counts = field("Tasks by state.", lambda it, to: _counts(it.analysis.tasks))
    output_bytes: Optional[int] = field("Sum of the known output sizes.", "analysis.output_bytes")
    failure: Optional[RootCause] = field(
        "Why a FAILED run failed.",
        lambda it, to: it.analysis.root_cause and _build(RootCause, it.analysis.root_cause, to),
    )
    reason: Optional[str] = field(
        "Why a RESUMABLE run stopped, where Ray's own executor failed; null otherwise.",
        lambda it, to: masked(it.run.reason) if it.run.reason and to.error_messages else None,
    )
    user_metadata: Optional[dict[str, Any]] = field(
        "The run's user metadata: secrets masked, cut with `[truncated]` after 64 KiB. In lists "
        "null unless `metadata=true` was given, and cut after 4 KiB.",
        lambda it, to: None,  # it may be long: see Responses
    )


class Run(RunSummary):
    """One run with its stages."""

    output_task_id: Optional[str] = field(
        "The task whose output is the run's.", "run.output_task_id"
    )
    critical_path: list[str] = field(
        "Ids of the tasks that decided how long it took.",
        lambda it, to: list(it.analysis.critical_path),
    )
    critical_seconds: Optional[float] = field(
        "Seconds that the finished tasks among them took.", "analysis.critical_seconds"
    )
    stages: list[Stage] = field(
        "Its stages, in the order in which they became known.",
        lambda it, to: [_build(Stage, stage) for stage in it.analysis.stages],
    )
    stage_edges: list[Edge] = field(
        "Dependencies between different stages.",
        lambda it, to: [_build(Edge, edge) for edge in it.analysis.stage_edges],
    )


class RunPage(Shape):
    """A page of runs."""

    total: int = field("How many runs match.")
    limit: int = field("The highest number of runs on a page.")
    offset: int = field("How many runs were skipped.")
    items: list[RunSummary] = field("The runs.")
    warnings: list[str] = field(
        "Sentences on why these may not be the runs of the cluster; empty as a rule."
    )


class Task(Shape):
    """One task. Times are null where they are not known."""

    stage: str = field("Its task name.")
    state: model.TaskState = field("Its state, as defined in the metrics reference.", "state.value")
    upstream: list[str] = field(
        "Ids of the tasks whose outputs are its arguments.", lambda it, to: list(it.upstream)
    )
    continuation: Optional[str] = field("The output task of the workflow that it returned.")
    submit_time: Time = field("When its last attempt was submitted to Ray.")
    start_time: Time = field("When its function was called.")
    end_time: Time = field("When its function returned.")
    duration: Time = field("Seconds from start to end; null until it has finished.")
    output_bytes: Optional[int] = field("Size of its output.")
    attempts: int = field("How many times it was tried.")
    max_retries: Optional[int] = field("How many times Ray may retry it.")
    checkpoint: Optional[bool] = field("Whether its output is kept in storage.")
    catch_exceptions: Optional[bool] = field("Whether its exception is part of its output.")
    resources: dict[str, float] = field(
        "What it asks Ray for: `CPU`, `GPU`, bytes of `memory`, custom ones; empty if unknown.",
        lambda it, to: dict(it.resources),
    )
    failure: Optional[Failure] = field(
        "What went wrong in the last failed attempt.",
        lambda it, to: _build(Failure, it, to) if it.failure else None,
    )
    ray_task_id: Optional[str] = field("Ray's id of the task.")
    node_id: Optional[str] = field("The node that it ran on.")
    user_metadata: dict[str, Any] = field(
        "The task's user metadata: secrets masked, cut with `[truncated]` after 64 KiB.",
        lambda it, to: _metadata(it.user_metadata),
    )


Tasks = dict[str, Task]


class Node(Shape):
    """A stage or a task in a graph."""

    id: str = field("The stage, or the task's id.")
    stage: str = field("The stage.")
    state: Optional[model.TaskState] = field("The task's state; null for a stage.")
    task_counts: Counts = field("Tasks by state; for a task, itself alone.", "counts")
    output_bytes: Optional[int] = field("Sum of the known output sizes.", "of.output_bytes")
    start_time: Time = field("First start.", "of.start_time")
    end_time: Time = field("Last end; null while a task may still run.", "of.end_time")
    critical: bool = field("Whether it is on the critical path.")


class Graph(Shape):
    """The DAG of a run. An edge is there only together with both its ends."""

    level: Literal["stage", "task"] = field("What the nodes are.")
    nodes: list[Node] = field("The nodes, in the order in which they became known.")
    edges: list[Edge] = field("The dependencies.")


class Outcome(Shape):
    """The outcome of an action for one run."""

    workflow_id: str = field("The run.")
    state: actions.ActionState = field("The outcome.", "state.value")
    detail: str = field("The outcome as a sentence.")


class Action(Shape):
    """An action and its outcome."""

    action_id: str = field("Its id.", "id")
    action: actions.Verb = field("What was requested.", "order.verb.value")
    workflow_id: Optional[str] = field("The run; null for `resume-all`.", "order.workflow_id")
    requested_by: str = field("The name of the token.", "order.by")
    requested_at: float = field("When it was requested.")
    state: actions.ActionState = field(
        "`RUNNING`; `WAITING` for a queued run to start; `SUCCEEDED`; `REFUSED`: not possible in "
        "the state that Ray reported, nothing was done; `FAILED`.",
        "state.value",
    )
    detail: Optional[str] = field("The outcome as a sentence; null until it has finished.")
    finished_at: Time = field("When it finished.")
    outcomes: list[Outcome] = field(
        "For `resume-all`, the outcome for each run so far.",
        lambda it, to: [_build(Outcome, outcome) for outcome in it.outcomes],
    )


class Forgotten(Shape):
    """A workflow whose counters were dropped."""

    workflow: str = field("The workflow.")


class ActionPage(Shape):
    """A page of actions, newest first. The newest 1,000 are kept until the exporter ends."""

    total: int = field("How many actions there are.")
    limit: int = field("The highest number of actions on a page.")
    offset: int = field("How many actions were skipped.")
    items: list[Action] = field("The actions.")


class Problem(Shape):
    """An error (RFC 9457)."""

    type: str = field("Always `about:blank`: the status says what kind of error it is.")
    title: str = field("The status in words.")
    status: int = field("The HTTP status.")
    detail: Optional[str] = field("A sentence: what is wrong and what to do.")


class Responses:
    """Builds what the API says of runs and tasks. The only place that withholds error messages."""

    def __init__(self, *, error_messages: bool) -> None:
        self.error_messages = error_messages

    def run_summary(self, view: RunView, *, metadata: bool = False) -> Json:
        """Return a run as in a list, with its user metadata only if asked."""
        found = _build(RunSummary, view, self)
        if metadata:
            found["user_metadata"] = _metadata(view.run.user_metadata, MAX_LISTED_METADATA)
        return found

    def run(self, view: RunView) -> Json:
        """Return a run with its stages."""
        return {**_build(Run, view, self), "user_metadata": _metadata(view.run.user_metadata)}

    def task(self, task: model.Task) -> Json:
        """Return a task."""
        return _build(Task, task, self)

    def tasks(self, view: RunView) -> dict[str, Json]:
        """Return {task_id: task} of a run, in the order in which the tasks became known."""
        return {task_id: self.task(task) for task_id, task in view.run.tasks.items()}


def run_graph(view: RunView, level: str) -> Json:
    """Return the nodes and edges of a run's DAG, by `stage` or by `task`."""
    analysis, tasks = view.analysis, view.run.tasks
    path = set(analysis.critical_path)
    if level == "task":
        edges = analysis.task_edges
        nodes = [
            _Node(it.task_id, it.stage, it.state.value, {it.state.value: 1}, it, it.task_id in path)
            for it in tasks.values()
        ]
    else:
        edges = analysis.stage_edges
        critical = {tasks[task_id].stage for task_id in path}
        nodes = [
            _Node(it.name, it.name, None, _counts(it.tasks), it, it.name in critical)
            for it in analysis.stages
        ]
    known = {node.id for node in nodes}
    whole = [edge for edge in edges if edge.source in known and edge.target in known]
    return {
        "level": level,
        "nodes": [_build(Node, node) for node in nodes],
        "edges": [_build(Edge, edge) for edge in whole],
    }


def action_metadata(action: actions.Action) -> Json:
    """Return an action and its outcome."""
    return _build(Action, action)


class _Node(NamedTuple):
    """What a Node is read from: `of` is the stage or the task."""

    id: str
    stage: str
    state: Optional[str]
    counts: Json
    of: Any
    critical: bool


def _build(shape: type[Shape], source: Any, to: Optional[Responses] = None) -> Json:
    """Return the JSON object of a shape; `to` is needed for those that may hold a failure."""
    return {
        name: read(source) if is_path else read(source, to) for name, read, is_path in shape.readers
    }


def _counts(counts: Mapping[model.TaskState, int]) -> dict[str, int]:
    return {state.value: count for state, count in counts.items()}


def _metadata(value: Mapping[str, Any], limit: int = MAX_METADATA) -> Json:
    """Return user metadata as plain JSON: secrets masked, what is too long cut with a mark."""
    return _plain(value, [limit])  # type: ignore[no-any-return]


def _plain(value: Any, left: list[int]) -> Any:
    """`left` holds how many characters may still be used, shared by all parts of one value."""
    # User metadata may hold what Python's JSON knows and JSON does not (NaN), or, while it comes
    # from memory, any object at all; and it may hold secrets.
    if isinstance(value, Mapping):
        found: Json = {}
        for key, item in value.items():
            if left[0] <= 0:
                found[CUT] = f"{len(value) - len(found)} more"
                break
            key = str(key)[: left[0]]
            left[0] -= len(key)
            found[key] = MASK if names_a_secret(key) else _plain(item, left)
        return found
    if isinstance(value, (list, tuple)):
        items: list[Any] = []
        for item in value:
            if left[0] <= 0:
                items.append(f"{CUT}: {len(value) - len(items)} more")
                break
            items.append(_plain(item, left))
        return items
    left[0] -= 8
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (int, float)):
        return value
    text, limit = str(value), max(0, min(left[0], MAX_TEXT))
    left[0] -= min(len(text), limit)
    return masked(text[:limit]) + (f" {CUT}" if len(text) > limit else "")
