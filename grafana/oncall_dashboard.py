"""The dashboard for those on call: which alerts fire, which runs need a hand, and what to do."""

from __future__ import annotations

from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard, stat, table, timeseries
from grafana_foundation_sdk.models import dashboard as models

from prometheus.alerts import ALERTS, JOB
from prometheus.generate import RUNBOOKS
from prometheus.promql import one, total, worst
from ray_workflow_exporter.display import STATE_COLOURS, STATUS_COLOURS, Colour
from ray_workflow_exporter.model import RunStatus, TaskState

from .common import (
    CLUSTER,
    address,
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
# Of the runs of the chosen cluster: the expressions of alerts know no variables.
_OURS = f"and on (cluster, workflow_id) ray_workflow_run_info{{{CLUSTER}}}"
_FAILED_WORKFLOW = f'ray_workflow_last_run_status{{{CLUSTER}, status="FAILED"}} == 1'


class Trouble(NamedTuple):
    """A way in which a run needs a hand: `expr` says for how many seconds it has."""

    word: str
    alert: str
    colour: Colour
    actions: str
    expr: str


_TROUBLES = (
    Trouble(
        "FAILED", "RayWorkflowLastRunFailed", STATUS_COLOURS[RunStatus.FAILED], "resume or delete",
        'label_join(\n  time() - workflow:ray_workflow_last_failure:timestamp'
        f"{{{CLUSTER}}}\n    and on (cluster, workflow) ({_FAILED_WORKFLOW}),\n"
        '  "error", ": ", "exception", "message"\n)',
    ),
    Trouble(
        "RESUMABLE", "RayWorkflowResumable", STATUS_COLOURS[RunStatus.RESUMABLE],
        "resume or delete",
        "time() - ray_workflow_run_last_transition_timestamp_seconds\n"
        f"  and on (cluster, workflow_id) ({_EXPRESSIONS['RayWorkflowResumable']})\n  {_OURS}",
    ),
    Trouble(
        "STUCK", "RayWorkflowStalled", STATUS_COLOURS[RunStatus.CANCELED], "cancel",
        f"({_EXPRESSIONS['RayWorkflowStalled']})\n  {_OURS}",
    ),
    Trouble(
        "STARVED", "RayWorkflowTasksStarved", STATE_COLOURS[TaskState.PENDING], "cancel",
        "workflow_id:ray_workflow_task_wait_seconds:max\n"
        "  * on (cluster, workflow_id) group_left (workflow)\n"
        f"    {each(RUN, f'ray_workflow_run_info{{{CLUSTER}}}')}\n"
        f"  and on (cluster, workflow_id) ({_EXPRESSIONS['RayWorkflowTasksStarved']})",
    ),
    Trouble(
        "LATE", "RayWorkflowDeadlineMissed", STATUS_COLOURS[RunStatus.RUNNING], "cancel",
        f"({_EXPRESSIONS['RayWorkflowDeadlineMissed']})\n  {_OURS}",
    ),
)  # fmt: skip


def _labelled(expr: str, **labels: str) -> str:
    for name, value in labels.items():
        expr = f'label_replace({expr}, "{name}", "{value}", "", "")'
    return expr


def _runbook(field: str) -> dict[str, object]:
    return {"title": "Runbook", "url": f"${{runbooks}}/{cell(field)}.md", "targetBlank": True}


def _believed() -> stat.Panel:
    exporters = f'up{{job="{JOB}", {CLUSTER}}}'
    asked = {
        "Exporter": f"min({worst(exporters)})",
        "Storage": f"min({worst(f'ray_workflow_storage_up{{{CLUSTER}}}')})",
        "Manager": f"min({one(f'ray_workflow_manager_up{{{CLUSTER}}}')})",
        "Rules": "1 + max(ray_workflow:threshold) * 0 or vector(0)",
    }
    return side_by_side(yes_or_no(
        panel(stat.Panel(), "Can this be believed?",
            "Whether the exporters are scraped, storage can be read, Ray's manager answers, and "
            "Prometheus has our rules. With a no, this dashboard shows too little: begin there, with "
            "the dashboard Exporter. Only where no workflow ever ran, there is no manager.", 8, 4)
    ), asked)  # fmt: skip


def _counts() -> stat.Panel:
    it = (
        panel(stat.Panel(), "Runs in trouble",
            "How many rows of each kind the table below has. Empty: Prometheus does not have our "
            "rules.", 10, 4)
        .unit("short").no_value("–")
    )  # fmt: skip
    it = side_by_side(
        it, {word: f"count({each(RUN, expr)})\n  or {NONE}" for word, *_, expr in _TROUBLES}
    )
    for trouble in _TROUBLES:
        it = column(it, trouble.word, from_one(trouble.colour.hex))
    return it


def _alerts() -> table.Panel:
    # What ALERTS_FOR_STATE holds is when the expression began to be true.
    since = f'ALERTS_FOR_STATE{{{ALERT}}} and ignoring (alertstate) ALERTS{{alertstate="firing"}}'
    ranked = f"1000 * {each('severity, alertname, cluster, workflow, workflow_id, stage', since)}"
    for rank, severity in enumerate(SEVERITIES):  # which no order of words puts right
        ranked = f'label_replace({ranked}, "rank", "{rank}", "severity", "{severity}")'
    it = (
        rows_panel("Firing alerts",
            "Each alert leads to its runbook, which says what to look at and what to do, and to "
            "the dashboards of the workflow and of the run that it is about.",
            "No alert fires.", 24, 7)
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
    # An alert that is about no run leads to none.
    it = column(it, "Workflow", {"links": [workflow_link()], "noValue": ""})
    it = column(it, "Run", {"links": [run_link()], "noValue": ""})
    return column(it, "Since", {"unit": "dateTimeFromNow", "custom.width": 150})


def _runs() -> table.Panel:
    troubled = "\nor ".join(
        _labelled(
            each(f"{RUN}, error", trouble.expr),
            problem=trouble.word, runbook=trouble.alert, actions=trouble.actions,
        )
        for trouble in _TROUBLES
    )  # fmt: skip
    it = (
        rows_panel("Runs that need a hand",
            "What is so now, whether its alert fires already or not. FAILED: the newest run of a "
            "workflow whose last run failed; it is listed until one succeeds. STUCK: nothing moves. "
            "STARVED: tasks wait, for how long, and none is at work. LATE: past the deadline. "
            "RESUMABLE: interrupted. The last column leads to the exporter's page, which "
            "resumes, cancels and deletes; its address is the variable Exporter.",
            "No run is failed, interrupted, stuck, starved or late.", 24, 9)
        .with_target(rows(troubled))
        .sort_by([greatest_first("For")])
    )  # fmt: skip
    it = columns(it, {
        "problem": "Problem", "workflow_id": "Run", "workflow": "Workflow",
        "cluster": "Cluster", "Value": "For", "error": "Error", "runbook": "Runbook",
        "actions": "Do",
    })  # fmt: skip
    words = coloured_words({trouble.word: trouble.colour.hex for trouble in _TROUBLES})
    page = f"${{exporter}}/workflows/{cell('workflow_id')}"
    it = column(it, "Problem", {
        "mappings": [words], "custom.cellOptions": WORD, "custom.width": 120})  # fmt: skip
    it = column(it, "Run", {"links": [run_link()], "custom.width": 180})
    it = column(it, "Workflow", {"links": [workflow_link()], "custom.width": 150})
    it = column(it, "For", {"unit": "s", "decimals": 1, "custom.width": 100})
    it = column(it, "Error", {"custom.minWidth": 150, "custom.inspect": True})
    it = column(it, "Runbook", {"links": [_runbook("runbook")], "custom.width": 220})
    return column(it, "Do", {
        "links": [{"title": "Page of the run", "url": page, "targetBlank": True}],
        "custom.width": 140})  # fmt: skip


def _trend() -> timeseries.Panel:
    it = (
        panel(timeseries.Panel(), "Alerts over time",
            "How many fired at each time, by severity: when did it begin, and is it over?", 12, 8)
        .unit("short").no_value("No alert has fired in the time range.")
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
            "How many runs FAILED in each step of time. Many workflows at once have a common cause: "
            "the cluster, its storage, or a service that all of them call.", 12, 8)
        .unit("short").no_value("No run has failed.")
        .with_target(series(
            f"sum by (workflow) ({total(f'increase({counter}[$__rate_interval])')}) > 0",
            "{{workflow}}"))
    ))  # fmt: skip


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    return (
        make_dashboard("oncall", "On-call", "What is wrong now, and what is to be done about it?",
            (*cluster(), exporter(),
             address("runbooks", "Runbooks", "the folder of runbooks", RUNBOOKS)), since="now-6h")
        .with_panel(alert_counts(6))
        .with_panel(_counts())
        .with_panel(_believed())
        .with_panel(_alerts())
        .with_panel(_runs())
        .with_panel(_trend())
        .with_panel(_failures())
    )  # fmt: skip
