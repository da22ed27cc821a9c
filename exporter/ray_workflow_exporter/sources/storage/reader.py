"""Workflow storage as the poller reads it: with a time-out, and with the last failure at hand."""

from __future__ import annotations

import logging
import os
import queue
import sys
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
    """Reads storage on a thread of its own and gives up after `timeout` seconds of silence.

    A call that goes on does not hang: answers that come in count as signs of life. While a call
    hangs, further ones are refused at once, so that they do not pile up. The thread is a daemon,
    so that a hanging call cannot keep the process alive.

    `error` says why storage could not be read the last time; after a failure, nothing more is
    read until a listing succeeds. Runs that are not `ours` are neither listed nor read.
    """

    def __init__(
        self,
        uri: Optional[str],
        timeout: float,
        ours: Callable[[str], bool],
        history_interval: Optional[float] = None,
    ) -> None:
        self.uri = uri
        self.error: Optional[str] = "The workflow storage has not been read yet."
        self.warning: Optional[str] = None  # why it may not be the storage of the cluster
        self.unreadable = 0  # how often a single file or folder could not be read
        self._timeout = timeout
        self._ours = ours
        self._interval = history_interval
        self._storage: Optional[WorkflowStorage] = None
        self._reported: dict[str, object] = {}  # what the log says of a run, or of a mark
        self._last_sign = 0.0
        self._hanging: Optional[Future[Any]] = None
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(
            target=_make_calls, args=(self._calls,), name="The workflow storage", daemon=True
        ).start()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return `function(storage, *args)`, for any thread; raise StorageError or TimeoutError."""
        if self.uri is None:
            raise StorageError(
                "No workflow storage is known yet: Ray has not told its storage. Name it with "
                "--storage if this cluster cannot be reached."
            )
        if self._hanging is not None and not self._hanging.done():
            raise TimeoutError("The workflow storage still has not answered an earlier call.")
        if self._storage is None:
            self._storage = WorkflowStorage(self.uri, self._note_sign, self._ours, self._interval)
        future: Future[T] = Future()
        called = time.monotonic()
        self._calls.put((future, function, self._storage, *args))
        while True:
            left = max(called, self._last_sign) + self._timeout - time.monotonic()
            if left <= 0:
                break
            try:
                return future.result(left)
            except FutureTimeoutError:
                if future.done():  # the call itself raised a TimeoutError
                    raise
        self._hanging = future
        raise TimeoutError(f"The workflow storage did not answer within {self._timeout:g} s.")

    def requests(self, kind: str) -> int:
        """Return how many requests of a kind (list, read, stat) were made so far."""
        return 0 if self._storage is None else self._storage.requests.get(kind, 0)

    def list(self) -> Optional[tuple[Mapping[str, Mark], Collection[str]]]:
        """Return the marks of all runs, and the runs whose mark changed; None on a failure.

        The marks are always the same object, which only another listing changes. After a failure,
        a listing is `whole`.
        """
        return self._list(WorkflowStorage.list_marks, self.error is not None)

    def list_unseen(self) -> Optional[tuple[Mapping[str, Mark], Collection[str]]]:
        """List also the marks of runs that began and ended since the last listing, as `list`."""
        return self._list(WorkflowStorage.list_unseen)

    def _list(
        self, function: Callable[..., Mapping[str, Mark]], *args: bool
    ) -> Optional[tuple[Mapping[str, Mark], Collection[str]]]:
        try:
            marks = self.call(function, *args)
        except (StorageError, TimeoutError) as error:
            self._fail(error)
            return None
        if self.error is not None:
            logger.info("Reading workflow storage: %d runs.", len(marks))
        self.error = None
        assert self._storage is not None
        self.warning = self._storage.warning
        for path, problem in self._storage.errors.items():
            self._report(path, problem.cause, str(problem))
        changed, self._storage.changed = self._storage.changed, set()
        return marks, changed

    def read(
        self,
        workflow_id: str,
        previous: Optional[StoredRun],
        only: Optional[Collection[str]] = None,
    ) -> Optional[StoredRun]:
        """Read a run's folder; on a failure return what was read before."""
        found = self.read_runs({workflow_id: previous}, only=only, measure=True)
        return found.get(workflow_id, previous)

    def read_runs(
        self,
        wanted: Mapping[str, Optional[StoredRun]],
        until: float = float("inf"),
        enough: Optional[Callable[[StoredRun], bool]] = None,
        only: Optional[Collection[str]] = None,
        measure: bool = False,
    ) -> dict[str, Optional[StoredRun]]:
        """Read runs as `WorkflowStorage.read_runs` does; those not reached are left out."""
        if self.error is not None or not wanted:
            return {}
        try:
            found = self.call(WorkflowStorage.read_runs, wanted, until, enough, only, measure)
        except (StorageError, TimeoutError) as error:
            self._fail(error)
            return {}
        for workflow_id, run in found.items():
            if run is not None and run.unreadable:
                message = (
                    f"The run {workflow_id!r} is shown without what cannot be read: "
                    f"{'; '.join(run.unreadable)}. Check that the exporter may read it."
                )
                self._report(workflow_id, run.unreadable, message)
        return found

    def forget(self, workflow_id: str) -> None:
        """Forget what was logged of a run that is not expected to be read again."""
        self._reported.pop(workflow_id, None)

    def close(self) -> None:
        """End the thread after the call that it makes."""
        self._calls.put(None)

    def _report(self, name: str, causes: object, message: str) -> None:
        """Count what cannot be read, and log it once."""
        self.unreadable += 1
        if self._reported.get(name) != causes:
            self._reported[name] = causes
            logger.warning("%s", message)

    def _fail(self, error: Exception) -> None:
        if str(error) != self.error:
            logger.warning("%s", error)
        self.error = str(error)

    def _note_sign(self) -> None:
        self._last_sign = time.monotonic()


def leave_if_storage_hangs() -> None:
    """End the process at once if a store has not answered yet; call this last.

    pyarrow waits for the requests under way when Python exits, and S3 retries for minutes.
    """
    arrow_files = sys.modules.get(f"{__package__}.arrow_files")
    if arrow_files is not None and arrow_files.calls_under_way():
        logging.shutdown()
        os._exit(0)


def _make_calls(calls: queue.SimpleQueue[Any]) -> None:
    while (item := calls.get()) is not None:
        future, function, *args = item
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)
        del item, future, function, args  # keep nothing alive while waiting
