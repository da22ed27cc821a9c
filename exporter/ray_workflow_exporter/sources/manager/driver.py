"""Talk to the WorkflowManagementActor (WMA) as a Ray driver; as a program, for `link.RayLink`.

A driver can hang, and is aborted by Ray when its cluster dies: the exporter therefore keeps it in
a child process, `python -m ray_workflow_exporter.sources.manager.driver ADDRESS CLIENT_ID TIMEOUT`.
The child reads one JSON request a line from standard input, `{"id": 1, "op": "poll", "args": {…}}`,
answers `{"id": 1, "result": …}` or `{"id": 1, "error": "…"}` on standard output in any order, and
exits when its input ends.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Optional

from ..records import LinkCause, LinkState, NoManagerError
from . import probe, remote_actions
from .action_client import ActionClient
from .connection import connect, describe, listens
from .state_api import executor_errors, task_states

# ray/workflow/common.py; importing it here would drag in all of ray.workflow.
MANAGER_NAME = "WorkflowManagementActor"
MANAGER_NAMESPACE = "workflow"
THREADS = 4
LEAVE_SECONDS = 1.0


class _Shipped:
    """A function that was pickled by value once: anew for each call it would cost 4 ms."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._pickled,)


class ManagerClient:
    """Connect to one Ray as a driver, and call functions inside its WMA.

    `address` is "auto" or host:port; a Ray is never started. `client_id` names the cursor that
    the WMA keeps for us. `timeout` bounds each wait for an answer, in seconds.
    """

    def __init__(self, address: str, *, timeout: float = 5.0, client_id: str = "") -> None:
        self._address = address
        self._timeout = timeout
        self._client_id = client_id or uuid.uuid4().hex
        self._lock = threading.Lock()
        self._ray: Any = None  # the module, once connected
        self._facts: dict[str, Optional[str]] = {}  # about Ray: fields of ManagerView
        self._raylet_socket: Optional[str] = None
        self._manager: Any = None
        self._probe: Any = None
        self._asked: Any = None  # the one call without an answer yet

    def poll(self, seq: int) -> dict[str, Any]:
        """Return what changed since answer `seq`, in plain JSON types. Never raises.

        `answers` holds those of `probe.probe` without their first word, to be applied in order
        whatever `state` says; `cause`, `connected` and `final` are those of NoManagerError.
        """
        answers: list[Any] = []
        error: Optional[NoManagerError] = None
        with self._lock:
            try:
                self._connect()
                self._fetch(seq, answers)
            except NoManagerError as no_manager:
                error = no_manager
            except Exception as other:
                reason = f"Ray at {self._address} failed with {describe(other)}"
                error = NoManagerError(LinkState.UNREACHABLE, LinkCause.LOST, reason)
        if error is None:
            return self._reply(LinkState.UP, answers)
        if answers and error.connected and error.state is LinkState.UNREACHABLE:
            # Out of time half-way: every run is named already, and the next poll goes on.
            return self._reply(LinkState.UP, answers)
        return self._reply(error.state, answers, error)

    def _reply(
        self, state: LinkState, answers: list[Any], error: Optional[NoManagerError] = None
    ) -> dict[str, Any]:
        return {
            "state": state.value,
            "reason": str(error or ""),
            "cause": error.cause.value if error else None,
            "answers": answers,
            "ray": self._facts,
            "connected": error is None or error.connected,
            "final": error is not None and error.final,
        }

    def _fetch(self, seq: int, answers: list[Any]) -> None:
        deadline = time.monotonic() + self._timeout
        more = True
        while more:
            if self._asked is None:
                self._asked = self._submit(self._probe, self._client_id, seq)
            word, *answer = self._wait(self._asked, deadline)
            self._asked = None
            if word != "ok":
                raise NoManagerError(
                    LinkState.UNREACHABLE,
                    LinkCause.MANAGER_SILENT,
                    f"The probe failed inside the management actor with {answer[0]}.",
                    connected=True,
                )
            answers.append(answer)
            _, seq, more, *_ = answer

    def send(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return `function(manager, *args)`, run inside the WMA beside its own work.

        The function is shipped by value with its module, and must catch SystemExit, which would
        end the WMA. Raises NoManagerError, and Ray's own errors.
        """
        with self._lock:
            self._connect()
            answer = self._submit(function, *args)
            return self._wait(answer, time.monotonic() + self._timeout)

    def start_manager(self, max_running_workflows: Optional[int]) -> None:
        """Start a WMA where there is none; its limits hold for all users from then on."""
        with self._lock:
            self._connect()
            from ray import workflow

            workflow.init(max_running_workflows=max_running_workflows)

    def _submit(self, function: Any, *args: Any) -> Any:
        if self._manager is None:
            self._check_raylet()
            try:
                # The handle must stay in a variable: a method only holds a weak reference to it.
                self._manager = self._ray.get_actor(MANAGER_NAME, namespace=MANAGER_NAMESPACE)
            except ValueError:
                raise self._no_manager() from None
        return self._manager.__ray_call__.options(
            # On a thread of its own: it neither blocks the users' calls nor waits behind them.
            concurrency_group="_ray_system",
            enable_task_events=False,
        ).remote(function, *args)

    def _no_manager(self) -> NoManagerError:
        if self._facts["storage_uri"] is None:
            cause = LinkCause.NO_STORAGE
            reason = "Ray was started without --storage, so that no workflow can run on it."
        else:
            cause = LinkCause.NO_MANAGER
            reason = "No workflow has run on this Ray yet: it has no management actor."
        return NoManagerError(LinkState.ABSENT, cause, reason, connected=True)

    def _wait(self, answer: Any, deadline: float) -> Any:
        errors = self._ray.exceptions
        try:
            result = self._ray.get(answer, timeout=max(0.01, deadline - time.monotonic()))
        except errors.GetTimeoutError:
            # `_asked` stays: a busy WMA must not find a queue of our calls when it comes to them.
            self._check_raylet()
            raise NoManagerError(
                LinkState.UNREACHABLE,
                LinkCause.MANAGER_SILENT,
                f"The management actor did not answer within {self._timeout:g} s.",
                connected=True,
            ) from None
        except errors.RayActorError as error:
            self._asked = self._manager = None
            # Also all that the driver of a killed cluster ever gets, a new cluster at the same
            # address notwithstanding (seen with 2.47.1). By name: not every Ray has this class.
            if type(error).__name__ == "ActorUnavailableError":
                reason = "The management actor cannot be reached by Ray."
                raise NoManagerError(LinkState.UNREACHABLE, LinkCause.LOST, reason) from None
            raise NoManagerError(
                LinkState.ABSENT,
                LinkCause.MANAGER_DIED,
                "The management actor has died; the next workflow call of a user starts it again.",
                connected=True,
            ) from None
        except BaseException:
            self._asked = None
            raise
        return result

    def _connect(self) -> None:
        if self._ray is not None:
            return
        ray = connect(self._address)
        from ray import cloudpickle
        from ray.experimental.internal_kv import _internal_kv_get

        # It takes 10 MB. Now, for memory would seem to leak when, hours later, a task first runs
        # for long enough to be asked for. A Ray without its dashboard may not have it.
        with suppress(ImportError):
            importlib.import_module("ray.util.state")
        cloudpickle.register_pickle_by_value(probe)
        cloudpickle.register_pickle_by_value(remote_actions)
        self._probe = _Shipped(cloudpickle.dumps(probe.probe))
        session = {key: _internal_kv_get(key, namespace=b"session") for key in _SESSION_KEYS}
        self._facts = {
            name: value.decode() if value else None
            for name, value in zip(("storage_uri", "session_name"), session.values())
        }
        self._facts["ray_version"] = ray.__version__
        raylet_socket = ray._private.worker.global_worker.node.raylet_socket_name
        # Not visible from another network namespace: then there is nothing to go by.
        self._raylet_socket = raylet_socket if listens(raylet_socket) else None
        self._ray = ray

    def _check_raylet(self) -> None:
        # A driver that lost its raylet is of no use ever again, but Ray lets it wait for minutes.
        if self._raylet_socket and not listens(self._raylet_socket):
            reason = "Ray has ended: its raylet is gone."
            raise NoManagerError(LinkState.UNREACHABLE, LinkCause.LOST, reason)

    def task_details(self, ray_task_ids: Collection[str]) -> dict[str, list[Optional[str]]]:
        """Return what `task_states` does. Needs a poll before."""
        return task_states(ray_task_ids, self._timeout) if self._ray and ray_task_ids else {}

    def executor_errors(self, starts: dict[str, Optional[float]]) -> dict[str, str]:
        """Return the error with which Ray's executor left runs as they were, for those it did.

        `starts` holds the start of each run (Unix seconds), by which its error is found. The error
        is "" where Ray's state API does not tell it, or not yet.
        """
        word, stopped = self.send(remote_actions.stopped, list(starts))
        if word != "ok" or not stopped:
            return {}
        known = executor_errors(self._timeout)
        errors = {}
        for workflow_id in stopped:
            start = starts[workflow_id]
            mine = {text for began, end, text in known if start and began <= start <= end + 0.001}
            errors[workflow_id] = mine.pop().rpartition("\n")[2][:300] if len(mine) == 1 else ""
        return errors

    def close(self) -> None:
        """Disconnect from Ray."""
        if self._ray is not None:
            self._ray.shutdown()


_SESSION_KEYS = ("storage", "session_name")


def main(address: str, client_id: str, timeout: str) -> None:
    """Serve requests until standard input ends, then end this process without delay."""
    # Ray and its libraries print: what they write to standard output goes to standard error.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # importing Ray sets the levels of its loggers again
    client = ManagerClient(address, timeout=float(timeout), client_id=client_id)
    operations: dict[str, Callable[..., Any]] = {
        "poll": client.poll,
        "task_details": client.task_details,
        "executor_errors": client.executor_errors,
        "act": ActionClient(client).act,
    }
    writing = threading.Lock()

    def serve(request: dict[str, Any]) -> None:
        reply = {"id": request["id"]}
        try:
            reply["result"] = operations[request["op"]](**request["args"])
        except Exception as error:
            reply["error"] = describe(error)
        with writing:
            replies.write(json.dumps(reply) + "\n")
            replies.flush()

    pool = ThreadPoolExecutor(THREADS)
    for line in sys.stdin:
        pool.submit(serve, json.loads(line))
    leaving = threading.Thread(target=client.close, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    # Ray's exit handlers wait for a cluster that may be gone.
    os._exit(0)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
