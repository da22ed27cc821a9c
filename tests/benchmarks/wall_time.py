"""A real run of 2,000 tasks, with the exporter looking on once a second and without."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from support.cluster import Cluster
from support.served import Served
from support.waiting import wait_until

from .harness import Result, Row, at_most, duration, percent

PAIRS = 4
CHAINS, LENGTH = 100, 20

# Makes a run of so many chains for each line it reads, and tells how long it took.
DRIVER = """
@ray.remote
def step(*_): return 1
for line in sys.stdin:
    workflow_id, chains, length = line.split()
    ends = []
    for _ in range(int(chains)):
        end = step.bind()
        for _ in range(int(length) - 1):
            end = step.bind(end)
        ends.append(end)
    began = time.monotonic()
    workflow.run(step.bind(*ends), workflow_id=workflow_id)
    print(time.monotonic() - began, flush=True)
"""

# Asks as the exporter asks; the thread that answers does nothing else.
ANSWERING = """
import threading
manager = ray.get_actor("WorkflowManagementActor", namespace="workflow")
ask = manager.__ray_call__.options(concurrency_group="_ray_system", enable_task_events=False)
print(ray.get(ask.remote(lambda _: threading.get_native_id()), timeout=30))
"""


class Driver:
    """A user's program that runs workflows when told."""

    def __init__(self, cluster: Cluster) -> None:
        self._process: subprocess.Popen[str] = cluster.start_driver(DRIVER)

    def run(self, workflow_id: str, chains: int, length: int) -> float:
        """Run a workflow to its end; return its seconds."""
        assert self._process.stdin
        assert self._process.stdout
        print(workflow_id, chains, length, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the driver ended"
        return float(line)


@contextmanager
def watching(cluster: Cluster, folder: Path) -> Iterator[Served]:
    """Let an exporter look on, from the moment at which it sees the management actor."""
    served = Served(folder, "--address", cluster.address, "--interval", "1").start()
    try:
        wait_until(lambda: served.value("ray_workflow_manager_up") == 1, timeout=90)
        yield served
    finally:
        served.stop()


def manager_process(cluster: Cluster) -> psutil.Process:
    """Return the process of the WorkflowManagementActor."""
    for process in cluster.processes():
        if "WorkflowManagementActor" in process.name() + " ".join(process.cmdline()):
            return process
    raise AssertionError("there is no WorkflowManagementActor")


def thread_seconds(process: psutil.Process, thread: int) -> float:
    """Return the CPU time of one thread; the kernel counts it in nanoseconds."""
    return int(Path(f"/proc/{process.pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9


def measure() -> Result:
    with_it, without = [], []
    with_cpu, without_cpu, answers = [], [], []
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        driver = Driver(cluster)
        driver.run("warm-up", 20, 5)
        actor = manager_process(cluster)
        thread = int(cluster.run_driver(ANSWERING))

        def run(name: str) -> tuple[float, float]:
            before = actor.cpu_times()
            taken = driver.run(name, CHAINS, LENGTH)
            after = actor.cpu_times()
            return taken, after.user + after.system - before.user - before.system

        def alone(pair: int) -> None:
            taken, cpu = run(f"alone-{pair}")
            without.append(taken)
            without_cpu.append(cpu)

        def watched(pair: int) -> None:
            with watching(cluster, Path(folder)):
                # What it costs to start a Ray driver is paid once, not for each run.
                driver.run(f"warm-up-{pair}", 20, 5)
                before = thread_seconds(actor, thread)
                taken, cpu = run(f"watched-{pair}")
                answers.append((thread_seconds(actor, thread) - before) / cpu)
            with_it.append(taken)
            with_cpu.append(cpu)

        for pair in range(PAIRS):
            # The later of two is at a disadvantage: Ray remembers all runs before it.
            for turn in (alone, watched) if pair % 2 else (watched, alone):
                turn(pair)
    ours, unwatched = statistics.median(with_it), statistics.median(without)
    ours_cpu, alone_cpu = statistics.median(with_cpu), statistics.median(without_cpu)
    pairs = ", ".join(f"{b / a - 1:+.1%}" for a, b in zip(without, with_it))
    tasks = CHAINS * LENGTH + 1
    return Result(
        [
            Row(
                f"real run of {tasks:,} tasks, looked at each second, {PAIRS} pairs in turns",
                duration(ours),
                f"alone: {duration(unwatched)}",
                f"{ours / unwatched - 1:+.1%}",
                [at_most(ours / unwatched - 1, 0.02, percent)],
            ),
            Row(
                "CPU time of the management actor meanwhile",
                duration(ours_cpu),
                f"alone: {duration(alone_cpu)}",
                f"{ours_cpu / alone_cpu - 1:+.1%}",
            ),
            Row(
                "of it, in the thread that answers the exporter",
                duration(statistics.median(answers) * ours_cpu),
                f"all of the actor: {duration(ours_cpu)}",
                f"{statistics.median(answers):.2%}",
            ),
        ],
        notes=[
            f"The pairs of real runs differed by {pairs}; cluster, driver and exporter shared the "
            "machine's cores. Medians are compared. What watching costs inside the actor is better "
            "told by the thread that answers the exporter and does nothing else: its share of the "
            "same run's CPU time, whatever the runs differ by. In it are the probe and the "
            "pickling of its answers, not what Ray's network threads do to bring a question there."
        ],
    )
