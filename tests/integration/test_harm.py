"""Watching must never harm: what polling leaves behind in Ray and in storage, which is nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ray_workflow_exporter.sources.manager.link import RayLink
from ray_workflow_exporter.sources.records import LinkState
from support.cluster import Cluster, environment
from support.ports import free_port
from support.waiting import wait_until

LinkTo = Callable[[str], RayLink]

# Starts a run that waits for a file, then tells the median time of 200 status calls a line read.
WATCHED = """
import os, statistics
@ray.remote
def held(path):
    while not os.path.exists(path): time.sleep(0.05)
workflow.run_async(held.bind(sys.argv[1]), workflow_id="watched")
while workflow.get_status("watched") != "RUNNING": time.sleep(0.05)
for line in sys.stdin:
    times = []
    for _ in range(200):
        began = time.perf_counter()
        assert workflow.get_status("watched") == "RUNNING"
        times.append(time.perf_counter() - began)
    print(statistics.median(times), flush=True)
"""


def state_of(cluster: Cluster, resource: str) -> list[dict[str, Any]]:
    """List what Ray's state API shows to users."""
    url = f"{cluster.dashboard_url}/api/v0/{resource}?limit=10000&detail=1"
    found: list[dict[str, Any]] = requests.get(url, timeout=30).json()["data"]["result"]["result"]
    return found


def jobs_of(cluster: Cluster) -> set[str]:
    jobs = requests.get(f"{cluster.dashboard_url}/api/jobs/", timeout=30).json()
    return {str(job["job_id"]) for job in jobs}


def test_a_thousand_polls_leave_nothing_behind_and_delay_nobody(
    cluster: Cluster, link_to: LinkTo, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    user = cluster.start_driver(WATCHED, str(gate))

    def median_status_call() -> float:
        return float(user.ask())

    median_status_call()  # the first ones pay for what the actor loads late
    alone = median_status_call()
    task = cluster.storage / "workflows" / "watched" / "tasks" / "__main__.held"
    # The last file that Ray writes before the task is done.
    wait_until((task / "pre_task_metadata.json").exists, message="the task does not start")
    link = link_to(cluster.address)
    # First the storage, the jobs and the actors as they are before anybody watches.
    stored, jobs = sorted(cluster.storage.rglob("*")), jobs_of(cluster)
    actors = {actor["actor_id"] for actor in state_of(cluster, "actors")}
    polls = 0
    wait_until(lambda: "watched" in link.poll().runs, message="the run was not seen")
    with ThreadPoolExecutor() as pool:
        measuring = pool.submit(median_status_call)
        while polls < 1_000 or not measuring.done():
            view = link.poll()
            polls += view.state is LinkState.UP
    # The machine may have become busier meanwhile: what counts is the slower time without us.
    alone = max(alone, median_status_call())
    assert measuring.result() < 5 * alone + 0.020
    assert sorted(cluster.storage.rglob("*")) == stored
    assert jobs_of(cluster) == jobs
    assert {actor["actor_id"] for actor in state_of(cluster, "actors")} == actors
    # Task events reach Ray's books once a second, in order: what is older than this one is there.
    gate.touch()
    user.finish()
    cluster.run_driver(
        "ray.get(ray.remote(lambda: 1).options(name='after all polls').remote()); time.sleep(0)"
    )

    def names() -> set[str]:
        found = {str(task["name"]) for task in state_of(cluster, "tasks")}
        return found if "after all polls" in found else set()

    assert not [name for name in wait_until(names) if "ray_call" in name]


HOSTILE = """
import sys, time
from ray_workflow_exporter.sources.manager import probe
from ray_workflow_exporter.sources.manager.driver import ManagerClient
address, deed = sys.argv[1:]
def hostile(*_):
    exec(deed, {"time": time})
probe._changes_of_run = hostile
# The deeds that answer do so at once, but not always within a second on a busy machine.
client = ManagerClient(address, timeout=1.0 if "sleep" in deed else 30.0)
reply = client.poll(0)
print(reply["state"], "|", reply["reason"], flush=True)
input()
client.poll(0)
"""
USER = """
import os, subprocess
from pathlib import Path
@ray.remote
def held(path):
    while not os.path.exists(path): time.sleep(0.05)
    return "finished"
gate, workflow_id, *command = sys.argv[1:]
output = workflow.run_async(held.bind(gate), workflow_id=workflow_id)
while workflow.get_status(workflow_id) != "RUNNING": time.sleep(0.05)
manager = ray.get_actor("WorkflowManagementActor", namespace="workflow")
client = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
said = client.stdout.readline().strip()
began = time.perf_counter()
status = workflow.get_status(workflow_id)
took = time.perf_counter() - began
client.communicate("go on\\n")
Path(gate).touch()
print(said, "|", status.value, "|", took, "|", ray.get(output), "|",
      manager == ray.get_actor("WorkflowManagementActor", namespace="workflow"))
"""


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("1 / 0", "inside the management actor with ZeroDivisionError."),
        ("raise SystemExit", "inside the management actor with SystemExit."),
        ("raise KeyboardInterrupt", "inside the management actor with KeyboardInterrupt."),
        ("time.sleep(15)", "The management actor did not answer within 1 s."),
    ],
)
def test_a_probe_gone_wrong_harms_neither_the_actor_nor_its_runs(
    cluster: Cluster, tmp_path: Path, deed: str, reason: str
) -> None:
    workflow_id = f"hostile {deed.replace('/', 'by')}"
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE)
    command = [sys.executable, str(script), cluster.address, deed]
    output = cluster.run_driver(USER, str(tmp_path / "gate"), workflow_id, *command)
    state, said, status, took, result, same_actor = (word.strip() for word in output.split("|"))
    assert state == "unreachable"
    assert said.endswith(reason)
    assert status == "RUNNING"
    assert float(took) < 10.0, "a user's call waited for the probe"
    assert (result, same_actor) == ("finished", "True")


@pytest.mark.slow
def test_polling_an_idle_ray_creates_no_management_actor(
    new_cluster: Callable[..., Cluster], link_to: LinkTo
) -> None:
    cluster = new_cluster()
    link = link_to(cluster.address)
    wait_until(lambda: link.poll().state is LinkState.ABSENT, message="Ray was not reached")
    for _ in range(50):
        assert link.poll().state is LinkState.ABSENT
    output = cluster.run_driver("print(ray.util.list_named_actors(all_namespaces=True))")
    assert output.strip() == "[]"
    assert not list(cluster.storage.glob("workflows/*"))


def rays_below_us() -> list[str]:
    return [
        process.name()
        for process in psutil.Process(os.getpid()).children(recursive=True)
        if process.name() in ("raylet", "gcs_server")
    ]


@pytest.mark.parametrize(
    ("address", "ray_address"), [("auto", "local"), ("local", ""), ("127.0.0.1:{port}", "local")]
)
def test_polling_without_a_ray_starts_none(
    address: str, ray_address: str, link_to: LinkTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    before = rays_below_us()
    link = link_to(address.format(port=free_port()))
    for _ in range(3):
        assert link.poll().state in (LinkState.UNREACHABLE, LinkState.UNSUPPORTED)
    assert rays_below_us() == before


def test_auto_on_a_machine_without_a_ray_starts_none() -> None:
    # Other Rays may run beside this test: here none of them is to be found.
    code = """
    import json, warnings
    warnings.simplefilter("ignore")
    import ray
    from ray._private import services
    from ray_workflow_exporter.sources.manager.driver import ManagerClient
    services.find_gcs_addresses, services.find_bootstrap_address = set, lambda folder: None
    reply = ManagerClient("auto").poll(0)
    print(json.dumps([reply["state"], reply["cause"], reply["reason"], ray.is_initialized()]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(),
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    state, cause, reason, initialized = json.loads(done.stdout)
    assert (state, cause, initialized) == ("unreachable", "no_ray", False)
    assert reason.startswith("No Ray runs on this machine")
