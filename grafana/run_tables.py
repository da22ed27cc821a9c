"""The tables of a run: its failure and its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard as models

from ray_workflow_exporter.display import STATE_COLOURS
from ray_workflow_exporter.model import TaskState

from .common import panel, rows, word_mapping
from .run_graph import OF_STAGE
from .run_queries import IN_RAY, in_state, label, looks_back, newest, of_run, of_tasks, short
from .run_queries import tasks as known_tasks


def failure() -> table.Panel:
    """Return the root cause of a FAILED run."""
    where = "task_id", "stage", "kind", "exception", "message"
    not_run = of_run("ray_workflow_run_tasks", where='state="NOT_RUN"')
    failed = of_run("ray_workflow_run_status", where='status="FAILED"')
    expr = (
        f"{of_run('ray_workflow_run_failure_info', *where)}\n"
        f"* on (workflow_id) group_left () ({not_run} and {failed} == 1)"
    )
    it = (
        panel(
            table.Panel(),
            "Why it failed",
            "The task that caused the failure, its error, and the number of tasks that did not run "
            "because of it. application: the task's code raised. system: its worker or node died, "
            "ran out of memory or was killed. Fix the cause, then resume the run: finished tasks "
            "do not run again.",
            9,
            6,
        )
        .no_value("No failure")
        .unit("short")
    )
    expr = f'label_join({expr}, "error", ": ", "kind", "exception", "message")'
    it = it.with_target(rows(short(expr, "task", "task_id"))).with_transformation(
        _columns({"task": "Task", "error": "Root cause", "Value": "Not run"})
    )
    return _styled(
        it,
        {
            "Task": (("custom.width", 110), _WRAPPED),
            "Root cause": (_WRAPPED, ("custom.inspect", True)),
            "Not run": (("custom.width", 65),),
        },
    )


_WRAPPED = ("custom.cellOptions", {"type": "auto", "wrapText": True})


def _styled(it: table.Panel, columns: Mapping[str, Sequence[tuple[str, Any]]]) -> table.Panel:
    for name, properties in columns.items():
        it = it.override_by_name(
            name, [models.DynamicConfigValue(id_val=key, value=value) for key, value in properties]
        )
    return it


def _columns(names: Mapping[str, str]) -> models.DataTransformerConfig:
    """Keep only these fields, in this order and with these names."""
    return models.DataTransformerConfig(
        id_val="organize",
        options={
            "includeByName": dict.fromkeys(names, True),
            "indexByName": {name: at for at, name in enumerate(names)},
            "renameByName": names,
        },
    )


def tasks() -> table.Panel:
    """Return the tasks of the selected stage."""
    start = of_tasks("ray_workflow_task_start_timestamp_seconds")
    submit = of_tasks("ray_workflow_task_submit_timestamp_seconds")
    known = known_tasks()
    info = newest("ray_workflow_task_info", "ray_task_id", "node_id", where='ray_task_id!=""')
    error = newest("ray_workflow_task_failure_info", "exception", "message")
    asked = {
        "state": known,
        "start": f"1000 * {start}",
        "duration": f"{of_tasks('ray_workflow_task_duration_seconds')}\n"
        f"or on (task_id) (time() - {start}"
        f" and on (task_id) {in_state(known, TaskState.RUNNING)})",
        "wait": f"({start} - {submit} >= 0)\n"
        f"or on (task_id) (time() - {submit}"
        f" and on (task_id) {in_state(known, TaskState.PENDING)})",
        "attempts": of_tasks("ray_workflow_task_attempts"),
        "output": of_tasks("ray_workflow_task_output_size_bytes"),
        "error": f'label_join({error}, "error", ": ", "exception", "message")\n'
        f"and on (task_id) {in_state(known, TaskState.FAILED)}",
        "ray": label(info, "in_ray", *IN_RAY),
    }
    it = panel(
        looks_back(table.Panel()),
        "Tasks",
        "The tasks of the selected stage, newest first. If waits are long, the cluster lacks the "
        "resources that the tasks request. If a task has several attempts, look at its logs even "
        "if it succeeded. Logs and nodes are in Ray's dashboard while the cluster is running.",
        24,
        11,
    ).no_value("No task at the end of the time range. Runs with very many tasks have stages only.")
    for ref, expr in asked.items():
        it = it.with_target(
            rows(expr if ref == "state" else f"({expr})\nand on (task_id) {known}", ref)
        )
    join = models.DataTransformerConfig(
        id_val="joinByField", options={"byField": "task_id", "mode": "outer"}
    )
    drop = models.DataTransformerConfig(
        id_val="filterFieldsByName",
        options={"exclude": {"pattern": "/^(Time|exception|message)$/"}},
    )
    columns = {
        "task_id": "Task",
        "state": "State",
        "in_ray": "In Ray",
        "node_id": "Node",
        "stage": "Stage",
        "Value #start": "Started",
        "Value #duration": "Duration",
        "Value #wait": "Wait",
        "Value #attempts": "Tries",
        "Value #output": "Output",
        "error": "Error",
    }
    it = (
        it.with_transformation(drop)
        .with_transformation(join)
        .with_transformation(_columns(columns))
        .sort_by([options.TableSortByFieldState().display_name("Started").desc(True)])
    )
    # Otherwise each empty cell would show the text for an empty panel.
    it = it.override_by_regexp("/.*/", [models.DynamicConfigValue(id_val="noValue", value="–")])
    return _styled(it, _COLUMNS)


def _to(title: str, url: str) -> list[dict[str, Any]]:
    return [{"title": title, "url": url, "targetBlank": True}]


def _says(word: str) -> list[dict[str, Any]]:
    return [{"type": "regex", "options": {"pattern": ".+", "result": {"text": word, "index": 0}}}]


_COLUMNS: Mapping[str, Sequence[tuple[str, Any]]] = {
    "Task": (("custom.width", 160),),
    "State": (
        ("custom.width", 115),
        ("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
        ("mappings", [word_mapping(STATE_COLOURS)]),
    ),
    "Stage": (
        ("custom.width", 120),
        (
            "links",
            [
                {
                    "title": "Show only this stage",
                    "url": OF_STAGE + "${__value.raw:percentencode}",
                    "targetBlank": False,
                }
            ],
        ),
    ),
    "Started": (("unit", "dateTimeAsIsoNoDateIfToday"), ("custom.width", 90)),
    "Duration": (("unit", "s"), ("custom.width", 85)),
    "Wait": (("unit", "s"), ("custom.width", 80)),
    "Tries": (("unit", "short"), ("custom.width", 60)),
    "Output": (("unit", "bytes"), ("custom.width", 85)),
    "Error": (_WRAPPED, ("custom.inspect", True)),
    "In Ray": (
        ("custom.width", 90),
        ("noValue", ""),
        ("mappings", _says("task, logs")),
        (
            "links",
            _to("Task and logs", "${ray}/#/${__value.raw}"),
        ),
    ),
    "Node": (
        ("custom.width", 70),
        ("noValue", ""),
        ("mappings", _says("node")),
        ("links", _to("Node", "${ray}/#/cluster/nodes/${__value.raw}")),
    ),
}
