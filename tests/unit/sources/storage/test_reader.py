"""Calls in a box: what ends, what hangs, what is only slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ray_workflow_exporter.sources.storage.reader import TimeBox
from support.waiting import wait_until


@pytest.fixture
def box() -> Iterator[TimeBox]:
    made = TimeBox(0.2, "The clock")
    yield made
    made.close()


def test_an_answer_and_an_error_come_through(box) -> None:
    assert box.call(lambda one, two: one + two, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        box.call(lambda: 1 // 0)
    with pytest.raises(TimeoutError, match="of its own"):
        box.call(lambda: (_ for _ in ()).throw(TimeoutError("of its own")))


def test_a_call_without_a_sign_is_given_up_and_further_ones_are_refused_at_once(box) -> None:
    release = threading.Event()
    with pytest.raises(TimeoutError, match=r"The clock did not answer within 0\.2 s"):
        box.call(release.wait)
    with pytest.raises(TimeoutError, match="still has not answered"):
        box.call(int)
    release.set()
    wait_until(lambda: box._hanging.done())
    assert box.call(int) == 0


def test_a_call_that_goes_on_may_take_as_long_as_it_likes(box) -> None:
    ticks = threading.Event()

    def long() -> str:
        for _ in range(10):
            ticks.wait(0.1)
            box.beat()
        return "there"

    assert box.call(long) == "there"
