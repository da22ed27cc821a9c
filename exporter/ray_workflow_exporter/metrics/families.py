"""The metric contract: one table of all families.

A row says what a family is called, what it means, and how its samples come from what a snapshot
holds; headers, samples, the exporter's own metrics, the docs and the tests all follow it. Above
the table stand the few ways in which an object becomes samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Callable, Optional, Union

from ..catalog.snapshot import RunView
from ..model import FINISHED_STATES, FINISHED_STATUSES, Failure, Run, RunStatus, Task, TaskState
from .family import (
    CLUSTER,
    EXPORTER,
    META_LABELS,
    RUN,
    STAGE,
    STAGE_EDGE,
    TASK,
    TASK_EDGE,
    WORKFLOW,
    Family,
    Kind,
    Options,
    Sample,
    Sampler,
    Stability,
    TaskOnPath,
    Value,
)


def _one(get: Callable[[Any], Optional[Value]]) -> Sampler:
    """One sample, or none where the value is not known."""

    def samples(subject: Any, _: Options) -> Iterable[Sample]:
        value = get(subject)
        return () if value is None else (((), value),)

    return samples


def _each(members: Iterable[Enum], get: Callable[[Any], Mapping[Any, int]]) -> Sampler:
    """A count for each member, 0 where there is none."""
    keyed = tuple((member, (member.value,)) for member in members)

    def samples(subject: Any, _: Options) -> Iterable[Sample]:
        counts = get(subject)
        return [(own, counts.get(member, 0)) for member, own in keyed]

    return samples


def _flags(members: Iterable[Enum], get: Callable[[Any], Optional[Enum]]) -> Sampler:
    """1 for the current member and 0 for all others; none where nothing is current."""
    keyed = tuple((member, (member.value,)) for member in members)

    def samples(subject: Any, _: Options) -> Iterable[Sample]:
        current = get(subject)
        if current is None:
            return ()
        return [(own, int(member is current)) for member, own in keyed]

    return samples


def _end(item: Union[Run, Task], finished: bool) -> Optional[float]:
    # What runs again still carries the end of its earlier life.
    start, end = item.start_time, item.end_time
    return end if finished and not (start is not None and end is not None and end < start) else None


def _failure_labels(failure: Failure, options: Options) -> tuple[str, str, str]:
    message = failure.message if options.error_messages else ""
    return failure.kind.value, failure.exception, message


def _run_failure(view: RunView, options: Options) -> Iterable[Sample]:
    cause = view.analysis.root_cause
    if view.run.status is RunStatus.FAILED and cause is not None:
        yield (cause.task_id, cause.stage, *_failure_labels(cause.failure, options)), 1


def _task_failure(subject: TaskOnPath, options: Options) -> Iterable[Sample]:
    task = subject.task
    if task.state is TaskState.FAILED and task.failure is not None:
        yield (task.stage, *_failure_labels(task.failure, options)), 1


def _run_info(view: RunView, options: Options) -> Iterable[Sample]:
    yield tuple(_plain(view.run.user_metadata.get(key)) for key in options.meta_labels), 1


def _task_info(subject: TaskOnPath, _: Options) -> Iterable[Sample]:
    task = subject.task
    facts = (
        task.max_retries, task.checkpoint, task.catch_exceptions, task.ray_task_id, task.node_id,
    )  # fmt: skip
    yield (task.stage, *map(_plain, facts)), 1


def _plain(value: Any) -> str:
    """Return any JSON value as the text of a label: '' for what is not there."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    # The same as json.dumps says, without the time that it takes to begin.
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, sort_keys=True, default=str)


_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_EXPERIMENTAL = Stability.EXPERIMENTAL
_SECONDS = "seconds"

FAMILIES: tuple[Family, ...] = (
    Family(
        "ray_workflow_storage_up", _GAUGE, CLUSTER,
        "1 if the last poll could read the workflow storage, else 0.",
        _one(lambda snapshot: int(snapshot.storage_up)),
    ),
    Family(
        "ray_workflow_manager_up", _GAUGE, CLUSTER,
        "1 if the WorkflowManagementActor answered the last poll, else 0; "
        "absent where only storage is watched.",
        _one(lambda snapshot: None if snapshot.manager_up is None else int(snapshot.manager_up)),
    ),
    Family(
        "ray_workflow_running_limit", _GAUGE, CLUSTER,
        "Runs that may be RUNNING at the same time (max_running_workflows); "
        "absent without such a limit or without a manager.",
        _one(lambda snapshot: snapshot.running_limit),
    ),
    Family(
        "ray_workflow_pending_limit", _GAUGE, CLUSTER,
        "Runs that may be PENDING at the same time (max_pending_workflows); "
        "absent without such a limit or without a manager.",
        _one(lambda snapshot: snapshot.pending_limit),
    ),
    Family(
        "ray_workflow_runs", _GAUGE, WORKFLOW,
        "Runs of the workflow that are known now, by status.",
        _each(RunStatus, lambda view: view.runs), ("status",),
    ),
    Family(
        "ray_workflow_runs_started_total", _COUNTER, WORKFLOW,
        "Runs of the workflow that were started or resumed.",
        _one(lambda view: view.totals.started),
    ),
    Family(
        "ray_workflow_runs_finished_total", _COUNTER, WORKFLOW,
        "Runs of the workflow that came to an end, by the status they ended with.",
        _each(FINISHED_STATUSES, lambda view: view.totals.finished), ("status",),
    ),
    Family(
        "ray_workflow_runs_duration_seconds", _HISTOGRAM, WORKFLOW,
        "Seconds from start to end of the runs that came to an end, by the status they ended with.",
        lambda view, _: [((key.value,), it) for key, it in view.totals.run_durations.items()],
        ("status",), _SECONDS,
    ),
    Family(
        "ray_workflow_tasks_finished_total", _COUNTER, WORKFLOW,
        "Tasks of the workflow that came to an end, by the state they ended with.",
        _each(FINISHED_STATES, lambda view: view.totals.tasks_finished), ("state",),
    ),
    Family(
        "ray_workflow_tasks_retried_total", _COUNTER, WORKFLOW,
        "Attempts at tasks of the workflow beyond the first one.",
        _one(lambda view: view.totals.task_retries),
    ),
    Family(
        "ray_workflow_tasks_duration_seconds", _HISTOGRAM, WORKFLOW,
        "Seconds from start to end of the tasks that succeeded or failed, by stage.",
        lambda view, _: [((stage,), it) for stage, it in view.totals.stage_durations.items()],
        ("stage",), _SECONDS,
    ),
    Family(
        "ray_workflow_last_success_timestamp_seconds", _GAUGE, WORKFLOW,
        "Unix time at which a run of the workflow last ended SUCCESSFUL.",
        _one(lambda view: view.last_success), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_last_run_status", _GAUGE, WORKFLOW,
        "1 for the status of the run that came to an end last, 0 for the others; "
        "absent until one did.",
        _flags(FINISHED_STATUSES, lambda view: view.last_status), ("status",),
    ),
    Family(
        "ray_workflow_expected_interval_seconds", _GAUGE, WORKFLOW,
        "Seconds from one run of the workflow to the next, from the settings.",
        _one(lambda view: view.expected_interval), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_objective_ratio", _GAUGE, WORKFLOW,
        "Share of the runs of the workflow that should succeed, from the settings.",
        _one(lambda view: view.objective), unit="ratio",
    ),
    Family(
        "ray_workflow_run_info", _GAUGE, RUN,
        "1 for each run, with the user metadata that the settings choose as labels.",
        _run_info, (META_LABELS,),
    ),
    Family(
        "ray_workflow_run_status", _GAUGE, RUN,
        "1 for the status of the run, 0 for the others.",
        _flags(RunStatus, lambda view: view.run.status), ("status",),
    ),
    Family(
        "ray_workflow_run_start_timestamp_seconds", _GAUGE, RUN,
        "Unix time at which the run was started or last resumed; absent while it is PENDING.",
        _one(lambda view: view.run.start_time), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_run_end_timestamp_seconds", _GAUGE, RUN,
        "Unix time at which the run came to its end.",
        _one(lambda view: _end(view.run, view.run.status.finished)), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_run_duration_seconds", _GAUGE, RUN,
        "Seconds from start to end of a run that came to its end.",
        _one(lambda view: view.run.duration), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_run_last_transition_timestamp_seconds", _GAUGE, RUN,
        "Unix time at which the run or one of its tasks last changed its status or state.",
        _one(lambda view: view.run.last_transition), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_run_deadline_timestamp_seconds", _GAUGE, RUN,
        "Unix time by which the run should have ended, from the settings of its workflow.",
        _one(lambda view: view.run.deadline), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_run_tasks", _GAUGE, RUN,
        "Tasks of the run, by state.",
        _each(TaskState, lambda view: view.analysis.tasks), ("state",),
    ),
    Family(
        "ray_workflow_run_progress_ratio", _GAUGE, RUN,
        "Share of the known tasks of the run that are SUCCESSFUL, from 0 to 1.",
        _one(lambda view: view.analysis.progress), unit="ratio",
    ),
    Family(
        "ray_workflow_run_output_size_bytes", _GAUGE, RUN,
        "Bytes of all task outputs of the run whose size is known.",
        _one(lambda view: view.analysis.output_bytes), unit="bytes",
    ),
    Family(
        "ray_workflow_run_critical_path_seconds", _GAUGE, RUN,
        "Seconds that the tasks on the critical path of the run took, one after the other.",
        _one(lambda view: view.analysis.critical_seconds),
        unit=_SECONDS, stability=_EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_run_expected_end_timestamp_seconds", _GAUGE, RUN,
        "Unix time at which the run will end if its tasks take as long as those before them.",
        _one(lambda view: view.analysis.expected_end),
        unit=_SECONDS, stability=_EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_run_failure_info", _GAUGE, RUN,
        "1 for a FAILED run, with the task that brought it down and its error as labels.",
        _run_failure, ("task_id", "stage", "kind", "exception", "message"),
    ),
    Family(
        "ray_workflow_stage_tasks", _GAUGE, STAGE,
        "Tasks of the stage, by state.",
        _each(TaskState, lambda it: it.stage.tasks), ("state",),
    ),
    Family(
        "ray_workflow_stage_output_size_bytes", _GAUGE, STAGE,
        "Bytes of all task outputs of the stage whose size is known.",
        _one(lambda it: it.stage.output_bytes), unit="bytes",
    ),
    Family(
        "ray_workflow_stage_start_timestamp_seconds", _GAUGE, STAGE,
        "Unix time at which the first task of the stage started.",
        _one(lambda it: it.stage.start_time), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_stage_end_timestamp_seconds", _GAUGE, STAGE,
        "Unix time at which the last task of the stage ended; absent while one may still run.",
        _one(lambda it: it.stage.end_time), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_stage_critical", _GAUGE, STAGE,
        "1 for a stage with a task on the critical path of its run, else 0.",
        _one(lambda it: int(it.critical)), stability=_EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_stage_edge", _GAUGE, STAGE_EDGE,
        "1 for each dependency of the stage target on the stage source.",
        _one(lambda _: 1),
    ),
    Family(
        "ray_workflow_task_state", _GAUGE, TASK,
        "1 for the current state of the task; the other states have no series.",
        lambda it, _: [((it.task.stage, it.task.state.value), 1)], ("stage", "state"),
    ),
    Family(
        "ray_workflow_task_info", _GAUGE, TASK,
        "1 for each task, with its options and where Ray ran it as labels.",
        _task_info,
        ("stage", "max_retries", "checkpoint", "catch_exceptions", "ray_task_id", "node_id"),
    ),
    Family(
        "ray_workflow_task_submit_timestamp_seconds", _GAUGE, TASK,
        "Unix time at which the task was handed to Ray; known only of runs that were seen live.",
        _one(lambda it: it.task.submit_time), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_task_start_timestamp_seconds", _GAUGE, TASK,
        "Unix time at which the last attempt at the task started.",
        _one(lambda it: it.task.start_time), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_task_end_timestamp_seconds", _GAUGE, TASK,
        "Unix time at which the task came to its end.",
        _one(lambda it: _end(it.task, it.task.state.finished)), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_task_duration_seconds", _GAUGE, TASK,
        "Seconds from start to end of a task that came to its end.",
        _one(lambda it: it.task.duration), unit=_SECONDS,
    ),
    Family(
        "ray_workflow_task_output_size_bytes", _GAUGE, TASK,
        "Bytes of the stored output of the task.",
        _one(lambda it: it.task.output_bytes), unit="bytes",
    ),
    Family(
        "ray_workflow_task_attempts", _GAUGE, TASK,
        "Attempts at the task so far, the first one included.",
        _one(lambda it: it.task.attempts),
    ),
    Family(
        "ray_workflow_task_critical", _GAUGE, TASK,
        "1 for a task on the critical path of its run; the other tasks have no series.",
        _one(lambda it: 1 if it.critical else None), stability=_EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_task_failure_info", _GAUGE, TASK,
        "1 for a FAILED task, with its error as labels.",
        _task_failure, ("stage", "kind", "exception", "message"),
    ),
    Family(
        "ray_workflow_task_edge", _GAUGE, TASK_EDGE,
        "1 for each dependency of the task target on the task source.",
        _one(lambda _: 1),
    ),
    Family(
        "ray_workflow_exporter_hidden_objects", _GAUGE, EXPORTER,
        "Objects that a limit keeps out of the metrics now, by reason.",
        lambda snapshot, _: [((reason,), count) for reason, count in snapshot.hidden.items()],
        ("reason",),
    ),
    Family(
        "ray_workflow_exporter_series", _GAUGE, EXPORTER,
        "Series of the last snapshot, by family; those of the exporter itself are not counted.",
        labels=("family",),
    ),
    Family(
        "ray_workflow_exporter_poll_duration_seconds", _HISTOGRAM, EXPORTER,
        "Seconds that a poll of storage and manager took.",
        unit=_SECONDS, bounds=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    ),
    Family(
        "ray_workflow_exporter_probe_duration_seconds", _HISTOGRAM, EXPORTER,
        "Seconds until the WorkflowManagementActor answered one question.",
        unit=_SECONDS, bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
    ),
    Family(
        "ray_workflow_exporter_change_latency_seconds", _HISTOGRAM, EXPORTER,
        "Seconds between a change in Ray and the first snapshot that shows it.",
        unit=_SECONDS, bounds=(0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0),
    ),
    Family(
        "ray_workflow_exporter_last_poll_timestamp_seconds", _GAUGE, EXPORTER,
        "Unix time at which the last poll ended, with or without errors.",
        unit=_SECONDS,
    ),
    Family(
        "ray_workflow_exporter_runs_to_read", _GAUGE, EXPORTER,
        "Finished runs that were listed and not read yet: after a start, history still loads.",
    ),
    Family(
        "ray_workflow_exporter_poll_errors_total", _COUNTER, EXPORTER,
        "Errors in polls, by the phase of the poll in which they occurred.",
        labels=("phase",),
    ),
    Family(
        "ray_workflow_exporter_actions_total", _COUNTER, EXPORTER,
        "Actions on runs that users asked for, by action and result.",
        labels=("action", "result"),
    ),
    Family(
        "ray_workflow_exporter_link_restarts_total", _COUNTER, EXPORTER,
        "Restarts of the child process that talks to Ray.",
    ),
    Family(
        "ray_workflow_exporter_build_info", _GAUGE, EXPORTER,
        "1, with the versions of the exporter, of its Python and of its Ray as labels.",
        labels=("version", "python", "ray"),
    ),
)  # fmt: skip
