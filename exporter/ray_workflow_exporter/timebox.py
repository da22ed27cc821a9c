"""Calls that may hang, made so that only a thread of their own hangs with them."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Callable, Optional, TypeVar

T = TypeVar("T")


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
