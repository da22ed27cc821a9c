"""Files and folders that are there and cannot be read: each costs what it says, nothing else."""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import replace

import pytest

from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.sources.records import StoredRun
from ray_workflow_exporter.sources.storage.arrow_files import ArrowFiles
from ray_workflow_exporter.sources.storage.filesystem import StorageError, unreadable
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage
from support.stored import path_of, statuses
from support.trees import StorageTree

FILES = [
    "workflow_meta.json",
    "pre_run_metadata.json",
    "post_run_metadata.json",
    "user_run_metadata.json",
    "tasks/outputs.json",
    "tasks/f/inputs.json",
    "tasks/f/pre_task_metadata.json",
    "tasks/f/post_task_metadata.json",
    "tasks/f/outputs.json",
    "tasks/f/exception.pkl",
]
FOLDERS = ["", "duplicate_name_counter", "tasks", "tasks/f", "tasks/g"]
PLACES = [*FILES, *FOLDERS]
IDS = ["w0", "w1", "w2"]


def plant(tree: StorageTree) -> None:
    """Write three runs with two tasks each; every file that a run can have is there."""
    for workflow_id in IDS:
        run = tree.run(workflow_id, {"k": 1}).task("f").task("g", "f").entry("g")
        run.status("RUNNING", 1.0).start("f", 2.0).end("f", 3.0).go_on("f", "g")
        run.fail("f", KeyError("x")).start("g", 3.0).fail("g", ValueError("y"))
        run.status("FAILED", 4.0)


@pytest.fixture
def forbid(monkeypatch):
    """Let nobody read these paths of the run w1, on a storage of any kind."""
    denied: set[str] = set()
    error = OSError(errno.EACCES, "Permission denied")

    def below(path: str) -> bool:
        return any(path == it or path.startswith(f"{it}/") for it in denied)

    open_file, scandir = os.open, os.scandir
    arrow_tree, arrow_read = ArrowFiles.tree, ArrowFiles.read

    def local(path, *how, **more):
        if below(str(path).partition("/workflows/")[2].rstrip("/")):
            raise error
        return open_file(path, *how, **more)

    def scan(folder):
        if below(path_of(folder).partition("/workflows/")[2].rstrip("/")):
            raise error
        return scandir(folder)

    def tree(self, folder, *how):
        if any(
            f"{it}/".startswith(folder.partition("workflows/")[2] + "/")
            for it in denied
            if ("." not in it)
        ) and not folder.endswith("__status__"):
            raise unreadable("list", folder, error)
        return arrow_tree(self, folder, *how)

    def read(self, path, limit):
        if below(path.partition("workflows/")[2]):
            raise unreadable("read", path, error)
        return arrow_read(self, path, limit)

    monkeypatch.setattr(os, "open", local)
    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(ArrowFiles, "tree", tree)
    monkeypatch.setattr(ArrowFiles, "read", read)

    def deny(*places: str) -> None:
        denied.clear()
        denied.update(f"w1/{place}".rstrip("/") for place in places)

    yield deny
    monkeypatch.undo()


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_read_costs_no_other_run_and_is_named(tree, forbid, place):
    plant(tree)
    whole = {it: WorkflowStorage(tree.uri).read_run(it) for it in IDS}
    forbid(place)
    storage = WorkflowStorage(tree.uri)
    assert statuses(storage) == dict.fromkeys(IDS, "FAILED")
    found = storage.read_runs(dict.fromkeys(IDS))
    assert {it: found[it] for it in ("w0", "w2")} == {it: whole[it] for it in ("w0", "w2")}
    run = found["w1"]
    assert run is not None
    assert run.unreadable
    assert all("Permission denied" in it for it in run.unreadable)
    if place in FILES:
        assert run.unreadable == (f"{place}: Permission denied",)
        assert set(run.tasks) == {"f", "g"}
        assert run.tasks["g"] == whole["w1"].tasks["g"]
    assert storage.read_run("w1") == run
    # What was read before is kept.
    kept = storage.read_run("w1", whole["w1"])
    assert replace(kept, unreadable=()) == whole["w1"]


def test_two_places_that_cannot_be_read_cost_no_other_run(local_tree, forbid):
    plant(local_tree)
    whole = {it: WorkflowStorage(local_tree.uri).read_run(it) for it in ("w0", "w2")}
    for one, other in itertools.combinations(PLACES, 2):
        forbid(one, other)
        found = WorkflowStorage(local_tree.uri).read_runs(dict.fromkeys(IDS), enough=bool)
        assert {it: found[it] for it in whole} == whole, (one, other)
        run = found["w1"]
        assert run is not None, (one, other)
        assert run.unreadable, (one, other)
        if {one, other} <= set(FILES):
            assert len(run.unreadable) == 2
            assert set(run.tasks) == {"f", "g"}


def test_an_error_that_cannot_be_read_is_still_an_error_of_the_task(tree, forbid):
    plant(tree)
    forbid("tasks/f/exception.pkl")
    task = WorkflowStorage(tree.uri).read_run("w1").tasks["f"]
    assert task.exception == (
        "unreadable",
        "The exporter cannot read the error of this task: Permission denied.",
    )
    assert task.exception_time > 1e9


def test_a_task_whose_folder_cannot_be_listed_is_still_a_task(local_tree, forbid):
    plant(local_tree)
    forbid("tasks/f")
    assert set(WorkflowStorage(local_tree.uri).read_run("w1").tasks) == {"f", "g"}


def test_a_run_of_which_nothing_can_be_read_is_still_a_run(tree, forbid):
    plant(tree)
    forbid(*PLACES)
    run = WorkflowStorage(tree.uri).read_run("w1")
    assert run is not None
    assert (run.status, dict(run.tasks)) == (None, {})
    assert len(run.unreadable) > 1


def test_a_folder_that_may_be_listed_but_not_entered_hides_no_task(local_tree, monkeypatch):
    plant(local_tree)
    read = LocalFiles.read

    def refuse(self, path, limit):
        if "w1/tasks/f" in path:
            raise unreadable("read", path, OSError(errno.EACCES, "Permission denied"))
        return read(self, path, limit)

    monkeypatch.setattr(LocalFiles, "read", refuse)
    run = WorkflowStorage(local_tree.uri).read_run("w1")
    assert set(run.tasks) == {"f", "g"}
    assert len(run.unreadable) == 5


def fill(path: str) -> None:
    with open(path, "wb") as file:
        file.truncate(50 << 30)  # sparse


DAMAGE = {
    "gone": os.unlink,
    "folder": lambda path: (os.unlink(path), os.makedirs(f"{path}/deeper")),
    "pipe": lambda path: (os.unlink(path), os.mkfifo(path)),
    "loop": lambda path: (os.unlink(path), os.symlink(path, path)),
    "dead link": lambda path: (os.unlink(path), os.symlink("nowhere", path)),
    "link out": lambda path: (os.unlink(path), os.symlink("/etc/hostname", path)),
    "device": lambda path: (os.unlink(path), os.symlink("/dev/zero", path)),
    "empty": lambda path: os.truncate(path, 0),
    "garbage": lambda path: os.truncate(path, 5),
    "huge": fill,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damage_of_any_kind_in_any_file_costs_no_other_run(local_tree, damage, name):
    plant(local_tree)
    storage = WorkflowStorage(local_tree.uri)
    whole = {it: storage.read_run(it) for it in IDS}
    DAMAGE[damage](f"{local_tree.uri}/workflows/w1/{name}")
    found = WorkflowStorage(local_tree.uri).read_runs(dict.fromkeys(IDS))
    assert {it: found[it] for it in ("w0", "w2")} == {it: whole[it] for it in ("w0", "w2")}
    run = found["w1"]
    assert isinstance(run, StoredRun)
    assert set(run.tasks) == {"f", "g"}
    says_why = damage in ("link out", "device") or (damage == "huge" and name != FILES[-1])
    assert bool(run.unreadable) is says_why


def test_a_store_that_does_not_answer_any_more_is_not_taken_for_unreadable_files(tree, monkeypatch):
    plant(tree)
    storage = WorkflowStorage(tree.uri)
    storage.list_marks()

    def fail(self, path, *how, **more):
        raise unreadable("read", path, OSError(errno.EIO, "Input/output error"))

    for kind in (LocalFiles, ArrowFiles):
        monkeypatch.setattr(kind, "read", fail)
        monkeypatch.setattr(kind, "tree", fail)
        monkeypatch.setattr(kind, "update", fail)
    for read in (storage.list_marks, lambda: storage.read_runs(dict.fromkeys(IDS))):
        with pytest.raises(StorageError, match="Input/output error"):
            read()


def test_a_folder_among_the_marks_that_cannot_be_listed_keeps_its_marks(
    local_tree, local_storage, monkeypatch
):
    for workflow_id in ("a/one", "b/two", "three"):
        local_tree.run(workflow_id).status("FAILED")
    marks = local_storage.list_marks()
    assert set(marks) == {"a/one", "b/two", "three"}
    open_file = os.open

    def deny(path, *how, **more):
        if str(path).rstrip("/").endswith("__status__/FAILED/a"):
            raise OSError(errno.EACCES, "Permission denied")
        return open_file(path, *how, **more)

    monkeypatch.setattr(os, "open", deny)
    assert local_storage.list_marks() is marks
    assert list(local_storage.errors) == ["workflows/__status__/FAILED/a"]
    assert set(WorkflowStorage(local_tree.uri).list_marks()) == {"b/two", "three"}


def test_a_status_that_cannot_be_read_leaves_the_last_mark_in_force(local_tree, monkeypatch):
    local_tree.run("w").status("RUNNING").dirty().meta("FAILED").mark("FAILED")
    local_tree.run("other").status("SUCCESSFUL")
    open_file = os.open

    def deny(path, *how, **more):
        if str(path).endswith("w/workflow_meta.json"):
            raise OSError(errno.EACCES, "Permission denied")
        return open_file(path, *how, **more)

    monkeypatch.setattr(os, "open", deny)
    storage = WorkflowStorage(local_tree.uri)
    marks = storage.list_marks()
    assert marks["other"].status is RunStatus.SUCCESSFUL
    assert marks["w"].status is RunStatus.FAILED
    assert list(storage.errors) == ["workflows/w/workflow_meta.json"]


@pytest.mark.parametrize("place", ["", "tasks", "tasks/f", "duplicate_name_counter"])
def test_a_folder_that_is_a_link_out_of_the_storage_is_refused(local_tree, tmp_path, place):
    plant(local_tree)
    folder = f"{local_tree.uri}/workflows/w1/{place}".rstrip("/")
    outside = tmp_path / "outside"
    os.rename(folder, outside)
    os.symlink(outside, folder)
    storage = WorkflowStorage(local_tree.uri)
    found = storage.read_runs(dict.fromkeys(IDS))
    assert len(found["w0"].tasks) == 2
    run = found["w1"]
    if place == "tasks/f":
        assert set(run.tasks) == {"g"}  # links to folders are not listed
        run = storage.read_run("w1", found["w0"], only=["f"])
        assert run.tasks["f"] == found["w0"].tasks["f"]
    if not place:
        assert (run.status, run.start_time, dict(run.tasks)) == (None, None, {})
    assert any("link to a place outside" in it for it in run.unreadable)


def test_a_local_disk_in_a_wrapper_of_pyarrow_refuses_links_out_of_it_too(local_tree):
    plant(local_tree)
    path = f"{local_tree.uri}/workflows/w1/tasks/f/exception.pkl"
    os.unlink(path)
    os.symlink("/etc/hostname", path)
    storage = WorkflowStorage(f"custom://support.trees.subtree{local_tree.uri}")
    assert statuses(storage) == dict.fromkeys(IDS, "FAILED")
    assert any("link to a place outside" in it for it in storage.read_run("w1").unreadable)
    local_tree.run("a/b").status("RUNNING")
    assert storage.read_run("a\\b").status is RunStatus.RUNNING  # as Ray reads it there


@pytest.mark.parametrize("place", ["", "tasks", "tasks/f/exception.pkl", "workflow_meta.json"])
def test_a_link_within_the_storage_is_followed(local_tree, place):
    plant(local_tree)
    whole = WorkflowStorage(local_tree.uri).read_run("w1")
    path = f"{local_tree.uri}/workflows/w1/{place}".rstrip("/")
    os.rename(path, f"{local_tree.uri}/moved")
    os.symlink(f"{local_tree.uri}/moved", path)
    run = WorkflowStorage(local_tree.uri).read_run("w1")
    assert run == whole


def test_a_storage_may_itself_be_a_link(local_tree, tmp_path):
    plant(local_tree)
    os.symlink(local_tree.uri, tmp_path / "link")
    storage = WorkflowStorage(str(tmp_path / "link"))
    assert set(storage.list_marks()) == set(IDS)
    assert storage.read_run("w1").unreadable == ()


def test_a_store_whose_listing_has_no_times_is_read_whole_and_again(tree, monkeypatch):
    for kind in (LocalFiles, ArrowFiles):

        def without_times(self, *how, original=kind.tree):
            found = original(self, *how)
            files = {
                folder: {name: (size, 0) for name, (size, _) in names.items()}
                for folder, names in found.files.items()
            }
            return found._replace(files=files)

        monkeypatch.setattr(kind, "tree", without_times)
    plant(tree)
    storage = WorkflowStorage(tree.uri)
    assert statuses(storage) == dict.fromkeys(IDS, "FAILED")
    first = storage.read_run("w1")
    assert first.tasks["f"].exception == ("KeyError", "'x'")
    assert first.tasks["f"].exception_time is None
    tree.run("w1").fail("f", KeyError("z"))
    assert storage.read_run("w1", first).tasks["f"].exception == ("KeyError", "'z'")
