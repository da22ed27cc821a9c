"""`/metrics`: the format, tiers and compression that the scraper asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Optional

from aiohttp import hdrs, web

from ..metrics.exposition import OPENMETRICS_TYPE, TEXT_TYPE, wants_openmetrics
from ..metrics.family import Tier
from .source import SOURCE

CHUNK_BYTES = 256 * 1024


async def metrics(request: web.Request) -> web.StreamResponse:
    """Answer a scrape with the bytes that the source has ready."""
    openmetrics = wants_openmetrics(_header(request, hdrs.ACCEPT))
    gzip = accepts_gzip(_header(request, hdrs.ACCEPT_ENCODING))
    pieces = request.app[SOURCE].metrics(openmetrics=openmetrics, tiers=_tiers(request), gzip=gzip)
    response = web.StreamResponse()
    response.headers[hdrs.CONTENT_TYPE] = OPENMETRICS_TYPE if openmetrics else TEXT_TYPE
    response.headers[hdrs.VARY] = f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}"
    if gzip:
        response.headers[hdrs.CONTENT_ENCODING] = "gzip"
    response.content_length = sum(map(len, pieces))
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    try:
        for chunk in chunks(pieces):
            await response.write(chunk)
            # Writing waits only for a slow client; a fast one must not keep the others waiting.
            await asyncio.sleep(0)
    except ConnectionError:
        pass  # the scraper has disconnected
    return response


def chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces in order, small ones joined."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip (RFC 9110, 12.5.3)."""
    qualities = {}
    for item in accept_encoding.lower().split(","):
        coding, _, quality = item.replace(" ", "").partition(";q=")
        try:
            qualities[coding] = float(quality or 1)
        except ValueError:
            qualities[coding] = 0.0
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _tiers(request: web.Request) -> Optional[frozenset[Tier]]:
    try:
        return frozenset(map(Tier, request.query.getall("tier", ()))) or None
    except ValueError:
        known = ", ".join(tier.value for tier in Tier)
        raise web.HTTPBadRequest(text=f"`tier` must be one of {known}.") from None


def _header(request: web.Request, name: str) -> str:
    return ",".join(request.headers.getall(name, ()))
