"""A storage on a local disk or a mounted file system, by plain system calls."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Container, Iterable
from typing import Any, Optional

from .filesystem import ABSENT, NOT_MEASURED, Stamp, StorageError, Tree, is_text, unreadable

# Never wait for a pipe's writer; a link is looked at before it is followed.
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 16 << 10  # bytes: all that most files have, in one call
_CHECKED_SECONDS = 1.0  # that a folder counts as no link


class LocalFiles:
    """A local disk, in one thread: the GIL makes more threads slower.

    A link whose target lies outside the root is never followed: whoever may write to the storage
    could otherwise have any file shown that the exporter may read.
    """

    lists_deep = False
    at_once = 1

    def __init__(self, root: str, backslash_divides: bool = False) -> None:
        self._root = root
        self.backslash_divides = backslash_divides
        self._plain: set[str] = set()  # folders that were no links a moment ago
        self._plain_until = 0.0

    def tree(
        self,
        folder: str,
        recursive: bool = True,
        names: Optional[Container[str]] = None,
        measured: Optional[Container[str]] = None,
    ) -> Tree:
        """List the files below a folder; links to folders are not followed, so none loops."""
        found: dict[str, dict[str, Stamp]] = {}
        errors: dict[str, StorageError] = {}
        pending = [""]
        now = time.monotonic()
        if now > self._plain_until:
            self._plain.clear()
            self._plain_until = now + _CHECKED_SECONDS
        while pending:
            within = pending.pop()
            files = found.setdefault(within, {})
            path = f"{self._root}/{folder}/{within}"
            try:
                if not within and folder not in self._plain:
                    self._check_folder(folder)
                inner = self._list(path, files, names, measured)
            except OSError as error:
                if error.errno in ABSENT:
                    continue
                problem = unreadable("list", path, error)
                if not within:
                    raise problem from None
                errors[within] = problem
                continue
            folders = [f"{within}/{name}" for name in inner] if within else inner
            if folder in self._plain:
                self._plain.update([f"{folder}/{it}" for it in folders])
            if recursive:
                pending += folders
            else:
                found.update({it: {} for it in folders})
        return Tree(found, errors)

    def read(self, path: str, limit: int) -> Optional[bytes]:
        """Read at most the first `limit` bytes of a file."""
        folder = path.rpartition("/")[0]
        path = f"{self._root}/{path}"
        try:
            if folder not in self._plain:
                self._check_folder(folder)
            try:
                file = os.open(path, _OPEN)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                file = os.open(self._target(path), _OPEN)
            try:
                data = os.read(file, _CHUNK)
                while _CHUNK <= len(data) < limit and (more := os.read(file, limit - len(data))):
                    data += more
                return data
            finally:
                os.close(file)
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise unreadable("read", path, error) from None

    def size(self, path: str) -> Optional[int]:
        """Return the size of a file in bytes, None if there is none, or only a link."""
        folder = path.rpartition("/")[0]
        path = f"{self._root}/{path}"
        try:
            if folder not in self._plain:
                self._check_folder(folder)
            info = os.lstat(path)
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise unreadable("look at", path, error) from None
        return info.st_size if stat.S_ISREG(info.st_mode) else None

    def exists(self, path: str) -> bool:
        """Return whether a file or folder is there."""
        return os.path.exists(os.path.join(self._root, path))

    def call_all(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Make all calls, one after the other."""
        results: list[Any] = []
        for function, *arguments in calls:
            try:
                results.append(function(*arguments))
            except StorageError as error:
                results.append(error)
        return results

    def _list(
        self,
        path: str,
        files: dict[str, Stamp],
        names: Optional[Container[str]],
        measured: Optional[Container[str]],
    ) -> list[str]:
        """Put the files of one folder among `files`; return the names of the folders in it."""
        folders = []
        # Opened, so that no measuring walks the path; for few files, it does not pay.
        opened = os.open(path, _OPEN_FOLDER) if measured is None else -1
        try:
            with os.scandir(path if opened < 0 else opened) as items:
                for item in items:
                    name = item.name
                    if not name.isascii() and not is_text(name):
                        continue
                    if item.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif names is not None and name not in names:
                        continue
                    elif item.is_symlink():
                        stamp = self._stamp_of_link(f"{path}/{name}")
                        if stamp is not None:
                            files[name] = stamp
                    elif not item.is_file(follow_symlinks=False):
                        continue
                    elif measured is None or name in measured:
                        try:
                            info = item.stat(follow_symlinks=False)
                            files[name] = info.st_size, info.st_mtime_ns
                        except OSError as error:
                            if error.errno not in ABSENT:  # else deleted since it was listed
                                files[name] = NOT_MEASURED
                    else:
                        files[name] = NOT_MEASURED
        finally:
            if opened >= 0:
                os.close(opened)
        return folders

    def _check_folder(self, folder: str) -> None:
        """Raise OSError if a link leads to this folder from outside of the storage."""
        path = ""
        for part in folder.split("/"):
            path = f"{path}/{part}" if path else part
            if path in self._plain:
                continue
            if os.path.islink(f"{self._root}/{path}"):
                self._target(f"{self._root}/{folder}")
                return
            self._plain.add(path)

    def _target(self, path: str) -> str:
        """Return where a link leads; raise OSError if that is outside of the storage."""
        real = os.path.realpath(path)
        root = os.path.realpath(self._root)  # the root itself may be a link
        if real != root and not real.startswith(root.rstrip("/") + "/"):
            raise OSError(errno.EPERM, "it is a link to a place outside of the storage")
        return real

    def _stamp_of_link(self, path: str) -> Optional[Stamp]:
        """Measure the file that a link leads to, None if there is none."""
        try:
            real = self._target(path)
            info = os.lstat(real)
        except OSError as error:
            return None if error.errno in ABSENT else NOT_MEASURED  # reading says why
        return (info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else None
