"""Workflow storage as the poller asks it: in a time box, with the last failure at hand."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Optional, TypeVar

from .sources.records import Mark, StoredRun
from .sources.storage import StorageError, WorkflowStorage
from .timebox import TimeBox

T = TypeVar("T")

logger = logging.getLogger(__name__)


class StorageReader:
    """Asks storage on a thread of its own and gives up after `timeout` seconds of silence.

    `error` says why the last question had no answer; after a failed one, nothing more is read
    until a listing succeeds. Runs that are not `ours` are neither listed nor read.
    """

    def __init__(self, uri: Optional[str], timeout: float, ours: Callable[[str], bool]) -> None:
        self.uri = uri
        self.error: Optional[str] = "The workflow storage has not been read yet."
        self._ours = ours
        self._box = TimeBox(timeout, "The workflow storage")
        self._storage: Optional[WorkflowStorage] = None
        self._ahead: dict[str, Optional[StoredRun]] = {}
        self.unreadable = 0  # how often a single run could not be read
        self._told: set[str] = set()  # runs whose failure is in the log

    def ask(self, question: Callable[[WorkflowStorage], T]) -> T:
        """Ask what you like, from any thread; raise StorageError or TimeoutError."""
        if self.uri is None:
            raise StorageError(
                "No workflow storage is known yet: Ray has not told its storage. Name it with "
                "--storage if this cluster cannot be reached."
            )
        if self._storage is None:
            self._storage = WorkflowStorage(self.uri, self._box.beat, self._ours)
        return self._box.call(question, self._storage)

    def list(self) -> Optional[Mapping[str, Mark]]:
        """Return the marks of all runs, None on a failure. Unchanged, it is the same object."""
        try:
            marks = self.ask(lambda it: it.list_marks())
        except (StorageError, TimeoutError) as error:
            self._fail(error)
            return None
        if self.error is not None:
            logger.info("Reading workflow storage: %d runs.", len(marks))
        self.error = None
        return marks

    def read(
        self,
        workflow_id: str,
        previous: Optional[StoredRun],
        only: Optional[Collection[str]] = None,
    ) -> Optional[StoredRun]:
        """Read a run's folder; on a failure return what was read before."""
        if only is None and workflow_id in self._ahead:
            return self._ahead.pop(workflow_id)
        if self.error is not None:
            return previous
        try:
            return self.ask(lambda it: it.read_run(workflow_id, previous, only))
        except ValueError:
            return None  # Ray runs what is called "." or "", and nothing of it can be stored
        except StorageError as error:
            self._fail_for(workflow_id, error)
            return previous
        except TimeoutError as error:
            self._fail(error)
            return previous

    def read_many(
        self,
        wanted: Mapping[str, Optional[StoredRun]],
        until: float = float("inf"),
        enough: Optional[Callable[[StoredRun], bool]] = None,
    ) -> Mapping[str, Optional[StoredRun]]:
        """Read many runs with what was read of them before; those not reached are left out.

        `enough` tells whether the outline of a run will do.
        """
        if self.error is not None or not wanted:
            return {}
        try:
            return self.ask(lambda it: it.read_runs(wanted, until, enough))
        except StorageError:
            # One of them may be the only one that cannot be read: it must not hide the others.
            return self._read_each(wanted, until)
        except TimeoutError as error:
            self._fail(error)
            return {}

    def _read_each(
        self, wanted: Mapping[str, Optional[StoredRun]], until: float
    ) -> Mapping[str, Optional[StoredRun]]:
        found: dict[str, Optional[StoredRun]] = {}
        for workflow_id, previous in wanted.items():
            run = self.read(workflow_id, previous)
            if self.error is not None or (found and time.monotonic() > until):
                break
            found[workflow_id] = run
        return found

    def read_ahead(self, wanted: Mapping[str, Optional[StoredRun]]) -> None:
        """Read at once what will be read one by one."""
        self._ahead = dict(self.read_many(wanted))

    def forget(self, workflow_id: str) -> None:
        """Drop what is remembered of a run that is not expected to change."""
        self._told.discard(workflow_id)
        if self._storage is not None:
            self._storage.forget(workflow_id)

    def close(self) -> None:
        """Let the thread end."""
        self._box.close()

    def _fail_for(self, workflow_id: str, error: StorageError) -> None:
        """Find out whether storage as a whole has failed, or a single run cannot be read."""
        try:
            self.ask(lambda it: it.list_marks())
        except (StorageError, TimeoutError) as failure:
            self._fail(failure)
            return
        self.unreadable += 1
        if workflow_id not in self._told:
            self._told.add(workflow_id)
            logger.warning("The run %r cannot be read: %s", workflow_id, error)

    def _fail(self, error: Exception) -> None:
        if str(error) != self.error:
            logger.warning("%s", error)
        self.error = str(error)
