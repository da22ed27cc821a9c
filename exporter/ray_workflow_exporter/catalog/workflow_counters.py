"""Counters and histograms of one workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from ..model import FINISHED_STATES, FINISHED_STATUSES, RunStatus, Task, TaskState
from .snapshot import Histogram, WorkflowTotals

RUN_SECONDS_BOUNDS = (
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0, 7200.0, 14400.0, 43200.0, 86400.0,
)  # fmt: skip
TASK_SECONDS_BOUNDS = (
    0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0,
)  # fmt: skip

MAX_STAGES = 100  # of one workflow; tasks of further stages count under OTHER_STAGES
OTHER_STAGES = "other"
MAX_RESOURCES = 8  # names of one stage; what its tasks ask for beyond them is not counted


class LastRun(NamedTuple):
    """The run of a workflow that ended last, of those that are counted."""

    workflow_id: str
    end: float
    status: RunStatus


class WorkflowCounters:
    """What is counted for one workflow; every status and state starts at zero."""

    def __init__(self) -> None:
        self.started = 0
        self.finished = dict.fromkeys(FINISHED_STATUSES, 0)
        self.run_durations = dict.fromkeys(FINISHED_STATUSES, Histogram.empty(RUN_SECONDS_BOUNDS))
        self.tasks_finished = dict.fromkeys(FINISHED_STATES, 0)
        self.task_retries = 0
        self.stage_durations: dict[str, Histogram] = {}
        self.resource_seconds: dict[str, dict[str, float]] = {}  # by stage and resource
        self.folded_stages = False
        self.last_success: Optional[float] = None
        self.last_run: Optional[LastRun] = None
        self.newest = 0.0  # moment of all that was counted

    def totals(self) -> WorkflowTotals:
        """Freeze the counters as they are now."""
        return WorkflowTotals(
            started=self.started,
            finished=dict(self.finished),
            run_durations=dict(self.run_durations),
            tasks_finished=dict(self.tasks_finished),
            task_retries=self.task_retries,
            stage_durations=dict(self.stage_durations),
            resource_seconds={stage: dict(it) for stage, it in self.resource_seconds.items()},
        )

    def start_run(self, at: float) -> None:
        """Count a run that was started or resumed."""
        self.started += 1
        self.newest = max(self.newest, at)

    def finish_run(self, status: RunStatus, at: float, duration: Optional[float]) -> None:
        """Count a run that ended."""
        self.finished[status] += 1
        self.newest = max(self.newest, at)
        if duration is not None:
            self.run_durations[status] = self.run_durations[status].plus(duration)

    def finish_task(self, task: Task) -> None:
        """Count a task that ended."""
        self.tasks_finished[task.state] += 1
        if task.duration is None or task.state is TaskState.CANCELED:
            return
        name = task.stage
        if name not in self.stage_durations and len(self.stage_durations) >= MAX_STAGES:
            # The code bounds the number of stages unless it gives every task its own id.
            self.folded_stages = True
            name = OTHER_STAGES
        known = self.stage_durations.get(name) or Histogram.empty(TASK_SECONDS_BOUNDS)
        self.stage_durations[name] = known.plus(task.duration)
        used = self.resource_seconds.setdefault(name, {})
        for resource, amount in task.resources.items():
            if resource in used or len(used) < MAX_RESOURCES:
                used[resource] = used.get(resource, 0.0) + amount * task.duration

    def set_last_run(self, run: LastRun) -> None:
        """Remember the run that ended last."""
        if self.last_run is None or run.end >= self.last_run.end:
            self.last_run = run

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkflowCounters:
        """Rebuild it from its `vars`; anything else raises KeyError, TypeError or ValueError."""
        self = cls()
        self.started = int(data["started"])
        self.finished.update({RunStatus(key): int(n) for key, n in data["finished"].items()})
        for key, value in data["run_durations"].items():
            self.run_durations[RunStatus(key)] = Histogram.from_json(value, RUN_SECONDS_BOUNDS)
        states = data["tasks_finished"].items()
        self.tasks_finished.update({TaskState(key): int(n) for key, n in states})
        self.task_retries = int(data["task_retries"])
        for key, value in data["stage_durations"].items():
            self.stage_durations[key] = Histogram.from_json(value, TASK_SECONDS_BOUNDS)
        for stage, used in data.get("resource_seconds", {}).items():
            self.resource_seconds[stage] = {str(name): float(it) for name, it in used.items()}
        self.last_success, self.newest = data["last_success"], float(data["newest"])
        if data["last_run"] is not None:
            workflow_id, end, status = data["last_run"]
            self.last_run = LastRun(str(workflow_id), float(end), RunStatus(status))
        return self
