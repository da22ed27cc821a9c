"""Runs and tasks as JSON, with filters, pages and entity tags."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, Callable, Optional

from aiohttp import hdrs, web

from ...catalog.snapshot import RunView
from ...responses import run_graph
from ...sources.storage.filesystem import StorageError
from ..source import RESPONSES, SOURCE
from . import parameters
from .parameters import query_of


async def workflows(request: web.Request) -> web.Response:
    """List runs, in pages."""
    query = query_of(request, parameters.RunList)
    by_id = query.sort == "id" or query.after is not None

    def build() -> dict[str, Any]:
        found = matching(request.app[SOURCE].runs(), query.status, query.workflow, query.text)
        if by_id:
            found.sort(key=lambda view: view.run.workflow_id)
        if query.after is not None:
            found = [view for view in found if view.run.workflow_id > query.after]
        page = found[query.offset : query.offset + query.limit]
        to = request.app[RESPONSES]
        return {
            "total": len(found),
            "limit": query.limit,
            "offset": query.offset,
            "items": [to.run_summary(view, metadata=query.metadata) for view in page],
            "warnings": [it for it in [request.app[SOURCE].status.get("storage_warning")] if it],
        }

    def follows(request: web.Request, page: Any) -> Optional[str]:
        link = next_page(request, page)
        if link is None or not by_id:
            return link
        return _link(request, after=page["items"][-1]["workflow_id"], offset=0)

    return await reply(request, build, follows)


def matching(
    runs: Sequence[RunView], statuses: Collection[str], workflow: Optional[str], text: str
) -> list[RunView]:
    """Return the runs of any of the statuses and of the workflow, with the text in id or workflow.

    No statuses, None and an empty text exclude nothing.
    """
    text = text.casefold()
    return [
        view
        for view in runs
        if (not statuses or view.run.status in statuses)
        and workflow in (None, view.run.workflow)
        and (text in view.run.workflow_id.casefold() or text in view.run.workflow.casefold())
    ]


async def workflow(request: web.Request) -> web.Response:
    """Show one run, with its stages."""
    query_of(request, parameters.Query)
    view = await view_of(request)
    return await reply(request, lambda: request.app[RESPONSES].run(view))


async def tasks(request: web.Request) -> web.Response:
    """Show the tasks of one run: {task_id: task}."""
    query = query_of(request, parameters.TaskFilter)
    view, to = await view_of(request), request.app[RESPONSES]

    def build() -> dict[str, Any]:
        return {
            task_id: to.task(task)
            for task_id, task in view.run.tasks.items()
            if (not query.state or task.state in query.state) and query.stage in (None, task.stage)
        }

    return await reply(request, build)


async def graph(request: web.Request) -> web.Response:
    """Show the DAG of one run, by stage or by task."""
    level = query_of(request, parameters.Level).level
    view = await view_of(request)
    return await reply(request, lambda: run_graph(view, level))


def by_query(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler for an address that names the run in its query, `?workflow_id=`.

    Proxies that decode `%2F` in paths, or take `..` out of them, leave a query as it is.
    """

    async def named(request: web.Request) -> web.StreamResponse:
        ids = request.query.getall("workflow_id", [])
        if len(ids) != 1 or not ids[0]:
            raise web.HTTPBadRequest(text="`workflow_id` must be given once, and not be empty.")
        request.match_info["workflow_id"] = ids[0]
        return await handler(request)

    return named


async def view_of(request: web.Request) -> RunView:
    """Return the run that a request is about. Raises HTTPException."""
    try:
        view = await asyncio.to_thread(request.app[SOURCE].run, request.match_info["workflow_id"])
    except (StorageError, TimeoutError) as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from None
    if view is None:
        raise web.HTTPNotFound(text="There is no workflow with this id.")
    return view


def next_page(request: web.Request, page: Any) -> Optional[str]:
    """Return where the next page is, relative to this one (RFC 8288); None on the last one."""
    after = page["offset"] + len(page["items"])
    if not page["items"] or after >= page["total"]:
        return None
    return _link(request, offset=after)


def _link(request: web.Request, **changes: Any) -> str:
    return f'<?{request.rel_url.update_query(changes).raw_query_string}>; rel="next"'


async def reply(
    request: web.Request,
    build: Callable[[], Any],
    link: Callable[[web.Request, Any], Optional[str]] = lambda request, content: None,
) -> web.Response:
    """Answer with what `build` returns, as JSON; 304 if the caller has it already."""

    def made() -> tuple[bytes, Optional[str]]:
        content = build()
        return json.dumps(content).encode(), link(request, content)

    # In a thread: a run of 100,000 tasks takes a second, and scrapes must not wait for it.
    body, follows = await asyncio.to_thread(made)
    etag = hashlib.blake2b(body, digest_size=16).hexdigest()
    # `no-cache`: may be kept, must be asked for again.
    headers = {hdrs.ETAG: f'"{etag}"', hdrs.CACHE_CONTROL: "no-cache, private"}
    if follows:
        headers[hdrs.LINK] = follows
    if any(it.value in ("*", etag) for it in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)
