"""`/api/v1/events`: changes of runs and tasks as server-sent events.

The catalog keeps the changes. Here each client has its place among them, and all clients at the
same place share one encoded text.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from functools import lru_cache
from typing import Any, Optional

from aiohttp import hdrs, web

from ...catalog.catalog import Change
from ..source import Source
from .parameters import LAST_EVENT_ID, Events, query_of

MAX_CLIENTS = 1000
KEEP_ALIVE_SECONDS = 15.0
STUCK_SECONDS = 30.0  # until a client that reads nothing is disconnected
_PAUSE = 0.2
_CHUNK = 500  # events written at once
_PLACES = 20  # kept encoded: clients that keep up are all at the same one


class Feed:
    """Turns the catalog's changes into events.

    An event's id is `<feed>-<number>`: the first part differs after each start of the exporter,
    so that a number from before a restart is not taken for one of now.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.after = lru_cache(_PLACES)(self._after)
        self.clients = 0
        self.closed = False
        self._name = secrets.token_hex(4)

    async def close(self, app: web.Application) -> None:
        """End all streams: the server would wait for them."""
        self.closed = True

    def place(self, event_id: str) -> Optional[int]:
        """Return the number in an event's id, None for an id of another feed."""
        match = re.fullmatch(rf"{self._name}-([0-9]{{1,18}})", event_id)
        return int(match[1]) if match and int(match[1]) <= self.source.last_change else None

    def _after(self, place: Optional[int], last: int) -> list[tuple[int, Optional[str], bytes]]:
        """Return the next events from `place` to `last`: for each its number, run and text.

        If some of them are no longer known, it is one event that says so.
        """
        changes = self.source.changes(place)[:_CHUNK] if place is not None else []
        if place is None or (changes and changes[0].seq > place + 1):
            return [(last, None, self.event("reset", last, {}))]
        return [(it.seq, it.workflow_id, self._encode(it)) for it in changes]

    def _encode(self, change: Change) -> bytes:
        run = {"workflow_id": change.workflow_id}
        if change.state is None:
            return self.event("gone", change.seq, run)
        if change.task_id is None:
            data = {**run, "status": change.state, "time": change.moment}
            return self.event("run", change.seq, data)
        task = {"task_id": change.task_id, "state": change.state, "time": change.moment}
        return self.event("task", change.seq, {**run, **task})

    def event(self, kind: str, number: int, data: dict[str, Any]) -> bytes:
        """Return the text of an event."""
        # JSON escapes newlines: no id can begin a line of the stream.
        return f"id: {self._name}-{number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


FEED: web.AppKey[Feed] = web.AppKey("feed")


async def events(request: web.Request) -> web.StreamResponse:
    """Stream changes until the client disconnects."""
    only = query_of(request, Events).workflow_id
    feed = request.app[FEED]
    if feed.clients >= MAX_CLIENTS:
        raise web.HTTPServiceUnavailable(
            text=f"{MAX_CLIENTS} clients read the events already; try again later.",
            headers={hdrs.RETRY_AFTER: "10"},
        )
    # nginx would hold events back.
    response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    if request.method == hdrs.METH_HEAD:
        return response
    feed.clients += 1
    try:
        await response.prepare(request)
        await _stream(request, response, feed, only)
    except (ConnectionError, asyncio.TimeoutError):
        if request.transport is not None:
            request.transport.abort()
    finally:
        feed.clients -= 1
    return response


async def _stream(
    request: web.Request, response: web.StreamResponse, feed: Feed, only: Optional[str]
) -> None:
    """Send the events of one run, or of all, after the last one that the client has received."""
    now = asyncio.get_running_loop().time
    event_id, last = request.headers.get(LAST_EVENT_ID.name), feed.source.last_change
    place = last if event_id is None else feed.place(event_id)
    # The client gets its place at once: it may be cut off before the first event.
    text = b"retry: 2000\n\n" + (feed.event("ready", last, {}) if event_id is None else b"")
    while not feed.closed and request.transport is not None and not request.transport.is_closing():
        if text:
            # Waits only if the client has not read what was sent before.
            await asyncio.wait_for(response.write(text), STUCK_SECONDS)
            sent = now()
        found = feed.after(place, feed.source.last_change)
        text = b"".join([it for _, run, it in found if only is None or run in (None, only)])
        if found:
            place = found[-1][0]
        elif now() - sent >= KEEP_ALIVE_SECONDS:
            text = b": keep-alive\n\n"
        else:
            await asyncio.sleep(_PAUSE)
