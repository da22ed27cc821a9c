"""Files that are read again when they change, so that secrets rotate without a restart."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, Generic, Optional, TypeVar

T = TypeVar("T")
Stamp = tuple[tuple[int, ...], ...]

_LOOK_SECONDS = 1.0


class Reloaded(Generic[T]):
    """What `load` makes of some files; made anew once one of them is another.

    `files` names them, given what was made last. Looks at them at most once a second.
    """

    def __init__(self, load: Callable[[], T], files: Callable[[Optional[T]], Iterable[Path]]):
        self._load, self._files = load, files
        self._value: Optional[T] = None
        self._stamp: Optional[Stamp] = None
        self._next = 0.0

    def changed(self) -> bool:
        """Load if something changed; tell whether it did. Raises what `load` raises, once for
        each change of the files."""
        now = time.monotonic()
        if self._stamp is not None and now < self._next:
            return False
        self._next = now + _LOOK_SECONDS
        stamp = tuple(_stamp(path) for path in self._files(self._value))
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._value = self._load()
        # It may name other files than the one before.
        self._stamp = tuple(_stamp(path) for path in self._files(self._value))
        return True

    @property
    def value(self) -> T:
        """What was loaded last without an error."""
        assert self._value is not None
        return self._value


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        # Followed through links: Kubernetes changes a secret by moving one.
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
