"""From the moment at which a task changes its state to the first scrape that shows it."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import requests

from support.cluster import Cluster
from support.served import Served

from .harness import Result, Row, at_most, duration, percentile
from .wall_time import Driver, watching

LANES, LENGTH = 6, 20
SCRAPE_SECONDS = 0.02

# Each task writes down when it began and when it was done. They last longer than an interval, so
# that each state is there to be seen, and of uneven length, so that they do not keep step with it.
DRIVER = """
import random
folder, lanes, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
@ray.remote(num_cpus=0.1)
def tick(name, pause, *_):
    with open(f"{folder}/{name}", "w", buffering=1) as file:
        print(time.time(), file=file)
        time.sleep(pause)
        print(time.time(), file=file)
chance = random.Random(7)
ends = []
for lane in range(lanes):
    end = None
    for number in range(length):
        name = f"tick_{lane}_{number}"
        named = tick.options(**workflow.options(task_id=name))
        end = named.bind(name, chance.uniform(1.3, 2.9), *([end] if end else []))
    ends.append(end)
last = tick.options(**workflow.options(task_id="tick_last"))
workflow.run(last.bind("tick_last", 2, *ends), workflow_id=sys.argv[4])
"""

_STATE = re.compile(
    rb'^ray_workflow_task_state\{workflow_id="ticking",task_id="([^"]*)",[^}]*'
    rb'state="(RUNNING|SUCCESSFUL)"\} 1$',
    re.M,
)


class Watch:
    """Scrapes without a pause, and remembers when it first saw each state of each task."""

    def __init__(self, served: Served) -> None:
        self.seen: dict[tuple[str, str], float] = {}
        self._url = f"{served.url}/metrics?tier=task"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._scrape)
        self._thread.start()

    def _scrape(self) -> None:
        session = requests.Session()
        while not self._over.wait(SCRAPE_SECONDS):
            body = session.get(self._url, timeout=10).content
            now = time.time()
            for task_id, state in _STATE.findall(body):
                self.seen.setdefault((task_id.decode(), state.decode()), now)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def measure() -> Result:
    late: dict[str, list[float]] = {"RUNNING": [], "SUCCESSFUL": []}
    missed = 0
    with Cluster(num_cpus=4) as cluster, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "warm").mkdir()
        (folder / "ticks").mkdir()
        arguments: list[Any] = [LANES, LENGTH]
        Driver(cluster).run("warm-up", LANES, 3)
        with watching(cluster, folder) as served:
            watch = Watch(served)
            try:
                cluster.run_driver(
                    DRIVER, str(folder / "ticks"), *map(str, arguments), "ticking", timeout=300
                )
                time.sleep(2)  # for the last end to be polled
            finally:
                watch.close()
        for file in (folder / "ticks").iterdir():
            for state, moment in zip(late, map(float, file.read_text().split())):
                seen = watch.seen.get((file.name, state))
                if seen is None:
                    missed += 1
                else:
                    late[state].append(seen - moment)
    both = [*late["RUNNING"], *late["SUCCESSFUL"]]
    half, most = percentile(both, 0.5), percentile(both, 0.99)
    by_state = "; ".join(
        f"{state} p50 {duration(percentile(values, 0.5))}, p99 {duration(percentile(values, 0.99))}"
        for state, values in late.items()
    )
    return Result(
        [
            Row(
                f"freshness at an interval of 1 s, p50 of {len(both)} changes",
                duration(half),
                goals=[at_most(half, 0.6, duration)],
            ),
            Row("freshness, p99", duration(most), goals=[at_most(most, 1.2, duration)]),
        ],
        notes=[
            "Freshness: tasks of a real run write down when they begin and end; a scrape each "
            f"{SCRAPE_SECONDS * 1000:.0f} ms tells when that is first seen. {by_state}; "
            f"{missed} changes were not seen at all."
        ],
    )
