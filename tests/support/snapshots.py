"""Snapshots by hand, for tests of what a scrape shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Optional

from ray_workflow_exporter.analysis.analysis import places_of_tasks
from ray_workflow_exporter.catalog.snapshot import (
    Histogram,
    RunView,
    Snapshot,
    WorkflowTotals,
    WorkflowView,
)
from ray_workflow_exporter.model import (
    FINISHED_STATES,
    FINISHED_STATUSES,
    Failure,
    FailureKind,
    Run,
    RunStatus,
    Task,
    TaskState,
)
from support.analysis import analyse

START = 1_700_000_000.0


def make_task(task_id: str, state: TaskState = TaskState.SUCCESSFUL, **facts: Any) -> Task:
    """A task with all facts that its state allows."""
    stage, _, number = task_id.rpartition("_")
    known: dict[str, Any] = {
        "stage": stage if number.isdigit() else task_id,
        "max_retries": 3,
        "checkpoint": True,
        "catch_exceptions": False,
        "resources": {"CPU": 1.0},
    }
    if state not in (TaskState.WAITING, TaskState.NOT_RUN):
        known.update(submit_time=START + 1, attempts=1, ray_task_id="ab01", node_id="cd02")
    if state.finished or state is TaskState.RUNNING:
        known.update(start_time=START + 1.5)
    if state.finished:
        known.update(end_time=START + 3.75)
    if state is TaskState.SUCCESSFUL:
        known.update(output_bytes=2048)
    if state is TaskState.FAILED:
        known.update(failure=Failure(FailureKind.APPLICATION, "ValueError", "bad row"))
    return Task(task_id, state=state, **{**known, **facts})


def make_run(
    workflow_id: str,
    status: RunStatus = RunStatus.SUCCESSFUL,
    tasks: Iterable[Task] = (),
    **facts: Any,
) -> Run:
    """A run of workflow `etl` with all facts that its status allows."""
    known: dict[str, Any] = {"last_transition": START}
    if status is not RunStatus.PENDING:
        known.update(start_time=START)
    if status.finished:
        known.update(end_time=START + 60.5, last_transition=START + 60.5)
    by_id = {task.task_id: task for task in tasks}
    return Run(workflow_id, "etl", status, by_id, **{**known, **facts})


def make_view(
    run: Run, *, stages: bool = True, tasks: Optional[Iterable[Task]] = None, **analysis: Any
) -> RunView:
    """A view of a run, by default with all that it has."""
    shown = tuple(run.tasks.values() if tasks is None else tasks)
    analysed = replace(analyse(run), **analysis)
    return RunView(run, analysed, stages, shown, places_of_tasks(analysed, shown))


def make_workflow(workflow: str = "etl", stages: Iterable[str] = (), **facts: Any) -> WorkflowView:
    """A workflow with two successful runs of which one was quick, and these stages."""
    counted = Histogram((1.0, 60.0), (1, 0, 1), 61.25)
    empty = Histogram((1.0, 60.0), (0, 0, 0), 0.0)
    durations = {**dict.fromkeys(FINISHED_STATUSES, empty), RunStatus.SUCCESSFUL: counted}
    finished: Mapping[RunStatus, int] = {RunStatus.SUCCESSFUL: 2}
    totals = WorkflowTotals(
        started=3,
        finished=finished,
        run_durations=durations,
        tasks_finished=dict.fromkeys(FINISHED_STATES, 4),
        task_retries=1,
        stage_durations=dict.fromkeys(stages, counted),
        resource_seconds={stage: {"CPU": 4.5, "GPU": 0.25} for stage in stages},
    )
    known: dict[str, Any] = {
        "last_success": START + 60.5,
        "last_status": RunStatus.SUCCESSFUL,
        "expected_interval": 3600.0,
    }
    runs = {RunStatus.SUCCESSFUL: 2, RunStatus.RUNNING: 1}
    return WorkflowView(workflow, runs, totals, **{**known, **facts})


def make_snapshot(*runs: RunView, workflows: Iterable[WorkflowView] = (), **facts: Any) -> Snapshot:
    """A snapshot of a healthy cluster."""
    return Snapshot(START + 100, True, True, runs, tuple(workflows), **facts)


def full_snapshot() -> Snapshot:
    """A snapshot in which every family of the table has a sample."""
    done = make_run(
        "etl-1",
        tasks=[
            make_task("extract"),
            make_task("transform", upstream=("extract",)),
            make_task("transform_1", upstream=("extract",), attempts=2),
            make_task("load", upstream=("transform", "transform_1")),
        ],
        output_task_id="load",
        deadline=START + 3600,
        user_metadata={"team": "data", "cost-center": 42},
    )
    failed = make_run(
        'nachts/für "alle"\n\\ \x07',
        RunStatus.FAILED,
        [
            make_task(
                "extract",
                TaskState.FAILED,
                failure=Failure(
                    FailureKind.APPLICATION,
                    "sqlalchemy.exc.OperationalError",
                    "no route to postgres://etl:hunter2@db/prod\n\x1b[31mpassword=hunter2",
                ),
            ),
            make_task("load", TaskState.NOT_RUN, upstream=("extract",)),
        ],
    )
    live = make_run(
        "etl-3",
        RunStatus.RUNNING,
        [
            make_task("fan_out", continuation="merge"),
            make_task("map", TaskState.RUNNING),
            make_task("map_1", TaskState.PENDING),
            make_task("merge", TaskState.WAITING, upstream=("map", "map_1")),
        ],
    )
    return make_snapshot(
        make_view(done),
        make_view(failed),
        make_view(live, expected_end=START + 120.25),
        workflows=[
            make_workflow(stages=["extract", "load"]),
            WorkflowView("idle", {}, WorkflowTotals()),
        ],
        running_limit=10,
        pending_limit=1000,
        hidden={"max_finished_runs": 7, "max_workflows": 0},
    )
