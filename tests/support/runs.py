"""Runs for tests, in few words: single ones, past ones, and any run at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from ray_workflow_exporter.model import (
    EdgeKind,
    Failure,
    FailureKind,
    Run,
    RunStatus,
    Task,
    TaskState,
)

DATA, CONTINUATION = EdgeKind.DATA, EdgeKind.CONTINUATION
WAITING, RUNNING, NOT_RUN = TaskState.WAITING, TaskState.RUNNING, TaskState.NOT_RUN
SUCCESSFUL, FAILED = TaskState.SUCCESSFUL, TaskState.FAILED
ERROR = Failure(FailureKind.APPLICATION, "ValueError", "no")
CRASH = Failure(FailureKind.SYSTEM, "WorkerCrashedError", "died")


def task(task_id: str, *upstream: str, span: Any = (None, None), **fields: Any) -> Task:
    fields.setdefault("stage", task_id.rstrip("0123456789"))
    fields.setdefault("state", SUCCESSFUL)
    return Task(task_id, upstream=upstream, start_time=span[0], end_time=span[1], **fields)


def run(*tasks: Task, status: RunStatus = RunStatus.RUNNING, **fields: Any) -> Run:
    fields.setdefault("start_time", 0.0)
    return Run("id", "etl", status, {it.task_id: it for it in tasks}, **fields)


def past_run(number: int, *tasks: Task, start: float = 0.0, end: float = 100.0) -> Run:
    ended = run(*tasks, status=RunStatus.SUCCESSFUL, start_time=start, end_time=end)
    return replace(ended, workflow_id=f"past {number}")


# Any run at all: half-read, overwritten, with cycles, with tasks nobody knows.
IDS = [f"t{number}" for number in range(10)]
moments = st.none() | st.integers(0, 20).map(float)
any_id = st.sampled_from([*IDS, "ghost"])


@st.composite
def any_runs(draw: st.DrawFn) -> Run:
    tasks = [
        Task(
            task_id,
            stage=draw(st.sampled_from("abc")),
            state=draw(st.sampled_from(TaskState)),
            upstream=tuple(draw(st.lists(any_id, max_size=3))),
            continuation=draw(st.none() | any_id),
            start_time=draw(moments),
            end_time=draw(moments),
            output_bytes=draw(st.none() | st.integers(0, 100)),
            catch_exceptions=draw(st.none() | st.booleans()),
            failure=draw(st.sampled_from([None, ERROR, CRASH])),
        )
        for task_id in draw(st.lists(st.sampled_from(IDS), unique=True))
    ]
    return run(
        *tasks,
        status=draw(st.sampled_from(RunStatus)),
        output_task_id=draw(st.none() | any_id),
        start_time=draw(moments),
        end_time=draw(moments),
        last_transition=draw(moments),
    )
