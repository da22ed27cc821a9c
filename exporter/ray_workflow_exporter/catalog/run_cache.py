"""A cache file of finished runs, so that a restart does not read a long history again.

A run is taken from the cache only if its mark in storage is the one it was cached with. Where marks
have no time, nothing is cached: the run may have been deleted and run anew since. The file may be
deleted at any time.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Container
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Optional, Union

from ..model import NO_METADATA, NO_RESOURCES, Failure, FailureKind, Run, RunStatus, Task, TaskState
from ..sources.records import Mark
from .state_files import set_aside

_MAX_BYTES = 256 << 20  # of all bodies; a run with three tasks takes about 1 kB
_RUN_FIELDS = [it.name for it in fields(Run)]
_TASK_FIELDS = [it.name for it in fields(Task)]
_STATUSES = {it.value: it for it in RunStatus}
_STATES = {it.value: it for it in TaskState}
# Another version may derive other runs from the same files.
_FORMAT = " ".join((version("ray-workflow-exporter"), *_RUN_FIELDS, *_TASK_FIELDS))

logger = logging.getLogger(__name__)


class RunCache:
    """Finished runs in a file, by id, status and time of their mark. Not thread-safe.

    If the file cannot be used, the cache is empty, and `error` and the log say why.
    """

    def __init__(self, path: Path, known: Container[str]) -> None:
        """Open the file, or make it; runs that are not `known` to storage are hidden."""
        self._path = path
        self._new: dict[str, tuple[Any, ...]] = {}
        self._gone: list[tuple[str]] = []
        self._file: Optional[sqlite3.Connection] = None
        self.error: Optional[str] = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open(known)
            except sqlite3.OperationalError:  # locked, or not writable
                raise
            except sqlite3.DatabaseError as error:
                self.close()
                logger.warning(
                    "The cache of finished runs in %s is damaged (%s) and starts again empty; %s.",
                    path, error, set_aside(path),
                )  # fmt: skip
                self._open(known)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def find(self, workflow_id: str, mark: Mark) -> Optional[Run]:
        """Return the run that had this mark, None if there is none."""
        if self._file is None or not mark.time:
            return None
        try:
            row = self._file.execute(
                "SELECT body FROM runs WHERE workflow_id = ? AND status = ? AND mark_time = ?",
                (workflow_id, mark.status.value, mark.time),
            ).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        try:
            return None if row is None else decode(row[0])
        except (LookupError, TypeError, ValueError):
            return None  # read from storage; the row will be replaced

    def add(self, run: Run, mark: Mark) -> None:
        """Cache a finished run that will not change any more, with the next `save`."""
        if self._file is not None and mark.time:
            row = (run.workflow_id, mark.status.value, mark.time, encode(run))
            self._new[run.workflow_id] = row

    def remove(self, workflow_id: str) -> None:
        """Forget a run, with the next `save`."""
        self._new.pop(workflow_id, None)
        self._gone.append((workflow_id,))

    def save(self) -> None:
        """Write what has changed.

        Call after saving the counters: a run in the cache counts as observed.
        """
        if self._file is None or not (self._new or self._gone):
            return
        try:
            with self._file:
                self._file.executemany("DELETE FROM runs WHERE workflow_id = ?", self._gone)
                self._file.executemany(
                    "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", self._new.values()
                )
        except sqlite3.Error as error:
            self._give_up(error)
        self._new, self._gone = {}, []

    def close(self) -> None:
        """Close the file; what was not saved is lost."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, known: Container[str]) -> None:
        # Closed by another thread than the poll thread, but never at the same time.
        self._file = file = sqlite3.connect(self._path, timeout=0, check_same_thread=False)
        # Exclusive: a second exporter gets an error, and file systems without shared memory work.
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        with file:
            file.execute("CREATE TABLE IF NOT EXISTS about (format TEXT)")
            file.execute(
                "CREATE TABLE IF NOT EXISTS runs"
                " (workflow_id TEXT PRIMARY KEY, status TEXT, mark_time REAL, body TEXT)"
            )
            if file.execute("SELECT format FROM about").fetchall() != [(_FORMAT,)]:
                file.execute("DELETE FROM about")
                file.execute("DELETE FROM runs")
                file.execute("INSERT INTO about VALUES (?)", (_FORMAT,))
            drop, total = [], 0
            newest_first = file.execute(
                "SELECT workflow_id, length(body) FROM runs ORDER BY mark_time DESC"
            )
            for workflow_id, size in newest_first:
                total += size
                if workflow_id not in known or total > _MAX_BYTES:
                    drop.append((workflow_id,))
            file.executemany("DELETE FROM runs WHERE workflow_id = ?", drop)

    def _give_up(self, error: Exception) -> None:
        logger.warning(
            "Cannot use the cache of finished runs in %s (%s). After a restart they are read from "
            "storage again. Delete the file, make its folder writable, or set --state-dir.",
            self._path, error,
        )  # fmt: skip
        self.error = str(error)
        self.close()


def encode(run: Run) -> str:
    """Return the run as JSON text that `decode` understands: values without names, in order."""
    values = {name: getattr(run, name) for name in _RUN_FIELDS}
    values["tasks"] = list(run.tasks.values())
    return json.dumps(list(values.values()), separators=(",", ":"), default=_values)


def _values(it: Union[Task, Failure]) -> list[Any]:
    return [getattr(it, field.name) for field in fields(it)]


def decode(body: str) -> Run:
    """Rebuild what `encode` wrote; anything else raises a LookupError, TypeError or ValueError."""
    values = dict(zip(_RUN_FIELDS, json.loads(body)))
    values["status"] = _STATUSES[values["status"]]
    tasks = [_task(it) for it in values["tasks"]]
    values["tasks"] = {task.task_id: task for task in tasks}
    values["user_metadata"] = values["user_metadata"] or NO_METADATA
    return Run(**values)


def _task(values: list[Any]) -> Task:
    named = dict(zip(_TASK_FIELDS, values))
    named["state"] = _STATES[named["state"]]
    named["upstream"] = tuple(named["upstream"])
    named["resources"] = named["resources"] or NO_RESOURCES
    named["user_metadata"] = named["user_metadata"] or NO_METADATA
    if named["failure"] is not None:
        kind, exception, message = named["failure"]
        named["failure"] = Failure(FailureKind(kind), exception, message)
    return Task(**named)
