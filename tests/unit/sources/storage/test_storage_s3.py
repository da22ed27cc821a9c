"""What is special about workflow storage in an object store; the rest is beside it."""

from __future__ import annotations

import threading
import uuid

import pytest
from ray._private.arrow_utils import add_creatable_buckets_param_if_s3_uri

from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.redact import masked_uri
from ray_workflow_exporter.sources.storage.arrow_files import ArrowFiles
from ray_workflow_exporter.sources.storage.storage import StorageError, WorkflowStorage
from support.object_store import KEY, SECRET, object_store, s3_uri
from support.trees import StorageTree


@pytest.fixture
def tree(s3_query) -> StorageTree:
    return StorageTree(s3_uri(s3_query, uuid.uuid4().hex))


def test_a_missing_bucket_or_prefix_is_an_error_and_is_not_created(s3_query):
    for uri in (
        s3_uri(s3_query, "prefix", bucket="no-such-bucket"),
        s3_uri(s3_query, "no/such/prefix"),
    ):
        for _ in range(2):
            storage = WorkflowStorage(uri)
            with pytest.raises(StorageError, match="does not exist") as caught:
                storage.list_marks()
            assert SECRET not in str(caught.value)
            assert KEY not in str(caught.value)


def test_a_whole_bucket_can_be_the_storage(s3_query):
    tree = StorageTree(s3_uri(s3_query, ""))
    run = tree.run("in-the-root").status("RUNNING")
    storage = WorkflowStorage(tree.uri)
    assert storage.list_marks()["in-the-root"].status is RunStatus.RUNNING
    run.remove()
    assert storage.list_marks() == {}


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_an_error_not_an_empty_storage():
    with object_store() as query:
        tree = StorageTree(s3_uri(query, "prefix"))
        tree.run("w").status("RUNNING")
        storage = WorkflowStorage(tree.uri)
        assert set(storage.list_marks()) == {"w"}
    with pytest.raises(StorageError, match=r"NETWORK_CONNECTION.*Check") as caught:
        storage.list_marks()
    assert SECRET not in str(caught.value)


def test_a_rewrite_of_the_same_size_in_the_same_second_is_noticed(tree, storage):
    run = tree.run("w").task("f").status("PENDING")
    stored = None
    for second in range(10, 20):
        run.start("f", float(second))
        stored = storage.read_run("w", stored)
        assert stored is not None
        assert stored.tasks["f"].start_time == second


def test_the_reads_of_one_run_overlap(tree, storage, monkeypatch):
    tree.run("w").task("f").start("f", 1.0).entry("f").status("RUNNING", 1.0)
    # Each of these waits until all are under way: one after the other, they would time out.
    together = threading.Barrier(4, timeout=20)
    read = ArrowFiles.read

    def wait_and_read(self, path, limit):
        if path.rpartition("/")[2] in (
            "workflow_meta.json",
            "user_run_metadata.json",
            "inputs.json",
            "pre_task_metadata.json",
        ):
            together.wait()
        return read(self, path, limit)

    monkeypatch.setattr(ArrowFiles, "read", wait_and_read)
    stored = storage.read_run("w")
    assert stored is not None
    assert stored.tasks["f"].start_time == 1.0


@pytest.mark.parametrize("prefix", ["plain/x", "per%2520cent", "pl+us", "%25C3%25BC", "tilde~_-."])
def test_the_uri_means_the_same_as_to_ray(s3_query, prefix):
    uri = s3_uri(s3_query, prefix)
    tree = StorageTree(add_creatable_buckets_param_if_s3_uri(uri))
    tree.run("w").status("RUNNING")
    storage = WorkflowStorage(uri)
    assert set(storage.list_marks()) == {"w"}


@pytest.mark.slow
def test_more_files_than_one_page_of_a_listing_are_all_found(tree, storage):
    for number in range(1001):
        tree.put(f"workflows/__status__/SUCCESSFUL/run-{number}", b"")
    assert len(storage.list_marks()) == 1001


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:sec/ret@bucket/x?region=a&token=b", "s3://***@bucket/x"),
        ("cannot open 's3://k:s@b/x?y=z' now", "cannot open 's3://***@b/x' now"),
        ("abfss://:password@account/x", "abfss://***@account/x"),
        ("abfs://container@account/x", "abfs://container@account/x"),
        ("/plain/path?x@y:z", "/plain/path?x@y:z"),
        ("s3://bucket/team@home", "s3://bucket/team@home"),
    ],
)
def test_credentials_in_a_uri_are_not_shown(text, shown):
    assert masked_uri(text) == shown


def test_a_uri_that_cannot_be_parsed_does_not_show_its_secret():
    with pytest.raises(StorageError, match="Cannot parse URI") as caught:
        WorkflowStorage("s3://key:se%20cret@bucket/x?token=hidden").list_marks()
    text = str(caught.value)
    assert "cret" not in text
    assert "hidden" not in text
    assert caught.value.__cause__ is None
