"""Runs and tasks as plain JSON values: what the API, the command line and Python callers get."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from .actions import Action
from .catalog.snapshot import RunView
from .model import Edge, Failure, Task, TaskState
from .redact import MASK, masked, names_a_secret

SERVER_NAME = "ray-workflow-exporter"  # in the header `Server` of all answers


def run_metadata(view: RunView, *, messages: bool) -> dict[str, Any]:
    """Return what a list shows of a run. Times are Unix seconds, durations seconds.

    Without `messages`, a failure keeps its exception's type alone.
    """
    run, analysis = view.run, view.analysis
    cause = analysis.root_cause
    return {
        "workflow_id": run.workflow_id,
        "workflow": run.workflow,
        "status": run.status.value,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "duration": run.duration,
        "last_transition": run.last_transition,
        "deadline": run.deadline,
        "expected_end": analysis.expected_end,
        "progress": analysis.progress,
        "task_counts": _counts(analysis.tasks),
        "output_bytes": analysis.output_bytes,
        "failure": cause
        and {
            "task_id": cause.task_id,
            "stage": cause.stage,
            "blocked": cause.blocked,
            **_failure(cause.failure, messages),
        },
        "user_metadata": _plain(run.user_metadata),
    }


def run_details(view: RunView, *, messages: bool) -> dict[str, Any]:
    """Return `run_metadata` and the shape of the run: its stages, their edges, critical path."""
    analysis = view.analysis
    return {
        **run_metadata(view, messages=messages),
        "output_task_id": view.run.output_task_id,
        "critical_path": list(analysis.critical_path),
        "critical_seconds": analysis.critical_seconds,
        "stages": [
            {
                "stage": stage.name,
                "task_counts": _counts(stage.tasks),
                "output_bytes": stage.output_bytes,
                "start_time": stage.start_time,
                "end_time": stage.end_time,
            }
            for stage in analysis.stages
        ],
        "stage_edges": _edges(analysis.stage_edges),
    }


def task_metadata(task: Task, *, messages: bool) -> dict[str, Any]:
    """Return all that is known of a task. Times are Unix seconds, None where nobody knows."""
    return {
        "stage": task.stage,
        "state": task.state.value,
        "upstream": list(task.upstream),
        "continuation": task.continuation,
        "submit_time": task.submit_time,
        "start_time": task.start_time,
        "end_time": task.end_time,
        "duration": task.duration,
        "output_bytes": task.output_bytes,
        "attempts": task.attempts,
        "max_retries": task.max_retries,
        "checkpoint": task.checkpoint,
        "catch_exceptions": task.catch_exceptions,
        "failure": task.failure and _failure(task.failure, messages),
        "ray_task_id": task.ray_task_id,
        "node_id": task.node_id,
        "user_metadata": _plain(task.user_metadata),
    }


def run_tasks(view: RunView, *, messages: bool) -> dict[str, dict[str, Any]]:
    """Return {task_id: metadata} of a run, in the order in which the tasks became known."""
    tasks = view.run.tasks
    return {task_id: task_metadata(task, messages=messages) for task_id, task in tasks.items()}


def run_graph(view: RunView, level: str) -> dict[str, Any]:
    """Return the nodes and edges of a run's DAG, by `stage` or by `task`."""
    analysis, tasks = view.analysis, view.run.tasks
    path = set(analysis.critical_path)
    if level == "task":
        nodes = [
            {
                "id": task.task_id,
                "stage": task.stage,
                "state": task.state.value,
                "task_counts": {task.state.value: 1},
                "output_bytes": task.output_bytes,
                "start_time": task.start_time,
                "end_time": task.end_time,
                "critical": task.task_id in path,
            }
            for task in tasks.values()
        ]
        edges = analysis.task_edges
    else:
        critical = {tasks[task_id].stage for task_id in path}
        nodes = [
            {
                "id": stage.name,
                "stage": stage.name,
                "state": None,
                "task_counts": _counts(stage.tasks),
                "output_bytes": stage.output_bytes,
                "start_time": stage.start_time,
                "end_time": stage.end_time,
                "critical": stage.name in critical,
            }
            for stage in analysis.stages
        ]
        edges = analysis.stage_edges
    known = {node["id"] for node in nodes}
    whole = [edge for edge in edges if edge.source in known and edge.target in known]
    return {"level": level, "nodes": nodes, "edges": _edges(whole)}


def action_metadata(action: Action) -> dict[str, Any]:
    """Return an action and what became of it."""
    return {
        "action_id": action.id,
        "action": action.order.verb.value,
        "workflow_id": action.order.workflow_id,
        "requested_by": action.order.by,
        "requested_at": action.requested_at,
        "state": action.state.value,
        "detail": action.detail,
        "finished_at": action.finished_at,
        "outcomes": [
            {"workflow_id": it.workflow_id, "state": it.state.value, "detail": it.detail}
            for it in action.outcomes
        ],
    }


def _edges(edges: Iterable[Edge]) -> list[dict[str, str]]:
    return [{"source": it.source, "target": it.target, "kind": it.kind.value} for it in edges]


def _counts(counts: Mapping[TaskState, int]) -> dict[str, int]:
    return {state.value: count for state, count in counts.items()}


def _failure(failure: Failure, messages: bool) -> dict[str, Optional[str]]:
    return {
        "kind": failure.kind.value,
        "exception": failure.exception,
        "message": masked(failure.message) if messages else None,
    }


def _plain(value: Any) -> Any:
    # User metadata may hold what Python's JSON knows and JSON does not (NaN), or, while it comes
    # from memory, any object at all; and what people note down may be a secret.
    if isinstance(value, Mapping):
        return {
            str(key): MASK if names_a_secret(str(key)) else _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (int, float)):
        return value
    return masked(str(value))
