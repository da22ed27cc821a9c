"""`/metrics`: the format, tiers and compression that the scraper asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Optional

from aiohttp import hdrs, web

from ..metrics.family import Tier
from .source import SOURCE

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
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


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header prefers OpenMetrics 1.0 to the text format (RFC 9110, 12.5.1)."""
    openmetrics = plain = 0.0
    for media_type, parameters, quality in _listed(accept):
        # Version 0.0.1 has other rules for counters: who asks for that alone gets text.
        if media_type == "application/openmetrics-text":
            if parameters.get("version", "1.0.0") == "1.0.0":
                openmetrics = max(openmetrics, quality)
        elif media_type == "text/plain":
            plain = max(plain, quality)
    return openmetrics > 0 and openmetrics >= plain


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip (RFC 9110, 12.5.3)."""
    qualities = {coding: quality for coding, _, quality in _listed(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _listed(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield what a header lists: names with their parameters and quality."""
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            yield name, given, float(given.get("q", "1"))
        except ValueError:
            yield name, given, 0.0


def _tiers(request: web.Request) -> Optional[frozenset[Tier]]:
    try:
        return frozenset(map(Tier, request.query.getall("tier", ()))) or None
    except ValueError:
        known = ", ".join(tier.value for tier in Tier)
        raise web.HTTPBadRequest(text=f"`tier` must be one of {known}.") from None


def _header(request: web.Request, name: str) -> str:
    return ",".join(request.headers.getall(name, ()))
