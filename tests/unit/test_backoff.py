from __future__ import annotations

import random

import pytest

from ray_workflow_exporter.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_begin_again_after_a_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    pauses = Backoff(1.0, 30.0)
    assert [pauses.pause() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    pauses.reset()
    assert [pauses.pause(), pauses.pause()] == [1, 2]


def test_no_two_of_many_pauses_are_the_same_and_none_is_far_off() -> None:
    pauses = [Backoff(1.0, 30.0).pause() for _ in range(1000)]
    assert len(set(pauses)) > 990
    assert 0.8 <= min(pauses) < 0.82
    assert 1.18 < max(pauses) <= 1.2
