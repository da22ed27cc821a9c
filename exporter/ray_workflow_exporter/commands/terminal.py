"""Runs and tasks on a terminal: tables, the DAG as text, progress bars.

Works on what the API returns. All text of users goes through `_text`: it can steer neither the
terminal nor rich.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..analysis.dag import layers
from ..display import NOTHING, STATE_COLOURS, STATUS_COLOURS, moment, printable, size, span
from ..model import RunStatus, TaskState

_PIPE_WIDTH = 10_000  # columns, where nobody's screen ends
_MESSAGE_WIDTH = 500  # characters
_CHROME = 4  # lines of a table that are no rows

# Columns of users' words: on a narrow screen these take more lines, so that the others fit.
_FOLDED = {"WORKFLOW ID", "WORKFLOW", "TASK", "STAGE", "FAILURE"}
_BAR_WIDTH = 12

Json = Mapping[str, Any]


def console() -> Console:
    """Return a console on stdout: no colours with NO_COLOR, nothing cut where it is no terminal."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def runs_table(runs: Sequence[Json], now: float, *, bars: bool = False) -> Table:
    """Return a table of runs, with progress bars or with the exceptions of failed ones.

    `now` (Unix seconds) ends the durations of runs that still go on.
    """
    return _table(
        {
            "WORKFLOW ID": _text(run["workflow_id"]),
            "WORKFLOW": _text(run["workflow"]),
            "STATUS": _status(run["status"]),
            "TASKS": _done(run["task_counts"]),
            "STARTED": Text(moment(run["start_time"])),
            "DURATION": Text(_run_lasted(run, now)),
            **({"PROGRESS": _bar(run)} if bars else {"FAILURE": _failure(run["failure"])}),
        }
        for run in runs
    )


def run_report(run: Json, tasks: Mapping[str, Json], now: float) -> RenderableType:
    """Return all there is to say of one run."""
    return Group(
        _header(run, now),
        Text("\nDAG, by stages", style="bold"),
        _dag(run),
        Text("\nTasks", style="bold"),
        _tasks_table(tasks, now),
        *_failures(tasks),
    )


def watched(look: Json, now: float, height: Optional[int] = None) -> RenderableType:
    """Return one frame of `watch`: a list of runs, or one run with its stages.

    `height` is that of the screen: what has no room is counted.
    """
    if "items" not in look:
        return Group(_header(look, now), Text(), _stages_table(look))
    runs = look["items"]
    room = len(runs) if height is None else max(1, height - _CHROME)
    left_out = len(runs) - room
    more = [Text(f"… and {left_out} more", style="dim")] if left_out > 0 else []
    return Group(runs_table(runs[:room], now, bars=True), *more)


def news(run: Json, now: float) -> Text:
    """Return one line that says how a run stands at `now`, for a log rather than a screen."""
    parts = [Text(moment(now)), _text(run["workflow_id"]), _status(run["status"])]
    parts.append(_counts(run["task_counts"]))
    if run["failure"] is not None:
        parts.append(_failure(run["failure"], message=True))
    return Text("  ").join(parts)


def _header(run: Json, now: float) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    rows: list[tuple[str, RenderableType]] = [
        ("workflow id", _text(run["workflow_id"])),
        ("workflow", _text(run["workflow"])),
        ("status", _status(run["status"])),
        ("progress", f"{run['progress']:.0%}"),
        ("tasks", _counts(run["task_counts"])),
        ("started", moment(run["start_time"])),
        ("ended", moment(run["end_time"])),
        ("duration", _run_lasted(run, now)),
        ("output", size(run["output_bytes"])),
    ]
    if run["deadline"] is not None:
        rows.append(("deadline", moment(run["deadline"])))
    if run["expected_end"] is not None:
        rows.append(("expected end", moment(run["expected_end"])))
    if run["critical_path"]:
        path = " → ".join(run["critical_path"])
        rows.append(("critical path", _text(f"{path} ({span(run['critical_seconds'])})")))
    if run["user_metadata"]:
        pairs = (f"{key}={value}" for key, value in run["user_metadata"].items())
        rows.append(("metadata", _text(", ".join(pairs))))
    if run["failure"] is not None:
        cause = run["failure"]
        count = cause["blocked"]
        kept = f", which kept {count} task{'s' * (count != 1)} from running" if count else ""
        rows.append(("failed at", _text(f"{cause['task_id']} ({cause['kind']}){kept}")))
        rows.append(("because", _failure(cause, message=True)))
    for name, value in rows:
        grid.add_row(name, value)
    return grid


def _dag(run: Json) -> RenderableType:
    stages = {stage["stage"]: stage for stage in run["stages"]}
    edges = [(edge["source"], edge["target"], edge["kind"]) for edge in run["stage_edges"]]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="dim")
    for _ in range(3):
        grid.add_column(overflow="fold")
    depths = layers(stages, [(source, target) for source, target, _ in edges])
    for name in sorted(stages, key=depths.__getitem__):
        targets = [
            target + (" (continuation)" if kind == "continuation" else "")
            for source, target, kind in edges
            if source == name
        ]
        leads_to = _text(f"→ {', '.join(targets)}" if targets else "")
        counts = _counts(stages[name]["task_counts"])
        grid.add_row(str(depths[name] + 1), _text(name), counts, leads_to)
    return grid


def _stages_table(run: Json) -> Table:
    return _table(
        {
            "STAGE": _text(stage["stage"]),
            "PROGRESS": ProgressBar(
                total=sum(stage["task_counts"].values()),
                completed=stage["task_counts"][TaskState.SUCCESSFUL.value],
                width=_BAR_WIDTH,
            ),
            "TASKS": _counts(stage["task_counts"]),
            "STARTED": Text(moment(stage["start_time"])),
            "OUTPUT": Text(size(stage["output_bytes"])),
        }
        for stage in run["stages"]
    )


def _tasks_table(tasks: Mapping[str, Json], now: float) -> Table:
    return _table(
        {
            "TASK": _text(task_id),
            "STAGE": _text(task["stage"] if task["stage"] != task_id else ""),
            "STATE": _state(task["state"]),
            "STARTED": Text(moment(task["start_time"])),
            "DURATION": Text(_lasted(task, task["state"] == TaskState.RUNNING.value, now)),
            "ATTEMPTS": Text(str(task["attempts"]) if task["attempts"] > 1 else ""),
            "OUTPUT": Text(size(task["output_bytes"])),
        }
        for task_id, task in tasks.items()
    )


def _failures(tasks: Mapping[str, Json]) -> Iterator[Text]:
    failed = {task_id: task["failure"] for task_id, task in tasks.items() if task["failure"]}
    if failed:
        yield Text("\nFailures", style="bold")
    for task_id, failure in failed.items():
        yield Text.assemble(_text(task_id), ": ", _failure(failure, message=True))


def _table(rows: Iterable[Mapping[str, RenderableType]]) -> Table:
    """Return a table of rows by column; a column in which no row says anything is left out."""
    rows = list(rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    columns = []
    for name in rows[0] if rows else ():
        if any(row[name] not in (Text(""), Text(NOTHING)) for row in rows):
            columns.append(name)
            table.add_column(name, overflow="fold", no_wrap=name not in _FOLDED)
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def _bar(run: Json) -> ProgressBar:
    style = STATUS_COLOURS[RunStatus(run["status"])].hex
    return ProgressBar(
        completed=100 * run["progress"],
        width=_BAR_WIDTH,
        complete_style=style,
        finished_style=style,
    )


def _run_lasted(run: Json, now: float) -> str:
    return _lasted(run, run["status"] == RunStatus.RUNNING.value, now)


def _lasted(facts: Json, live: bool, now: float) -> str:
    if live and facts["start_time"] is not None:
        return span(max(0.0, now - facts["start_time"]))
    return span(facts["duration"])


def _done(counts: Mapping[str, int]) -> Text:
    return Text(f"{counts[TaskState.SUCCESSFUL.value]}/{sum(counts.values())}")


def _counts(counts: Mapping[str, int]) -> Text:
    """Return `done/all`, then the states that say more, each in its colour."""
    text = _done(counts)
    for state in (TaskState.RUNNING, TaskState.PENDING, TaskState.FAILED, TaskState.CANCELED):
        if counts[state.value]:
            text.append(f" {counts[state.value]} {state.value.lower()}", STATE_COLOURS[state].hex)
    return text


def _status(status: str) -> Text:
    return Text(status, style=STATUS_COLOURS[RunStatus(status)].hex)


def _state(state: str) -> Text:
    return Text(state, style=STATE_COLOURS[TaskState(state)].hex)


def _failure(failure: Optional[Json], *, message: bool = False) -> Text:
    if failure is None:
        return Text("")
    text = printable(failure["exception"])
    if message and failure["message"]:
        text = f"{text}: {printable(failure['message'])}"
    return Text(text if len(text) <= _MESSAGE_WIDTH else f"{text[: _MESSAGE_WIDTH - 1]}…")


def _text(text: str) -> Text:
    return Text(printable(text))
