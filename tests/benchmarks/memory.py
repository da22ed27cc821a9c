"""Memory of a process that exposes a million series."""

from __future__ import annotations

import gc
import importlib
import statistics
import tempfile
from pathlib import Path

import psutil

from ray_workflow_exporter.metrics.exposition import Renderer, page
from ray_workflow_exporter.metrics.own import SelfMetrics

from .harness import Result, Row, Table, at_most, in_fresh_process, size, times
from .peer import registry_of
from .population import count_series, filled, snapshot

SIZES = (1_000, 10_000, 100_000, 1_000_000)
REPEATS = 3


def resident() -> int:
    """Return the bytes of RAM that this process takes, after a collection."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def ours(series: int) -> tuple[int, int]:
    """Expose so many series; return their number and the bytes of this whole process."""
    # All that a serving exporter loads, so that nothing of it is missing here.
    importlib.import_module("ray_workflow_exporter.commands.serve")
    importlib.import_module("pyarrow.fs")
    catalog = filled(series)
    renderer = Renderer()
    shown = snapshot(catalog)
    exposition = renderer.render(shown)
    used = resident()
    return count_series(exposition), used


def peers(body: str) -> int:
    """Hold the samples of a body in prometheus_client; return the bytes of this whole process."""
    with Path(body).open("rb") as lines:
        registry = registry_of(lines)
    used = resident()
    assert registry is not None
    return used


def write_body(series: int, path: str) -> None:
    """Write the exposition of so many series to a file."""
    exposition = Renderer().render(snapshot(filled(series)))
    Path(path).write_bytes(b"".join(page(exposition, SelfMetrics("1.0.0"))))


def measure() -> Result:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "metrics"))
        for size_wanted in SIZES:
            in_fresh_process(write_body, size_wanted, path)
            found = [in_fresh_process(ours, size_wanted) for _ in range(REPEATS)]
            peer = statistics.median(in_fresh_process(peers, path) for _ in range(REPEATS))
            series = found[0][0]
            used = statistics.median(it for _, it in found)
            lines.append([f"{series:,}", size(used), size(peer)])
    return Result(
        [
            Row(
                f"memory a series, {series:,} exposed (RSS of the whole process: {size(used)})",
                size(used / series),
                f"prometheus_client: {size(peer / series)} ({size(peer)})",
                f"{times(peer / used)} less" if peer >= used else f"{times(used / peer)} more",
                [at_most(used / series, 700, size)],
            )
        ],
        [Table("Memory of the whole process", ("series", "exporter", "prometheus_client"), lines)],
        [
            f"Memory: medians of {REPEATS} fresh processes each. Ours holds the catalog (runs, "
            "tasks, analyses, counters) and all bodies; the peer holds only its gauges."
        ],
    )
