"""The exporter inside Ray: it starts with the head node, and nothing of it can harm that node."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from support.certificates import Authority
from support.inside_ray import InsideRay, agent_among
from support.private_ray import PrivateRay
from support.waiting import wait_until

RUN = """
@ray.remote
def one():
    return 1

print(workflow.run(one.bind(), workflow_id=sys.argv[1]))
"""


@pytest.fixture(scope="module")
def own_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRay]:
    folder = tmp_path_factory.mktemp("private")
    yield PrivateRay(folder)
    shutil.rmtree(folder)


@pytest.fixture
def private(own_ray: PrivateRay) -> Iterator[PrivateRay]:
    """A Ray of our own with the exporter installed, mended after each test."""
    own_ray.dashboard("install")
    yield own_ray
    own_ray.install_exporter()


@pytest.fixture(scope="module")
def shared(own_ray: PrivateRay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InsideRay]:
    inside = InsideRay(own_ray, tmp_path_factory.mktemp("shared"))
    yield inside
    inside.stop()


@pytest.fixture
def inside(private: PrivateRay, shared: InsideRay) -> InsideRay:
    """A Ray with the exporter at work in it, shared by the tests that do not damage it for good."""
    if agent_among(shared.cluster.processes()) is None:
        shared.cluster.kill_all()
        shared.cluster.start()
    shared.exporter()
    return shared


@pytest.fixture
def broken(private: PrivateRay, tmp_path: Path) -> Iterator[InsideRay]:
    """A Ray of one's own, not started yet, to be given a fault."""
    inside = InsideRay(private, tmp_path)
    yield inside
    inside.stop()


def test_metrics_of_a_workflow_appear_and_the_dashboard_forwards(inside: InsideRay) -> None:
    assert inside.cluster.run_driver(RUN, "nightly/etl 1").strip() == "1"
    wait_until(lambda: inside.status("nightly/etl 1") == "SUCCESSFUL")

    runs = inside.get("/api/workflows", params={"status": "SUCCESSFUL"}).json()["items"]
    assert "nightly/etl 1" in [run["workflow_id"] for run in runs]
    tasks = inside.get("/api/workflows/nightly%2Fetl%201/tasks")
    assert tasks.json()["__main__.one"]["state"] == "SUCCESSFUL"
    assert tasks.headers["Server"] == "ray-workflow-exporter"
    unknown = inside.get("/api/workflows/line%0Abreak")
    assert (unknown.status_code, unknown.json()["title"]) == (404, "Not Found")
    changed = requests.post(f"{inside.cluster.dashboard_url}/api/workflows", timeout=30)
    assert changed.status_code == 405
    assert changed.headers["Server"] == "ray-workflow-exporter"


def test_prometheus_and_rays_log_viewer_find_it(inside: InsideRay) -> None:
    def discovered() -> Any:
        file = inside.temp_dir / "prom_workflow_service_discovery.json"
        return json.loads(file.read_text()) if file.exists() else None

    ((group,),) = [wait_until(discovered)]
    (target,) = group["targets"]
    assert requests.get(f"http://{target}/metrics", timeout=10).ok
    session = (inside.temp_dir / "session_latest").resolve().name
    assert group["labels"] == {"job": "ray-workflow", "SessionName": session}
    wait_until(
        lambda: any(f'SessionName="{session}"' in text for text in inside.ray_metrics()),
        message="Ray's own metrics carry the same label",
    )
    node_id = inside.head_node()["node_id"]
    logs = inside.get(f"/api/v0/logs?node_id={node_id}").json()["data"]["result"]
    assert "workflow_exporter.log" in [name for names in logs.values() for name in names]
    where = f"node_id={node_id}&filename=workflow_exporter.log"
    assert "listening on" in inside.get(f"/api/v0/logs/file?{where}").text


@pytest.mark.slow
def test_with_tls_it_is_reached_all_the_same(inside: InsideRay, tmp_path: Path) -> None:
    Authority(tmp_path).issue("server", "exporter.example")
    web_config = tmp_path / "web.yml"
    web_config.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    exporter = inside.exporter()
    inside.configure(web_config_file=str(web_config))
    try:
        exporter.kill()
        inside.logged("workflow_exporter.log", "listening on https://")
        wait_until(lambda: inside.get("/api/workflows").ok, message="the route does not answer")
        file = inside.temp_dir / "prom_workflow_service_discovery.json"
        (group,) = json.loads(file.read_text())
        assert group["labels"]["__scheme__"] == "https"
    finally:
        inside.configure()
        for process in inside.exporters():
            process.kill()


@pytest.mark.slow
def test_a_second_node_starts_no_exporter(inside: InsideRay) -> None:
    node = inside.add_node()
    agent = wait_until(lambda: agent_among(node.processes()), timeout=60, message="no agent")
    inside.logged("dashboard_agent.log", "Not the head node")
    assert agent.children() == []
    inside.exporter()
    inside.lose(node)


@pytest.mark.slow
def test_a_killed_exporter_is_back_and_leaves_no_zombie(inside: InsideRay) -> None:
    before = inside.exporter()
    before.kill()
    wait_until(lambda: not before.is_running(), message="the dead one is not buried")
    after = inside.exporter()
    assert after.pid != before.pid
    inside.logged("dashboard_agent.log", "The workflow exporter was ended by SIGKILL")
    inside.assert_ray_is_well()


@pytest.mark.slow
def test_whatever_keeps_it_from_starting_ray_goes_on_and_it_comes_back(inside: InsideRay) -> None:
    def away(reason: str, log: str = "workflow_exporter.log") -> None:
        inside.logged(log, reason)
        answer = inside.get("/api/workflows")
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "is not running" in answer.json()["detail"]
        assert not (inside.temp_dir / "prom_workflow_service_discovery.json").exists()
        inside.assert_ray_is_well()

    exporter = inside.exporter()
    inside.config.write_text("listen: [")
    exporter.kill()
    away("is not valid YAML")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        inside.configure(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        away("Cannot listen on")
    inside.configure()
    inside.private.uninstall_exporter()
    away("No module named", "workflow_exporter.err")
    inside.logged("dashboard_agent.log", "The workflow exporter ended with exit code 2")
    inside.private.install_exporter()
    inside.exporter()
    assert inside.get("/api/workflows").ok


@pytest.mark.slow
def test_a_killed_agent_leaves_no_orphan(inside: InsideRay) -> None:
    exporter = inside.exporter()
    family = [exporter, *wait_until(exporter.children, message="no link to Ray")]
    inside.agent().kill()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    assert not (inside.temp_dir / "prom_workflow_service_discovery.json").exists()


# Each makes the copy of our package fail at another place, in agent and dashboard.
FAULTS = {
    "import error": (
        "node.py",
        'raise RuntimeError("a fault at import")',
        {"dashboard_agent.log": "a fault at import", "dashboard.log": "a fault at import"},
    ),
    "exception in the constructors": (
        "modules.py",
        "del _supervise, address_file",
        {
            "dashboard_agent.log": "name '_supervise' is not defined",
            "dashboard.log": "name 'address_file' is not defined",
        },
    ),
    "exception in run": (
        "modules.py",
        "class Stuck(threading.Thread):\n"
        "    def start(self):\n"
        '        raise SystemExit("a fault in run")\n'
        "from types import SimpleNamespace\n"
        "threading = SimpleNamespace(Thread=Stuck)\n",
        {"dashboard_agent.log": "a fault in run"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["import error", "exception in the constructors", "exception in run"]
)
def test_a_fault_of_ours_stays_ours(broken: InsideRay, fault: str) -> None:
    file, code, reasons = FAULTS[fault]
    with (broken.private.package / "inside_ray" / file).open("a") as module:
        module.write(f"\n\n{code}\n")
    broken.cluster.start()
    for log, reason in reasons.items():
        broken.logged(log, reason)
    broken.assert_ray_is_well()
    assert broken.exporters() == []
    assert broken.get("/api/workflows").status_code in (404, 500, 503)


@pytest.mark.slow
def test_ray_starts_without_the_exporter_that_its_shim_asks_for(broken: InsideRay) -> None:
    broken.private.uninstall_exporter()
    broken.cluster.start()
    for log in ("dashboard_agent.log", "dashboard.log"):
        broken.logged(log, "The workflow exporter is not loaded; Ray runs without it.")
        broken.logged(log, "No module named 'ray_workflow_exporter'")
    broken.assert_ray_is_well()
    assert broken.exporters() == []


@pytest.mark.slow
def test_after_a_removal_ray_starts_as_if_we_had_never_been(broken: InsideRay) -> None:
    broken.private.dashboard("remove")
    assert not list(broken.private.modules.rglob("*workflow_exporter*"))
    broken.cluster.start()
    broken.assert_ray_is_well()
    assert broken.exporters() == []
    assert broken.get("/api/workflows").status_code == 404
    for log in ("dashboard_agent.log", "dashboard.log", "dashboard_agent.err"):
        assert "workflow_exporter" not in broken.log(log)
    assert not list(broken.temp_dir.rglob("*workflow_exporter*"))
    assert not list(broken.temp_dir.rglob("prom_workflow*"))
