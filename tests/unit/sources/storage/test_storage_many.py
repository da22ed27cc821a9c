"""Many runs read at once, and marks that are listed again and again."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager

import pytest

from ray_workflow_exporter.sources.storage import storage as storage_module
from ray_workflow_exporter.sources.storage.arrow_files import CONNECTIONS, ArrowFiles
from ray_workflow_exporter.sources.storage.filesystem import StorageError
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage
from support.stored import path_of
from support.trees import StorageTree


def plant(tree: StorageTree, count: int) -> list[str]:
    """Write finished runs, each with a task that failed and one that did not."""
    ids = [f"run/{number}" for number in range(count)]
    for number, workflow_id in enumerate(ids):
        run = tree.run(workflow_id, {"n": number}).task("f").task("g", "f").entry("g")
        run.succeed("f", 1.0, 2.0, "x" * number).start("g", 2.0).fail("g", ValueError(number))
        run.status("FAILED", 3.0)
    return ids


def note_requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that will hold what an object store is asked for from now on."""
    asked: list[str] = []
    tree, read = ArrowFiles.tree, ArrowFiles.read

    def note_listing(self, folder, *args, **how):
        asked.append(folder)
        return tree(self, folder, *args, **how)

    def note_reading(self, path, limit):
        asked.append(path)
        return read(self, path, limit)

    monkeypatch.setattr(ArrowFiles, "tree", note_listing)
    monkeypatch.setattr(ArrowFiles, "read", note_reading)
    return asked


def test_many_runs_are_read_as_each_is_alone(tree, storage):
    ids = [*plant(tree, 5), "missing"]
    found = storage.read_runs(dict.fromkeys(ids))
    assert list(found) == ids
    assert found == {
        workflow_id: WorkflowStorage(tree.uri).read_run(workflow_id) for workflow_id in ids
    }
    assert found["missing"] is None
    again = storage.read_runs(found)
    assert again == found


@pytest.mark.usefixtures("later")
def test_a_second_look_at_many_runs_reads_only_what_changed(tree, storage, reads):
    ids = plant(tree, 3)
    found = storage.read_runs(storage.read_runs(dict.fromkeys(ids)))
    tree.run(ids[1]).end("g", 99.0)
    reads.clear()
    again = storage.read_runs(found)
    assert again[ids[1]].tasks["g"].end_time == 99.0
    in_tasks = [path for path, _ in reads if path.count("/") > 3]
    assert in_tasks == [f"{ids[1]}/tasks/g/post_task_metadata.json"]


def test_an_id_that_leads_out_of_the_storage_has_no_folder(tree, storage, reads):
    ids = plant(tree, 1)
    found = storage.read_runs(dict.fromkeys(["..", ".", "", *ids, "/etc"]))
    assert {key for key, run in found.items() if run is not None} == set(ids)
    assert set(found) == {"..", ".", "", *ids, "/etc"}
    assert all(path.startswith("run/0/") for path, _ in reads)


def test_reading_many_ends_when_its_time_is_over_but_never_without_any(local_tree, local_storage):
    ids = plant(local_tree, 5)
    assert list(local_storage.read_runs(dict.fromkeys(ids), time.monotonic())) == ids[:1]


def test_a_long_batch_from_an_object_store_ends_between_two_groups(tree, monkeypatch):
    storage = WorkflowStorage(tree.uri)
    ids = plant(tree, 5)
    monkeypatch.setattr(storage_module, "_FILES_AT_ONCE", 12)  # those of two runs
    found = storage.read_runs(dict.fromkeys(ids), time.monotonic())
    assert 1 <= len(found) < 5
    assert all(run is not None and len(run.tasks) == 2 for run in found.values())


def test_a_run_of_which_nothing_can_be_listed_hides_no_other(
    local_tree, local_storage, monkeypatch
):
    ids = plant(local_tree, 3)
    scandir = os.scandir

    def fail_for_the_second(folder):
        if "run/1" in path_of(folder):
            raise OSError(5, "Input/output error")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", fail_for_the_second)
    found = local_storage.read_runs(dict.fromkeys(ids))
    assert list(found) == ids
    assert [len(found[it].tasks) for it in ids] == [2, 0, 2]
    assert found[ids[1]].end_time == 3.0
    assert found[ids[1]].unreadable == (
        "duplicate_name_counter: Input/output error",
        "tasks: Input/output error",
    )


def test_what_was_read_before_the_storage_failed_is_kept(local_tree, local_storage, monkeypatch):
    ids = plant(local_tree, 3)
    scandir = os.scandir
    failed: list[str] = []

    def fail_from_the_second_on(folder):
        if failed or "run/1" in path_of(folder):
            failed.append(path_of(folder))
            raise OSError(5, "Input/output error")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", fail_from_the_second_on)
    assert list(local_storage.read_runs(dict.fromkeys(ids))) == ids[:1]
    with pytest.raises(StorageError, match="run/1"):
        local_storage.read_runs(dict.fromkeys(ids[1:]))


def test_a_long_answer_gives_signs_of_life(tree):
    signs: list[int] = []
    storage = WorkflowStorage(tree.uri, lambda: signs.append(1))
    ids = plant(tree, 3)
    storage.read_runs(dict.fromkeys(ids))
    assert len(signs) >= 1


def test_runs_of_an_object_store_are_read_all_at_the_same_time(s3_tree, monkeypatch):
    storage = WorkflowStorage(s3_tree.uri)
    ids = plant(s3_tree, 8)
    # Each file of this name waits for those of all other runs: one by one, they would time out.
    together = threading.Barrier(len(ids), timeout=20)
    read = ArrowFiles.read

    def wait_and_read(self, path, limit):
        if path.endswith("workflow_meta.json"):
            together.wait()
        return read(self, path, limit)

    monkeypatch.setattr(ArrowFiles, "read", wait_and_read)
    assert all(storage.read_runs(dict.fromkeys(ids)).values())
    assert len(ids) <= CONNECTIONS


def test_an_object_store_is_asked_for_nothing_that_a_listing_told(s3_tree, monkeypatch):
    storage = WorkflowStorage(s3_tree.uri)
    s3_tree.run("w").task("f").entry("f").status("RUNNING", 1.0)
    s3_tree.run("w").start("f", 2.0)
    asked = note_requests(monkeypatch)
    storage.read_runs({"w": None})
    assert asked[0] == "workflows/w"
    assert sorted(path.partition("/w/")[2] for path in asked[1:]) == [
        "pre_run_metadata.json",
        "tasks/f/inputs.json",
        "tasks/f/pre_task_metadata.json",
        "tasks/outputs.json",
        "user_run_metadata.json",
        "workflow_meta.json",
    ]


@pytest.mark.usefixtures("later")
def test_a_look_at_a_live_run_in_an_object_store_takes_one_listing_and_what_changed(
    s3_tree, monkeypatch
):
    storage = WorkflowStorage(s3_tree.uri)
    run = s3_tree.run("w").task("f").task("g", "f").entry("g").status("RUNNING", 1.0)
    first = storage.read_run("w")
    run.start("f", 2.0)
    asked = note_requests(monkeypatch)
    second = storage.read_run("w", first, only=["f"])
    assert second is not None
    assert second.tasks["f"].start_time == 2.0
    assert asked == ["workflows/w", "workflows/w/tasks/f/pre_task_metadata.json"]


@pytest.mark.slow
def test_few_tasks_of_a_wide_run_in_an_object_store_are_listed_alone(s3_tree, monkeypatch):
    storage = WorkflowStorage(s3_tree.uri)
    run = s3_tree.run("w")
    for number in range(300):
        run.put(f"tasks/f_{number}/pre_task_metadata.json", {"start_time": 1.0})
    run.put("duplicate_name_counter/f", 299)
    first = storage.read_run("w")
    assert first is not None
    assert len(first.tasks) == 300
    run.end("f_7", 2.0)
    asked = note_requests(monkeypatch)
    second = storage.read_run("w", first, only=["f_7"])
    assert second is not None
    assert second.tasks["f_7"].end_time == 2.0
    assert {f"workflows/w/{it}" for it in ("duplicate_name_counter", "tasks/f_7")} == set(asked[:2])
    assert "workflows/w/tasks/f_7/post_task_metadata.json" in asked


def test_what_changed_between_two_listings_is_told_once(tree, storage):
    ids = plant(tree, 3)
    marks = storage.list_marks()
    assert set(marks) == storage.changed == set(ids)
    storage.changed.clear()
    assert storage.list_marks() is marks
    assert storage.changed == set()
    tree.run(ids[0]).status("RUNNING")
    storage.list_marks()
    assert {key: mark.status.value for key, mark in marks.items()} == {
        ids[0]: "RUNNING", ids[1]: "FAILED", ids[2]: "FAILED",
    }  # fmt: skip
    tree.run(ids[1]).remove()
    storage.list_marks(whole=True)
    assert set(marks) == {ids[0], ids[2]}
    assert storage.changed == {ids[0], ids[1]}


def test_a_mark_that_vanishes_while_its_folder_is_listed_hides_no_other(
    local_tree, local_storage, monkeypatch
):
    ids = plant(local_tree, 5)
    scandir = os.scandir

    @contextmanager
    def scan_and_delete(folder):
        with scandir(folder) as items:
            found = list(items)
        listed = [f"run/{item.name}" for item in found]
        if set(listed) == set(ids):
            local_tree.run(listed[0]).unmark("FAILED")
        yield found

    monkeypatch.setattr(os, "scandir", scan_and_delete)
    found = set(local_storage.list_marks())
    assert found < set(ids)
    assert len(found) == 4


def test_a_mark_that_was_written_again_is_a_change(local_tree, local_storage, tmp_path):
    plant(local_tree, 2)
    before = dict(local_storage.list_marks())
    os.utime(tmp_path / "storage/workflows/__status__/FAILED/run/1", (2000, 2000))
    after = local_storage.list_marks()
    assert {key for key in after if after[key] != before[key]} == {"run/1"}
    assert after["run/1"].time == 2000.0


def test_runs_of_others_are_neither_listed_nor_asked_for(tree, reads):
    ids = plant(tree, 4)
    tree.run("run/9").dirty().meta("RUNNING")
    storage = WorkflowStorage(tree.uri, ours=lambda workflow_id: workflow_id == ids[2])
    assert set(storage.list_marks()) == {ids[2]}
    assert reads == []


def test_a_pipe_in_place_of_a_file_does_not_stall(local_tree, local_storage, tmp_path):
    local_tree.run("w").task("f").status("FAILED")
    folder = tmp_path / "storage/workflows/w"
    (folder / "workflow_meta.json").unlink()
    os.mkfifo(folder / "workflow_meta.json")
    writer = os.open(folder / "workflow_meta.json", os.O_RDWR)  # and nothing is in it
    try:
        for stored in (local_storage.read_run("w"), *local_storage.read_runs({"w": None}).values()):
            assert stored is not None
            assert (stored.status, list(stored.tasks)) == (None, ["f"])
    finally:
        os.close(writer)


def test_links_that_lead_to_themselves_are_no_files(local_tree, local_storage, tmp_path):
    local_tree.run("w").task("f").start("f", 1.0).status("FAILED")
    folder = tmp_path / "storage/workflows/w/tasks/f"
    (folder / "post_task_metadata.json").symlink_to("post_task_metadata.json")
    (folder / "output.pkl").symlink_to("output.pkl")
    stored = local_storage.read_runs({"w": None})["w"]
    assert stored is not None
    assert (stored.tasks["f"].start_time, stored.tasks["f"].end_time) == (1.0, None)


def test_a_file_longer_than_one_call_reads_is_read_whole(local_tree):
    metadata = {"long": "x" * 100_000}
    local_tree.run("w", metadata).status("FAILED")
    files = LocalFiles(local_tree.uri)
    data = files.read("workflows/w/user_run_metadata.json", 1 << 20)
    assert json.loads(data) == metadata
    assert files.read("workflows/w/user_run_metadata.json", 50_000) == (
        b'{"long": "' + b"x" * 49_990
    )
