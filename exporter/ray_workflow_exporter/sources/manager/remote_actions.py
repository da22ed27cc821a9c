"""What runs inside the WorkflowManagementActor (WMA) to cancel, resume or delete a run.

Shipped by value like the probe, so it may use the standard library and Ray alone. Each action has
a thread of its own in the WMA: it outlives the exporter that asked for it, so that no run is ever
left submitted and not executed. Ray's own functions do harm where they are not meant to be called
(2.47.1): `cancel` rewrites the status of a run that has ended, creates one that never was, and
waits for the end of one that is queued; `resume` overwrites the times of one that succeeded. So
the state is checked here, where it cannot have changed on the way.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Optional

KEPT = 64  # outcomes of actions that have ended
CANCEL_SECONDS = RESUME_SECONDS = 20.0
_POLL_SECONDS = 0.05
_DOUBT_SECONDS = 0.2  # after which what is being submitted has an executor

# Outcomes. WAITING is none yet: the cancellation of a run in Ray's queue, for when it starts.
SUCCEEDED, REFUSED, FAILED, WAITING = "SUCCEEDED", "REFUSED", "FAILED", "WAITING"


def begin(
    manager: Any, action_id: str, verb: str, workflow_id: str, when_started: bool
) -> tuple[str, ...]:
    """Begin an action, once for each `action_id`. Returns ("ok",) or ("error", type name)."""
    try:
        outcomes = manager.__dict__.setdefault("_workflow_exporter_actions", {})
        if action_id not in outcomes:
            # Only of those that have ended: the outcome of one under way is still needed.
            ended = [it for it, found in outcomes.items() if found and found[0] != WAITING]
            for it in ended[: max(0, len(outcomes) + 1 - KEPT)]:
                del outcomes[it]
            outcome: list[str] = []
            outcomes[action_id] = outcome
            threading.Thread(
                target=_act,
                args=(manager, outcome, verb, workflow_id, when_started),
                name="workflow-exporter-action",
                daemon=True,
            ).start()
        return ("ok",)
    except BaseException as error:
        return ("error", type(error).__name__)


def outcome(manager: Any, action_id: str) -> tuple[str, ...]:
    """Return ("ok", state, detail), ("ok",) while it is under way, or ("error", type name)."""
    try:
        return ("ok", *manager.__dict__["_workflow_exporter_actions"][action_id])
    except BaseException as error:
        return ("error", type(error).__name__)


def stopped(manager: Any, workflow_ids: list[str]) -> tuple[Any, ...]:
    """Return which of these runs this WMA executed and holds no more, as ("ok", ids).

    One of them that is still marked as running was left so by Ray's executor, which failed itself.
    Returns ("error", type name) on an error.
    """
    try:
        executed, held = manager._executed_workflows, manager._workflow_executors
        return ("ok", [it for it in workflow_ids if it in executed and it not in held])
    except BaseException as error:
        return ("error", type(error).__name__)


def _act(manager: Any, outcome: list[str], verb: str, workflow_id: str, when_started: bool) -> None:
    try:
        if verb == "cancel":
            found = _cancel(manager, workflow_id, outcome if when_started else None)
        else:
            found = {"resume": _resume, "delete": _delete}[verb](manager, workflow_id)
    except BaseException as error:  # whatever Ray raises, a thread of the WMA ends in silence
        found = FAILED, _text(error)
    outcome[:] = found


def _cancel(manager: Any, workflow_id: str, waiting: Optional[list[str]]) -> tuple[str, str]:
    executor, status = _settled(manager, workflow_id)
    if executor is None:
        if status not in ("RUNNING", "PENDING"):
            return REFUSED, _ended(status)
        import ray

        # Its manager died with it: only its mark is left to be changed.
        handle = _handle()
        ray.get(handle.cancel_workflow.remote(workflow_id), timeout=CANCEL_SECONDS)
        status = _status(workflow_id)
        if status != "CANCELED":
            return FAILED, f"Ray marked it as {status}, not as CANCELED."
        return SUCCEEDED, "It was not running any more, and is marked as CANCELED."
    queued = manager._queued_workflows.get(workflow_id)
    if queued is not None:
        if waiting is None:
            return REFUSED, "It waits in Ray's queue, where Ray cannot cancel it."
        waiting[:] = WAITING, "It waits in Ray's queue, and is cancelled as soon as it starts."
        started = threading.Event()
        loop = queued.get_loop()
        loop.call_soon_threadsafe(queued.add_done_callback, lambda _: started.set())
        started.wait()
    until = time.monotonic() + CANCEL_SECONDS
    while manager._workflow_executors.get(workflow_id) is executor:
        # One C call: the actor's event loop changes the dict meanwhile.
        running = list(executor._state.running_frontier)
        if running:
            # Again and again: between two tasks there is nothing that could be cancelled.
            loop = running[0].get_loop()
            loop.call_soon_threadsafe(_cancel_running_tasks, manager, workflow_id, executor)
        if time.monotonic() > until:
            return FAILED, f"Ray has not ended it within {CANCEL_SECONDS:g} s."
        time.sleep(_POLL_SECONDS)
    status = _status(workflow_id)
    if status != "CANCELED":
        return REFUSED, f"It ended as {status} before it could be cancelled."
    return SUCCEEDED, "It is cancelled."


def _cancel_running_tasks(manager: Any, workflow_id: str, executor: Any) -> None:
    """Cancel what a run has at work, on the event loop: nothing can end or begin meanwhile."""
    try:
        if manager._workflow_executors.get(workflow_id) is executor:
            executor.cancel()
    except BaseException:  # noqa: S110 - an error would end the WMA's event loop; the caller checks the outcome
        pass


def _resume(manager: Any, workflow_id: str) -> tuple[str, str]:
    executor, status = _settled(manager, workflow_id)
    if executor is not None:
        return REFUSED, "It is running or queued already."
    if status not in ("RUNNING", "PENDING", "FAILED", "CANCELED"):
        return REFUSED, _ended(status)
    import ray
    from ray.workflow.workflow_context import WorkflowTaskContext

    # As `ray.workflow.resume_async` does it.
    handle, context = _handle(), WorkflowTaskContext(workflow_id=workflow_id)
    job_id = ray.get_runtime_context().get_job_id()
    ray.get(handle.reconstruct_workflow.remote(job_id, context))
    executor = manager._workflow_executors.get(workflow_id)
    ended = handle.execute_workflow.remote(job_id, context)
    # Ray's executor can fail at once and leave the run as it was, as at a task with `max_calls`.
    until = time.monotonic() + RESUME_SECONDS
    while not ray.wait([ended], timeout=_POLL_SECONDS)[0]:
        if workflow_id in manager._queued_workflows:
            return SUCCEEDED, "It is resumed, and waits in Ray's queue."
        at_work = executor is not None and bool(executor._state.task_execution_metadata)
        if at_work and manager._workflow_executors.get(workflow_id) is executor:
            return SUCCEEDED, "It is resumed: Ray has submitted a task of it."
        if time.monotonic() > until:
            return FAILED, f"Ray has submitted no task of it within {RESUME_SECONDS:g} s."
    status = _status(workflow_id)
    if status in ("RUNNING", "PENDING"):
        ray.get(ended, timeout=_POLL_SECONDS)  # raises what Ray's executor raised
        return FAILED, f"Ray ended it at once and left it {status}."
    return SUCCEEDED, f"It is resumed, and has ended as {status}."


def _delete(manager: Any, workflow_id: str) -> tuple[str, str]:
    executor, status = _settled(manager, workflow_id)
    if executor is not None:
        return REFUSED, "It is running or queued: cancel it first."
    if status == "NONE":
        return REFUSED, _ended(status)
    inside = workflow_id + "/"
    if any(other.startswith(inside) for other in list(manager._workflow_executors)):
        return REFUSED, "A run at work lies in its folder."
    import ray

    handle = _handle()
    ray.get(handle.delete_workflow.remote(workflow_id))
    status = _status(workflow_id)
    if status != "NONE":
        return FAILED, f"Ray has deleted it, and it is {status} again or still."
    return SUCCEEDED, "It is deleted."


def _settled(manager: Any, workflow_id: str) -> tuple[Any, str]:
    """Return executor and status in storage of a run that is not just being submitted."""
    executor, status = manager._workflow_executors.get(workflow_id), _status(workflow_id)
    if executor is None and status in ("RUNNING", "PENDING"):
        # Ray writes the mark first and makes the executor then.
        time.sleep(_DOUBT_SECONDS)
        executor, status = manager._workflow_executors.get(workflow_id), _status(workflow_id)
    return executor, status


def _status(workflow_id: str) -> str:
    from ray.workflow.workflow_storage import WorkflowStorage

    for left in (2, 1, 0):
        try:
            return str(WorkflowStorage(workflow_id).load_workflow_status().value)
        except json.JSONDecodeError:
            if not left:
                raise
            time.sleep(_POLL_SECONDS)  # Ray writes in place: it is half written
    raise AssertionError


def _ended(status: str) -> str:
    return "There is no such run." if status == "NONE" else f"It is {status} already."


def _handle() -> Any:
    # To be kept in a variable: a method alone holds a weak reference to it.
    import ray

    return ray.get_actor("WorkflowManagementActor", namespace="workflow")


def _text(error: BaseException) -> str:
    # Ray wraps what was raised in a task; a name and a sentence say more than its stack.
    cause = getattr(error, "cause", None) or error
    cause = cause.__cause__ or cause
    return f"Ray said {type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
