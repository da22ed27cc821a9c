"""On an object store, folders have no times: how runs ended is asked for one by one."""

from __future__ import annotations

from typing import Optional

import pytest

from ray_workflow_exporter.sources.storage.arrow_files import ArrowFiles
from ray_workflow_exporter.sources.storage.filesystem import Stamp, StorageError
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage
from support.stored import statuses

pytestmark = pytest.mark.parametrize("tree", ["custom", "s3"], indirect=True)


@pytest.fixture
def requests(monkeypatch) -> list[str]:
    """Record what is listed, read and measured, by path below `workflows/`."""
    seen: list[str] = []
    for name in ("tree", "read", "stamp"):

        def note(self, path, *how, original=getattr(ArrowFiles, name), name=name):  # noqa: B008
            seen.append(f"{name} {path.partition('/')[2]}")
            return original(self, path, *how)

        monkeypatch.setattr(ArrowFiles, name, note)
    return seen


LISTED = {f"tree __status__/{name}" for name in ("PENDING", "RUNNING", "dirty")}


def test_a_listing_costs_three_requests_however_many_runs_have_ended(tree, storage, requests):
    for number in range(5):
        tree.run(f"{number}").status("SUCCESSFUL")
    tree.run("live").status("RUNNING")
    storage.list_marks()
    requests.clear()
    for _ in range(2):
        assert len(storage.list_marks()) == 6
    assert len(requests) == 6
    assert set(requests) == LISTED


def test_requests_are_counted_by_kind(tree, storage):
    run = tree.run("w").status("RUNNING")
    assert storage.requests == {}
    storage.list_marks()
    assert storage.requests == {"list": 7, "stat": 1}  # whether it is a storage of Ray
    run.status("SUCCESSFUL")
    storage.list_marks()  # the status is a read, before which pyarrow asks for its size
    assert storage.requests == {"list": 10, "read": 1, "stat": 3}


def test_a_run_that_ends_costs_two_more(tree, storage, requests):
    run = tree.run("a/w").status("RUNNING")
    storage.list_marks()
    requests.clear()
    run.status("SUCCESSFUL")
    assert statuses(storage) == {"a/w": "SUCCESSFUL"}
    asked = {"read a/w/workflow_meta.json", "stamp __status__/SUCCESSFUL/a/w"}
    assert set(requests) == LISTED | asked
    requests.clear()
    before = dict(storage.list_marks())
    assert set(requests) == LISTED
    storage.changed.clear()
    assert storage.list_marks(whole=True) == before
    assert storage.changed == set()


def test_a_run_that_goes_on_leaves_its_end_behind(tree, storage, requests):
    run = tree.run("w").status("FAILED")
    assert statuses(storage) == {"w": "FAILED"}
    for status in ("RUNNING", "CANCELED", "RUNNING", "SUCCESSFUL"):
        run.status(status)
        assert statuses(storage) == {"w": status}
        requests.clear()
        assert statuses(storage) == {"w": status}
        assert set(requests) == LISTED


def test_a_live_run_that_is_deleted_is_gone(tree, storage):
    run = tree.run("w").status("RUNNING")
    assert statuses(storage) == {"w": "RUNNING"}
    run.remove()
    assert statuses(storage) == {}


def test_what_began_and_ended_unseen_waits_for_a_listing_of_all(tree, storage):
    tree.run("known").status("FAILED")
    storage.list_marks()
    tree.run("short").status("RUNNING").status("SUCCESSFUL")
    assert statuses(storage) == {"known": "FAILED"}
    assert set(storage.list_unseen()) == {"known", "short"}


def test_runs_are_deleted_only_if_two_listings_of_all_say_so(tree, storage, requests):
    run = tree.run("w").status("FAILED")
    tree.run("kept").status("FAILED")
    storage.list_marks()
    run.remove()
    assert set(storage.list_marks()) == {"w", "kept"}
    for expected in (7, 7, 3):
        requests.clear()
        assert set(storage.list_marks(whole=expected == 7 and "w" in storage._marks)) == {"kept"}
        assert len(requests) == expected


def test_an_end_that_cannot_be_told_yet_is_asked_for_again(tree, storage, monkeypatch):
    run = tree.run("w").status("RUNNING")
    storage.list_marks()
    run.meta("SUCCESSFUL").unmark("RUNNING")
    assert statuses(storage) == {}
    run.mark("SUCCESSFUL")
    assert statuses(storage) == {"w": "SUCCESSFUL"}
    run.status("RUNNING")
    storage.list_marks()
    run.status("FAILED")
    with monkeypatch.context() as patch:

        def fail(self: ArrowFiles, path: str, *how: int) -> Optional[Stamp]:
            raise StorageError("no")

        patch.setattr(ArrowFiles, "read", fail)
        assert statuses(storage) == {}
        patch.undo()
        patch.setattr(ArrowFiles, "stamp", fail)
        assert statuses(storage) == {}
    assert statuses(storage) == {"w": "FAILED"}


def test_a_run_that_began_again_just_after_the_listing_is_not_lost(tree, storage, monkeypatch):
    run = tree.run("w").status("RUNNING")
    storage.list_marks()
    run.remove()
    run.meta("RUNNING")  # and its mark is not there yet
    assert statuses(storage) == {}
    run.status("SUCCESSFUL")
    assert statuses(storage) == {"w": "SUCCESSFUL"}


def test_of_others_no_end_is_asked_for(tree, requests):
    storage = WorkflowStorage(tree.uri, ours=lambda workflow_id: workflow_id == "mine")
    for name in ("mine", "other"):
        tree.run(name).status("RUNNING")
    storage.list_marks()
    for name in ("mine", "other"):
        tree.run(name).status("FAILED")
    requests.clear()
    assert statuses(storage) == {"mine": "FAILED"}
    assert not any("other" in it for it in requests)
