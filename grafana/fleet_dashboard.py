"""The fleet dashboard: the state of all workflows of a cluster."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as option_models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from prometheus.promql import added, total
from ray_workflow_exporter.display import STATUS_COLOURS

from .common import (
    BLUE,
    CLUSTER,
    GREEN,
    GREY,
    ORANGE,
    RECORDED_WORKFLOW,
    RED,
    WORKFLOW,
    cluster,
    colour_series,
    fixed,
    make_dashboard,
    now,
    panel,
    rows,
    series,
    steps,
    word_mapping,
    workflow,
)
from .shared import (
    alert_counts,
    budget_left,
    ended_by_status,
    many,
    resource_hours,
    side_by_side,
)
from .tables import (
    BAR,
    RUN,
    WORD,
    column,
    columns,
    each,
    greatest_first,
    number,
    rows_panel,
    run_link,
    workflow_link,
)

_LIVE = f'ray_workflow_run_status{{{WORKFLOW}, status=~"PENDING|RUNNING|RESUMABLE"}} == 1'
_FAILURE = f"workflow_id:ray_workflow_failure:timestamp{{{RECORDED_WORKFLOW}}}"
# The labels of an error may change when the exporter learns more: keep the last ones of each run.
_FAILURES = (
    f"({_FAILURE}\n    or on (cluster, workflow_id)\n"
    f"    topk by (cluster, workflow_id) (1, last_over_time({_FAILURE}[$__range])))\n"
    "  >= time() - $__range_s"
)
# Without a workflow there is no series: then show 0 if the exporter can read storage.
_NONE = f"0 * max(ray_workflow_storage_up{{{CLUSTER}}} == 1)"
_RUNS = f"ray_workflow_runs_duration_seconds_sum{{{WORKFLOW}}}"


def _live(expr: str, ref: str) -> prometheus.Dataquery:
    return rows(f"{each(RUN, expr)}\n  and on (cluster, workflow_id) ({_LIVE})", ref)


def _finished(statuses: str, by: str = "") -> str:
    counter = f'ray_workflow_runs_finished_total{{{WORKFLOW}, status=~"{statuses}"}}'
    return f"sum by ({by}) ({added(f'increase({counter}[$__range])')})"


def _success(by: str = "") -> str:
    return f"{_finished('SUCCESSFUL', by)}\n  / ({_finished('SUCCESSFUL|FAILED', by)} > 0)"


def _statuses() -> stat.Panel:
    runs = {
        status.value: total(f'ray_workflow_runs{{{WORKFLOW}, status="{status.value}"}}')
        for status in STATUS_COLOURS
    }
    it = (
        panel(stat.Panel(), "Runs by status",
            "All known runs. PENDING runs wait in the queue, see below. RESUMABLE runs were "
            "interrupted and must be resumed by hand: see the dashboard On-call.", 12, 4)
        .unit("short").no_value("–")
    )  # fmt: skip
    asked = {status: f"sum({it})\n  or {_NONE}" for status, it in runs.items()}
    return colour_series(side_by_side(it, asked), STATUS_COLOURS)


def _running() -> table.Panel:
    it = (
        rows_panel("Live runs",
            "PENDING, RUNNING and RESUMABLE runs, the oldest first. The bar is the share of "
            "SUCCESSFUL tasks. The expected end assumes the usual task durations. Click a run "
            "for its dashboard.", "There is no live run.", 14, 8)
        .with_target(rows(each(f"{RUN}, status", _LIVE), "A"))
        .with_target(_live(f"ray_workflow_run_progress_ratio{{{WORKFLOW}}}", "B"))
        .with_target(_live(f"time() - ray_workflow_run_start_timestamp_seconds{{{WORKFLOW}}}", "C"))
        .with_target(_live(
            f"1000 * ray_workflow_run_expected_end_timestamp_seconds{{{WORKFLOW}}}", "D"))
        .with_target(_live(
            f"round(1000 * (ray_workflow_run_start_timestamp_seconds{{{WORKFLOW}}}\n"
            # A PENDING run has no start yet.
            f"    or ray_workflow_run_last_transition_timestamp_seconds{{{WORKFLOW}}}))", "E"))
        .sort_by([greatest_first("Elapsed")])
    )  # fmt: skip
    it = columns(it, {
        "workflow_id": "Run", "workflow": "Workflow", "cluster": "Cluster", "status": "Status",
        "Value #B": "Progress", "Value #C": "Elapsed", "Value #D": "Ends",
        "Value #A": "", "Value #E": "",
    })  # fmt: skip
    it = column(
        it, "Run", {"links": [run_link(f"from={number('E')}&to=now")], "custom.minWidth": 90}
    )
    it = column(it, "Workflow", {"links": [workflow_link()], "custom.minWidth": 90})
    it = column(it, "Status", {
        "mappings": [word_mapping(STATUS_COLOURS)], "custom.width": 105,
        "custom.cellOptions": WORD,
    })  # fmt: skip
    it = column(it, "Progress", {
        "unit": "percentunit", "decimals": 0, "min": 0, "max": 1, "color": fixed(BLUE),
        "custom.minWidth": 100,
        "custom.cellOptions": BAR,
    })  # fmt: skip
    it = column(it, "Elapsed", {"unit": "s", "decimals": 0, "custom.width": 95})
    return column(it, "Ends", {"unit": "dateTimeFromNow", "custom.width": 135})


def _failed() -> table.Panel:
    it = (
        rows_panel("Failed in the time range",
            "The newest hundred runs that FAILED in the time range, with the task that caused each "
            "failure. Click a run for its dashboard at that time.",
            "No run failed in the time range.", 10, 8)
        .with_target(rows(
            f"topk(100, 1000 * {each(f'{RUN}, task_id, error', _error())})", "A"))
        .with_target(rows(each(RUN,
            f"round(1000 * last_over_time(\n"
            f"  workflow_id:ray_workflow_failure_start:timestamp{{{RECORDED_WORKFLOW}}}[$__range]))\n"
            f"  and on (cluster, workflow_id) ({_FAILURES})"), "B"))
        .with_target(rows(f"60000 + 1000 * {each(RUN, _FAILURES)}", "C"))
        .sort_by([greatest_first("Ended")])
    )  # fmt: skip
    it = columns(it, {
        "Value #A": "Ended", "workflow_id": "Run", "cluster": "Cluster", "task_id": "Task",
        "error": "Error", "workflow": "", "Value #B": "", "Value #C": "",
    })  # fmt: skip
    it = column(it, "Run", {
        "links": [run_link(f"from={number('B')}&to={number('C')}"), workflow_link()],
        "custom.minWidth": 90,
    })  # fmt: skip
    it = column(it, "Task", {"custom.minWidth": 90})
    it = column(it, "Error", {"custom.minWidth": 140, "custom.inspect": True})
    return column(it, "Ended", {"unit": "dateTimeFromNow", "custom.width": 135})


def _error() -> str:
    return f'label_join({_FAILURES}, "error", ": ", "exception", "message")'


def _durations() -> timeseries.Panel:
    average = f"workflow:ray_workflow_runs_duration_seconds:avg1h{{{RECORDED_WORKFLOW}}}"
    return many(
        panel(timeseries.Panel(), "Run duration by workflow, ten slowest",
            "Average over the successful runs of the previous hour. If a line rises, open the "
            "workflow's dashboard and find the stage that became slower.", 8, 8)
        .unit("s").min(0).no_value("No run has succeeded yet.")
        .with_target(series(
            f"avg by (workflow) ({average})\n"
            f"  and topk(10, avg by (workflow) (avg_over_time({average}[$__range] @ end())))",
            "{{workflow}}"))
    )  # fmt: skip


def _queue() -> timeseries.Panel:
    pending = f'ray_workflow_runs{{{WORKFLOW}, status="PENDING"}}'
    longest = f"sum by (workflow) ({total(f'max_over_time({pending}[$__range] @ end())')})"
    return many(
        panel(timeseries.Panel(), "Queue by workflow, ten longest",
            "Runs that are PENDING because max_running_workflows runs are RUNNING. If the queue "
            "grows, raise max_running_workflows or submit fewer runs.", 8, 8)
        .unit("short").min(0).decimals(0).no_value("No run was PENDING.")
        .fill_opacity(40).line_width(1)
        .stacking(options.StackingConfig().mode(option_models.StackingMode.NORMAL))
        .with_target(series(
            f"sum by (workflow) ({total(pending)})\n  and topk(10, {longest} > 0)",
            "{{workflow}}"))
    )  # fmt: skip


def _heat() -> heatmap.Panel:
    bucket = f'ray_workflow_runs_duration_seconds_bucket{{{WORKFLOW}, status="SUCCESSFUL"}}'
    runs = f"sum by (le) ({added(f'increase({bucket}[$__rate_interval])')})"
    # A heatmap has no text for an empty result, and does not draw zeros.
    none = f'label_replace({_NONE}, "le", "+Inf", "", "")'
    return (
        panel(heatmap.Panel(), "Durations of successful runs",
            "Number of runs by duration, at the time of their end. If a second band appears or the "
            "band moves up, look for the workflow in the table below.", 8, 8)
        .unit("s")
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Blues").steps(32).exponent(0.5))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .cell_gap(1).hide_legend().interval("2m")
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .with_target(
            series(f"{runs}\n  or {none}", "{{le}}")
            .format(prometheus_models.PromQueryFormat.HEATMAP))
    )  # fmt: skip


def _workflows() -> table.Panel:
    key = "cluster, workflow"
    it = (
        rows_panel("Workflows",
            "Sorted by total run time in the time range. Sort by p95 for the slowest, by success "
            "for the least reliable. Median and p95 are of the last week. Click a workflow for its "
            "dashboard.", "There is no workflow yet.", 17, 9)
        .with_target(rows(_finished("SUCCESSFUL|FAILED|CANCELED", key), "A"))
        .with_target(rows(_success(key), "B"))
        .with_target(rows(budget_left(RECORDED_WORKFLOW, key), "C"))
        .with_target(rows(
            f"sum by ({key}) ({added(f'increase({_RUNS}[$__range])')})", "D"))
        .with_target(rows(each(key,
            f"workflow:ray_workflow_runs_duration_seconds:p50_7d{{{RECORDED_WORKFLOW}}} >= 0"), "E"))
        .with_target(rows(each(key,
            f"workflow:ray_workflow_runs_duration_seconds:p95_7d{{{RECORDED_WORKFLOW}}} >= 0"), "F"))
        .with_target(rows(each(key,
            f"1000 * ray_workflow_last_success_timestamp_seconds{{{WORKFLOW}}}"), "G"))
        .sort_by([greatest_first("Run time")])
    )  # fmt: skip
    it = columns(it, {
        "workflow": "Workflow", "cluster": "Cluster", "Value #D": "Run time",
        "Value #A": "Runs", "Value #B": "Success", "Value #C": "Budget left",
        "Value #E": "Median", "Value #F": "p95", "Value #G": "Last success",
    })  # fmt: skip
    it = column(it, "Workflow", {"links": [workflow_link()]})
    it = column(it, "Run time", {
        "unit": "s", "min": 0, "fieldMinMax": True, "color": fixed(BLUE), "custom.minWidth": 150,
        "custom.cellOptions": BAR,
    })  # fmt: skip
    it = column(it, "Runs", {"unit": "short", "decimals": 0, "custom.width": 65})
    for name in ("Success", "Budget left"):
        it = column(it, name, {
            "unit": "percentunit", "decimals": 0, "custom.width": 100})  # fmt: skip
    for name in ("Median", "p95"):
        it = column(it, name, {"unit": "s", "decimals": 1, "custom.width": 90})
    return column(it, "Last success", {"unit": "dateTimeFromNow", "custom.width": 120})


CHART_ALERTS = RECORDED_WORKFLOW


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    return (
        make_dashboard("fleet", "Fleet", "How are all workflows doing, and which need attention?",
            (*cluster(), workflow()), since="now-6h")
        .with_panel(_statuses())
        .with_panel(
            panel(stat.Panel(), "Success",
                "Share of SUCCESSFUL runs among the runs that finished in the time range, without "
                "CANCELED ones. If it falls, see the failed runs below.", 4, 4)
            .unit("percentunit").decimals(1).no_value("–")
            .with_target(now(_success()))
            .color_mode(option_models.BigValueColorMode.NONE)
        )
        .with_panel(
            panel(stat.Panel(), "Budget left",
                "Remaining share of the failures that the objectives allow in 30 days. Below 0: "
                "more runs failed than allowed; find the workflow in the table below.", 4, 4)
            .unit("percentunit").decimals(0).no_value("–")
            .with_target(now(budget_left(RECORDED_WORKFLOW)))
            .thresholds(steps((None, GREY), (-1e6, RED), (0, ORANGE), (0.25, GREEN)))
            .color_mode(option_models.BigValueColorMode.VALUE)
        )
        .with_panel(alert_counts(4))
        .with_panel(_running())
        .with_panel(_failed())
        .with_panel(_durations())
        .with_panel(_queue())
        .with_panel(_heat())
        .with_panel(_workflows())
        .with_panel(ended_by_status(WORKFLOW, 7, 9))
        .with_panel(resource_hours("cluster, workflow", "Workflow", WORKFLOW, 24, 8))
    )  # fmt: skip
