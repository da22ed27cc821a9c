"""A storage on any file system of pyarrow: S3, GCS, HDFS, or one of a user's own."""

from __future__ import annotations

import posixpath
import queue
import threading
from collections import Counter
from collections.abc import Container, Iterable
from typing import Any, Callable, Optional

from .filesystem import ABSENT, ADVICE, Stamp, StorageError, Tree, is_text, unreadable
from .listing import Listing

# Enough to hide the latency of an object store: with more, one core is busy at 20 ms a request.
CONNECTIONS = 64
_PAGE = 1_000  # files that one request lists


def prepare_arrow() -> None:
    """Let pyarrow use enough threads; call this before a file system is opened.

    Listings run on pyarrow's own threads, and its S3 client opens a connection for each thread
    that there is when the client is made.
    """
    from pyarrow import io_thread_count, set_io_thread_count

    set_io_thread_count(max(CONNECTIONS, io_thread_count()))


class ArrowFiles:
    """Any file system of pyarrow. Its errors are of any type: it may be somebody's Python.

    `answered` is called from time to time while answers come in; `advice` is what to check when
    a call fails.
    """

    backslash_divides = True
    lists_deep = True
    folders_have_times = False
    history_interval = 600.0
    at_once = CONNECTIONS

    def __init__(
        self, filesystem: Any, root: str, answered: Callable[[], None], advice: str = ADVICE
    ) -> None:
        self._fs = filesystem
        self.requests: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._root = root
        self._answered = answered
        self._advice = advice

    def tree(
        self,
        folder: str,
        recursive: bool = True,
        names: Optional[Container[str]] = None,
        measured: Optional[Container[str]] = None,
    ) -> Tree:
        """List the files below a folder. Folders of object stores are not real: left out."""
        from pyarrow.fs import FileSelector

        path = posixpath.join(self._root, folder)
        self._count("list")
        try:
            infos = self._fs.get_file_info(
                FileSelector(path, recursive=recursive, allow_not_found=True)
            )
        except Exception as error:
            if isinstance(error, OSError) and error.errno in ABSENT:
                return Tree({}, {})
            raise unreadable("list", path, error, self._advice) from None
        self._count("list", len(infos) // _PAGE)
        # Some file systems answer with a leading slash that was not asked for, or without one.
        skip = len(path.strip("/")) + 1
        found: dict[str, dict[str, Stamp]] = {}
        for info in infos:
            within, _, name = info.path.lstrip("/")[skip:].rpartition("/")
            if info.is_file and is_text(info.path) and (names is None or name in names):
                found.setdefault(within, {})[name] = (info.size or 0, info.mtime_ns or 0)
        return Tree(found, {})

    def update(self, folder: str, listing: Listing, whole: bool) -> None:
        """Bring the listing of a folder up to date: all of it, for folders have no times here."""
        listing.take(self.tree(folder))

    def read(self, path: str, limit: int) -> Optional[bytes]:
        """Read at most the first `limit` bytes of a file."""
        path = posixpath.join(self._root, path)
        self._count("stat")  # pyarrow asks for the size first
        try:
            with self._fs.open_input_file(path) as file:
                self._count("read")
                data: bytes = file.read(min(limit, file.size()))
                return data
        except FileNotFoundError:
            return None
        except Exception as error:
            if not self._info(path).is_file:
                return None
            raise unreadable("read", path, error, self._advice) from None

    def stamp(self, path: str) -> Optional[Stamp]:
        """Return size and mtime of a file, None if there is none."""
        info = self._info(posixpath.join(self._root, path))
        return (info.size or 0, info.mtime_ns or 0) if info.is_file else None

    def exists(self, path: str) -> bool:
        """Return whether a file or folder is there."""
        from pyarrow.fs import FileType

        path = posixpath.join(self._root, path) if path else self._root
        return bool(self._info(path).type != FileType.NotFound)

    def call_all(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Make all calls, `CONNECTIONS` at a time; keep the order."""
        results: list[Any] = list(calls)
        done: queue.SimpleQueue[tuple[int, Any, bool]] = queue.SimpleQueue()
        while len(_threads) < min(len(results), CONNECTIONS):
            _threads.append(
                threading.Thread(target=_make_calls, name="object storage", daemon=True)
            )
            _threads[-1].start()
        for number, call in enumerate(results):
            _calls.put((done, number, *call))
        for _ in range(len(results)):
            number, result, failed = done.get()
            if failed:
                raise result
            results[number] = result
            self._answered()
        return results

    def _count(self, kind: str, by: int = 1) -> None:
        with self._counting:  # the calls of many runs are made at once
            self.requests[kind] += by

    def _info(self, path: str) -> Any:
        self._count("stat")
        try:
            return self._fs.get_file_info(path)
        except Exception as error:
            raise unreadable("look at", path, error, self._advice) from None


# Daemon threads: those of a `concurrent.futures` pool are joined when Python exits, so that a
# store that hangs would keep the process alive.
_threads: list[threading.Thread] = []
_calls: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
_busy: set[int] = set()  # threads with a call under way


def calls_under_way() -> bool:
    """Return whether a store has not answered yet; pyarrow waits for it when Python exits."""
    return bool(_busy)


def _make_calls() -> None:
    me = threading.get_ident()
    while True:
        done, number, function, *arguments = _calls.get()
        _busy.add(me)
        try:
            result, failed = function(*arguments), False
        except StorageError as error:
            result, failed = error, False
        except BaseException as error:
            result, failed = error, True
        _busy.discard(me)
        done.put((number, result, failed))
        del done, function, arguments, result  # keep nothing alive while waiting
