"""The DAG of a run as shapes that the page draws as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ...analysis.layered import Box, Point, lay_out
from ...catalog.snapshot import RunView
from ...display import printable, span
from ...model import TaskState
from ...responses import run_graph

MAX_NODES = 500
MAX_EDGES = 3000
_LABEL = 24  # characters
_BOXES = {
    "stage": Box(width=204, height=58, gap=14, between=46),
    "task": Box(width=204, height=40, gap=10, between=46),
}
_MARGIN = 12.0  # for thick borders, and edges that go backwards
_BAR = 184.0


def draw(view: RunView, level: str, now: float) -> Optional[dict[str, Any]]:
    """Draw a run by `stage` or by `task`; None if it is too large to be read. `now` in seconds."""
    count = len(view.run.tasks) if level == "task" else len(view.analysis.stages)
    edges = view.analysis.task_edges if level == "task" else view.analysis.stage_edges
    if count > MAX_NODES or len(edges) > MAX_EDGES:
        return None
    graph = run_graph(view, level)
    box = _BOXES[level]
    ends = [(edge["source"], edge["target"]) for edge in graph["edges"]]
    layout = lay_out([node["id"] for node in graph["nodes"]], dict.fromkeys(ends), box)
    on_path = _critical_ends(view, level)
    return {
        "level": level,
        "width": layout.width + 2 * _MARGIN,
        "height": layout.height + 2 * _MARGIN,
        "node_width": box.width,
        "node_height": box.height,
        "nodes": [_node(node, layout.nodes[node["id"]], now) for node in graph["nodes"]],
        "lines": [
            {**edge, "critical": pair in on_path, "path": _path(layout.edges[pair])}
            for edge, pair in zip(graph["edges"], ends)
        ],
    }


def _node(node: Mapping[str, Any], corner: Point, now: float) -> dict[str, Any]:
    """Return a stage or a task. Its state is that of a task, or FAILED for a failed stage."""
    counts = {state: count for state, count in node["task_counts"].items() if count}
    total = sum(counts.values())
    words = ", ".join(f"{count} {state}" for state, count in counts.items())
    note = node["state"] or f"{counts.get(TaskState.SUCCESSFUL, 0)}/{total}"
    lasted = _lasted(node, counts, now)
    if lasted is not None:
        note += f" · {span(lasted)}"
    critical = ", on the critical path" if node["critical"] else ""
    return {
        "id": node["id"],
        "label": _short(printable(node["id"])),
        "title": f"{node['id']}: {node['state'] or words}{critical}",
        "note": note,
        "state": node["state"] or (TaskState.FAILED.value if TaskState.FAILED in counts else ""),
        "critical": node["critical"],
        "x": corner[0] + _MARGIN,
        "y": corner[1] + _MARGIN,
        "shares": _shares(counts, total),
    }


def _lasted(node: Mapping[str, Any], counts: Mapping[str, int], now: float) -> Optional[float]:
    start, end = node["start_time"], node["end_time"]
    if end is None and counts.get(TaskState.RUNNING):
        end = now
    return max(0.0, end - start) if start is not None and end is not None else None


def _shares(counts: Mapping[str, int], total: int) -> list[dict[str, Any]]:
    """Return the parts of a node's bar, one for each state."""
    found, x = [], 0.0
    for state, count in counts.items():
        width = _BAR * count / total
        found.append({"state": state, "x": round(x, 2), "width": round(width, 2)})
        x += width
    return found


def _critical_ends(view: RunView, level: str) -> set[tuple[str, str]]:
    path: Sequence[str] = view.analysis.critical_path
    if level == "stage":
        path = [view.run.tasks[task_id].stage for task_id in path]
    return set(zip(path, path[1:]))


def _path(points: Sequence[Point]) -> str:
    (x, y), *rest = [(x + _MARGIN, y + _MARGIN) for x, y in points]
    path = f"M{x:.1f} {y:.1f}"
    # Curves between layers, level lines through them.
    for number, (to_x, to_y) in enumerate(rest):
        if number % 2:
            path += f"H{to_x:.1f}"
        else:
            middle = (x + to_x) / 2
            path += f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
        x, y = to_x, to_y
    return path


def _short(text: str) -> str:
    # The end is kept rather than the middle: it holds the number of a task.
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 11]}…{text[-10:]}"
