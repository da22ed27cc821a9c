"""Where the nodes and edges of a DAG are drawn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.analysis.layered import Box, Layout, fill, grid, lay_out

BOX = Box(width=100, height=40, gap=10, between=50)
WIDTHS = (8, 12, 16)
NODES = [f"n{number}" for number in range(14)]
Graph = tuple[list[str], list[tuple[str, str]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph, cycles included."""
    nodes = NODES[: draw(st.integers(0, len(NODES)))]
    pairs = [(one, other) for one in nodes for other in nodes if one != other]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return nodes, edges


@st.composite
def dags(draw: st.DrawFn) -> Graph:
    nodes, edges = draw(graphs())
    return nodes, [(one, other) for one, other in edges if nodes.index(one) < nodes.index(other)]


def layer(layout: Layout, node: str) -> float:
    return layout.nodes[node][0] / (BOX.width + BOX.between)


@given(graphs())
def test_no_two_nodes_touch_and_all_lie_within(graph: Graph) -> None:
    nodes, edges = graph
    layout = lay_out(nodes, edges, BOX)
    assert list(layout.nodes) == nodes
    for number, node in enumerate(nodes):
        x, y = layout.nodes[node]
        assert 0 <= x <= layout.width - BOX.width
        assert -0.01 <= y <= layout.height - BOX.height + 0.01
        for other in nodes[number + 1 :]:
            if layout.nodes[other][0] == x:
                assert abs(layout.nodes[other][1] - y) >= BOX.height + BOX.gap - 0.01


@given(graphs())
def test_edges_begin_and_end_at_the_sides_of_their_nodes(graph: Graph) -> None:
    nodes, edges = graph
    layout = lay_out(nodes, edges, BOX)
    assert set(layout.edges) == set(edges)
    for (source, target), points in layout.edges.items():
        (left_x, left_y), (right_x, right_y) = sorted([points[0], points[-1]])
        left, right = sorted([source, target], key=lambda node: layout.nodes[node])
        assert (left_x, left_y) == (
            layout.nodes[left][0] + BOX.width,
            pytest.approx(layout.nodes[left][1] + BOX.height / 2),
        )
        assert (right_x, right_y) == (
            layout.nodes[right][0],
            pytest.approx(layout.nodes[right][1] + BOX.height / 2),
        )
        assert len(points) % 2 == 0


@given(dags())
def test_edges_of_a_dag_run_from_left_to_right_and_around_nodes(graph: Graph) -> None:
    nodes, edges = graph
    layout = lay_out(nodes, edges, BOX)
    for source, target in edges:
        assert layer(layout, source) < layer(layout, target)
    for points in layout.edges.values():
        for (x, y), (to_x, to_y) in zip(points[1:-1:2], points[2:-1:2]):
            assert (to_x, to_y) == (x + BOX.width, y)
            for node_x, node_y in layout.nodes.values():
                assert node_x != x or not node_y <= y <= node_y + BOX.height


@given(dags(), st.data())
def test_what_comes_downstream_moves_no_node_to_another_layer(
    graph: Graph, data: st.DataObject
) -> None:
    nodes, edges = graph
    before = lay_out(nodes, edges, BOX)
    more = data.draw(st.lists(st.sampled_from(nodes), unique=True)) if nodes else []
    after = lay_out([*nodes, "new"], [*edges, *((node, "new") for node in more)], BOX)
    for node in nodes:
        assert after.nodes[node][0] == before.nodes[node][0]


def test_a_fan_out_lies_around_its_source() -> None:
    layout = lay_out(list("abcde"), [("a", it) for it in "bcd"] + [(it, "e") for it in "bcd"], BOX)
    heights = {node: y for node, (_, y) in layout.nodes.items()}
    assert heights == {"a": 50, "b": 0, "c": 50, "d": 100, "e": 50}
    assert (layout.width, layout.height) == (400, 140)


def test_beside_a_wide_fan_out_all_others_are_at_its_top() -> None:
    middle = [f"m{number}" for number in range(40)]
    edges = [("a", it) for it in middle] + [(it, "z") for it in middle]
    layout = lay_out(["a", *middle, "z"], edges, BOX)
    assert layout.nodes["a"] == (0, 0)
    assert layout.nodes["z"] == (300, 0)
    assert layout.nodes["m39"] == (150, 39 * 50)


def test_what_many_long_edges_pass_stays_at_the_top() -> None:
    nodes = [f"n{number}" for number in range(60)]
    edges = {*zip(nodes, nodes[1:]), *(("n0", it) for it in nodes[1:])}
    layout = lay_out(nodes, edges, BOX)
    assert {y for _, y in layout.nodes.values()} == {0}


def test_it_grows_with_what_there_is_to_draw() -> None:
    # 500 nodes that all depend on all before them: 124,750 edges, which would bend 20 million
    # times.
    nodes = [str(number) for number in range(500)]
    edges = [(one, other) for number, one in enumerate(nodes) for other in nodes[number + 1 :]]
    layout = lay_out(nodes, edges, BOX)
    assert sum(map(len, layout.edges.values())) == 2 * len(edges)


def chain(length: int) -> Graph:
    nodes = [str(number) for number in range(length)]
    return nodes, list(zip(nodes, nodes[1:]))


def fan_out(width: int) -> Graph:
    middle = [f"m{number}" for number in range(width)]
    return ["a", *middle, "z"], [("a", it) for it in middle] + [(it, "z") for it in middle]


@given(graphs())
def test_no_two_nodes_share_a_place_on_the_grid(graph: Graph) -> None:
    nodes, edges = graph
    places = grid(nodes, edges, WIDTHS)
    assert places.keys() == set(nodes)
    assert all(0 <= column < WIDTHS[-1] and row >= 0 for column, row in places.values())
    for number, node in enumerate(nodes):
        for other in nodes[number + 1 :]:
            if places[node].column == places[other].column:
                assert abs(places[node].row - places[other].row) > 0.99


@given(dags(), st.data())
def test_what_comes_downstream_moves_no_node_to_another_column(
    graph: Graph, data: st.DataObject
) -> None:
    nodes, edges = graph
    before = grid(nodes, edges, (20,))
    more = data.draw(st.lists(st.sampled_from(nodes), unique=True)) if nodes else []
    after = grid([*nodes, "new"], [*edges, *((node, "new") for node in more)], (20,))
    assert {it: after[it].column for it in nodes} == {it: before[it].column for it in nodes}


def test_a_chain_goes_from_left_to_right() -> None:
    assert [*grid(*chain(5), WIDTHS).values()] == [(number, 0) for number in range(5)]


def test_a_long_chain_turns_at_the_end_of_each_line() -> None:
    places = [*grid(*chain(20), WIDTHS).values()]
    assert places[:9] == [*((number, 0) for number in range(8)), (7, 1)]
    assert places[15:17] == [(0, 1), (0, 2)]
    assert places[-1] == (3, 2)


def test_a_straight_edge_over_a_layer_passes_between_its_nodes() -> None:
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "d")]
    places = grid(list("abcd"), edges, WIDTHS)
    assert places == {"a": (0, 1), "b": (1, 0), "c": (1, 2), "d": (2, 1)}


@pytest.mark.parametrize(
    ("width", "columns", "rows"), [(8, 3, 8), (100, 11, 12.5), (198, 16, 15.5)]
)
def test_a_fan_out_is_folded_to_fit_on_a_screen(width: int, columns: int, rows: float) -> None:
    places = grid(*fan_out(width), WIDTHS)
    assert len(set(places.values())) == width + 2
    assert max(it.column for it in places.values()) + 1 == columns
    assert max(it.row for it in places.values()) + 1 <= rows
    assert places["a"].column == 0
    assert places["z"].column == columns - 1


def test_nodes_without_edges_fill_the_lines() -> None:
    assert fill("abcde", 3) == {"a": (0, 0), "b": (1, 0.5), "c": (2, 0), "d": (0, 1), "e": (1, 1.5)}
