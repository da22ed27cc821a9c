"""The garbage collector waits while thousands of runs are read, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ray_workflow_exporter.poll.loading import _VERY_MANY, garbage_waits


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    assert gc.isenabled()
    yield
    gc.enable()
    gc.unfreeze()


def test_it_is_off_meanwhile_and_on_again_also_after_an_error() -> None:
    with garbage_waits():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), garbage_waits():
        raise KeyError
    assert gc.isenabled()


def test_who_switched_it_off_finds_it_off() -> None:
    gc.disable()
    with garbage_waits(_VERY_MANY):
        assert not gc.isenabled()
    assert not gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_only_very_many_runs_are_left_out_for_ever() -> None:
    gc.unfreeze()
    with garbage_waits(_VERY_MANY - 1):
        pass
    assert gc.get_freeze_count() == 0
    with garbage_waits(_VERY_MANY):
        pass
    assert gc.get_freeze_count() > 0
