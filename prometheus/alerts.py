"""The table of alerts, from which rules, links and docs/alerts.md are generated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .promql import (
    GAP,
    LIVE,
    REPLICA,
    RUNNING,
    TARGET,
    added,
    latest,
    most,
    recent,
    run_status,
    threshold,
    total,
    worst,
)
from .texts import LAST_FAILURE, ON_CLUSTER, RUN, SECONDS, WORKFLOW, failed_runs

Severity = Literal["page", "ticket", "info"]
Dashboard = Literal["fleet", "run", "workflow", "oncall", "exporter"]

JOB = "ray-workflow"


@dataclass(frozen=True)
class Alert:
    """An alert: `words` describe `expr` for docs/alerts.md; `labels` distinguish variants."""

    name: str
    severity: Severity
    after: str  # how long the expression must hold
    words: str
    summary: str
    description: str
    dashboard: Dashboard
    expr: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Burn:
    """A pair of windows: the burn rate exceeds `factor` in both."""

    long: str
    short: str
    factor: float
    after: str


# From Google's Site Reliability Workbook, for a budget of 30 days: at each factor, 2 %, 5 % or 10 %
# of the budget is used up within the long window.
PAGE_BURNS = (Burn("1h", "5m", 14.4, "2m"), Burn("6h", "30m", 6, "15m"))
TICKET_BURNS = (
    Burn("6h", "30m", 6, "15m"),
    Burn("1d", "2h", 3, "1h"),
    Burn("3d", "6h", 1, "3h"),
)


def _runs(statuses: str) -> str:
    """Return how many runs of a cluster have one of these statuses.

    Summed before replicas are compared: two replicas may name the workflow of a run differently.
    """
    selector = f'ray_workflow_runs{{status=~"{statuses}"}}'
    return total(f"sum without (workflow, status) ({recent(selector)})")


def _burns() -> tuple[Alert, ...]:
    alerts = []
    for scope, burns in (("cluster", PAGE_BURNS), ("workflow", TICKET_BURNS)):
        cluster = scope == "cluster"
        few = "burn_failures_page" if cluster else "burn_failures"
        whose = "all workflows together" if cluster else "a workflow"
        for burn in burns:
            long = f"{scope}:ray_workflow_budget_burn:ratio_increase{burn.long}"
            short = f"{scope}:ray_workflow_budget_burn:ratio_increase{burn.short}"
            alerts.append(
                Alert(
                    "RayWorkflowClusterBudgetBurn" if cluster else "RayWorkflowBudgetBurn",
                    "page" if cluster else "ticket",
                    burn.after,
                    f"The failure budget of {whose} "
                    f"burns more than {burn.factor:g} times as fast as the objective allows, over "
                    f"{burn.long} and over {burn.short}, with at least `{few}` failures.",
                    (
                        "Too many runs fail" + ON_CLUSTER
                        if cluster
                        else f"{WORKFLOW} fails too often"
                    ),
                    "The failure budget burns {{ $value | humanize }} times as fast as the "
                    f"objective allows, over the last {burn.long} and the last {burn.short}. "
                    + failed_runs(scope, burn.long)
                    + ("" if cluster else LAST_FAILURE),
                    "fleet" if cluster else "workflow",
                    f"{long} > {burn.factor:g}\n"
                    f"  and {short} > {burn.factor:g}\n"
                    # `increase` extrapolates: a result half a failure too low still counts.
                    f"  and {scope}:ray_workflow_runs_failed:increase{burn.long}\n"
                    f"    > {threshold(few)} - 0.5",
                    (("long", burn.long), ("short", burn.short)),
                )
            )
    return tuple(alerts)


_RESTARTS = f'changes(process_start_time_seconds{{job="{JOB}"}}[30m])'
_RETRIED = "ray_workflow_tasks_retried_total"
_FINISHED = "ray_workflow_tasks_finished_total"

_ALERTS: tuple[Alert, ...] = (
    Alert(
        "RayWorkflowExporterDown", "page", "5m",
        "No exporter of a cluster can be scraped.",
        "No exporter is up" + ON_CLUSTER,
        "Prometheus cannot scrape any exporter of job {{ $labels.job }}. Until it can, no other "
        "workflow alert can fire.",
        "exporter",
        f'max without ({REPLICA}, SessionName) (up{{job="{JOB}"}}) == 0',
    ),
    # No page: targets also disappear when a cluster ends on purpose.
    Alert(
        "RayWorkflowExporterGone", "ticket", "10m",
        "The exporter of a cluster disappeared from the targets while runs were PENDING or "
        "RUNNING, or there is no target at all.",
        "The exporter is no longer a target" + ON_CLUSTER,
        "Prometheus has no target of job {{ $labels.job }}" + ON_CLUSTER + " any more. If the "
        "cluster was not stopped on purpose, its workflows are not monitored.",
        "exporter",
        "(\n"
        f"  sum without ({TARGET}, workflow, status) (\n"
        f'    last_over_time(ray_workflow_runs{{job="{JOB}", status=~"PENDING|RUNNING"}}[1h])\n'
        "  ) > 0\n"
        f'  unless max without ({TARGET}) (up{{job="{JOB}"}})\n'
        f'  and on () up{{job="{JOB}"}}\n'
        ")\n"
        f'or absent(up{{job="{JOB}"}})',
    ),
    Alert(
        "RayWorkflowExporterRestarting", "ticket", "1m",
        "An exporter restarted at least `exporter_restarts` times in 30 minutes.",
        "The exporter keeps restarting" + ON_CLUSTER,
        "The exporter restarted {{ $value }} times in the last 30 minutes. Other workflow alerts "
        "may fire late.",
        "exporter",
        f"{most(_RESTARTS)}\n"
        f"  >= {threshold('exporter_restarts')}",
    ),
    Alert(
        "RayWorkflowStorageUnreadable", "page", "5m",
        "The exporter cannot read the workflow storage.",
        "The workflow storage cannot be read" + ON_CLUSTER,
        "The exporter cannot list the workflow storage. If Ray cannot write to it either, runs "
        "fail or hang, and no run can be resumed.",
        "exporter",
        f"{worst(recent('ray_workflow_storage_up'))} == 0",
    ),
    Alert(
        "RayWorkflowManagerDown", "page", "5m",
        "The WorkflowManagementActor does not answer while runs are PENDING, RUNNING or RESUMABLE.",
        "The WorkflowManagementActor is down" + ON_CLUSTER,
        "The WorkflowManagementActor does not answer, and {{ $value }} runs depend on it. If it "
        "died, they make no progress until they are resumed.",
        "oncall",
        f"({_runs('PENDING|RUNNING|RESUMABLE')} > 0)\n"
        f"  and {latest('ray_workflow_manager_up')} == 0",
    ),
    Alert(
        "RayWorkflowSnapshotStale", "ticket", "2m",
        "The last poll of the exporter ended more than `stale_seconds` ago.",
        "Workflow metrics are out of date" + ON_CLUSTER,
        f"The last poll ended {SECONDS} ago. Dashboards and alerts show the state of that time.",
        "exporter",
        f"time() - {worst('ray_workflow_exporter_last_poll_timestamp_seconds')}\n"
        f"  > {threshold('stale_seconds')}",
    ),
    Alert(
        "RayWorkflowStateUnusable", "ticket", "10m",
        "The exporter cannot read or write its state files.",
        "The exporter cannot use its state files" + ON_CLUSTER,
        "The exporter works without its state files. At its next restart, counters start at 0, and "
        "runs that end while it is down are not counted.",
        "exporter",
        f"{worst(recent('ray_workflow_exporter_state_up'))} == 0",
    ),
    Alert(
        "RayWorkflowStorageDoubtful", "ticket", "10m",
        "The storage lacks Ray's file `_valid`, or Ray uses another one.",
        "The exporter may read a wrong storage" + ON_CLUSTER,
        "The storage that the exporter reads may not be the one of the cluster. Runs of the "
        "cluster may be missing, and their failures open no alert.",
        "exporter",
        f"{worst(recent('ray_workflow_exporter_storage_verified'))} == 0",
    ),
    Alert(
        "RayWorkflowNoRecentSuccess", "page", "5m",
        "No run of a workflow with an `expected_interval` has succeeded for `missed_intervals` "
        "times that interval, or since the exporter started, if that is longer ago.",
        f"{WORKFLOW} is overdue",
        f"No run of {WORKFLOW} has succeeded for {SECONDS}.{LAST_FAILURE}",
        "workflow",
        "(\n"
        f"  time() - {latest('ray_workflow_last_success_timestamp_seconds')}\n"
        f"    > {threshold('missed_intervals')}\n"
        f"      * {latest('ray_workflow_expected_interval_seconds')}\n"
        ") or (\n"
        f"  (time() + 0 * {latest('ray_workflow_expected_interval_seconds')})\n"
        "    - ignoring (workflow) group_left ()\n"
        f'      min without ({TARGET}) (\n'
        f'        last_over_time(process_start_time_seconds{{job="{JOB}"}}[{GAP}]))\n'
        f"    > {threshold('missed_intervals')}\n"
        f"      * {latest('ray_workflow_expected_interval_seconds')}\n"
        f"  unless {latest('ray_workflow_last_success_timestamp_seconds')}\n"
        ")",
    ),
    Alert(
        "RayWorkflowDeadlineMissed", "ticket", "1m",
        "A run with a `deadline` has not ended by its deadline.",
        f"{RUN} missed its deadline",
        f"Run {RUN} should have ended {SECONDS} ago and has not ended.",
        "run",
        f"time() - {latest('ray_workflow_run_deadline_timestamp_seconds')} > 0\n  and ({LIVE})",
    ),
    Alert(
        "RayWorkflowLastRunFailed", "ticket", "5m",
        "The most recently ended run of a workflow is FAILED. A later success resolves the alert.",
        f"The last run of {WORKFLOW} failed",
        f"The most recently ended run of {WORKFLOW} is FAILED.{LAST_FAILURE}",
        "workflow",
        f"""{latest('ray_workflow_last_run_status{status="FAILED"}', "status")} == 1""",
    ),
    *_burns(),
    Alert(
        "RayWorkflowResumable", "ticket", "10m",
        "A run is RESUMABLE: it was interrupted, at most `resumable_seconds` ago, and must be "
        "resumed by hand. Does not fire for an exporter that reads storage only.",
        f"{RUN} was interrupted",
        f"Run {RUN} is RESUMABLE: it was interrupted, usually by a crash of its cluster or of the "
        "WorkflowManagementActor. Ray does not continue it automatically: resume it or delete it.",
        "run",
        # With storage only, a run that is still running looks the same as an interrupted one.
        f"{run_status('RESUMABLE')}\n"
        f"  and ignoring (workflow, workflow_id) {latest('ray_workflow_manager_up')}\n"
        f"  unless time() - {latest('ray_workflow_run_last_transition_timestamp_seconds')}\n"
        f"    > {threshold('resumable_seconds')}",
    ),
    Alert(
        "RayWorkflowStalled", "ticket", "5m",
        "No task of a RUNNING run has changed its state for `stalled_factor` times the usual "
        "duration of its stages, and at least `stalled_seconds`; for `stalled_unknown_seconds` "
        "if the stage has no history.",
        f"{RUN} has stalled",
        f"No task of run {RUN} has changed its state for {SECONDS}.",
        "run",
        "workflow_id:ray_workflow_quiet:seconds > clamp_min(\n"
        f"  {threshold('stalled_factor')} * workflow_id:ray_workflow_usual_task_seconds:max,\n"
        f"  {threshold('stalled_seconds')}\n"
        ") or (\n"
        f"  workflow_id:ray_workflow_quiet:seconds > {threshold('stalled_unknown_seconds')}\n"
        "    unless workflow_id:ray_workflow_usual_task_seconds:max\n"
        ")",
    ),
    Alert(
        "RayWorkflowSlow", "info", "5m",
        "A run takes more than `slow_factor` times the 95th percentile of the last week's runs of "
        "its workflow, if there were at least `slow_runs`.",
        f"{RUN} is slower than usual",
        f"Run {RUN} has been running for {SECONDS}, much longer than the runs of the last week.",
        "run",
        "workflow_id:ray_workflow_elapsed:seconds > ignoring (workflow_id) group_left () (\n"
        f"  {threshold('slow_factor')} * workflow:ray_workflow_runs_duration_seconds:p95_7d\n"
        "    and workflow:ray_workflow_runs_succeeded:increase7d\n"
        f"      >= {threshold('slow_runs')} - 0.5\n"
        ")",
    ),
    Alert(
        "RayWorkflowTasksStarved", "ticket", "15m",
        "Tasks of a run wait for resources (PENDING), and none of its tasks is RUNNING.",
        f"{RUN} waits for resources",
        f"{{{{ $value }}}} tasks of run {RUN} wait for resources, and none is RUNNING: the "
        "cluster lacks CPUs, GPUs, memory or a custom resource.",
        "run",
        f"""{latest('ray_workflow_run_tasks{state="PENDING"}', "state")} > 0\n"""
        f"""  and {latest('ray_workflow_run_tasks{state="RUNNING"}', "state")} == 0\n"""
        f"  and ({RUNNING})",
    ),
    Alert(
        "RayWorkflowQueueSaturated", "ticket", "30m",
        "Runs are PENDING because as many runs as `max_running_workflows` allows are RUNNING.",
        "Runs wait in the queue" + ON_CLUSTER,
        "{{ $value }} runs are PENDING because as many runs as max_running_workflows allows are "
        "RUNNING.",
        "fleet",
        f"({_runs('PENDING')} > 0)\n"
        f"  and {_runs('RUNNING')}\n"
        f"    >= {latest('ray_workflow_running_limit')}",
    ),
    Alert(
        "RayWorkflowQueueFull", "page", "2m",
        "The queue holds more than `queue_share` of the runs that `max_pending_workflows` allows.",
        "The run queue is nearly full" + ON_CLUSTER,
        "The queue is {{ $value | humanizePercentage }} full. When it is full, submitting a run "
        "raises queue.Full in the user's program.",
        "fleet",
        f"{_runs('PENDING')}\n"
        # For Ray, a limit of 0 means no limit.
        f"  / ({latest('ray_workflow_pending_limit')} > 0)\n"
        f"  > {threshold('queue_share')}",
    ),
    Alert(
        "RayWorkflowRetryStorm", "ticket", "15m",
        "More than `retry_ratio` retries per finished task within an hour, at least `retries`, and "
        "the last one at most 15 minutes ago.",
        f"Tasks of {WORKFLOW} are retried too often",
        f"{{{{ printf \"%.2f\" $value }}}} retries per finished task of {WORKFLOW} in the last "
        "hour: retries hide an error that occurs often.",
        "workflow",
        f"{added(f'increase({_RETRIED}[1h])')}\n"
        # Tasks that never end can be retried, too: avoid a division by 0.
        f"  / clamp_min({added(f'increase({_FINISHED}[1h])', 'state')}, 1)\n"
        f"  > {threshold('retry_ratio')}\n"
        f"  and {added(f'increase({_RETRIED}[1h])')}\n"
        f"    > {threshold('retries')} - 0.5\n"
        # Not for an hour after the last retry.
        f"  and {added(f'increase({_RETRIED}[15m])')} > 0",
    ),
    Alert(
        "RayWorkflowOutputUnusual", "info", "5m",
        "The output of a stage in the last successful run is `output_factor` times larger or "
        "smaller than the last week's median, the larger of the two has at least "
        "`output_bytes`, and at least `output_runs` runs succeeded in that week (counted at most "
        "once every ten minutes).",
        "Stage {{ $labels.stage }} of " + WORKFLOW + " wrote an unusual amount of output",
        "Stage {{ $labels.stage }} wrote {{ $value | humanize1024 }}B in the last successful run "
        f"of {WORKFLOW}; the median of the last week is "
        '{{ with printf "workflow_stage:ray_workflow_last_output_size:median_7d'
        '{workflow=%q,stage=%q,cluster=%q}" $labels.workflow $labels.stage $labels.cluster | query '
        "}}{{ . | first | value | humanize1024 }}{{ end }}B.",
        "workflow",
        "(\n"
        "  workflow_stage:ray_workflow_last_output_size:bytes\n"
        f"    > {threshold('output_factor')}\n"
        "      * workflow_stage:ray_workflow_last_output_size:median_7d\n"
        "  or\n"
        "  workflow_stage:ray_workflow_last_output_size:bytes\n"
        "    < workflow_stage:ray_workflow_last_output_size:median_7d\n"
        f"      / {threshold('output_factor')}\n"
        ")\n"
        "  and (\n"
        "    workflow_stage:ray_workflow_last_output_size:bytes\n"
        f"      >= {threshold('output_bytes')}\n"
        "    or workflow_stage:ray_workflow_last_output_size:median_7d\n"
        f"      >= {threshold('output_bytes')}\n"
        "  )\n"
        "  and ignoring (stage) workflow:ray_workflow_last_success:changes_7d\n"
        f"    >= {threshold('output_runs')}",
    ),
    Alert(
        "RayWorkflowObjectsHidden", "info", "30m",
        "A limit of the exporter keeps objects out of the metrics.",
        "The exporter hides objects" + ON_CLUSTER,
        "The limit {{ $labels.reason }} keeps {{ $value }} objects out of the metrics. Dashboards "
        "and alerts do not include them.",
        "exporter",
        f"{total(recent('ray_workflow_exporter_hidden_objects'))} > 0",
    ),
    Alert(
        "RayWorkflowLinkRestarting", "ticket", "5m",
        "The exporter restarted its connection to Ray more than `link_restarts` times in 30 "
        "minutes.",
        "The connection to Ray restarts too often" + ON_CLUSTER,
        'The exporter restarted its connection to Ray {{ printf "%.0f" $value }} times in 30 '
        "minutes. Between restarts it reads running workflows from storage only.",
        "exporter",
        f"{most('increase(ray_workflow_exporter_link_restarts_total[30m])')}\n"
        f"  > {threshold('link_restarts')} + 0.5",
    ),
)  # fmt: skip


def _guard(alerts: tuple[Alert, ...]) -> Alert:
    """Return the alert for missing thresholds, without which other alerts cannot fire."""
    found = re.findall(r'threshold\{name="(\w+)"', "".join(alert.expr for alert in alerts))
    return Alert(
        "RayWorkflowThresholdMissing", "ticket", "5m",
        "A threshold is not recorded: `rules/thresholds.yml` is not loaded, or does not contain "
        "it.",
        "An alert threshold is missing",
        "Prometheus has no threshold {{ $labels.name }}: alerts that compare with it cannot fire. "
        "Load rules/thresholds.yml together with the other rules.",
        "exporter",
        "\n  or ".join(
            f'absent(ray_workflow:threshold{{name="{name}"}})' for name in sorted(set(found))
        ),
    )  # fmt: skip


ALERTS: tuple[Alert, ...] = (*_ALERTS, _guard(_ALERTS))
