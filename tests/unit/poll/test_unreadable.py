"""Runs that cannot be read, among as many healthy ones as make three batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Callable

import pytest

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.poll import poller
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.storage.filesystem import StorageError
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from support.trees import StorageTree

T0 = 1_700_000_000.0
_BATCH = 8


@pytest.fixture
def tree(tmp_path) -> StorageTree:
    made = StorageTree(str(tmp_path / "storage"))
    for number in range(3 * _BATCH):
        run = made.run(f"ok-{number:02}").task("f").status("RUNNING", T0 + number)
        run.succeed("f", T0 + number, T0 + number + 1).status("SUCCESSFUL", T0 + number + 1)
    return made


@pytest.fixture
def load(tmp_path, tree, monkeypatch) -> Iterator[Callable[[], Exporter]]:
    """Poll a few times, without Ray."""
    monkeypatch.setattr(poller, "_BATCH", _BATCH)
    made: list[Exporter] = []

    def make() -> Exporter:
        settings = Settings(
            address="none",
            storage=tree.uri,
            finished_retention=50 * 365 * 86_400.0,
            state_dir=tmp_path / "state",
        )
        made.append(Exporter(settings))
        for _ in range(4):
            made[-1].poll_once()
        return made[-1]

    yield make
    for exporter in made:
        exporter.close()


def healthy(exporter: Exporter) -> int:
    return sum(view.run.workflow_id.startswith("ok-") for view in exporter.snapshot.runs)


def test_orphans_and_unreadable_runs_hide_no_neighbour(tree, load, monkeypatch, caplog) -> None:
    for number in range(_BATCH + 1):  # more than a batch of each
        tree.put(f"workflows/__status__/RUNNING/orphan-{number}", b"")
        failed = tree.run(f"closed-{number}").task("f").status("RUNNING", T0).start("f", T0)
        failed.fail("f", KeyError("x")).status("FAILED", T0 + 1)
    read = LocalFiles.read

    def refuse(self, path, limit):
        if "/closed-" in path and path.endswith("inputs.json"):
            raise StorageError(f"Cannot read {path}.", "Permission denied")
        return read(self, path, limit)

    monkeypatch.setattr(LocalFiles, "read", refuse)
    exporter = load()
    assert healthy(exporter) == 3 * _BATCH
    text = b"".join(exporter.metrics()).decode()
    assert "\nray_workflow_exporter_runs_to_read 0.0" in text
    assert f'poll_errors_total{{phase="read"}} {_BATCH + 1}.0' in text
    for number in range(_BATCH + 1):
        run = exporter.run(f"closed-{number}").run
        assert run.status.value == "FAILED"
        assert run.tasks["f"].failure.exception == "KeyError"
        named = [it for it in caplog.messages if f"'closed-{number}'" in it]
        assert len(named) == 1
        assert "tasks/f/inputs.json: Permission denied" in named[0]


def test_a_failed_run_whose_error_cannot_be_read_is_shown_with_what_is_known(
    tree, load, monkeypatch
) -> None:
    failed = tree.run("alone").task("f").status("RUNNING", T0).start("f", T0)
    failed.fail("f", KeyError("x")).status("FAILED", T0 + 1)
    open_file = os.open

    def deny(path, *how, **more):
        if str(path).endswith("alone/tasks/f/exception.pkl"):
            raise PermissionError(13, "Permission denied")
        return open_file(path, *how, **more)

    monkeypatch.setattr(os, "open", deny)
    exporter = load()
    assert healthy(exporter) == 3 * _BATCH
    run = exporter.run("alone").run
    assert (run.status.value, run.start_time, run.end_time) == ("FAILED", T0, T0 + 1)
    failure = run.tasks["f"].failure
    assert (failure.exception, failure.message) == (
        "unreadable",
        "The exporter cannot read the error of this task: Permission denied.",
    )
