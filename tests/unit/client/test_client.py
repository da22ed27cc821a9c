"""Which reader is chosen, and the function for Python callers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import ray_workflow_exporter
from ray_workflow_exporter.client.client import local_url
from ray_workflow_exporter.settings.settings import Settings
from support import command_line
from support.command_line import FakeExporter

pytestmark = pytest.mark.usefixtures("made", "quiet_machine")

# Fixtures.
made, quiet_machine = command_line.made, command_line.quiet_machine
source, url = command_line.source, command_line.url


def test_python_callers_get_the_tasks_of_a_run(url: str, made: list[FakeExporter]) -> None:
    tasks = ray_workflow_exporter.workflow_tasks("etl/2025-06-01", url=url)
    assert {task_id: task["state"] for task_id, task in tasks.items()} == {
        "load": "SUCCESSFUL",
        "check": "FAILED",
        "report": "NOT_RUN",
    }
    direct = ray_workflow_exporter.workflow_tasks("etl/direct", storage="/somewhere")
    assert direct == tasks
    assert made[0].settings.storage == "/somewhere"
    assert made[0].calls == ["load", "close"]


def test_python_callers_learn_that_a_run_is_unknown(url: str, made: list[FakeExporter]) -> None:
    for where in ({"url": url}, {"storage": "/somewhere"}):
        with pytest.raises(ray_workflow_exporter.WorkflowNotFoundError, match="'train-9'; did"):
            ray_workflow_exporter.workflow_tasks("train-9", **where)
    assert issubclass(ray_workflow_exporter.WorkflowNotFoundError, LookupError)
    assert made[0].calls == ["load", "close"]


def test_a_process_connected_to_ray_knows_its_own_cluster(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, private, storage = ModuleType("ray"), ModuleType("ray._private"), ModuleType("storage")
    ray.is_initialized = lambda: True  # type: ignore[attr-defined]
    ray.get_runtime_context = lambda: SimpleNamespace(  # type: ignore[attr-defined]
        gcs_address="10.0.0.1:6379"
    )
    storage._get_storage_uri = lambda: "s3://bucket/own"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray._private", private)
    monkeypatch.setitem(sys.modules, "ray._private.storage", storage)
    ray_workflow_exporter.workflow_tasks("train-7")
    ray_workflow_exporter.workflow_tasks("train-7", storage="/other")
    used = [(exporter.settings.storage, exporter.settings.address) for exporter in made]
    assert used == [("s3://bucket/own", "10.0.0.1:6379"), ("/other", "auto")]


def test_workflow_tasks_reads_the_settings_file_of_the_environment(
    made: list[FakeExporter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.yml").write_text("storage: /of/the/file\nexpose_error_messages: false\n")
    monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_CONFIG", str(tmp_path / "settings.yml"))
    tasks = ray_workflow_exporter.workflow_tasks("etl/direct")
    assert made[0].settings.storage == "/of/the/file"
    assert tasks["check"]["failure"]["message"] is None


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        (":7", "http://127.0.0.1:7"),
        ("0.0.0.0:7", "http://127.0.0.1:7"),
        ("[::]:7", "http://[::1]:7"),
        ("[::1]:7", "http://[::1]:7"),
        ("host:7", "http://host:7"),
    ],
)
def test_a_command_asks_where_the_exporter_of_this_machine_listens(listen: str, asked: str) -> None:
    assert local_url(Settings(listen=listen)) == asked
