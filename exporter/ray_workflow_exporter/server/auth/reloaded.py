"""Files that are read again when they change, so that secrets rotate without a restart."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, Generic, Optional, TypeVar

T = TypeVar("T")

_CHECK_SECONDS = 1.0


class Reloaded(Generic[T]):
    """A value made from files by `load`, made again when one of the files has changed.

    `files` lists the files of a value. They are checked at most once a second.
    """

    def __init__(
        self, path: Path, load: Callable[[], T], files: Callable[[T], Iterable[Path]] = lambda _: ()
    ) -> None:
        """`path` is the file that names all others."""
        self._load, self._files_of = load, files
        self._files: tuple[Path, ...] = (path,)
        self._stamps: Optional[list[tuple[int, ...]]] = None
        self._value: Optional[T] = None
        self._error: Optional[str] = None
        self._next_check = 0.0

    def changed(self) -> bool:
        """Load if something has changed; return whether it has.

        Raises what `load` raises, the same error only once. While loading fails it is tried at
        each check, because what is missing may be a file that only a good value would name.
        """
        now = time.monotonic()
        if self._next_check and now < self._next_check:
            return False
        self._next_check = now + _CHECK_SECONDS
        stamps = list(map(_stamp, self._files))
        if stamps == self._stamps and self._error is None:
            return False
        try:
            value = self._load()
            # A file is stamped before it is read: a change meanwhile is seen at the next check.
            while not set(self._files_of(value)) <= set(self._files):
                self._files = tuple(dict.fromkeys((self._files[0], *self._files_of(value))))
                stamps = list(map(_stamp, self._files))
                value = self._load()
        except Exception as error:
            known, self._error = self._error, str(error)
            if self._error == known:
                return False
            raise
        self._value, self._stamps, self._error = value, stamps, None
        return True

    @property
    def value(self) -> T:
        """The value that was loaded last without an error."""
        assert self._value is not None
        return self._value


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        # Followed through links: Kubernetes changes a secret by moving one.
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
