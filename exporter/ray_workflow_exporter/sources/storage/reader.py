"""Workflow storage as the poller reads it: with a time-out, and with the last failure at hand."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Callable, Optional, TypeVar

from ..records import Mark, StoredRun
from .storage import StorageError, WorkflowStorage

T = TypeVar("T")

logger = logging.getLogger(__name__)


class StorageReader:
    """Reads storage on a thread of its own and gives up after `timeout` seconds of silence.

    `error` says why storage could not be read the last time; after a failure, nothing more is
    read until a listing succeeds. Runs that are not `ours` are neither listed nor read.
    """

    def __init__(self, uri: Optional[str], timeout: float, ours: Callable[[str], bool]) -> None:
        self.uri = uri
        self.error: Optional[str] = "The workflow storage has not been read yet."
        self._ours = ours
        self._box = TimeBox(timeout, "The workflow storage")
        self._storage: Optional[WorkflowStorage] = None
        self._ahead: dict[str, Optional[StoredRun]] = {}
        self.unreadable = 0  # how often a single file or folder could not be read
        self._reported: dict[str, object] = {}  # what the log says of a run, or of a mark

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return `function(storage, *args)`, for any thread; raise StorageError or TimeoutError."""
        if self.uri is None:
            raise StorageError(
                "No workflow storage is known yet: Ray has not told its storage. Name it with "
                "--storage if this cluster cannot be reached."
            )
        if self._storage is None:
            self._storage = WorkflowStorage(self.uri, self._box.beat, self._ours)
        return self._box.call(function, self._storage, *args)

    def list(self) -> Optional[Mapping[str, Mark]]:
        """Return the marks of all runs, None on a failure. Unchanged, it is the same object."""
        try:
            marks = self.call(WorkflowStorage.list_marks)
        except (StorageError, TimeoutError) as error:
            self._fail(error)
            return None
        if self.error is not None:
            logger.info("Reading workflow storage: %d runs.", len(marks))
        self.error = None
        for path, problem in self._storage.errors.items() if self._storage else ():
            self.unreadable += 1
            if self._reported.get(path) != problem.cause:
                self._reported[path] = problem.cause
                logger.warning("%s", problem)
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
            run = self.call(WorkflowStorage.read_run, workflow_id, previous, only)
        except ValueError:
            return None  # Ray runs what is called "." or "", and nothing of it can be stored
        except (StorageError, TimeoutError) as error:
            self._fail(error)
            return previous
        self._report([run])
        return run

    def read_many(
        self,
        wanted: Mapping[str, Optional[StoredRun]],
        until: float = float("inf"),
        enough: Optional[Callable[[StoredRun], bool]] = None,
    ) -> Mapping[str, Optional[StoredRun]]:
        """Read many runs with what was read of them before; those not reached are left out.

        `enough` returns whether the outline of a run suffices.
        """
        if self.error is not None or not wanted:
            return {}
        try:
            found = self.call(WorkflowStorage.read_runs, wanted, until, enough)
        except (StorageError, TimeoutError) as error:
            self._fail(error)
            return {}
        self._report(found.values())
        return found

    def read_ahead(self, wanted: Mapping[str, Optional[StoredRun]]) -> None:
        """Read at once what will be read one by one."""
        self._ahead = dict(self.read_many(wanted))

    def forget(self, workflow_id: str) -> None:
        """Forget what was logged of a run that is not expected to be read again."""
        self._reported.pop(workflow_id, None)

    def close(self) -> None:
        """End the thread after the call that it makes."""
        self._box.close()

    def _report(self, runs: Iterable[Optional[StoredRun]]) -> None:
        """Count what cannot be read of runs, and log it once."""
        for run in runs:
            if run is None or not run.unreadable:
                continue
            self.unreadable += 1
            if self._reported.get(run.workflow_id) != run.unreadable:
                self._reported[run.workflow_id] = run.unreadable
                logger.warning(
                    "The run %r is shown without what cannot be read: %s. Check that the "
                    "exporter may read it.",
                    run.workflow_id,
                    "; ".join(run.unreadable),
                )

    def _fail(self, error: Exception) -> None:
        if str(error) != self.error:
            logger.warning("%s", error)
        self.error = str(error)


def leave_if_storage_hangs() -> None:
    """End the process at once if a store has not answered yet; call this last.

    pyarrow waits for the requests under way when Python exits, and S3 retries for minutes.
    """
    arrow_files = sys.modules.get(f"{__package__}.arrow_files")
    if arrow_files is not None and arrow_files.calls_under_way():
        logging.shutdown()
        os._exit(0)


class TimeBox:
    """Makes one call at a time on a daemon thread and gives up after `seconds` without a beat.

    A beat is the end of the call, or `beat` while it goes on: a long call that goes on does not
    hang. While a call hangs, further ones are refused at once, so that calls do not pile up. The
    thread is a daemon, so that a hanging call cannot keep the process alive.
    """

    def __init__(self, seconds: float, name: str) -> None:
        self._seconds = seconds
        self._name = name
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._hanging: Optional[Future[Any]] = None
        self._last_beat = 0.0
        threading.Thread(target=_make_calls, args=(self._queue,), name=name, daemon=True).start()

    def beat(self) -> None:
        """Note that the call goes on; for any thread."""
        self._last_beat = time.monotonic()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return function(*args); raise TimeoutError when it takes, or still takes, too long."""
        if self._hanging is not None and not self._hanging.done():
            raise TimeoutError(f"{self._name} still has not answered an earlier call.")
        future: Future[T] = Future()
        called = time.monotonic()
        self._queue.put((future, function, args))
        while True:
            left = max(called, self._last_beat) + self._seconds - time.monotonic()
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
        """End the thread after the call that it makes."""
        self._queue.put(None)


def _make_calls(calls: queue.SimpleQueue[Any]) -> None:
    while (item := calls.get()) is not None:
        future, function, args = item
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)
        del item, future, function, args  # keep nothing alive while waiting
