"""Masking takes time linear in the text, whatever it holds."""

from __future__ import annotations

import time
from typing import Callable

import pytest

from ray_workflow_exporter import redact

FRAGMENTS = (
    "eyJ-", "eyJabcdefgh", "://", "://a:", "://?", "a?", "token", "token\\", "token=", "--a-",
    "--token ", "-----BEGIN ", "-----BEGIN A PRIVATE KEY-----", "key ", "bearer ", "xoxb-", "gho_",
    "AKIA", "a-", "'", '"', "\\", "password \\\\\"", "a@", ":@",
)  # fmt: skip
ENDS = ("", ".", ".a", "@", " ", '"')
LENGTH = 2_000
TIMES = 8


def cost(mask: Callable[[str], str], text: str) -> float:
    """Return the CPU seconds of the fastest of a few tries."""
    times = []
    for _ in range(2):
        start = time.process_time()
        mask(text)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("mask", [redact.masked, redact.masked_uri])
@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_longer_text_takes_longer_in_proportion(
    mask: Callable[[str], str], fragment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redact, "_MASKED_PART", 2 * TIMES * LENGTH)
    for end in ENDS:
        text = fragment * (LENGTH // len(fragment))
        short, long = cost(mask, text + end), cost(mask, text * TIMES + end)
        # Quadratic would be 64 times as long; far below a millisecond a clock says nothing.
        assert long < max(short, 0.0005) * TIMES * 3, (end, short, long)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a eyJabcdefgh.abc.def b", "a *** b"),
        ("x-eyJabcdefgh.abc", "x-***"),
        ("eyJ-eyJabcdefgh.abc", "***"),
        ("eyJ.eyJabcdefgh.abc", "eyJ.***"),
        ("eyJabcdefgh. no key", "eyJabcdefgh. no key"),
    ],
)
def test_json_web_tokens_are_masked(text: str, shown: str) -> None:
    assert redact.masked(text) == shown
