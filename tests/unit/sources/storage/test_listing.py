"""Marks on a disk are listed again at the cost of what changed, and nothing is missed."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_workflow_exporter.sources.storage import local_files
from ray_workflow_exporter.sources.storage.storage import StorageError, WorkflowStorage
from support.stored import statuses
from support.trees import STATUSES, StorageTree


class Clock:
    """A monotonic clock that a test moves on."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(local_files, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def listed(monkeypatch) -> list[str]:
    """Record the folders among the marks whose names are read."""
    seen: list[str] = []
    for original in (os.scandir, os.listdir):

        def note(place, original=original):
            path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else place
            seen.append(path.rpartition("__status__/")[2])
            return original(place)

        monkeypatch.setattr(os, original.__name__, note)
    return seen


LIVE = ["PENDING", "RUNNING", "dirty"]


def settle(storage: WorkflowStorage, clock: Clock) -> None:
    """List until no folder is young any more."""
    for _ in range(2):
        storage.list_marks()
        clock.now += 3.0
    storage.list_marks()
    storage.changed.clear()


def put_folders(tree: StorageTree) -> None:
    for status in (*STATUSES, "dirty"):
        tree.run("once").mark(status).unmark(status)


def test_folders_of_ended_runs_are_listed_only_when_they_changed(
    local_tree, local_storage, clock, listed
):
    put_folders(local_tree)
    local_tree.run("a/b").mark("FAILED")
    local_tree.run("c").mark("SUCCESSFUL")
    settle(local_storage, clock)
    listed.clear()
    local_storage.list_marks()
    assert listed == LIVE
    local_tree.run("a/d").mark("FAILED")
    listed.clear()
    assert set(local_storage.list_marks()) == {"a/b", "a/d", "c"}
    assert sorted(listed) == ["FAILED/a", *LIVE]
    assert local_storage.changed == {"a/d"}


def test_requests_are_counted_by_kind(local_tree, local_storage, clock):
    put_folders(local_tree)
    local_tree.run("a").status("SUCCESSFUL")
    settle(local_storage, clock)
    before = dict(local_storage.requests)
    local_storage.list_marks()
    local_storage._files().read("_valid", 10)
    local_storage._files().stamp("_valid")
    now = local_storage.requests
    made = {kind: count - before.get(kind, 0) for kind, count in now.items()}
    assert made == {"list": 3, "stat": 5, "read": 1}


def test_a_folder_that_changed_just_now_is_listed_once_more(
    local_tree, local_storage, clock, listed
):
    put_folders(local_tree)
    local_tree.run("a").status("FAILED")
    settle(local_storage, clock)
    local_tree.run("b").status("FAILED")
    folder = f"{local_tree.uri}/workflows/__status__/FAILED"
    local_storage.list_marks()
    before = os.stat(folder).st_mtime_ns
    # Within one tick of the file system's clock, which may be anything but ours.
    local_tree.run("c").status("FAILED")
    os.utime(folder, ns=(before, before))
    clock.now += 1.0
    assert set(local_storage.list_marks()) == {"a", "b", "c"}
    clock.now += 1.5
    local_storage.list_marks()
    listed.clear()
    local_storage.list_marks()
    assert listed == LIVE


def test_of_very_many_marks_only_new_ones_are_measured(
    local_tree, local_storage, clock, monkeypatch
):
    monkeypatch.setattr(local_files, "_FEW", 2)
    put_folders(local_tree)
    for name in ("a", "b", "c/d", "c"):
        local_tree.put(f"workflows/__status__/FAILED/{name}0", b"")
    settle(local_storage, clock)
    local_tree.put("workflows/__status__/FAILED/new", b"")
    local_tree.put("workflows/__status__/FAILED/deep/new", b"")
    folder = f"{local_tree.uri}/workflows/__status__/FAILED"
    os.symlink("new", f"{folder}/link")
    os.mkfifo(f"{folder}/pipe")
    os.symlink("c", f"{folder}/linked folder")
    os.mkdir(os.fsencode(folder) + b"/\xff")
    local_tree.delete("workflows/__status__/FAILED/a0")
    os.utime(f"{folder}/b0", (2000, 2000))
    local_storage.list_marks()
    assert local_storage.changed == {"new", "deep/new", "link", "a0"}
    marks = local_storage.list_marks(True)
    assert local_storage.changed == {"new", "deep/new", "link", "a0", "b0"}
    assert marks["b0"].time == 2000


def test_all_marks_are_measured_again_in_time(local_tree, clock, monkeypatch):
    storage = WorkflowStorage(local_tree.uri, history_interval=0.05)
    put_folders(local_tree)
    local_tree.run("a").status("FAILED")
    settle(storage, clock)
    os.utime(f"{local_tree.uri}/workflows/__status__/FAILED/a", (2000, 2000))
    time.sleep(0.06)
    assert storage.list_marks()["a"].time == 2000


def test_folders_older_than_what_is_in_them_are_not_believed(
    local_tree, local_storage, clock, listed
):
    put_folders(local_tree)
    local_tree.run("a").status("FAILED")
    folder = f"{local_tree.uri}/workflows/__status__/FAILED"
    os.utime(folder, (1000, 1000))  # as a mounted object store, which has no folders
    settle(local_storage, clock)
    local_tree.run("b").status("FAILED")
    os.utime(folder, (1000, 1000))
    assert set(local_storage.list_marks()) == {"a", "b"}


def test_another_storage_in_its_place_is_listed_anew(local_tree, local_storage, clock):
    put_folders(local_tree)
    local_tree.run("a").status("FAILED")
    settle(local_storage, clock)
    marks = f"{local_tree.uri}/workflows/__status__"
    stamp = os.stat(f"{marks}/FAILED").st_mtime_ns
    os.rename(marks, f"{marks}.away")
    local_tree.run("b").mark("FAILED")
    os.utime(f"{marks}/FAILED", ns=(stamp, stamp))
    assert set(local_storage.list_marks()) == {"b"}
    assert local_storage.changed == {"a", "b"}


def test_what_changed_before_a_failure_is_told_after_it(
    local_tree, local_storage, clock, monkeypatch
):
    put_folders(local_tree)
    local_tree.run("a").status("SUCCESSFUL")
    settle(local_storage, clock)
    local_tree.run("b").status("SUCCESSFUL")
    with monkeypatch.context() as patch:
        opened = os.open

        def deny(path, *how, **more):
            if str(path).endswith("CANCELED/"):
                raise OSError(5, "Input/output error")
            return opened(path, *how, **more)

        patch.setattr(os, "open", deny)
        with pytest.raises(StorageError):
            local_storage.list_marks()
    local_storage.list_marks()
    assert local_storage.changed == {"b"}


def test_a_mark_that_became_a_folder_and_back_is_both(local_tree, local_storage):
    local_tree.run("a").mark("FAILED")
    assert statuses(local_storage) == {"a": "FAILED"}
    local_tree.run("a").unmark("FAILED")
    local_tree.run("a/b").mark("FAILED")
    assert statuses(local_storage) == {"a/b": "FAILED"}
    local_tree.delete_folder("workflows/__status__/FAILED/a")
    local_tree.run("a").mark("FAILED")
    assert statuses(local_storage) == {"a": "FAILED"}


IDS = ["a", "b", "b/c", "d/e/f", "d/e/g", "tasks"]
ACTIONS = (*STATUSES, "remove", "dirty", "clean", "content")


@settings(max_examples=25)  # each of them sleeps
@given(
    rounds=st.lists(
        st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(ACTIONS)), max_size=3),
        min_size=2,
        max_size=6,
    ),
    few=st.sampled_from([0, 1000]),
)
def test_listing_again_finds_what_a_first_listing_would(rounds, few):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(local_files, "_GRAIN_SECONDS", 0.05)  # ticks of the kernel are shorter
        patch.setattr(local_files, "_FEW", few)
        tree = StorageTree(folder)
        storage = WorkflowStorage(folder)
        known = {}
        for actions in rounds:
            for workflow_id, action in actions:
                run = tree.run(workflow_id)
                try:
                    if action == "content":
                        tree.put("workflows/__status__/FAILED/note", b"x")
                    elif action in STATUSES:
                        run.status(action)
                    else:
                        getattr(run, action)()
                except (OSError, IsADirectoryError):
                    pass  # Ray itself cannot write it beside those before
            marks = storage.list_marks()
            for workflow_id in storage.changed:
                known.pop(workflow_id, None)
                if workflow_id in marks:
                    known[workflow_id] = marks[workflow_id]
            storage.changed.clear()
            fresh = WorkflowStorage(folder).list_marks()
            assert {i: it.status for i, it in marks.items()} == {
                i: it.status for i, it in fresh.items()
            }
            assert known == marks
            time.sleep(0.07)
            storage.list_marks()
            storage.list_marks()


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "b/c", "d/e"]), st.sampled_from([*STATUSES, "remove"])
        ),
        max_size=12,
    )
)
def test_a_store_without_times_of_folders_is_followed_from_live_runs_on(steps):
    with tempfile.TemporaryDirectory() as folder:
        tree = StorageTree(f"custom://support.trees.below{folder}")
        storage = WorkflowStorage(tree.uri)
        before = statuses(storage)
        for workflow_id, status in steps:
            run = tree.run(workflow_id)
            with suppress(OSError):  # Ray itself cannot write it beside those before
                run.remove() if status == "remove" else run.status(status)
            seen = before.get(workflow_id) in LIVE or status in LIVE
            marks = storage.list_marks(whole=not seen)
            before = statuses(WorkflowStorage(tree.uri))
            assert {key: mark.status.value for key, mark in marks.items()} == before
