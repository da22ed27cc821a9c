"""What a class's earlier runs took, to tell when the next one may end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, Optional

from .model import Run, RunStatus

_MAX_RUNS = 50  # of one class, the newest
_MAX_STAGES = 100  # of one run
# A task that began longer than this before its run belongs to an earlier life of it; clocks of
# two nodes differ by less.
_CLOCK_SKEW_SECONDS = 1.0


class _PastRun(NamedTuple):
    seconds: float
    stages: Mapping[str, float]


class _Usual(NamedTuple):
    seconds: Optional[float]
    stages: Mapping[str, float]
    expected: frozenset[str]


@dataclass
class _PastRuns:
    runs: dict[tuple[str, float], _PastRun] = field(default_factory=dict)
    usual: Optional[_Usual] = None  # of `runs`, None when they have changed since


class History:
    """Remember how long the newest successful runs of each class took, and their stages.

    Durations of stages are spans, from the first start of a task to the last end. The median
    duration of one task would need the width of a fan-out and how many of its tasks the cluster
    ran at once to say anything about the stage; the span of earlier runs holds both.
    """

    def __init__(self) -> None:
        self._classes: dict[str, _PastRuns] = {}

    def add(self, run: Run) -> bool:
        """Learn from a run that was SUCCESSFUL in one go; any other one, or one known, is ignored.

        A run that was resumed, or submitted again under its id, overwrites its start (Ray 2.47: a
        SUCCESSFUL id run again "takes" 10 ms), so its duration says nothing. Returns whether the
        history has changed.
        """
        if run.status is not RunStatus.SUCCESSFUL or run.end_time is None or run.duration is None:
            return False
        past = self._classes.setdefault(run.workflow, _PastRuns())
        key = (run.workflow_id, run.end_time)
        full = len(past.runs) >= _MAX_RUNS
        oldest = min(past.runs, key=lambda known: known[1]) if full else None
        if key in past.runs or (oldest and run.end_time <= oldest[1]) or _resumed(run):
            return False
        if oldest:
            del past.runs[oldest]
        past.runs[key] = _PastRun(run.duration, _stage_spans(run))
        past.usual = None
        return True

    def run_seconds(self, workflow: str) -> Optional[float]:
        """Return the median duration of the class's runs, None when none is known."""
        return self._usual(workflow).seconds

    def stage_seconds(self, workflow: str, stage: str) -> Optional[float]:
        """Return the median span of a stage over the runs that had it, None when none had."""
        return self._usual(workflow).stages.get(stage)

    def expected_stages(self, workflow: str) -> frozenset[str]:
        """Return the stages that more than half of the class's runs had."""
        return self._usual(workflow).expected

    def _usual(self, workflow: str) -> _Usual:
        past = self._classes.get(workflow)
        if past is None or not past.runs:
            return _Usual(None, {}, frozenset())
        if past.usual is None:
            runs = past.runs.values()
            spans: dict[str, list[float]] = {}
            for run in runs:
                for stage, seconds in run.stages.items():
                    spans.setdefault(stage, []).append(seconds)
            past.usual = _Usual(
                median(run.seconds for run in runs),
                {stage: median(known) for stage, known in spans.items()},
                frozenset(stage for stage, known in spans.items() if 2 * len(known) > len(runs)),
            )
        return past.usual


def _resumed(run: Run) -> bool:
    assert run.start_time is not None
    earliest = run.start_time - _CLOCK_SKEW_SECONDS
    return any(
        task.start_time is not None and task.start_time < earliest for task in run.tasks.values()
    )


def _stage_spans(run: Run) -> dict[str, float]:
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for task in run.tasks.values():
        if task.duration is not None:
            assert task.start_time is not None
            assert task.end_time is not None
            first[task.stage] = min(task.start_time, first.get(task.stage, task.start_time))
            last[task.stage] = max(task.end_time, last.get(task.stage, task.end_time))
    return {stage: last[stage] - first[stage] for stage in list(first)[:_MAX_STAGES]}
