"""Storages of each kind, and what is done with their files."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from ray_workflow_exporter.sources.storage import storage as storage_module
from ray_workflow_exporter.sources.storage.arrow_files import ArrowFiles
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage
from support.object_store import object_store, s3_uri
from support.trees import StorageTree

KINDS = ("path", "file", "custom", "s3")


@pytest.fixture(scope="session")
def s3_query() -> Iterator[str]:
    with object_store() as query:
        yield query


@pytest.fixture(params=KINDS)
def tree(request, tmp_path) -> StorageTree:
    folder = tmp_path / "with blank é"
    if request.param == "s3":
        query = request.getfixturevalue("s3_query")
        return StorageTree(s3_uri(query, f"some/{uuid.uuid4().hex}"))
    if request.param == "file":
        return StorageTree(f"file://{quote(str(folder))}")
    if request.param == "custom":
        folder.mkdir()
        return StorageTree(f"custom://support.trees.below{folder}")
    return StorageTree(str(folder))


@pytest.fixture
def local_tree(tmp_path) -> StorageTree:
    return StorageTree(str(tmp_path / "storage"))


@pytest.fixture
def s3_tree(s3_query) -> StorageTree:
    return StorageTree(s3_uri(s3_query, uuid.uuid4().hex))


@pytest.fixture
def storage(tree) -> WorkflowStorage:
    return WorkflowStorage(tree.uri)


@pytest.fixture
def local_storage(local_tree) -> WorkflowStorage:
    return WorkflowStorage(local_tree.uri)


@pytest.fixture
def reads(monkeypatch) -> list[tuple[str, int]]:
    """Record (path below `workflows/`, limit) of each file that is opened."""
    seen: list[tuple[str, int]] = []
    for kind in (LocalFiles, ArrowFiles):

        def read(self, path, limit, original=kind.read):
            seen.append((path.partition("/")[2], limit))
            return original(self, path, limit)

        monkeypatch.setattr(kind, "read", read)
    return seen


@pytest.fixture
def later(monkeypatch) -> None:
    """Let all files be old enough to be trusted."""
    clock = SimpleNamespace(
        time_ns=lambda: time.time_ns() + 3_600_000_000_000, monotonic=time.monotonic
    )
    monkeypatch.setattr(storage_module, "time", clock)
