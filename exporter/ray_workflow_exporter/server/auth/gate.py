"""Who may do what: credentials, roles, origins and rate limits.

Nothing is read from a cookie, so that no other website can act in a user's name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional

from aiohttp import hdrs, http_exceptions, web

from ...actions import Verb
from ...settings.settings import Settings, SettingsError
from ..source import API, SETTINGS
from .rate import Rate
from .reloaded import Reloaded
from .tokens import Caller, Role, Tokens, bearer
from .web_config import Users, WebConfig, normal_san, read_web_config, user_named_in

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY = 16 * 1024
BODY_SECONDS = 10.0
# Burst, and seconds for one more:
_WRONG_CREDENTIALS = (10, 6.0)  # by address and user
_WRONG_USERS = (50, 1.0)  # by address, over all users
_ACTIONS = (30, 1.0)  # by caller
_HASHING_THREADS = 2
_HASHING_QUEUE = 20  # passwords that wait to be hashed

_ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, "
    # Grafana's panel actions send these.
    "X-Grafana-Action, X-Grafana-Device-Id"
)
_EXPOSED_HEADERS = "ETag, Link, Location, Retry-After"

ACTIONS_OFF = (
    "Actions are off. To turn them on, start the exporter with --tokens-file; see docs/security.md."
)

_log = logging.getLogger(__name__)
_audit = logging.getLogger("ray_workflow_exporter.audit")


class Gate:
    """Checks callers. One for all listeners of an exporter."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for a file that is wrong."""
        self._settings = settings
        self._tokens = Tokens(settings.tokens_file) if settings.tokens_file else None
        self._web: Optional[Reloaded[WebConfig]] = None
        path = settings.web_config_file
        if path is not None:
            self._web = Reloaded(path, lambda: read_web_config(path), lambda known: known.files)
            self._web.changed()
        _check_sense(settings, self.web_config())
        self._wrong = Rate(*_WRONG_CREDENTIALS)
        self._wrong_users = Rate(*_WRONG_USERS)
        self._acting = Rate(*_ACTIONS)
        # A pool of its own: hashing must not delay pages, and may not use more than its threads.
        self._hashing = ThreadPoolExecutor(_HASHING_THREADS, thread_name_prefix="bcrypt")
        self._queue = 0

    def web_config(self) -> WebConfig:
        """Return the web config as it is now; the last good one while the file is wrong."""
        if self._web is None:
            return WebConfig()
        try:
            if self._web.changed():
                _log.info("Reloaded the web config.")
        except SettingsError as error:
            _log.error("%s The last good one is still used.", error)
        return self._web.value

    @property
    def takes_orders(self) -> bool:
        """Whether actions are on."""
        return self._tokens is not None

    async def check_reader(self, request: web.Request) -> None:
        """Check that the caller may read. Raises HTTPException."""
        config = self.web_config()
        if config.allowed_sans and not _has_san(request, config.allowed_sans):
            raise web.HTTPForbidden(text="The client certificate has none of the allowed names.")
        if self._settings.public_reading and config.users is None:
            return
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        if self._caller(authorization) is not None:
            return
        user = user_named_in(authorization)
        if config.users is not None and user is not None:
            if config.users.recall(authorization) is not None:
                return
            if await self._check_password(request, config.users, user, authorization):
                return
        elif authorization:
            self._count_wrong(request)
        raise self._unauthorized(request, config)

    async def _check_password(
        self, request: web.Request, users: Users, user: str, authorization: str
    ) -> bool:
        """Hash a password that is not known yet. Counted as wrong before, so that guesses made at
        the same time are all counted."""
        address = request.remote or ""
        limits = ((self._wrong, f"{address} {user}"), (self._wrong_users, address))
        waits = [limit.wait(key) for limit, key in limits]
        if any(waits):
            raise _too_many(max(wait or 0 for wait in waits))
        if self._queue >= _HASHING_QUEUE:
            raise _too_many(1)
        for limit, key in limits:
            limit.take(key)
        self._queue += 1
        try:
            loop = asyncio.get_running_loop()
            right = await loop.run_in_executor(self._hashing, users.check, authorization)
        finally:
            self._queue -= 1
        if right is None:
            return False
        for limit, key in limits:
            limit.give_back(key)
        return True

    def _count_wrong(self, request: web.Request) -> None:
        """Count a wrong token of an address. Raises HTTPTooManyRequests."""
        _spend(self._wrong, request.remote or "")

    def check_actor(self, request: web.Request, verb: Optional[Verb]) -> Caller:
        """Return the caller who wants to act or, without a verb, to read about actions.

        Only a token counts. Raises HTTPException.
        """
        if self._tokens is None:
            raise web.HTTPForbidden(text=ACTIONS_OFF)
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        caller = self._caller(authorization)
        if caller is None:
            if verb is not None:
                _audit.info("denied: %s from %s without a valid token", verb.value, request.remote)
            if authorization:
                self._count_wrong(request)
            raise self._unauthorized(request, None)
        if verb is None:
            return caller
        if caller.role is not Role.ACT:
            _audit.info("denied: %s by %s, who may only read", verb.value, caller.name)
            raise web.HTTPForbidden(text="This token may only read.")
        _spend(self._acting, caller.name)
        return caller

    def _caller(self, authorization: str) -> Optional[Caller]:
        token = bearer(authorization)
        return self._tokens.find(token) if self._tokens is not None and token is not None else None

    def _unauthorized(
        self, request: web.Request, config: Optional[WebConfig]
    ) -> web.HTTPUnauthorized:
        """Say which credentials are needed, and what is wrong with those that were sent."""
        tried = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")[0].lower()
        users = config is not None and config.users is not None
        needed = "a user and password, or a bearer token" if users else "a bearer token"
        text = f"Credentials are missing: send {needed} in the header `Authorization`."
        if tried == "bearer" and self._tokens is not None and self._tokens.broken:
            text = "No token is valid now: the tokens file is missing or wrong; the log says why."
        elif tried == "bearer":
            text = "The token is not valid: the tokens file has no entry for it."
        elif tried == "basic" and users:
            text = "The user or the password is wrong."
        elif tried:
            text = f"These credentials cannot be used here: send {needed}."
        # A browser asks for a user as soon as it sees `Basic`, also if a page tried a token.
        scheme = "Basic" if users and tried != "bearer" else "Bearer"
        return web.HTTPUnauthorized(
            text=text, headers={hdrs.WWW_AUTHENTICATE: f'{scheme} realm="ray-workflow-exporter"'}
        )


def _check_sense(settings: Settings, config: WebConfig) -> None:
    if settings.actions_listen is not None and settings.tokens_file is None:
        raise SettingsError("actions_listen needs a tokens_file: without one, actions are off.")
    if not settings.public_reading and settings.tokens_file is None and config.users is None:
        raise SettingsError(
            "With public_reading off, nobody could read: set a tokens_file, or users in the "
            "web_config_file."
        )


GATE: web.AppKey[Gate] = web.AppKey("gate")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check that the caller may read; answer the preflight requests of browsers."""
    if request.path.startswith("/-/"):
        return await handler(request)  # orchestrators have no credentials
    rate = request.app[GATE].web_config().rate
    if rate is not None:
        _spend(rate, "")
    if request.method == hdrs.METH_OPTIONS and request.path.startswith(API):
        return web.Response(status=204, headers=_preflight(request))
    await request.app[GATE].check_reader(request)
    return await handler(request)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of the web config, and those for websites of an allowed origin."""
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
            text=f"The body did not arrive within {BODY_SECONDS:g} s."
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
    """Return the origin of the website that sent a request, if it is allowed."""
    origin = request.headers.get(hdrs.ORIGIN)
    named = origin in request.app[SETTINGS].cors_origins and request.path.startswith(API)
    return origin if named else None


def _has_san(request: web.Request, allowed: tuple[str, ...]) -> bool:
    certificate = request.transport and request.transport.get_extra_info("peercert")
    names = {normal_san(value) for _, value in (certificate or {}).get("subjectAltName", ())}
    return not names.isdisjoint(allowed)


def _spend(limit: Rate, key: str) -> None:
    """Count one event of a key. Raises HTTPTooManyRequests."""
    wait = limit.wait(key)
    if wait is not None:
        raise _too_many(wait)
    limit.take(key)


def _too_many(seconds: int) -> web.HTTPException:
    return web.HTTPTooManyRequests(
        text=f"Too many requests; try again in {seconds} s.",
        headers={hdrs.RETRY_AFTER: str(seconds)},
    )
