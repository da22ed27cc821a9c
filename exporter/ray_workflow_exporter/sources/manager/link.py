"""The parent's side of the link to Ray: asks the child process, and keeps one running."""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from itertools import count
from typing import Any, Optional

from ...backoff import Backoff
from ..records import LinkCause, LinkState, ManagerView, RayTaskDetail
from . import launch
from .action_client import ACT_SECONDS
from .mirror import Mirror
from .remote_actions import FAILED

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
# Longer than a child needs to import Ray and connect on a machine that is busy with other things.
HANG_SECONDS = 60.0
GRACE_SECONDS = 1.0  # the child keeps the time-out itself, and answers a little later
LEAVE_SECONDS = 2.0
DETAILS_PER_CALL = 500

_log = logging.getLogger(__name__)


class RayLink:
    """Reads the WorkflowManagementActor of one Ray through a child process that may die.

    `address` is "auto", host:port, or "none" to stay off. `poll` and `close` may be called from
    any thread, and so may `task_details`, which never delays a poll.
    """

    def __init__(
        self, address: str = "auto", *, timeout: float = 5.0, client_id: Optional[str] = None
    ) -> None:
        self._off = address == "none"
        self._timeout = timeout
        self._command = launch.command(
            f"{__package__}.driver", address, client_id or uuid.uuid4().hex, str(timeout)
        )
        self._mirror = Mirror()
        self._polling = threading.Lock()
        self._asking_details = threading.Lock()
        self._starting = threading.Lock()
        self._closed = False
        self._child: Optional[_Child] = None
        self._asked: Optional[Future[Any]] = None  # a poll that the child still owes us
        self._last_good = 0.0
        self._starts = 0
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._next_start = 0.0
        self._cause, self._reason = LinkCause.STARTING, ""  # of a link without a child
        self._final: Optional[ManagerView] = None
        self._logged: Optional[LinkState] = None

    def poll(self) -> ManagerView:
        """Return what the WMA holds now, within about `timeout` seconds. Never raises."""
        if self._off:
            reason = "Ray is switched off by --address none: storage alone is read."
            return ManagerView(LinkState.OFF, reason, LinkCause.OFF)
        with self._polling:
            view = self._final or self._poll()
            if not self.starting and view.state is not self._logged:
                self._log_state(view)
            return replace(view, restarts=max(0, self._starts - 1))

    def _log_state(self, view: ManagerView) -> None:
        self._logged = view.state
        fine = view.state in (LinkState.UP, LinkState.ABSENT)
        _log.log(
            logging.INFO if fine else logging.WARNING,
            "%s",
            view.reason or "Connected to Ray: its management actor answers.",
        )

    @property
    def starting(self) -> bool:
        """Whether a child was started that has not answered yet."""
        child = self._child
        return child is not None and not child.answered

    def _poll(self) -> ManagerView:
        child = self._living_child()
        if child is None:
            return self._unreachable(self._cause, self._reason)
        if self._asked is None:
            self._asked = child.ask("poll", seq=self._mirror.seq)
        try:
            reply = self._asked.result(self._timeout + GRACE_SECONDS)
        except FutureTimeoutError:
            # The reply may still come, and holds what the WMA sends only once: keep waiting.
            return self._slow(child)
        except _ChildLostError as error:
            return self._lost(LinkCause.LOST, str(error))
        self._asked = None
        view = self._mirror.read(reply)
        if reply["final"]:
            self._lost(view.cause, view.reason)
            self._final = view
        elif not reply["connected"]:
            # A driver that failed is never used again; its successor connects afresh.
            self._lost(view.cause, view.reason)
        elif view.state is LinkState.UNREACHABLE:
            return self._slow(child, view)
        else:
            self._backoff.reset()
            self._last_good = time.monotonic()
        return view

    def _living_child(self) -> Optional[_Child]:
        with self._starting:
            if self._closed:
                self._reason = "The link to Ray is closed."
                return None
            if self._child is None and time.monotonic() >= self._next_start:
                try:
                    self._child = _Child(self._command)
                except OSError as error:
                    self._lost(LinkCause.LOST, f"The link to Ray could not be started: {error}.")
                    return None
                self._starts += 1
                self._last_good = time.monotonic()
            return self._child

    def _slow(self, child: _Child, view: Optional[ManagerView] = None) -> ManagerView:
        if time.monotonic() - self._last_good > HANG_SECONDS:
            reason = f"The link to Ray hung for {HANG_SECONDS:g} s and is replaced."
            return self._lost(LinkCause.LOST, reason)
        if view is not None:
            return view
        if child.answered:
            reason = f"The link to Ray did not answer within {self._timeout:g} s."
            return self._unreachable(LinkCause.LOST, reason)
        return self._unreachable(LinkCause.STARTING, "The link to Ray is starting.")

    def _unreachable(self, cause: LinkCause, reason: str) -> ManagerView:
        return self._mirror.without_runs(LinkState.UNREACHABLE, cause, reason)

    def _lost(self, cause: Optional[LinkCause], reason: str) -> ManagerView:
        child, self._child, self._asked = self._child, None, None
        if child:
            child.close(patience=0.0)
        self._next_start = time.monotonic() + self._backoff.pause()
        self._cause, self._reason = cause or LinkCause.LOST, reason
        return self._unreachable(self._cause, reason)

    def task_details(self, ray_task_ids: Collection[str]) -> Mapping[str, RayTaskDetail]:
        """Ask Ray's state API about tasks by their hex ids, at most 500 of them; best effort.

        {} when the link is not up, when the cluster has no dashboard, or while another thread
        asks already. Returns within about `timeout` seconds.
        """
        child = self._child
        wanted = list(ray_task_ids)[:DETAILS_PER_CALL]
        if child is None or not wanted or not self._asking_details.acquire(blocking=False):
            return {}
        try:
            details = child.ask("task_details", ray_task_ids=wanted).result(
                self._timeout + GRACE_SECONDS
            )
            return {task_id: RayTaskDetail(*detail) for task_id, detail in details.items()}
        except (FutureTimeoutError, _ChildLostError):
            return {}
        finally:
            self._asking_details.release()

    def executor_errors(self, starts: Mapping[str, Optional[float]]) -> Mapping[str, str]:
        """Return why Ray's executor left runs as they were, as `ManagerClient` does it.

        {} when the link is not up or does not answer in time.
        """
        child = self._child
        if child is None:
            return {}
        try:
            wanted = child.ask("executor_errors", starts=dict(starts))
            errors: Mapping[str, str] = wanted.result(self._timeout + GRACE_SECONDS)
            return errors
        except (FutureTimeoutError, _ChildLostError):
            return {}

    def act(self, action_id: str, verb: str, workflow_id: str, **options: Any) -> tuple[str, str]:
        """Do something to a run, as `ActionClient.act` does it; return its outcome.

        Returns within a minute or so. An unknown outcome counts as FAILED.
        """
        child = self._child
        if self._off or child is None:
            return FAILED, self._reason or "Ray is not connected: actions need it."
        asked = child.ask("act", action_id=action_id, verb=verb, workflow_id=workflow_id, **options)
        try:
            state, detail = asked.result(ACT_SECONDS + self._timeout + GRACE_SECONDS)
        except FutureTimeoutError:
            return FAILED, "The link to Ray did not answer in time; it may still be done."
        except _ChildLostError as error:
            return FAILED, f"{error} Whether the action was done is not known."
        return state, detail

    def close(self) -> None:
        """End the child, within 2 s, and never start another."""
        with self._starting:
            self._closed = True
            child, self._child = self._child, None
        if child:
            child.close(patience=LEAVE_SECONDS)


class _ChildLostError(Exception):
    """The child cannot answer any more; the text is a sentence."""


class _Child:
    """One child process, and a thread that reads its replies."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            # Control-C at a terminal is for the exporter: it ends the child in its own time.
            start_new_session=True,
        )
        self.answered = False
        self._ids = count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._lost: Optional[_ChildLostError] = None
        self._reader = threading.Thread(target=self._read, name="ray-link-reader", daemon=True)
        self._reader.start()

    def ask(self, operation: str, **args: Any) -> Future[Any]:
        """Send a request; the future holds its result, or _ChildLostError."""
        future: Future[Any] = Future()
        with self._lock:
            if self._lost:
                future.set_exception(self._lost)
                return future
            number = next(self._ids)
            self._waiting[number] = future
            assert self._process.stdin
            try:
                print(
                    json.dumps({"id": number, "op": operation, "args": args}),
                    file=self._process.stdin,
                    flush=True,
                )
            except (OSError, ValueError):
                # A broken pipe, or one that `close` just closed. The reader sees the end as well,
                # and fails all futures.
                pass
        return future

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break  # it died in the middle of a reply
            reply = json.loads(line)
            self.answered = True
            future = self._waiting.pop(reply["id"])
            if "error" in reply:
                future.set_exception(_ChildLostError(f"The link to Ray failed: {reply['error']}"))
            else:
                future.set_result(reply["result"])
        with self._lock:
            self._lost = _ChildLostError("The link to Ray ended: its Ray may have died.")
            for future in self._waiting.values():
                future.set_exception(self._lost)

    def close(self, *, patience: float) -> None:
        """Let the child leave by itself for `patience` seconds, then kill it; leave no zombie."""
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            try:
                self._process.stdin.close()
            except OSError:
                pass  # a broken pipe: it has left already
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
