"""Clients that send what is no request, or leave at any moment."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable

import pytest

from support.waiting import wait_until
from support.websites import Site

TOKEN = "rwe_A1b2C3d4"
HEAD = f"GET /api/v1/workflows HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}".encode()


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"\r\r\n\r\n",
        HEAD + b"\0\r\n\r\n",
        HEAD + b"\x1b[31m\r\n\r\n",
        HEAD + b"x" * 9000 + b"\r\n\r\n",
        HEAD.replace(b"Authorization: ", b"Authorization:\r\n ") + b"\r\n\r\n",
        HEAD.replace(b"ion:", b"ion") + b"\r\n\r\n",
        HEAD + b"\r\nContent-Length: " + TOKEN.encode() + b"\r\n\r\n",
        HEAD + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + TOKEN.encode() + b"\r\n\r\n",
        b"GET http://[" + TOKEN.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        TOKEN.encode() + b" / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / " + TOKEN.encode() + b"\r\nHost: h\r\n\r\n",
    ],
)
def test_nothing_of_a_malformed_request_is_logged_or_sent_back(
    serve: Callable[..., Site], caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    site = serve()
    caplog.set_level(logging.DEBUG)
    with site.connect() as connection:
        connection.sendall(request_ + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert TOKEN.encode() not in answer
    assert TOKEN not in caplog.text
    assert [it.getMessage() for it in caplog.records if it.levelno > logging.DEBUG] == []
    assert "Traceback" not in caplog.text
    assert site.get().ok


def test_a_client_that_leaves_at_any_moment_is_no_error(
    serve: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = serve()
    site.source.body = b"# " + b"x" * 5_000_000 + b"\n"
    for path in ("/metrics", "/", "/workflows/train-7", "/api/v1/workflows", "/api/v1/events"):
        for taken in (0, 1, 4096):
            connection = site.connect()
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            if taken:
                assert connection.recv(taken)
            # A reset, not an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    runner = site.listener._runner.server
    assert runner is not None
    wait_until(lambda: not runner.connections)
    assert [it.getMessage() for it in caplog.records if it.levelno >= logging.WARNING] == []
