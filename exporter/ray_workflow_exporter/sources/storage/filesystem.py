"""What a storage needs of a file system, and how one is opened. Everything only reads."""

from __future__ import annotations

import errno
import importlib
import os
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ...redact import masked_uri

if TYPE_CHECKING:
    from .listing import Listing

# A path is gone, was a file where a folder is expected or the reverse, or cannot exist at all;
# or it is a pipe, which some process just writes to.
ABSENT = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EAGAIN,
)  # fmt: skip


class StorageError(Exception):
    """Say in one sentence which storage cannot be read, what failed and what to do.

    `cause` is the reason alone.
    """

    def __init__(self, sentence: str, cause: str = "") -> None:
        super().__init__(sentence)
        self.cause = cause or sentence


Stamp = tuple[int, int]  # of a file: size in bytes, mtime in Unix ns (0: not known)
NOT_MEASURED: Stamp = (0, 0)


class Tree(NamedTuple):
    """What is below a folder: by path relative to it ("" is itself), the files there by name.

    `errors` holds the folders below it that cannot be listed.
    """

    files: Mapping[str, Mapping[str, Stamp]]
    errors: Mapping[str, StorageError]


class Files(Protocol):
    """A file system. Paths are relative to the storage's root.

    What is not there is an empty listing or None; any other failure is a StorageError.
    """

    backslash_divides: bool  # Ray takes `\\` for `/` everywhere but on a local disk
    lists_deep: bool  # to list all below a folder takes no more requests than to list a part of it
    folders_have_times: bool  # so that `update` sees all that changed, `whole` or not
    history_interval: float  # seconds between two listings of all marks, unless the user says
    requests: Counter[str]  # so far, by kind: list, read, stat
    at_once: int  # calls that `call_all` makes at the same time

    def tree(
        self,
        folder: str,
        recursive: bool = True,
        names: Optional[Container[str]] = None,
        measured: Optional[Container[str]] = None,
    ) -> Tree:
        """List the files below a folder, in no order.

        Only files of these `names` are of interest, and size and mtime only of those that are
        `measured` (None: of all). On a disk, the folders in it are there too.
        """

    def update(self, folder: str, listing: Listing, whole: bool) -> None:
        """Bring the listing of a folder up to date.

        Only a `whole` one measures all files again; else a disk lists the folders whose mtime
        moved, and measures the files that are new there.
        """

    def stamp(self, path: str) -> Optional[Stamp]:
        """Return size and mtime of a file, None if there is none."""

    def read(self, path: str, limit: int) -> Optional[bytes]:
        """Read at most the first `limit` bytes of a file."""

    def exists(self, path: str) -> bool:
        """Return whether a file or folder is there."""

    def call_all(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Make all calls (function, *arguments), and return what each returned.

        For a call that raised a StorageError, that error is returned.
        """


def open_files(uri: str, answered: Callable[[], None]) -> Files:
    """Open the value of Ray's `--storage` as Ray does, but never create anything.

    A path, a URI that pyarrow knows, or `custom://module.function/path`, where
    `module.function(path)` returns (file system, path) (ray/_private/storage.py). Raises
    StorageError for what cannot be opened now; nothing says that the storage is there.
    `answered` is called while answers come in.
    """
    from . import s3
    from .local_files import LocalFiles

    advice, hint = ADVICE, "Give the same value as Ray's --storage."
    try:
        parts = urlsplit(uri)
        if not parts.scheme:
            return LocalFiles(os.path.abspath(uri))
        from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem

        from .arrow_files import ArrowFiles, prepare_arrow

        prepare_arrow()
        if parts.scheme == "custom":
            module, _, function = parts.netloc.rpartition(".")
            filesystem, path = getattr(importlib.import_module(module), function)(parts.path)
        else:
            if parts.scheme == "s3":
                advice = hint = s3.advice(uri)
                s3.check_credentials(uri)
            filesystem, path = FileSystem.from_uri(_as_ray_reads(uri))
    except StorageError:
        raise
    except Exception as error:
        # No cause is chained: a traceback in a log would show what is masked here.
        cause = masked_uri(str(error)).rstrip(".")
        raise StorageError(f"Cannot open the storage {masked_uri(uri)}: {cause}. {hint}") from None
    backslash_divides = not isinstance(filesystem, LocalFileSystem)
    while isinstance(filesystem, SubTreeFileSystem):
        path, filesystem = filesystem.base_path + path.lstrip("/"), filesystem.base_fs
    if isinstance(filesystem, LocalFileSystem):
        return LocalFiles(path, backslash_divides)
    return ArrowFiles(filesystem, path, answered, advice)


def same_storage(uri: Optional[str], other: Optional[str]) -> bool:
    """Return whether two values of `--storage` may be the same place; yes if one is not known."""
    if uri is None or other is None:
        return True
    one, two = (urlsplit(it) for it in (uri, other))
    if {one.scheme, two.scheme} <= {"", "file"}:
        return os.path.realpath(unquote(one.path)) == os.path.realpath(unquote(two.path))
    # Credentials and query may differ.
    places = [(it.scheme, it.netloc.rpartition("@")[2], it.path.rstrip("/")) for it in (one, two)]
    return places[0] == places[1]


def _as_ray_reads(uri: str) -> str:
    # Ray percent-decodes an S3 URI once before pyarrow does so again, in order to add
    # allow_bucket_creation (ray/_private/arrow_utils.py, 2.47.1). A secret or a prefix that was
    # encoded to survive this must mean the same here.
    if urlsplit(uri).scheme != "s3":
        return uri
    parts = urlsplit(unquote(uri))
    return urlunsplit(parts._replace(query=urlencode(parse_qsl(parts.query))))


def is_text(name: str) -> bool:
    """Return whether a name is text: undecodable bytes of a disk become lone surrogates."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True  # a name that is no text is not Ray's, and no label could hold it


ADVICE = "Check that the storage is mounted or reachable and that the exporter may read it."


def unreadable(verb: str, path: str, error: Exception, advice: str = ADVICE) -> StorageError:
    """Make the error for a path that is there and cannot be read."""
    cause = masked_uri(getattr(error, "strerror", None) or str(error))
    sentence = f"Cannot {verb} {path} in the workflow storage: {cause.rstrip('.')}. {advice}"
    return StorageError(sentence, cause)
