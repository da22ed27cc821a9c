"""The families about one task of a run, and the edges between tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, Optional, Union

from ...display import resources
from ...model import TaskState
from ..family import (
    EXPERIMENTAL,
    GAUGE,
    TASK,
    TASK_EDGE,
    Family,
    Options,
    Sample,
    Sampler,
    TaskOnPath,
)
from ..samplers import column, edge_id, end_time, failure_labels, one, row


def _info(subject: TaskOnPath, _: Options) -> Iterable[Sample]:
    task = subject.task
    facts = (
        task.max_retries, task.checkpoint, task.catch_exceptions, task.ray_task_id, task.node_id,
    )  # fmt: skip
    yield (task.stage, *map(_label, facts), resources(task.resources)), 1


def _label(value: Optional[Union[str, int]]) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _in_stage(get: Callable[[TaskOnPath], Optional[float]]) -> Sampler:
    def samples(subject: TaskOnPath, _: Options) -> Iterable[Sample]:
        value = get(subject)
        return () if value is None else (((subject.task.stage,), value),)

    return samples


def _failure(subject: TaskOnPath, options: Options) -> Iterable[Sample]:
    task = subject.task
    if task.state is TaskState.FAILED and task.failure is not None:
        yield (task.stage, *failure_labels(task.failure, options)), 1


FAMILIES: tuple[Family, ...] = (
    Family(
        "ray_workflow_task_state", GAUGE, TASK,
        "1 for the current state of the task; the other states have no series.",
        lambda it, _: [((it.task.stage, it.task.state.value), 1)], ("stage", "state"),
    ),
    Family(
        "ray_workflow_task_info", GAUGE, TASK,
        "1 for each task, with its options and where Ray ran it as labels.",
        _info,
        (
            "stage", "max_retries", "checkpoint", "catch_exceptions", "ray_task_id", "node_id",
            "resources",
        ),
    ),
    Family(
        "ray_workflow_task_submit_timestamp_seconds", GAUGE, TASK,
        "Unix time at which the task was submitted to Ray; known only for runs observed live.",
        one(lambda it: it.task.submit_time),
    ),
    Family(
        "ray_workflow_task_start_timestamp_seconds", GAUGE, TASK,
        "Unix time at which the last attempt at the task started.",
        one(lambda it: it.task.start_time),
    ),
    Family(
        "ray_workflow_task_end_timestamp_seconds", GAUGE, TASK,
        "Unix time at which the task ended.",
        one(lambda it: end_time(it.task, it.task.state.finished)),
    ),
    Family(
        "ray_workflow_task_duration_seconds", GAUGE, TASK,
        "Seconds from start to end of a finished task.",
        one(lambda it: it.task.duration),
    ),
    Family(
        "ray_workflow_task_output_size_bytes", GAUGE, TASK,
        "Bytes of the stored output of the task.",
        one(lambda it: it.task.output_bytes),
    ),
    Family(
        "ray_workflow_task_attempts", GAUGE, TASK,
        "Attempts at the task so far, including the first one.",
        one(lambda it: it.task.attempts),
    ),
    Family(
        "ray_workflow_task_critical", GAUGE, TASK,
        "1 for a task on the critical path of its run; the other tasks have no series.",
        one(lambda it: 1 if it.critical else None), stability=EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_task_failure_info", GAUGE, TASK,
        "1 for a FAILED task, with its error as labels.",
        _failure, ("stage", "kind", "exception", "message"),
    ),
    Family(
        "ray_workflow_task_column", GAUGE, TASK,
        "Column of the task in a drawing of the DAG from left to right.",
        _in_stage(column), ("stage",), EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_task_row", GAUGE, TASK,
        "Row of the task in a drawing of the DAG; there are rows between whole numbers.",
        _in_stage(row), ("stage",), EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_task_edge", GAUGE, TASK_EDGE,
        "1 for each dependency of the task target on the task source; edge is a short id.",
        edge_id, ("edge",),
    ),
)  # fmt: skip
