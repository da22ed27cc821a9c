"""A storage that can be read, but may not be the one of the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.manager.link import RayLink
from ray_workflow_exporter.sources.records import LinkCause, LinkState, ManagerView
from support.trees import StorageTree


def verified(exporter: Exporter) -> bool:
    (line,) = [
        line
        for line in b"".join(exporter.metrics()).decode().splitlines()
        if line.startswith("ray_workflow_exporter_storage_verified")
    ]
    return line.endswith(" 1.0")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.levelname == "WARNING"]


def test_a_copy_without_its_valid_file_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = StorageTree(str(tmp_path / "copy"))
    tree.run("etl").status("SUCCESSFUL", 2.0)
    tree.delete("_valid")
    exporter = Exporter(Settings(address="none", storage=tree.uri))
    try:
        for _ in range(3):
            exporter.poll_once()
        assert [view.run.workflow_id for view in exporter.runs()] == ["etl"]
        (warning,) = warnings(caplog)
        assert "has no file '_valid'" in warning
        assert exporter.status["storage_warning"] == warning
        assert exporter.status["storage_error"] is None
        assert not verified(exporter)
        tree.put("_valid", b"")
        exporter.poll_once()
        assert exporter.status["storage_warning"] is None
        assert verified(exporter)
    finally:
        exporter.close()


def test_another_storage_than_that_of_ray_is_a_warning_as_long_as_it_is_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = StorageTree(str(tmp_path / "storage"))
    rays = ["s3://key:hunter2@bucket/ray"]
    monkeypatch.setattr(
        RayLink,
        "poll",
        lambda self: ManagerView(
            LinkState.ABSENT, "", LinkCause.NO_MANAGER, storage_uri=rays[0] if rays else None
        ),
    )
    exporter = Exporter(Settings(storage=tree.uri))
    try:
        exporter.poll_once()
        warning = exporter.status["storage_warning"]
        assert f"reads the storage {tree.uri}, but Ray uses s3://" in warning
        assert "hunter2" not in warning
        rays.clear()  # it cannot be asked any more
        exporter.poll_once()
        assert warnings(caplog) == [warning]
        assert not verified(exporter)
        rays.append(tree.uri)
        exporter.poll_once()
        assert exporter.status["storage_warning"] is None
        assert verified(exporter)
    finally:
        exporter.close()
