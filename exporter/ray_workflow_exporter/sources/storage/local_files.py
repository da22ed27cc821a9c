"""A storage on a local disk or a mounted file system, by plain system calls."""

from __future__ import annotations

import errno
import os
from collections.abc import Container, Iterable
from typing import Any, Optional

from .filesystem import ABSENT, NOT_MEASURED, Stamp, StorageError, Tree, is_text, unreadable

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # never wait for a pipe's writer
_CHUNK = 16 << 10  # bytes: all that most files have, in one call


class LocalFiles:
    """A local disk, in one thread: the GIL makes more threads slower.

    A link whose target lies outside the root is never followed: whoever may write to the storage
    could otherwise have any file shown that the exporter may read.
    """

    backslash_divides = False
    lists_deep = False
    at_once = 1

    def __init__(self, root: str) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)

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
        while pending:
            within = pending.pop()
            path = f"{self._root}/{folder}/{within}"
            files = found[within] = {}
            try:
                folders = self._list(path, files, names, measured)
            except OSError as error:
                if error.errno in ABSENT:
                    continue
                problem = unreadable("list", path, error)
                if not within:
                    raise problem from None
                errors[within] = problem
                continue
            if recursive:
                pending += [
                    f"{within}/{name}" if within else name for name in folders if is_text(name)
                ]
        return Tree(found, errors)

    def read(self, path: str, limit: int) -> Optional[bytes]:
        """Read at most the first `limit` bytes of a file."""
        path = f"{self._root}/{path}"
        try:
            file = os.open(path, _OPEN)
            try:
                self._check_inside(file, path)
                data = os.read(file, _CHUNK)
                if len(data) < _CHUNK:
                    return data
                with open(file, "rb", closefd=False) as rest:
                    return data + rest.read(limit - len(data))
            finally:
                os.close(file)
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise unreadable("read", path, error) from None

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
        # Opened, so that no measuring walks the path.
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._check_inside(opened, path)
            with os.scandir(opened) as items:
                for item in items:
                    name = item.name
                    if item.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif (names is not None and name not in names) or not is_text(name):
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
            os.close(opened)
        return folders

    def _stamp_of_link(self, path: str) -> Optional[Stamp]:
        """Measure the file that a link leads to, None if there is none inside the storage."""
        real = os.path.realpath(path)
        if not self._is_inside(real):
            return NOT_MEASURED  # it is said when the file is read
        try:
            info = os.lstat(real)
        except OSError:
            return None
        return (info.st_size, info.st_mtime_ns) if os.path.isfile(real) else None

    def _check_inside(self, file: int, path: str) -> None:
        """Raise OSError if what was opened lies outside of the storage."""
        try:
            real = os.readlink(f"/proc/self/fd/{file}")
        except OSError:
            real = os.path.realpath(path)  # no /proc here
        if not self._is_inside(real):
            raise OSError(errno.EPERM, "it is a link to a place outside of the storage")

    def _is_inside(self, real: str) -> bool:
        if real == self._real_root or real.startswith(self._real_root + os.sep):
            return True
        self._real_root = os.path.realpath(self._root)  # the root itself may be a link that moved
        return real == self._real_root or real.startswith(self._real_root + os.sep)
