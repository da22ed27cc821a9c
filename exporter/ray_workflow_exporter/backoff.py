"""Growing pauses between the tries of what keeps failing."""

from __future__ import annotations

import random

_JITTER = 0.2  # of a pause, so that many who failed together do not try together


class Backoff:
    """Pauses from `first` to `longest` seconds, each twice the one before, give or take 20 %."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def pause(self) -> float:
        """Return the seconds to wait before the next try."""
        pause = self._next
        self._next = min(self._longest, 2 * pause)
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - not a secret

    def reset(self) -> None:
        """Begin with the first pause again: the last try succeeded."""
        self._next = self._first
