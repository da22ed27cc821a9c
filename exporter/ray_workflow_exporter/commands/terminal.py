"""Runs and tasks on a terminal: tables, the DAG as text, progress bars.

Works on what the API returns. All text of users goes through `_text`, so that it cannot control
the terminal or rich. On a narrow terminal, columns are left out; an id is never folded or cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..display import (
    NOTHING,
    STATE_COLOURS,
    STATUS_COLOURS,
    ago,
    moment,
    printable,
    resources,
    size,
    span,
)
from ..model import RunStatus, TaskState

_PIPE_WIDTH = 10_000  # columns: output that is not a terminal has no edge
_MESSAGE_WIDTH = 500  # characters
_FRAME = 4  # lines of `watch` that are not rows
_BAR_WIDTH = 12
_GAP = 2  # spaces between two columns
_SHOWN_TASKS = 20  # of a large run, unless all are asked for
# The tasks that a large run shows first.
FIRST_STATES = tuple(it.value for it in (TaskState.FAILED, TaskState.RUNNING, TaskState.PENDING))

# What a narrow terminal leaves out, the first one first; the others always stay.
_LEFT_OUT = (
    *("RESOURCES", "OUTPUT", "ATTEMPTS", "STARTED (UTC)", "STAGE", "WORKFLOW", "TASKS"),
    *("FAILURE", "DURATION", "PROGRESS", "AGE"),
)
_CUT = {"FAILURE": 12}  # columns that may be cut to this width before one is left out

Json = Mapping[str, Any]


def console() -> Console:
    """Return a console on stdout: no colours with NO_COLOR, no line cut without a terminal."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def show(what: RenderableType) -> None:
    """Print without cutting: the terminal wraps a line that is longer than itself."""
    console().print(what, crop=False)


def runs_table(
    runs: Sequence[Json],
    now: float,
    *,
    bars: bool = False,
    width: int = _PIPE_WIDTH,
    unsure: bool = False,
) -> Table:
    """Return a table of runs, with progress bars or with the exceptions of failed ones.

    `now` (Unix seconds) ends the durations of runs that go on. `unsure` marks RESUMABLE runs that
    may be live.
    """
    return _table(
        [
            {
                "WORKFLOW ID": _text(run["workflow_id"]),
                "WORKFLOW": _text(run["workflow"]),
                "STATUS": _status(run["status"], unsure),
                "TASKS": _done(run["task_counts"]),
                "STARTED (UTC)": Text(moment(run["start_time"])),
                "AGE": Text(ago(run["start_time"], now)),
                "DURATION": Text(_run_duration(run, now)),
                **({"PROGRESS": _bar(run)} if bars else {"FAILURE": _failure(run["failure"])}),
            }
            for run in runs
        ],
        width,
    )


def run_report(
    run: Json,
    tasks: Mapping[str, Json],
    now: float,
    *,
    width: int = _PIPE_WIDTH,
    unsure: bool = False,
) -> RenderableType:
    """Return all there is to show of one run. `tasks` may be a part of its tasks."""
    count = sum(run["task_counts"].values())
    more = [_note(f"… and {count - len(tasks)} more: --tasks")] if len(tasks) < count else []
    title = "Tasks" if not more else "Tasks: failed, running and pending ones first"
    return Group(
        *_header(run, now, unsure),
        Text("\nDAG, by stages", style="bold"),
        _dag(run),
        Text(f"\n{title}", style="bold"),
        _tasks_table(tasks, now, width),
        *more,
        *_failures(tasks),
    )


def first_tasks(tasks: Mapping[str, Json]) -> dict[str, Json]:
    """Return the tasks of a large run to show: those that failed, then those that are not done."""
    order = {state: number for number, state in enumerate(FIRST_STATES)}
    ids = sorted(tasks, key=lambda it: order.get(tasks[it]["state"], len(order)))
    return {task_id: tasks[task_id] for task_id in ids[:_SHOWN_TASKS]}


def is_large(run: Json) -> bool:
    """Return whether a run has more tasks than are shown unless asked for."""
    count: int = sum(run["task_counts"].values())
    return count > _SHOWN_TASKS


def watched(
    seen: Json, now: float, height: Optional[int] = None, width: int = _PIPE_WIDTH
) -> RenderableType:
    """Return one frame of `watch`: a list of runs, or one run with its stages.

    `height` is that of the terminal: what does not fit is counted.
    """
    if "items" not in seen:
        return Group(*_header(seen, now), Text(), _stages_table(seen, width))
    runs = seen["items"]
    room = len(runs) if height is None else max(1, height - _FRAME)
    left_out = len(runs) - room
    more = [_note(f"… and {left_out} more")] if left_out > 0 else []
    return Group(runs_table(runs[:room], now, bars=True, width=width), *more)


def news(run: Json, now: float) -> Text:
    """Return one line on the state of a run at `now`, for a log."""
    parts = [Text(f"{moment(now)} UTC"), _text(run["workflow_id"]), _status(run["status"])]
    parts.append(_counts(run["task_counts"]))
    if run["failure"] is not None:
        parts.append(_failure(run["failure"], message=True))
    return Text("  ").join(parts)


def _header(run: Json, now: float, unsure: bool = False) -> Iterator[Text]:
    rows: list[tuple[str, Any]] = [
        ("workflow id", _text(run["workflow_id"])),
        ("workflow", _text(run["workflow"])),
        ("status", _status(run["status"], unsure)),
        ("progress", f"{run['progress']:.0%}"),
        ("tasks", _counts(run["task_counts"])),
        ("started", _at(run["start_time"], now)),
        ("ended", _at(run["end_time"], now)),
        ("duration", _run_duration(run, now)),
        ("output", size(run["output_bytes"])),
    ]
    if run["deadline"] is not None:
        rows.append(("deadline", _at(run["deadline"], now)))
    if run["expected_end"] is not None:
        rows.append(("expected end", _at(run["expected_end"], now)))
    if run["critical_path"]:
        path = " → ".join(run["critical_path"])
        rows.append(("critical path", _text(f"{path} ({span(run['critical_seconds'])})")))
    if run["user_metadata"]:
        pairs = (f"{key}={value}" for key, value in run["user_metadata"].items())
        rows.append(("metadata", _text(", ".join(pairs))))
    if run.get("reason"):
        rows.append(("stopped", _text(run["reason"])))
    if run["failure"] is not None:
        cause = run["failure"]
        count = cause["blocked"]
        kept = f", which kept {count} task{'s' * (count != 1)} from running" if count else ""
        failed = cause["task_id"] or "no task that is known"
        rows.append(("failed at", _text(f"{failed} ({cause['kind']}){kept}")))
        rows.append(("because", _failure(cause, message=True)))
    for name, value in rows:
        # Not in a table: it would fold an id that is longer than the terminal is wide.
        yield Text.assemble((f"{name:<15}", "bold"), value, no_wrap=True, overflow="ignore")


def _dag(run: Json) -> RenderableType:
    from ..analysis.dag import layers  # only `show` needs it

    stages = {stage["stage"]: stage for stage in run["stages"]}
    edges = [(edge["source"], edge["target"], edge["kind"]) for edge in run["stage_edges"]]
    depths = layers(stages, [(source, target) for source, target, _ in edges])
    rows: list[tuple[Text, ...]] = []
    for name in sorted(stages, key=depths.__getitem__):
        targets = [
            target + (" (continuation)" if kind == "continuation" else "")
            for source, target, kind in edges
            if source == name
        ]
        leads_to = _text(f"→ {', '.join(targets)}" if targets else "")
        counts = _counts(stages[name]["task_counts"])
        rows.append((Text(f"{depths[name] + 1:>3}", "dim"), _text(name), counts, leads_to))
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    widths = [max(cells) for cells in zip(*(map(_width, row) for row in rows))]
    grid.width = sum(widths) + _GAP * (len(widths) - 1) if widths else None
    for needed in widths:
        grid.add_column(no_wrap=True, width=needed)
    for row in rows:
        grid.add_row(*row)
    return grid


def _stages_table(run: Json, width: int) -> Table:
    return _table(
        [
            {
                "STAGE": _text(stage["stage"]),
                "PROGRESS": ProgressBar(
                    total=sum(stage["task_counts"].values()),
                    completed=stage["task_counts"][TaskState.SUCCESSFUL.value],
                    width=_BAR_WIDTH,
                ),
                "TASKS": _counts(stage["task_counts"]),
                "STARTED (UTC)": Text(moment(stage["start_time"])),
                "OUTPUT": Text(size(stage["output_bytes"])),
            }
            for stage in run["stages"]
        ],
        width,
        keep="STAGE",
    )


def _tasks_table(tasks: Mapping[str, Json], now: float, width: int) -> Table:
    return _table(
        [
            {
                "TASK": _text(task_id),
                "STAGE": _text(task["stage"] if task["stage"] != task_id else ""),
                "STATE": _state(task["state"]),
                "STARTED (UTC)": Text(moment(task["start_time"])),
                "AGE": Text(ago(task["start_time"], now)),
                "DURATION": Text(_duration(task, task["state"] == TaskState.RUNNING.value, now)),
                "ATTEMPTS": Text(str(task["attempts"]) if task["attempts"] > 1 else ""),
                "OUTPUT": Text(size(task["output_bytes"])),
                "RESOURCES": Text(resources(task["resources"])),
            }
            for task_id, task in tasks.items()
        ],
        width,
    )


def _failures(tasks: Mapping[str, Json]) -> Iterator[Text]:
    failed = {task_id: task["failure"] for task_id, task in tasks.items() if task["failure"]}
    if failed:
        yield Text("\nFailures", style="bold")
    for task_id, failure in failed.items():
        yield Text.assemble(_text(task_id), ": ", _failure(failure, message=True))


def _table(rows: Sequence[Mapping[str, RenderableType]], width: int, keep: str = "") -> Table:
    """Return a table of rows by column, at most `width` wide if its first columns allow.

    A column without any content is left out, and so are columns that have no room.
    """
    empty = (Text(""), Text(NOTHING))
    widths = {
        name: max(len(name), *(_width(row[name]) for row in rows))
        for name in (rows[0] if rows else ())
        if any(row[name] not in empty for row in rows)
    }

    def missing() -> int:
        return sum(widths.values()) + _GAP * (len(widths) - 1) - width

    for name in _LEFT_OUT:
        over = missing()
        if over <= 0 or name == keep or name not in widths:
            continue
        if widths[name] - over >= _CUT.get(name, widths[name]):
            widths[name] -= over
        else:
            del widths[name]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    table.width = width + missing() if widths else None
    for name, needed in widths.items():
        table.add_column(name, no_wrap=True, overflow="ellipsis", width=needed)
    for row in rows:
        table.add_row(*(row[name] for name in widths))
    return table


def _width(cell: RenderableType) -> int:
    return cell.cell_len if isinstance(cell, Text) else _BAR_WIDTH


def _note(text: str) -> Text:
    return Text(text, style="dim")


def _at(seconds: Optional[float], now: float) -> str:
    return NOTHING if seconds is None else f"{moment(seconds)} UTC ({ago(seconds, now)})"


def _bar(run: Json) -> ProgressBar:
    style = STATUS_COLOURS[RunStatus(run["status"])].hex
    return ProgressBar(
        completed=100 * run["progress"],
        width=_BAR_WIDTH,
        complete_style=style,
        finished_style=style,
    )


def _run_duration(run: Json, now: float) -> str:
    return _duration(run, run["status"] == RunStatus.RUNNING.value, now)


def _duration(facts: Json, live: bool, now: float) -> str:
    if live and facts["start_time"] is not None:
        return span(max(0.0, now - facts["start_time"]))
    return span(facts["duration"])


def _done(counts: Mapping[str, int]) -> Text:
    return Text(f"{counts[TaskState.SUCCESSFUL.value]}/{sum(counts.values())}")


def _counts(counts: Mapping[str, int]) -> Text:
    """Return `done/all`, then the counts of other states, each in its colour."""
    text = _done(counts)
    for state in (TaskState.RUNNING, TaskState.PENDING, TaskState.FAILED, TaskState.CANCELED):
        if counts[state.value]:
            text.append(f" {counts[state.value]} {state.value.lower()}", STATE_COLOURS[state].hex)
    return text


def _status(status: str, unsure: bool = False) -> Text:
    mark = "?" if unsure and status == RunStatus.RESUMABLE.value else ""
    return Text(f"{status}{mark}", style=STATUS_COLOURS[RunStatus(status)].hex)


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
