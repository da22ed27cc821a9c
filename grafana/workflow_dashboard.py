"""The workflow dashboard: budget, runs and stages of one workflow."""

from __future__ import annotations

from collections.abc import Mapping

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as option_models
from grafana_foundation_sdk.models import dashboard as models

from prometheus.promql import added, one, total
from ray_workflow_exporter.display import STATUS_COLOURS
from ray_workflow_exporter.model import RunStatus

from .common import (
    BLUE,
    CLUSTER,
    GREEN,
    GREY,
    ORANGE,
    RECORDED,
    RED,
    cluster,
    colour_series,
    fixed,
    make_dashboard,
    panel,
    rows,
    series,
    steps,
    word_mapping,
    workflow,
)
from .shared import (
    budget_left,
    ended_by_status,
    many,
    resource_hours,
    side_by_side,
    stacked_bars,
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
    text,
)

# The variable has one value, which Grafana does not escape for a regular expression.
ONE = f"{CLUSTER}, workflow=`${{workflow:raw}}`"
RECORDED_ONE = f"{RECORDED}, workflow=`${{workflow:raw}}`"
_BUDGET = ((None, GREY), (-1e6, RED), (0, ORANGE), (0.25, GREEN))
_BURN = ((None, GREY), (0, GREEN), (1, ORANGE), (6, RED))
_LIVE = (RunStatus.RUNNING, RunStatus.PENDING, RunStatus.RESUMABLE)


def _big(title: str, description: str, width: int, asked: Mapping[str, str]) -> stat.Panel:
    """Return a panel of values; several values are shown with their names."""
    return side_by_side(panel(stat.Panel(), title, description, width, 4), asked)


def _success() -> stat.Panel:
    failed = f"sum(workflow:ray_workflow_runs_failed:increase30d{{{RECORDED_ONE}}})"
    finished = f"sum(workflow:ray_workflow_runs_finished:increase30d{{{RECORDED_ONE}}})"
    return (
        _big("Success, 30 d",
            "Share of SUCCESSFUL runs in 30 days, or as far back as Prometheus has data, without "
            "CANCELED ones; and the workflow's objective from the exporter's settings.", 5,
            {"actual": f"1 - {failed} / ({finished} > 0)",
             "objective": f"max({one(f'ray_workflow_objective_ratio{{{ONE}}}')})"})
        .unit("percentunit").no_value("–").decimals(1)
        .color_mode(option_models.BigValueColorMode.NONE)
    )  # fmt: skip


def _burns() -> stat.Panel:
    burn = "workflow:ray_workflow_budget_burn:ratio_increase"
    return (
        _big("Budget burn",
            "Burn rate of the failure budget over the last hour, 6 hours and 3 days. 1 uses up "
            "the budget in exactly 30 days; above 1, fix the failures before it is used up.", 6,
            {window: f"max({burn}{window}{{{RECORDED_ONE}}})" for window in ("1h", "6h", "3d")})
        .unit("suffix:×").decimals(1).no_value("–")
        .thresholds(steps(*_BURN)).color_mode(option_models.BigValueColorMode.VALUE)
    )  # fmt: skip


def _duration() -> timeseries.Panel:
    bucket = f'ray_workflow_runs_duration_seconds_bucket{{{ONE}, status="SUCCESSFUL"}}'
    hour = f"sum by (le) ({added(f'increase({bucket}[1h])')})"
    week = "workflow:ray_workflow_runs_duration_seconds"
    it = (
        panel(timeseries.Panel(), "Run duration",
            "Median and 95th percentile of the successful runs of the previous hour; dashed: of "
            "the previous week. Above the dashed lines, runs are slower than usual: find the "
            "stage in the table beside.", 9, 8)
        .unit("s").min(0).span_nulls(True).no_value("No run has succeeded yet.")
    )  # fmt: skip
    for ref, percent, name, colour in (("A", "50", "median", BLUE), ("B", "95", "p95", ORANGE)):
        history = f"{name}, week"
        it = it.with_target(series(f"histogram_quantile(0.{percent}, {hour})", name, ref))
        usual = f"max({week}:p{percent}_7d{{{RECORDED_ONE}}})"
        it = it.with_target(series(usual, history, ref * 2))
        it = column(it, name, {"color": fixed(colour), "custom.lineWidth": 2})
        it = column(
            it,
            history,
            {"color": fixed(colour), "custom.lineStyle": {"fill": "dash", "dash": [6, 6]}},
        )
    return it  # fmt: skip


def _stages() -> table.Panel:
    seconds = f"ray_workflow_tasks_duration_seconds_sum{{{ONE}}}"
    count = f"ray_workflow_tasks_duration_seconds_count{{{ONE}}}"
    spent = f"sum by (stage) ({added(f'increase({seconds}[$__range])')})"
    tasks = f"sum by (stage) ({added(f'increase({count}[$__range])')})"
    week = "workflow_stage:ray_workflow_tasks_duration_seconds:p95_7d"
    output = "workflow_stage:ray_workflow_last_output_size:bytes"
    it = (
        rows_panel("Time by stage",
            "Stages by the total duration of their tasks in the time range. Optimise the first "
            "stage first. An average near the week's p95 means that the stage became slower.",
            "No task finished in the time range.", 15, 8)
        .with_target(rows(f"{spent} > 0", "A"))
        .with_target(rows(f"({spent} > 0)\n  / scalar(sum({spent}))", "B"))
        .with_target(rows(f"{tasks} > 0", "C"))
        .with_target(rows(f"{spent}\n  / ({tasks} > 0)", "D"))
        .with_target(rows(f"{each('stage', f'{week}{{{RECORDED_ONE}}} >= 0')}\n  and {tasks} > 0", "E"))
        .with_target(rows(f"{each('stage', f'{output}{{{RECORDED_ONE}}}')}\n  and {tasks} > 0", "F"))
        .sort_by([greatest_first("Share")])
    )  # fmt: skip
    it = columns(it, {
        "stage": "Stage", "Value #B": "Share", "Value #A": "Task time", "Value #C": "Tasks",
        "Value #D": "Average", "Value #E": "p95, week", "Value #F": "Last output",
    })  # fmt: skip
    it = column(it, "Share", {
        "unit": "percentunit", "decimals": 0, "min": 0, "max": 1, "color": fixed(BLUE),
        "custom.cellOptions": BAR, "custom.minWidth": 150})  # fmt: skip
    for name, unit, decimals, width in (
        ("Task time", "s", 1, 100), ("Tasks", "short", 0, 80), ("Average", "s", 1, 95),
        ("p95, week", "s", 1, 105), ("Last output", "bytes", 1, 110),
    ):  # fmt: skip
        it = column(it, name, {"unit": unit, "decimals": decimals, "custom.width": width})
    return it


def _seen(selector: str) -> str:
    """Return current series, and the last values of series that left the metrics.

    Finished runs stay in the metrics for hours: a subquery every ten minutes finds them and reads
    few samples.
    """
    return f"({selector} or last_over_time({selector}[$__range:10m]))"


def _recent() -> table.Panel:
    start = _seen(f"ray_workflow_run_start_timestamp_seconds{{{ONE}}}")
    newest = f"topk(100, {each(RUN, start)})"

    def of_newest(expr: str, ref: str, otherwise: str = "") -> prometheus.Dataquery:
        return rows(f"{expr}\n  and on (cluster, workflow_id) {newest}{otherwise}", ref)

    status = _seen(f"ray_workflow_run_status{{{ONE}}}")
    end = f"{_seen(f'ray_workflow_run_end_timestamp_seconds{{{ONE}}}')}"
    error = f"{_seen(f'ray_workflow_run_failure_info{{{ONE}}}')}"
    it = (
        rows_panel("Recent runs",
            "The hundred newest runs that were live or finished in the time range. Click a run "
            "for its dashboard at that time.",
            "No run in the time range.", 14, 8)
        .with_target(of_newest(f"{each(f'{RUN}, status', status)} == 1", "A"))
        .with_target(rows(f"round(1000 * {newest})", "B"))
        .with_target(of_newest(
            each(RUN, _seen(f"ray_workflow_run_duration_seconds{{{ONE}}}")), "C"))
        .with_target(of_newest(
            each(RUN, _seen(f"ray_workflow_run_output_size_bytes{{{ONE}}}")), "D"))
        .with_target(of_newest(
            f"round(60000 + 1000 * {each(RUN, end)})", "E", f"\n  or 0 * {newest}"))
        .with_target(of_newest(each(f"{RUN}, exception",  error), "F"))
        .sort_by([greatest_first("Started")])
    )  # fmt: skip
    it = columns(it, {
        "Value #B": "Started", "workflow_id": "Run", "cluster": "Cluster", "status": "Status",
        "Value #C": "Duration", "Value #D": "Output", "exception": "Error",
        "workflow": "", "Value #A": "", "Value #E": "", "Value #F": "",
    })  # fmt: skip
    it = column(it, "Run", {"links": [run_link(f"from={number('B')}&to={text('E')}")]})
    # For a run without an end, the dashboard opens at the current time.
    live = models.ValueMap(options={"0": models.ValueMappingResult(text="now", index=0)})
    it = column(it, "Value #E", {"mappings": [live], "unit": "none", "decimals": 0})
    it = column(it, "Status", {
        "mappings": [word_mapping(STATUS_COLOURS)], "custom.cellOptions": WORD,
        "custom.width": 120})  # fmt: skip
    it = column(it, "Started", {"unit": "dateTimeAsIso", "custom.width": 165})
    it = column(it, "Duration", {"unit": "s", "decimals": 1, "custom.width": 95})
    return column(it, "Output", {"unit": "bytes", "decimals": 1, "custom.width": 95})


def _output() -> timeseries.Panel:
    size = f"workflow_stage:ray_workflow_last_output_size:bytes{{{RECORDED_ONE}}}"
    largest = f"max by (stage) (max_over_time({size}[$__range] @ end()))"
    return many(
        panel(timeseries.Panel(), "Output by stage",
            "Output bytes of the last successful run, ten largest stages. A rising line fills the "
            "storage; a drop to 0 means that the stage got no input.", 5, 8)
        .unit("bytes").min(0).no_value("No output size is known yet.")
        .with_target(series(
            f"max by (stage) ({size})\n  and topk(10, {largest})", "{{stage}}"))
    )  # fmt: skip


def _retries() -> timeseries.Panel:
    retries = f"increase(ray_workflow_tasks_retried_total{{{ONE}}}[$__rate_interval])"
    failed = "increase(ray_workflow_tasks_finished_total"
    failed += f'{{{ONE}, state="FAILED"}}[$__rate_interval])'
    it = (
        panel(timeseries.Panel(), "Retries and failed tasks",
            "Retries, and tasks whose last attempt failed. Retries without failed tasks hide an "
            "error and cost time.", 5, 8)
        .unit("short").no_value("No task has finished yet.")
        .with_target(series(f"sum({added(retries)})", "retries", "A"))
        .with_target(series(f"sum({added(failed)})", "failed tasks", "B"))
    )  # fmt: skip
    it = column(it, "retries", {"color": fixed(ORANGE)})
    return stacked_bars(column(it, "failed tasks", {"color": fixed(RED)}))


def _burn_trend() -> timeseries.Panel:
    it = (
        panel(timeseries.Panel(), "Budget burn over time",
            "Burn rate of the failure budget. If it stays above 1, the budget does not last for "
            "30 days.", 8, 8)
        .unit("suffix:×").min(0).no_value("No run has ended yet.")
        .thresholds(steps((None, "transparent"), (1, ORANGE)))
        .thresholds_style(options.GraphThresholdsStyleConfig().mode(
            option_models.GraphThresholdsStyleMode.DASHED))
    )  # fmt: skip
    for ref, window, colour in (("A", "1h", GREY), ("B", "6h", BLUE), ("C", "3d", RED)):
        burn = f"workflow:ray_workflow_budget_burn:ratio_increase{window}{{{RECORDED_ONE}}}"
        it = it.with_target(series(f"max({burn})", window, ref))
        it = column(it, window, {"color": fixed(colour)})
    return it


CHART_ALERTS = RECORDED_ONE


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    live = (
        _big("Live runs",
            "RUNNING runs, runs that wait in the queue (PENDING), and interrupted runs that must be "
            "resumed by hand (RESUMABLE).", 6,
            {status.value: f'sum({total(f"""ray_workflow_runs{{{ONE}, status="{status.value}"}}""")})'
             for status in _LIVE})
        .unit("short").no_value("–")
    )  # fmt: skip
    last = f"ray_workflow_last_success_timestamp_seconds{{{ONE}}}"
    return (
        make_dashboard("workflow", "Workflow", "Does this workflow meet its objective, and where does its time go?",
            (*cluster(), workflow(every=False)), since="now-24h")
        .with_panel(_success())
        .with_panel(
            _big("Budget left",
                "Remaining share of the failures that the objective allows in 30 days. Below 0: more "
                "runs failed than allowed.", 3, {"": budget_left(RECORDED_ONE)})
            .unit("percentunit").decimals(0).no_value("–")
            .thresholds(steps(*_BUDGET)).color_mode(option_models.BigValueColorMode.VALUE)
        )
        .with_panel(_burns())
        .with_panel(
            _big("Last success",
                "Time of the last SUCCESSFUL run. Compare it with the interval of the workflow.", 4,
                {"": f"1000 * max({one(last)})"})
            .unit("dateTimeFromNow").no_value("none")
            .color_mode(option_models.BigValueColorMode.NONE)
        )
        .with_panel(colour_series(live, STATUS_COLOURS))
        .with_panel(_duration())
        .with_panel(_stages())
        .with_panel(_recent())
        .with_panel(_output())
        .with_panel(_retries())
        .with_panel(_burn_trend())
        .with_panel(ended_by_status(ONE, 8, 8))
        .with_panel(resource_hours("stage", "Stage", ONE, 8, 8))
    )  # fmt: skip
