from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.analysis.dag import layers

NODES = [f"n{number}" for number in range(9)]
pairs = st.tuples(st.sampled_from(NODES), st.sampled_from(NODES))


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([], [["a", "b", "c"]]),
        ([("a", "b"), ("b", "c"), ("a", "c")], [["a"], ["b"], ["c"]]),
        ([("c", "a")], [["b", "c"], ["a"]]),
        ([("a", "a"), ("a", "b")], [["a", "c"], ["b"]]),  # a stage that continues as itself
        ([("a", "b"), ("b", "a"), ("b", "c")], [["a"], ["b"], ["c"]]),  # stages in a cycle
        ([("b", "c"), ("c", "b"), ("b", "a")], [["b"], ["a", "c"]]),  # what follows a cycle
    ],
)
def test_a_node_is_deeper_than_all_that_lead_to_it(
    edges: list[tuple[str, str]], expected: list[list[str]]
) -> None:
    depths = layers(["a", "b", "c"], edges)
    found = [[it for it in "abc" if depths[it] == depth] for depth in range(len(expected))]
    assert found == expected


@given(st.lists(pairs))
def test_edges_that_form_no_cycle_lead_deeper_and_none_stays_in_its_layer(
    edges: list[tuple[str, str]],
) -> None:
    edges = [(one, other) for one, other in edges if one != other]
    depths = layers(NODES, edges)
    assert [*depths] == NODES
    assert all(depths[source] != depths[target] for source, target in edges)
    without_cycles = [(one, other) for one, other in edges if one < other]
    depths = layers(NODES, without_cycles)
    assert all(depths[source] < depths[target] for source, target in without_cycles)
    for node in NODES:
        sources = [depths[one] for one, other in without_cycles if other == node]
        assert depths[node] == max(sources, default=-1) + 1


def test_a_long_chain_takes_no_recursion() -> None:
    nodes = [str(number) for number in range(100_000)]
    assert layers(nodes, list(zip(nodes, nodes[1:])))[nodes[-1]] == len(nodes) - 1
