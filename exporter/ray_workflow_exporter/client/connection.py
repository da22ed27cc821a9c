"""One HTTP connection to an exporter, kept open between requests.

With the standard library alone, so that commands start fast.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

CONNECT_SECONDS, ANSWER_SECONDS = 3.0, 30.0
_LOCAL = ("127.0.0.1", "::1", "localhost")  # no proxy stands between a machine and itself


class Answer(NamedTuple):
    """What came back."""

    status: int
    server: str  # the header `Server`
    body: bytes


class Connection:
    """A connection to the server of a URL, which may hold a user and a password."""

    def __init__(self, url: str, token: Optional[str] = None) -> None:
        """Raises ValueError if it is not a URL of HTTP."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https://")
        self._host, self._port, self._scheme = parts.hostname, parts.port, parts.scheme
        host = parts.netloc.rpartition("@")[2]
        self.shown = f"{parts.scheme}://{host}"  # without a password
        self._prefix = parts.path.rstrip("/")
        self._proxy = _proxy(parts)
        if self._proxy is not None and parts.scheme == "http":
            self._prefix = self.shown + self._prefix
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        else:
            self._headers.update(_credentials(parts, "Authorization"))
        self._connection: Optional[http.client.HTTPConnection] = None

    def request(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, Any]] = None,
        content: Any = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Send a request, `content` as JSON; values of `query` that are None are left out.

        `seconds` is how long the server may be silent. Raises OSError or HTTPException.
        """
        given = {key: value for key, value in (query or {}).items() if value is not None}
        # What is not UTF-8 on the command line is sent as it came: there is no such run.
        encoded = urlencode(given, doseq=True, errors="surrogateescape")
        target = f"{self._prefix}{path}{'?' if given else ''}{encoded}"
        body = None if content is None else json.dumps(content)
        if method != "GET":
            self.close()  # a fresh connection: an action must never be sent twice
        kept = self._connection is not None
        try:
            return self._exchange(method, target, body, seconds)
        except (ConnectionError, http.client.HTTPException):
            self.close()
            if not kept:
                raise
        # The server may end a connection that was idle, just when the next request is sent.
        return self._exchange(method, target, body, seconds)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, method: str, target: str, body: Optional[str], seconds: float) -> Answer:
        if self._connection is None:
            self._connection = self._opened(min(seconds, CONNECT_SECONDS))
        self._connection.sock.settimeout(seconds)
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        try:
            self._connection.request(method, target, body, headers)
            answer = self._connection.getresponse()
            return Answer(answer.status, answer.getheader("Server", ""), answer.read())
        except BaseException:
            self.close()  # an answer that came later would be taken for that of another request
            raise

    def _opened(self, seconds: float) -> http.client.HTTPConnection:
        proxy = self._proxy
        host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (self._host, self._port)
        connection: http.client.HTTPConnection
        if self._scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
            if proxy:
                headers = _credentials(proxy, "Proxy-Authorization")
                connection.set_tunnel(self._host, self._port, headers)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=seconds)
            if proxy:
                self._headers.update(_credentials(proxy, "Proxy-Authorization"))
        connection.connect()
        return connection


def _proxy(parts: SplitResult) -> Optional[SplitResult]:
    """Return the proxy that the environment names for a URL, if any."""
    if parts.hostname in _LOCAL:
        return None
    from urllib.request import getproxies, proxy_bypass  # slow to import

    proxy = getproxies().get(parts.scheme)
    return urlsplit(proxy) if proxy and not proxy_bypass(parts.netloc) else None


def _credentials(parts: SplitResult, header: str) -> dict[str, str]:
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {header: f"Basic {base64.b64encode(pair.encode()).decode()}"}
