"""What is logged about failed polls, and how often."""

from __future__ import annotations

import logging
import time

import pytest

from ray_workflow_exporter import exporter
from support.logs import records_of


def fail(kind: type[Exception], failures: exporter._FailureLog, text: str = "lost") -> None:
    try:
        raise kind(text)
    except Exception as error:
        failures.add(error)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    """Return the messages since the last call, each with whether a traceback follows."""
    found = [(it.getMessage(), it.exc_info is not None) for it in records_of(caplog, LOGGER)]
    caplog.clear()
    return found


LOGGER = exporter.__name__
FIRST = ("A poll failed. Polling continues.", True)


def test_the_same_failure_has_one_traceback_then_a_line_a_minute_and_an_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    caplog.set_level(logging.INFO)
    failures = exporter._FailureLog()
    for number in range(60):
        fail(KeyError, failures, f"run {number}")
    assert lines(caplog) == [FIRST]
    now += 60
    for _ in range(40):
        fail(KeyError, failures, "run x")
    assert lines(caplog) == [("Polls have failed 61 times with KeyError('run x').", False)]
    failures.end()
    failures.end()
    assert lines(caplog) == [("Polls succeed again.", False)]


def test_another_failure_has_its_own_traceback(caplog: pytest.LogCaptureFixture) -> None:
    failures = exporter._FailureLog()
    for kind in (KeyError, ValueError, KeyError, ValueError):
        fail(kind, failures)
    assert lines(caplog) == [FIRST, FIRST]


def test_a_failure_of_every_other_poll_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = exporter._FailureLog()
    for _ in range(50):
        fail(KeyError, failures)
        failures.end()
    assert len(lines(caplog)) == 2
