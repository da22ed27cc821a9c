"""The table of the API's operations. To add one, add a row: route, document and docs follow."""

from __future__ import annotations

from aiohttp import web

from ..auth.tokens import Role
from ..source import API
from . import actions, events, parameters, runs, schemas
from .parameters import Operation

_ACCEPTED = {202: ("Taken; a header `Location` names the action.", schemas.Action)}
_REFUSALS = (404, 408, 409, 413, 422, 503)

OPERATIONS = (
    Operation(
        "GET",
        f"{API}/workflows",
        "listWorkflows",
        "List runs, live ones first, then the newest, in pages",
        runs.workflows,
        {200: ("Some of the runs. A header `Link` names the next page.", schemas.RunPage)},
        (*parameters.LIST, parameters.IF_NONE_MATCH),
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}",
        "getWorkflow",
        "Show one run, with its stages",
        runs.workflow,
        {200: ("The run.", schemas.Run)},
        (parameters.ID, parameters.IF_NONE_MATCH),
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}/tasks",
        "getTasks",
        "Show the tasks of one run, by their ids",
        runs.tasks,
        {200: ("The tasks, in the order in which they became known.", schemas.Tasks)},
        (parameters.ID, parameters.STATE, parameters.STAGE, parameters.IF_NONE_MATCH),
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}/graph",
        "getGraph",
        "Show the DAG of one run, by stage or by task",
        runs.graph,
        {200: ("Nodes and edges.", schemas.Graph)},
        (parameters.ID, parameters.LEVEL, parameters.IF_NONE_MATCH),
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/events",
        "followEvents",
        "Follow what changes",
        events.events,
        {200: ("Server-sent events, without an end.", {"type": "string"})},
        (parameters.OF_RUN, parameters.LAST_EVENT_ID),
        errors=(503,),
        content_type="text/event-stream",
        description=(
            "Events are `run` (`workflow_id`, `status`, `time`), `task` (`workflow_id`, "
            "`task_id`, `state`, `time`) and `gone` (`workflow_id`: the run was deleted). `ready` "
            "comes first. `reset` says that changes were missed, because the reader was too slow "
            "or the exporter began anew: read again what you show. `time` is in Unix seconds, null "
            "where nobody knows it. A comment comes after 15 s without an event."
        ),
    ),
    Operation(
        "POST",
        f"{API}/workflows/{{workflow_id}}/cancel",
        "cancelWorkflow",
        "Cancel a run",
        actions.cancel,
        _ACCEPTED,
        (parameters.ID, parameters.IDEMPOTENCY_KEY),
        body=schemas.CancelOptions,
        role=Role.ACT,
        errors=_REFUSALS,
        description=(
            "A RUNNING run is cancelled and its tasks are killed; a RESUMABLE one is marked as "
            "CANCELED. One that has ended is left as it is."
        ),
    ),
    Operation(
        "POST",
        f"{API}/workflows/{{workflow_id}}/resume",
        "resumeWorkflow",
        "Resume a run",
        actions.resume,
        _ACCEPTED,
        (parameters.ID, parameters.IDEMPOTENCY_KEY),
        body=schemas.ResumeOptions,
        role=Role.ACT,
        errors=_REFUSALS,
        description="For a run that is RESUMABLE, FAILED or CANCELED. It goes on from its "
        "checkpoints.",
    ),
    Operation(
        "DELETE",
        f"{API}/workflows/{{workflow_id}}",
        "deleteWorkflow",
        "Delete a run",
        actions.delete,
        _ACCEPTED,
        (parameters.ID, parameters.START_MANAGER, parameters.IDEMPOTENCY_KEY),
        role=Role.ACT,
        errors=(404, 409, 422, 503),
        description="Its folder in storage is removed, with all outputs. For a run that is not at "
        "work.",
    ),
    Operation(
        "POST",
        f"{API}/resume-all",
        "resumeAll",
        "Resume all runs that are RESUMABLE",
        actions.resume_all,
        _ACCEPTED,
        (parameters.IDEMPOTENCY_KEY,),
        body=schemas.ResumeOptions,
        role=Role.ACT,
        errors=(409, 413, 422, 503),
        description="One after the other, as after the loss of a cluster. A run that cannot be "
        "resumed does not keep the others.",
    ),
    Operation(
        "GET",
        f"{API}/actions",
        "listActions",
        "List actions, newest first, in pages",
        actions.actions,
        {200: ("Some of the actions.", schemas.ActionPage)},
        (parameters.LIMIT, parameters.OFFSET, parameters.IF_NONE_MATCH),
        token=True,
    ),
    Operation(
        "GET",
        f"{API}/actions/{{action_id}}",
        "getAction",
        "Show an action and what became of it",
        actions.action,
        {200: ("The action.", schemas.Action)},
        (parameters.ACTION_ID, parameters.IF_NONE_MATCH),
        token=True,
        errors=(404,),
    ),
)


def add_routes(router: web.UrlDispatcher) -> None:
    """Add a route for each operation."""
    for it in OPERATIONS:
        # Written out, because aiohttp's default pattern refuses braces, and `.` in a pattern
        # would refuse newlines.
        path = it.path.replace("_id}", "_id:[^/]+}")
        if it.method == "GET":
            router.add_get(path, it.handler)
        else:
            router.add_route(it.method, path, it.handler)
