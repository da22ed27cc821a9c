"""Folders and files of a storage, read-only: on a local disk, or on anything pyarrow opens."""

from __future__ import annotations

import errno
import importlib
import os
import posixpath
import stat
from collections.abc import Collection, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap
from typing import Any, Callable, Optional, Protocol, TypeVar, Union
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ...redact import masked_uri

Result = TypeVar("Result")

# Enough to hide the latency of an object store: with more, one core is busy at 20 ms a request.
CONNECTIONS = 64

# A path is gone, was a file where a folder is asked for or the reverse, or cannot exist at all;
# or it is a pipe, which some process just writes to.
_ABSENT = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EAGAIN,
)  # fmt: skip

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # never wait for a pipe's writer
_CHUNK = 16 << 10  # bytes: all that most files have, in one call


class StorageError(Exception):
    """Say in one sentence which storage cannot be read, what failed and what to do."""


Stamp = tuple[int, int]  # of a file: size in bytes, mtime in Unix ns (0: not known)
NOT_MEASURED: Stamp = (0, 0)

# What is below a folder: by path relative to it ("" is itself), the files there by name.
Tree = Mapping[str, Mapping[str, Stamp]]


class Files(Protocol):
    """What a storage needs of a file system. Paths are relative to the storage's root.

    What is not there is an empty listing or None; any other failure is a StorageError.
    """

    backslash_divides: bool  # Ray takes `\\` for `/` everywhere but on a local disk
    lists_deep: bool  # to list all below a folder takes no more requests than to list a part of it
    at_once: int  # calls that `map` makes at the same time

    def tree(
        self,
        folder: str,
        recursive: bool = True,
        names: Optional[Container[str]] = None,
        measured: Optional[Container[str]] = None,
    ) -> Tree:
        """List the files below a folder, in no order.

        Only files of these `names` are of interest, and size and mtime only of those that are
        `measured` (None: of all).
        """

    def read(self, path: str, limit: int) -> Optional[bytes]:
        """Read at most the first `limit` bytes of a file."""

    def is_folder(self, path: str) -> bool:
        """Tell whether a folder is there."""

    def map(
        self, function: Callable[..., Result], items: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Call the function with each of the arguments, at once where waiting takes the time."""

    def close(self) -> None:
        """Let go of threads."""


class LocalFiles:
    """A local disk, by plain system calls in one thread: the GIL makes more threads slower."""

    backslash_divides = False
    lists_deep = False
    at_once = 1

    def __init__(self, root: str) -> None:
        self._root = root

    def tree(
        self,
        folder: str,
        recursive: bool = True,
        names: Optional[Container[str]] = None,
        measured: Optional[Container[str]] = None,
    ) -> Tree:
        """List the files below a folder; links to folders are not followed, so none loops."""
        found: dict[str, dict[str, Stamp]] = {}
        pending = [""]
        while pending:
            within = pending.pop()
            files = found[within] = {}
            path = f"{self._root}/{folder}/{within}"
            try:
                if measured is None:
                    # Opened, so that no measuring walks the path; for few files, it does not pay.
                    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        folders = _list(opened, files, names, measured)
                    finally:
                        os.close(opened)
                else:
                    folders = _list(path, files, names, measured)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise _unreadable("list", path, error) from None
                continue
            if recursive:
                pending += [
                    f"{within}/{name}" if within else name for name in folders if is_text(name)
                ]
        return found

    def names(self, folder: str) -> tuple[Collection[str], Collection[str]]:
        """List the names in a folder: of the files, and of the folders."""
        path = f"{self._root}/{folder}"
        files: dict[str, Stamp] = {}
        try:
            return files, [name for name in _list(path, files, None, ()) if is_text(name)]
        except OSError as error:
            if error.errno not in _ABSENT:
                raise _unreadable("list", path, error) from None
            return (), ()

    def size(self, path: str) -> Optional[int]:
        """Return the size of a file in bytes, None if there is none."""
        path = f"{self._root}/{path}"
        try:
            info = os.stat(path)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise _unreadable("look at", path, error) from None
            return None
        return info.st_size if stat.S_ISREG(info.st_mode) else None

    def read(self, path: str, limit: int) -> Optional[bytes]:
        """Read at most the first `limit` bytes of a file."""
        path = f"{self._root}/{path}"
        try:
            file = os.open(path, _OPEN)
            try:
                data = os.read(file, _CHUNK)
                if len(data) < _CHUNK:
                    return data
                with open(file, "rb", closefd=False) as rest:
                    return data + rest.read(limit - len(data))
            finally:
                os.close(file)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise _unreadable("read", path, error) from None

    def is_folder(self, path: str) -> bool:
        """Tell whether a folder is there."""
        return os.path.isdir(os.path.join(self._root, path))

    def map(
        self, function: Callable[..., Result], items: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Call the function with each of the arguments, one after the other."""
        return list(starmap(function, items))

    def close(self) -> None:
        """Do nothing: no thread, no file is held."""


class ArrowFiles:
    """Any file system of pyarrow. Its errors are of any type: it may be somebody's Python.

    `answered` is called from time to time while answers come in.
    """

    backslash_divides = True
    lists_deep = True
    at_once = CONNECTIONS

    def __init__(self, filesystem: Any, root: str, answered: Callable[[], None]) -> None:
        self._fs = filesystem
        self._root = root
        self._answered = answered
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="storage")

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
        try:
            infos = self._fs.get_file_info(
                FileSelector(path, recursive=recursive, allow_not_found=True)
            )
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _ABSENT:
                return {}
            raise _unreadable("list", path, error) from None
        # Some file systems answer with a leading slash that was not asked for, or without one.
        skip = len(path.strip("/")) + 1
        found: dict[str, dict[str, Stamp]] = {}
        for info in infos:
            within, _, name = info.path.lstrip("/")[skip:].rpartition("/")
            if info.is_file and is_text(info.path) and (names is None or name in names):
                found.setdefault(within, {})[name] = (info.size or 0, info.mtime_ns or 0)
        return found

    def read(self, path: str, limit: int) -> Optional[bytes]:
        """Read at most the first `limit` bytes of a file."""
        path = posixpath.join(self._root, path)
        try:
            with self._fs.open_input_file(path) as file:
                data: bytes = file.read(min(limit, file.size()))
                return data
        except FileNotFoundError:
            return None
        except Exception as error:
            if not self._info(path).is_file:
                return None
            raise _unreadable("read", path, error) from None

    def is_folder(self, path: str) -> bool:
        """Tell whether a folder is there."""
        from pyarrow.fs import FileType

        path = posixpath.join(self._root, path) if path else self._root
        return bool(self._info(path).type == FileType.Directory)

    def map(
        self, function: Callable[..., Result], items: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Call the function with each of the arguments, `CONNECTIONS` at a time; keep the order."""
        results = []
        for result in self._pool.map(lambda item: function(*item), items):
            results.append(result)
            self._answered()
        return results

    def close(self) -> None:
        """Wait for the requests under way and end the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _info(self, path: str) -> Any:
        try:
            return self._fs.get_file_info(path)
        except Exception as error:
            raise _unreadable("look at", path, error) from None


def open_files(uri: str, answered: Callable[[], None]) -> Files:
    """Open the value of Ray's `--storage` as Ray does, but never create anything.

    A path, a URI that pyarrow knows, or `custom://module.function/path`, where
    `module.function(path)` returns (file system, path) (ray/_private/storage.py). Raises
    StorageError for what cannot be opened now; nothing says that the storage is there.
    `answered` is called while answers come in.
    """
    try:
        parts = urlsplit(uri)
        if not parts.scheme:
            return LocalFiles(os.path.abspath(uri))
        from pyarrow import io_thread_count, set_io_thread_count
        from pyarrow.fs import FileSystem, LocalFileSystem

        # Listings run on pyarrow's own threads, and its S3 client opens a connection for each
        # thread that there is when the client is made.
        set_io_thread_count(max(CONNECTIONS, io_thread_count()))
        if parts.scheme == "custom":
            module, _, function = parts.netloc.rpartition(".")
            filesystem, path = getattr(importlib.import_module(module), function)(parts.path)
        else:
            filesystem, path = FileSystem.from_uri(_as_ray_reads(uri))
    except Exception as error:
        # No cause is chained: a traceback in a log would show what is masked here.
        raise StorageError(
            f"Cannot open the storage {masked_uri(uri)}: {masked_uri(str(error))}. Give the same "
            "value as Ray's --storage."
        ) from None
    local = isinstance(filesystem, LocalFileSystem)
    return LocalFiles(path) if local else ArrowFiles(filesystem, path, answered)


def _as_ray_reads(uri: str) -> str:
    # Ray percent-decodes an S3 URI once before pyarrow does so again, in order to add
    # allow_bucket_creation (ray/_private/arrow_utils.py, 2.47.1). A secret or a prefix that was
    # encoded to survive this must mean the same here.
    if urlsplit(uri).scheme != "s3":
        return uri
    parts = urlsplit(unquote(uri))
    return urlunsplit(parts._replace(query=urlencode(parse_qsl(parts.query))))


def _list(
    folder: Union[str, int],
    files: dict[str, Stamp],
    names: Optional[Container[str]],
    measured: Optional[Container[str]],
) -> list[str]:
    """Put the files of one folder among `files`; return the names of the folders in it."""
    folders = []
    with os.scandir(folder) as items:
        for item in items:
            name = item.name
            if item.is_dir(follow_symlinks=False):
                folders.append(name)
            elif names is not None and name not in names:
                continue
            elif measured is None or name in measured or item.is_symlink():
                try:
                    if item.is_file() and is_text(name):
                        info = item.stat()
                        files[name] = info.st_size, info.st_mtime_ns
                except OSError as error:
                    if error.errno not in _ABSENT:
                        raise
                    # Deleted since it was listed, or a link to itself.
            elif item.is_file(follow_symlinks=False) and is_text(name):
                files[name] = NOT_MEASURED
    return folders


def is_text(name: str) -> bool:
    """Tell whether a name is text: undecodable bytes of a disk become lone surrogates."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True  # what is not is nothing of Ray's, and no label could hold it


def _unreadable(verb: str, path: str, error: Exception) -> StorageError:
    cause = getattr(error, "strerror", None) or str(error)
    return StorageError(
        f"Cannot {verb} {path} in the workflow storage: {masked_uri(cause)}. Check that the "
        "storage is mounted or reachable and that the exporter may read it."
    )
