"""`/api/v1/events`: what changes, as server-sent events.

All readers share one list of encoded events and each has its place in it, so that a slow reader
costs no memory of its own: one that falls behind the list is told to read all anew.
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
from . import parameters
from .parameters import query_of

MAX_READERS = 1000
KEPT = 10_000  # events, for readers that come back
KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
STUCK_SECONDS = 30.0  # until a reader that takes nothing is cut off
_TICK = 0.1
_CHUNK = 500  # events written at once


class _Event(NamedTuple):
    workflow_id: str
    text: bytes


class Feed:
    """The newest changes, encoded once for all readers.

    An event's id is `<feed>-<number>`: the first part is another one after each start of the
    exporter, so that no number of an earlier life is taken for one of this.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._name = secrets.token_hex(4)
        self._events: list[_Event] = []
        self.last = source.last_change  # number of the newest event
        self.readers = 0
        self.closed = False
        self._grown = asyncio.Event()

    async def run(self) -> None:
        """Follow the source for ever."""
        while True:
            await asyncio.sleep(_TICK)
            if self._source.last_change != self.last:
                self._take(self._source.changes(self.last))
                self._wake()

    def _take(self, changes: list[Change]) -> None:
        if not changes:
            return
        if changes[0].seq != self.last + 1:
            self._events.clear()  # the source forgot some: every reader is behind
        self._events += [_Event(it.workflow_id, self._encoded(it)) for it in changes]
        del self._events[:-KEPT]
        self.last = changes[-1].seq

    def close(self) -> None:
        """Let all readers go."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when there is something new, or after `seconds`."""
        try:
            await asyncio.wait_for(self._grown.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    def after(self, number: int) -> Optional[list[_Event]]:
        """Return some of the events after `number`; None when the next one is not kept any more."""
        start = number - (self.last - len(self._events))
        return self._events[start : start + _CHUNK] if start >= 0 else None

    def number(self, event_id: str) -> Optional[int]:
        """Return the number in an event's id, None for an id of another feed."""
        name, _, number = event_id.rpartition("-")
        known = name == self._name and number.isascii() and number.isdigit() and len(number) < 20
        return int(number) if known and int(number) <= self.last else None

    def mark(self, kind: str, number: int) -> bytes:
        """Return an event without content of its own."""
        return self._event(kind, number, {})

    def _encoded(self, change: Change) -> bytes:
        kind = "task" if change.task_id is not None else "gone" if change.state is None else "run"
        data: dict[str, Any] = {"workflow_id": change.workflow_id}
        if change.task_id is not None:
            data["task_id"] = change.task_id
        if change.state is not None:
            data["status" if kind == "run" else "state"] = change.state
            data["time"] = change.moment
        return self._event(kind, change.seq, data)

    def _event(self, kind: str, number: int, data: dict[str, Any]) -> bytes:
        # JSON escapes newlines: no id can begin a line of the stream.
        return f"id: {self._name}-{number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


FEED: web.AppKey[Feed] = web.AppKey("feed")


async def follow(app: web.Application) -> AsyncIterator[None]:
    """Keep the feed up to date as long as the server runs."""
    task = asyncio.create_task(app[FEED].run())
    yield
    task.cancel()


async def close(app: web.Application) -> None:
    """Let all readers go: the server ends, and would wait for them."""
    app[FEED].close()


async def events(request: web.Request) -> web.StreamResponse:
    """Tell what changes, until the reader leaves."""
    only = query_of(request, parameters.OF_RUN)["workflow_id"]
    feed = request.app[FEED]
    async with _place(feed):
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        if request.method == hdrs.METH_HEAD:
            await response.prepare(request)
            return response
        # The reader is told where it stands at once: it may be cut off before the first event.
        last, number = request.headers.get(parameters.LAST_EVENT_ID.name), feed.last
        known = number if last is None else feed.number(last)
        first = feed.mark("ready", feed.last) if last is None else b""
        await response.prepare(request)
        stream = _Stream(request, response)
        try:
            await stream.send(f"retry: {RETRY_MILLISECONDS}\n\n".encode() + first)
            await _tell(feed, stream, known, only)
        except (ConnectionError, asyncio.TimeoutError):
            stream.cut()
        return response


@asynccontextmanager
async def _place(feed: Feed) -> AsyncIterator[None]:
    if feed.readers >= MAX_READERS:
        raise web.HTTPServiceUnavailable(
            text=f"{MAX_READERS} readers follow the events already; try again later.",
            headers={hdrs.RETRY_AFTER: "10"},
        )
    feed.readers += 1
    try:
        yield
    finally:
        feed.readers -= 1


async def _tell(feed: Feed, stream: _Stream, number: Optional[int], only: Optional[str]) -> None:
    now = asyncio.get_running_loop().time
    spoke = now()
    while stream.open and not feed.closed:
        text = b""
        found = feed.after(number) if number is not None else None
        if found is None:
            number = feed.last
            text = feed.mark("reset", number)
        elif found:
            assert number is not None
            number += len(found)
            text = b"".join([it.text for it in found if only in (None, it.workflow_id)])
        elif now() - spoke >= KEEP_ALIVE_SECONDS:
            text = b": still here\n\n"
        else:
            await feed.wait(1.0)
        if text:
            await stream.send(text)
            spoke = now()


class _Stream:
    """The way to one reader."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request, self._response = request, response

    @property
    def open(self) -> bool:
        transport = self._request.transport
        return transport is not None and not transport.is_closing()

    async def send(self, text: bytes) -> None:
        # Waits only where the reader has not taken what was sent before.
        await asyncio.wait_for(self._response.write(text), STUCK_SECONDS)

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
