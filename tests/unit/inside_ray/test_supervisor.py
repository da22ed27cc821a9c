from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ray_workflow_exporter.inside_ray import supervisor
from support.waiting import wait_until

pytestmark = pytest.mark.process

ECHO = "import os, sys; print(os.getpid(), sys.stdin.readline().strip(), flush=True)"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between two starts, which take no time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    return made


def supervise(starts: int, code: str, log: Path, after: Callable[[], object] = list) -> None:
    """Supervise a Python that runs `code`, until it has ended `starts` times."""
    command, ends = [sys.executable, "-c", code], iter(range(1, starts + 1))

    def ended() -> None:
        if next(ends) == starts:
            raise SystemExit  # nothing else ends it
        after()

    with pytest.raises(SystemExit):
        supervisor.supervise(command, '{"greeting": 1}', log, ended)


def test_a_child_is_started_again_and_again_and_given_its_greeting(
    tmp_path: Path, pauses: list[float]
) -> None:
    log = tmp_path / "log"
    supervise(3, ECHO, log)
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert [greeting for _, greeting in lines] == ['{"greeting": 1}'] * 3
    assert len({pid for pid, _ in lines}) == 3


def test_no_zombie_is_left(tmp_path: Path, pauses: list[float]) -> None:
    log = tmp_path / "log"
    supervise(2, ECHO, log)
    pids = [int(line.split()[0]) for line in log.read_text().splitlines()]
    assert not any(map(psutil.pid_exists, pids))


def test_the_pauses_grow_to_a_minute_and_no_further(tmp_path: Path, pauses: list[float]) -> None:
    supervise(9, "raise SystemExit(7)", tmp_path / "log")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_child_that_lived_for_long_is_back_at_once(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STEADY_SECONDS", 0.0)
    supervise(4, "", tmp_path / "log")
    assert pauses == [1, 1, 1]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(7)", "The workflow exporter ended with exit code 7; restarting it"),
        ("import os; os.abort()", "The workflow exporter was ended by SIGABRT; restarting it"),
        ("import os; os.kill(os.getpid(), 40)", "was ended by signal 40"),
    ],
)
def test_the_log_tells_how_it_ended_and_where_its_own_log_is(
    code: str,
    said: str,
    tmp_path: Path,
    pauses: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervise(2, code, tmp_path / "log.err")
    assert said in caplog.text
    assert f"Its log and output are {tmp_path / 'log'}.*" in caplog.text


def test_one_that_cannot_be_started_is_tried_again(
    tmp_path: Path, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    supervise(3, ECHO, tmp_path / "no such folder" / "log")
    assert pauses == [1, 2]
    assert "could not be started (FileNotFoundError" in caplog.text


def test_what_fails_after_an_end_is_logged_and_does_not_end_it(
    tmp_path: Path, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    supervise(3, ECHO, tmp_path / "log", fail)
    assert len(pauses) == 2
    assert "the disk is gone" in caplog.text


def test_output_that_grew_large_begins_anew(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LARGEST_OUTPUT", 100)
    log = tmp_path / "log"
    log.write_text("x" * 101)
    supervise(2, ECHO, log)
    assert len(log.read_text().splitlines()) == 2
    assert "x" not in log.read_text()


def test_no_file_handle_is_left(tmp_path: Path, pauses: list[float]) -> None:
    before = psutil.Process().num_fds()
    supervise(3, ECHO, tmp_path / "log")
    supervise(3, ECHO, tmp_path / "no such folder" / "log")
    assert psutil.Process().num_fds() <= before


def test_a_log_that_is_a_link_is_not_written(tmp_path: Path, pauses: list[float]) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    supervise(2, ECHO, tmp_path / "log")
    assert not (tmp_path / "victim").exists()


def test_a_log_that_is_a_pipe_does_not_hold_it_up(
    tmp_path: Path, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "log")
    supervise(2, ECHO, tmp_path / "log")
    assert "could not be started" in caplog.text


# Supervises a child that tells its pid and stays until its input ends.
PARENT = """
import sys
from pathlib import Path
from ray_workflow_exporter.inside_ray.supervisor import supervise
code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
supervise([sys.executable, "-c", code], "{}", Path(sys.argv[1]), list)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    log = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(log)])
    pid = wait_until(lambda: log.read_text().strip() if log.exists() else "", message="no child")
    yield process, psutil.Process(int(pid))
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_childs_input_ends_with_the_parent_however_it_ends(
    number: signal.Signals, parent: tuple[subprocess.Popen[bytes], psutil.Process]
) -> None:
    process, child = parent
    process.send_signal(number)
    wait_until(lambda: not child.is_running(), message="the child stayed")


def test_the_child_is_no_part_of_the_parents_session(
    parent: tuple[subprocess.Popen[bytes], psutil.Process],
) -> None:
    _, child = parent
    assert os.getsid(child.pid) == child.pid
