"""Forward requests from Ray's dashboard to the exporter's API, as they came."""

from __future__ import annotations

import asyncio
import http
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote

import aiohttp
from aiohttp import hdrs, http_exceptions, web
from multidict import CIMultiDict
from yarl import URL

from .node import Address, read_address

OURS, THEIRS = "/api/workflows", "/api/v1/workflows"
LARGEST_BODY = 1 << 20
# The exporter may read an old run from storage first, for up to 30 s.
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=3.0, sock_read=40.0)
# Limits for a client: to send its body, and to read each part of the answer.
_BODY_SECONDS, _WRITE_SECONDS = 10.0, 30.0
# RFC 9110, 7.6.1; and headers that the client library sets itself.
_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
# Nor the encoding of the body: it arrives here decoded.
_NOT_FORWARDED = {*_HOP_BY_HOP, "host", "content-length", "content-encoding", "expect"}

_log = logging.getLogger(__name__)


class Forwarder:
    """Forwards to the exporter whose address stands in a file."""

    def __init__(self, address_file: Path) -> None:
        self._address_file = address_file
        self._session: Optional[aiohttp.ClientSession] = None

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Return the exporter's answer to a request, or the reason why there is none."""
        path = request.rel_url.raw_path
        rest = path[len(OURS) :]
        # The route matches the decoded path; the raw path may differ.
        if not path.startswith(OURS) or not {".", ".."}.isdisjoint(unquote(rest).split("/")):
            return _problem(404, "There is no such path.")
        # In a thread: the event loop is that of Ray's whole dashboard.
        address = await asyncio.to_thread(read_address, self._address_file)
        if address is None:
            return _problem(
                503,
                "The workflow exporter is not running. The reason is in workflow_exporter.log or "
                "dashboard_agent.log.",
            )
        if address.asks_certificate:
            return _problem(
                502,
                "The workflow exporter requires a client certificate, and the dashboard has none. "
                "Use the exporter's own port.",
            )
        try:
            body = await asyncio.wait_for(_read(request), _BODY_SECONDS)
        except asyncio.TimeoutError:
            return _problem(408, f"The body did not arrive within {_BODY_SECONDS:g} s.")
        except (web.RequestPayloadError, http_exceptions.HttpProcessingError):
            return _problem(400, "The body is not encoded as its headers say.")
        if body is None:
            return _problem(413, f"The body of a request is limited to {LARGEST_BODY} bytes.")
        query = request.rel_url.raw_query_string
        # Not decoded: an id keeps its %2F.
        target = URL(f"{address.url}{THEIRS}{rest}{'?' if query else ''}{query}", encoded=True)
        try:
            async with self._client().request(
                request.method,
                target,
                headers=_kept(request.headers, _NOT_FORWARDED),
                skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
                data=body or None,
                allow_redirects=False,
                **_pinned(address),
            ) as answer:
                return await _pass_on(request, answer)
        except aiohttp.ServerFingerprintMismatch:
            return _problem(
                503,
                "The server on the workflow exporter's port has another certificate than the "
                "exporter's. After a renewal, this lasts a few seconds.",
            )
        except asyncio.TimeoutError:
            return _problem(504, "The workflow exporter did not answer in time.")
        except aiohttp.ClientError as error:
            _log.info("The workflow exporter at %s cannot be reached: %r", address.url, error)
            return _problem(503, "The workflow exporter cannot be reached; it may be starting.")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No connection is kept: a restarted exporter would not know it.
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=_TIMEOUT,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _pinned(address: Address) -> dict[str, Any]:
    # By fingerprint: certificates are rarely issued for the loopback address.
    if address.fingerprint is None:
        return {}
    return {"ssl": aiohttp.Fingerprint(bytes.fromhex(address.fingerprint))}


async def _read(request: web.Request) -> Optional[bytes]:
    """Return the body of a request, None when it is too large."""
    # Ray's own limit, which is meant for uploads, would allow 100 MiB.
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > LARGEST_BODY:
            return None
    return bytes(body)


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=_kept(answer.headers, _HOP_BY_HOP)
    )
    try:
        await asyncio.wait_for(response.prepare(request), _WRITE_SECONDS)
        async for chunk in answer.content.iter_any():
            await asyncio.wait_for(response.write(chunk), _WRITE_SECONDS)
        await asyncio.wait_for(response.write_eof(), _WRITE_SECONDS)
    except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError):
        # Part of the answer is sent, or the client reads nothing: only closing can show the error.
        if request.transport is not None:
            request.transport.abort()
    return response


def _kept(headers: Mapping[str, str], dropped: set[str]) -> CIMultiDict[str]:
    named = headers.get(hdrs.CONNECTION, "").lower().replace(" ", "").split(",")
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in dropped and name.lower() not in named
    )


def _problem(status: int, detail: str) -> web.Response:
    title = http.HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return web.Response(
        status=status,
        body=json.dumps(problem).encode(),
        content_type="application/problem+json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )
