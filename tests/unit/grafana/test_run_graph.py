"""What the node graphs of a run ask Prometheus, and what reaches the panel of it."""

from __future__ import annotations

import re
from collections import defaultdict

from support.dashboards import ALL, DASHBOARDS, filled, offers, panels, variables
from support.frames import graph, table, transformed

RUN = DASHBOARDS["ray-workflow-run"]


def test_graphs_look_at_what_has_settled() -> None:
    graphs = [panel for panel in panels(RUN) if panel["type"] == "nodeGraph"]
    assert graphs
    for panel in graphs:
        assert panel["timeShift"] == "2s", "nodes and edges are asked one after the other"
        assert panel["hideTimeOverride"]


def test_positions_become_numbers_of_the_panel() -> None:
    graphs = [panel for panel in panels(RUN) if panel["type"] == "nodeGraph"]
    for panel in graphs:
        refs = [target["refId"] for target in panel["targets"]]
        answers = [
            {"metric": {"id": "a", "title": "a"}, "value": [0, "-1.5"]},
            {"metric": {"id": "b", "title": "b"}, "value": [0, "0"]},
        ]
        edge = {"metric": {"id": "ab12", "source": "a", "target": "b"}, "value": [0, "1"]}
        known = {"nodes": answers, "x": answers, "y": answers, "edges": [edge]}
        frames = [table(ref, known.get(ref, []), alone=False) for ref in refs]
        found = graph(transformed(frames, panel["transformations"]))
        assert {name: node["fixedx"] for name, node in found.nodes.items()} == {"a": -2, "b": 0}


def test_no_query_looks_at_tasks_that_cannot_be_drawn() -> None:
    variable = variables(RUN)["times"]
    many = {"metric": {"times": "{0}"}, "value": [1.7e9, "972"]}
    assert offers(variable, [many]) == ["{0}"]
    (by_task,) = [panel for panel in panels(RUN) if panel["title"].startswith("DAG by task")]
    for target in by_task["targets"]:
        for times, stages in (("", {"a.b", "a+b"}), ("{0}", set())):
            values = defaultdict(str, stage=ALL, times=times)
            looked_back = re.findall(
                r"task_state\{[^}]*stage=~`([^`]*)`[^}]*\}\)?\[", filled(target["expr"], values)
            )
            assert looked_back
            without_stage = re.findall(
                r"task_(?:start|duration|attempts|edge)\w*(\{.*)", target["expr"]
            )
            assert all("=~`(?s:.*)${times:raw}`" in it for it in without_stage)
            for matcher in looked_back:
                assert {it for it in ("a.b", "a+b") if re.fullmatch(matcher, it)} == stages
