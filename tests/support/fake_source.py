"""An exporter without Ray and storage: a few runs, and answers that a test can change."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Optional

from ray_workflow_exporter.actions import Actions
from ray_workflow_exporter.catalog.feed import Change
from ray_workflow_exporter.catalog.snapshot import RunView
from ray_workflow_exporter.metrics.blocks import block, gzip_pieces
from ray_workflow_exporter.metrics.family import Tier
from ray_workflow_exporter.model import Failure, FailureKind, Run, RunStatus, Task, TaskState
from ray_workflow_exporter.sources.records import LinkState, ManagerView
from support.analysis import analyse

HOSTILE = "evil\n\x1b[31m<script>alert(1)</script>[bold]/../\u202e{x}%2F"


def view(run: Run) -> RunView:
    return RunView(run, analyse(run), stages=True, tasks=tuple(run.tasks.values()))


def failed_run(
    workflow_id: str = "etl/2025-06-01", message: str = "no row password=hunter2"
) -> Run:
    tasks = [
        Task(
            "load",
            "load",
            TaskState.SUCCESSFUL,
            start_time=100.0,
            end_time=104.5,
            output_bytes=2048,
            attempts=1,
            checkpoint=True,
            user_metadata={"rows": float("nan")},
        ),
        Task(
            "check",
            "check",
            TaskState.FAILED,
            upstream=("load",),
            start_time=105.0,
            end_time=106.0,
            attempts=2,
            failure=Failure(FailureKind.APPLICATION, "ValueError", message),
        ),
        Task("report", "report", TaskState.NOT_RUN, upstream=("check",)),
    ]
    return Run(
        workflow_id,
        "etl",
        RunStatus.FAILED,
        tasks={task.task_id: task for task in tasks},
        output_task_id="report",
        start_time=100.0,
        end_time=106.0,
        user_metadata={"team": "data"},
    )


def running_run(workflow_id: str = "train-7") -> Run:
    tasks = [
        Task("prepare", "prepare", TaskState.SUCCESSFUL, start_time=10.0, end_time=20.0),
        Task("fit", "fit", TaskState.RUNNING, upstream=("prepare",), start_time=20.0),
        Task("fit_1", "fit", TaskState.PENDING, upstream=("prepare",)),
    ]
    tasks_by_id = {task.task_id: task for task in tasks}
    return Run(workflow_id, "train", RunStatus.RUNNING, tasks=tasks_by_id, start_time=10.0)


class FakeSource:
    """Implements `server.source.Source` over the given runs."""

    def __init__(self, *runs: Run) -> None:
        self.held = {run.workflow_id: view(run) for run in runs}
        self.ready = True
        self.heartbeat_age = 0.0
        self.status: Mapping[str, Any] = {
            "storage": "s3://key:hunter2@bucket/tmp/<b>",
            "last_poll": 0.0,
        }
        self.body = b"ray_workflow_storage_up 1\n"
        self.asked: list[tuple[bool, Optional[Collection[Tier]]]] = []
        self.feed: list[Change] = []
        self.counted: list[tuple[str, str]] = []
        self.outcome = ("SUCCEEDED", "It is done.")  # of each action
        self.forgotten: list[str] = []
        self.acted: list[tuple[str, str]] = []
        self.manager = ManagerView(LinkState.UP)
        self.actions = Actions(
            self.act,
            lambda workflow_id: self.held[workflow_id].run if workflow_id in self.held else None,
            lambda: list(self.held),
            lambda action, result: self.counted.append((action, result)),
            lambda: self.manager,
        )

    def act(self, action_id: str, verb: str, workflow_id: str, **options: Any) -> tuple[str, str]:
        self.acted.append((verb, workflow_id))
        return self.outcome

    def change(self, workflow_id: str, state: Optional[str], task_id: Optional[str] = None) -> None:
        """Let something happen."""
        self.feed.append(Change(self.last_change + 1, workflow_id, task_id, state, 7.5))

    @property
    def last_change(self) -> int:
        return self.feed[-1].seq if self.feed else 0

    def changes(self, after: int) -> list[Change]:
        return [change for change in self.feed if change.seq > after]

    def forget_workflow(self, workflow: str) -> bool:
        if any(it.run.workflow == workflow for it in self.held.values()):
            raise ValueError(f"The workflow {workflow!r} still has runs.")
        self.forgotten.append(workflow)
        return workflow == "retired"

    def run(self, workflow_id: str) -> Optional[RunView]:
        return self.held.get(workflow_id)

    def runs(self) -> Sequence[RunView]:
        return list(self.held.values())

    def metrics(
        self, *, openmetrics: bool, tiers: Optional[Collection[Tier]], gzip: bool
    ) -> Sequence[bytes]:
        self.asked.append((openmetrics, tiers))
        return gzip_pieces([block(self.body)]) if gzip else [self.body]
