"""`/metrics`: format, tiers and gzip, as the scraper asks."""

from __future__ import annotations

import asyncio
import gzip
from typing import Optional

from aiohttp import hdrs, web

from ..metrics.contract import Tier
from ..metrics.exposition import OPENMETRICS_TYPE, TEXT_TYPE, wants_openmetrics
from .source import SOURCE

_GZIP_LEVEL = 4  # the text repeats itself: higher levels cost much and save little
_BIG = 64 * 1024  # bytes: from here on, compressing would hold up other requests


async def metrics(request: web.Request) -> web.Response:
    """Answer a scrape with the bytes that the source has ready."""
    openmetrics = wants_openmetrics(_header(request, hdrs.ACCEPT))
    body = request.app[SOURCE].metrics(openmetrics=openmetrics, tiers=_tiers(request))
    headers = {
        hdrs.CONTENT_TYPE: OPENMETRICS_TYPE if openmetrics else TEXT_TYPE,
        hdrs.VARY: f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}",
    }
    if accepts_gzip(_header(request, hdrs.ACCEPT_ENCODING)):
        headers[hdrs.CONTENT_ENCODING] = "gzip"
        body = _gzip(body) if len(body) < _BIG else await asyncio.to_thread(_gzip, body)
    return web.Response(body=body, headers=headers)


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


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, _GZIP_LEVEL)
