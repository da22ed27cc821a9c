"""Rate limits by key."""

from __future__ import annotations

import math
import time
from typing import Optional

_KEYS = 10_000  # known at once: addresses cost an attacker nothing


class Rate:
    """Allows each key `burst` events at once, and one more each `seconds`."""

    def __init__(self, burst: int, seconds: float) -> None:
        self._burst, self._seconds = burst, seconds
        self._free_at: dict[str, float] = {}  # when the key has its whole burst again

    def wait(self, key: str) -> Optional[int]:
        """Return None if the key has an event left, else the seconds until it has."""
        over = self._free_at.get(key, 0.0) - time.monotonic() - (self._burst - 1) * self._seconds
        return math.ceil(over) if over > 0 else None

    def take(self, key: str) -> None:
        """Count one event of a key."""
        now = time.monotonic()
        if len(self._free_at) >= _KEYS:
            self._free_at = {it: until for it, until in self._free_at.items() if until > now}
            while len(self._free_at) >= _KEYS:
                del self._free_at[next(iter(self._free_at))]
        self._free_at[key] = max(now, self._free_at.get(key, 0.0)) + self._seconds

    def give_back(self, key: str) -> None:
        """Take back one event that was counted."""
        self._free_at[key] = self._free_at.get(key, 0.0) - self._seconds
