"""A storage on a local disk or a mounted file system, by plain system calls."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Container, Iterable
from typing import Any, Optional, Union

from .filesystem import ABSENT, NOT_MEASURED, Stamp, StorageError, Tree, is_text, unreadable
from .listing import Folder, Listing

# Never wait for a pipe's writer; a link is looked at before it is followed.
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 16 << 10  # bytes: all that most files have, in one call
_CHECKED_SECONDS = 1.0  # that a folder counts as no link
# Within the grain of a file system's clock, which no file system has coarser than two seconds, a
# folder may change and keep its mtime.
_GRAIN_SECONDS = 2.0
_FEW = 1_000  # files that are all measured when one of them changed: it takes 2 ms


class LocalFiles:
    """A local disk, in one thread: the GIL makes more threads slower.

    A link whose target lies outside the root is never followed: whoever may write to the storage
    could otherwise have any file shown that the exporter may read.
    """

    lists_deep = False
    folders_have_times = True
    history_interval = 60.0
    at_once = 1

    def __init__(self, root: str, backslash_divides: bool = False) -> None:
        self._root = root
        self.backslash_divides = backslash_divides
        self.requests: Counter[str] = Counter()
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
        self._forget_plain()
        while pending:
            within = pending.pop()
            files = found.setdefault(within, {})
            path = f"{self._root}/{folder}/{within}"
            self.requests["list"] += 1
            try:
                if not within and folder not in self._plain:
                    self._check_folder(folder)
                # Opened, so that no measuring walks the path; for few files, it does not pay.
                opened = os.open(path, _OPEN_FOLDER) if measured is None else -1
                try:
                    place = path if opened < 0 else opened
                    inner = self._list(place, path, files, names, measured)
                finally:
                    if opened >= 0:
                        os.close(opened)
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

    def update(self, folder: str, listing: Listing, whole: bool) -> None:
        """Bring the listing of a folder up to date; links to folders are not followed."""
        self._forget_plain()
        errors: dict[str, StorageError] = {}
        gone = set(listing.folders)
        pending = [""]
        while pending:
            within = pending.pop()
            path = f"{self._root}/{folder}/{within}"
            try:
                if not within and folder not in self._plain:
                    self._check_folder(folder)
                opened = os.open(path, _OPEN_FOLDER)
                try:
                    inner = self._update_folder(opened, path, within, listing, whole)
                finally:
                    os.close(opened)
            except OSError as error:
                if error.errno in ABSENT:
                    continue
                errors[within] = unreadable("list", path, error)
                if not within:
                    raise errors[within] from None
                gone = {it for it in gone if not f"{it}/".startswith(f"{within}/")}
                continue
            gone.discard(within)
            pending += [f"{within}/{name}" if within else name for name in inner]
        for within in gone:
            listing.drop(within)
        listing.errors = errors

    def read(self, path: str, limit: int) -> Optional[bytes]:
        """Read at most the first `limit` bytes of a file."""
        self.requests["read"] += 1
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

    def stamp(self, path: str) -> Optional[Stamp]:
        """Return size and mtime of a file, None if there is none, or only a link."""
        self.requests["stat"] += 1
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
        return (info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else None

    def exists(self, path: str) -> bool:
        """Return whether a file or folder is there."""
        self.requests["stat"] += 1
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
        place: Union[str, int],
        path: str,
        files: dict[str, Stamp],
        names: Optional[Container[str]],
        measured: Optional[Container[str]],
    ) -> list[str]:
        """Put the files of one folder among `files`; return the names of the folders in it.

        `place` is its path, or the folder opened.
        """
        folders = []
        with os.scandir(place) as items:
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
        return folders

    def _update_folder(
        self, opened: int, path: str, within: str, listing: Listing, whole: bool
    ) -> set[str]:
        """Update one folder, opened as `opened`; return the names of the folders in it."""
        known = listing.folders.setdefault(within, Folder())
        # Looked at before the names are read: what comes in between is seen by the next listing.
        info, now = os.fstat(opened), time.monotonic()
        identity = info.st_dev, info.st_ino, info.st_mtime_ns
        if identity != known.identity:
            known.identity, known.since, known.settled = identity, now, False
        if known.settled and not whole:
            self.requests["stat"] += 1
            return known.inner
        self.requests["list"] += 1
        if whole or len(known.files) <= _FEW:
            files: dict[str, Stamp] = {}
            known.inner = set(self._list(opened, path, files, None, None))
            names = set(files)
            known.newest = max([mtime for _, mtime in files.values()], default=0)
        else:
            names = set(os.listdir(opened))
            files = self._new_files(opened, path, known, names)
            known.newest = max([known.newest, *[mtime for _, mtime in files.values()]])
        for name in known.files.keys() - names:
            listing.put(within, name, None)
        for name, stamp in files.items():
            if known.files.get(name) != stamp:
                listing.put(within, name, stamp)
        # By our own steady clock, for that of a file server may be anything. Where a file is newer
        # than its folder, as on some mounted object stores, the mtimes of folders say nothing.
        grain = int(_GRAIN_SECONDS * 1e9)
        known.settled = (
            now - known.since > _GRAIN_SECONDS and known.newest <= info.st_mtime_ns + grain
        )
        return known.inner

    def _new_files(
        self, opened: int, path: str, known: Folder, names: set[str]
    ) -> dict[str, Stamp]:
        """Measure the files of a folder that are not known; note the folders that came and went."""
        known.inner &= names
        files: dict[str, Stamp] = {}
        for name in names - known.files.keys() - known.inner:
            if not is_text(name):
                continue
            try:
                info = os.stat(name, dir_fd=opened, follow_symlinks=False)
            except OSError:
                continue  # deleted since, or it waits for a whole listing
            if stat.S_ISDIR(info.st_mode):
                known.inner.add(name)
            elif stat.S_ISREG(info.st_mode):
                files[name] = info.st_size, info.st_mtime_ns
            elif stat.S_ISLNK(info.st_mode):
                stamp = self._stamp_of_link(f"{path}/{name}")
                if stamp is not None:
                    files[name] = stamp
        return files

    def _forget_plain(self) -> None:
        """Look anew for links, once in a while."""
        now = time.monotonic()
        if now > self._plain_until:
            self._plain.clear()
            self._plain_until = now + _CHECKED_SECONDS

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
