"""The snapshot: the immutable result of a poll, and all that a scrape reads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ..analysis.analysis import Analysis
from ..analysis.layered import Place
from ..model import Run, RunStatus, Task, TaskState


@dataclass(frozen=True)
class Histogram:
    """A histogram at one moment. `counts[i]` observations lie at or below `bounds[i]` and above
    the bound before it; the last count is of those above all bounds. Not cumulative."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float  # the sum of all observations

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Histogram:
        """Return one without observations."""
        return cls(bounds, (0,) * (len(bounds) + 1), 0.0)

    def plus(self, value: float) -> Histogram:
        """Return one with another observation."""
        counts = list(self.counts)
        counts[bisect_left(self.bounds, value)] += 1
        return Histogram(self.bounds, tuple(counts), self.total + value)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], bounds: tuple[float, ...]) -> Histogram:
        """Rebuild one from its `vars`."""
        # Another version had other bounds: its observations cannot be distributed again.
        if tuple(data["bounds"]) != bounds:
            return cls.empty(bounds)
        return cls(bounds, tuple(map(int, data["counts"])), float(data["total"]))


@dataclass(frozen=True)
class WorkflowTotals:
    """The counters and histograms of one workflow, since the state file was created."""

    started: int = 0
    finished: Mapping[RunStatus, int] = field(default_factory=dict)
    run_durations: Mapping[RunStatus, Histogram] = field(default_factory=dict)
    tasks_finished: Mapping[TaskState, int] = field(default_factory=dict)
    task_retries: int = 0
    stage_durations: Mapping[str, Histogram] = field(default_factory=dict)
    resource_seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by stage


@dataclass(frozen=True)
class WorkflowView:
    """One workflow: its present runs, and its totals."""

    workflow: str
    runs: Mapping[RunStatus, int]
    totals: WorkflowTotals
    last_success: Optional[float] = None
    last_status: Optional[RunStatus] = None  # of the run that ended last
    expected_interval: Optional[float] = None
    objective: float = 0.99  # share of the runs that should succeed


@dataclass(frozen=True)
class RunView:
    """One exposed run. `stages` says whether its stage tier is shown; `tasks` are those shown in
    the task tier: all, the failed ones, or none. `places` is where a drawing has these tasks."""

    run: Run
    analysis: Analysis
    stages: bool
    tasks: tuple[Task, ...]
    places: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """Everything exposed at one moment. Without fresh sources `runs` and `workflows` are empty."""

    at: float
    storage_up: bool
    manager_up: Optional[bool]  # None: it is not asked
    runs: tuple[RunView, ...] = ()
    workflows: tuple[WorkflowView, ...] = ()
    running_limit: Optional[int] = None  # None: no limit, or no manager to ask
    pending_limit: Optional[int] = None
    hidden: Mapping[str, int] = field(default_factory=dict)  # objects left out, by reason
