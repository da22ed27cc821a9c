"""The web server: routes, health, security headers, errors as problem details (RFC 9457).

It never touches Ray or storage: all that it says, the source has ready.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
import signal
from collections.abc import Awaitable, Mapping, Sequence
from typing import Callable, Optional

from aiohttp import hdrs, web

from ..display import printable
from ..settings import Settings, SettingsError
from ..values import parse_listen
from . import events, openapi, operations, pages, scrape
from .contract import API
from .source import SERVER_NAME, SETTINGS, SOURCE, Source

Addresses = Sequence[tuple[str, int]]

_SHUTDOWN_SECONDS = 5.0
_GRACE_SECONDS = 30.0
_HEADERS = {
    hdrs.SERVER: SERVER_NAME,
    "Content-Security-Policy": (
        f"default-src 'none'; style-src '{pages.STYLE_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_KEPT_HEADERS = (hdrs.ALLOW, hdrs.LOCATION, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE)

_NOWHERE = "The page at / lists what there is; ids are percent-encoded, slashes as %2F."

_log = logging.getLogger(__name__)


def create_app(source: Source, settings: Settings) -> web.Application:
    """Return the application that answers from `source`."""
    app = web.Application(middlewares=[_problems])
    app[SOURCE], app[SETTINGS] = source, settings
    app[events.FEED] = events.Feed(source)
    app.cleanup_ctx.append(events.follow)
    app.on_shutdown.append(events.close)
    app.on_response_prepare.append(_add_headers)
    app.router.add_get("/", pages.landing)
    app.router.add_get("/metrics", scrape.metrics)
    app.router.add_get("/-/healthy", _healthy)
    app.router.add_get("/-/ready", _ready)
    app.router.add_get(f"{API}/openapi.json", openapi.serve)
    operations.add_routes(app.router)
    return app


def run_server(
    source: Source, settings: Settings, listening: Callable[[Addresses], object] = len
) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError if it cannot listen.

    `listening` is told the addresses as soon as there are any.
    """
    asyncio.run(_serve(source, settings, listening))


async def _serve(
    source: Source, settings: Settings, listening: Callable[[Addresses], object]
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        create_app(source, settings), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, *parse_listen(settings.listen)).start()
        except OSError as error:
            raise SettingsError(f"Cannot listen on {settings.listen}: {error.strerror}.") from None
        for host, port, *_ in runner.addresses:
            _log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        listening([(host, port) for host, port, *_ in runner.addresses])
        await stop.wait()
    finally:
        await runner.cleanup()


def longest_silence(settings: Settings) -> float:
    """Return for how many seconds the poll loop may show no life without being hung."""
    # One poll may wait for storage twice and for Ray once, each to its own time-out.
    longest = 2 * settings.storage_timeout + settings.manager_timeout + settings.interval
    return longest + _GRACE_SECONDS


async def _healthy(request: web.Request) -> web.Response:
    """Answer 503 when the poll loop hangs, so that a supervisor starts the exporter again."""
    allowed = longest_silence(request.app[SETTINGS])
    age = request.app[SOURCE].heartbeat_age
    if age > allowed:
        raise web.HTTPServiceUnavailable(
            text=f"The poll loop has shown no life for {age:.0f} s; {allowed:.0f} s are allowed."
        )
    return web.Response(text="healthy\n")


async def _ready(request: web.Request) -> web.Response:
    if not request.app[SOURCE].ready:
        raise web.HTTPServiceUnavailable(text="The first poll is not done yet.")
    return web.Response(text="ready\n")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        # aiohttp's own text says no more than the title does: `404: Not Found`.
        own = error.text == f"{error.status}: {error.reason}"
        headers = {name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers}
        return _problem(error.status, _NOWHERE if own else error.text, headers)
    except Exception:
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
