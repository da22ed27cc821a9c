"""Every query of every board, asked of a real Prometheus over runs of a real Ray."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional

import pytest

from boards import BOARDS, Query, filled, panels, queries, variable_queries
from cluster import Cluster
from frames import Graph, graph, table, transformed
from monitoring import HTTP, Monitoring
from served import Served
from waiting import wait_until

pytestmark = pytest.mark.timeout(600)

# Runs of one class: one that succeeded, one that failed, and one that waits for a file.
WORKFLOWS = """
import os
@ray.remote
def extract(): return list(range(1000))
@ray.remote
def transform(rows, number): return [number, *rows]
@ray.remote
def load(*parts):
    return workflow.continuation(publish.bind(len(parts)))
@ray.remote
def publish(count): return count
@ray.remote(max_retries=0)
def check(rows): raise ValueError('42 rows have no "customer id"')
@ray.remote
def hold(rows, path):
    while not os.path.exists(path): time.sleep(0.1)
    return rows
@ray.remote(num_cpus=64)
def starve(rows): return rows
def start(name, dag):
    return workflow.run_async(dag, workflow_id=name, metadata={"workflow": "etl"})
def fan(rows, width): return [transform.bind(rows, n) for n in range(width)]
one = extract.bind()
ray.get(start("etl/done", load.bind(*fan(one, 12))))
two = extract.bind()
try: ray.get(start("etl-failed", load.bind(check.bind(two), *fan(two, 3))))
except workflow.WorkflowExecutionError: pass
three = extract.bind()
start("etl-live", load.bind(hold.bind(three, sys.argv[1]), starve.bind(three), *fan(three, 250)))
workflow.get_status("etl-live")
print("started", flush=True)
sys.stdin.readline()
"""
RUNS = {"etl/done": "SUCCESSFUL", "etl-failed": "FAILED", "etl-live": "RUNNING"}

# Panels that show nothing of what runs here, and why.
EMPTY: Mapping[str, str] = {
    "ray-workflow-fleet/Queue by class, the longest ten": "No limit makes a run wait in the queue.",
}


class Stack(NamedTuple):
    """An exporter over runs of all kinds, one over nothing, and the Prometheus of both."""

    served: Served
    monitoring: Monitoring

    def query(self, query: Query, **values: str) -> list[dict[str, Any]]:
        """Ask as Grafana asks, for the last quarter of an hour."""
        texts = {
            "cluster": "production", "SessionName": ".*", "workflow": "etl", "stage": ".*",
            "__range": "15m", "__rate_interval": "10m", "__interval": "15s", "__range_s": "900",
            "run": "etl/done", **values,
        }  # fmt: skip
        return self.monitoring.query(filled(query.expr, texts))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("boards")
    nothing = tmp_path_factory.mktemp("nothing")
    (nothing / "storage").mkdir()
    with Cluster(num_cpus=4) as cluster:
        settings = folder / "settings.yml"
        settings.write_text("classes: {etl: {expected_interval: 1h, deadline: 1s}}\n")
        served = Served(folder, "--address", cluster.address, "--config", str(settings)).start()
        empty = Served(nothing, "--address", "none", "--storage", str(nothing / "storage")).start()
        targets = {
            f"127.0.0.1:{served.port}": {"cluster": "production"},
            f"127.0.0.1:{empty.port}": {"cluster": "empty"},
        }
        try:
            with Monitoring(folder, targets, after="1s") as monitoring:
                # A counter that is first seen after its increase has none.
                wait_until(
                    lambda: monitoring.query(
                        'count_over_time(ray_workflow_runs_finished_total{workflow="etl"}[1m]) > 2'
                    ),
                    message="Prometheus does not know the class yet",
                )
                driver = cluster.start_driver(WORKFLOWS, str(folder / "go"))
                assert driver.stdout
                assert driver.stdout.readline() == "started\n"
                for run, status in RUNS.items():
                    wait_until(
                        lambda run=run, status=status: monitoring.query(  # type: ignore[misc]
                            f'ray_workflow_status{{workflow_id="{run}",status="{status}"}} == 1'
                        ),
                        timeout=60,
                        message=f"Prometheus does not know {run} as {status}",
                    )
                wait_until(
                    lambda: monitoring.query(
                        'ray_workflow_stage_tasks{workflow_id="etl-live",state="SUCCESSFUL",'
                        'stage="__main__.transform"} == 250'
                    ),
                    timeout=120,
                    message="the wide stage is not done",
                )
                yield Stack(served, monitoring)
                assert monitoring.rule_faults() == {}
        finally:
            (folder / "go").touch()
            served.stop()
            empty.stop()


@pytest.mark.parametrize("query", list(queries()), ids=str)
def test_a_query_finds_what_its_panel_shows(stack: Stack, query: Query) -> None:
    def found() -> Optional[list[Any]]:
        return [it for run in RUNS for it in stack.query(query, run=run)] or None

    # What looks back for days adds up ten-minute records, of which there is none so soon.
    early = re.search(r"_7d\b|increase(?:1d|3d|30d)\b", query.expr)
    if early or f"{query.board}/{query.panel}" in EMPTY:
        found()
    else:
        # Rates and alerts need some seconds of history.
        wait_until(found, timeout=60, interval=1, message=f"{query} finds nothing")


@pytest.mark.parametrize("query", list(queries()), ids=str)
def test_a_query_over_an_empty_fleet_is_no_error(stack: Stack, query: Query) -> None:
    for result in (
        stack.query(query, cluster="empty", run="", workflow=".*"),
        stack.query(query, cluster="nowhere", run="", workflow=""),
    ):
        assert all(it["metric"].get("cluster", "") in ("", "empty") for it in result)


@pytest.mark.parametrize("name", BOARDS)
def test_variables_offer_what_there_is(stack: Stack, name: str) -> None:
    expected = {
        "cluster": {"production", "empty"}, "workflow": {"etl"}, "run": set(RUNS),
        "SessionName": set(), "stage": {"__main__.extract", "__main__.load"},
    }  # fmt: skip
    chosen = {"cluster": "production", "SessionName": ".*", "workflow": "etl", "run": "etl/done"}
    for variable, query in variable_queries(BOARDS[name]):
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert match
        answer = HTTP.get(
            f"{stack.monitoring.prometheus}/api/v1/label/{match[2]}/values",
            params={"match[]": filled(match[1], chosen)},
            timeout=10,
        ).json()
        assert answer["status"] == "success", answer
        assert set(answer["data"]) >= expected[variable], variable


GRAPHS = [
    (name, panel)
    for name, board in BOARDS.items()
    for panel in panels(board)
    if panel["type"] == "nodeGraph"
]


def drawn(stack: Stack, name: str, panel: Mapping[str, Any], run: str, **values: str) -> Graph:
    """Return the graph that a panel draws of a run."""
    targets = panel["targets"]
    frames = []
    for target in targets:
        assert target["format"] == "table"
        query = Query(name, panel["title"], target["refId"], target["expr"], True)
        result = stack.query(query, run=run, **values)
        frames.append(table(target["refId"], result, alone=len(targets) == 1))
    return graph(transformed(frames, panel.get("transformations", ())))


def by_stages() -> tuple[str, dict[str, Any]]:
    return next(it for it in GRAPHS if "stage" in it[1]["title"].lower())


def by_tasks() -> tuple[str, dict[str, Any]]:
    return next(it for it in GRAPHS if "task" in it[1]["title"].lower())


def test_the_graph_of_stages_is_that_of_the_run(stack: Stack) -> None:
    name, panel = by_stages()
    done = drawn(stack, name, panel, "etl/done")
    assert set(done.nodes) == {
        f"__main__.{it}" for it in ("extract", "transform", "load", "publish")
    }
    assert {(it["source"], it["target"]) for it in done.edges.values()} == {
        ("__main__.extract", "__main__.transform"),
        ("__main__.transform", "__main__.load"),
        ("__main__.load", "__main__.publish"),
    }
    assert done.nodes["__main__.transform"]["mainstat"] == "12/12"
    live = drawn(stack, name, panel, "etl-live")
    assert live.nodes["__main__.transform"]["mainstat"] == "250/250"
    assert live.nodes["__main__.hold"]["arc__running"] == 1
    assert live.nodes["__main__.starve"]["arc__pending"] == 1
    assert live.nodes["__main__.load"]["arc__waiting"] == 1
    failed = drawn(stack, name, panel, "etl-failed")
    assert failed.nodes["__main__.check"]["arc__failed"] == 1


def test_the_graph_of_tasks_is_that_of_the_run(stack: Stack) -> None:
    name, panel = by_tasks()
    done = drawn(stack, name, panel, "etl/done")
    assert len(done.nodes) == 15
    assert len(done.edges) == 12 + 12 + 1
    failed = drawn(stack, name, panel, "etl-failed")
    (red,) = [it for it in failed.nodes.values() if it["color"] == "#d55e00"]
    assert red["id"] == "__main__.check"
    (hint,) = drawn(stack, name, panel, "etl-live").nodes.values()
    assert hint["title"].startswith("254 tasks"), "more than a panel can show"


@pytest.mark.parametrize(("name", "panel"), GRAPHS, ids=[panel["title"] for _, panel in GRAPHS])
def test_a_graph_of_nothing_says_so(stack: Stack, name: str, panel: dict[str, Any]) -> None:
    found = drawn(stack, name, panel, "no such run")
    assert len(found.nodes) == 1
    assert not found.edges
