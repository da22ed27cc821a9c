"""The state files of an exporter: counters and finished runs. Used by one exporter at a time."""

from __future__ import annotations

import fcntl
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Optional

from ..settings.settings import Settings

_MAX_KEPT = 9  # damaged files of one name


def set_aside(path: Path) -> str:
    """Move a damaged file out of the way under its own name; return a clause that says where."""
    for number in range(1, _MAX_KEPT + 1):
        aside = path.with_name(f"{path.name}.broken" + (f"-{number}" if number > 1 else ""))
        if number < _MAX_KEPT and aside.exists():
            continue
        try:
            path.replace(aside)
        except OSError as error:
            return f"the file could not be kept ({error})"
        return f"the file was kept as {aside}"
    raise AssertionError("the last name is always taken")


class StateInUseError(Exception):
    """Another exporter uses the same files; the text is a sentence."""


class StateFiles:
    """The state files of one storage, locked until `close`."""

    def __init__(self, settings: Settings, storage_uri: Optional[str]) -> None:
        """Lock them without reading or writing. Raises StateInUseError."""
        # Two exporters of one storage on one machine have different ports and counters.
        identity = f"{storage_uri}\n{settings.listen}"
        if settings.shards > 1:
            identity += f"\n{settings.shard}"
        name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.counters = settings.state_path / f"{name}.json"
        self.runs = settings.state_path / f"{name}.runs"
        self._lock: Optional[IO[bytes]] = None
        # Without a writable folder or file locks, the code that writes the files logs why.
        with suppress(OSError):
            self._take(settings.state_path / f"{name}.lock")

    def _take(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Never removed: another exporter may already have opened it to wait.
        lock = file.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StateInUseError(
                f"Another exporter uses the counters in {self.counters}. This one waits until the "
                "other one has ended. Set a different --state-dir for each."
            ) from None
        except OSError:
            lock.close()
            raise
        self._lock = lock

    def close(self) -> None:
        """Unlock them."""
        if self._lock is not None:
            self._lock.close()
