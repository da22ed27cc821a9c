"""What holds for all tests: marks, groups and ids, hypothesis profiles, nothing left behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import hypothesis
import pytest

from support import leftovers

TESTS = Path(__file__).parent

# Of an argument, in characters or bytes: beyond it, the id of a test only names it.
LONG = 200

# Chosen by `--hypothesis-profile`. A deadline would depend on how busy the machine is.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=25)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=300)
hypothesis.settings.load_profile("dev")

# Fixtures that cost a server, and the marks of their tests.
SERVERS = {
    "cluster": "ray",
    "new_cluster": "ray",
    "lab": "ray",
    "own_ray": "ray",
    "browser": "browser",
    "stack": "ray prometheus",
    "watched": "ray prometheus",
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server, and keep together what shares one."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] == "unit" or not isinstance(item, pytest.Function):
            continue
        item.add_marker("process")
        for mark in {
            mark for it in SERVERS.keys() & item.fixturenames for mark in SERVERS[it].split()
        }:
            item.add_marker(mark)
        # One Ray at a time: two that start at once on two cores miss Ray's own time limits.
        group = (
            "ray" if item.get_closest_marker("ray") or "ray" in item.path.stem else item.path.stem
        )
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_make_parametrize_id(val: object, argname: str) -> Optional[str]:
    """Name a long argument, not quote it: two workers must give a test the same id.

    One that is packed, signed or random differs from process to process.
    """
    if isinstance(val, (str, bytes)) and len(val) > LONG:
        return argname
    return None


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a unit test whose threads or child processes outlive it and its fixtures.

    Elsewhere, fixtures of a module share servers and exporters, which restart what they need.
    """
    before = leftovers.running()
    yield
    if "unit" in request.path.parts:
        left = leftovers.left_since(before)
        assert not left, f"left running: {left}"


@pytest.fixture(scope="module", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Let what is not closed be found in the module that opened it, not at the end of all."""
    yield
    gc.collect()
