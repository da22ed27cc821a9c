"""The families about one run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ...catalog.snapshot import RunView
from ...model import RunStatus, TaskState
from ..family import EXPERIMENTAL, GAUGE, META_LABELS, RUN, Family, Options, Sample
from ..samplers import each, end_time, failure_labels, flags, one


def _info(view: RunView, options: Options) -> Iterable[Sample]:
    metadata = view.run.user_metadata
    yield tuple(_label(metadata.get(key)) for key in options.meta_labels), 1


def _label(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, sort_keys=True, default=str)


def _failure(view: RunView, options: Options) -> Iterable[Sample]:
    cause = view.analysis.root_cause
    if view.run.status is RunStatus.FAILED and cause is not None:
        yield (cause.task_id, cause.stage, *failure_labels(cause.failure, options)), 1


FAMILIES: tuple[Family, ...] = (
    Family(
        "ray_workflow_run_info", GAUGE, RUN,
        "1 for each run, with the user metadata named by metadata_labels as labels.",
        _info, (META_LABELS,),
    ),
    Family(
        "ray_workflow_run_status", GAUGE, RUN,
        "1 for the status of the run, 0 for the others.",
        flags(RunStatus, lambda view: view.run.status), ("status",),
    ),
    Family(
        "ray_workflow_run_start_timestamp_seconds", GAUGE, RUN,
        "Unix time at which the run was started or last resumed; absent while it is PENDING.",
        one(lambda view: view.run.start_time),
    ),
    Family(
        "ray_workflow_run_end_timestamp_seconds", GAUGE, RUN,
        "Unix time at which the run ended.",
        one(lambda view: end_time(view.run, view.run.status.finished)),
    ),
    Family(
        "ray_workflow_run_duration_seconds", GAUGE, RUN,
        "Seconds from start to end of a finished run.",
        one(lambda view: view.run.duration),
    ),
    Family(
        "ray_workflow_run_last_transition_timestamp_seconds", GAUGE, RUN,
        "Unix time at which the run or one of its tasks last changed its status or state.",
        one(lambda view: view.run.last_transition),
    ),
    Family(
        "ray_workflow_run_deadline_timestamp_seconds", GAUGE, RUN,
        "Unix time by which the run should end, from its metadata or the settings of its workflow.",
        one(lambda view: view.run.deadline),
    ),
    Family(
        "ray_workflow_run_tasks", GAUGE, RUN,
        "Tasks of the run, by state.",
        each(TaskState, lambda view: view.analysis.tasks), ("state",),
    ),
    Family(
        "ray_workflow_run_progress_ratio", GAUGE, RUN,
        "Share of the known tasks of the run that are SUCCESSFUL, from 0 to 1.",
        one(lambda view: view.analysis.progress),
    ),
    Family(
        "ray_workflow_run_output_size_bytes", GAUGE, RUN,
        "Bytes of all task outputs of the run whose size is known.",
        one(lambda view: view.analysis.output_bytes),
    ),
    Family(
        "ray_workflow_run_critical_path_seconds", GAUGE, RUN,
        "Sum of the durations of the finished tasks on the critical path of the run.",
        one(lambda view: view.analysis.critical_seconds), stability=EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_run_expected_end_timestamp_seconds", GAUGE, RUN,
        "Estimated Unix time of the end of the run, from the durations of earlier runs.",
        one(lambda view: view.analysis.expected_end), stability=EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_run_failure_info", GAUGE, RUN,
        "1 for a FAILED run, with the task that failed first and its error as labels.",
        _failure, ("task_id", "stage", "kind", "exception", "message"),
    ),
)  # fmt: skip
