"""The web server: routes, health, security headers, errors as problem details (RFC 9457).

It never reads from Ray or storage for a scrape: the source has all answers ready.
"""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Awaitable, Mapping
from typing import Callable, Optional

from aiohttp import hdrs, web

from .. import SERVER_NAME
from ..display import printable
from ..responses import Responses
from ..settings.settings import Settings
from . import metrics
from .api import events, openapi, operations
from .api.actions import ACTS
from .auth.gate import GATE, MAX_BODY, Gate, add_headers, guard
from .pages import pages
from .source import API, RESPONSES, SETTINGS, SOURCE, Source

_GRACE_SECONDS = 30.0
_HEADERS = {
    hdrs.SERVER: SERVER_NAME,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_KEPT_HEADERS = (hdrs.ALLOW, hdrs.LOCATION, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE)

_NOT_FOUND = "There is nothing at this address. The page at / lists the endpoints."

# Connections that have not sent a request yet.
FRESH: web.AppKey[set[object]] = web.AppKey("fresh")

_log = logging.getLogger(__name__)


def create_app(
    source: Source, settings: Settings, gate: Optional[Gate] = None, *, acts: bool = True
) -> web.Application:
    """Return the application that answers from `source`; it takes actions only if `acts`."""
    app = web.Application(middlewares=[_problems, guard], client_max_size=MAX_BODY)
    app[SOURCE], app[SETTINGS] = source, settings
    app[RESPONSES] = Responses(error_messages=settings.expose_error_messages)
    app[FRESH] = set()
    app[GATE], app[ACTS] = gate or Gate(settings), acts
    app[events.FEED] = feed = events.Feed(source)
    app[pages.SHARED] = pages.Shared(lambda: source.last_change)
    app.on_shutdown.append(feed.close)
    app.on_response_prepare.append(_add_headers)
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/metrics", metrics.metrics)
    app.router.add_get("/-/healthy", _healthy)
    app.router.add_get("/-/ready", _ready)
    app.router.add_get(f"{API}/openapi.json", openapi.serve)
    operations.add_routes(app.router)
    pages.add_routes(app.router)
    return app


def longest_silence(settings: Settings) -> float:
    """Return how many seconds a poll may take before the poll loop counts as hung."""
    # One poll may wait for storage twice and for Ray once, each to its own time-out.
    longest = 2 * settings.storage_timeout + settings.manager_timeout + settings.interval
    return longest + _GRACE_SECONDS


async def _healthy(request: web.Request) -> web.Response:
    """Answer 503 when the poll loop hangs, so that a supervisor restarts the exporter."""
    allowed = longest_silence(request.app[SETTINGS])
    age = request.app[SOURCE].heartbeat_age
    if age > allowed:
        raise web.HTTPServiceUnavailable(
            text=f"No poll has finished for {age:.0f} s; at most {allowed:.0f} s are allowed."
        )
    return web.Response(text="healthy\n")


async def _ready(request: web.Request) -> web.Response:
    if not request.app[SOURCE].ready:
        raise web.HTTPServiceUnavailable(text="The first poll has not finished yet.")
    return web.Response(text="ready\n")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    request.app[FRESH].discard(request.protocol)
    try:
        return await handler(request)
    except web.HTTPException as error:
        # aiohttp's own text only repeats the title: `404: Not Found`.
        own = error.text == f"{error.status}: {error.reason}"
        headers: dict[str, str] = {
            name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers
        }
        return _problem(error.status, _NOT_FOUND if own else error.text, headers)
    except Exception as error:
        gone = request.transport is None or request.transport.is_closing()
        if gone and isinstance(error, OSError):
            raise ConnectionError from None  # the client has left: no fault of ours
        _log.exception("cannot answer %s %s", request.method, printable(request.raw_path))
        return _problem(500, "The exporter failed to answer; its log says why.")


def _problem(
    status: int, detail: Optional[str], headers: Optional[Mapping[str, str]] = None
) -> web.Response:
    title = http.HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return web.Response(
        status=status,
        body=json.dumps(problem).encode(),
        content_type="application/problem+json",
        headers=headers,
    )
