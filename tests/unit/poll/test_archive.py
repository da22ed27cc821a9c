"""Old runs are read again for those who ask, one at a time, and nobody waits for long."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ray_workflow_exporter.poll import archive as archive_module
from ray_workflow_exporter.poll.archive import Archive
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.storage.storage import StorageError, WorkflowStorage
from support.runs import run, task
from support.trees import StorageTree


class Outlines:
    """The part of the catalog that is asked: it holds an outline of every run."""

    def outline(self, workflow_id: str) -> object:
        return run(task("a"))


@pytest.fixture
def storage(tmp_path: Path) -> str:
    tree = StorageTree(str(tmp_path / "storage"))
    tree.run("old").task("f").entry("f").succeed("f", 1.0, 2.0).status("SUCCESSFUL", 2.0)
    return tree.uri


@pytest.fixture
def archive(storage: str) -> Archive:
    return Archive(Settings(storage=storage), Outlines())  # type: ignore[arg-type]


def test_an_old_run_is_read_with_its_tasks(archive: Archive, storage: str) -> None:
    view = archive.read("old", storage)
    assert view is not None
    assert set(view.run.tasks) == {"f"}
    assert archive.read("nobody", storage) is None


def test_who_waits_too_long_for_the_others_is_told_so(
    archive: Archive, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    read_run = WorkflowStorage.read_run

    def held(*arguments: object) -> object:
        entered.set()
        assert release.wait(60)
        return read_run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkflowStorage, "read_run", held)
    monkeypatch.setattr(archive_module, "_PATIENCE", 0.05)
    first = threading.Thread(target=archive.read, args=("old", storage))
    first.start()
    try:
        assert entered.wait(60)
        with pytest.raises(TimeoutError, match="for others who asked; try again"):
            archive.read("old", storage)
    finally:
        release.set()
        first.join()
    assert archive.read("old", storage) is not None


def test_a_failed_read_keeps_nobody_waiting(
    archive: Archive, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("It is away.")

    with monkeypatch.context() as patch:
        patch.setattr(WorkflowStorage, "read_run", fail)
        for _ in range(2):
            with pytest.raises(StorageError, match="It is away"):
                archive.read("old", storage)
    assert archive.read("old", storage) is not None
