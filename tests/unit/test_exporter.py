"""From files in storage to lines in /metrics: this tree in, this exposition out."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from support import watching
from support.expositions import render
from support.object_store import object_store, s3_uri
from support.proxy import proxy
from support.trees import RunTree, StorageTree
from support.waiting import wait_until
from support.watching import OBJECTS, T0, plant, shown

watch = watching.watch  # a fixture


@pytest.fixture(scope="module")
def s3_query() -> Iterator[str]:
    with object_store() as query:
        yield query


@pytest.fixture(params=["local", "s3"])
def tree(request, tmp_path) -> StorageTree:
    if request.param == "s3":
        query = request.getfixturevalue("s3_query")
        return StorageTree(s3_uri(query, uuid.uuid4().hex))
    return StorageTree(str(tmp_path / "storage"))


def settled(exporter: Exporter) -> str:
    """Return the exposition, with all that the tree's files took from the clock made alike."""
    # A scrape has objects in the order in which they became known, which is another each time.
    body = render(exporter.snapshot, tiers=OBJECTS).decode()
    scraped = b"".join(exporter.metrics(tiers=OBJECTS)).decode()
    assert sorted(scraped.splitlines()) == sorted(body.splitlines())
    # Marks and exceptions bear the time at which the test wrote them, years after T0.
    return re.sub(
        r" (?:1[7-9]|[2-9]\d)\d{8}(?:\.\d+)?$| [1-9]\d{7,8}(?:\.\d+)?$", " NOW", body, flags=re.M
    )


def test_this_tree_gives_this_exposition(tree, watch, golden) -> None:
    plant(tree)
    exporter = watch(tree, finished_retention="50y", task_retention="50y")
    exporter.load()
    golden("storage.txt", settled(exporter))


def test_polling_changes_nothing_in_storage(tree, watch) -> None:
    plant(tree)
    before = tree.content()
    exporter = watch(tree)
    for _ in range(5):
        exporter.poll_once()
    assert tree.content() == before


def up(exporter: Exporter) -> float:
    families = text_string_to_metric_families(b"".join(exporter.metrics()).decode())
    return next(it.samples[0].value for it in families if it.name == "ray_workflow_storage_up")


@pytest.mark.slow
def test_a_store_that_hangs_or_fails_costs_answers_nothing_and_comes_back(watch) -> None:
    with object_store() as query:
        host, port = _endpoint(query)
        with proxy(host, port) as between:
            tree = StorageTree(s3_uri(query, "prefix"))
            tree.run("w").task("f").succeed("f", T0, T0 + 1).status("SUCCESSFUL", T0 + 1)
            behind = StorageTree(s3_uri(query.replace(str(port), str(between.port)), "prefix"))
            exporter = watch(
                behind, interval=0.1, storage_timeout=2, max_staleness=6, finished_retention="50y"
            )
            exporter.start()
            wait_until(lambda: shown(exporter) == {"w": "SUCCESSFUL"})
            for harm in (between.hang, between.fail):
                harm()
                wait_until(lambda: up(exporter) == 0)
                assert exporter.status["storage_error"]
                wait_until(lambda: shown(exporter) == {}, message="old runs are dropped")
                between.heal()
                wait_until(lambda: up(exporter) == 1 and shown(exporter) == {"w": "SUCCESSFUL"})


def _endpoint(query: str) -> tuple[str, int]:
    address = urlsplit(unquote(query.partition("endpoint_override=")[2].partition("&")[0]))
    assert address.hostname is not None
    assert address.port is not None
    return address.hostname, address.port


def test_old_runs_are_served_until_they_are_too_old(watch, tmp_path, monkeypatch) -> None:
    tree = StorageTree(str(tmp_path / "storage"))
    tree.run("w").task("f").status("RUNNING", time.time())
    exporter = watch(tree, max_staleness=60)
    exporter.load()
    (tmp_path / "storage").rename(tmp_path / "away")
    exporter.poll_once()
    assert up(exporter) == 0
    assert set(shown(exporter)) == {"w"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)  # somebody sets the clock
    assert set(shown(exporter)) == {"w"}
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert shown(exporter) == {}
    assert exporter.snapshot.runs == ()


def test_the_age_of_the_last_poll_does_not_follow_the_wall_clock(
    watch, tmp_path, monkeypatch
) -> None:
    exporter = watch(StorageTree(str(tmp_path / "storage")))
    exporter.poll_once()
    now, ticks = time.time(), time.monotonic()
    for step in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda step=step: now + step)
        assert 0 <= exporter.heartbeat_age < 60
    monkeypatch.setattr(time, "monotonic", lambda: ticks + 300)
    assert exporter.heartbeat_age >= 300


def test_a_call_that_hangs_is_waited_for_once(watch, tmp_path, monkeypatch) -> None:
    tree = StorageTree(str(tmp_path))
    tree.run("w").task("f").status("RUNNING", T0)
    exporter = watch(tree, storage_timeout=0.2)
    exporter.load()
    release, entered = threading.Event(), []
    update = LocalFiles.update

    def hang(self, folder, *how):
        entered.append(folder)
        release.wait()
        update(self, folder, *how)

    monkeypatch.setattr(LocalFiles, "update", hang)
    for _ in range(3):
        exporter.poll_once()
    assert len(entered) == 1
    assert "still has not answered" in exporter.status["storage_error"]
    release.set()
    wait_until(lambda: exporter.poll_once() or up(exporter) == 1)


def test_tasks_of_a_run_too_old_to_be_exposed_are_read_again_when_asked_for(
    watch, tmp_path
) -> None:
    tree = StorageTree(str(tmp_path))
    plant(tree)
    exporter = watch(tree, finished_retention="1h")
    exporter.load()
    assert "diamond" not in shown(exporter)
    view = exporter.run("diamond")
    assert view is not None
    assert set(view.run.tasks) == {"a", "b", "b_1", "c"}
    assert view.analysis.progress == 1.0


def test_readers_of_old_runs_do_not_make_storage_fail(watch, tmp_path, monkeypatch) -> None:
    tree = StorageTree(str(tmp_path))
    plant(tree)
    exporter = watch(tree, finished_retention="1h", storage_timeout=0.5)
    exporter.load()
    release, read = threading.Event(), LocalFiles.read

    def hang(self, path, limit):
        if threading.current_thread().name != "poll":
            release.wait()
        return read(self, path, limit)

    monkeypatch.setattr(LocalFiles, "read", hang)
    with pytest.raises(TimeoutError):
        exporter.run("diamond")
    exporter.poll_once()
    assert up(exporter) == 1
    release.set()

    def answered() -> bool:
        with contextlib.suppress(TimeoutError):
            return exporter.run("diamond") is not None
        return False

    wait_until(answered)


def failed_now(tree: StorageTree, workflow_id: str, workflow: str) -> RunTree:
    now = time.time()
    run = tree.run(workflow_id, {"workflow": workflow}).status("RUNNING", now).task("f").entry("f")
    return run.start("f", now).fail("f", ValueError("no")).status("FAILED", now + 1)


def test_a_workflow_without_runs_is_forgotten_on_request_and_its_place_is_free(
    watch, tmp_path
) -> None:
    tree = StorageTree(str(tmp_path / "storage"))
    exporter = watch(tree, max_workflows=1)
    exporter.poll_once()
    run = failed_now(tree, "retired-1", "retired")
    exporter.poll_once()
    with pytest.raises(ValueError, match="still has runs"):
        exporter.forget_workflow("retired")
    run.remove()
    for _ in range(2):
        exporter.poll_once()
    assert b'runs_finished_total{workflow="retired",status="FAILED"} 1' in b"".join(
        exporter.metrics()
    )
    assert exporter.forget_workflow("retired")
    assert not exporter.forget_workflow("unknown")
    failed_now(tree, "next-1", "next")
    exporter.poll_once()
    body = b"".join(exporter.metrics())
    assert b'workflow="retired"' not in body
    assert b'runs_finished_total{workflow="next",status="FAILED"} 1' in body


@pytest.mark.parametrize("harm", ["foreign", "no home"])
def test_a_state_folder_that_cannot_be_used_costs_only_the_state(
    harm, tmp_path, monkeypatch, caplog
) -> None:
    tree = StorageTree(str(tmp_path / "storage"))
    tree.run("w").task("f").status("RUNNING", time.time())
    settings = Settings(address="none", storage=tree.uri, state_dir=tmp_path / "state")
    if harm == "foreign":
        # Root may read everything: the refusal has to be made up.
        refused = PermissionError(13, "Permission denied")
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: raise_(refused))
    else:
        error = RuntimeError("Could not determine home directory.")
        monkeypatch.setattr(Settings, "state_path", property(lambda _: raise_(error)))
    exporter = Exporter(settings, keep=True)
    try:
        for _ in range(2):
            exporter.poll_once()
        assert exporter.ready
        assert up(exporter) == 1
        assert "w" in shown(exporter)
        assert b"ray_workflow_exporter_state_up 0.0" in b"".join(exporter.metrics())
        assert exporter.status["state_error"]
        (line,) = [it for it in caplog.records if it.levelname == "ERROR"]
        assert "--state-dir" in line.getMessage()
        assert line.exc_info is None
    finally:
        exporter.close()


def raise_(error: Exception) -> None:
    raise error


def test_both_state_files_are_kept_when_both_are_damaged(tmp_path) -> None:
    tree = StorageTree(str(tmp_path / "storage"))
    settings = Settings(address="none", storage=tree.uri, state_dir=tmp_path / "state")
    plant(tree)
    damaged: dict[int, bytes] = {}
    for _ in range(3):
        exporter = Exporter(settings, keep=True)
        exporter.load()
        assert b"ray_workflow_exporter_state_up 1.0" in b"".join(exporter.metrics())
        exporter.close()
        for file in (tmp_path / "state").iterdir():
            if file.suffix in (".json", ".runs"):
                data = file.read_bytes()[: file.stat().st_size // 2] + bytes([len(damaged)])
                file.write_bytes(data)
                damaged[len(damaged)] = data
    exporter = Exporter(settings, keep=True)
    exporter.load()
    exporter.close()
    kept = [file.read_bytes() for file in (tmp_path / "state").iterdir()]
    assert len(damaged) == 6
    assert all(data in kept for data in damaged.values())
