"""Durations of a workflow's earlier runs, and the expected end of a run from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
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


class History:
    """Remember how long the newest successful runs of each workflow took, and their stages.

    Durations of stages are spans, from the first start of a task to the last end. The median
    duration of one task would need the width of a fan-out and how many of its tasks the cluster
    ran at once to say anything about the stage; the span of earlier runs holds both.
    """

    def __init__(self) -> None:
        # By workflow, then by end and id.
        self._runs: defaultdict[str, dict[tuple[float, str], _PastRun]] = defaultdict(dict)
        self._usual: dict[str, Usual] = {}

    def add(self, run: Run) -> bool:
        """Learn from a run that was SUCCESSFUL in one go; any other one, or one known, is ignored.

        A run that was resumed, or submitted again under its id, overwrites its start (Ray 2.47: a
        SUCCESSFUL id run again "takes" 10 ms), so its duration says nothing. Returns whether the
        history has changed.
        """
        if run.status is not RunStatus.SUCCESSFUL or run.end_time is None or run.duration is None:
            return False
        past, key = self._runs[run.workflow], (run.end_time, run.workflow_id)
        if key in past or self.is_past(run.workflow, run.end_time):
            return False
        assert run.start_time is not None
        earliest = run.start_time - _CLOCK_SKEW_SECONDS
        starts = [task.start_time for task in run.tasks.values() if task.start_time is not None]
        if min(starts, default=earliest) < earliest:
            return False  # it was resumed
        past[key] = _PastRun(run.duration, _stage_spans(run))
        if len(past) > _MAX_RUNS:
            del past[min(past)]
        self._usual.pop(run.workflow, None)
        return True

    def is_past(self, workflow: str, end: float) -> bool:
        """Whether a run of the workflow that ended at `end` is too old to count."""
        past = self._runs.get(workflow, {})
        return len(past) >= _MAX_RUNS and end <= min(past)[0]

    def usual(self, workflow: str) -> Usual:
        """Return how long a run of the workflow usually takes, empty when none is known."""
        runs = self._runs.get(workflow, {}).values()
        if runs and workflow not in self._usual:
            spans: defaultdict[str, list[float]] = defaultdict(list)
            for run in runs:
                for stage, seconds in run.stages.items():
                    spans[stage].append(seconds)
            self._usual[workflow] = Usual(
                median(run.seconds for run in runs),
                {stage: median(known) for stage, known in spans.items()},
                frozenset(stage for stage, known in spans.items() if 2 * len(known) > len(runs)),
            )
        return self._usual.get(workflow, Usual())


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
