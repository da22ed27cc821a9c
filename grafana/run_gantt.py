"""Stages and tasks of a run as bars over time, from the exposed start and end times.

Each row has a start, an end and a state: the state timeline takes a second time field as the end.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import statetimeline
from grafana_foundation_sdk.models import common as option_models
from grafana_foundation_sdk.models import dashboard as models

from ray_workflow_exporter.display import STATE_COLOURS
from ray_workflow_exporter.model import TaskState

from .common import panel, rows, word_mapping
from .run_queries import (
    in_state,
    label,
    looks_back,
    named,
    of_run,
    of_stages,
    of_tasks,
    short,
    stage_state,
    tasks,
)


def stages(width: int, height: int) -> statetimeline.Panel:
    """Return a bar for each stage, from the start of its first task to the end of its last task."""
    start = of_stages("ray_workflow_stage_start_timestamp_seconds")
    end = (
        f"{of_stages('ray_workflow_stage_end_timestamp_seconds')}\n"
        f"or on (stage) (0 * {start} + time())"
    )
    begun = f"{start} + on (stage) group_left (state) 0 * ({stage_state()})"
    return _gantt(
        "Stages over time",
        "From the start of each stage's first task to the end of its last task, in the colour of "
        "its most important state. Gaps between stages are waits. If the bars are tiny, click "
        "the elapsed time above to set the time range to the run.",
        short(named(begun, "id", "stage"), "row", "stage"),
        named(end, "id", "stage"),
        "no stage has started",
        width,
        height,
    )


def by_task(width: int, height: int) -> statetimeline.Panel:
    """Return two bars for each task: its wait for resources and its last attempt."""
    start = of_tasks("ray_workflow_task_start_timestamp_seconds")
    submit = of_tasks("ray_workflow_task_submit_timestamp_seconds")
    known = f"({tasks()})"

    # A task without an end that is not RUNNING ended with its run.
    end = (
        f"{of_tasks('ray_workflow_task_end_timestamp_seconds')}\n"
        f"or on (task_id) (0 * {start} + time() and on (task_id) {in_state(known, TaskState.RUNNING)})\n"
        f"or on (task_id) (0 * {start} + on () group_left () max({of_run('ray_workflow_run_end_timestamp_seconds')}))"
    )
    waited = (
        f"({start} > {submit})\n"
        f"or on (task_id) (0 * {submit} + time() and on (task_id) {in_state(known, TaskState.PENDING)})"
    )
    work = named(f"{start} + on (task_id) group_left (state) 0 * {known}", "id", "task_id")
    wait = label(f"{submit} and on (task_id) ({waited}) and on (task_id) {known}", "state",
                 TaskState.PENDING.value)  # fmt: skip
    it = _gantt(
        "Tasks over time",
        "Each task of the selected stage: its wait for resources, then its last attempt. If waits "
        "are long, the cluster is too small or busy. If one bar is much longer than the others, "
        "look at the logs of that task.",
        short(f"{work}\nor {_waits(wait)}", "row", "task_id"),
        f"({named(end, 'id', 'task_id')}\nor {_waits(waited)})\nand on (task_id) {known}",
        "no task data",
        width,
        height,
    )
    return looks_back(it)


def _waits(expr: str) -> str:
    return label(expr, "id", "$1 waits", "task_id")


def _gantt(
    title: str, description: str, start: str, end: str, nothing: str, width: int, height: int
) -> statetimeline.Panel:
    # The panel shows an empty result as an error.
    none = label("vector(time())", "id", "none")
    row = label(label(none, "row", nothing), "state", TaskState.NOT_RUN.value)
    transformations = (
        ("filterFieldsByName", {"exclude": {"pattern": "/^(Time|stage|task_id)$/"}}),
        ("joinByField", {"byField": "id", "mode": "inner"}),
        (
            "convertFieldType",
            {
                "conversions": [
                    {"targetField": f"Value #{ref}", "destinationType": "time"}
                    for ref in ("start", "end")
                ]
            },
        ),
        ("sortBy", {"sort": [{"field": "Value #start"}]}),
        ("filterFieldsByName", {"exclude": {"pattern": "/^id$/"}}),
        (
            "partitionByValues",
            {"fields": ["row"], "keepFields": False, "naming": {"asLabels": True}},
        ),
    )
    it = (
        panel(statetimeline.Panel(), title, description, width, height)
        .with_target(rows(f"1000 * ({start}\nor on () {row})", "start"))
        .with_target(rows(f"1000 * ({end}\nor on () {none})", "end"))
        .mappings([word_mapping(STATE_COLOURS)])
        .display_name("${__field.labels.row}")
        .no_value("no data")
        .show_value(option_models.VisibilityMode.NEVER)
        .merge_values(False)
        .row_height(0.8)
        .fill_opacity(90)
        .line_width(0)
        .per_page(25)
        .legend(
            options.VizLegendOptions()
            .display_mode(option_models.LegendDisplayMode.LIST)
            .placement(option_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    for id_val, chosen in transformations:
        it = it.with_transformation(models.DataTransformerConfig(id_val=id_val, options=chosen))
    return it
