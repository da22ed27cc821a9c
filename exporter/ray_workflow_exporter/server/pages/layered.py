"""A layered layout of a DAG, left to right, that keeps its shape while the DAG grows.

The layer of a node depends only on its upstream, and its place in the layer on the places of its
upstream: tasks that are added later, downstream, do not move the nodes that are already drawn.
Edges over several layers bend around the nodes between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Union

from ...analysis.dag import layers

Point = tuple[float, float]
Ends = tuple[str, str]
Bend = tuple[str, str, int]  # where an edge passes a layer
Slot = Union[str, Bend]

_BEND_HEIGHT = 6.0
_MAX_BENDS = 20_000  # beyond, edges go straight
_TALL = 12  # nodes in one layer, or edges of their height: more than fit on a screen


@dataclass(frozen=True)
class Box:
    """The size of every node, and the space around it."""

    width: float
    height: float
    gap: float  # between neighbours in a layer
    between: float  # layers


@dataclass(frozen=True)
class Layout:
    """Where things are. `nodes` are upper left corners; an edge leaves its source at the first of
    its points and enters its target at the last, and is level from each second one to the next."""

    width: float
    height: float
    nodes: Mapping[str, Point]
    edges: Mapping[Ends, tuple[Point, ...]]


def lay_out(nodes: Sequence[str], edges: Collection[Ends], box: Box) -> Layout:
    """Lay out a graph whose edges have both ends in `nodes`, and these ends differ.

    Edges that close a cycle go backwards. Linear in nodes and edges, times the layers they pass.
    """
    depths = layers(nodes, edges)
    forward = {edge: min(edge, edge[::-1], key=lambda it: depths[it[0]]) for edge in edges}
    chains = _chains(set(forward.values()), depths)
    middles = _middles(nodes, depths, chains, box)
    top = min(map(middles.__getitem__, nodes), default=0.0) - box.height / 2
    top = min([top, *(middle - _BEND_HEIGHT / 2 for middle in middles.values())])
    step = box.width + box.between

    def point(slot: Slot, side: float) -> Point:
        layer = depths[slot] if isinstance(slot, str) else slot[2]
        return layer * step + side * box.width, middles[slot] - top

    routes = {}
    for edge, ends in forward.items():
        first, *bends, last = chains[ends]
        points = [point(first, 1), *(point(it, side) for it in bends for side in (0, 1))]
        points.append(point(last, 0))
        routes[edge] = tuple(points if edge == ends else reversed(points))
    corners = {node: (point(node, 0)[0], point(node, 0)[1] - box.height / 2) for node in nodes}
    return Layout(
        width=max((x + box.width for x, _ in corners.values()), default=0.0),
        height=max(
            [
                *(y + box.height for _, y in corners.values()),
                *(middle - top + _BEND_HEIGHT / 2 for middle in middles.values()),
            ],
            default=0.0,
        ),
        nodes=corners,
        edges=routes,
    )


def _chains(edges: Collection[Ends], depths: Mapping[str, int]) -> dict[Ends, tuple[Slot, ...]]:
    """Return what each edge goes through, its ends included."""
    bent = sum(depths[target] - depths[source] - 1 for source, target in edges) <= _MAX_BENDS
    return {
        (source, target): (
            source,
            *((source, target, at) for at in range(depths[source] + 1, depths[target]) if bent),
            target,
        )
        for source, target in edges
    }


def _middles(
    nodes: Sequence[str],
    depths: Mapping[str, int],
    chains: Mapping[Ends, tuple[Slot, ...]],
    box: Box,
) -> dict[Slot, float]:
    """Return the height of the middle of each slot: as near to those before it as may be.

    Where a layer is too tall to be seen at once, all others stay at its top, and are seen.
    """
    columns: defaultdict[int, list[Slot]] = defaultdict(list)
    for node in nodes:
        columns[depths[node]].append(node)
    before: defaultdict[Slot, list[Slot]] = defaultdict(list)
    # Sorted by the order of the nodes, so that equal graphs look the same.
    rank = {node: number for number, node in enumerate(nodes)}
    for ends in sorted(chains, key=lambda ends: (rank[ends[0]], rank[ends[1]])):
        chain = chains[ends]
        for slot, following in zip(chain, chain[1:]):
            before[following].append(slot)
            if not isinstance(following, str):
                columns[following[2]].append(following)

    def height(slot: Slot) -> float:
        return box.height if isinstance(slot, str) else _BEND_HEIGHT

    room = _TALL * (box.height + box.gap)
    tall = any(sum(height(it) + box.gap for it in column) > room for column in columns.values())
    middles: dict[Slot, float] = {}
    for _, column in sorted(columns.items()):
        wanted = {
            slot: min(near) if tall else sum(near) / len(near)
            for slot in column
            if (near := [middles[it] for it in before[slot]])
        }
        column.sort(key=lambda slot: wanted.get(slot, 0.0))  # stable: else by order of appearance
        targets, heights = [wanted.get(slot, 0.0) for slot in column], [*map(height, column)]
        places = _apart(targets, heights, box.gap, down=tall)
        middles.update(zip(column, places))
    return middles


def _apart(
    wanted: Sequence[float], heights: Sequence[float], gap: float, *, down: bool
) -> list[float]:
    """Return the places nearest to the wanted ones, by least squares, that do not overlap.

    With `down`, nothing is above the place it wants.
    """
    offsets, offset = [], 0.0
    groups: list[tuple[float, int]] = []  # neighbours that touch: sum of their shifts, and number
    for number, (want, height) in enumerate(zip(wanted, heights)):
        if number:
            offset += (heights[number - 1] + height) / 2 + gap
        offsets.append(offset)
        total, count = want - offset, 1
        while groups and groups[-1][0] / groups[-1][1] >= total / count:
            above, number_above = groups.pop()
            total = above / number_above * (number_above + count) if down else total + above
            count += number_above
        groups.append((total, count))
    shifts = [total / count for total, count in groups for _ in range(count)]
    return [shift + offset for shift, offset in zip(shifts, offsets)]
