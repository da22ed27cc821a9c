"""The table of alerts: one entry each, from which rules, links and docs/alerts.md are made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .promql import LIVE, REPLICA, RUNNING, TARGET, one, threshold, total, worst

Severity = Literal["page", "ticket", "info"]
Dashboard = Literal["fleet", "run", "workflow", "oncall", "exporter"]

JOB = "ray-workflow"


@dataclass(frozen=True)
class Alert:
    """An alert. `words` say what `expr` means; `labels` tell variants of one name apart."""

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
    """A pair of windows: the budget burns `factor` times too fast in both of them."""

    long: str
    short: str
    factor: float
    after: str


# From the workbook on site reliability engineering, for a budget of 30 days: the factor is the one
# at which 2 %, 5 % and 10 % of it are gone within the long window.
PAGE_BURNS = (Burn("1h", "5m", 14.4, "2m"), Burn("6h", "30m", 6, "15m"))
TICKET_BURNS = (
    Burn("6h", "30m", 6, "15m"),
    Burn("1d", "2h", 3, "1h"),
    Burn("3d", "6h", 1, "3h"),
)

ON_CLUSTER = "{{ with $labels.cluster }} on {{ . }}{{ end }}"
WORKFLOW = "{{ $labels.workflow }}" + ON_CLUSTER
RUN = "{{ $labels.workflow_id }} of {{ $labels.workflow }}" + ON_CLUSTER
SECONDS = "{{ $value | humanizeDuration }}"

# The error of the workflow's last failed run, queried when the alert's text is rendered:
# as labels they would make each new failure a new alert, whose clock starts again.
LAST_FAILURE = (
    '{{ with printf "workflow:ray_workflow_last_failure:timestamp{workflow=%q,cluster=%q}"'
    " $labels.workflow $labels.cluster | query }}{{ with first . }}"
    " Run {{ .Labels.workflow_id }} failed in task {{ .Labels.task_id }} (stage"
    " {{ .Labels.stage }}) with {{ .Labels.exception }}"
    "{{ with .Labels.message }}: {{ . }}{{ end }}.{{ end }}{{ end }}"
)


def _runs(statuses: str) -> str:
    """Return how many runs of a cluster have one of these statuses.

    Added up before replicas are compared, which may call the workflow of a run differently.
    """
    return total(f'sum without (workflow, status) (ray_workflow_runs{{status=~"{statuses}"}})')


def _burns() -> tuple[Alert, ...]:
    alerts = []
    for scope, burns in (("cluster", PAGE_BURNS), ("workflow", TICKET_BURNS)):
        cluster = scope == "cluster"
        few = "burn_failures_page" if cluster else "burn_failures"
        for burn in burns:
            long = f"{scope}:ray_workflow_budget_burn:ratio_increase{burn.long}"
            short = f"{scope}:ray_workflow_budget_burn:ratio_increase{burn.short}"
            alerts.append(
                Alert(
                    "RayWorkflowClusterBudgetBurn" if cluster else "RayWorkflowBudgetBurn",
                    "page" if cluster else "ticket",
                    burn.after,
                    f"{'Over all workflows' if cluster else 'Of a workflow'}, so many runs fail "
                    f"that the success budget burns {burn.factor:g} times too fast over "
                    f"{burn.long} and over {burn.short}, with at least `{few}` failures.",
                    (
                        "Workflows fail far too often" + ON_CLUSTER
                        if cluster
                        else f"{WORKFLOW} fails too often"
                    ),
                    "The budget of failed runs burns {{ $value | humanize }} times as fast as it "
                    f"may, over the last {burn.long} and still over the last {burn.short}."
                    + ("" if cluster else LAST_FAILURE),
                    "fleet" if cluster else "workflow",
                    f"{long} > {burn.factor:g}\n"
                    f"  and {short} > {burn.factor:g}\n"
                    # A counter's increase is extrapolated: half a failure less is meant as many.
                    f"  and {scope}:ray_workflow_runs_failed:increase{burn.long}\n"
                    f"    > {threshold(few)} - 0.5",
                    (("long", burn.long), ("short", burn.short)),
                )
            )
    return tuple(alerts)


_ALERTS: tuple[Alert, ...] = (
    Alert(
        "RayWorkflowExporterDown", "page", "5m",
        "No exporter of a cluster can be scraped; or it vanished from the targets while runs were "
        "under way; or there is no target at all.",
        "Nobody watches the workflows" + ON_CLUSTER,
        "Prometheus cannot scrape any exporter of job {{ $labels.job }}: all other alerts on "
        "workflows are blind until it can.",
        "exporter",
        f'(max without ({REPLICA}) (up{{job="{JOB}"}}) == 0)\n'
        "  or (\n"
        # Ray gives each session of a cluster another name: what follows a restart is no loss.
        f"    sum without ({TARGET}, SessionName, workflow, status) (\n"
        f'      last_over_time(ray_workflow_runs{{job="{JOB}", status=~"PENDING|RUNNING"}}[1h])\n'
        "    ) > 0\n"
        f'    unless max without ({TARGET}, SessionName) (up{{job="{JOB}"}})\n'
        f'    and on () up{{job="{JOB}"}}\n'
        "  )\n"
        f'  or absent(up{{job="{JOB}"}})',
    ),
    Alert(
        "RayWorkflowStorageUnreadable", "page", "5m",
        "The exporter cannot read the workflow storage.",
        "The workflow storage cannot be read" + ON_CLUSTER,
        "The exporter cannot list the workflow storage. Ray may be unable to write it, too: then "
        "runs fail or hang, and none can be resumed.",
        "exporter",
        f"{worst('ray_workflow_storage_up')} == 0",
    ),
    Alert(
        "RayWorkflowManagerDown", "page", "5m",
        "The WorkflowManagementActor does not answer while runs are PENDING, RUNNING or RESUMABLE.",
        "No workflow makes progress" + ON_CLUSTER,
        "The WorkflowManagementActor does not answer, and {{ $value }} runs wait for it. Nothing "
        "goes on until somebody resumes them.",
        "oncall",
        f"({_runs('PENDING|RUNNING|RESUMABLE')} > 0)\n"
        f"  and {one('ray_workflow_manager_up')} == 0",
    ),
    Alert(
        "RayWorkflowSnapshotStale", "ticket", "2m",
        "The last poll of the exporter ended more than `stale_seconds` ago.",
        "The exporter shows old values" + ON_CLUSTER,
        f"The last poll ended {SECONDS} ago. Dashboards and alerts show the state of that time.",
        "exporter",
        f"time() - {worst('ray_workflow_exporter_last_poll_timestamp_seconds')}\n"
        f"  > {threshold('stale_seconds')}",
    ),
    Alert(
        "RayWorkflowNoRecentSuccess", "page", "5m",
        "A workflow with an `expected_interval` has not succeeded for `missed_intervals` times "
        "that long, or not once since the exporter began so long ago.",
        f"{WORKFLOW} has not succeeded although it is due",
        f"No run of {WORKFLOW} has succeeded for {SECONDS}.{LAST_FAILURE}",
        "workflow",
        "(\n"
        f"  time() - {one('ray_workflow_last_success_timestamp_seconds')}\n"
        f"    > {threshold('missed_intervals')}\n"
        f"      * {one('ray_workflow_expected_interval_seconds')}\n"
        ") or (\n"
        f"  (time() + 0 * {one('ray_workflow_expected_interval_seconds')})\n"
        "    - ignoring (workflow) group_left ()\n"
        f'      min without ({TARGET}) (process_start_time_seconds{{job="{JOB}"}})\n'
        f"    > {threshold('missed_intervals')}\n"
        f"      * {one('ray_workflow_expected_interval_seconds')}\n"
        f"  unless {one('ray_workflow_last_success_timestamp_seconds')}\n"
        ")",
    ),
    Alert(
        "RayWorkflowDeadlineMissed", "ticket", "1m",
        "A run of a workflow with a `deadline` is not done although its deadline is over.",
        f"{RUN} is late",
        f"Run {RUN} should have ended {SECONDS} ago and is still not done.",
        "run",
        f"time() - {one('ray_workflow_run_deadline_timestamp_seconds')} > 0\n  and ({LIVE})",
    ),
    Alert(
        "RayWorkflowLastRunFailed", "ticket", "5m",
        "The run of a workflow that ended last has FAILED; a later success clears it.",
        f"The last run of {WORKFLOW} failed",
        f"The last run of {WORKFLOW} to end has FAILED.{LAST_FAILURE}",
        "workflow",
        f"""{one('ray_workflow_last_run_status{status="FAILED"}', "status")} == 1""",
    ),
    *_burns(),
    Alert(
        "RayWorkflowResumable", "ticket", "10m",
        "A run is RESUMABLE: it was interrupted, and goes on only when somebody resumes it. Not "
        "where only storage is watched.",
        f"{RUN} was interrupted",
        f"Run {RUN} is RESUMABLE: a crash of its cluster or of the WorkflowManagementActor "
        "interrupted it. It does not go on by itself: resume it or delete it.",
        "run",
        # Where only storage is watched, a run at work cannot be told from one that was left over.
        f"""{one('ray_workflow_run_status{status="RESUMABLE"}', "status")} == 1\n"""
        f"  and ignoring (workflow, workflow_id) {one('ray_workflow_manager_up')}",
    ),
    Alert(
        "RayWorkflowStalled", "ticket", "5m",
        "No task of a RUNNING run changed its state for `stalled_factor` times as long as its "
        "stages usually take, and at least `stalled_seconds`; `stalled_unknown_seconds` without "
        "a history.",
        f"{RUN} does not move",
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
        "A run takes more than `slow_factor` times as long as 95 % of the last week's runs of its "
        "workflow, of which there were at least `slow_runs`.",
        f"{RUN} is slower than usual",
        f"Run {RUN} has been running for {SECONDS}, far longer than the runs of the last week.",
        "run",
        "workflow_id:ray_workflow_elapsed:seconds > ignoring (workflow_id) group_left () (\n"
        f"  {threshold('slow_factor')} * workflow:ray_workflow_runs_duration_seconds:p95_7d\n"
        "    and workflow:ray_workflow_runs_succeeded:increase7d\n"
        f"      >= {threshold('slow_runs')} - 0.5\n"
        ")",
    ),
    Alert(
        "RayWorkflowTasksStarved", "ticket", "15m",
        "Tasks of a run wait for resources (PENDING), and none of it is RUNNING.",
        f"{RUN} gets no resources",
        f"{{{{ $value }}}} tasks of run {RUN} wait for resources, and none of its tasks is at "
        "work: the cluster lacks CPUs, GPUs, memory or a custom resource.",
        "run",
        f"""{one('ray_workflow_run_tasks{state="PENDING"}', "state")} > 0\n"""
        f"""  and {one('ray_workflow_run_tasks{state="RUNNING"}', "state")} == 0\n"""
        f"  and ({RUNNING})",
    ),
    Alert(
        "RayWorkflowQueueSaturated", "ticket", "30m",
        "Runs are PENDING because as many runs as allowed are RUNNING.",
        "Runs queue up" + ON_CLUSTER,
        "{{ $value }} runs have been waiting in the queue: as many runs as max_running_workflows "
        "allows are running.",
        "fleet",
        f"({_runs('PENDING')} > 0)\n"
        f"  and {_runs('RUNNING')}\n"
        f"    >= {one('ray_workflow_running_limit')}",
    ),
    Alert(
        "RayWorkflowQueueFull", "page", "2m",
        "The queue holds more than `queue_share` of what max_pending_workflows allows.",
        "The queue of runs is nearly full" + ON_CLUSTER,
        "The queue is {{ $value | humanizePercentage }} full. When it is full, submitting a run "
        "raises queue.Full in the user's program.",
        "fleet",
        f"{_runs('PENDING')}\n"
        # Ray takes a limit of 0 for none.
        f"  / ({one('ray_workflow_pending_limit')} > 0)\n"
        f"  > {threshold('queue_share')}",
    ),
    Alert(
        "RayWorkflowRetryStorm", "ticket", "15m",
        "More than `retry_ratio` retries for each task that ended in an hour, at least `retries`.",
        f"Tasks of {WORKFLOW} are retried again and again",
        f"{{{{ printf \"%.2f\" $value }}}} retries came on each task of {WORKFLOW} that ended "
        "in the last hour: something fails that retries hide.",
        "workflow",
        f"{total('increase(ray_workflow_tasks_retried_total[1h])')}\n"
        # A task that never ends is retried, too: no division by nothing.
        f"  / clamp_min({total('increase(ray_workflow_tasks_finished_total[1h])', 'state')}, 1)\n"
        f"  > {threshold('retry_ratio')}\n"
        f"  and {total('increase(ray_workflow_tasks_retried_total[1h])')}\n"
        f"    > {threshold('retries')} - 0.5",
    ),
    Alert(
        "RayWorkflowOutputUnusual", "info", "5m",
        "The output of a stage in the last successful run is `output_factor` times larger or "
        "smaller than the last week's median, one of both has `output_bytes`, and `output_runs` "
        "runs succeeded in that week, counted at most once in ten minutes.",
        "Stage {{ $labels.stage }} of " + WORKFLOW + " wrote an unusual amount",
        "Stage {{ $labels.stage }} wrote {{ $value | humanize1024 }}B in the last successful run "
        f"of {WORKFLOW}; a median run of the last week writes "
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
        "The exporter leaves objects out" + ON_CLUSTER,
        "The limit {{ $labels.reason }} keeps {{ $value }} objects out of the metrics: dashboards "
        "and alerts do not see them.",
        "exporter",
        f"{total('ray_workflow_exporter_hidden_objects')} > 0",
    ),
    Alert(
        "RayWorkflowLinkRestarting", "ticket", "5m",
        "The exporter's link to Ray was restarted more than `link_restarts` times in half an hour.",
        "The exporter loses its link to Ray" + ON_CLUSTER,
        'The exporter restarted its link to Ray {{ printf "%.0f" $value }} times in 30 minutes. In '
        "between it knows running workflows from storage only.",
        "exporter",
        f"{one('increase(ray_workflow_exporter_link_restarts_total[30m])')}\n"
        f"  > {threshold('link_restarts')} + 0.5",
    ),
)  # fmt: skip


def _guard(alerts: tuple[Alert, ...]) -> Alert:
    """Return the alert that says when a threshold is missing: the others would stay silent."""
    found = re.findall(r'threshold\{name="(\w+)"', "".join(alert.expr for alert in alerts))
    return Alert(
        "RayWorkflowThresholdMissing", "ticket", "5m",
        "A number that alerts compare with is not recorded: `rules/thresholds.yml` is not loaded, "
        "or lacks it.",
        "An alert on workflows can never fire",
        "Prometheus does not know the threshold {{ $labels.name }}: alerts that compare with it "
        "stay silent. Load rules/thresholds.yml beside the other rules.",
        "exporter",
        "\n  or ".join(
            f'absent(ray_workflow:threshold{{name="{name}"}})' for name in sorted(set(found))
        ),
    )  # fmt: skip


ALERTS: tuple[Alert, ...] = (*_ALERTS, _guard(_ALERTS))
