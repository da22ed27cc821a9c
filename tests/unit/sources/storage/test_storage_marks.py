"""Which runs there are, on each kind of file system."""

from __future__ import annotations

import os
import time

import pytest

from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.sources.records import Mark
from ray_workflow_exporter.sources.storage.filesystem import same_storage
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from ray_workflow_exporter.sources.storage.storage import StorageError, WorkflowStorage
from support.stored import statuses
from support.trees import STATUSES, StorageTree


def test_every_status_is_listed_with_the_time_of_its_mark(tree, storage):
    before = time.time() - 2  # object stores count whole seconds
    for status in STATUSES:
        tree.run(f"run-{status}").status(status)
    marks = storage.list_marks()
    assert {i: mark.status.value for i, mark in marks.items()} == {f"run-{s}": s for s in STATUSES}
    assert all(before <= mark.time <= time.time() + 2 for mark in marks.values())


ODD_IDS = [
    "a b",
    "trailing ",
    "tä/sk/ü",
    "quote'\"s",
    "100%2F",
    "{x}",
    "#frag?query=1&x",
    "😀" * 63,
    "x" * 255,
    "deep/er/and/deeper",
    ".hidden",
    "...",
    "RUNNING",
    "dirty",
    "dirty/dirty",
    "__status__",
    "tasks",
    "tasks/x",
    "NONE",
    "workflow_meta.json",
    "duplicate_name_counter",
]


@pytest.mark.parametrize("workflow_id", ODD_IDS, ids=range(len(ODD_IDS)))
def test_a_run_is_found_under_any_name_that_ray_takes(tree, storage, workflow_id):
    run = tree.run(workflow_id).task("f").entry("f").status("RUNNING", 5.0)
    assert statuses(storage) == {workflow_id: "RUNNING"}
    run.succeed("f", 6.0, 7.0).status("SUCCESSFUL", 8.0)
    assert statuses(storage) == {workflow_id: "SUCCESSFUL"}
    stored = storage.read_run(workflow_id)
    assert stored is not None
    assert (stored.workflow_id, stored.status) == (workflow_id, RunStatus.SUCCESSFUL)
    assert (stored.start_time, stored.end_time, list(stored.tasks)) == (5.0, 8.0, ["f"])
    run.remove()
    assert storage.list_marks(whole=True) == {}
    assert storage.read_run(workflow_id) is None


@pytest.mark.parametrize("workflow_id", ["new\nline", "back\\slash", "tab\there"])
def test_control_characters_and_backslashes_are_plain_names_on_a_disk(
    local_tree, local_storage, workflow_id
):
    local_tree.run(workflow_id).task(workflow_id).status("RUNNING")
    assert statuses(local_storage) == {workflow_id: "RUNNING"}
    stored = local_storage.read_run(workflow_id)
    assert stored is not None
    assert list(stored.tasks) == [workflow_id]


def test_runs_called_like_the_folders_of_the_storage_do_not_disturb_each_other(tree, storage):
    ids = ["RUNNING", "dirty", "__status__", "tasks", "a/b", "c/d", "c/e"]
    tree.run("c").status("FAILED")
    for workflow_id in ids:
        tree.run(workflow_id).task("f").entry("f").status("RUNNING")
    assert statuses(storage) == {**dict.fromkeys(ids, "RUNNING"), "c": "FAILED"}
    for workflow_id in ids:
        stored = storage.read_run(workflow_id)
        assert stored is not None
        assert list(stored.tasks) == ["f"]


def test_files_of_a_run_that_lives_in_a_status_folder_are_no_marks(tree, storage):
    run = tree.run("__status__/FAILED").task("f").entry("f").status("RUNNING", 5.0)
    tree.run("other").status("FAILED")
    # Caught by a poll while Ray writes them.
    run.put("tasks/f/pre_task_metadata.json", b"").put("pre_run_metadata.json", b"")
    run.put("duplicate_name_counter/g", b"")
    assert statuses(storage) == {"__status__/FAILED": "RUNNING", "other": "FAILED"}


def test_an_interrupted_change_is_decided_by_the_runs_own_folder(tree, storage):
    both = tree.run("both").status("RUNNING").dirty().meta("FAILED").mark("FAILED")
    tree.run("neither").dirty().meta("RUNNING")
    tree.run("old").status("RUNNING").dirty().meta("SUCCESSFUL")
    tree.run("clean").meta("CANCELED").mark("RUNNING").mark("CANCELED")
    expected = {
        "both": "FAILED",
        "neither": "RUNNING",
        "old": "SUCCESSFUL",
        "clean": "CANCELED",
    }
    assert statuses(storage) == expected
    assert all(mark.time > 0 for mark in storage.list_marks().values())
    both.unmark("RUNNING").clean()
    assert statuses(storage) == expected


def test_dirt_of_a_deleted_run_is_dropped(tree, storage):
    tree.run("kept").status("RUNNING")
    tree.run("deleted").dirty().mark("RUNNING")
    tree.run("never").put("workflow_meta.json", {"status": "NONE"}).dirty()
    assert statuses(storage) == {"kept": "RUNNING"}


@pytest.mark.parametrize("torn", [b"", b'{"status": "SUCC', b"\xff"])
def test_a_half_written_status_leaves_the_last_mark_in_force(tree, storage, torn):
    tree.run("w").status("RUNNING").dirty().put("workflow_meta.json", torn)
    tree.run("new").dirty().put("workflow_meta.json", torn)
    assert statuses(storage) == {"w": "RUNNING"}


def test_of_two_marks_the_newer_holds_while_the_status_is_half_written(
    local_tree, local_storage, tmp_path
):
    local_tree.run("w").mark("PENDING").mark("FAILED").put("workflow_meta.json", b"")
    marks = tmp_path / "storage" / "workflows" / "__status__"
    os.utime(marks / "PENDING" / "w", (2000, 2000))
    os.utime(marks / "FAILED" / "w", (1000, 1000))
    assert statuses(local_storage) == {"w": "PENDING"}


@pytest.mark.parametrize("moment", range(8))
def test_a_run_that_ends_while_the_marks_are_listed_is_never_missed(
    local_tree, local_storage, monkeypatch, moment
):
    run = local_tree.run("w").status("RUNNING")
    listed = 0
    update = LocalFiles.update

    def list_and_end(self, *what):
        nonlocal listed
        if listed == moment:
            run.status("SUCCESSFUL")
        listed += 1
        update(self, *what)

    monkeypatch.setattr(LocalFiles, "update", list_and_end)
    first = statuses(local_storage)
    assert first in ({"w": "RUNNING"}, {"w": "SUCCESSFUL"})
    assert statuses(local_storage) == {"w": "SUCCESSFUL"}


def test_what_runs_with_impossible_names_leave_behind_is_tolerated(tree, storage):
    tree.run("w").status("SUCCESSFUL")
    tree.put("workflows/__status__/NONE", b"")
    tree.put("workflows/__status__/RUNNING", b"")
    tree.put("workflows/__status__/FAILED/notes.txt", b"somebody's own")
    tree.put("workflows/tasks/f/inputs.json", b"{}")
    assert statuses(storage) == {"w": "SUCCESSFUL"}


def test_a_storage_without_workflows_yet_is_empty(storage):
    assert storage.list_marks() == {}
    assert storage.read_run("w") is None


def test_a_missing_storage_is_an_error_until_it_is_there(tmp_path):
    storage = WorkflowStorage(str(tmp_path / "missing"))
    with pytest.raises(StorageError, match=r"missing does not exist\. Check .*--storage"):
        storage.list_marks()
    StorageTree(str(tmp_path / "missing")).run("w").status("RUNNING")
    assert statuses(storage) == {"w": "RUNNING"}


def test_a_folder_that_is_no_storage_is_an_error(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    storage = WorkflowStorage(str(tmp_path / "photos"))
    with pytest.raises(StorageError, match=r"photos is no storage of Ray: .*_valid.*--storage"):
        storage.list_marks()
    (tmp_path / "photos" / "_valid").write_bytes(b"")
    assert storage.list_marks() == {}


def test_a_copy_of_the_workflows_alone_is_a_storage(tree, storage):
    tree.run("w").status("FAILED")
    tree.delete("_valid")
    assert statuses(storage) == {"w": "FAILED"}
    assert "has no file '_valid'" in storage.warning
    tree.put("_valid", b"")
    storage.list_marks()
    assert storage.warning is None


def test_what_ray_made_casts_no_doubt(tree, storage):
    storage.list_marks()
    assert storage.warning is None


def test_a_folder_called_workflows_makes_no_storage(tmp_path):
    (tmp_path / "project" / "workflows").mkdir(parents=True)
    (tmp_path / "project" / "workflows" / "build.yaml").write_bytes(b"on: push")
    with pytest.raises(StorageError, match=r"project is no storage of Ray: .*__status__"):
        WorkflowStorage(str(tmp_path / "project")).list_marks()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/a/b", "/a/b/", True),
        ("/a/b", "file:///a/b", True),
        ("/a/b", "/a/c", False),
        ("/a/b", "s3://a/b", False),
        ("s3://key:secret@b/x?region=r", "s3://b/x/", True),
        ("s3://b/x", "s3://b/y", False),
        (None, "/a", True),
        ("/a", None, True),
    ],
)
def test_two_names_of_a_storage_are_compared_by_place(one, other, same):
    assert same_storage(one, other) is same


def test_a_storage_that_lost_its_mount_is_an_error_not_an_empty_one(local_tree, local_storage):
    local_tree.run("w").status("RUNNING")
    local_storage.list_marks()
    local_tree.delete_folder("workflows")
    with pytest.raises(StorageError, match="mounted"):
        local_storage.list_marks()


def test_deleting_the_last_run_leaves_an_empty_storage(tree, storage):
    run = tree.run("w").status("RUNNING")
    assert statuses(storage) == {"w": "RUNNING"}
    run.remove()
    assert statuses(storage) == {}


def test_a_disk_error_names_the_folder_and_what_to_do(local_tree, local_storage, monkeypatch):
    local_tree.run("w").task("f").status("RUNNING")

    def scandir(path):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match=r"__status__.*: Input/output error\. Check"):
        local_storage.list_marks()
    with pytest.raises(StorageError, match="workflows/w"):
        local_storage.read_run("w")


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("zzz://nowhere/x", "Unrecognized filesystem type"),
        ("custom://no.such_module/x", "No module named"),
        ("custom://support.trees.missing/x", "no attribute"),
        ("custom://plain/x", "Empty module name"),
    ],
)
def test_a_storage_that_cannot_be_opened_says_why(uri, cause):
    with pytest.raises(StorageError, match=cause) as caught:
        WorkflowStorage(uri).list_marks()
    assert uri in str(caught.value)


def test_a_mark_carries_the_status_and_the_mtime_of_its_file(local_tree, local_storage, tmp_path):
    local_tree.run("w").status("FAILED")
    os.utime(tmp_path / "storage/workflows/__status__/FAILED/w", (1_700_000_000.5,) * 2)
    assert local_storage.list_marks() == {"w": Mark(RunStatus.FAILED, 1_700_000_000.5)}


def test_a_relative_path_is_a_storage(tmp_path, monkeypatch):
    StorageTree(str(tmp_path / "here")).run("w").status("RUNNING")
    monkeypatch.chdir(tmp_path)
    assert statuses(WorkflowStorage("here")) == {"w": "RUNNING"}
