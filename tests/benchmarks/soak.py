"""Runs appear, grow, fail and vanish for a long time, while everything is scraped and checked.

    python -m benchmarks.soak SECONDS

Ends with an error if the exporter's memory grew after warm-up, if a scrape was wrong, or if the
exporter logged an error.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import psutil
import requests
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from support.cluster import Cluster
from support.served import Served
from support.trees import StorageTree
from support.waiting import wait_until

from .harness import size

# The median of the last quarter against that of the second; the first quarter is warm-up. The
# feed of changes and the memory of what was counted fill up over the first ten minutes.
BOUND, BOUND_BYTES = 0.05, 5_000_000
BEAT = 0.1  # seconds between two steps of each stored run
ALIVE = 40  # stored runs at a time
TELL_SECONDS = 30.0
ACCEPT = "application/openmetrics-text;version=1.0.0"

# Runs workflows of all kinds until the time is over, a few at once, and deletes those that ended.
DRIVER = """
@ray.remote(num_cpus=0.5, max_retries=0)
def work(seconds, fails, *_):
    time.sleep(seconds)
    if fails: raise ValueError("row 7 has no customer id")
    return [0] * 1000
@ray.remote(num_cpus=0.5)
def grow(width):
    return workflow.continuation(work.bind(0.1, False, *[work.bind(0.2, False)] * width))
def dag(kind):
    first = work.bind(0.1, False)
    if kind == 0: return work.bind(0.3, True, first)
    if kind == 1: return grow.bind(3)
    return work.bind(0.2, False, *[work.bind(0.5, False, first) for _ in range(4)])
until = time.time() + float(sys.argv[1])
known, number = [], 0
while time.time() < until:
    workflow_id = f"live-{number}"
    output = workflow.run_async(dag(number % 4), workflow_id=workflow_id,
                                metadata={"workflow": f"live-{number % 4}"})
    known.append((workflow_id, output))
    if number % 10 == 9: workflow.cancel(workflow_id)
    if len(known) > 6:
        old_id, old_output = known.pop(0)
        try: ray.get(old_output, timeout=60)
        except Exception: pass
        workflow.delete(old_id)
    number += 1
    time.sleep(0.3)
print(number)
"""


@dataclass
class Findings:
    """What went wrong, in sentences, and what was measured."""

    faults: list[str] = field(default_factory=list)
    scrapes: int = 0
    series: int = 0
    stored_runs: int = 0
    live_runs: int = 0
    memory: list[int] = field(default_factory=list)
    link_memory: list[int] = field(default_factory=list)


def life(tree: StorageTree, number: int) -> Iterator[None]:
    """Let one run appear, grow, end one way or another, and vanish: a step each time."""
    chance = random.Random(number)
    tasks = [f"__main__.stage_{n % 5}" + f"_{n // 5}" * (n >= 5) for n in range(8 + number % 12)]
    run = tree.run(f"stored-{number}", {"workflow": f"stored-{number % 7}"})
    yield
    run.entry(tasks[-1]).status("RUNNING", time.time())
    for before, task_id in zip(["", *tasks], tasks):
        run.task(task_id, *filter(None, [before]))
        yield
    end = chance.choice(["SUCCESSFUL", "SUCCESSFUL", "SUCCESSFUL", "FAILED", "CANCELED"])
    stop = len(tasks) if end == "SUCCESSFUL" else chance.randrange(len(tasks))
    for task_id in tasks[:stop]:
        run.start(task_id, time.time())
        yield from [None] * chance.randrange(1, 4)
        run.end(task_id, time.time()).output(task_id, "x" * chance.randrange(2000))
        yield
    if end == "FAILED":
        run.start(tasks[stop], time.time()).fail(tasks[stop], ValueError(f"row {number} is bad"))
    run.status(end, time.time())
    yield from [None] * 100
    run.remove()


def keep_storage_busy(tree: StorageTree, found: Findings, over: threading.Event) -> None:
    """Keep so many stored runs alive, each at another point of its life."""
    alive: list[Iterator[None]] = []
    while not over.wait(BEAT):
        if len(alive) < ALIVE:
            alive.append(life(tree, found.stored_runs))
            found.stored_runs += 1
        alive = [run for run in alive if next(run, run) is None]


def scrape(served: Served, openmetrics: bool, found: Findings) -> None:
    """Scrape once; note what is wrong with the answer."""
    headers = {"Accept": ACCEPT} if openmetrics else {}
    answer = requests.get(f"{served.url}/metrics", headers=headers, timeout=10)
    answer.raise_for_status()
    parse: Callable[[str], Iterable[Metric]] = (
        openmetrics_parser.text_string_to_metric_families
        if openmetrics
        else text_string_to_metric_families
    )
    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in parse(answer.text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            if key in values:
                found.faults.append(f"The series {key} was there twice.")
            values[key] = sample.value
    found.scrapes += 1
    found.series = len(values)
    found.faults += _wrong(values)


def _wrong(values: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> Iterator[str]:
    by_name: dict[str, list[dict[str, str]]] = {}
    for name, labels in values:
        by_name.setdefault(name, []).append(dict(labels))
    for name in ("ray_workflow_storage_up", "ray_workflow_manager_up"):
        if values.get((name, frozenset())) != 1:
            yield f"{name} was not 1."
    errors = [
        it for it in values if it[0] == "ray_workflow_exporter_poll_errors_total" and values[it]
    ]
    if errors:
        yield f"Polls failed: {errors}."
    tasks = {(it["workflow_id"], it["task_id"]) for it in by_name["ray_workflow_task_state"]}
    for edge in by_name.get("ray_workflow_task_edge", ()):
        if not {(edge["workflow_id"], edge[end]) for end in ("source", "target")} <= tasks:
            yield f"The edge {edge} leads nowhere."
    statuses = Counter(
        labels["workflow_id"]
        for labels in by_name["ray_workflow_run_status"]
        if values["ray_workflow_run_status", frozenset(labels.items())]
    )
    known = {it["workflow_id"] for it in by_name["ray_workflow_run_info"]}
    if statuses != Counter(known):
        yield f"Not every run has one status: {statuses}."


def keep_scraping(served: Served, found: Findings, over: threading.Event) -> None:
    """Scrape in both formats in turns, and look at the memory of the exporter and its link."""
    assert served.process is not None
    process = psutil.Process(served.process.pid)
    openmetrics = False
    while not over.wait(1.0):
        openmetrics = not openmetrics
        try:
            scrape(served, openmetrics, found)
        except Exception as error:
            found.faults.append(f"A scrape failed: {error!r}")
        found.memory.append(process.memory_info().rss)
        found.link_memory.append(sum(it.memory_info().rss for it in process.children()))


def quarters(values: list[int]) -> tuple[float, float]:
    """Return the medians of the second and of the last quarter."""
    quarter = len(values) // 4
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def log_faults(log: str) -> list[str]:
    """Return the lines of a log that no soak should show."""
    return [
        line
        for line in log.splitlines()
        if any(word in line for word in ("ERROR", "CRITICAL", "Traceback", "poll failed"))
    ]


def soak(length: float) -> Findings:
    """Keep everything busy for so many seconds."""
    found = Findings()
    with Cluster() as cluster, tempfile.TemporaryDirectory() as name:
        driver = cluster.start_driver(DRIVER, str(length))
        # Limits that matter within a run's short life.
        served = Served(
            Path(name),
            *("--address", cluster.address, "--task-retention", "5s"),
            *("--max-finished-runs", "25", "--max-tasks-per-run", "18"),
        ).start()
        try:
            wait_until(lambda: served.value("ray_workflow_manager_up") == 1, timeout=90)
            over = threading.Event()
            with ThreadPoolExecutor(3) as pool:
                jobs = [
                    pool.submit(keep_storage_busy, StorageTree(str(cluster.storage)), found, over),
                    pool.submit(keep_scraping, served, found, over),
                ]
                # Read all the time: a pipe that is full would hold the driver up.
                output = pool.submit(driver.communicate)
                began = time.monotonic()
                while (passed := time.monotonic() - began) < length:
                    over.wait(min(TELL_SECONDS, length - passed))
                    tell(found, time.monotonic() - began)
                over.set()
                for job in jobs:
                    job.result()
                live, _ = output.result()
        finally:
            served.stop()
        if driver.returncode:
            found.faults.append(f"The driver failed: {driver.stderr_text()}")
        found.live_runs = int((live.split() or ["0"])[-1])
        found.faults += log_faults(served.log())
    return found


def tell(found: Findings, passed: float) -> None:
    """Say how it goes."""
    print(
        f"{passed:6.0f} s: {found.scrapes} scrapes, {found.series} series, "
        f"{found.stored_runs} stored runs, exporter {size(found.memory[-1])}, "
        f"its link {size(found.link_memory[-1])}, {len(found.faults)} faults",
        flush=True,
    )


def main(length: float) -> int:
    """Soak, and say what was found; return 1 if that is not good."""
    found = soak(length)
    for name, values in (("exporter", found.memory), ("link to Ray", found.link_memory)):
        early, late = quarters(values)
        bound = max(early * (1 + BOUND), early + BOUND_BYTES)
        print(
            f"Memory of the {name}: {size(early)} in the second quarter, {size(late)} in the "
            f"last ({late / early - 1:+.1%}); at most {size(bound)} is allowed."
        )
        if late > bound:
            found.faults.append(f"The memory of the {name} grew.")
    print(
        f"{found.scrapes} scrapes of {found.live_runs} runs on Ray and {found.stored_runs} in "
        f"storage in {length:g} s: {len(found.faults)} faults."
    )
    for fault in found.faults[:50]:
        print(f"  {fault}")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
