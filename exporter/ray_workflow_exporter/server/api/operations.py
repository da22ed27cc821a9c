"""The table of the API's operations. To add one, add a row: route, document and docs follow."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from aiohttp import web
from pydantic import BaseModel

from ... import responses
from ..auth.tokens import Role
from ..source import API
from . import actions, events, parameters, runs
from .parameters import Header, Query


@dataclass(frozen=True)
class Operation:
    """One row: what the operation takes, what it answers, and who may call it."""

    method: str
    path: str  # as in the document: parameters in braces
    name: str  # the document's operationId
    summary: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    answers: Mapping[int, tuple[str, Any]]  # status: description, type or JSON Schema
    query: type[Query] = Query
    headers: tuple[Header, ...] = (parameters.IF_NONE_MATCH,)
    body: Optional[type[BaseModel]] = None
    role: Role = Role.READ
    token: bool = False  # needs one even where reading is public
    errors: tuple[int, ...] = ()  # beyond those that any operation may answer
    content_type: str = "application/json"
    description: str = ""


_ACCEPTED = {202: ("Accepted; the header `Location` names the action.", responses.Action)}
_KEY = (parameters.IDEMPOTENCY_KEY,)
_REFUSALS = (404, 408, 409, 413, 422, 503)

OPERATIONS = (
    Operation(
        "GET",
        f"{API}/workflows",
        "listWorkflows",
        "List runs in pages",
        runs.workflows,
        {200: ("A page of runs. The header `Link` names the next page.", responses.RunPage)},
        parameters.RunList,
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}",
        "getWorkflow",
        "Show one run, with its stages",
        runs.workflow,
        {200: ("The run.", responses.Run)},
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}/tasks",
        "getTasks",
        "Show the tasks of one run, by their ids",
        runs.tasks,
        {200: ("The tasks, in the order in which they became known.", responses.Tasks)},
        parameters.TaskFilter,
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}/graph",
        "getGraph",
        "Show the DAG of one run, by stage or by task",
        runs.graph,
        {200: ("Nodes and edges.", responses.Graph)},
        parameters.Level,
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/events",
        "followEvents",
        "Stream changes",
        events.events,
        {200: ("Server-sent events, without end.", {"type": "string"})},
        parameters.Events,
        (parameters.LAST_EVENT_ID,),
        errors=(503,),
        content_type="text/event-stream",
        description=(
            "Events: `run` (`workflow_id`, `status`, `time`), `task` (`workflow_id`, `task_id`, "
            "`state`, `time`), `gone` (`workflow_id`: the run was deleted). `ready` comes first. "
            "`reset` says that events were lost, because the client was too slow or the exporter "
            "restarted: read again what you show. `time` is in Unix seconds, null if not known. A "
            "comment is sent after 15 s without an event."
        ),
    ),
    Operation(
        "POST",
        f"{API}/workflows/{{workflow_id}}/cancel",
        "cancelWorkflow",
        "Cancel a run",
        actions.cancel,
        _ACCEPTED,
        headers=_KEY,
        body=parameters.CancelOptions,
        role=Role.ACT,
        errors=_REFUSALS,
        description=(
            "A RUNNING run is cancelled and its tasks are killed; a RESUMABLE one is marked as "
            "CANCELED. A finished run cannot be cancelled."
        ),
    ),
    Operation(
        "POST",
        f"{API}/workflows/{{workflow_id}}/resume",
        "resumeWorkflow",
        "Resume a run",
        actions.resume,
        _ACCEPTED,
        headers=_KEY,
        body=parameters.ResumeOptions,
        role=Role.ACT,
        errors=_REFUSALS,
        description="For a run that is RESUMABLE, FAILED or CANCELED. It continues from its "
        "checkpoints.",
    ),
    Operation(
        "DELETE",
        f"{API}/workflows/{{workflow_id}}",
        "deleteWorkflow",
        "Delete a run",
        actions.delete,
        _ACCEPTED,
        parameters.StartManager,
        _KEY,
        role=Role.ACT,
        errors=(404, 409, 422, 503),
        description="Removes its folder in storage, with all outputs. For a run that is neither "
        "RUNNING nor PENDING.",
    ),
    Operation(
        "POST",
        f"{API}/resume-all",
        "resumeAll",
        "Resume all runs that are RESUMABLE",
        actions.resume_all,
        _ACCEPTED,
        headers=_KEY,
        body=parameters.ResumeOptions,
        role=Role.ACT,
        errors=(409, 413, 422, 503),
        description="One after the other, as after the loss of a cluster. One that cannot be "
        "resumed does not stop the others.",
    ),
    Operation(
        "POST",
        f"{API}/forget",
        "forgetWorkflow",
        "Forget a workflow that no longer exists",
        actions.forget,
        {200: ("Its counters are dropped with the next poll.", responses.Forgotten)},
        headers=(),
        body=parameters.ForgetOptions,
        role=Role.ACT,
        errors=(404, 408, 409, 413),
        description="Drops its counters, and frees its place under `max_workflows`. For a workflow "
        "without runs that the settings do not name. Storage is not changed.",
    ),
    Operation(
        "GET",
        f"{API}/actions",
        "listActions",
        "List actions, newest first, in pages",
        actions.actions,
        {200: ("A page of actions. The header `Link` names the next page.", responses.ActionPage)},
        parameters.Page,
        token=True,
    ),
    Operation(
        "GET",
        f"{API}/actions/{{action_id}}",
        "getAction",
        "Show an action and its outcome",
        actions.action,
        {200: ("The action.", responses.Action)},
        token=True,
        errors=(404,),
    ),
)


_RUN = f"{API}/workflows/{{workflow_id}}"
# An id with slashes, but not one that looks like the path of another operation.
_DECODED = r"[\s\S]+(?<!/tasks)(?<!/graph)(?<!/cancel)(?<!/resume)"


def add_routes(router: web.UrlDispatcher) -> None:
    """Add the routes of each operation: those of one run at three addresses.

    `/workflows/{id}…`, `/run…?workflow_id={id}`, and the first one with the slashes of the id
    decoded, as some proxies send it.
    """
    for it in OPERATIONS:
        # aiohttp's default pattern refuses braces, and `.` would refuse newlines.
        _add(router, it.method, it.path.replace("_id}", "_id:[^/]+}"), it.handler)
        if it.path.startswith(_RUN):
            _add(router, it.method, f"{API}/run{it.path[len(_RUN) :]}", runs.by_query(it.handler))
    for it in OPERATIONS:
        if it.path.startswith(_RUN):
            _add(router, it.method, it.path.replace("_id}", f"_id:{_DECODED}}}"), it.handler)


def _add(router: web.UrlDispatcher, method: str, path: str, handler: Any) -> None:
    if method == "GET":
        router.add_get(path, handler)  # answers HEAD as well
    else:
        router.add_route(method, path, handler)
