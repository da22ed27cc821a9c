"""The run dashboard: DAG, progress, durations and failure of one run."""

from __future__ import annotations

from grafana_foundation_sdk.builders import bargauge, dashboard, stat, text, timeseries
from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.models import common as option_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import text as text_models

from ray_workflow_exporter.display import STATE_COLOURS, STATUS_COLOURS
from ray_workflow_exporter.model import RunStatus

from . import run_gantt, run_graph, run_tables
from .common import (
    BLUE,
    GREEN,
    GREY,
    address,
    cluster,
    colour_series,
    exporter,
    make_dashboard,
    now,
    panel,
    rows,
    run,
    run_cluster,
    series,
    stage,
    steps,
    workflow,
)
from .run_queries import (
    RUNNING,
    label,
    of_run,
    selector,
)

_READING = """\
**This dashboard shows the run at the end of the time range. Move the time picker to see another \
time.** Rings: tasks by state. Large circles and thick lines: the critical path. Dashed lines: the \
source task returned a workflow that contains the target. More: [this run's page](\
${exporter}/run?workflow_id=${run:percentencode}), [Ray's dashboard](${ray}).
"""


def _stat(
    expr: str, title: str, description: str, width: int, unit: str, *, none: str = "–"
) -> stat.Panel:
    return (
        panel(stat.Panel(), title, description, width, 3)
        .unit(unit)
        .no_value(none)
        .thresholds(steps((None, BLUE)))
        .color_mode(option_models.BigValueColorMode.NONE)
        .graph_mode(option_models.BigValueGraphMode.NONE)
        .with_target(now(expr))
    )


def _status() -> stat.Panel:
    expr = "\nor ".join(
        f"""{number} * ({of_run("ray_workflow_run_status", where=f'status="{status.value}"')} == 1)"""
        for number, status in enumerate(RunStatus)
    )
    words = {
        str(number): models.ValueMappingResult(
            text=status.value, color=STATUS_COLOURS[status].hex, index=number
        )
        for number, status in enumerate(RunStatus)
    }
    it = _stat(
        expr,
        "Status ${run_cluster}",
        "Ray's status of the run, and its cluster if there are several. RESUMABLE: the run was interrupted; resume or delete it.",
        4,
        "none",
        none="no run",
    )
    return (
        it.mappings([models.ValueMap(options=words)])
        .thresholds(steps((None, GREY)))
        .color_mode(option_models.BigValueColorMode.BACKGROUND_SOLID)
    )


def _elapsed() -> stat.Panel:
    start, end = (
        of_run(f"ray_workflow_run_{point}_timestamp_seconds") for point in ("start", "end")
    )
    until = (
        f"({end}\nor (0 * {start} + time() and on () {RUNNING})\n"
        f"or {of_run('ray_workflow_run_last_transition_timestamp_seconds')})"
    )

    def milliseconds(name: str, time: str) -> str:
        return f'count_values by (workflow_id) ("{name}", floor(1000 * ({time})))'

    # Start and end of the run, as labels for the link.
    to = milliseconds("to", f"{until} + 30")
    to = f"({label(f'{to} and on () {RUNNING}', 'to', 'now')}\nor on (workflow_id) {to})"
    expr = (
        f"({until} - {start})\n"
        f"* on (workflow_id) group_left (from) {milliseconds('from', f'{start} - 15')}\n"
        f"* on (workflow_id) group_left (to) {to}"
    )
    whole = {
        "title": "Set the time range to this run",
        "url": "/d/ray-workflow-run?from=${__data.fields.from}&to=${__data.fields.to}"
        "&var-run=${run:percentencode}&${datasource:queryparam}&${cluster:queryparam}"
        "&${SessionName:queryparam}&${workflow:queryparam}&${exporter:queryparam}"
        "&${ray:queryparam}",
        "targetBlank": False,
    }
    it = _stat(
        expr,
        "Elapsed",
        "From the start of the run to its end, or to the end of the time range while it is "
        "RUNNING. Click to set the dashboard's time range to this run.",
        4,
        "s",
    )
    return (
        it.targets([rows(expr)])
        .decimals(0)
        .reduce_options(options.ReduceDataOptions().values(True).fields("/^Value$/"))
        .override_by_regexp(
            "/^(from|to)$/", [models.DynamicConfigValue(id_val="unit", value="string")]
        )
        .override_by_name("Value", [models.DynamicConfigValue(id_val="links", value=[whole])])
    )


def _progress() -> bargauge.Panel:
    return (
        panel(
            bargauge.Panel(),
            "Progress",
            "Share of the known tasks that are SUCCESSFUL. It decreases when a task returns a "
            "workflow with more tasks.",
            5,
            3,
        )
        .unit("percentunit")
        .min(0)
        .max(1)
        .decimals(0)
        .no_value("–")
        .thresholds(steps((None, GREEN)))
        .display_mode(option_models.BarGaugeDisplayMode.BASIC)
        .orientation(option_models.VizOrientation.HORIZONTAL)
        .text(options.VizTextDisplayOptions().value_size(20))
        .with_target(now(of_run("ray_workflow_run_progress_ratio")))
    )


def _end() -> stat.Panel:
    expected = of_run("ray_workflow_run_expected_end_timestamp_seconds")
    expr = f"1000 * ({of_run('ray_workflow_run_end_timestamp_seconds')}\nor ({expected} and on () {RUNNING}))"
    return _stat(
        expr,
        "End",
        "End of the run. While it is RUNNING: the expected end, from the task durations of earlier "
        "runs. If that is too late, speed up the tasks on the critical path.",
        4,
        "dateTimeAsIsoNoDateIfToday",
        none="not known yet",
    )


def _over_time() -> timeseries.Panel:
    it = (
        panel(
            timeseries.Panel(),
            "Tasks by state over time",
            "If PENDING does not fall, tasks wait for resources. If WAITING does not fall while few "
            "tasks are RUNNING, one task delays all others.",
            24,
            7,
        )
        .unit("short")
        .min(0)
        .fill_opacity(70)
        .line_width(0)
        .no_value("The run has no data in this time range.")
        .show_points(option_models.VisibilityMode.NEVER)
        .stacking(options.StackingConfig().mode(option_models.StackingMode.NORMAL))
        .with_target(series(f"max by (state) ({selector('ray_workflow_run_tasks')})", "{{state}}"))
    )
    return colour_series(it, STATE_COLOURS)


def _reading() -> text.Panel:
    return (
        panel(
            text.Panel(),
            "How to read this dashboard",
            "How the time picker and the symbols of the DAG work.",
            24,
            3,
        )
        .mode(text_models.TextMode.MARKDOWN)
        .content(_READING)
    )


CHART_ALERTS = "cluster=`${run_cluster:raw}`, workflow_id=`${run:raw}`"


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    critical = _stat(
        of_run("ray_workflow_run_critical_path_seconds"),
        "Critical path",
        "Total duration of the tasks on the critical path. If it is near the elapsed time, only "
        "faster tasks help. If it is far below, tasks wait and more resources help.",
        4,
        "s",
    )
    output = _stat(
        of_run("ray_workflow_run_output_size_bytes"),
        "Output",
        "Total size of all task outputs with a known size. If it is much more than usual, find "
        "the task in the table below.",
        3,
        "bytes",
    )
    ray = address("ray", "Ray", "Ray's dashboard", "http://localhost:8265")
    it = make_dashboard(
        "run",
        "Run",
        "How far is this run, what delays it, and why did it fail?",
        [
            *cluster(),
            workflow(),
            run(),
            run_cluster(),
            stage(),
            run_graph.times(),
            exporter(),
            ray,
        ],
    )
    for x, y, each in (
        (0, 0, _status()),
        (4, 0, _progress()),
        (9, 0, _elapsed()),
        (13, 0, _end()),
        (17, 0, critical),
        (21, 0, output),
        (0, 3, run_graph.stages(15, 12)),
        (15, 3, run_tables.failure()),
        (15, 9, run_gantt.stages(9, 6)),
        (0, 15, _reading()),
        (0, 18, run_graph.by_task(24, 20)),
        (0, 38, run_gantt.by_task(24, 12)),
        (0, 50, run_tables.tasks()),
        (0, 61, _over_time()),
    ):
        # The builder cannot place two panels beside a higher one.
        place = each.build().grid_pos
        assert place
        place.x, place.y = x, y
        it = it.with_panel(each)
    return it
