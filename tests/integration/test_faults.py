"""What breaks around the exporter does not break it: it answers, tells the truth, recovers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, environment
from support.served import PROGRAM, Served
from support.waiting import wait_until

# `held` runs until a file appears; the actor that manages it is alive as long.
DRIVER = """
from pathlib import Path

@ray.remote
def quick(value=1):
    return value

@ray.remote
def held(path, value):
    while not Path(path).exists():
        time.sleep(0.05)
    return value

operation, name, path = sys.argv[1:]
if operation == "start":
    workflow.run_async(held.bind(path, quick.bind()), workflow_id=name)
elif operation == "run":
    workflow.run(quick.bind(), workflow_id=name)
elif operation == "resume":
    workflow.resume_async(name)
elif operation == "kill manager":
    ray.kill(ray.get_actor("WorkflowManagementActor", namespace="workflow"))
# Tasks of a driver that has left are not cancelled: the manager owns them.
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(num_cpus=2) as cluster:
        yield cluster


@pytest.fixture
def served(cluster: Cluster, tmp_path: Path) -> Iterator[Served]:
    served = Served(
        tmp_path,
        *("--address", cluster.address, "--storage", str(cluster.storage)),
        *("--interval", "0.25", "--manager-grace", "3", "--manager-timeout", "3"),
    )
    served.start()
    try:
        yield served
    finally:
        served.stop()


def do(cluster: Cluster, operation: str, name: str = "", path: str = "") -> None:
    cluster.run_driver(DRIVER, operation, name, path)


def becomes(served: Served, name: str, status: str) -> None:
    wait_until(lambda: served.status(name) == status, timeout=60, message=f"{name} is {status}")


@pytest.mark.slow
def test_the_link_is_killed(cluster: Cluster, served: Served, tmp_path: Path) -> None:
    do(cluster, "start", "run", str(tmp_path / "go"))
    becomes(served, "run", "RUNNING")
    (link,) = served.links()
    with served.scraped_throughout():
        link.kill()
        wait_until(
            lambda: (
                served.value("ray_workflow_exporter_link_restarts_total") == 1
                and served.value("ray_workflow_manager_up") == 1
            ),
            timeout=60,
        )
        assert served.status("run") == "RUNNING"
    assert len(served.links()) == 1
    (tmp_path / "go").touch()
    becomes(served, "run", "SUCCESSFUL")


@pytest.mark.slow
def test_the_management_actor_is_killed(cluster: Cluster, served: Served, tmp_path: Path) -> None:
    do(cluster, "start", "run", str(tmp_path / "go"))
    becomes(served, "run", "RUNNING")
    with served.scraped_throughout():
        do(cluster, "kill manager")
        becomes(served, "run", "RESUMABLE")
        assert served.value("ray_workflow_manager_up") == 0
        (tmp_path / "go").touch()
        do(cluster, "resume", "run")
        becomes(served, "run", "SUCCESSFUL")
        wait_until(lambda: served.value("ray_workflow_manager_up") == 1)


@pytest.mark.slow
def test_the_whole_ray_is_killed(cluster: Cluster, served: Served, tmp_path: Path) -> None:
    do(cluster, "start", "run", str(tmp_path / "go"))
    becomes(served, "run", "RUNNING")
    with served.scraped_throughout():
        cluster.kill_all()
        wait_until(lambda: served.value("ray_workflow_manager_up") == 0, timeout=60)
        # Nobody can tell a dead cluster from one out of reach: after the grace it is left over.
        becomes(served, "run", "RESUMABLE")
        assert served.value("ray_workflow_storage_up") == 1
        cluster.start()
        (tmp_path / "go").touch()
        do(cluster, "resume", "run")
        becomes(served, "run", "SUCCESSFUL")
        wait_until(lambda: served.value("ray_workflow_manager_up") == 1, timeout=60)


@pytest.mark.slow
def test_storage_disappears_and_comes_back(cluster: Cluster, served: Served) -> None:
    do(cluster, "run", "before")
    becomes(served, "before", "SUCCESSFUL")
    aside = cluster.storage.with_name("aside")
    with served.scraped_throughout():
        cluster.storage.rename(aside)
        wait_until(lambda: served.value("ray_workflow_storage_up") == 0)
        assert served.status("before") == "SUCCESSFUL"
        aside.rename(cluster.storage)
        wait_until(lambda: served.value("ray_workflow_storage_up") == 1)
    do(cluster, "run", "after")
    becomes(served, "after", "SUCCESSFUL")
    assert served.status("before") == "SUCCESSFUL"


@pytest.mark.slow
def test_the_exporter_is_killed_and_its_counters_go_on(cluster: Cluster, served: Served) -> None:
    def finished() -> float:
        return served.value("ray_workflow_runs_finished_total", status="SUCCESSFUL") or 0.0

    do(cluster, "run", "one")
    becomes(served, "one", "SUCCESSFUL")
    assert finished() == 1
    served.kill()
    do(cluster, "run", "two")
    served.start()
    becomes(served, "two", "SUCCESSFUL")
    wait_until(lambda: finished() >= 2)
    assert finished() == 2
    assert served.value("ray_workflow_runs_started_total") == 2


@pytest.mark.slow
def test_a_killed_exporter_takes_its_link_along(cluster: Cluster, served: Served) -> None:
    wait_until(lambda: len(served.links()) == 1)
    (link,) = served.links()
    served.kill()
    wait_until(lambda: not link.is_running(), message="the link is still there")
    served.start()


@pytest.mark.slow
def test_without_ray_it_reads_storage_alone(cluster: Cluster, tmp_path: Path) -> None:
    do(cluster, "run", "done")
    do(cluster, "start", "left over", str(tmp_path / "never"))
    cluster.kill_all()
    served = Served(tmp_path, "--address", "none", "--storage", str(cluster.storage)).start()
    try:
        becomes(served, "done", "SUCCESSFUL")
        becomes(served, "left over", "RESUMABLE")
        # There is no manager to be up or down: a value of 0 would page somebody.
        assert served.value("ray_workflow_manager_up") is None
        assert served.value("ray_workflow_storage_up") == 1
        assert served.links() == []
    finally:
        served.stop()


def test_a_port_that_is_taken_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    alone = ("--address", "none", "--storage", str(tmp_path / "storage"))
    served = Served(tmp_path, *alone).start()
    try:
        outcome = subprocess.run(
            [str(PROGRAM), "serve", "--listen", f"127.0.0.1:{served.port}", *alone],
            capture_output=True,
            text=True,
            env={**environment(), "XDG_STATE_HOME": str(tmp_path / "other")},
            timeout=120,
            check=False,
        )
    finally:
        served.stop()
    assert outcome.returncode != 0
    assert str(served.port) in outcome.stderr
    assert "Traceback" not in outcome.stderr
