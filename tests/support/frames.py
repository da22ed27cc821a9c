"""What reaches a node graph panel of Grafana: answers of Prometheus, made frames, transformed.

Written after `transformDFToTable` of Grafana's Prometheus data source, its transformers and
`nodeGraph/utils.ts` (11.6 and 12.3): fields are found by their name in lower case, a frame with a
field `source` holds edges, and what "Organize fields" renames keeps its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

Result = Sequence[Mapping[str, Any]]  # of an instant query


@dataclass
class Frame:
    """Rows under named fields; `None` where a row has no value."""

    ref: str
    fields: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.fields.values()), ()))

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows, their names in lower case."""
        names = [name.lower() for name in self.fields]
        return [dict(zip(names, values)) for values in zip(*self.fields.values())]


def table(ref: str, result: Result, *, alone: bool) -> Frame:
    """Return the table that the data source makes of an answer."""
    if not result:
        return Frame(ref)
    labels = sorted({name for it in result for name in it["metric"]})
    fields: dict[str, list[Any]] = {"Time": [it["value"][0] for it in result]}
    for name in labels:
        fields[name] = [it["metric"].get(name, "") for it in result]
    fields["Value" if alone else f"Value #{ref}"] = [float(it["value"][1]) for it in result]
    return Frame(ref, fields)


def transformed(frames: list[Frame], transformations: Sequence[Mapping[str, Any]]) -> list[Frame]:
    """Return the frames after the panel's transformations."""
    for step in transformations:
        if step.get("disabled"):
            continue
        chosen = _chooser(step.get("filter"))
        inside = [it for it in frames if chosen(it.ref)]
        outside = [it for it in frames if not chosen(it.ref)]
        made = _STEPS[step["id"]](inside, step.get("options", {}))
        first = frames.index(inside[0]) if inside else 0
        before = [it for it in outside if frames.index(it) < first]
        frames = [*before, *made, *(it for it in outside if it not in before)]
    return frames


def _chooser(wanted: Optional[Mapping[str, Any]]) -> Callable[[str], bool]:
    if not wanted:
        return lambda _: True
    assert wanted["id"] == "byRefId", wanted
    options = wanted["options"]
    if options.startswith("/"):
        pattern = re.compile(options.strip("/"))
        return lambda ref: bool(pattern.search(ref))
    return lambda ref: ref in options.split("|")


def _calculate(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    assert options["mode"] == "unary", options
    unary = options["unary"]
    operators: Mapping[str, Callable[[float], float]] = {"abs": abs, "floor": math.floor}
    operator = operators[unary["operator"]]
    for frame in frames:
        if unary["fieldName"] in frame.fields:
            values = frame.fields[unary["fieldName"]]
            frame.fields[options["alias"]] = [
                None if value is None else float(operator(value)) for value in values
            ]
    return frames


def _filter(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    def matches(part: Mapping[str, Any], name: str) -> bool:
        pattern = part.get("pattern", "")
        body = re.fullmatch(r"/(.*)/i?", pattern)
        return name in part.get("names", ()) or bool(
            pattern and re.search(body[1] if body else pattern, name)
        )

    kept = []
    for frame in frames:
        fields = {
            name: values
            for name, values in frame.fields.items()
            if ("include" not in options or matches(options["include"], name))
            and not ("exclude" in options and matches(options["exclude"], name))
        }
        if fields:
            kept.append(Frame(frame.ref, fields))
    return kept


def _join(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    key = options["byField"]
    frames = [it for it in frames if key in it.fields]
    if len(frames) < 2:
        return frames
    keys = list(dict.fromkeys(value for it in frames for value in it.fields[key]))
    if options.get("mode") == "inner":
        keys = [value for value in keys if all(value in it.fields[key] for it in frames)]
    joined: dict[str, list[Any]] = {key: keys}
    for frame in frames:
        at = {value: row for row, value in enumerate(frame.fields[key])}
        for name, values in frame.fields.items():
            # Of fields with the same name the first one is found.
            if name not in joined:
                joined[name] = [values[at[it]] if it in at else None for it in keys]
    return [Frame("joinByField-" + "-".join(it.ref for it in frames), joined)]


def _organize(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    hidden = {name for name, out in options.get("excludeByName", {}).items() if out}
    for frame in frames:
        frame.fields = {key: it for key, it in frame.fields.items() if key not in hidden}
    return frames


def _convert(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    for frame in frames:
        for conversion in options["conversions"]:
            assert conversion["destinationType"] == "number", conversion
            name = conversion["targetField"]
            if name in frame.fields:
                frame.fields[name] = [float(value or 0) for value in frame.fields[name]]
    return frames


_STEPS: Mapping[str, Callable[[list[Frame], Mapping[str, Any]], list[Frame]]] = {
    "calculateField": _calculate,
    "filterFieldsByName": _filter,
    "joinByField": _join,
    "organize": _organize,
    "convertFieldType": _convert,
}


@dataclass
class Graph:
    """Nodes and edges as the panel draws them: rows by id."""

    nodes: dict[str, dict[str, Any]]
    edges: dict[str, dict[str, Any]]


def graph(frames: Sequence[Frame]) -> Graph:
    """Return what the panel draws. Raises AssertionError where Grafana would show a red box."""
    relevant = [it for it in frames if it.ref in ("nodes", "edges") or "id" in it.fields]
    edges = [it for it in relevant if "source" in it.fields]
    nodes = [it for it in relevant if "source" not in it.fields]
    assert not any(len(it) and "id" not in it.fields for it in relevant), "a frame has no id"
    assert all("id" in it.fields for it in (*nodes[:1], *edges[:1])), "an empty frame came through"
    found = Graph({}, {})
    for kind, chosen in ((found.nodes, nodes[:1]), (found.edges, edges[:1])):
        for frame in chosen:
            for row in frame.rows():
                assert row["id"] not in kind, f"{row['id']} is there twice"
                kind[row["id"]] = row
    for edge in found.edges.values():
        assert re.fullmatch(r"[\w-]+", edge["id"]), "a reference to its arrowhead would be invalid"
        assert {edge["source"], edge["target"]} <= set(found.nodes), f"{edge} dangles"
    for node in found.nodes.values():
        for name in ("fixedx", "fixedy"):
            assert isinstance(node.get(name), float), f"{node} has no place: nothing is drawn"
        arcs = [value for name, value in node.items() if name.startswith("arc__")]
        assert all(isinstance(value, (float, type(None))) for value in arcs), node
        if arcs:
            assert math.isclose(sum(value or 0 for value in arcs), 1, abs_tol=1e-6), node
        assert node.get("title"), node
        colour = node.get("color")
        assert colour is None or re.fullmatch(r"#[0-9a-f]{6}", colour), node
    return found
