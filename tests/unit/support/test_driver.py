"""A helper process that ends badly tells its own error in the failure of the test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from support.driver import Driver


def driver(tmp_path: Path, code: str) -> Driver:
    return Driver([sys.executable, "-c", code], tmp_path / "stderr", os.environ)


def test_a_process_that_ended_badly_shows_why_at_its_end(tmp_path: Path) -> None:
    process = driver(tmp_path, "raise SystemExit('out of rows')")
    with process, pytest.raises(AssertionError, match="it ended with 1:\nout of rows"):
        process.finish(timeout=60)


def test_a_process_that_ended_badly_shows_why_when_it_is_asked(tmp_path: Path) -> None:
    process = driver(tmp_path, "raise SystemExit('out of rows')")
    with process, pytest.raises(AssertionError, match="it ended with 1:\nout of rows"):
        process.ask("go on", timeout=60)


def test_answers_and_the_rest_are_what_it_printed(tmp_path: Path) -> None:
    with driver(tmp_path, "print(input().upper()); print('rest')") as process:
        assert process.ask("go on", timeout=60) == "GO ON"
        assert process.finish(timeout=60) == "rest\n"
