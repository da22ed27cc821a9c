"""A layered layout of a DAG, left to right, that keeps its shape while the DAG grows.

The layer of a node depends only on its upstream, and its place in the layer on the places of its
upstream: tasks that are added later, downstream, do not move the nodes that are already drawn.
Edges over several layers bend around the nodes between them.

`lay_out` is for a page that can scroll, `grid` for a panel that cannot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Union

from .dag import layers

Point = tuple[float, float]
Ends = tuple[str, str]
Bend = tuple[str, str, int]  # where an edge passes a layer
Slot = Union[str, Bend]

_BEND_HEIGHT = 6.0
_MAX_BENDS = 20_000  # beyond, edges go straight
_MAX_GRID_BENDS = 2_000
_TALL = 12  # nodes in one layer, or edges of their height: more than fit on a screen
_MAX_ROWS = 20  # of a layer on a grid


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
    forward = _forward(edges, depths)
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


class Place(NamedTuple):
    """Where a node is on a grid; rows may be halved."""

    column: int
    row: float


def grid(nodes: Sequence[str], edges: Collection[Ends], widths: Sequence[int]) -> dict[str, Place]:
    """Place nodes on the smallest grid of these widths that holds them; edges are as in `lay_out`.

    Edges are straight: those of one node share their bends, beside which there are no nodes. A
    layer of many nodes is folded into several columns, every second one half a row lower. What is
    wider than the grid goes on below, in the opposite direction.
    """
    depths = layers(nodes, edges)
    forward = dict.fromkeys(_forward(edges, depths).values())
    columns, before = _slots(nodes, depths, _chains(forward, depths, _MAX_GRID_BENDS, shared=True))
    sizes = [sum(isinstance(slot, str) for slot in column) for column in columns]
    width, most = _shape(sizes, widths)
    order: dict[Slot, float] = {}  # in a layer that is not folded
    rows: dict[Slot, float] = {}
    places: dict[str, Place] = {}
    left = 0
    for column, size in zip(columns, sizes):
        column = _bends_inside(
            column, {it: _mean([order[up] for up in before[it]]) for it in column}
        )
        order.update((slot, at - len(column) / 2) for at, slot in enumerate(column))
        wanted = [_mean([rows[up] for up in before[slot]]) for slot in column]
        if size <= most:
            wanted = _apart(wanted, [1.0] * len(column), 0, down=False)
        rows.update(zip(column, wanted))
        height = -(-size // -(-size // most))
        for number, node in enumerate(slot for slot in column if isinstance(slot, str)):
            at = left + number // height
            if size > most:
                rows[node] = number % height - (height - 1) / 2 + at % 2 / 2
            places[node] = Place(at, rows[node])
        left += -(-size // height)
    return _wrap(places, width)


def _bends_inside(column: Sequence[Slot], wanted: Mapping[Slot, float]) -> list[Slot]:
    """Sort a layer; of slots that want the same place, bends are in the middle."""
    found: list[Slot] = []
    for _, alike in groupby(sorted(column, key=wanted.__getitem__), key=wanted.__getitem__):
        slots = [*alike]
        nodes: list[Slot] = [it for it in slots if isinstance(it, str)]
        half = len(nodes) // 2
        found += [*nodes[:half], *(it for it in slots if not isinstance(it, str)), *nodes[half:]]
    return found


def _shape(sizes: Sequence[int], widths: Sequence[int]) -> tuple[int, int]:
    """Return the width of the grid, and the most rows of a layer: the smallest that hold all."""
    shapes = [(width, max(width * 3 // 4, min(width, 8))) for width in widths]
    shapes += [(widths[-1], rows) for rows in range(shapes[-1][1] + 1, _MAX_ROWS + 1)]

    widest = max(sizes, default=0)

    def height(shape: tuple[int, int]) -> int:
        width, rows = shape
        bands = -(-sum(-(-size // rows) for size in sizes) // width)
        return bands * min(rows, widest)

    # Where one band ends and the next begins, edges are clear in a chain only.
    good = (it for it in shapes if height(it) <= (it[1] if widest == 1 else min(it[1], widest)))
    return next(good, min(shapes, key=height))


def _wrap(places: Mapping[str, Place], width: int) -> dict[str, Place]:
    """Cut a wide grid into bands, one below the other; every second one runs to the left."""
    bands: defaultdict[int, list[float]] = defaultdict(list)
    for place in places.values():
        bands[place.column // width].append(place.row)
    down, top = {}, 0.0
    for band, rows in sorted(bands.items()):
        down[band] = top - min(rows)
        top += max(rows) - min(rows) + 1
    wrapped = {}
    for node, (column, row) in places.items():
        band, column = divmod(column, width)
        if band % 2:
            column = width - 1 - column
        wrapped[node] = Place(column, round(row + down[band], 3))
    return wrapped


def fill(nodes: Iterable[str], width: int) -> dict[str, Place]:
    """Place nodes without edges row by row, every second one half a row lower."""
    return {
        node: Place(at % width, at // width + at % width % 2 / 2) for at, node in enumerate(nodes)
    }


def _forward(edges: Collection[Ends], depths: Mapping[str, int]) -> dict[Ends, Ends]:
    """Return each edge from left to right: one that closes a cycle goes backwards."""
    return {
        (source, target): (source, target) if depths[source] <= depths[target] else (target, source)
        for source, target in edges
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _chains(
    edges: Collection[Ends],
    depths: Mapping[str, int],
    most: int = _MAX_BENDS,
    *,
    shared: bool = False,
) -> dict[Ends, tuple[Slot, ...]]:
    """Return what each edge goes through, its ends included: at most `most` bends in all.

    They are `shared` by the edges that leave one node, or each edge has its own.
    """
    bent = sum(depths[target] - depths[source] - 1 for source, target in edges) <= most
    return {
        (source, target): (
            source,
            *(
                (source, "" if shared else target, at)
                for at in range(depths[source] + 1, depths[target])
                if bent
            ),
            target,
        )
        for source, target in edges
    }


def _slots(
    nodes: Sequence[str], depths: Mapping[str, int], chains: Mapping[Ends, tuple[Slot, ...]]
) -> tuple[list[list[Slot]], Mapping[Slot, Collection[Slot]]]:
    """Return the slots of each layer, and those from which an edge leads to a slot."""
    columns: defaultdict[int, list[Slot]] = defaultdict(list)
    for node in nodes:
        columns[depths[node]].append(node)
    before: defaultdict[Slot, dict[Slot, None]] = defaultdict(dict)
    # Sorted by the order of the nodes, so that equal graphs look the same.
    rank = {node: number for number, node in enumerate(nodes)}
    for ends in sorted(chains, key=lambda ends: (rank[ends[0]], rank[ends[1]])):
        chain = chains[ends]
        for slot, following in zip(chain, chain[1:]):
            if not isinstance(following, str) and following not in before:
                columns[following[2]].append(following)
            before[following][slot] = None
    return [column for _, column in sorted(columns.items())], before


def _middles(
    nodes: Sequence[str],
    depths: Mapping[str, int],
    chains: Mapping[Ends, tuple[Slot, ...]],
    box: Box,
) -> dict[Slot, float]:
    """Return the height of the middle of each slot: as near to those before it as may be.

    Where a layer is too tall to be seen at once, all others stay at its top, and are seen.
    """
    columns, before = _slots(nodes, depths, chains)

    def height(slot: Slot) -> float:
        return box.height if isinstance(slot, str) else _BEND_HEIGHT

    room = _TALL * (box.height + box.gap)
    tall = any(sum(height(it) + box.gap for it in column) > room for column in columns)
    middles: dict[Slot, float] = {}
    for column in columns:
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
