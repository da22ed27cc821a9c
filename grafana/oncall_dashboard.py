"""The on-call dashboard: firing alerts, runs that need attention, and what to do."""

from __future__ import annotations

from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard, stat, table, timeseries
from grafana_foundation_sdk.models import dashboard as models

from prometheus.alerts import ALERTS, JOB
from prometheus.promql import added, one, worst
from ray_workflow_exporter.display import STATE_COLOURS, STATUS_COLOURS, Colour
from ray_workflow_exporter.model import RunStatus, TaskState

from .common import (
    CLUSTER,
    RECORDED,
    cluster,
    coloured_words,
    exporter,
    fixed,
    make_dashboard,
    panel,
    rows,
    series,
    yes_or_no,
)
from .shared import (
    ALERT,
    NONE,
    SEVERITIES,
    alert_counts,
    from_one,
    many,
    side_by_side,
    stacked_bars,
)
from .tables import (
    RUN,
    WORD,
    cell,
    column,
    columns,
    each,
    greatest_first,
    rows_panel,
    run_link,
    workflow_link,
)

_EXPRESSIONS = {alert.name: alert.expr for alert in ALERTS}
# Limits an alert's expression, which has no variables, to runs of the selected cluster.
_OURS = f"and on (cluster, workflow_id) ray_workflow_run_info{{{CLUSTER}}}"
_FAILED_WORKFLOW = f'ray_workflow_last_run_status{{{CLUSTER}, status="FAILED"}} == 1'


class Problem(NamedTuple):
    """A reason why a run needs attention: `expr` returns for how many seconds it has existed."""

    word: str
    alert: str
    colour: Colour
    actions: str
    expr: str


_PROBLEMS = (
    Problem(
        "FAILED", "RayWorkflowLastRunFailed", STATUS_COLOURS[RunStatus.FAILED], "resume or delete",
        'label_join(\n  time() - workflow:ray_workflow_last_failure:timestamp'
        f"{{{RECORDED}}}\n    and on (cluster, workflow) ({_FAILED_WORKFLOW}),\n"
        '  "error", ": ", "exception", "message"\n)',
    ),
    Problem(
        "RESUMABLE", "RayWorkflowResumable", STATUS_COLOURS[RunStatus.RESUMABLE],
        "resume or delete",
        "time() - ray_workflow_run_last_transition_timestamp_seconds\n"
        f"  and on (cluster, workflow_id) ({_EXPRESSIONS['RayWorkflowResumable']})\n  {_OURS}",
    ),
    Problem(
        "STALLED", "RayWorkflowStalled", STATUS_COLOURS[RunStatus.CANCELED], "cancel",
        f"({_EXPRESSIONS['RayWorkflowStalled']})\n  {_OURS}",
    ),
    Problem(
        "STARVED", "RayWorkflowTasksStarved", STATE_COLOURS[TaskState.PENDING], "cancel",
        "workflow_id:ray_workflow_task_wait_seconds:max\n"
        "  * on (cluster, workflow_id) group_left (workflow)\n"
        f"    {each(RUN, f'ray_workflow_run_info{{{CLUSTER}}}')}\n"
        f"  and on (cluster, workflow_id) ({_EXPRESSIONS['RayWorkflowTasksStarved']})",
    ),
    Problem(
        "LATE", "RayWorkflowDeadlineMissed", STATUS_COLOURS[RunStatus.RUNNING], "cancel",
        f"({_EXPRESSIONS['RayWorkflowDeadlineMissed']})\n  {_OURS}",
    ),
)  # fmt: skip


def _labelled(expr: str, **labels: str) -> str:
    for name, value in labels.items():
        expr = f'label_replace({expr}, "{name}", "{value}", "", "")'
    return expr


def _runbook(field: str) -> dict[str, object]:
    return {"title": "Runbook", "url": f"${{exporter}}/runbooks/{cell(field)}", "targetBlank": True}


def _health() -> stat.Panel:
    exporters = f'up{{job="{JOB}", {CLUSTER}}}'
    asked = {
        "Exporter": f"min({worst(exporters)})",
        "Storage": f"min({worst(f'ray_workflow_storage_up{{{CLUSTER}}}')})",
        "Manager": f"min({one(f'ray_workflow_manager_up{{{CLUSTER}}}')})",
        "Rules": "1 + max(ray_workflow:threshold) * 0 or vector(0)",
    }
    return side_by_side(yes_or_no(
        panel(stat.Panel(), "Data health",
            "Whether all exporters are scraped, storage can be read, Ray's manager answers, and "
            "Prometheus has loaded the rules. If one is `no`, this dashboard is incomplete: open "
            "the dashboard Exporter first. Before the first workflow, there is no manager.", 8, 4)
    ), asked)  # fmt: skip


def _counts() -> stat.Panel:
    it = (
        panel(stat.Panel(), "Runs needing attention, by problem",
            "Number of rows per problem in the table below. Empty: Prometheus has not loaded the "
            "rules.", 10, 4)
        .unit("short").no_value("–")
    )  # fmt: skip
    it = side_by_side(
        it, {word: f"count({each(RUN, expr)})\n  or {NONE}" for word, *_, expr in _PROBLEMS}
    )
    for problem in _PROBLEMS:
        it = column(it, problem.word, from_one(problem.colour.hex))
    return it


def _alerts() -> table.Panel:
    # The value of ALERTS_FOR_STATE is the time since when the expression is true.
    since = f'ALERTS_FOR_STATE{{{ALERT}}} and ignoring (alertstate) ALERTS{{alertstate="firing"}}'
    ranked = f"1000 * {each('severity, alertname, cluster, workflow, workflow_id, stage', since)}"
    for rank, severity in enumerate(SEVERITIES):  # the names do not sort by urgency
        ranked = f'label_replace({ranked}, "rank", "{rank}", "severity", "{severity}")'
    it = (
        rows_panel("Firing alerts",
            "Click an alert for its runbook, a workflow or a run for its dashboard.",
            "No alert is firing.", 24, 7)
        .with_target(rows(ranked))
        .with_transformation(models.DataTransformerConfig(
            id_val="sortBy", options={"fields": {}, "sort": [{"field": "rank"}]}))
    )  # fmt: skip
    it = columns(it, {
        "severity": "Severity", "alertname": "Alert", "workflow": "Workflow",
        "workflow_id": "Run", "stage": "Stage", "cluster": "Cluster", "Value": "Since",
        "rank": "",
    })  # fmt: skip
    it = column(it, "Severity", {
        "mappings": [coloured_words(SEVERITIES)], "custom.cellOptions": WORD, "custom.width": 100})  # fmt: skip
    it = column(it, "Alert", {"links": [_runbook("alertname")]})
    # An alert without a run has no link to a run.
    it = column(it, "Workflow", {"links": [workflow_link()], "noValue": ""})
    it = column(it, "Run", {"links": [run_link()], "noValue": ""})
    return column(it, "Since", {"unit": "dateTimeFromNow", "custom.width": 150})


def _runs() -> table.Panel:
    rows_of_all = "\nor ".join(
        _labelled(
            each(f"{RUN}, error", problem.expr),
            problem=problem.word, runbook=problem.alert, actions=problem.actions,
        )
        for problem in _PROBLEMS
    )  # fmt: skip
    it = (
        rows_panel("Runs needing attention",
            "Current problems, whether their alert is already firing or not. FAILED: the last run "
            "of the workflow failed; listed until a run succeeds. RESUMABLE: interrupted. STALLED: "
            "no change for too long. STARVED: tasks wait for resources and none is RUNNING. LATE: "
            "past its deadline. The last column opens the run's page in the exporter, with "
            "resume, cancel and delete; the variable Exporter is its address.",
            "No run needs attention.", 24, 9)
        .with_target(rows(rows_of_all))
        .sort_by([greatest_first("For")])
    )  # fmt: skip
    it = columns(it, {
        "problem": "Problem", "workflow_id": "Run", "workflow": "Workflow",
        "cluster": "Cluster", "Value": "For", "error": "Error", "runbook": "Runbook",
        "actions": "Action",
    })  # fmt: skip
    words = coloured_words({problem.word: problem.colour.hex for problem in _PROBLEMS})
    page = f"${{exporter}}/run?workflow_id={cell('workflow_id')}"
    it = column(it, "Problem", {
        "mappings": [words], "custom.cellOptions": WORD, "custom.width": 120})  # fmt: skip
    it = column(it, "Run", {"links": [run_link()], "custom.width": 180})
    it = column(it, "Workflow", {"links": [workflow_link()], "custom.width": 150})
    it = column(it, "For", {"unit": "s", "decimals": 1, "custom.width": 100})
    it = column(it, "Error", {"custom.minWidth": 150, "custom.inspect": True})
    it = column(it, "Runbook", {"links": [_runbook("runbook")], "custom.width": 220})
    return column(it, "Action", {
        "links": [{"title": "Page of the run", "url": page, "targetBlank": True}],
        "custom.width": 140})  # fmt: skip


def _trend() -> timeseries.Panel:
    it = (
        panel(timeseries.Panel(), "Alerts over time",
            "Number of firing alerts by severity.", 12, 8)
        .unit("short").no_value("No alert fired in the time range.")
        .with_target(series(
            f'count by (severity) (ALERTS{{{ALERT}, alertstate="firing"}})', "{{severity}}"))
    )  # fmt: skip
    for severity, colour in SEVERITIES.items():
        it = column(it, severity, {"color": fixed(colour)})
    return stacked_bars(it)


def _failures() -> timeseries.Panel:
    counter = f'ray_workflow_runs_finished_total{{{CLUSTER}, status="FAILED"}}'
    return stacked_bars(many(
        panel(timeseries.Panel(), "Failed runs by workflow",
            "FAILED runs in each interval. Many workflows at the same time usually have a common "
            "cause: the cluster, its storage, or a service that all of them call.", 12, 8)
        .unit("short").no_value("No run has failed.")
        .with_target(series(
            f"sum by (workflow) ({added(f'increase({counter}[$__rate_interval])')}) > 0",
            "{{workflow}}"))
    ))  # fmt: skip


CHART_ALERTS = RECORDED


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    return (
        make_dashboard("oncall", "On-call", "What is wrong now, and what should I do about it?",
            (*cluster(), exporter()), since="now-6h")
        .with_panel(alert_counts(6))
        .with_panel(_counts())
        .with_panel(_health())
        .with_panel(_alerts())
        .with_panel(_runs())
        .with_panel(_trend())
        .with_panel(_failures())
    )  # fmt: skip
