"""A long history, read after a start: how far it is, and what must not slow it down."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

_VERY_MANY = 1_000
_TELL_SECONDS = 3.0  # between two lines in the log

logger = logging.getLogger(__name__)


class Progress:
    """Counts the runs that are `left` to be read, and logs from time to time how many were."""

    def __init__(self) -> None:
        self.left = 0
        self._total = 0
        self._long = False  # more than one poll can read
        self._told = 0.0

    def begin(self, left: int) -> None:
        """Take the number of runs to read at the beginning of a poll."""
        if self.left == 0:
            self._total, self._told, self._long = 0, time.monotonic(), False
        self._total += max(0, left - self.left)
        self.left = left

    def tell(self, left: int, without_folder: int = 0) -> None:
        """Take the number of runs that are left; marks `without_folder` were none."""
        self.left = left
        self._total -= without_folder
        due = time.monotonic() > self._told + _TELL_SECONDS
        if due or (self._long and left == 0):
            self._long, self._told = True, time.monotonic()
            logger.info("Read %d of %d finished runs.", self._total - left, self._total)


@contextmanager
def garbage_waits(runs: int = 0) -> Iterator[None]:
    """Keep the garbage collector from looking at thousands of new runs again and again.

    There are no cycles among them: it would find nothing. After very many new `runs` it will
    never look at what is there by then; that is freed all the same once nobody refers to it.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if runs >= _VERY_MANY:
            gc.freeze()
        gc.enable()
