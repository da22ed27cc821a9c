"""Workflow storage as the poller asks it: in a time box, with the last failure at hand."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Callable, Optional, TypeVar

from ..records import Mark, StoredRun
from .storage import StorageError, WorkflowStorage

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


class TimeBox:
    """Runs one call at a time on a daemon thread and gives up after `seconds` without a sign.

    A sign is the end of the call, or a `beat` while it is under way: what is long but goes on
    does not hang. While a call hangs, further ones are refused at once: a storage that does not
    answer is not asked ever more. The thread is a daemon, so that a hanging call cannot keep the
    process.
    """

    def __init__(self, seconds: float, name: str) -> None:
        self._seconds = seconds
        self._name = name
        self._queue: queue.SimpleQueue[Optional[tuple[Future[Any], Callable[..., Any], Any]]]
        self._queue = queue.SimpleQueue()
        self._hanging: Optional[Future[Any]] = None
        self._sign = 0.0  # when the last one was given
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def beat(self) -> None:
        """Say that the call under way goes on; for any thread."""
        self._sign = time.monotonic()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return function(*args); raise TimeoutError when it takes, or still takes, too long."""
        if self._hanging is not None and not self._hanging.done():
            raise TimeoutError(f"{self._name} still has not answered an earlier call.")
        future: Future[T] = Future()
        asked = time.monotonic()
        self._queue.put((future, function, args))
        while True:
            left = max(asked, self._sign) + self._seconds - time.monotonic()
            if left <= 0:
                break
            try:
                return future.result(left)
            except FutureTimeoutError:
                if future.done():  # the call itself raised a TimeoutError
                    raise
        self._hanging = future
        raise TimeoutError(f"{self._name} did not answer within {self._seconds:g} s.")

    def close(self) -> None:
        """Let the thread end after the call it is at."""
        self._queue.put(None)

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            future, function, args = item
            try:
                future.set_result(function(*args))
            except BaseException as error:
                future.set_exception(error)
