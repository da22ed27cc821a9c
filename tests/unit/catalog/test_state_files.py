"""What an exporter keeps belongs to it alone, as long as it runs."""

from __future__ import annotations

import logging
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ray_workflow_exporter.catalog.state_files import StateFiles, StateInUseError
from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.settings.settings import Settings
from support.logs import records_of
from support.served import PROGRAM, Served
from support.trees import StorageTree
from support.waiting import wait_until


@pytest.fixture
def tree(tmp_path: Path) -> StorageTree:
    tree = StorageTree(str(tmp_path / "storage"))
    finish(tree, "old")
    return tree


@pytest.fixture
def watch(tree: StorageTree, tmp_path: Path) -> Iterator[Callable[..., Exporter]]:
    """Make exporters of one storage that keep their state in one folder."""
    made: list[Exporter] = []

    def make(**more: Any) -> Exporter:
        given = {"address": "none", "storage": tree.uri, "state_dir": tmp_path / "state", **more}
        made.append(Exporter(Settings.load(None, {}, given), keep=True))
        return made[-1]

    yield make
    while made:  # the threads of storage end with the last reference
        made.pop().close()


def finish(tree: StorageTree, workflow_id: str) -> None:
    now = time.time()
    run = tree.run(workflow_id, {"workflow": "etl"}).status("RUNNING", now).task("f").entry("f")
    run.succeed("f", now, now + 1).status("SUCCESSFUL", now + 1)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in (folder / "state").rglob("*")
    }


def finished(exporter: Exporter) -> float:
    line = r'^ray_workflow_runs_finished_total\{workflow="etl",status="SUCCESSFUL"\} (.+)$'
    (value,) = re.findall(line, b"".join(exporter.metrics()).decode(), re.M)
    return float(value)


@pytest.mark.process
def test_a_second_exporter_on_the_port_leaves_and_touches_nothing(
    tree: StorageTree, tmp_path: Path
) -> None:
    arguments = ["--address", "none", "--storage", tree.uri, "--interval", "1h"]
    first = Served(tmp_path, *arguments).start()
    try:
        wait_until(lambda: first.value("ray_workflow_runs", status="SUCCESSFUL") == 1)
        wait_until(lambda: len(state(tmp_path)) >= 3, message="the state was not kept")
        finish(tree, "new")  # a second one would count it
        before = state(tmp_path)
        listen = f"127.0.0.1:{first.port}"
        second = subprocess.run(
            [
                *(str(PROGRAM), "serve", *arguments, "--listen", listen),
                *("--state-dir", str(tmp_path / "state")),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 2
        assert f"Error: Cannot listen on {listen}: " in second.stderr
        assert "Traceback" not in second.stderr
        assert state(tmp_path) == before
    finally:
        first.stop()


def test_a_second_exporter_with_the_same_state_waits_for_its_turn(
    tree: StorageTree, watch: Callable[..., Exporter], tmp_path: Path
) -> None:
    first, second = watch(), watch()
    first.poll_once()
    before = state(tmp_path)
    finish(tree, "new")
    with pytest.raises(StateInUseError, match=r"Another exporter uses the counters in .*\.json"):
        second.poll_once()
    assert not second.ready
    assert state(tmp_path) == before
    first.poll_once()
    assert finished(first) == 1
    first.close()
    second.poll_once()
    assert finished(second) == 1  # counted by the first, and not again


def test_the_log_says_in_a_sentence_that_the_state_is_in_use_and_when_it_is_free(
    watch: Callable[..., Exporter], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = watch(), watch(interval=0.1)
    first.poll_once()
    with caplog.at_level(logging.WARNING):
        second.start()
        wait_until(lambda: "This one waits until the other one has ended" in caplog.text)
        first.close()
        wait_until(lambda: "Polls succeed again." in caplog.text)
    assert not any(it.exc_info for it in records_of(caplog, "ray_workflow_exporter.exporter"))


@pytest.mark.parametrize(
    "other", [{"listen": ":20730"}, {"shard": "1/2"}, {"storage": "/another", "state_dir": None}]
)
def test_exporters_that_differ_keep_their_state_side_by_side(
    other: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"state_dir": tmp_path, "storage": "/one", "shard": "0/2"}
    first = StateFiles(Settings.load(None, {}, settings), "/one")
    second = StateFiles(
        Settings(**{**settings, **other, "state_dir": tmp_path}), other.get("storage", "/one")
    )
    assert {first.counters, first.runs}.isdisjoint({second.counters, second.runs})
    first.close()
    second.close()


@pytest.mark.process
def test_a_process_that_is_killed_holds_nothing(tree: StorageTree, tmp_path: Path) -> None:
    served = Served(tmp_path, "--address", "none", "--storage", tree.uri).start()
    settings = Settings(listen=f"127.0.0.1:{served.port}", state_dir=tmp_path / "state")

    def taken() -> bool:
        with suppress(StateInUseError):
            StateFiles(settings, tree.uri).close()
            return False
        return True

    try:
        wait_until(taken, message="nothing is locked")
    finally:
        served.kill()
    assert not taken()


def test_a_folder_that_cannot_be_written_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    files = StateFiles(Settings(state_dir=tmp_path / "state"), None)
    files.close()


def test_a_poll_that_hangs_keeps_the_files_until_the_process_ends(
    tree: StorageTree, watch: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, over = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        over.wait(30)

    first, second = watch(manager_timeout=0.1), watch()
    monkeypatch.setattr(first._counters, "save", hang)
    first.start()
    assert hanging.wait(30)
    monkeypatch.setattr(first._thread, "join", lambda timeout: None)
    first.close()
    with pytest.raises(StateInUseError):
        second.poll_once()
    over.set()
    monkeypatch.undo()
    first.close()
    second.poll_once()
