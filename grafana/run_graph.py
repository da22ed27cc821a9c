"""The DAG of a run as node graphs: by stage for any fan-out, by task for up to 200 tasks.

The panel identifies a field by its original name, which renaming does not change. Labels therefore
have the names that the panel expects, and values get them as calculated fields. An edge without
both ends breaks the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import dashboard, nodegraph
from grafana_foundation_sdk.models import dashboard as models

from ray_workflow_exporter.display import STATE_COLOURS
from ray_workflow_exporter.model import EdgeKind, TaskState

from .common import GREY, PURPLE, SOURCE, UID, panel, rows
from .run_queries import (
    ACTIVE,
    DRAWN,
    DRAWN_EDGES,
    DRAWN_TASKS,
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
_SMALLER = 0.8  # size of a node beside the critical path
_THICK = 3
_NONE = "none"  # id of the node that says why there are no others
_NARROW = 75  # pixels for a node; with less, it has no numbers
_FAINT = "#99999955"
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
    # What is left at 1440 × 900 with Grafana's menu open.
    drawn = _Grid(
        "stage",
        of_stages("ray_workflow_stage_column"),
        of_stages("ray_workflow_stage_row"),
        width=620,
        height=340,
        shift=48,
    )
    queries = {
        "nodes": f"{_described(f'({stage_state()})', 'stage', drawn.dense())}\n"
        f"or on () {_hint(label('vector(0)', 'title', 'no stage'), 'at this time')}",
        "done": named(f'label_join({counted}, "mainstat", "/", "done", "total")', "id", "stage"),
        "seconds": named(seconds, "id", "stage"),
        **drawn.placed(total, critical),
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
    edge = of_stages("ray_workflow_stage_edge", "source", "target", "kind", "edge")
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
    edges = _edges(edge, total, critical, drawn)
    legend = {"mainstat": "done/total", "secondarystat": "elapsed / remaining"}
    return _graph(it, {**queries, **shares}, edges, legend, [to_stage]).nodes(
        nodegraph.NodeOptions().arcs(
            [
                nodegraph.ArcOption().field(f"arc__{state.value.lower()}").color(colour.hex)
                for state, colour in STATE_COLOURS.items()
            ]
        )
    )


_COUNTED = of_stages("ray_workflow_stage_tasks", "stage", "state", where=STAGE)


def _too_many() -> str:
    """Count the tasks of the selected stages if they cannot be drawn; by stage, it costs less."""
    return f"sum({_COUNTED}) > {MOST_TASKS}"


def times() -> dashboard.QueryVariable:
    """Return the hidden variable that is {0} if there are too many tasks to draw, else empty."""
    # Grafana knows a query_result by a pattern that matches one line.
    query = label(_too_many(), "times", "{0}").replace("\n", " ")
    return (
        dashboard.QueryVariable("times")
        .label("Repeat the pattern of the stage")
        .datasource(SOURCE)
        .query({"query": f"query_result({query})", "refId": "values"})
        .regex('/times="(.*)"/')
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .hide(models.VariableHide.HIDE_VARIABLE)
    )


def by_task(width: int, height: int) -> nodegraph.Panel:
    """Return the DAG by task."""
    nodes = tasks(DRAWN)
    many = _too_many()
    several = f"count(sum by (stage) ({_COUNTED})) > 1"
    many = label(f'count_values("title", {many})', "title", "$1 tasks", "title")
    drawn = _Grid(
        "task_id",
        of_tasks("ray_workflow_task_column", where=DRAWN),
        of_tasks("ray_workflow_task_row", where=DRAWN),
        width=1080,
        height=640,
        shift=36,
    )
    coloured = _described(nodes, "task_id", drawn.dense())
    roomy = f"and on (task_id) {nodes}\nand on () {drawn.roomy()}"
    for state, colour in STATE_COLOURS.items():
        coloured = label(coloured, "color", colour.hex, "state", state.value)
    start = of_tasks("ray_workflow_task_start_timestamp_seconds", where=DRAWN_TASKS)
    took = (
        f"{of_tasks('ray_workflow_task_duration_seconds', where=DRAWN_TASKS)}\n"
        f"or on (task_id) (time() - {start} and on (task_id) "
        f"""{selector("ray_workflow_task_state", 'state="RUNNING"')})"""
    )
    attempts = of_tasks("ray_workflow_task_attempts", where=DRAWN_TASKS)
    tries = label(
        f'count_values by (task_id) ("tries", {attempts} > 0)',
        "secondarystat", "try $1", "tries",
    )  # fmt: skip
    info = newest("ray_workflow_task_info", "ray_task_id", where=f'{DRAWN}, ray_task_id!=""')
    in_ray = label(info, "detail__ray", *IN_RAY)
    critical = f"({critical_tasks(DRAWN)})"
    queries = {
        "nodes": f"{coloured}\n"
        f"or on () {_hint(f'({many} and on () {several})', 'select one stage')}\n"
        f"or on () {_hint(many, 'see the table Tasks')}\n"
        f"or on () {_hint(label('vector(0)', 'title', 'no task'), 'at this time')}",
        "seconds": f"{named(words(took, 'mainstat', 'task_id'), 'id', 'task_id')}\n{roomy}",
        "tries": f"{named(tries, 'id', 'task_id')}\n{roomy}",
        **drawn.placed(nodes, critical),
        "ray": f"{named(in_ray, 'id', 'task_id')}\nand on (task_id) {nodes}",
    }
    edge = of_tasks("ray_workflow_task_edge", "source", "target", "kind", "edge", where=DRAWN_EDGES)
    it = panel(
        nodegraph.Panel(),
        "DAG by task, at the end of the time range",
        f"The tasks of the selected stage, or of all stages, if they are at most {MOST_TASKS}: "
        "with more, select a stage. The ring has the colour of the state. Inside, if there is "
        "room: the elapsed time and the attempts. Large circles and thick lines: the critical "
        "path. A long chain goes on below, in the opposite direction. Click a task for its page "
        "and logs in Ray's dashboard, available while the cluster is running.",
        width,
        height,
    )
    to_ray = {
        "title": "Ray/Task and logs",
        "url": "${ray}/#/${__data.fields.detail__ray}",
        "targetBlank": True,
    }
    edges = _edges(edge, nodes, critical, drawn)
    legend = {"mainstat": "duration", "secondarystat": "attempts"}
    return looks_back(_graph(it, queries, edges, legend, [to_ray]))


class _Grid(NamedTuple):
    """Where the nodes are, and the pixels that they may take."""

    key: str
    column: str
    row: str
    width: int
    height: int
    shift: int  # upwards, for the legend

    def placed(self, nodes: str, critical: str) -> dict[str, str]:
        """Return the queries for position and size: around the middle, as large as may be."""
        return {
            "x": self._centred(self.column, f"clamp({self._across()}, 66, 160)", 0, nodes),
            "y": self._centred(self.row, f"clamp({self._down()}, 34, 130)", self.shift, nodes),
            "radius": named(
                f"(0 * {critical} + 1 or on ({self.key}) 0 * {nodes} + {_SMALLER})\n"
                # Room for an arrow beside it, and for two lines of text below.
                f"* scalar(clamp(clamp_max(({self._down()} - 44) / 2, "
                f"scalar({self._across()} / 2 - 20)), 11, 45))",
                "id",
                self.key,
            ),
        }

    def _centred(self, position: str, pitch: str, shift: int, nodes: str) -> str:
        middle = f"scalar(max({position}) + min({position})) / 2"
        none = label("vector(0)", self.key, _NONE)
        placed = f"({position} - {middle}) * scalar({pitch}) - {shift}\nand on ({self.key}) {nodes}"
        # One node without a place would be an error of the whole panel.
        placed += f"\nor on ({self.key}) 0 * {nodes}\nor on () {none}"
        return named(placed, "id", self.key)

    def _across(self) -> str:
        return f"({self.width} / (max({self.column}) - min({self.column}) + 1))"

    def _down(self) -> str:
        return f"({self.height} / (max({self.row}) - min({self.row}) + 1))"

    def roomy(self) -> str:
        """Return a series only if there is room for the numbers in the nodes."""
        return f"({self._across()} >= {_NARROW} and {self._down()} >= {_NARROW})"

    def dense(self) -> str:
        """Return a series with the label `dense`: 0 to 2, the higher, the shorter the texts."""
        across, down = self._across(), self._down()
        dense = f"clamp_max(2 * ({across} < bool {_NARROW}) + ({down} < bool {_NARROW}), 2)"
        return f'(count_values("dense", {dense})\nor on () {label("vector(1)", "dense", "0")})'


def _hint(titled: str, subtitle: str) -> str:
    """Return a single node that says why there are no others."""
    return label(label(label(titled, "subtitle", subtitle), "id", _NONE), "color", GREY)


def _described(expr: str, key: str, dense: str) -> str:
    """Set the texts of nodes that have a state."""
    it = named(f"{expr}\n* on () group_left (dense) {dense}", "id", key)
    it = short(it, "title", key)
    it = f'label_join({it}, "title", "", "dense", "title")'
    for level, end in enumerate((16, 14, 9)):  # the end tells tasks apart
        it = label(it, "title", "0…$1", "title", f"(?s){level}.+(.{{{end}}})")
    it = label(it, "title", "$1", "title", "(?s)[012](.*)")
    it = f'label_join({it}, "subtitle", "", "dense", "state")'
    it = label(it, "subtitle", "$1", "subtitle", "[12].*|0(.*)")
    return named(it, f"detail__{key}", key)


def _edges(edge: str, nodes: str, critical: str, drawn: _Grid) -> str:
    def ends(vector: str) -> str:
        return "\n".join(
            f"and on ({end}) {named(vector, end, drawn.key)}" for end in ("source", "target")
        )

    faint = label(
        f"{edge} * on () group_left (dense) {drawn.dense()}", "color", _FAINT, "dense", "[12]"
    )
    it = (
        f"({_THICK} * ({edge}\n{ends(critical)})\n"
        f"or on (source, target, kind) {faint})\n{ends(nodes)}"
    )
    it = named(it, "id", "edge")  # plain: the panel makes references in its SVG of it
    kind = EdgeKind.CONTINUATION.value
    it = label(named(it, "mainstat", "kind"), "strokedasharray", "8 5", "kind", kind)
    return label(it, "color", PURPLE, "kind", kind)


# The values of queries that the panel shows, with the field names that it expects.
_VALUES: Mapping[str, str] = {
    **{state.value: f"arc__{state.value.lower()}" for state in TaskState},
    "x": "fixedx",
    "y": "fixedy",
    "radius": "noderadius",
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
        _leave_out("/^(Time|stage|task_id|state|kind|edge|dense|done|total|tries|ray_task_id)$/")
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
                        # There is no operator that only copies.
                        "unary": {
                            "operator": "floor" if name.startswith("fixed") else "abs",
                            "fieldName": f"Value #{ref}",
                        },
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
