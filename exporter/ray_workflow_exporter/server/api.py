"""`/api/v1`: runs and tasks as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Callable

from aiohttp import web

from ..jsonable import run_details, run_metadata, run_tasks
from ..model import RunStatus
from ..snapshot import RunView
from ..sources.files import StorageError
from .source import SETTINGS, SOURCE

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

# An id is one segment of the path, its own slashes written %2F. Written out, because aiohttp's
# default pattern refuses braces, and `.` in a pattern would refuse newlines.
_ID = "{id:[^/]+}"

_LIST_PARAMETERS = ("status", "class", "text", "limit", "offset")


def add_routes(router: web.UrlDispatcher) -> None:
    """Add the routes of the API."""
    router.add_get("/api/v1/workflows", workflows)
    router.add_get(f"/api/v1/workflows/{_ID}", workflow)
    router.add_get(f"/api/v1/workflows/{_ID}/tasks", tasks)


async def workflows(request: web.Request) -> web.Response:
    """List runs, live ones first, then the newest, in pages.

    Filters: `?status=` (again for another), `?class=`, `?text=`.
    """
    query = request.query
    for name in query:
        if name not in _LIST_PARAMETERS:
            raise web.HTTPBadRequest(text=f"The parameters are {', '.join(_LIST_PARAMETERS)}.")
    try:
        statuses = {RunStatus(status.upper()) for status in query.getall("status", [])}
    except ValueError:
        known = ", ".join(status.value for status in RunStatus)
        raise web.HTTPBadRequest(text=f"`status` must be one of {known}.") from None
    limit = _count(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
    offset = _count(request, "offset", 0)
    workflow, text = query.get("class"), query.get("text", "").casefold()
    messages = request.app[SETTINGS].expose_error_messages

    def wanted(view: RunView) -> bool:
        run = view.run
        return (
            (not statuses or run.status in statuses)
            and (workflow is None or run.workflow == workflow)
            and (text in run.workflow_id.casefold() or text in run.workflow.casefold())
        )

    def build() -> dict[str, Any]:
        found = [view for view in request.app[SOURCE].runs() if wanted(view)]
        page = found[offset : offset + limit]
        return {
            "total": len(found),
            "limit": limit,
            "offset": offset,
            "items": [run_metadata(view, messages=messages) for view in page],
        }

    return await _reply(build)


async def workflow(request: web.Request) -> web.Response:
    """Show one run, with its stages."""
    view, messages = await _view(request), request.app[SETTINGS].expose_error_messages
    return await _reply(lambda: run_details(view, messages=messages))


async def tasks(request: web.Request) -> web.Response:
    """Show the tasks of one run: {task_id: metadata}."""
    view, messages = await _view(request), request.app[SETTINGS].expose_error_messages
    return await _reply(lambda: run_tasks(view, messages=messages))


async def _view(request: web.Request) -> RunView:
    try:
        view = await asyncio.to_thread(request.app[SOURCE].run, request.match_info["id"])
    except (StorageError, TimeoutError) as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from None
    if view is None:
        raise web.HTTPNotFound(text="There is no workflow of this id.")
    return view


def _count(request: web.Request, name: str, default: int, most: int = 2**31) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
        raise web.HTTPBadRequest(text=f"`{name}` must be a whole number from 0 to {most}.")
    return int(text)


async def _reply(build: Callable[[], Any]) -> web.Response:
    # In a thread: a run of 100,000 tasks takes a second, and scrapes shall not wait for it.
    body = await asyncio.to_thread(lambda: json.dumps(build()).encode())
    return web.Response(body=body, content_type="application/json")
