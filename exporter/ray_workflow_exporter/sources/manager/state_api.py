"""Ask Ray's state API about tasks; for a process that is connected to Ray."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Optional

WORKFLOW_TASK = "_workflow_task_executor_remote"  # ray/workflow/task_executor.py
EXECUTE = "WorkflowManagementActor.execute_workflow"  # ray/workflow/workflow_access.py
_EXPECTED = ("WorkflowExecutionError", "WorkflowCancellationError")
ONE_BY_ONE = 16
LISTED = 10_000  # what Ray's state API returns at most


def task_states(ray_task_ids: Collection[str], timeout: float) -> dict[str, list[Optional[str]]]:
    """Return (node id, error type, error message) by Ray task id, as far as Ray's API knows.

    Empty without a dashboard, or when it does not answer within `timeout` seconds.
    """
    try:
        states = _ask(ray_task_ids, timeout)
    except Exception:
        return {}
    # One entry an attempt; the last one is what counts.
    states.sort(key=lambda state: state.attempt_number)
    return {
        state.task_id: [state.node_id, state.error_type, state.error_message]
        for state in states
        if state.task_id in ray_task_ids
    }


def executor_errors(timeout: float) -> list[tuple[float, float, str]]:
    """Return start and end (Unix seconds) and message of each failure of Ray's own executor.

    Those of a task's failure or a cancellation are left out. Empty when the state API is silent.
    """
    try:
        states = _list([("func_or_class_name", "=", EXECUTE), ("state", "=", "FAILED")], timeout)
    except Exception:
        return []
    return [
        (state.start_time_ms / 1000, state.end_time_ms / 1000, state.error_message.strip())
        for state in states
        if state.start_time_ms and state.end_time_ms and state.error_message
        if not any(name in state.error_message for name in _EXPECTED)
    ]


def _ask(ray_task_ids: Collection[str], timeout: float) -> list[Any]:
    filters = (
        [("task_id", "=", task_id) for task_id in ray_task_ids]
        if len(ray_task_ids) <= ONE_BY_ONE
        else [("func_or_class_name", "=", WORKFLOW_TASK)]
    )
    deadline = time.monotonic() + timeout
    states: list[Any] = []
    for wanted in filters:
        left = deadline - time.monotonic()
        if left < 1:
            break
        states += _list([wanted], left)
    return states


def _list(filters: list[tuple[str, str, str]], timeout: float) -> list[Any]:
    from ray.experimental.internal_kv import _internal_kv_get
    from ray.util.state import StateApiClient
    from ray.util.state.common import ListApiOptions, StateResource

    # Ray's own search for this address waits for 20 s when there is no dashboard.
    url = _internal_kv_get("webui:url", namespace=b"dashboard")
    if not url:
        return []
    # RAY_ADDRESS would win over an address without a scheme.
    client = StateApiClient(address=f"http://{url.decode()}")
    options = ListApiOptions(
        limit=LISTED, timeout=max(1, int(timeout)), filters=filters, detail=True
    )
    found: list[Any] = client.list(StateResource.TASKS, options, raise_on_missing_output=False)
    return found
