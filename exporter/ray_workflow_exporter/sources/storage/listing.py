"""A folder of marks between two listings: what is in it, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from .filesystem import Stamp, StorageError, Tree

_SECOND = 1_000_000_000


class Folder:
    """One folder, as it was listed last.

    On a disk, `identity` is its device, inode and mtime, `since` the monotonic time at which that
    was first seen, and `settled` says that it will differ once something comes or goes. `newest`
    is the newest mtime of a file in it.
    """

    __slots__ = ("files", "identity", "inner", "newest", "settled", "since")

    def __init__(self) -> None:
        self.files: dict[str, Stamp] = {}
        self.inner: set[str] = set()  # names of the folders in it
        self.identity: Optional[tuple[int, int, int]] = None
        self.since = 0.0
        self.settled = False
        self.newest = 0


class Listing:
    """The folder of one status and all below it, for ids hold slashes; kept by `Files.update`.

    `changed` are the paths of files that came, went or were written since it was last cleared.
    `errors` holds the folders that could not be listed, which stay as they were before.
    """

    def __init__(self) -> None:
        self.folders: dict[str, Folder] = {}  # by path below it; "" is itself
        self.changed: set[str] = set()
        self.errors: Mapping[str, StorageError] = {}

    def stamp(self, path: str) -> Optional[Stamp]:
        """Return the stamp of a file, None if it is not there."""
        within, _, name = path.rpartition("/")
        folder = self.folders.get(within)
        return folder.files.get(name) if folder else None

    def put(self, within: str, name: str, stamp: Optional[Stamp]) -> None:
        """Take the stamp of a file, None if it is gone."""
        folder = self.folders.get(within)
        if folder is None:
            if stamp is None:
                return
            folder = self.folders[within] = Folder()
        if folder.files.get(name) == stamp:
            return
        self.changed.add(f"{within}/{name}" if within else name)
        if stamp is None:
            del folder.files[name]
        else:
            folder.files[name] = stamp

    def drop(self, within: str) -> None:
        """Take a folder that is gone."""
        for name in list(self.folders[within].files):
            self.put(within, name, None)
        del self.folders[within]

    def take(self, tree: Tree) -> None:
        """Take a listing of all there is."""
        for within in list(self.folders):
            if within not in tree.files:
                self.drop(within)
        for within, files in tree.files.items():
            known = self.folders.get(within)
            for name in known.files.keys() - files.keys() if known else ():
                self.put(within, name, None)
            for name, stamp in files.items():
                before = known.files.get(name) if known else None
                # Asked for alone, a file has its time in whole seconds in some stores.
                if before != (stamp[0], stamp[1] // _SECOND * _SECOND):
                    self.put(within, name, stamp)
