"""The families about a workflow: all of its runs together."""

from __future__ import annotations

from ...model import FINISHED_STATES, FINISHED_STATUSES, RunStatus
from ..family import COUNTER, EXPERIMENTAL, GAUGE, HISTOGRAM, WORKFLOW, Family
from ..samplers import each, flags, one

FAMILIES: tuple[Family, ...] = (
    Family(
        "ray_workflow_runs", GAUGE, WORKFLOW,
        "Runs of the workflow that exist now, by status.",
        each(RunStatus, lambda view: view.runs), ("status",),
    ),
    Family(
        "ray_workflow_runs_started_total", COUNTER, WORKFLOW,
        "Runs of the workflow that were started or resumed.",
        one(lambda view: view.totals.started),
    ),
    Family(
        "ray_workflow_runs_finished_total", COUNTER, WORKFLOW,
        "Runs of the workflow that ended, by their final status.",
        each(FINISHED_STATUSES, lambda view: view.totals.finished), ("status",),
    ),
    Family(
        "ray_workflow_runs_duration_seconds", HISTOGRAM, WORKFLOW,
        "Seconds from start to end of finished runs, by their final status.",
        lambda view, _: [((key.value,), it) for key, it in view.totals.run_durations.items()],
        ("status",),
    ),
    Family(
        "ray_workflow_tasks_finished_total", COUNTER, WORKFLOW,
        "Tasks of the workflow that ended, by their final state.",
        each(FINISHED_STATES, lambda view: view.totals.tasks_finished), ("state",),
    ),
    Family(
        "ray_workflow_tasks_retried_total", COUNTER, WORKFLOW,
        "Retries of tasks of the workflow: attempts after the first one.",
        one(lambda view: view.totals.task_retries),
    ),
    Family(
        "ray_workflow_tasks_duration_seconds", HISTOGRAM, WORKFLOW,
        "Seconds from start to end of SUCCESSFUL and FAILED tasks, by stage.",
        lambda view, _: [((stage,), it) for stage, it in view.totals.stage_durations.items()],
        ("stage",),
    ),
    Family(
        "ray_workflow_tasks_resource_seconds_total", COUNTER, WORKFLOW,
        "Seconds of SUCCESSFUL and FAILED tasks, times what each asked Ray for, by stage and "
        "resource; bytes for memory.",
        lambda view, _: [
            ((stage, resource), seconds)
            for stage, used in view.totals.resource_seconds.items()
            for resource, seconds in used.items()
        ],
        ("stage", "resource"), stability=EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_last_success_timestamp_seconds", GAUGE, WORKFLOW,
        "Unix time at which the last SUCCESSFUL run of the workflow ended.",
        one(lambda view: view.last_success),
    ),
    Family(
        "ray_workflow_last_run_status", GAUGE, WORKFLOW,
        "1 for the status of the run that ended last, 0 for the others; "
        "absent until a run ends.",
        flags(FINISHED_STATUSES, lambda view: view.last_status), ("status",),
    ),
    Family(
        "ray_workflow_expected_interval_seconds", GAUGE, WORKFLOW,
        "Expected seconds between two runs of the workflow, from the settings.",
        one(lambda view: view.expected_interval),
    ),
    Family(
        "ray_workflow_objective_ratio", GAUGE, WORKFLOW,
        "Share of runs of the workflow that should succeed, from the settings.",
        one(lambda view: view.objective),
    ),
)  # fmt: skip
