"""The DAG of a run as node graphs: by stage for any fan-out, by task for up to 200 tasks.

The panel identifies a field by its original name, which renaming does not change. Labels therefore
have the names that the panel expects, and values get them as calculated fields. An edge without
both ends breaks the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import nodegraph
from grafana_foundation_sdk.models import dashboard as models

from ray_workflow_exporter.display import STATE_COLOURS
from ray_workflow_exporter.model import EdgeKind, TaskState

from .common import GREY, PURPLE, UID, panel, rows
from .run_queries import (
    ACTIVE,
    ENDED,
    IN_RAY,
    RUNNING,
    STAGE,
    critical_tasks,
    label,
    looks_back,
    named,
    newest,
    of_stages,
    of_tasks,
    selector,
    short,
    stage_state,
    stage_tasks,
    tasks,
    words,
)

MOST_TASKS = 200  # the panel hides more
_LARGE = 50  # radius of a node on the critical path; the others have 40
_THICK = 4
_LEAST = 0.08  # least share of the ring for failed tasks
# The same dashboard with another stage.
OF_STAGE = (
    f"/d/{UID}run?${{__url_time_range}}&${{datasource:queryparam}}&${{cluster:queryparam}}"
    "&${SessionName:queryparam}&${workflow:queryparam}&${run:queryparam}&${exporter:queryparam}"
    "&${ray:queryparam}&var-stage="
)


def stages(width: int, height: int) -> nodegraph.Panel:
    """Return the DAG by stage."""
    total, done = stage_tasks(), stage_tasks(TaskState.SUCCESSFUL)
    counted = (
        f'count_values by (stage) ("done", {done})\n'
        f'* on (stage) group_left (total) count_values by (stage) ("total", {total})'
    )
    start = of_stages("ray_workflow_stage_start_timestamp_seconds")
    took = f"{of_stages('ray_workflow_stage_end_timestamp_seconds')} - {start}"
    # At the stage's rate so far; unknown until its first task has ended.
    rest = (
        f"(time() - {start}) * {stage_tasks(*ACTIVE)} / ({stage_tasks(*ENDED)} > 0)\n"
        f"and on () {RUNNING}\nunless on (stage) {of_stages('ray_workflow_stage_end_timestamp_seconds')}"
    )
    seconds = (
        f"{words(took, 'secondarystat', 'stage')}\n"
        f"or on (stage) {words(rest, 'secondarystat', 'stage', suffix=' remaining')}"
    )
    critical = f"({of_stages('ray_workflow_stage_critical')} == 1)"
    queries = {
        "nodes": f"{_described(stage_state(), 'stage')}\n"
        f"or on () {_hint(label('vector(0)', 'title', 'no stage'), 'at this time')}",
        "done": named(f'label_join({counted}, "mainstat", "/", "done", "total")', "id", "stage"),
        "seconds": named(seconds, "id", "stage"),
        "critical": named(f"{_LARGE} * {critical}", "id", "stage"),
    }
    # One failed task of thousands would be invisible.
    failed = stage_tasks(TaskState.FAILED)
    red = f"({failed} / {total} > {_LEAST} or clamp_max({failed}, 1) * {_LEAST})"
    shares = {
        state.value: named(
            red
            if state is TaskState.FAILED
            else f"{stage_tasks(state)} / clamp_min({total} - {failed}, 1) * (1 - {red})",
            "id",
            "stage",
        )
        for state in TaskState
    }
    edge = of_stages("ray_workflow_stage_edge", "source", "target", "kind")
    it = panel(
        nodegraph.Panel(),
        "DAG by stage, at the end of the time range",
        "One circle per stage: all tasks with the same name. The ring shows the share of its tasks "
        "in each state; failed tasks take at least a twelfth. Inside: done/total tasks, and the "
        "elapsed or remaining time. Large circles and thick lines: the critical path; speed up "
        "these stages first. Dashed: the source returned a workflow that contains the target. "
        "Click a stage for its tasks.",
        width,
        height,
    )
    to_stage = {
        "title": "Stage/Show tasks",
        "url": OF_STAGE + "${__data.fields.id:percentencode}",
        "targetBlank": False,
    }
    edges = _edges(edge, total, critical, "stage")
    legend = {"mainstat": "done/total", "secondarystat": "elapsed / remaining"}
    return _graph(it, {**queries, **shares}, edges, legend, [to_stage]).nodes(
        nodegraph.NodeOptions().arcs(
            [
                nodegraph.ArcOption().field(f"arc__{state.value.lower()}").color(colour.hex)
                for state, colour in STATE_COLOURS.items()
            ]
        )
    )


def by_task(width: int, height: int) -> nodegraph.Panel:
    """Return the DAG by task."""
    # Counting by stage costs less.
    count = f"sum({of_stages('ray_workflow_stage_tasks', 'stage', 'state', where=STAGE)})"
    few = f"and on () ({count} <= {MOST_TASKS})"
    chosen = f"and on (task_id) {tasks()}\n{few}"
    many = label(f'count_values("title", {count} > {MOST_TASKS})', "title", "$1 tasks", "title")
    coloured = _described(tasks(), "task_id")
    for state, colour in STATE_COLOURS.items():
        coloured = label(coloured, "color", colour.hex, "state", state.value)
    start = of_tasks("ray_workflow_task_start_timestamp_seconds")
    took = (
        f"{of_tasks('ray_workflow_task_duration_seconds')}\n"
        f"or on (task_id) (time() - {start} and on (task_id) "
        f"""{selector("ray_workflow_task_state", 'state="RUNNING"')})"""
    )
    attempts = of_tasks("ray_workflow_task_attempts")
    tries = label(
        f'count_values by (task_id) ("tries", {attempts} > 0)',
        "secondarystat", "try $1", "tries",
    )  # fmt: skip
    info = newest("ray_workflow_task_info", "ray_task_id", where=f'{STAGE}, ray_task_id!=""')
    in_ray = label(info, "detail__ray", *IN_RAY)
    critical = f"({critical_tasks()})"
    queries = {
        "nodes": f"({coloured}\n{few})\n"
        f"or on () {_hint(many, 'select one stage')}\n"
        f"or on () {_hint(label('vector(0)', 'title', 'no task'), 'at this time')}",
        "seconds": f"{named(words(took, 'mainstat', 'task_id'), 'id', 'task_id')}\n{chosen}",
        "tries": f"{named(tries, 'id', 'task_id')}\n{chosen}",
        "critical": f"{named(f'0 * {critical} + {_LARGE}', 'id', 'task_id')}\n{few}",
        "ray": f"{named(in_ray, 'id', 'task_id')}\n{few}",
    }
    edge = of_tasks("ray_workflow_task_edge", "source", "target", "kind")
    it = panel(
        nodegraph.Panel(),
        "DAG by task, at the end of the time range",
        f"The tasks of the selected stage, or of all stages, if they are at most {MOST_TASKS}: "
        "with more, select a stage. The ring has the colour of the state. Inside: the elapsed "
        "time and the attempts. Large circles and thick lines: the critical path. Click a task "
        "for its page and logs in Ray's dashboard, available while the cluster is running.",
        width,
        height,
    )
    to_ray = {
        "title": "Ray/Task and logs",
        "url": "${ray}/#/${__data.fields.detail__ray}",
        "targetBlank": True,
    }
    edges = f"{_edges(edge, tasks(), critical, 'task_id')}\n{few}"
    legend = {"mainstat": "duration", "secondarystat": "attempts"}
    return looks_back(_graph(it, queries, edges, legend, [to_ray]))


def _hint(titled: str, subtitle: str) -> str:
    """Return a single node that says why there are no others."""
    return label(label(label(titled, "subtitle", subtitle), "id", "none"), "color", GREY)


def _described(expr: str, key: str) -> str:
    """Set the texts of nodes that have a state."""
    it = named(short(named(expr, "id", key), "title", key), "subtitle", "state")
    return named(it, f"detail__{key}", key)


def _edges(edge: str, nodes: str, critical: str, key: str) -> str:
    def ends(vector: str) -> str:
        return "\n".join(
            f"and on ({end}) {named(vector, end, key)}" for end in ("source", "target")
        )

    it = f"({_THICK} * ({edge}\n{ends(critical)})\nor {edge})\n{ends(nodes)}"
    it = f'label_join({it}, "id", " ", "source", "kind", "target")'
    kind = EdgeKind.CONTINUATION.value
    it = label(named(it, "mainstat", "kind"), "strokedasharray", "8 5", "kind", kind)
    return label(it, "color", PURPLE, "kind", kind)


# The values of queries that the panel shows, with the field names that it expects.
_VALUES: Mapping[str, str] = {
    **{state.value: f"arc__{state.value.lower()}" for state in TaskState},
    "critical": "noderadius",
    "edges": "thickness",
}

_WORDS: Mapping[str, str] = {
    **{f"arc__{state.value.lower()}": state.value for state in TaskState},
    "color": "state",
    "detail__stage": "stage",
    "detail__task_id": "task",
    "detail__ray": "in Ray",
}


def _graph(
    it: nodegraph.Panel,
    nodes: Mapping[str, str],
    edges: str,
    legend: Mapping[str, str],
    links: Sequence[Mapping[str, Any]],
) -> nodegraph.Panel:
    for ref, expr in {**nodes, "edges": edges}.items():
        it = it.with_target(rows(expr, ref))
    # Queries are evaluated one by one. A scrape between two of them could add edges whose nodes are
    # missing: query the data of two seconds ago, which is complete for all.
    it = it.time_shift("2s").hide_time_override(True)
    # An empty result has no fields, and the transformations drop it.
    it = it.with_transformation(
        _leave_out("/^(Time|stage|task_id|state|kind|done|total|tries|ray_task_id)$/")
    ).with_transformation(
        models.DataTransformerConfig(
            id_val="joinByField",
            filter_val=models.MatcherConfig(id_val="byRefId", options="/^(?!edges$)/"),
            options={"byField": "id", "mode": "outer"},
        )
    )
    for ref, name in _VALUES.items():
        if ref in nodes or ref == "edges":
            it = it.with_transformation(
                models.DataTransformerConfig(
                    id_val="calculateField",
                    options={
                        "mode": "unary",
                        "unary": {"operator": "abs", "fieldName": f"Value #{ref}"},
                        "alias": name,
                        "replaceFields": False,
                        "timeSeries": False,
                    },
                )
            )
    it = it.with_transformation(_leave_out("/^Value.*/")).with_transformation(
        # Displayed names only: the panel still finds fields by their original names.
        models.DataTransformerConfig(
            id_val="organize", options={"renameByName": {**_WORDS, **legend}}
        )
    )
    return it.override_by_name("title", [models.DynamicConfigValue(id_val="links", value=links)])


def _leave_out(pattern: str) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(
        id_val="filterFieldsByName", options={"exclude": {"pattern": pattern}}
    )
