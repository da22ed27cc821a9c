"""Ten thousand finished runs on a local disk: the first look, and all that follow."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.settings.settings import Settings
from support.cluster import Cluster

from .harness import Goal, Result, Row, at_least, at_most, duration, faster, seconds, times
from .history_tree import TASKS, plant

RUNS, API_RUNS = 10_000, 500
REPEATS, POLLS = 5, 25

# For each line it reads: lists all runs, asks for every n-th of them and for each of its tasks.
API = """
tasks, step = sys.argv[1].split(","), int(sys.argv[2])
for line in sys.stdin:
    began = time.monotonic()
    ids = [workflow_id for workflow_id, _ in workflow.list_all()]
    listed = time.monotonic()
    for workflow_id in ids[::step]:
        assert workflow.get_metadata(workflow_id)["stats"]["end_time"]
        for task_id in tasks:
            assert workflow.get_metadata(workflow_id, task_id)["stats"]["end_time"]
    print(len(ids), listed - began, time.monotonic() - listed, flush=True)
"""


class Opened:
    """Counts the files that this process opens below a folder, however it does so."""

    def __init__(self, folder: str) -> None:
        self.count = 0
        self._folder = folder
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        # (path, mode, flags); a folder is opened to be listed.
        if event == "open" and str(arguments[0]).startswith(self._folder):
            self.count += not arguments[2] & os.O_DIRECTORY


def ask_ray(driver: subprocess.Popen[str]) -> float:
    """Return the seconds that Ray's API takes for all runs, by those of a sample."""
    assert driver.stdin
    assert driver.stdout
    print(file=driver.stdin, flush=True)
    found, listing, reading = driver.stdout.readline().split()
    assert int(found) == RUNS
    return float(listing) + float(reading) * RUNS / API_RUNS


def measure() -> Result:
    with Cluster() as cluster:
        storage = str(cluster.storage)
        plant(storage, RUNS, time.time())
        driver = cluster.start_driver(API, ",".join(TASKS), str(RUNS // API_RUNS))
        ask_ray(driver)  # the first question starts the management actor
        settings = Settings(address="none", storage=storage)
        cold, api = [], []
        exporter = Exporter(settings)
        for _ in range(REPEATS):
            exporter.close()
            exporter = Exporter(settings)
            cold.append(seconds(exporter.load, collect=True))
            api.append(ask_ray(driver))
        assert len(exporter.runs()) == RUNS
        opened = Opened(storage)  # a hook for good: not before the cold scans
        polls = [seconds(exporter.poll_once, collect=True) for _ in range(POLLS)]
        read = opened.count
        exporter.close()
    ours, peer, steady = map(statistics.median, (cold, api, polls))
    return Result(
        [
            Row(
                f"cold scan of {RUNS:,} finished runs × {len(TASKS)} tasks, local disk",
                duration(ours),
                f"Ray's API: {duration(peer)}",
                faster(ours, peer),
                [at_least(peer / ours, 8, times)],
            ),
            Row(
                f"steady poll with these {RUNS:,} runs, {POLLS} times",
                duration(steady),
                f"cold scan: {duration(ours)}",
                faster(steady, ours),
                [
                    at_most(steady, 0.060, duration),
                    Goal("no file read", f"{read} were read" if read else ""),
                ],
            ),
        ],
        notes=[
            f"Ray's API (`list_all`, then `get_metadata` of each run and task) was asked for "
            f"{API_RUNS} of the {RUNS:,} runs and extrapolated linearly; the listing was measured "
            "whole. Both read files that had been read before. Of SUCCESSFUL runs too old to be "
            "exposed (here all but the newest 1,000), the exporter reads no more than what its "
            "list tells: five files of fourteen, and the sizes of the outputs."
        ],
    )
