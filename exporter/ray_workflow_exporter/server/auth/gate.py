"""Who may ask for what: credentials, roles, origins, and how often.

Nothing here is taken from a cookie, so no page of somebody else can act in a user's name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Callable, Optional

from aiohttp import hdrs, http_exceptions, web

from ...actions import Verb
from ...settings.settings import Settings, SettingsError
from ..source import API, SETTINGS
from .rate import Rate
from .reloaded import Reloaded
from .tokens import Caller, Role, Tokens, bearer
from .web_config import WebConfig, read_web_config

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY = 16 * 1024
BODY_SECONDS = 10.0
_WRONG_CREDENTIALS = (10, 6.0)  # burst, seconds for one more; by address
_ACTIONS = (30, 1.0)  # by caller

_ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, "
    # Grafana's panel actions send these.
    "X-Grafana-Action, X-Grafana-Device-Id"
)
_EXPOSED_HEADERS = "ETag, Link, Location, Retry-After"

ACTIONS_OFF = (
    "Actions are off: start the exporter with --tokens-file to have them; see docs/security.md."
)

_log = logging.getLogger(__name__)
_audit = logging.getLogger("ray_workflow_exporter.audit")


class Gate:
    """Checks who asks. One for all listeners of an exporter."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for a file that is wrong."""
        self._settings = settings
        self._tokens = Tokens(settings.tokens_file) if settings.tokens_file else None
        self._web: Optional[Reloaded[WebConfig]] = None
        path = settings.web_config_file
        if path is not None:
            self._web = Reloaded(
                lambda: read_web_config(path), lambda known: known.files if known else (path,)
            )
            self._web.changed()
        _check_sense(settings, self.web_config())
        self._wrong = Rate(*_WRONG_CREDENTIALS)
        self._acting = Rate(*_ACTIONS)

    def web_config(self) -> WebConfig:
        """Return the web config as it is now; the last good one while the file is wrong."""
        if self._web is None:
            return WebConfig()
        try:
            if self._web.changed():
                _log.info("The web config was read again.")
        except SettingsError as error:
            _log.error("%s The last good one stays in force.", error)
        return self._web.value

    @property
    def takes_orders(self) -> bool:
        """Whether anybody may act at all."""
        return self._tokens is not None

    async def check_reader(self, request: web.Request) -> None:
        """Let those go on who may read. Raises HTTPException."""
        config = self.web_config()
        if config.allowed_sans and not _has_san(request, config.allowed_sans):
            raise web.HTTPForbidden(text="The client certificate has none of the allowed names.")
        if self._settings.public_reading and config.users is None:
            return
        if await self._caller(request, config) is None:
            raise self._unauthorized(request, config)

    def check_actor(self, request: web.Request, verb: Optional[Verb]) -> Caller:
        """Return who wants to act or, without a verb, to see what was done; by their token.

        Raises HTTPException.
        """
        if self._tokens is None:
            raise web.HTTPForbidden(text=ACTIONS_OFF)
        caller = self._holder(request)
        if caller is None:
            if verb is not None:
                _audit.info("denied: %s from %s without a valid token", verb.value, request.remote)
            raise self._unauthorized(request, None)
        if verb is None:
            return caller
        if caller.role is not Role.ACT:
            _audit.info("denied: %s by %s, who may only read", verb.value, caller.name)
            raise web.HTTPForbidden(text="This token may only read.")
        wait = self._acting.wait(caller.name)
        if wait is not None:
            raise _too_many(wait)
        self._acting.take(caller.name)
        return caller

    async def _caller(self, request: web.Request, config: WebConfig) -> Optional[str]:
        holder = self._holder(request)
        if holder is not None or config.users is None:
            return holder.name if holder else None
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        known = config.users.recall(authorization)
        if known is not None or not authorization:
            return known
        # Before bcrypt: it would take the machine's time for each guess.
        wait = self._wrong.wait(request.remote or "")
        if wait is not None:
            raise _too_many(wait)
        return await asyncio.to_thread(config.users.check, authorization)

    def _holder(self, request: web.Request) -> Optional[Caller]:
        token = bearer(request.headers.get(hdrs.AUTHORIZATION, ""))
        return self._tokens.find(token) if self._tokens is not None and token is not None else None

    def _unauthorized(self, request: web.Request, config: Optional[WebConfig]) -> web.HTTPException:
        address, tried = request.remote or "", request.headers.get(hdrs.AUTHORIZATION, "")
        if tried:
            wait = self._wrong.wait(address)
            if wait is not None:
                return _too_many(wait)
            self._wrong.take(address)
        users = config is not None and config.users is not None
        # A browser asks for a user as soon as it sees `Basic`, also if a page tried a token.
        scheme = "Basic" if users and not tried.startswith(("Bearer ", "bearer ")) else "Bearer"
        return web.HTTPUnauthorized(
            text=f"Valid credentials are needed: {'a user or ' if users else ''}a bearer token.",
            headers={hdrs.WWW_AUTHENTICATE: f'{scheme} realm="ray-workflow-exporter"'},
        )


def _check_sense(settings: Settings, config: WebConfig) -> None:
    if settings.actions_listen is not None and settings.tokens_file is None:
        raise SettingsError("actions_listen is of no use without a tokens_file: actions are off.")
    if not settings.public_reading and settings.tokens_file is None and config.users is None:
        raise SettingsError(
            "With public_reading off nobody could read: name a tokens_file, or users in the "
            "web_config_file."
        )


GATE: web.AppKey[Gate] = web.AppKey("gate")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request go on if its caller may read; answer what browsers ask before others."""
    if request.path.startswith("/-/"):
        return await handler(request)  # an orchestrator has no credentials, and learns nothing
    if request.method == hdrs.METH_OPTIONS and request.path.startswith(API):
        return web.Response(status=204, headers=_preflight(request))
    await request.app[GATE].check_reader(request)
    return await handler(request)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of the web config, and those for pages of a named origin."""
    response.headers.update(request.app[GATE].web_config().headers)
    if _origin(request) is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED_HEADERS
    if request.app[SETTINGS].cors_origins:
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)


async def body_of(request: web.Request) -> bytes:
    """Read the body of a request, within its limits. Raises HTTPException."""
    try:
        return await asyncio.wait_for(request.read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise web.HTTPRequestTimeout(
            text=f"The body did not come within {BODY_SECONDS:g} s."
        ) from None
    except web.HTTPRequestEntityTooLarge as error:
        error.text = f"A body may have at most {MAX_BODY} bytes."
        raise
    except (web.RequestPayloadError, http_exceptions.HttpProcessingError):
        raise web.HTTPBadRequest(text="The body is not encoded as its headers say.") from None


def _preflight(request: web.Request) -> dict[str, str]:
    if _origin(request) is None:
        return {}
    return {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, HEAD, POST, DELETE",
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _ALLOWED_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: "600",
    }


def _origin(request: web.Request) -> Optional[str]:
    """Return the origin of the page that asks, if pages of it may."""
    origin = request.headers.get(hdrs.ORIGIN)
    named = origin in request.app[SETTINGS].cors_origins and request.path.startswith(API)
    return origin if named else None


def _has_san(request: web.Request, allowed: tuple[str, ...]) -> bool:
    certificate = request.transport and request.transport.get_extra_info("peercert")
    names = {value for _, value in (certificate or {}).get("subjectAltName", ())}
    return not names.isdisjoint(allowed)


def _too_many(seconds: int) -> web.HTTPException:
    return web.HTTPTooManyRequests(
        text=f"Too many requests; try again in {seconds} s.",
        headers={hdrs.RETRY_AFTER: str(seconds)},
    )
