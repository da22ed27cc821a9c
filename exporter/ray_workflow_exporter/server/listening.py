"""The sockets of the server: TLS that reloads its certificates, and limits on connections."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Callable, Optional

from aiohttp import http_exceptions, web

from ..settings.addresses import join_address, parse_listen
from ..settings.settings import Settings, SettingsError
from .app import FRESH, create_app
from .auth.gate import Gate
from .auth.web_config import WebConfig
from .source import Source

Addresses = Sequence[tuple[str, int]]

MAX_CONNECTIONS = 2000
FIRST_REQUEST_SECONDS = 15.0  # from the connection to the end of the first request's headers
KEEP_ALIVE_SECONDS = 75.0
SILENT_SECONDS = 60  # until a client that reads nothing is disconnected
BACKLOG = 512
_SHUTDOWN_SECONDS = 5.0
_CHECK_SECONDS = 1.0

_log = logging.getLogger(__name__)


def run_server(source: Source, settings: Settings, listening: Callable[[Listener], object]) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError if it cannot listen.

    `listening` is called once it listens, with the listener of all but actions alone.
    """
    asyncio.run(_serve(source, settings, listening))


async def _serve(
    source: Source, settings: Settings, listening: Callable[[Listener], object]
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _allow_files()
    gate = Gate(settings)
    apart = settings.actions_listen
    app = create_app(source, settings, gate, acts=apart is None)
    async with AsyncExitStack() as listeners:
        listener = await listeners.enter_async_context(Listener(app, gate, settings.listen))
        if apart is not None:
            app = create_app(source, settings, gate, acts=True)
            await listeners.enter_async_context(Listener(app, gate, apart))
        listening(listener)
        await stop.wait()


def _allow_files() -> None:
    # The usual limit of 1,024 open files is lower than the number of clients that may read events.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Listener:
    """An application at one address, as long as it is entered."""

    def __init__(self, app: web.Application, gate: Gate, listen: str) -> None:
        self._app, self._gate, self._listen = app, gate, listen
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        self._servers: list[asyncio.Server] = []
        self.addresses: Addresses = ()  # where it listens: host and port
        self.web_config = WebConfig()  # in force for new connections
        self._over = asyncio.Event()
        self._following: Optional[asyncio.Task[None]] = None

    async def __aenter__(self) -> Listener:
        await self._runner.setup()
        host, port = parse_listen(self._listen)
        try:
            await self._open(host, port)
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(f"Cannot listen on {self._listen}: {error.strerror}.") from None
        scheme = "https" if self.web_config.tls else "http"
        for host, number in self.addresses:
            _log.info("listening on %s://%s", scheme, join_address(host, number))
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._over.set()
        if self._following is not None:
            await self._following  # not cancelled: it may be replacing the sockets
        for server in self._servers:
            server.close()
        await self._runner.cleanup()

    async def _open(self, host: Optional[str], port: int) -> None:
        # asyncio's `::` is IPv6 alone; no host is all addresses of both kinds, as elsewhere.
        self._servers = [await self._server(host=None if host == "::" else host, port=port)]
        self.addresses = [it.getsockname()[:2] for it in self._sockets()]
        for listening in self._sockets():
            # Inherited by each connection: an answer that the client does not read ends, too.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)

    async def _server(self, **where: Any) -> asyncio.Server:
        self.web_config = self._gate.web_config()
        if self.web_config.tls is not None:
            where.update(ssl=self.web_config.tls, ssl_handshake_timeout=FIRST_REQUEST_SECONDS)
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._protocol, backlog=BACKLOG, **where)

    def _sockets(self) -> list[Any]:
        return [it for server in self._servers for it in server.sockets]

    async def _follow(self) -> None:
        """Use changed certificates for new connections."""
        while not self._over.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), _CHECK_SECONDS)
            try:
                if self._gate.web_config().tls is not self.web_config.tls:
                    await self._open_again()
            except Exception:
                _log.exception("Cannot use the new certificates.")

    async def _open_again(self) -> None:
        # The same sockets, so that no connection is refused meanwhile.
        sockets = [it.dup() for it in self._sockets()]
        before = self._servers
        self._servers = [await self._server(sock=it) for it in sockets]
        for server in before:
            server.close()
        _log.info("Reloaded TLS settings.")

    def _protocol(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= MAX_CONNECTIONS:
            return _Full()
        protocol = _Protocol(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # no log of requests
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )
        fresh = self._app[FRESH]
        fresh.add(protocol)

        def check() -> None:
            if protocol in fresh:  # it has not sent a request
                fresh.discard(protocol)
                protocol.force_close()

        asyncio.get_running_loop().call_later(FIRST_REQUEST_SECONDS, check)
        return protocol


class _Protocol(web.RequestHandler):
    """Answers what never becomes a request. aiohttp would log and repeat what was sent."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: Optional[BaseException] = None,
        message: Optional[str] = None,
    ) -> web.StreamResponse:
        """Answer a malformed request with a plain 400; end the connection of a client that left."""
        if isinstance(exc, ConnectionError):
            raise exc
        if not isinstance(exc, http_exceptions.HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        _log.debug("malformed request from %s", request.remote)
        if request.writer.output_size > 0:
            raise ConnectionError
        response = web.Response(status=400, text="The request is malformed.\n")
        response.force_close()
        return response


class _Full(asyncio.Protocol):
    """Closes a connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
