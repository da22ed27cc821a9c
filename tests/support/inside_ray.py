"""A Ray whose dashboard agent runs the exporter, and what Ray itself says about its health."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

import psutil
import requests
import yaml

from support.cluster import Cluster, environment
from support.guard import Guard
from support.ports import free_port
from support.private_ray import NO_OTHER_PACKAGES, PrivateRay
from support.served import samples_of
from support.waiting import wait_until

CHILD = "ray_workflow_exporter.inside_ray.child"


class InsideRay:
    """A cluster of a private Ray; the exporter in it reads its settings from a file."""

    def __init__(self, private: PrivateRay, folder: Path) -> None:
        self.private = private
        self.port = free_port()
        self.config = folder / "exporter.yaml"
        self.settings = {
            "listen": f":{self.port}",
            "state_dir": str(folder / "state"),
            "interval": "250ms",
        }
        self.configure()
        self.cluster = Cluster(
            num_cpus=2,
            dashboard=True,
            python=str(private.python),
            environ={**NO_OTHER_PACKAGES, "RAY_WORKFLOW_EXPORTER_CONFIG": str(self.config)},
        )
        self.nodes: list[SecondNode] = []

    def configure(self, **changes: str) -> None:
        """Write the settings file."""
        self.config.write_text(yaml.safe_dump({**self.settings, **changes}))

    @property
    def temp_dir(self) -> Path:
        return self.cluster.folder / "ray"

    def log(self, name: str) -> str:
        """Return a file of Ray's log folder, empty if there is none."""
        try:
            return (self.temp_dir / "session_latest" / "logs" / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def logged(self, name: str, text: str) -> None:
        """Wait until a text stands in a file of Ray's log folder."""
        wait_until(lambda: text in self.log(name), timeout=120, message=f"{text!r} in {name}")

    def agent(self) -> psutil.Process:
        """Return the dashboard agent of the head node."""
        return wait_until(lambda: agent_among(self.cluster.processes()), message="no agent")

    def exporters(self) -> list[psutil.Process]:
        """List the exporters that the head's agent runs; one that is dead but not buried counts."""
        return self.agent().children()

    def exporter(self) -> psutil.Process:
        """Return the one exporter, once it answers."""

        def answering() -> Optional[psutil.Process]:
            with suppress(psutil.NoSuchProcess):  # also where it is dead and not buried yet
                found = [it for it in self.exporters() if CHILD in it.cmdline()]
                return found[0] if len(found) == 1 and self.answers() else None
            return None

        return wait_until(answering, timeout=120, message="the exporter does not answer")

    def answers(self) -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"http://127.0.0.1:{self.port}/-/ready", timeout=30).ok
        return False

    def status(self, workflow_id: str) -> Optional[str]:
        """Return the status of a run as the exporter's metrics tell it."""
        for (metric, labels), value in samples_of(f"http://127.0.0.1:{self.port}").items():
            have = dict(labels)
            if metric == "ray_workflow_run_status" and value and have["workflow_id"] == workflow_id:
                return have["status"]
        return None

    def get(self, path: str, **more: Any) -> requests.Response:
        """Ask Ray's dashboard."""
        return requests.get(self.cluster.dashboard_url + path, timeout=60, **more)

    def ray_nodes(self) -> list[dict[str, Any]]:
        """Return what Ray's state API says about all nodes."""
        answer = self.get("/api/v0/nodes?detail=1")
        found: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
        return found

    def head_node(self) -> dict[str, Any]:
        """Return what Ray's state API says about the head node."""
        heads = [it for it in self.ray_nodes() if "node:__internal_head__" in it["resources_total"]]
        return heads[0]

    def assert_ray_is_well(self) -> None:
        """Check with Ray's own API that node, jobs, logs and metrics work."""
        node = self.head_node()
        assert node["state"] == "ALIVE"
        assert self.job("echo all is well") == "all is well"
        where = f"node_id={node['node_id']}&filename=dashboard_agent.log&lines=5"
        logs = self.get(f"/api/v0/logs/file?{where}")
        assert logs.ok
        assert "INFO" in logs.text
        wait_until(
            lambda: any("ray_node_mem_used{" in text for text in self.ray_metrics()),
            message="Ray's own metrics are not there",
        )

    def job(self, entrypoint: str) -> str:
        """Run a job by Ray's API and return what it printed last."""
        url = f"{self.cluster.dashboard_url}/api/jobs/"
        answer = requests.post(url, json={"entrypoint": entrypoint}, timeout=60)
        assert answer.ok, answer.text
        job = answer.json()["submission_id"]

        def outcome() -> Optional[str]:
            status = str(requests.get(url + job, timeout=60).json()["status"])
            return status if status in ("SUCCEEDED", "FAILED", "STOPPED") else None

        assert wait_until(outcome, timeout=90, message="the job did not end") == "SUCCEEDED"
        logs = requests.get(f"{url}{job}/logs", timeout=60).json()["logs"]
        return str(logs).strip().splitlines()[-1]

    def ray_metrics(self) -> list[str]:
        """Scrape what Ray's own service discovery names."""
        found = []
        groups = json.loads((self.temp_dir / "prom_metrics_service_discovery.json").read_text())
        for target in groups[0]["targets"]:
            with suppress(requests.RequestException):
                found.append(requests.get(f"http://{target}/metrics", timeout=10).text)
        return found

    def add_node(self) -> SecondNode:
        """Start a second node, on this machine."""
        self.nodes.append(SecondNode(self.cluster))
        return self.nodes[-1]

    def lose(self, node: SecondNode) -> None:
        """End a second node, and wait until Ray does not count on it any more."""
        node.stop()
        wait_until(
            lambda: sum(it["state"] == "ALIVE" for it in self.ray_nodes()) == 1,
            timeout=60,
            message="the second node is still there",
        )

    def stop(self) -> None:
        """End all that was started."""
        for node in self.nodes:
            node.stop()
        self.cluster.stop()


class SecondNode:
    """A node of `ray start --address`, in a session of its own."""

    def __init__(self, cluster: Cluster) -> None:
        command = [
            *(cluster.python, "-m", "ray.scripts.scripts", "start", "--block"),
            *("--address", cluster.address, "--num-cpus", "1"),
            *("--object-store-memory", "80000000", "--disable-usage-stats"),
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *("--dashboard-agent-listen-port", str(free_port())),
        ]
        self._ended = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment(), **cluster.environ},
            start_new_session=True,
        )
        self._guard = Guard(self._process.pid, group=True)

    def processes(self) -> list[psutil.Process]:
        """List the processes of this node."""
        return in_session(self._process.pid)

    def stop(self) -> None:
        """End it by its processes' ids."""
        if self._ended:
            return  # its number may be another's by now
        self._guard.dismiss()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if process.name() == "raylet":
                    process.terminate()  # it takes its leave of the cluster
                    process.wait(10)
        while processes := self.processes():
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(processes, timeout=10)
        self._process.wait()
        self._ended = True


def in_session(session: int) -> list[psutil.Process]:
    """List the processes of a session."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == session:
                found.append(psutil.Process(pid))
    return found


def agent_among(processes: list[psutil.Process]) -> Optional[psutil.Process]:
    """Return the dashboard agent among processes."""
    for process in processes:
        with suppress(psutil.Error):
            words = process.cmdline()
            if len(words) > 2 and words[2].endswith("ray/dashboard/agent.py"):
                return process
    return None
