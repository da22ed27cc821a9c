"""Wait for a condition with a deadline, never for a length of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional, TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], Optional[T]],
    *,
    timeout: float = 90.0,
    message: str = "the condition did not come true",
    interval: float = 0.05,
) -> T:
    """Call `condition` until its result is true, and return that result.

    Raises AssertionError with `message` and the last result after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"{message} within {timeout:g} s; last seen: {result!r}")
        time.sleep(interval)
