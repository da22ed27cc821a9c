"""A long history: newest first, not twice, shared by shards, remembered by the next process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from ray_workflow_exporter import exporter as exporter_module
from ray_workflow_exporter.catalog.catalog import Catalog
from ray_workflow_exporter.catalog.counters import Counters
from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.metrics.family import Tier
from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.poll import loading
from ray_workflow_exporter.poll.poller import Poller
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.records import LinkState, LiveRun, LiveTask, ManagerView
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from support.object_store import object_store, s3_uri
from support.trees import StorageTree

T0 = 1_600_000_000.0


@pytest.fixture
def tree(tmp_path) -> StorageTree:
    return StorageTree(str(tmp_path / "storage"))


@pytest.fixture
def watch(tmp_path) -> Iterator[Callable[..., Exporter]]:
    """Make exporters without Ray that end with the test."""
    made: list[Exporter] = []

    def make(uri: str, *, keep: bool = False, **settings: Any) -> Exporter:
        settings = {"address": "none", "storage": uri, "finished_retention": "50y", **settings}
        settings.setdefault("state_dir", tmp_path / "state")
        made.append(Exporter(Settings.load(None, {}, settings), keep=keep))
        return made[-1]

    yield make
    while made:  # the threads of storage end with the last reference
        made.pop().close()


def plant(tree: StorageTree, count: int, folder: Optional[Path] = None) -> list[str]:
    """Write finished runs, the last one the newest by its mark."""
    ids = [f"run-{number}" for number in range(count)]
    for number, workflow_id in enumerate(ids):
        run = tree.run(workflow_id, {"workflow": "etl"}).status("RUNNING", T0).task("f").entry("f")
        run.succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 1 + number)
        if folder is not None:
            mark = folder / "workflows/__status__/SUCCESSFUL" / workflow_id
            os.utime(mark, (T0 + number, T0 + number))
    return ids


def held(exporter: Exporter) -> set[str]:
    return {view.run.workflow_id for view in exporter.runs()}


def own_metric(exporter: Exporter, name: str) -> float:
    lines = b"".join(exporter.metrics()).decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_the_newest_runs_are_there_first_and_the_rest_is_counted(
    tree, watch, tmp_path, monkeypatch, caplog
) -> None:
    ids = plant(tree, 150, tmp_path / "storage")
    monkeypatch.setattr(exporter_module, "_READ_SECONDS", 0.0)
    monkeypatch.setattr(loading, "_TELL_SECONDS", 0.0)
    exporter = watch(tree.uri)
    with caplog.at_level(logging.INFO):
        exporter.poll_once(budget=0.0)
        first = held(exporter)
        assert 0 < len(first) < len(ids)
        assert first == set(ids[-len(first) :])
        left = len(ids) - len(first)
        assert own_metric(exporter, "ray_workflow_exporter_runs_to_read") == left
        assert f"Read {len(first)} of 150 finished runs." in caplog.text
        while exporter.status["finished_runs_to_read"]:
            exporter.poll_once(budget=0.0)
    assert held(exporter) == set(ids)
    assert own_metric(exporter, "ray_workflow_exporter_runs_to_read") == 0
    assert "Read 150 of 150 finished runs." in caplog.text


def test_a_mark_without_a_folder_is_no_run_that_was_read(
    tree, watch, tmp_path, monkeypatch, caplog
) -> None:
    plant(tree, 5, tmp_path / "storage")
    tree.put("workflows/__status__/FAILED/orphan", b"")
    monkeypatch.setattr(loading, "_TELL_SECONDS", 0.0)
    exporter = watch(tree.uri)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            exporter.poll_once()
    assert "Read 5 of 5 finished runs." in caplog.text
    assert "of 6" not in caplog.text


def test_a_workflow_of_the_settings_keeps_its_name_however_many_others_came_first(
    tree, watch
) -> None:
    exporter = watch(tree.uri, max_workflows=1, workflows={"etl": {"expected_interval": "1d"}})
    for workflow in ("adhoc", "etl"):
        run = tree.run(workflow, {"workflow": workflow}).status("RUNNING", T0).task("f").entry("f")
        run.succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 1)
        exporter.load()
    names = {view.run.workflow_id: view.run.workflow for view in exporter.runs()}
    assert names == {"adhoc": "other", "etl": "etl"}


def test_a_poll_without_changes_reads_nothing_and_keeps_the_snapshot(
    tree, watch, monkeypatch
) -> None:
    plant(tree, 5)
    exporter = watch(tree.uri)
    exporter.load()
    before = exporter.snapshot.runs
    monkeypatch.setattr(LocalFiles, "read", lambda *_: pytest.fail("a file was read"))
    listed: list[str] = []
    update = LocalFiles.update

    def note(self, folder, *how):
        listed.append(folder)
        update(self, folder, *how)

    monkeypatch.setattr(LocalFiles, "update", note)
    exporter.poll_once()
    assert exporter.snapshot.runs is before
    assert len(listed) == 7
    assert all(folder.startswith("workflows/__status__/") for folder in listed)


def test_a_run_that_changes_after_the_history_was_read_is_seen(tree, watch) -> None:
    ids = plant(tree, 3)
    exporter = watch(tree.uri)
    exporter.load()
    tree.run(ids[1]).status("CANCELED")
    tree.run("new").task("f").succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 9)
    exporter.poll_once()
    statuses = {view.run.workflow_id: view.run.status.value for view in exporter.runs()}
    assert statuses == {
        ids[0]: "SUCCESSFUL", ids[1]: "CANCELED", ids[2]: "SUCCESSFUL", "new": "SUCCESSFUL",
    }  # fmt: skip
    tree.run(ids[0]).remove()
    for _ in range(2):
        exporter.poll_once()
    assert held(exporter) == {ids[1], ids[2], "new"}


def test_a_restart_reads_no_run_twice(tree, watch, monkeypatch) -> None:
    ids = plant(tree, 5)
    tree.run("failed").task("f").fail("f", ValueError("no")).status("FAILED", T0 + 1)
    first = watch(tree.uri, keep=True)
    first.load()
    body = b"".join(first.metrics(tiers=Tier))
    first.close()
    tree.run("new").task("f").succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 9)
    read: list[str] = []
    original = LocalFiles.read

    def note(self, path, limit):
        read.append(path.split("/")[1])
        return original(self, path, limit)

    monkeypatch.setattr(LocalFiles, "read", note)
    second = watch(tree.uri, keep=True)
    second.load()
    # What failed just now may still change: only what is settled is remembered.
    assert set(read) == {"new", "failed"}
    assert held(second) == {*ids, "failed", "new"}
    for workflow_id in (*ids, "failed"):
        assert second.run(workflow_id).run == first.run(workflow_id).run
        assert second.run(workflow_id).analysis == first.run(workflow_id).analysis
    assert b'ray_workflow_runs{workflow="etl",status="SUCCESSFUL"} 5' in body


def test_a_remembered_run_whose_mark_changed_is_read_anew(tree, watch) -> None:
    ids = plant(tree, 3)
    first = watch(tree.uri, keep=True)
    first.load()
    first.close()
    tree.run(ids[0]).status("RUNNING", T0 + 50).start("f", T0 + 51).status("CANCELED")
    tree.run(ids[1]).remove()
    second = watch(tree.uri, keep=True)
    second.load()
    assert {view.run.workflow_id: view.run.status.value for view in second.runs()} == {
        ids[0]: "CANCELED", ids[2]: "SUCCESSFUL",
    }  # fmt: skip


def test_metadata_nested_deeper_than_python_goes_stops_no_poll(tree, watch) -> None:
    ids = plant(tree, 2)
    tree.run(ids[0]).put("user_run_metadata.json", b'{"a":' * 1010 + b"1" + b"}" * 1010)
    exporter = watch(tree.uri, keep=True)
    exporter.load()
    assert held(exporter) == set(ids)
    assert exporter.run(ids[0]).run.user_metadata == {}


def test_settings_of_now_hold_for_runs_remembered_from_before(tree, watch) -> None:
    ids = plant(tree, 1)
    first = watch(tree.uri, keep=True)
    first.load()
    first.close()
    workflows = {"run": {"deadline": "10s"}}
    second = watch(tree.uri, keep=True, workflow_key="no such key", workflows=workflows)
    second.load()
    run = second.run(ids[0]).run
    assert (run.workflow, run.deadline) == ("run", T0 + 10)


def test_exporters_on_other_ports_have_files_of_their_own(tree, watch, tmp_path) -> None:
    plant(tree, 2)
    both = [watch(tree.uri, keep=True, listen=listen) for listen in (":1", ":2")]
    for exporter in (*both, *both):
        exporter.load()
        assert len(held(exporter)) == 2
    assert len(list((tmp_path / "state").glob("*.runs"))) == 2
    assert len(list((tmp_path / "state").glob("*.json"))) == 2


@pytest.mark.parametrize("keep", [True, False])
def test_only_an_exporter_that_keeps_its_state_writes_files(tree, watch, tmp_path, keep) -> None:
    plant(tree, 2)
    watch(tree.uri, keep=keep).load()
    assert (tmp_path / "state").exists() is keep


@pytest.fixture(scope="module")
def s3_query() -> Iterator[str]:
    with object_store() as query:
        yield query


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_three_shards_show_each_run_once(request, tmp_path, watch, kind) -> None:
    uri = str(tmp_path / "storage")
    if kind == "s3":
        uri = s3_uri(request.getfixturevalue("s3_query"), "shards")
    tree = StorageTree(uri)
    ids = set(plant(tree, 12))
    tree.run("left over").task("f").entry("f").status("RUNNING", T0)
    ids.add("left over")
    shards = [watch(uri, shard=f"{index}/3") for index in range(3)]
    parts = []
    for exporter in shards:
        exporter.load()
        parts.append(held(exporter))
    assert set().union(*parts) == ids
    assert sum(map(len, parts)) == len(ids)
    assert all(parts)
    again = watch(uri, shard="1/3")
    again.load()
    assert held(again) == parts[1]


class FakeLink:
    """A management actor that says what a test wants."""

    starting = False

    def __init__(self) -> None:
        self.view = ManagerView(LinkState.UP)

    def holds(self, *workflow_ids: str) -> None:
        tasks = {"f": LiveTask(upstream=(), submit_time=T0, running=True)}
        runs = {
            key: LiveRun(key, queued=False, tasks=tasks, changed=frozenset(tasks))
            for key in workflow_ids
        }
        self.view = ManagerView(LinkState.UP, runs=runs)

    def poll(self) -> ManagerView:
        return self.view

    def task_details(self, ray_task_ids: list[str]) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def polled() -> Iterator[Callable[..., tuple[Poller, Catalog, FakeLink]]]:
    made: list[Poller] = []

    def make(uri: str, **values: Any) -> tuple[Poller, Catalog, FakeLink]:
        settings, counters, link = Settings(storage=uri, **values), Counters(), FakeLink()
        catalog = Catalog(settings, counters)
        made.append(Poller(settings, catalog, link, counters.begin))  # type: ignore[arg-type]
        return made[-1], catalog, link

    yield make
    while made:  # the threads of storage end with the last reference
        made.pop().close()


@pytest.mark.parametrize("workflow_id", [".", "", "./"])
def test_a_live_run_with_an_id_that_no_folder_can_have_is_shown_without_storage(
    tree, polled, workflow_id
) -> None:
    tree.run("w").task("f").status("RUNNING", T0)
    poller, catalog, link = polled(tree.uri)
    link.holds(workflow_id, "w")
    for _ in range(2):
        poller.poll(time.time(), 1.0)
        assert poller.reader.error is None
        assert set(catalog.ids()) == {workflow_id, "w"}
        assert catalog.get(workflow_id).status is RunStatus.RUNNING
        assert list(catalog.get(workflow_id).tasks) == ["f"]
    link.holds("w")
    for _ in range(2):
        poller.poll(time.time(), 1.0)
    assert set(catalog.ids()) == {"w"}


def test_live_runs_are_seen_before_any_history_is_read(tree, polled, monkeypatch) -> None:
    plant(tree, 3)
    tree.run("live").task("f").entry("f").status("RUNNING", T0)
    poller, catalog, link = polled(tree.uri)
    link.holds("live")
    order: list[str] = []
    original = LocalFiles.read

    def note(self, path, limit):
        order.append(path.split("/")[1])
        return original(self, path, limit)

    monkeypatch.setattr(LocalFiles, "read", note)
    poller.poll(time.time(), 1.0)
    assert order[: order.count("live")] == ["live"] * order.count("live")
    assert {it for it in order if it.startswith("run-")} == {"run-0", "run-1", "run-2"}
    assert catalog.get("live").status is RunStatus.RUNNING


def test_live_runs_of_other_shards_are_not_shown(tree, polled) -> None:
    ids = [f"live-{number}" for number in range(9)]
    seen: list[str] = []
    for index in range(3):
        poller, catalog, link = polled(tree.uri, shard=f"{index}/3")
        link.holds(*ids)
        poller.poll(time.time(), 1.0)
        seen += catalog.ids()
    assert sorted(seen) == ids


def test_a_run_that_ends_while_it_is_watched_is_read_once_it_has_left_the_actor(
    tree, polled
) -> None:
    run = tree.run("w").task("f").entry("f").status("RUNNING", T0)
    poller, catalog, link = polled(tree.uri)
    link.holds("w")
    poller.poll(time.time(), 1.0)
    run.succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 1)
    poller.poll(time.time(), 1.0)  # the listing is newer than what the actor said
    assert catalog.get("w").status is RunStatus.RUNNING
    link.holds()
    poller.poll(time.time(), 1.0)
    assert catalog.get("w").status is RunStatus.SUCCESSFUL
    link.holds("w")  # somebody runs it again; its mark stays as it is
    poller.poll(time.time(), 1.0)
    assert catalog.get("w").status is RunStatus.RUNNING
    link.holds()
    poller.poll(time.time(), 1.0)
    assert catalog.get("w").status is RunStatus.SUCCESSFUL
