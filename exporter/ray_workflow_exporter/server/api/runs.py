"""Runs and tasks as JSON, with filters, pages and entity tags."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any, Callable, Optional

from aiohttp import hdrs, web

from ...catalog.snapshot import RunView
from ...responses import run_details, run_graph, run_metadata, task_metadata
from ...sources.storage.filesystem import StorageError
from ..source import SETTINGS, SOURCE
from . import parameters
from .parameters import query_of


async def workflows(request: web.Request) -> web.Response:
    """List runs, live ones first, then the newest, in pages."""
    query = query_of(request, *parameters.LIST)
    limit, offset = query["limit"], query["offset"]
    messages = request.app[SETTINGS].expose_error_messages

    def build() -> dict[str, Any]:
        runs = request.app[SOURCE].runs()
        found = matching(runs, query["status"], query["workflow"], query["text"])
        page = found[offset : offset + limit]
        return {
            "total": len(found),
            "limit": limit,
            "offset": offset,
            "items": [run_metadata(view, messages=messages) for view in page],
        }

    return await reply(request, build, next_page)


def matching(
    runs: Sequence[RunView],
    statuses: Collection[str],
    workflow: Optional[str],
    text: Optional[str],
) -> list[RunView]:
    """Return the runs of any of the statuses and of the workflow, with the text in id or workflow.

    What is empty or None excludes nothing, but for an empty workflow.
    """
    text = (text or "").casefold()
    return [
        view
        for view in runs
        if (not statuses or view.run.status.value in statuses)
        and workflow in (None, view.run.workflow)
        and (text in view.run.workflow_id.casefold() or text in view.run.workflow.casefold())
    ]


async def workflow(request: web.Request) -> web.Response:
    """Show one run, with its stages."""
    query_of(request)
    view, messages = await view_of(request), request.app[SETTINGS].expose_error_messages
    return await reply(request, lambda: run_details(view, messages=messages))


async def tasks(request: web.Request) -> web.Response:
    """Show the tasks of one run: {task_id: metadata}."""
    query = query_of(request, parameters.STATE, parameters.STAGE)
    states, stage = set(query["state"]), query["stage"]
    view, messages = await view_of(request), request.app[SETTINGS].expose_error_messages

    def build() -> dict[str, Any]:
        return {
            task_id: task_metadata(task, messages=messages)
            for task_id, task in view.run.tasks.items()
            if (not states or task.state.value in states) and stage in (None, task.stage)
        }

    return await reply(request, build)


async def graph(request: web.Request) -> web.Response:
    """Show the DAG of one run, by stage or by task."""
    level = query_of(request, parameters.LEVEL)["level"]
    view = await view_of(request)
    return await reply(request, lambda: run_graph(view, level))


async def view_of(request: web.Request) -> RunView:
    """Return the run that a request is about. Raises HTTPException."""
    try:
        view = await asyncio.to_thread(request.app[SOURCE].run, request.match_info["workflow_id"])
    except (StorageError, TimeoutError) as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from None
    if view is None:
        raise web.HTTPNotFound(text="There is no workflow of this id.")
    return view


def next_page(request: web.Request, page: Any) -> Optional[str]:
    """Return where the next page is, relative to this one (RFC 8288); None on the last one."""
    after = page["offset"] + len(page["items"])
    if not page["items"] or after >= page["total"]:
        return None
    return f'<?{request.rel_url.update_query(offset=after).raw_query_string}>; rel="next"'


async def reply(
    request: web.Request,
    build: Callable[[], Any],
    link: Callable[[web.Request, Any], Optional[str]] = lambda request, content: None,
) -> web.Response:
    """Answer with what `build` returns, as JSON; 304 where the caller has it already."""

    def made() -> tuple[bytes, Optional[str]]:
        content = build()
        return json.dumps(content).encode(), link(request, content)

    # In a thread: a run of 100,000 tasks takes a second, and scrapes shall not wait for it.
    body, follows = await asyncio.to_thread(made)
    etag = hashlib.blake2b(body, digest_size=16).hexdigest()
    # `no-cache`: may be kept, must be asked for again.
    headers = {hdrs.ETAG: f'"{etag}"', hdrs.CACHE_CONTROL: "no-cache, private"}
    if follows:
        headers[hdrs.LINK] = follows
    if any(it.value in ("*", etag) for it in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)
