"""Polls of a storage that changes, lies or lags behind."""

from __future__ import annotations

import time

from prometheus_client.parser import text_string_to_metric_families

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.sources.storage.filesystem import StorageError
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from support import watching
from support.trees import StorageTree
from support.watching import OBJECTS, T0, plant, shown

watch = watching.watch  # a fixture


def up(exporter: Exporter) -> float:
    families = text_string_to_metric_families(b"".join(exporter.metrics()).decode())
    return next(it.samples[0].value for it in families if it.name == "ray_workflow_storage_up")


def test_finished_runs_are_read_once(watch, tmp_path, monkeypatch) -> None:
    tree = StorageTree(str(tmp_path))
    plant(tree)
    for name in ("failed", "crashed", "unpicklable", "resumed once"):
        tree.run(name).remove()  # those that failed just now are read again on purpose
    exporter = watch(tree)
    exporter.load()
    read: list[str] = []
    monkeypatch.setattr(LocalFiles, "read", lambda self, path, limit: read.append(path))
    for _ in range(3):
        exporter.poll_once()
    assert read == []


def test_a_run_is_gone_or_left_over_only_when_two_polls_agree(watch, tmp_path) -> None:
    tree = StorageTree(str(tmp_path))
    run = tree.run("w").task("f").status("RUNNING", time.time())
    done = tree.run("done").task("f").succeed("f", T0, T0 + 1).status("SUCCESSFUL", time.time())
    exporter = watch(tree)
    exporter.poll_once()
    assert shown(exporter) == {"done": "SUCCESSFUL"}
    exporter.poll_once()
    assert shown(exporter) == {"done": "SUCCESSFUL", "w": "RESUMABLE"}
    done.unmark("SUCCESSFUL")  # as a listing may find it in the middle of a change
    exporter.poll_once()
    assert set(shown(exporter)) == {"done", "w"}
    done.mark("SUCCESSFUL")
    exporter.poll_once()
    run.remove()
    exporter.poll_once()
    assert set(shown(exporter)) == {"done", "w"}
    exporter.poll_once()
    assert set(shown(exporter)) == {"done"}


def test_files_that_siblings_write_after_a_failure_are_seen(watch, tmp_path, monkeypatch) -> None:
    tree = StorageTree(str(tmp_path))
    now = time.time()
    run = tree.run("w").status("RUNNING", now).task("bad").task("slow").entry("bad")
    run.start("bad", now).start("slow", now).fail("bad", ValueError("no"))
    run.status("FAILED", now)
    exporter = watch(tree)
    exporter.load()
    run.end("slow", now + 5).output("slow")
    # The next look is due a few seconds later.
    monkeypatch.setattr(time, "time", lambda: now + 4)
    exporter.poll_once()
    view = exporter.run("w")
    assert view is not None
    assert view.run.tasks["slow"].state.value == "SUCCESSFUL"


def test_nothing_ticks_while_nothing_happens(watch, tmp_path, monkeypatch) -> None:
    tree = StorageTree(str(tmp_path))
    plant(tree)
    exporter = watch(tree, finished_retention="50y", task_retention="50y")
    exporter.load()
    before = b"".join(exporter.metrics(tiers=OBJECTS))
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    exporter.poll_once()
    assert b"".join(exporter.metrics(tiers=OBJECTS)) == before


def test_files_that_cannot_be_read_hide_no_run(watch, tmp_path, monkeypatch, caplog) -> None:
    tree = StorageTree(str(tmp_path))
    for name in ("old", "odd", "new"):
        tree.run(name).task("f").succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 1)
    read = LocalFiles.read

    def refuse(self, path, limit):
        if "/odd/" in path:
            raise StorageError(f"Cannot read {path}.")
        return read(self, path, limit)

    monkeypatch.setattr(LocalFiles, "read", refuse)
    exporter = watch(tree, finished_retention="50y")
    for _ in range(3):
        exporter.poll_once()
    assert shown(exporter).keys() == {"old", "odd", "new"}
    assert exporter.run("odd").run.tasks["f"].start_time is None
    assert up(exporter) == 1
    assert b"\nray_workflow_exporter_runs_to_read 0.0" in b"".join(exporter.metrics())
    assert len([it for it in caplog.messages if "'odd'" in it and "tasks/f/inputs.json" in it]) == 1
    assert b'poll_errors_total{phase="read"} 1.0' in b"".join(exporter.metrics())
    monkeypatch.setattr(LocalFiles, "read", read)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    exporter.poll_once()
    assert exporter.run("odd").run.tasks["f"].start_time == T0


def test_a_mark_without_a_folder_is_tried_again_after_a_pause(watch, tmp_path) -> None:
    tree = StorageTree(str(tmp_path))
    tree.run("whole").task("f").succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 1)
    for status in ("RUNNING", "PENDING", "FAILED"):
        tree.put(f"workflows/__status__/{status}/orphan-{status}", b"")
    exporter = watch(tree, finished_retention="50y")
    for _ in range(4):
        exporter.poll_once()
    assert shown(exporter).keys() == {"whole"}
    assert b"\nray_workflow_exporter_runs_to_read 0.0" in b"".join(exporter.metrics())


def test_a_run_that_ended_without_the_mark_of_its_end_is_shown(watch, tmp_path) -> None:
    tree = StorageTree(str(tmp_path))
    tree.run("w").task("f").succeed("f", T0, T0 + 1).mark("RUNNING").meta("SUCCESSFUL")
    exporter = watch(tree, finished_retention="50y")
    for _ in range(6):
        exporter.poll_once()
    assert exporter.run("w").run.status.value == "SUCCESSFUL"
    assert b"\nray_workflow_exporter_runs_to_read 0.0" in b"".join(exporter.metrics())


def test_an_end_in_the_folder_of_a_run_is_shown_before_its_mark(watch, tmp_path) -> None:
    # On an object store under load, the listing of marks may be seconds behind.
    tree = StorageTree(str(tmp_path / "storage"))
    run = tree.run("w").task("f").entry("f").status("RUNNING", time.time())
    exporter = watch(tree)
    exporter._poller._tracked["w"].was_live = True
    run.succeed("f", time.time(), time.time()).meta("SUCCESSFUL")
    run.put("post_run_metadata.json", {"end_time": time.time()})
    exporter.poll_once()
    assert shown(exporter) == {"w": "SUCCESSFUL"}


def test_a_replay_of_a_run_keeps_its_times(watch, tmp_path) -> None:
    tree = StorageTree(str(tmp_path / "storage"))
    exporter = watch(tree)
    exporter.poll_once()
    now = time.time()
    run = tree.run("w").task("f").entry("f").status("RUNNING", now)
    run.succeed("f", now + 0.1, now + 0.4).status("SUCCESSFUL", now + 0.5)
    exporter.poll_once()
    before = exporter.run("w")
    run.status("RUNNING", now + 0.6).status("SUCCESSFUL", now + 0.61)
    exporter.poll_once()
    after = exporter.run("w")
    assert before is not None
    assert after is not None
    assert (after.run.start_time, after.run.end_time) == (now, now + 0.5)
    body = b"".join(exporter.metrics())
    assert b'ray_workflow_runs_started_total{workflow="w"} 1' in body
    assert b'ray_workflow_runs_finished_total{workflow="w",status="SUCCESSFUL"} 1' in body


def test_requests_to_storage_are_exposed_by_kind(watch, tmp_path) -> None:
    tree = StorageTree(str(tmp_path))
    tree.run("w").task("f").succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 1)
    exporter = watch(tree)

    def made(kind: str) -> float:
        start = f'ray_workflow_exporter_storage_requests_total{{kind="{kind}"}} '
        lines = b"".join(exporter.metrics()).decode().splitlines()
        return next(float(it[len(start) :]) for it in lines if it.startswith(start))

    assert [made(kind) for kind in ("list", "read", "stat")] == [0, 0, 0]
    exporter.load()
    read, listed = made("read"), made("list")
    assert read >= 5
    assert listed >= 5
    exporter.poll_once()
    assert made("read") == read
    assert made("list") > listed
