"""The families about one stage of a run, and the edges between stages."""

from __future__ import annotations

from ...model import TaskState
from ..family import EXPERIMENTAL, GAUGE, STAGE, STAGE_EDGE, Family
from ..samplers import column, each, edge_id, one, row

FAMILIES: tuple[Family, ...] = (
    Family(
        "ray_workflow_stage_tasks", GAUGE, STAGE,
        "Tasks of the stage, by state.",
        each(TaskState, lambda it: it.stage.tasks), ("state",),
    ),
    Family(
        "ray_workflow_stage_output_size_bytes", GAUGE, STAGE,
        "Bytes of all task outputs of the stage whose size is known.",
        one(lambda it: it.stage.output_bytes),
    ),
    Family(
        "ray_workflow_stage_start_timestamp_seconds", GAUGE, STAGE,
        "Unix time at which the first task of the stage started.",
        one(lambda it: it.stage.start_time),
    ),
    Family(
        "ray_workflow_stage_end_timestamp_seconds", GAUGE, STAGE,
        "Unix time at which the last task of the stage ended; absent while tasks may still run.",
        one(lambda it: it.stage.end_time),
    ),
    Family(
        "ray_workflow_stage_critical", GAUGE, STAGE,
        "1 if a task of the stage is on the critical path of the run, else 0.",
        one(lambda it: int(it.critical)), stability=EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_stage_column", GAUGE, STAGE,
        "Column of the stage in a drawing of the DAG from left to right.",
        one(column), stability=EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_stage_row", GAUGE, STAGE,
        "Row of the stage in a drawing of the DAG; there are rows between whole numbers.",
        one(row), stability=EXPERIMENTAL,
    ),
    Family(
        "ray_workflow_stage_edge", GAUGE, STAGE_EDGE,
        "1 for each dependency of the stage target on the stage source; edge is a short id.",
        edge_id, ("edge",),
    ),
)  # fmt: skip
