"""Queries and panels of several dashboards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard, stat, table, timeseries
from grafana_foundation_sdk.models import common as option_models
from grafana_foundation_sdk.models import dashboard as models

from prometheus.promql import added, one
from ray_workflow_exporter.display import STATUS_COLOURS

from .common import (
    BLUE,
    GREY,
    ORANGE,
    RECORDED,
    RED,
    colour_series,
    fixed,
    link,
    now,
    panel,
    rows,
    series,
)
from .tables import BAR, column, columns, greatest_first, rows_panel

ALERT = f'alertname=~"RayWorkflow.+", {RECORDED}'
SEVERITIES = {"page": RED, "ticket": ORANGE, "info": BLUE}
# 0 if the rules are loaded. Without rules there is no value, which is not the same as no alert.
NONE = "0 * max(ray_workflow:threshold)"

_TOOLTIP = (
    options.VizTooltipOptions()
    .mode(option_models.TooltipDisplayMode.MULTI)
    .sort(option_models.SortOrder.DESCENDING)
)
_LEGEND = options.VizLegendOptions().show_legend(True)


def budget_left(selector: str, by: str = "") -> str:
    """Return the remaining share of the failures allowed in 30 days; below 0: exceeded."""
    allowed = (
        f"workflow:ray_workflow_runs_finished:increase30d{{{selector}}}\n"
        f"    * (1 - {one(f'ray_workflow_objective_ratio{{{selector}}}')})"
    )
    failed = f"sum by ({by}) (workflow:ray_workflow_runs_failed:increase30d{{{selector}}})"
    return f"1 - {failed}\n  / (sum by ({by}) (\n    {allowed}\n  ) > 0)"


def resource_hours(by: str, name: str, selector: str, width: int, height: int) -> table.Panel:
    """Return a table of what tasks asked Ray for; the last label of `by` is shown as `name`."""
    label = by.split(", ")[-1]
    seconds = f'ray_workflow_tasks_resource_seconds_total{{{selector}, resource!="memory"}}'
    used = f"sum by ({by}, resource) ({added(f'increase({seconds}[$__range])')}) > 0"
    it = (
        rows_panel("Resource hours",
            "Ten highest: hours of tasks that finished in the time range, times the CPUs, GPUs and "
            "custom resources that they asked Ray for, used or not. Without retried attempts.",
            "No task that asks for resources finished in the time range.", width, height)
        .with_target(rows(f"topk(10, {used}) / 3600", "A"))
        .sort_by([greatest_first("Hours")])
    )  # fmt: skip
    it = columns(it, {label: name, "cluster": "Cluster", "resource": "Resource", "Value": "Hours"})
    return column(it, "Hours", {
        "unit": "short", "decimals": 2, "min": 0, "color": fixed(BLUE), "custom.cellOptions": BAR,
        "custom.minWidth": 120})  # fmt: skip


def many(it: timeseries.Panel) -> timeseries.Panel:
    """Give many lines different colours, and connect them across gaps."""
    return (
        it.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
        .span_nulls(True)
        .show_points(option_models.VisibilityMode.AUTO)
        .tooltip(_TOOLTIP).legend(_LEGEND)
    )  # fmt: skip


def stacked_bars(it: timeseries.Panel) -> timeseries.Panel:
    """Draw counts of events as stacked bars."""
    return (
        it.interval("2m").draw_style(option_models.GraphDrawStyle.BARS)
        .show_points(option_models.VisibilityMode.NEVER)
        .fill_opacity(90).line_width(0).min(0).axis_soft_max(1).decimals(0)
        .stacking(options.StackingConfig().mode(option_models.StackingMode.NORMAL))
        .tooltip(_TOOLTIP).legend(_LEGEND)
    )  # fmt: skip


def from_one(colour: str) -> dict[str, Any]:
    """Return the settings of a number that is grey at 0 and coloured from 1."""
    levels = [{"value": None, "color": GREY}, {"value": 1, "color": colour}]
    return {
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": levels},
    }


def side_by_side(it: stat.Panel, asked: Mapping[str, str]) -> stat.Panel:
    """Query several numbers and show each with its name."""
    for ref, (name, expr) in zip("ABCDEF", asked.items()):
        it = it.with_target(now(expr, name, ref))
    if len(asked) > 1:  # keep the names if only one has a value
        it = it.text_mode(option_models.BigValueTextMode.VALUE_AND_NAME)
    return (
        it.graph_mode(option_models.BigValueGraphMode.NONE)
        .orientation(option_models.VizOrientation.VERTICAL)
        .text(options.VizTextDisplayOptions().title_size(12).value_size(22))
    )


def alert_counts(width: int) -> stat.Panel:
    """Return the panel that counts firing alerts and links to the dashboard On-call."""
    it = (
        panel(stat.Panel(), "Firing alerts",
            "By severity: `page` needs attention at once, `ticket` within a working day, `info` "
            "needs no action. Click a number to open the dashboard On-call. Empty: Prometheus has "
            "not loaded the rules.", width, 4)
        .unit("short").no_value("–")
    )  # fmt: skip
    firing = f'ALERTS{{{ALERT}, alertstate="firing", severity='
    it = side_by_side(
        it, {severity: f'count({firing}"{severity}"}}) or {NONE}' for severity in SEVERITIES}
    )
    for severity, colour in SEVERITIES.items():
        it = column(it, severity, {
            **from_one(colour), "links": [link("oncall", "On-call dashboard")]})  # fmt: skip
    return it


def ended_by_status(selector: str, width: int, height: int) -> timeseries.Panel:
    """Return the panel that shows finished runs by status."""
    counter = f"ray_workflow_runs_finished_total{{{selector}}}"
    it = (
        panel(timeseries.Panel(), "Finished runs",
            "Runs that finished in each interval, by status. Many FAILED runs at the same time "
            "usually have a common cause.", width, height)
        .unit("short").no_value("No run has finished yet.")
        .with_target(
            series(f"sum by (status) ({added(f'increase({counter}[$__rate_interval])')}) > 0",
                "{{status}}"))
    )  # fmt: skip
    return colour_series(stacked_bars(it), STATUS_COLOURS)
