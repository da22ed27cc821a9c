"""The files in which an exporter keeps what must outlive it, for one exporter at a time."""

from __future__ import annotations

import fcntl
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Optional

from ..settings.settings import Settings


class StateInUseError(Exception):
    """Another exporter keeps the same files; the text is a sentence."""


class StateFiles:
    """The files of the exporter of one storage; nobody else may use them until `close`."""

    def __init__(self, settings: Settings, storage_uri: Optional[str]) -> None:
        """Lock them, and read or write none. Raises StateInUseError."""
        # Two exporters of one storage on one machine differ in their port: each counts for itself.
        identity = f"{storage_uri}\n{settings.listen}"
        if settings.shards > 1:
            identity += f"\n{settings.shard}"
        name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.counters = settings.state_path / f"{name}.json"
        self.runs = settings.state_path / f"{name}.runs"
        self._lock: Optional[IO[bytes]] = None
        # A folder that cannot be written, or that knows no locks: who writes the files says so.
        with suppress(OSError):
            self._take(settings.state_path / f"{name}.lock")

    def _take(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Never removed: another exporter may have opened it already, to wait for us.
        lock = file.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StateInUseError(
                f"Another exporter keeps its counters in {self.counters}: this one waits until "
                "that one has ended. Give each a --state-dir of its own."
            ) from None
        except OSError:
            lock.close()
            raise
        self._lock = lock

    def close(self) -> None:
        """Let others use them."""
        if self._lock is not None:
            self._lock.close()
