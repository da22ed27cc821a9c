"""Real one-node Ray clusters for tests: many at once, each with its own ports and folders.

Never calls `ray stop`, which ends every Ray on the machine: a cluster is one session and one
process group, and ends its own processes and no others, even when the test process is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Optional

import psutil

from support.driver import Driver
from support.guard import Guard
from support.ports import free_port
from support.waiting import wait_until

PRELUDE = """\
import sys, time, warnings
warnings.simplefilter("ignore")
import ray
from ray import workflow
ray.init(sys.argv.pop(1), log_to_driver=False, configure_logging=False)
"""


# `ray start` with more patience: Ray gives its dashboard 200 steps of 0.1 s to come up, which is
# less than a busy machine with two cores needs (ray/_private/services.py, 2.20 to 2.47). The first
# argument names the modules of the dashboard, each of which takes seconds to start; "" for all.
# Nobody here uses Ray's client server.
RAY_START = """
import sys
import ray._private.services as services
from ray._private.node import Node
services.range = lambda *steps: range(2000) if steps == (200,) else range(*steps)
modules, start = sys.argv.pop(1), services.start_ray_process
def start_with_modules(command, process_type, *arguments, **options):
    if modules and process_type == services.ray_constants.PROCESS_TYPE_DASHBOARD:
        command = [*command, f"--modules-to-load={modules}"]
    return start(command, process_type, *arguments, **options)
services.start_ray_process = start_with_modules
Node.start_ray_client_server = lambda node: None
from ray.scripts.scripts import main
main()
"""
# The same patience for each of these modules (ray/dashboard/consts.py).
PATIENCE = {"RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "200"}
STATE_API = "StateHead,JobHead"
# Without Ray's own autoscaler and log monitor, each a process that imports Ray.
LEAN = ("--no-monitor", "--include-log-monitor", "false")


class Cluster:
    """A Ray head node in a session of its own; `address` is where a driver connects.

    With a dashboard, `modules` says which of its parts are needed. `start()` after `kill_all()`
    brings a new Ray up at the same address over the same storage.
    """

    def __init__(
        self,
        *,
        num_cpus: int = 2,
        resources: Optional[dict[str, float]] = None,
        dashboard: bool = False,
        modules: str = "",
        python: str = "",
        environ: Optional[dict[str, str]] = None,
        storage: bool = True,
    ) -> None:
        self.num_cpus = num_cpus
        self.resources = resources or {}
        self.modules = modules
        self.python = python or sys.executable
        self.environ = environ or {}
        self._with_storage = storage
        # Unix sockets below must stay under 107 bytes, so pytest's own long paths will not do.
        self.folder = Path(tempfile.mkdtemp(prefix="rwe", dir="/tmp"))
        self.storage = self.folder / "storage"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.dashboard_port = free_port() if dashboard else None
        self._head: Optional[subprocess.Popen[bytes]] = None
        self._guard: Optional[Guard] = None
        self._drivers: list[Driver] = []

    @property
    def dashboard_url(self) -> str:
        """Address of the dashboard, which the cluster must have been given."""
        assert self.dashboard_port, "this cluster has no dashboard"
        return f"http://127.0.0.1:{self.dashboard_port}"

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start Ray and wait until it is up."""
        log = self.folder / "ray_start.log"
        self._launch(log)
        wait_until(self._up_or_ended, timeout=300, message=f"Ray did not start, see {log}")
        assert self.find("raylet"), f"Ray did not start:\n{log.read_text()[-3_000:]}"

    def _launch(self, log: Path) -> None:
        command = [
            *(self.python, "-c", RAY_START, self.modules if self.dashboard_port else ""),
            *("start", "--head", "--block"),
            *("--port", str(self.port), "--node-ip-address", "127.0.0.1"),
            *("--temp-dir", str(self.folder / "ray")),
            *(("--storage", str(self.storage)) if self._with_storage else ()),
            *("--num-cpus", str(self.num_cpus), "--object-store-memory", "100000000"),
            # 0: the kernel chooses, so that clusters side by side do not take each other's.
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *(LEAN if self.modules or not self.dashboard_port else ()),
            *("--ray-client-server-port", str(free_port())),
            *("--dashboard-agent-listen-port", str(free_port())),
            *("--include-dashboard", "true" if self.dashboard_port else "false"),
            *("--dashboard-port", str(self.dashboard_port or free_port())),
            *("--resources", json.dumps(self.resources)),
            "--disable-usage-stats",
        ]
        with log.open("wb") as output:
            self._head = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment(), **PATIENCE, **self.environ},
                start_new_session=True,
            )
        self._guard = Guard(self._head.pid, group=True, folder=self.folder)

    def _up_or_ended(self) -> bool:
        assert self._head
        log = (self.folder / "ray_start.log").read_text()
        return "Ray runtime started" in log or self._head.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """List the processes of this cluster, workers included."""
        found = []
        for pid in psutil.pids():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if self._head and os.getsid(pid) == self._head.pid:
                    found.append(psutil.Process(pid))
        return found

    def find(self, name: str) -> list[psutil.Process]:
        """List own processes whose executable has this name, as `raylet` and `gcs_server`."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if Path((process.cmdline() or [""])[0]).name == name:
                    found.append(process)
        return found

    def kill_gcs(self) -> None:
        """Kill the GCS without a warning, as a crash does."""
        _end(self.find("gcs_server"))

    def kill_all(self) -> None:
        """Kill every Ray process of this cluster, as the loss of its machine does."""
        if self._guard:
            self._guard.dismiss()
            self._guard = None
        while processes := self.processes():
            _end(processes)
        if self._head:
            self._head.wait()
            self._head = None

    def stop(self) -> None:
        """End everything this cluster began and remove its folder."""
        for driver in self._drivers:
            driver.kill()
            driver.communicate()
        self.kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_driver(self, code: str, *args: str) -> Driver:
        """Start a Python process that is connected to this cluster and runs `code`.

        `code` finds `ray`, `workflow`, `sys` and `time` imported and `args` in `sys.argv[1:]`.
        """
        handle, path = tempfile.mkstemp(suffix=".py", dir=self.folder)
        with os.fdopen(handle, "w") as script:
            script.write(PRELUDE + textwrap.dedent(code))
        command = [self.python, path, self.address, *args]
        self._drivers.append(Driver(command, Path(path).with_suffix(".err"), environment()))
        return self._drivers[-1]

    def run_driver(self, code: str, *args: str, timeout: float = 120) -> str:
        """Run `code` as `start_driver` does until it ends, and return what it printed."""
        return self.start_driver(code, *args).finish(timeout=timeout)


def environment() -> dict[str, str]:
    """Return our environment without what would lead a driver to another Ray."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=10)
