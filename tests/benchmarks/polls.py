"""Polls while nothing happens: what ended must cost nothing."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.records import StoredRun, StoredTask
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage
from support.trees import StorageTree

from .harness import Result, Row, Table, at_most, duration, in_fresh_process, times
from .s3_server import serving

SIZES = (1_000, 10_000, 100_000, 1_000_000)
STORE_RUNS = 2_500
POLLS = 15
_QUIET_SECONDS = 2.5  # until folders that changed just now are believed


def measure() -> Result:
    found = {count: in_fresh_process(on_disk, count) for count in SIZES}
    few, many = found[SIZES[0]]["steady"], found[SIZES[-1]]["steady"]
    lists, pages = in_fresh_process(on_store, STORE_RUNS)
    return Result(
        rows=[
            Row(
                f"steady poll, {SIZES[-1]:,} ended runs on a local disk, CPU",
                duration(many),
                f"with {SIZES[0]:,}: {duration(few)}",
                times(many / few),
                [at_most(many, 0.010, duration), at_most(many / few, 2, times)],
            ),
            Row(
                f"requests of a steady poll on an object store with {STORE_RUNS:,} ended runs",
                f"{lists:g}",
                f"a listing of all: {pages:g}",
                goals=[at_most(lists, 4, "{:g}".format)],
            ),
        ],
        tables=[
            Table(
                "CPU of a poll on a local disk while nothing is live",
                ("ended runs", "nothing changed", "a mark is new", "all marks measured again"),
                [
                    [f"{count:,}", *(duration(it[key]) for key in ("steady", "new", "whole"))]
                    for count, it in found.items()
                ],
            )
        ],
        notes=[
            "Steady polls are those of an exporter that holds all these runs; their folders are "
            "made up, their marks are files. A new mark is a run that began and ended between "
            "two polls."
        ],
    )


def _made_up(self: WorkflowStorage, wanted: Mapping[str, Any], *_: Any) -> dict[str, StoredRun]:
    at = time.time() - 7 * 86_400
    task = {"f": StoredTask("f", output_bytes=100)}
    return {
        key: StoredRun(key, RunStatus.SUCCESSFUL, at, at + 1, tasks=task, outlined=True)
        for key in wanted
    }


def on_disk(count: int) -> dict[str, float]:
    """Return the CPU seconds of polls with so many ended runs."""
    with tempfile.TemporaryDirectory() as folder:
        tree = StorageTree(folder)
        for status in ("RUNNING", "PENDING", "dirty", "SUCCESSFUL", "FAILED", "CANCELED"):
            tree.run("once").mark(status).unmark(status)
        marks = Path(folder, "workflows/__status__/SUCCESSFUL")
        for number in range(count):
            os.close(os.open(marks / f"run-{number:08d}", os.O_CREAT | os.O_WRONLY))
        # As long as it takes, none of the polls below is the one that measures all marks.
        exporter = Exporter(Settings(address="none", storage=folder, history_interval=86_400.0))
        with mock.patch.object(WorkflowStorage, "read_runs", _made_up):
            exporter.load()
            assert len(exporter.runs()) == count, exporter.status
            _settle(exporter)
            steady = statistics.median(_cpu_of(exporter) for _ in range(POLLS))
            (marks / "new").touch()
            new = _cpu_of(exporter)
        storage = exporter._poller.reader._storage
        assert storage is not None
        began = time.process_time()
        storage.list_marks(whole=True)
        whole = time.process_time() - began
        exporter.close()
    return {"steady": steady, "new": new, "whole": whole}


def _settle(exporter: Exporter) -> None:
    for _ in range(3):
        time.sleep(_QUIET_SECONDS)
        exporter.poll_once()


def _cpu_of(exporter: Exporter) -> float:
    began = time.process_time()
    exporter.poll_once()
    return time.process_time() - began


def on_store(count: int) -> tuple[float, float]:
    """Return the requests of a steady poll, and of a listing of all marks."""
    with tempfile.TemporaryDirectory() as folder:
        tree = StorageTree(f"{folder}/storage")
        for number in range(count):
            tree.run(f"{number}").mark("SUCCESSFUL")
        with serving(Path(folder), 0.0) as store:
            storage = WorkflowStorage(store.uri)
            assert len(storage.list_marks()) == count
            before = store.requests()
            for _ in range(POLLS):
                storage.list_marks()
            steady = store.requests() - before
            assert steady == storage.requests["list"] - (7 + count // 1000)
            before = store.requests()
            storage.list_marks(whole=True)
            return steady / POLLS, store.requests() - before
