"""`/api/v1/events`: changes of runs and tasks as server-sent events.

The catalog keeps the changes. Here each client has its place among them, and all clients at the
same place share one encoded text.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Optional

from aiohttp import hdrs, web

from ...catalog.catalog import Change
from ..source import Source
from .parameters import LAST_EVENT_ID, Events, query_of

MAX_CLIENTS = 1000
KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
STUCK_SECONDS = 30.0  # until a client that reads nothing is disconnected
_TICK = 0.1
_CHUNK = 500  # events written at once
_PLACES = 100  # kept encoded: clients that keep up are all at the same one


class _Event(NamedTuple):
    seq: int
    workflow_id: str
    text: bytes


class Feed:
    """Turns the catalog's changes into events and wakes the clients.

    An event's id is `<feed>-<number>`: the first part differs after each start of the exporter,
    so that a number from before a restart is not taken for one of now.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._name = secrets.token_hex(4)
        self._encoded: dict[int, Optional[list[_Event]]] = {}  # by the number that they follow
        self.last = source.last_change
        self.clients = 0
        self.closed = False
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the source until cancelled."""
        while True:
            await asyncio.sleep(_TICK)
            last = self._source.last_change
            if last != self.last:
                self.last = last
                self._encoded.clear()
                self._wake()

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when there is something new, or after `seconds`."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    def after(self, number: int) -> Optional[list[_Event]]:
        """Return the next events after `number`; None if some of them are no longer kept."""
        if number >= self.last:
            return []
        if number not in self._encoded:
            changes = self._source.changes(number)[:_CHUNK]
            complete = not changes or changes[0].seq == number + 1
            events = [_Event(it.seq, it.workflow_id, self._encode(it)) for it in changes]
            if len(self._encoded) >= _PLACES:
                self._encoded.clear()
            self._encoded[number] = events if complete else None
        return self._encoded[number]

    def number(self, event_id: str) -> Optional[int]:
        """Return the number in an event's id, None for an id of another feed."""
        name, _, number = event_id.rpartition("-")
        known = name == self._name and number.isascii() and number.isdigit() and len(number) < 20
        return int(number) if known and int(number) <= self._source.last_change else None

    def event(self, kind: str, number: int, data: dict[str, Any]) -> bytes:
        """Return the text of an event."""
        # JSON escapes newlines: no id can begin a line of the stream.
        return f"id: {self._name}-{number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()

    def _encode(self, change: Change) -> bytes:
        data: dict[str, Any] = {"workflow_id": change.workflow_id}
        if change.task_id is not None:
            kind = "task"
            data.update(task_id=change.task_id, state=change.state, time=change.moment)
        elif change.state is not None:
            kind = "run"
            data.update(status=change.state, time=change.moment)
        else:
            kind = "gone"
        return self.event(kind, change.seq, data)


FEED: web.AppKey[Feed] = web.AppKey("feed")


async def follow(app: web.Application) -> AsyncIterator[None]:
    """Keep the feed up to date while the server runs."""
    task = asyncio.create_task(app[FEED].run())
    yield
    task.cancel()


async def close(app: web.Application) -> None:
    """End all streams: the server would wait for them."""
    app[FEED].close()


async def events(request: web.Request) -> web.StreamResponse:
    """Stream changes until the client disconnects."""
    only = query_of(request, Events).workflow_id
    feed = request.app[FEED]
    async with _place(feed):
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        if request.method == hdrs.METH_HEAD:
            await response.prepare(request)
            return response
        last, number = request.headers.get(LAST_EVENT_ID.name), feed.last
        place = number if last is None else feed.number(last)
        # The client gets its place at once: it may be cut off before the first event.
        ready = feed.event("ready", number, {}) if last is None else b""
        try:
            await response.prepare(request)
            await _send(response, f"retry: {RETRY_MILLISECONDS}\n\n".encode() + ready)
            await _stream(request, response, place, only)
        except (ConnectionError, asyncio.TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        return response


@asynccontextmanager
async def _place(feed: Feed) -> AsyncIterator[None]:
    if feed.clients >= MAX_CLIENTS:
        raise web.HTTPServiceUnavailable(
            text=f"{MAX_CLIENTS} clients read the events already; try again later.",
            headers={hdrs.RETRY_AFTER: "10"},
        )
    feed.clients += 1
    try:
        yield
    finally:
        feed.clients -= 1


async def _stream(
    request: web.Request, response: web.StreamResponse, place: Optional[int], only: Optional[str]
) -> None:
    """Send the events after `place`, None if it is not known, of one run or of all."""
    feed, now = request.app[FEED], asyncio.get_running_loop().time
    sent = now()
    while not feed.closed and request.transport is not None and not request.transport.is_closing():
        text = b""
        found = feed.after(place) if place is not None else None
        if found is None:
            place = feed.last
            text = feed.event("reset", place, {})
        elif found:
            place = found[-1].seq
            text = b"".join([it.text for it in found if only in (None, it.workflow_id)])
        elif now() - sent >= KEEP_ALIVE_SECONDS:
            text = b": keep-alive\n\n"
        else:
            await feed.wait(1.0)
        if text:
            await _send(response, text)
            sent = now()


async def _send(response: web.StreamResponse, text: bytes) -> None:
    # Waits only if the client has not read what was sent before.
    await asyncio.wait_for(response.write(text), STUCK_SECONDS)
