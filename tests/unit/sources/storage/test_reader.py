"""Calls to storage: what ends, what hangs, what is only slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ray_workflow_exporter.sources.storage.reader import StorageReader
from support.waiting import wait_until


@pytest.fixture
def reader(tmp_path) -> Iterator[StorageReader]:
    made = StorageReader(str(tmp_path), 0.2, lambda _: True)
    yield made
    made.close()


def test_an_answer_and_an_error_come_through(reader) -> None:
    assert reader.call(lambda _, one, two: one + two, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        reader.call(lambda _: 1 // 0)
    with pytest.raises(TimeoutError, match="of its own"):
        reader.call(lambda _: (_ for _ in ()).throw(TimeoutError("of its own")))


def test_a_call_without_a_sign_is_given_up_and_further_ones_are_refused_at_once(reader) -> None:
    release = threading.Event()
    with pytest.raises(TimeoutError, match=r"storage did not answer within 0\.2 s"):
        reader.call(lambda _: release.wait())
    with pytest.raises(TimeoutError, match="still has not answered"):
        reader.call(lambda _: 0)
    release.set()
    wait_until(lambda: reader._hanging.done())
    assert reader.call(lambda _: 0) == 0


def test_a_call_that_goes_on_may_take_as_long_as_it_likes(reader) -> None:
    ticks = threading.Event()

    def long(_: object) -> str:
        for _ in range(10):
            ticks.wait(0.1)
            reader._note_sign()
        return "there"

    assert reader.call(long) == "there"
