"""A run that is read again and again: what is read, what is kept."""

from __future__ import annotations

import gc
import os
import time
import weakref

import pytest

from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.sources.records import StoredRun
from ray_workflow_exporter.sources.storage.arrow_files import ArrowFiles
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from support.stored import path_of, task_of


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


def test_inputs_that_are_written_anew_in_the_same_second_are_read_again(
    local_tree, local_storage, tmp_path
):
    path = tmp_path / "storage/workflows/w/tasks/f/inputs.json"
    second = time.time_ns() // 1_000_000_000 * 1_000_000_000  # the grain of an object store
    local_tree.run("w").task("f", "d", max_retries=3)
    os.utime(path, ns=(second, second))
    first = local_storage.read_run("w")
    local_tree.run("w").remove()
    local_tree.run("w").task("f", "e", max_retries=5)
    os.utime(path, ns=(second, second))
    task = local_storage.read_run("w", first).tasks["f"]
    assert (task.upstream, task.max_retries) == (("e",), 5)


@pytest.mark.parametrize("noticed", [True, False])
def test_a_run_that_was_deleted_and_made_anew_is_read_anew(tree, storage, noticed):
    tree.run("w", {"life": 1}).task("f").succeed("f", 2.0, 3.0).status("RUNNING", 1.0)
    previous = storage.read_run("w")
    tree.run("w").remove()
    if noticed:
        previous = storage.read_run("w", previous)
        assert previous is None
    tree.run("w", {"life": 2}).task("f", "e", max_retries=10).status("PENDING")
    second = storage.read_run("w", previous)
    assert second == storage.read_run("w")
    assert second is not None
    assert second.user_metadata == {"life": 2}
    assert second.tasks["f"].max_retries == 10
    assert second.tasks["f"].start_time is None


@pytest.mark.usefixtures("later")
def test_an_older_reading_is_not_taken_for_the_last_one(tree, storage):
    run = tree.run("w").task("f").start("f", 1.0)
    first = storage.read_run("w")
    run.start("f", 22.0)
    second = storage.read_run("w", first)
    assert storage.read_run("w", first) == second
    assert storage.read_run("w", second) == second


def test_nothing_is_remembered_of_a_run_that_nobody_holds(local_tree, local_storage):
    for number in range(3):
        local_tree.run(f"w{number}").task("f")
    held = local_storage.read_run("w0")
    held = local_storage.read_run("w0", held)
    dropped = weakref.ref(local_storage.read_run("w1"))
    gc.collect()
    assert dropped() is None
    kept = [it for it in gc.get_objects() if isinstance(it, StoredRun)]
    assert [it.workflow_id for it in kept] == ["w0"]
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
    monkeypatch.setattr(os, "scandir", lambda it: listed.append(path_of(it)) or scandir(it))
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

        def tree(self, *listing, original=kind.tree):
            found = original(self, *listing)
            run.delete("tasks/f/pre_task_metadata.json")
            return found

        monkeypatch.setattr(kind, "tree", tree)
    assert task_of(storage).start_time is None
