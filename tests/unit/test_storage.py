"""Workflow storage on each kind of file system that it may lie on."""

from __future__ import annotations

import gc
import json
import os
import pickle
import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from object_store import object_store, s3_uri
from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.sources import storage as storage_module
from ray_workflow_exporter.sources.files import ArrowFiles, LocalFiles
from ray_workflow_exporter.sources.records import Mark, StoredRun, StoredTask
from ray_workflow_exporter.sources.storage import StorageError, WorkflowStorage
from trees import STATUSES, StorageTree

KINDS = ("path", "file", "custom", "s3")


@pytest.fixture(scope="module")
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
        return StorageTree(f"custom://trees.below{folder}")
    return StorageTree(str(folder))


@pytest.fixture
def local_tree(tmp_path) -> StorageTree:
    return StorageTree(str(tmp_path / "storage"))


@pytest.fixture
def storage(tree) -> Iterator[WorkflowStorage]:
    opened = WorkflowStorage(tree.uri)
    yield opened
    opened.close()


@pytest.fixture
def local_storage(local_tree) -> Iterator[WorkflowStorage]:
    opened = WorkflowStorage(local_tree.uri)
    yield opened
    opened.close()


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
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + 3_600_000_000_000)
    monkeypatch.setattr(storage_module, "time", clock)


def statuses(storage: WorkflowStorage) -> dict[str, str]:
    return {workflow_id: mark.status.value for workflow_id, mark in storage.list_marks().items()}


def task_of(storage: WorkflowStorage, task_id: str = "f") -> StoredTask:
    run = storage.read_run("w")
    assert run is not None
    return run.tasks[task_id]


# Marks


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
    assert statuses(storage) == {}
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
    entries = LocalFiles.entries

    def list_and_end(self, folder, recursive=True):
        nonlocal listed
        if listed == moment:
            run.status("SUCCESSFUL")
        listed += 1
        return entries(self, folder, recursive)

    monkeypatch.setattr(LocalFiles, "entries", list_and_end)
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
    local_tree.run("w").status("RUNNING")

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
        ("custom://trees.missing/x", "no attribute"),
        ("custom://plain/x", "Empty module name"),
    ],
)
def test_a_storage_that_cannot_be_opened_says_why(uri, cause):
    with pytest.raises(StorageError, match=cause) as caught:
        WorkflowStorage(uri).list_marks()
    assert uri in str(caught.value)


# Runs


def test_a_diamond_is_read_word_for_word(tree, storage):
    run = tree.run("w", {"workflow": "etl", "n": 1.5})
    run.task("load").task("f", "load").task("f_1", "load", max_retries=0).task("join", "f", "f_1")
    run.task("note", metadata={"owner": "me"}, checkpoint=False, catch_exceptions=True)
    run.entry("join").status("RUNNING", 100.0)
    run.succeed("load", 101.0, 102.5, "out").start("f", 103.0)
    out = len(pickle.dumps("out", protocol=5))

    stored = storage.read_run("w")
    assert stored is not None
    output_time = stored.tasks["load"].output_time
    assert output_time is not None
    assert abs(output_time - time.time()) < 60
    options: dict[str, Any] = {"max_retries": 3, "checkpoint": True, "catch_exceptions": False}
    assert stored == StoredRun(
        "w",
        status=RunStatus.RUNNING,
        start_time=100.0,
        user_metadata={"workflow": "etl", "n": 1.5},
        output_task_id="join",
        base_names=frozenset(("load", "f", "join", "note")),
        tasks={
            "load": StoredTask(
                "load",
                upstream=(),
                start_time=101.0,
                end_time=102.5,
                output_bytes=out,
                output_time=output_time,
                **options,
            ),
            "f": StoredTask("f", upstream=("load",), start_time=103.0, **options),
            "f_1": StoredTask("f_1", upstream=("load",), **{**options, "max_retries": 0}),
            "join": StoredTask("join", upstream=("f", "f_1"), **options),
            "note": StoredTask(
                "note",
                upstream=(),
                max_retries=3,
                checkpoint=False,
                catch_exceptions=True,
                user_metadata={"owner": "me"},
            ),
        },
    )
    run.succeed("f", 103.0, 104.0).status("FAILED", 105.0)
    ended = storage.read_run("w", stored)
    assert ended is not None
    assert (ended.status, ended.end_time) == (RunStatus.FAILED, 105.0)
    assert ended.tasks["f"].end_time == 104.0


def test_a_failed_attempt_shows_its_exception(tree, storage):
    tree.run("w").task("f").start("f", 1.0).fail("f", ValueError("boom")).status("FAILED", 2.0)
    task = task_of(storage)
    assert task.exception == ("ValueError", "boom")
    assert task.exception_time is not None
    assert abs(task.exception_time - time.time()) < 60
    assert (task.end_time, task.output_bytes) == (None, None)


def test_a_retried_task_keeps_its_old_exception_beside_its_output(tree, storage):
    tree.run("w").task("f").fail("f", KeyError("once")).succeed("f", 3.0, 4.0, 7)
    task = task_of(storage)
    assert task.exception == ("KeyError", "'once'")
    assert (task.start_time, task.end_time, task.output_bytes) == (3.0, 4.0, 5)


def test_a_crashed_worker_leaves_only_a_start(tree, storage):
    tree.run("w").task("f").start("f", 1.0).status("FAILED", 2.0)
    task = task_of(storage)
    assert (task.start_time, task.end_time, task.exception) == (1.0, None, None)


def test_an_output_that_could_not_be_saved_leaves_an_end(tree, storage):
    tree.run("w").task("f").start("f", 1.0).end("f", 2.0).status("FAILED", 2.0)
    task = task_of(storage)
    assert (task.end_time, task.output_bytes, task.checkpoint) == (2.0, None, True)


def test_a_task_without_checkpoint_ends_without_output(tree, storage):
    tree.run("w").task("f", checkpoint=False).start("f", 1.0).end("f", 2.0)
    task = task_of(storage)
    assert (task.end_time, task.output_bytes, task.checkpoint) == (2.0, None, False)


def test_a_continuation_names_the_workflow_that_was_returned(tree, storage):
    run = tree.run("w").task("f").entry("f").start("f", 1.0).end("f", 2.0)
    run.task("g").go_on("f", "g")
    assert task_of(storage).continuation == "g"
    run.task("h").go_on("g", "h").succeed("h", 3.0, 4.0).go_on("f", "g", dynamic="h")
    assert task_of(storage).continuation == "g"
    run.put("tasks/f/outputs.json", {"dynamic_output_task_id": "h"})
    assert task_of(storage).continuation == "h"


def test_tasks_of_an_unsaved_continuation_are_known_by_their_times_only(tree, storage):
    run = tree.run("w").task("f", checkpoint=False).count("sub/g").count("sub/g_1")
    run.start("sub/g", 1.0).end("sub/g", 2.0).start("sub/g_1", 3.0)
    stored = storage.read_run("w")
    assert stored is not None
    assert stored.tasks["sub/g"] == StoredTask("sub/g", start_time=1.0, end_time=2.0)
    assert stored.tasks["sub/g_1"] == StoredTask("sub/g_1", start_time=3.0)
    assert stored.base_names == {"f", "sub/g"}


def test_a_task_that_names_itself_needs_no_counter(tree, storage):
    run = tree.run("w").task("f").start("f", 1.0)
    run.delete("duplicate_name_counter/f")
    assert task_of(storage).start_time == 1.0


def test_a_resumed_run_shows_its_new_start_and_its_old_end(tree, storage):
    run = tree.run("w").task("f").status("RUNNING", 1.0).status("FAILED", 2.0)
    run.status("RUNNING", 50.0)
    stored = storage.read_run("w")
    assert stored is not None
    assert (stored.status, stored.start_time, stored.end_time) == (RunStatus.RUNNING, 50.0, 2.0)


def test_a_run_that_was_refused_is_a_ghost(tree, storage):
    tree.run("w").task("f").entry("f")
    assert storage.list_marks() == {}
    stored = storage.read_run("w")
    assert stored is not None
    assert (stored.status, stored.output_task_id, list(stored.tasks)) == (None, "f", ["f"])


def test_cancelling_an_unknown_id_makes_a_run_of_nothing(tree, storage):
    run = tree.run("w").status("CANCELED")
    run.delete("user_run_metadata.json")
    assert storage.read_run("w") == StoredRun("w", status=RunStatus.CANCELED)


def test_an_argument_that_is_used_twice_is_one_upstream_task(tree, storage):
    tree.run("w").task("e").task("f", "e", "e")
    assert task_of(storage).upstream == ("e",)


ODD_TASK_IDS = [
    "tä/sk",
    "inputs.json",
    "outputs.json/x",
    "x/output.pkl",
    "x/inputs.json/y_3",
    "workflow_meta.json",
    "tasks",
    "a b ",
    "100%2F",
    "__main__.f",
    "_1",
    "f_",
    "y" * 255,
]


@pytest.mark.parametrize("task_id", ODD_TASK_IDS, ids=range(len(ODD_TASK_IDS)))
def test_a_task_is_found_under_any_name_that_ray_takes(tree, storage, task_id):
    run = tree.run("w").task("root").task("some/sub").count(task_id).start(task_id, 1.0)
    unsaved = storage.read_run("w")
    assert unsaved is not None
    assert set(unsaved.tasks) == {"root", "some/sub", task_id}
    assert unsaved.tasks[task_id] == StoredTask(task_id, start_time=1.0)
    run.task(task_id, "root", task_id).end(task_id, 2.0)
    saved = storage.read_run("w", unsaved, only=[task_id])
    assert saved is not None
    assert saved == storage.read_run("w")
    assert saved.tasks[task_id].upstream == ("root", task_id)
    assert saved.tasks[task_id].end_time == 2.0


def test_backslashes_in_ids_survive_where_ray_turns_them_into_slashes(tree, storage):
    tree.run("w\\x").task("t\\y").start("t\\y", 1.0).status("RUNNING")
    stored = storage.read_run("w\\x")
    assert stored is not None
    assert stored.workflow_id == "w\\x"
    assert stored.tasks["t\\y"].start_time == 1.0


def test_a_run_inside_the_folder_of_another_runs_task_stays_apart(tree, storage):
    outer = tree.run("a").task("x").start("x", 1.0).status("PENDING")
    inner = tree.run("a/tasks/x").task("y").entry("y").start("y", 2.0).fail("y", ValueError())
    inner.count("u").start("u", 3.0).status("RUNNING")
    assert statuses(storage) == {"a": "PENDING", "a/tasks/x": "RUNNING"}
    stored, nested = storage.read_run("a"), storage.read_run("a/tasks/x")
    assert stored is not None
    assert nested is not None
    assert set(stored.tasks) == {"x"}
    assert set(nested.tasks) == {"y", "u"}
    outer.end("x", 4.0)
    again = storage.read_run("a", stored, only=["x"])
    assert again is not None
    assert set(again.tasks) == {"x"}
    assert again.tasks["x"].end_time == 4.0


@pytest.mark.parametrize(
    "workflow_id",
    ["", ".", "..", "../x", "a/../..", "a/../b", "/etc", "/", "./", "nul\0", "\ud800"],
)
def test_an_id_that_leads_out_of_the_storage_is_refused(storage, workflow_id, reads):
    with pytest.raises(ValueError, match="cannot be a workflow id"):
        storage.read_run(workflow_id)
    assert reads == []


def test_a_task_id_that_leads_out_of_the_run_is_no_task(tree, storage):
    tree.run("v").task("f").start("f", 1.0)
    tree.run("w").task("f")
    stored = storage.read_run("w")
    assert stored is not None
    odd = ["../../v/tasks/f", "/etc", "", "..", "\ud800", "x" * 300]
    assert storage.read_run("w", stored, only=odd) == stored


# Half-written files and untrusted values

TORN = [b"", b"{", b'{"start_time": 17', b'{"start_time": 1} {', b"\xff\xfe\x00", b"[" * 100_000]


@pytest.mark.parametrize("torn", TORN, ids=range(len(TORN)))
def test_a_half_written_file_keeps_the_last_good_value_until_it_is_whole(tree, storage, torn):
    run = tree.run("w", {"k": 1}).task("f").task("g", "f").entry("g").status("RUNNING", 1.0)
    run.start("f", 2.0).end("f", 3.0).go_on("f", "g").fail("f", ValueError("x"))
    good = storage.read_run("w")
    assert good is not None
    names = {
        "workflow_meta.json",
        "pre_run_metadata.json",
        "user_run_metadata.json",
        "tasks/outputs.json",
        "tasks/f/inputs.json",
        "tasks/f/pre_task_metadata.json",
        "tasks/f/post_task_metadata.json",
        "tasks/f/outputs.json",
        "tasks/f/exception.pkl",
    }
    whole = {name: tree.get(f"workflows/w/{name}") for name in names}
    for name in names:
        run.put(name, torn)
    once = storage.read_run("w", good)
    twice = storage.read_run("w", once, only=["f"])
    assert once == good
    assert twice == good
    for name, data in whole.items():
        run.put(name, data)
    run.start("f", 9.0)
    again = storage.read_run("w", twice)
    assert again is not None
    assert again.tasks["f"].start_time == 9.0
    assert again.status is RunStatus.RUNNING


@pytest.mark.parametrize("torn", TORN, ids=range(len(TORN)))
def test_a_file_that_was_never_whole_counts_as_absent(tree, storage, torn):
    run = tree.run("w").task("f")
    for name in ("workflow_meta.json", "pre_run_metadata.json", "tasks/outputs.json"):
        run.put(name, torn)
    for name in ("inputs.json", "pre_task_metadata.json", "outputs.json", "exception.pkl"):
        run.put(f"tasks/f/{name}", torn)
    assert storage.read_run("w") == StoredRun(
        "w", base_names=frozenset("f"), tasks={"f": StoredTask("f")}
    )


WRONG = [None, True, "12", [], {}, -1, 0, 1e300, float("nan"), float("inf"), 10**400]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_a_value_of_a_wrong_type_counts_as_absent(local_tree, local_storage, wrong):
    run = local_tree.run("w").task("f")
    run.put("pre_run_metadata.json", {"start_time": wrong})
    run.put("post_run_metadata.json", {"end_time": wrong})
    run.put("workflow_meta.json", {"status": wrong})
    run.put("tasks/outputs.json", {"output_task_id": wrong if wrong != "12" else 12})
    run.put("tasks/f/pre_task_metadata.json", {"start_time": wrong})
    run.put("tasks/f/post_task_metadata.json", {"end_time": wrong})
    assert local_storage.read_run("w") == StoredRun(
        "w",
        base_names=frozenset("f"),
        tasks={"f": StoredTask("f", (), 3, True, False)},
    )


@pytest.mark.parametrize("document", [[], 1, None, "x", {}, [{"status": "FAILED"}]])
def test_a_document_of_a_wrong_type_counts_as_empty(local_tree, local_storage, document):
    run = local_tree.run("w").task("f")
    for name in ("workflow_meta.json", "pre_run_metadata.json", "user_run_metadata.json"):
        run.put(name, document)
    for name in ("inputs.json", "pre_task_metadata.json", "outputs.json"):
        run.put(f"tasks/f/{name}", document)
    assert local_storage.read_run("w") == StoredRun(
        "w", base_names=frozenset("f"), tasks={"f": StoredTask("f")}
    )


def test_wrong_inputs_of_a_task_count_as_absent_one_by_one(local_tree, local_storage):
    run = local_tree.run("w").task("f")
    options = {"max_retries": 1.5, "checkpoint": "yes", "catch_exceptions": 1}
    inputs = {"workflow_refs": ["e", 7, None, "", ["x"]], "user_metadata": [], "task_id": ["f"]}
    run.put("tasks/f/inputs.json", {**inputs, "task_options": options})
    assert task_of(local_storage) == StoredTask("f", upstream=("e",))
    run.put("tasks/f/inputs.json", {"workflow_refs": "e", "task_options": {"max_retries": True}})
    assert task_of(local_storage) == StoredTask("f")
    run.put("tasks/f/inputs.json", {"task_options": {"max_retries": -1}})
    assert task_of(local_storage).max_retries == -1


def test_what_no_text_or_number_can_hold_is_taken_out_of_metadata(local_tree, local_storage):
    metadata = b'{"nan": NaN, "big": 1e999, "half\\ud800": "\\uDFFF", "face": "\\ud83d\\ude00"}'
    local_tree.run("w").put("user_run_metadata.json", metadata)
    stored = local_storage.read_run("w")
    assert stored is not None
    assert stored.user_metadata == {"nan": None, "big": None, "half?": "?", "face": "😀"}


def test_no_more_of_a_huge_file_is_read_than_is_needed(local_tree, local_storage, reads):
    run = local_tree.run("w").task("f").fail("f", ValueError("x" * (2 << 20)))
    run.put("user_run_metadata.json", {"x": "y" * (5 << 20)})
    stored = local_storage.read_run("w")
    assert stored is not None
    assert stored.user_metadata == {}
    exception = stored.tasks["f"].exception
    assert exception is not None
    assert "x" * 3000 not in exception[1]
    limits = {path.rpartition("/")[2]: limit for path, limit in reads}
    assert limits["exception.pkl"] == (1 << 20) + 1
    assert max(limits.values()) <= 4 << 20


def test_names_that_are_no_text_are_ignored_on_a_disk(local_tree, local_storage, tmp_path):
    local_tree.run("w").task("f").status("RUNNING")
    root = os.fsencode(tmp_path / "storage" / "workflows")
    os.close(os.open(root + b"/__status__/RUNNING/\xff", os.O_CREAT))
    os.makedirs(root + b"/w/tasks/\xff")
    os.close(os.open(root + b"/w/tasks/\xff/inputs.json", os.O_CREAT))
    assert statuses(local_storage) == {"w": "RUNNING"}
    stored = local_storage.read_run("w")
    assert stored is not None
    assert list(stored.tasks) == ["f"]


def test_links_and_pipes_on_a_disk_do_not_stall_or_loop(local_tree, local_storage, tmp_path):
    local_tree.run("w").task("f").status("RUNNING")
    folder = tmp_path / "storage" / "workflows"
    (folder / "__status__" / "RUNNING" / "loop").symlink_to(folder)
    (folder / "w" / "tasks" / "loop").symlink_to(folder / "w")
    (folder / "w" / "tasks" / "f" / "outputs.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "w" / "tasks" / "f" / "exception.pkl")
    assert statuses(local_storage) == {"w": "RUNNING"}
    assert task_of(local_storage) == StoredTask("f", (), 3, True, False)


# Reading again


@pytest.mark.usefixtures("later")
def test_files_that_did_not_change_are_not_read_again(tree, storage, reads):
    run = tree.run("w").task("f").task("g", "f").entry("g").status("RUNNING", 1.0)
    run.succeed("f", 2.0, 3.0).fail("f", ValueError("x")).start("g", 3.0)
    first = storage.read_run("w")
    assert len([path for path, _ in reads if path.startswith("w/tasks/f/")]) == 4
    reads.clear()
    second = storage.read_run("w", first)
    assert second == first
    assert [path for path, _ in reads if path.count("/") > 2] == []
    run.end("g", 4.0)
    reads.clear()
    third = storage.read_run("w", second)
    assert third is not None
    assert third.tasks["g"].end_time == 4.0
    assert [path for path, _ in reads if path.count("/") > 2] == [
        "w/tasks/g/post_task_metadata.json"
    ]


def test_a_young_file_is_read_again_though_nothing_shows_that_it_changed(
    local_tree, local_storage, tmp_path
):
    run = local_tree.run("w").task("f").start("f", 1.0)
    path = tmp_path / "storage/workflows/w/tasks/f/pre_task_metadata.json"
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    first = local_storage.read_run("w")
    run.start("f", 2.0)
    os.utime(path, ns=(now, now))  # in the same tick of the clock
    second = local_storage.read_run("w", first)
    assert second is not None
    assert second.tasks["f"].start_time == 2.0


def test_what_never_changes_is_read_once_even_while_it_is_young(tree, storage, reads):
    run = tree.run("w").task("f").start("f", 1.0)
    first = storage.read_run("w")
    reads.clear()
    run.end("f", 2.0)
    storage.read_run("w", first)
    assert "w/tasks/f/inputs.json" not in [path for path, _ in reads]


@pytest.mark.usefixtures("later")
def test_a_run_that_was_deleted_and_made_anew_is_read_anew(tree, storage):
    tree.run("w", {"life": 1}).task("f").succeed("f", 2.0, 3.0).status("RUNNING", 1.0)
    first = storage.read_run("w")
    tree.run("w").remove()
    assert storage.read_run("w", first) is None
    tree.run("w", {"life": 2}).task("f", "e", max_retries=10).status("PENDING")
    second = storage.read_run("w", first)
    assert second == storage.read_run("w")
    assert second is not None
    assert second.tasks["f"].max_retries == 10
    assert second.tasks["f"].start_time is None


@pytest.mark.usefixtures("later")
def test_an_older_reading_is_not_taken_for_the_last_one(tree, storage):
    run = tree.run("w").task("f").start("f", 1.0)
    first = storage.read_run("w")
    run.start("f", 22.0)
    second = storage.read_run("w", first)
    assert storage.read_run("w", first) == second
    storage.forget("w")
    assert storage.read_run("w", second) == second


def test_nothing_is_remembered_of_a_run_that_nobody_holds(local_tree, local_storage):
    for number in range(3):
        local_tree.run(f"w{number}").task("f")
    held = local_storage.read_run("w0")
    held = local_storage.read_run("w0", held)
    local_storage.read_run("w1")
    gc.collect()
    assert set(local_storage._memory) == {"w0"}
    local_storage.forget("w0")
    assert local_storage._memory == {}
    assert local_storage.read_run("w0", held) == held


@pytest.mark.usefixtures("later")
def test_a_refresh_of_some_tasks_takes_the_others_from_before(tree, storage):
    run = tree.run("w").task("a").task("b", "a").task("c").status("RUNNING", 1.0)
    first = storage.read_run("w")
    run.succeed("a", 2.0, 3.0).start("b", 4.0).task("d", "b").count("e").start("e", 5.0)
    run.status("FAILED", 6.0)
    second = storage.read_run("w", first, only={"a", "d", "e", "not there"})
    assert second is not None
    assert set(second.tasks) == {"a", "b", "c", "d", "e"}
    assert second.tasks["a"].end_time == 3.0
    assert second.tasks["b"].start_time is None
    assert second.tasks["d"].upstream == ("b",)
    assert second.tasks["e"].start_time == 5.0
    assert (second.status, second.end_time) == (RunStatus.FAILED, 6.0)
    assert {"d", "e"} <= second.base_names
    assert storage.read_run("w", second) == storage.read_run("w")


def test_a_refresh_of_some_tasks_lists_their_folders_only(local_tree, local_storage, monkeypatch):
    run = local_tree.run("w")
    for number in range(20):
        run.task(f"f_{number}")
    run.put("tasks/f_3/deeper/inputs.json", {})
    first = local_storage.read_run("w")
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    assert local_storage.read_run("w", first, only=["f_3"]) == first
    assert sorted(path.partition("/w/")[2].rstrip("/") for path in listed) == [
        "duplicate_name_counter",
        "tasks/f_3",
    ]


def test_a_task_whose_folder_is_gone_is_dropped_by_a_refresh(tree, storage):
    tree.run("w").task("f").task("g")
    first = storage.read_run("w")
    tree.delete_folder("workflows/w/tasks/f")
    second = storage.read_run("w", first, only=["f"])
    assert second is not None
    assert list(second.tasks) == ["g"]


def test_a_deleted_run_is_none_and_forgotten(tree, storage):
    run = tree.run("w").task("f").status("RUNNING")
    first = storage.read_run("w")
    run.remove()
    assert storage.read_run("w", first) is None
    assert storage.read_run("w") is None


def test_a_file_that_vanishes_after_its_listing_counts_as_absent(tree, storage, monkeypatch):
    run = tree.run("w").task("f").start("f", 1.0)
    for kind in (LocalFiles, ArrowFiles):

        def entries(self, folder, recursive=True, original=kind.entries):
            found = original(self, folder, recursive)
            run.delete("tasks/f/pre_task_metadata.json")
            return found

        monkeypatch.setattr(kind, "entries", entries)
    assert task_of(storage).start_time is None


# Harm


def test_watching_changes_nothing_and_opens_no_file_that_is_not_ours_to_open(tree, storage, reads):
    run = tree.run("w").task("f").task("g", "f").entry("g").status("RUNNING", 1.0)
    run.succeed("f", 2.0, 3.0, "x" * 10_000).fail("g", ValueError("x"))
    tree.run("d/e").dirty().meta("FAILED").mark("FAILED").mark("RUNNING")
    before = tree.content()
    marks = storage.list_marks()
    for workflow_id in (*marks, "missing", "a/b/c"):
        first = storage.read_run(workflow_id)
        storage.read_run(workflow_id, first)
        storage.read_run(workflow_id, first, only=["f", "missing"])
    storage.list_marks()
    assert set(marks) == {"w", "d/e"}
    assert tree.content() == before
    opened = {path.rpartition("/")[2] for path, _ in reads}
    assert opened.isdisjoint({"output.pkl", "func_body.pkl", "args.pkl", "_valid"})
    assert "exception.pkl" in opened


def test_looking_at_a_storage_that_is_not_there_creates_nothing(tmp_path):
    storage = WorkflowStorage(str(tmp_path / "a" / "b"))
    with pytest.raises(StorageError):
        storage.list_marks()
    assert storage.read_run("w") is None
    storage.close()
    assert list(tmp_path.iterdir()) == []


def test_a_mark_carries_the_status_and_the_mtime_of_its_file(local_tree, local_storage, tmp_path):
    local_tree.run("w").status("FAILED")
    os.utime(tmp_path / "storage/workflows/__status__/FAILED/w", (1_700_000_000.5,) * 2)
    assert local_storage.list_marks() == {"w": Mark(RunStatus.FAILED, 1_700_000_000.5)}


def test_a_relative_path_is_a_storage(tmp_path, monkeypatch):
    StorageTree(str(tmp_path / "here")).run("w").status("RUNNING")
    monkeypatch.chdir(tmp_path)
    assert statuses(WorkflowStorage("here")) == {"w": "RUNNING"}


def test_user_metadata_that_ray_wrote_comes_back_as_it_was(tree, storage):
    metadata = {"nested": {"list": [1, 2.5, "ü", None, True]}, "workflow": "é"}
    tree.run("w", metadata).task("f", metadata=metadata)
    stored = storage.read_run("w")
    assert stored is not None
    assert stored.user_metadata == metadata
    assert stored.tasks["f"].user_metadata == json.loads(json.dumps(metadata))
