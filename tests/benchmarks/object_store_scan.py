"""A cold scan over an object store in which each request takes 20 ms."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest import mock

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.storage import arrow_files

from .harness import Result, Row, at_least, duration, faster, seconds, times
from .history_tree import plant
from .s3_server import Running, serving

RUNS, RUNS_ONE_BY_ONE = 500, 50
LATENCY = 0.020
REPEATS = 5


def scan(store: Running, runs: int) -> float:
    """Read all from nothing; return the seconds that it took."""
    exporter = Exporter(Settings(address="none", storage=store.uri))
    try:
        taken = seconds(exporter.load, collect=True)
        assert len(exporter.runs()) == runs, exporter.status
        return taken
    finally:
        exporter.close()


def measure() -> Result:
    with tempfile.TemporaryDirectory() as name:
        many, few = Path(name, "many"), Path(name, "few")
        plant(str(many / "storage"), RUNS, time.time())
        plant(str(few / "storage"), RUNS_ONE_BY_ONE, time.time())
        with serving(many, LATENCY) as store, serving(few, LATENCY) as small_store:
            ours = statistics.median(scan(store, RUNS) for _ in range(REPEATS))
            requests = store.requests() / REPEATS
            one_thread: dict[str, Any] = {"CONNECTIONS": 1, "_threads": [], "_calls": SimpleQueue()}
            with mock.patch.multiple(arrow_files, **one_thread):
                single = [scan(small_store, RUNS_ONE_BY_ONE) for _ in range(3)]
            peer = statistics.median(single) * RUNS / RUNS_ONE_BY_ONE
    return Result(
        [
            Row(
                f"cold scan of {RUNS} runs × 3 tasks over S3 with {LATENCY * 1000:.0f} ms per "
                f"request ({requests / RUNS:.2g} requests a run)",
                duration(ours),
                f"one request at a time: {duration(peer)}",
                faster(ours, peer),
                [at_least(peer / ours, 15, times)],
            )
        ],
        notes=[
            f"One request at a time was measured with {RUNS_ONE_BY_ONE} runs over S3 and "
            "extrapolated linearly."
        ],
    )
