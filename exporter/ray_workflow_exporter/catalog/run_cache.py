"""Finished runs remembered across restarts, so that a long history is not read again.

Storage is the truth: a run is taken from here only while its mark is the one under which it was
remembered. The file may be deleted at any time.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Container
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Optional

from ..model import NO_METADATA, Failure, FailureKind, Run, RunStatus, Task, TaskState
from ..sources.records import Mark

_MAX_BYTES = 256 << 20  # of all bodies; a run with three tasks takes about 1 kB
_RUN_FIELDS = [it.name for it in fields(Run)]
_TASK_FIELDS = [it.name for it in fields(Task)]
_STATUSES = {it.value: it for it in RunStatus}
_STATES = {it.value: it for it in TaskState}
# Another version may make other runs of the same files.
_FORMAT = " ".join((version("ray-workflow-exporter"), *_RUN_FIELDS, *_TASK_FIELDS))

logger = logging.getLogger(__name__)


class RunCache:
    """Finished runs in a file, by id, status and time of their mark. For one thread at a time.

    A file that cannot be used is told in the log; the cache is empty then.
    """

    def __init__(self, path: Path, known: Container[str]) -> None:
        """Open the file, or make it; runs that are not `known` to storage are hidden."""
        self._path = path
        self._new: dict[str, tuple[Any, ...]] = {}
        self._gone: list[tuple[str]] = []
        self._file: Optional[sqlite3.Connection] = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open(known)
            except sqlite3.OperationalError:  # locked, or nowhere to be written
                raise
            except sqlite3.DatabaseError as error:
                aside = path.with_suffix(".broken")
                logger.warning(
                    "The cache of finished runs in %s is damaged (%s): it was moved to %s, and a "
                    "new one begins.", path, error, aside,
                )  # fmt: skip
                self.close()
                os.replace(path, aside)
                self._open(known)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def find(self, workflow_id: str, mark: Mark) -> Optional[Run]:
        """Return the run that had this mark, None if there is none."""
        if self._file is None:
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
            return None  # read anew from storage, the row will be replaced

    def add(self, run: Run, mark: Mark) -> None:
        """Remember a finished run that nothing more is expected of, with the next `save`."""
        if self._file is not None:
            row = (run.workflow_id, mark.status.value, mark.time, encode(run))
            self._new[run.workflow_id] = row

    def remove(self, workflow_id: str) -> None:
        """Forget a run, with the next `save`."""
        self._new.pop(workflow_id, None)
        self._gone.append((workflow_id,))

    def save(self) -> None:
        """Write what has changed.

        Not before the counters are kept: a run that is in the cache counts as seen.
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
        # Closed by another thread than the polls', but never at the same time.
        self._file = file = sqlite3.connect(self._path, timeout=0, check_same_thread=False)
        # Exclusive, so that a second exporter by mistake is told, and any file system will do.
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
            "The cache of finished runs in %s cannot be used (%s): they will be read from storage "
            "after each restart. Delete the file, make its folder writable, or name another with "
            "--state-dir.",
            self._path, error,
        )  # fmt: skip
        self.close()


def encode(run: Run) -> str:
    """Return the run as JSON text that `decode` understands: values without names, in order."""
    values = {name: getattr(run, name) for name in _RUN_FIELDS}
    values["tasks"] = [_task_values(task) for task in run.tasks.values()]
    return json.dumps(list(values.values()), separators=(",", ":"))


def decode(body: str) -> Run:
    """Rebuild what `encode` wrote; anything else raises a LookupError, TypeError or ValueError."""
    values = dict(zip(_RUN_FIELDS, json.loads(body)))
    values["status"] = _STATUSES[values["status"]]
    tasks = [_task(it) for it in values["tasks"]]
    values["tasks"] = {task.task_id: task for task in tasks}
    values["user_metadata"] = values["user_metadata"] or NO_METADATA
    return Run(**values)


def _task_values(task: Task) -> list[Any]:
    values = {name: getattr(task, name) for name in _TASK_FIELDS}
    failure = task.failure
    if failure is not None:
        values["failure"] = (failure.kind, failure.exception, failure.message)
    return list(values.values())


def _task(values: list[Any]) -> Task:
    named = dict(zip(_TASK_FIELDS, values))
    named["state"] = _STATES[named["state"]]
    named["upstream"] = tuple(named["upstream"])
    named["user_metadata"] = named["user_metadata"] or NO_METADATA
    if named["failure"] is not None:
        kind, exception, message = named["failure"]
        named["failure"] = Failure(FailureKind(kind), exception, message)
    return Task(**named)
