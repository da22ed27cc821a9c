"""Queries for the selected run, at the end of the time range.

A finished run leaves /metrics after a while, its tasks first. Then the last values in the range
are used. While a run has series, missing values are not taken from earlier ones: these may belong
to an earlier run with the same id.
"""

from __future__ import annotations

from ray_workflow_exporter.model import TaskState

from .common import RUN, Panel

ACTIVE = (TaskState.WAITING, TaskState.PENDING, TaskState.RUNNING)
ENDED = (TaskState.SUCCESSFUL, TaskState.FAILED, TaskState.CANCELED)
STAGE = "stage=~`${stage:regex}`"
# The same, or nothing, if the variable `times` is {0}: then no query looks at any task.
DRAWN = "stage=~`(?:${stage:regex})${times:raw}`"
DRAWN_TASKS = "task_id=~`(?s:.*)${times:raw}`"  # of series without the stage
DRAWN_EDGES = "source=~`(?s:.*)${times:raw}`"
# The page of a task in Ray's dashboard: the last eight characters of a Ray task id are the job id.
IN_RAY = ("jobs/$2/tasks/$1", "ray_task_id", "(.*(.{8}))")
RUNNING = f'(ray_workflow_run_status{{{RUN}, status="RUNNING"}} == 1)'

_IMPORTANT_FIRST = (
    TaskState.FAILED,
    TaskState.RUNNING,
    TaskState.PENDING,
    TaskState.CANCELED,
    TaskState.NOT_RUN,
    TaskState.WAITING,
    TaskState.SUCCESSFUL,
)
# The resolution at which the last sample of a task is found. It grows with the range, so that the
# query stays cheap; for ranges up to weeks, tasks stay in the metrics for longer than one step.
_STEP = "$__interval"
_KNOWN = f"ray_workflow_run_info{{{RUN}}}"
_LIVE = f'ray_workflow_run_status{{{RUN}, status=~"PENDING|RUNNING|RESUMABLE"}} == 1'


def looks_back(it: Panel) -> Panel:
    """Limit the cost of a panel that queries tasks."""
    return it.interval("1m").max_data_points(720)


def selector(metric: str, *matchers: str) -> str:
    """Select the series of the run."""
    return f"{metric}{{{', '.join([RUN, *filter(None, matchers)])}}}"


def of_run(metric: str, *by: str, where: str = "") -> str:
    """Return values of the run; keep the labels `by`."""
    return _last(metric, ("workflow_id", *by), where, _KNOWN)


def of_stages(metric: str, *by: str, where: str = "") -> str:
    """Return values of the run's stages, or of its stage edges with the labels `by`."""
    return _last(metric, by or ("stage",), where, _KNOWN)


def of_tasks(metric: str, *by: str, where: str = "") -> str:
    """Return values of the run's tasks, or of its task edges with the labels `by`."""
    return _last(metric, by or ("task_id",), where, _LIVE)


def _last(metric: str, by: tuple[str, ...], where: str, known: str) -> str:
    it = selector(metric, where)
    return (
        f"max by ({', '.join(by)}) (\n"
        f"{it}\nor (last_over_time({it}[$__range]) unless on (workflow_id) {known})\n)"
    )


def seen(metric: str, where: str = "") -> str:
    """Return the time of the last sample of each task series, at the end of the range."""
    it = f"timestamp({selector(metric, where)})"
    return (
        f"{it}\nor (\nmax_over_time({it}[$__range:{_STEP}])\n"
        # Earlier samples belong to an earlier run with the same id.
        f">= on (workflow_id) group_left ()\n"
        f"{of_run('ray_workflow_run_start_timestamp_seconds')}\n"
        f"unless on (workflow_id) {_LIVE}\n)"
    )


def newest(metric: str, *labels: str, where: str = "") -> str:
    """Return one series per task with its latest labels; the value is the time of its last sample."""
    by = ", ".join(["task_id", *labels])
    return f"topk by (task_id) (1, max by ({by}) (\n{seen(metric, where)}\n))"


def tasks(where: str = STAGE) -> str:
    """Return the tasks of the selected stage with `stage` and `state`."""
    return newest("ray_workflow_task_state", "stage", "state", where=where)


def critical_tasks(where: str = STAGE) -> str:
    """Return the tasks whose last sample was on the critical path."""
    return (
        f"max by (task_id) (\n{seen('ray_workflow_task_critical')}\n)\n"
        f">= on (task_id) max by (task_id) ({tasks(where)})"
    )


def stage_tasks(*states: TaskState, by: str = "stage") -> str:
    """Count the tasks of each stage in some states, or in all."""
    where = f'state=~"{"|".join(state.value for state in states)}"' if states else ""
    return f"sum by ({by}) ({of_stages('ray_workflow_stage_tasks', 'stage', 'state', where=where)})"


def in_state(expr: str, state: TaskState) -> str:
    """Return the series whose label `state` has this value."""
    return f"({expr}\nand on (state) {label('vector(1)', 'state', state.value)})"


def stage_state() -> str:
    """Return the stages with the most important `state` of their tasks."""
    return "\nor on (stage) ".join(
        f"({stage_tasks(state, by='stage, state')} > 0)" for state in _IMPORTANT_FIRST
    )


def label(expr: str, name: str, value: str, of: str = "", like: str = "(?s)(.*)") -> str:
    """Set a label; `value` may refer to groups of `like`, matched against the label `of`."""
    return f'label_replace({expr}, "{name}", "{value}", "{of}", "{like if of else ""}")'


def named(expr: str, name: str, of: str) -> str:
    """Copy the label `of` to the label `name`."""
    return label(expr, name, "$1", of)


def short(expr: str, name: str, of: str) -> str:
    """Copy the label `of` to the label `name`, without the module of the user's script."""
    return label(expr, name, "$1", of, "(?s)(?:__main__[.])?(.*)")


def words(expr: str, name: str, *by: str, suffix: str = "") -> str:
    """Write seconds into a label in a readable unit: 12.5 s, 3.2 min, 7.1 h."""
    keys = ", ".join(by)

    def said(scaled: str, unit: str) -> str:
        counted = f'count_values by ({keys}) ("{name}", round({scaled}, 0.1))'
        return label(counted, name, f"$1 {unit}{suffix}", name)

    return (
        f"{said(f'(({expr}) < 100)', 's')}\n"
        f"or on ({keys}) {said(f'((({expr}) >= 100 < 6000) / 60)', 'min')}\n"
        f"or on ({keys}) {said(f'((({expr}) >= 6000) / 3600)', 'h')}"
    )
