"""The table of the API's operations. To add one, add a row: route, document and docs follow."""

from __future__ import annotations

from aiohttp import web

from . import api, contract, events, schemas
from .contract import API, Operation

OPERATIONS = (
    Operation(
        "GET",
        f"{API}/workflows",
        "listWorkflows",
        "List runs, live ones first, then the newest, in pages",
        api.workflows,
        {200: ("Some of the runs. A header `Link` names the next page.", schemas.RunPage)},
        (*contract.LIST, contract.IF_NONE_MATCH),
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}",
        "getWorkflow",
        "Show one run, with its stages",
        api.workflow,
        {200: ("The run.", schemas.Run)},
        (contract.ID, contract.IF_NONE_MATCH),
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}/tasks",
        "getTasks",
        "Show the tasks of one run, by their ids",
        api.tasks,
        {200: ("The tasks, in the order in which they became known.", schemas.Tasks)},
        (contract.ID, contract.STATE, contract.STAGE, contract.IF_NONE_MATCH),
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/workflows/{{workflow_id}}/graph",
        "getGraph",
        "Show the DAG of one run, by stage or by task",
        api.graph,
        {200: ("Nodes and edges.", schemas.Graph)},
        (contract.ID, contract.LEVEL, contract.IF_NONE_MATCH),
        errors=(404, 503),
    ),
    Operation(
        "GET",
        f"{API}/events",
        "followEvents",
        "Follow what changes",
        events.events,
        {200: ("Server-sent events, without an end.", {"type": "string"})},
        (contract.OF_RUN, contract.LAST_EVENT_ID),
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
