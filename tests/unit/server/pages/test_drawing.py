"""The DAG as it is drawn on the page of a run."""

from __future__ import annotations

import pytest

from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState
from ray_workflow_exporter.responses import run_graph
from ray_workflow_exporter.server.pages.drawing import MAX_NODES
from ray_workflow_exporter.server.pages.run_page import TASKS_PER_PAGE
from support.fake_source import FakeSource
from support.pages import Client, get, of


@pytest.mark.parametrize("level", ["stage", "task"])
async def test_the_drawing_has_the_nodes_and_edges_of_the_api(
    client: Client, source: FakeSource, level: str
) -> None:
    page = await get(client, f"{of('train-7')}?level={level}")
    graph = run_graph(source.held["train-7"], level)
    assert [it["data-node"] for it in page.all("a") if "data-node" in it] == [
        node["id"] for node in graph["nodes"]
    ]
    assert [
        {name: it[f"data-{name}"] for name in ("source", "target", "kind")}
        for it in page.all("path")
        if "data-kind" in it
    ] == graph["edges"]


async def test_a_run_too_big_to_be_drawn_by_task_is_drawn_by_stage(
    client: Client, source: FakeSource
) -> None:
    tasks = {
        f"map_{number}": Task(f"map_{number}", "map", TaskState.RUNNING, start_time=1.0)
        for number in range(MAX_NODES + 1)
    }
    wide = Run("wide", "wide", RunStatus.RUNNING, tasks=tasks, start_time=1.0)
    source.held = FakeSource(wide).held
    by_task = await get(client, of("wide") + "?level=task")
    assert f"more than {MAX_NODES} nodes" in " ".join(by_task.text.split())
    assert [it for it in by_task.all("a") if "data-node" in it] == []
    by_stage = await get(client, of("wide"))
    assert [it["aria-label"] for it in by_stage.all("a") if "data-node" in it] == [
        f"map: {MAX_NODES + 1} RUNNING, on the critical path"
    ]


async def test_a_run_of_many_stages_shows_the_first_of_them(
    client: Client, source: FakeSource
) -> None:
    many = MAX_NODES + 7
    names = [f"of_user_{number}x" for number in range(many)]
    tasks = {name: Task(name, name, TaskState.RUNNING, start_time=1.0) for name in names}
    source.held = FakeSource(Run("many", "many", RunStatus.RUNNING, tasks=tasks)).held
    page = await get(client, of("many") + f"?stage={names[-1]}")
    assert len(page.all("tr")) == MAX_NODES + 3  # with two heads, and the task
    assert "7 more in the API" in page.text
    options = [it for it in page.all("option") if it["value"]]
    assert len(options) == MAX_NODES + 1
    assert [it["value"] for it in options if "selected" in it] == [names[-1]]
    assert len((await get(client, of("many"))).all("tr")) == MAX_NODES + 2 + TASKS_PER_PAGE
