"""Every query of every dashboard, asked of a real Prometheus over runs of a real Ray."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any, NamedTuple, Optional
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from support.cluster import Cluster
from support.dashboards import (
    ALL,
    DASHBOARDS,
    Query,
    computed_variables,
    filled,
    offers,
    page_links,
    panels,
    queries,
    row_links,
    variable_queries,
    variables,
)
from support.frames import Graph, graph, table, transformed
from support.monitoring import HTTP, Monitoring
from support.served import Served
from support.trees import StorageTree
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

# Names as users give them.
WORKFLOW = 'etl "daily" \\ d\'eu/west (1.0)'
DONE = 'etl "daily"\\d\'eu/2026.01 #1'
OTHER = "staging.eu & co"  # a cluster that has the second name, too, for another run
# Runs of one workflow: one that succeeded, one that failed, and one that waits for a file.
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
    return workflow.run_async(dag, workflow_id=name, metadata={"workflow": sys.argv[2]})
def fan(rows, width): return [transform.bind(rows, n) for n in range(width)]
one = extract.bind()
ray.get(start(sys.argv[3], load.bind(*fan(one, 12))))
two = extract.bind()
try: ray.get(start("etl-failed", load.bind(check.bind(two), *fan(two, 3))))
except workflow.WorkflowExecutionError: pass
three = extract.bind()
start("etl-live", load.bind(hold.bind(three, sys.argv[1]), starve.bind(three), *fan(three, 250)))
workflow.get_status("etl-live")
print("started", flush=True)
sys.stdin.readline()
"""
RUNS = {DONE: "SUCCESSFUL", "etl-failed": "FAILED", "etl-live": "RUNNING"}

# Panels that show nothing of what runs here, and why.
EMPTY: Mapping[str, str] = {
    "ray-workflow-fleet/Queue by workflow, ten longest": "No limit makes a run wait.",
    "ray-workflow-exporter/": "No alert that concerns the exporter itself fires.",
}


class Stack(NamedTuple):
    """Exporters over runs of all kinds and over others, and the Prometheus of all."""

    served: Served
    monitoring: Monitoring

    def query(self, query: Query, **values: str) -> list[dict[str, Any]]:
        """Ask as Grafana asks, for the last quarter of an hour."""
        texts = {
            "cluster": "production", "SessionName": ALL, "workflow": WORKFLOW, "stage": ALL,
            "__range": "15m", "__rate_interval": "10m", "__interval": "15s", "__range_s": "900",
            "run": DONE, "run_cluster": "production", "times": "", **values,
        }  # fmt: skip
        return self.monitoring.query(filled(query.expr, texts))

    def offered(self, dashboard: str, variable: str, **values: str) -> list[str]:
        """Return what a variable offers, with those before it as chosen here."""
        found = variables(DASHBOARDS[dashboard])[variable]
        computed = dict(computed_variables(DASHBOARDS[dashboard])).get(variable)
        if computed is not None:
            query = Query(dashboard, "", variable, computed, True)
            return offers(found, self.query(query, **values))
        listed = dict(variable_queries(DASHBOARDS[dashboard]))[variable]
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", listed)
        assert match
        chosen = {"cluster": "production", "SessionName": ALL, "workflow": WORKFLOW, "run": DONE,
                  "run_cluster": "production", **values}  # fmt: skip
        answer = HTTP.get(
            f"{self.monitoring.prometheus}/api/v1/label/{match[2]}/values",
            params={"match[]": filled(match[1], chosen)},
            timeout=10,
        ).json()
        assert answer["status"] == "success", answer
        pattern = found["regex"].strip("/")
        return [it for it in sorted(answer["data"]) if re.search(pattern, it)]


def other_cluster(storage: StorageTree) -> None:
    """Write a run that has its id and workflow from one of the first cluster, and another DAG."""
    now = time.time()
    for name in (DONE, "tick`tock"):
        run = storage.run(name, {"workflow": WORKFLOW}).task("load").task("check", "load")
        run.entry("check").status("RUNNING", now - 90).succeed("load", now - 80, now - 60)
        run.start("check", now - 50).fail("check", ValueError("no rows")).status("FAILED", now - 40)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("dashboards")
    nothing, others = (tmp_path_factory.mktemp(name) for name in ("nothing", "others"))
    (nothing / "storage").mkdir()
    (others / "storage").mkdir()
    other_cluster(StorageTree(str(others / "storage")))
    with Cluster(num_cpus=4) as cluster:
        settings = folder / "settings.yml"
        promised = {"expected_interval": "1h", "deadline": "1s"}
        settings.write_text(yaml.safe_dump({"workflows": {WORKFLOW: promised}}))
        served = Served(folder, "--address", cluster.address, "--config", str(settings)).start()
        empty, other = (
            Served(it, "--address", "none", "--storage", str(it / "storage")).start()
            for it in (nothing, others)
        )
        targets = {
            f"127.0.0.1:{served.port}": {"cluster": "production"},
            f"127.0.0.1:{empty.port}": {"cluster": "empty"},
            f"127.0.0.1:{other.port}": {"cluster": OTHER},
        }
        try:
            with Monitoring(folder, targets, after="1s") as monitoring:
                # A counter that is first seen after its increase has none.
                wait_until(
                    lambda: monitoring.query(
                        'count_over_time(ray_workflow_runs_finished_total{cluster="production",'
                        f"workflow=`{WORKFLOW}`}}[1m]) > 2"
                    ),
                    message="Prometheus does not know the workflow yet",
                )
                driver = cluster.start_driver(WORKFLOWS, str(folder / "go"), WORKFLOW, DONE)
                assert driver.next_line(timeout=300) == "started"
                for run, status in RUNS.items():
                    wait_until(
                        lambda run=run, status=status: monitoring.query(  # type: ignore[misc]
                            f'ray_workflow_run_status{{cluster="production",workflow_id=`{run}`,'
                            f'status="{status}"}} == 1'
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
            for exporter in (served, empty, other):
                exporter.stop()


@pytest.mark.parametrize("query", list(queries()), ids=str)
def test_a_query_finds_what_its_panel_shows(stack: Stack, query: Query) -> None:
    if not query.panel and not query.instant:  # an annotation is there at one moment alone
        query = query._replace(expr=f"last_over_time(({query.expr})[10m:5s])")

    def found() -> Optional[list[Any]]:
        return [it for run in RUNS for it in stack.query(query, run=run)] or None

    # What looks back for days adds up ten-minute records, of which there is none so soon.
    early = re.search(r"_7d\b|increase(?:1d|3d|30d)\b", query.expr)
    if early or f"{query.dashboard}/{query.panel}" in EMPTY:
        found()
    else:
        # Rates and alerts need some seconds of history.
        wait_until(found, timeout=60, interval=1, message=f"{query} finds nothing")


@pytest.mark.parametrize("query", list(queries()), ids=str)
def test_a_query_over_an_empty_fleet_is_no_error(stack: Stack, query: Query) -> None:
    for result in (
        stack.query(query, cluster="empty", run="", run_cluster="", workflow=ALL),
        stack.query(query, cluster="nowhere", run="", run_cluster="", workflow=""),
    ):
        assert all(it["metric"].get("cluster", "") in ("", "empty") for it in result)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_offer_what_there_is(stack: Stack, name: str) -> None:
    expected = {
        "cluster": {"production", "empty", OTHER}, "workflow": {WORKFLOW}, "run": set(RUNS),
        "SessionName": set(), "run_cluster": {"production"},
        "stage": {"__main__.extract", "__main__.load"}, "times": set(),
    }  # fmt: skip
    dashboard = DASHBOARDS[name]
    for variable, _ in (*variable_queries(dashboard), *computed_variables(dashboard)):
        assert set(stack.offered(name, variable)) >= expected[variable], variable


def test_the_newest_run_is_offered_first(stack: Stack) -> None:
    offered = stack.offered("ray-workflow-run", "run")
    assert offered == ["etl-live", "etl-failed", DONE]


def test_no_run_is_offered_that_no_query_can_name(stack: Stack) -> None:
    assert stack.offered("ray-workflow-run", "run", cluster=OTHER) == [DONE]


GRAPHS = [
    (name, panel)
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    if panel["type"] == "nodeGraph"
]


def drawn(stack: Stack, name: str, panel: Mapping[str, Any], run: str, **values: str) -> Graph:
    """Return the graph that a panel draws of a run."""
    targets = panel["targets"]
    frames = []
    values["times"] = "".join(stack.offered(name, "times", run=run, **values))
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
    done = drawn(stack, name, panel, DONE)
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
    done = drawn(stack, name, panel, DONE)
    assert len(done.nodes) == 15
    assert len(done.edges) == 12 + 12 + 1
    failed = drawn(stack, name, panel, "etl-failed")
    (red,) = [it for it in failed.nodes.values() if it["color"] == "#cc1f1f"]
    assert red["id"] == "__main__.check"
    (hint,) = drawn(stack, name, panel, "etl-live").nodes.values()
    assert hint["title"].startswith("254 tasks"), "more than a panel can show"
    assert hint["subtitle"] == "select one stage"
    stage = "__main__.transform"
    (hint,) = drawn(stack, name, panel, "etl-live", stage=stage).nodes.values()
    assert hint["title"].startswith("250 tasks")
    assert hint["subtitle"] == "see the table Tasks"
    some = drawn(stack, name, panel, "etl-live", stage="__main__.hold")
    assert set(some.nodes) == {"__main__.hold"}


def test_a_graph_lies_around_its_middle_from_left_to_right(stack: Stack) -> None:
    for name, panel in GRAPHS:
        found = drawn(stack, name, panel, DONE)
        for axis in ("fixedx", "fixedy"):
            places = [it[axis] for it in found.nodes.values()]
            assert abs(max(places) + min(places)) <= 100
        for edge in found.edges.values():
            source, target = (found.nodes[edge[end]] for end in ("source", "target"))
            assert source["fixedx"] < target["fixedx"]


@pytest.mark.parametrize(("name", "panel"), GRAPHS, ids=[panel["title"] for _, panel in GRAPHS])
def test_a_graph_of_nothing_says_so(stack: Stack, name: str, panel: dict[str, Any]) -> None:
    found = drawn(stack, name, panel, "no such run")
    assert len(found.nodes) == 1
    assert not found.edges


def test_the_page_of_a_run_opens(stack: Stack) -> None:
    for dashboard in DASHBOARDS.values():
        for url in page_links(dashboard):
            values = defaultdict(lambda: DONE, exporter=stack.served.url)
            page = HTTP.get(filled(url, values, link=True), timeout=10)
            assert page.ok, url
            assert DONE in unescape(page.text)


def led_to(stack: Stack) -> set[tuple[Optional[str], ...]]:
    """Follow the links of all rows of all clusters: dashboard, cluster, workflow and run."""
    found = set()
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for url in row_links(panel):
                for target in panel["targets"] if "&var-workflow=" in url else ():
                    query = Query(name, panel["title"], target["refId"], target["expr"], True)
                    for row in stack.query(query, cluster=ALL):
                        values = {f"__data.fields.{key}": it for key, it in row["metric"].items()}
                        opened = urlsplit(filled(url, defaultdict(str, values), link=True))
                        asked = dict(parse_qsl(opened.query))
                        names = ("var-cluster", "var-workflow", "var-run")
                        found.add((opened.path, *(asked.get(it) for it in names)))
    return found


def test_a_row_leads_to_the_run_of_its_own_cluster(stack: Stack) -> None:
    stages = {
        "production": {f"__main__.{it}" for it in ("extract", "transform", "load", "publish")},
        OTHER: {"load", "check"},
    }
    expected = {
        place
        for cluster in stages
        for place in (
            ("/d/ray-workflow-workflow", cluster, WORKFLOW, None),
            ("/d/ray-workflow-run", cluster, WORKFLOW, DONE),
        )
    }
    wait_until(lambda: expected <= led_to(stack), timeout=60, message="a run has no link")
    for cluster, nodes in stages.items():
        assert stack.offered("ray-workflow-run", "run_cluster", cluster=cluster) == [cluster]
        run = drawn(stack, *by_stages(), run=DONE, cluster=cluster, run_cluster=cluster)
        assert set(run.nodes) == nodes
    # With all of them chosen, Grafana takes the first: one run, not two in one.
    assert stack.offered("ray-workflow-run", "run_cluster", cluster=ALL) == ["production", OTHER]
