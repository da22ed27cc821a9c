"""Durations of a workflow's earlier runs, and the expected end of a run from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, Optional

from ..model import Edge, Run, RunStatus
from .dag import layers
from .stages import ACTIVE, Stage

_MAX_RUNS = 50  # of one workflow, the newest
_MAX_STAGES = 100  # of one run
# A task that began longer than this before its run belongs to an earlier life of it; clocks of
# two nodes differ by less.
_CLOCK_SKEW_SECONDS = 1.0


class _PastRun(NamedTuple):
    seconds: float
    stages: Mapping[str, float]


class Usual(NamedTuple):
    """What is usual for the runs of a workflow: medians, in seconds."""

    seconds: Optional[float] = None  # of a run
    stages: Mapping[str, float] = {}  # spans, each over the runs that had the stage
    expected: frozenset[str] = frozenset()  # stages that more than half of the runs had


@dataclass
class _PastRuns:
    runs: dict[tuple[str, float], _PastRun] = field(default_factory=dict)  # by id and end
    oldest: Optional[tuple[str, float]] = None  # of `runs`, once there are as many as are kept
    usual: Optional[Usual] = None  # of `runs`, None when they have changed since


class History:
    """Remember how long the newest successful runs of each workflow took, and their stages.

    Durations of stages are spans, from the first start of a task to the last end. The median
    duration of one task would need the width of a fan-out and how many of its tasks the cluster
    ran at once to say anything about the stage; the span of earlier runs holds both.
    """

    def __init__(self) -> None:
        self._workflows: dict[str, _PastRuns] = {}

    def add(self, run: Run) -> bool:
        """Learn from a run that was SUCCESSFUL in one go; any other one, or one known, is ignored.

        A run that was resumed, or submitted again under its id, overwrites its start (Ray 2.47: a
        SUCCESSFUL id run again "takes" 10 ms), so its duration says nothing. Returns whether the
        history has changed.
        """
        if run.status is not RunStatus.SUCCESSFUL or run.end_time is None or run.duration is None:
            return False
        past = self._workflows.setdefault(run.workflow, _PastRuns())
        key = (run.workflow_id, run.end_time)
        oldest = past.oldest
        if key in past.runs or (oldest and run.end_time <= oldest[1]) or _resumed(run):
            return False
        if oldest:
            del past.runs[oldest]
        past.runs[key] = _PastRun(run.duration, _stage_spans(run))
        full = len(past.runs) >= _MAX_RUNS
        past.oldest = min(past.runs, key=lambda known: known[1]) if full else None
        past.usual = None
        return True

    def is_past(self, workflow: str, end: float) -> bool:
        """Whether a run of the workflow that ended at `end` is too old to count."""
        past = self._workflows.get(workflow)
        return past is not None and past.oldest is not None and end <= past.oldest[1]

    def usual(self, workflow: str) -> Usual:
        """Return how long a run of the workflow usually takes, empty when none is known."""
        past = self._workflows.get(workflow)
        if past is None or not past.runs:
            return Usual()
        if past.usual is None:
            runs = past.runs.values()
            spans: dict[str, list[float]] = {}
            for run in runs:
                for stage, seconds in run.stages.items():
                    spans.setdefault(stage, []).append(seconds)
            past.usual = Usual(
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


def expected_end(
    run: Run, history: History, stages: tuple[Stage, ...], edges: tuple[Edge, ...]
) -> Optional[float]:
    """Estimate when a RUNNING run will end, in Unix seconds; None when its workflow has no history.

    The longest way through the stages that are left, each with its median span. Only fixed
    moments go in, so that the estimate changes only when the run or the history does; it is
    never before the run's last transition.
    """
    start = run.start_time
    usual = history.usual(run.workflow)
    if start is None or usual.seconds is None:
        return None
    # What has not begun or ended by the last transition cannot do so before it.
    earliest = start if run.last_transition is None else max(start, run.last_transition)
    upstream: dict[str, list[str]] = {}
    for edge in edges:
        upstream.setdefault(edge.target, []).append(edge.source)
    ends: dict[str, float] = {}
    # The run may still unfold: stages come into being when a task returns a workflow.
    known = usual.expected <= {stage.name for stage in stages}
    depths = layers([stage.name for stage in stages], [(it.source, it.target) for it in edges])
    for stage in sorted(stages, key=lambda it: depths[it.name]):
        ready = max((ends[up] for up in upstream.get(stage.name, ()) if up in ends), default=start)
        if not any(stage.tasks[state] for state in ACTIVE):
            ends[stage.name] = ready if stage.end_time is None else stage.end_time
            continue
        seconds = usual.stages.get(stage.name)
        known = known and seconds is not None
        begun = max(earliest, ready)
        if stage.start_time is not None:
            begun = max(start, stage.start_time)  # the task's is older after a resume
        ends[stage.name] = max(earliest, ready, begun + (seconds or 0.0))
    return max(earliest, *ends.values(), earliest if known else start + usual.seconds)
