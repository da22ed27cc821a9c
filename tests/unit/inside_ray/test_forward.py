from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from ray_workflow_exporter.inside_ray import forward
from ray_workflow_exporter.inside_ray.forward import LARGEST_BODY
from support.forwarding import Client, point_to, problem
from support.ports import free_port
from support.waiting import wait_until

Start = Callable[[Callable[[web.Request], Any]], Any]


@pytest.fixture
async def exporter(tmp_path: Path) -> AsyncIterator[Start]:
    """Start an exporter that answers with a handler."""
    servers: list[TestServer] = []

    async def start(handler: Callable[[web.Request], Any]) -> None:
        app = web.Application(client_max_size=100 << 20)
        app.router.add_route("*", r"/{path:[\s\S]*}", handler)
        servers.append(TestServer(app))
        await servers[0].start_server()
        point_to(tmp_path, str(servers[0].make_url("")))

    yield start
    for server in servers:
        await server.close()


async def echo(request: web.Request) -> web.Response:
    """Tell what came."""
    came = {
        "method": request.method,
        "path": request.raw_path,
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "body": (await request.read()).decode(),
    }
    return web.json_response(came)


def raw(client: Client, path: str) -> URL:
    return URL(f"{client.make_url('')!s}".rstrip("/") + path, encoded=True)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "?status=FAILED&status=RUNNING&text=a%26b",
        "/",
        "/nightly%2Fetl%201",
        "/line%0Abreak/tasks",
        "/%7Bbraces%7D",
        "/100%25/tasks?x=%2F",
        "/%E4%B8%AD%E6%96%87",
        "/a+b;c=d",
    ],
)
async def test_path_and_query_arrive_as_they_were_sent(
    dashboard: Client, exporter: Start, rest: str
) -> None:
    await exporter(echo)
    answer = await dashboard.session.get(raw(dashboard, f"/api/workflows{rest}"))
    assert (await answer.json())["path"] == f"/api/v1/workflows{rest}"


async def test_no_other_path_is_forwarded(dashboard: Client, exporter: Start) -> None:
    await exporter(echo)
    for path in ("/api/workflowsx", "/api/v1/workflows", "/metrics", "/api/workflow"):
        assert (await dashboard.get(path)).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/api/%77orkflows/a",
        "/api/workflows/../../../metrics",
        "/api/workflows/.",
        "/api/workflows/%2e%2e/%2E%2E/metrics",
        "/api/workflows/a%2F..%2Fb",
    ],
)
async def test_a_path_that_leads_elsewhere_is_not_forwarded(
    dashboard: Client, exporter: Start, path: str
) -> None:
    await exporter(echo)
    assert (await dashboard.session.get(raw(dashboard, path))).status == 404


async def test_a_packed_body_arrives_unpacked_and_says_so(
    dashboard: Client, exporter: Start
) -> None:
    await exporter(echo)
    packed, headers = gzip.compress(b'{"why": 1}'), {"Content-Encoding": "gzip"}
    answer = await dashboard.post("/api/workflows/a/cancel", data=packed, headers=headers)
    came = await answer.json()
    assert came["body"] == '{"why": 1}'
    assert "content-encoding" not in came["headers"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_is_forwarded_with_its_body(
    dashboard: Client, exporter: Start, method: str
) -> None:
    await exporter(echo)
    answer = await dashboard.request(method, "/api/workflows/a/cancel", data=b"why: because")
    came = await answer.json()
    assert (came["method"], came["body"]) == (method, "why: because")


async def test_a_head_request_has_an_answer_without_body(
    dashboard: Client, exporter: Start
) -> None:
    await exporter(echo)
    answer = await dashboard.head("/api/workflows")
    assert (answer.status, await answer.read()) == (200, b"")
    assert (await dashboard.get("/api/workflows")).status == 200


async def test_the_callers_token_is_passed_on_and_what_is_of_the_connection_is_not(
    dashboard: Client, exporter: Start
) -> None:
    await exporter(echo)
    sent = {
        "Authorization": "Bearer secret",
        "If-None-Match": '"1"',
        "Idempotency-Key": "k",
        "Connection": "keep-alive, X-Private",
        "X-Private": "1",
        "TE": "trailers",
        "Proxy-Authorization": "Basic x",
        "Upgrade": "h2c",
    }
    came = (await (await dashboard.get("/api/workflows", headers=sent)).json())["headers"]
    assert came["authorization"] == "Bearer secret"
    assert came["if-none-match"] == '"1"'
    assert came["idempotency-key"] == "k"
    assert came.keys().isdisjoint({"x-private", "te", "proxy-authorization", "upgrade"})
    assert came["host"] != str(dashboard.make_url("").authority)


async def test_nothing_is_added_to_what_the_caller_accepts(
    dashboard: Client, exporter: Start
) -> None:
    await exporter(echo)
    skip = ("Accept", "Accept-Encoding", "User-Agent")
    answer = await dashboard.get("/api/workflows", skip_auto_headers=skip)
    came = (await answer.json())["headers"]
    assert came.keys().isdisjoint({"accept", "accept-encoding", "user-agent"})


async def test_the_answer_comes_back_as_it_is(dashboard: Client, exporter: Start) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(
            status=202,
            body=gzip.compress(b"accepted"),
            headers={
                "Content-Encoding": "gzip",
                "ETag": '"7"',
                "Location": "/api/v1/actions/7",
                "Keep-Alive": "timeout=5",
            },
        )

    await exporter(answer)
    came = await dashboard.get("/api/workflows/a/cancel", allow_redirects=False)
    assert (came.status, await came.read()) == (202, b"accepted")
    assert came.headers["ETag"] == '"7"'
    assert came.headers["Content-Encoding"] == "gzip"
    assert "Keep-Alive" not in came.headers


async def test_a_redirect_is_the_callers_to_follow(dashboard: Client, exporter: Start) -> None:
    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://192.0.2.1/")

    await exporter(away)
    answer = await dashboard.get("/api/workflows", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (302, "http://192.0.2.1/")


async def test_a_large_answer_is_not_kept_in_memory(dashboard: Client, exporter: Start) -> None:
    over = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await over.wait()
        await response.write(b"last")
        return response

    await exporter(endless)
    answer = await dashboard.get("/api/workflows")
    assert await answer.content.readany() == b"first"
    over.set()
    assert await answer.read() == b"last"


async def test_a_body_beyond_the_limit_is_refused(dashboard: Client, exporter: Start) -> None:
    await exporter(echo)
    fits = await dashboard.post("/api/workflows/a", data=b"x" * LARGEST_BODY)
    assert len((await fits.json())["body"]) == LARGEST_BODY
    refused = await dashboard.post("/api/workflows/a", data=io.BytesIO(b"x" * (LARGEST_BODY + 1)))
    assert await problem(refused) == (413, "The body of a request is limited to 1048576 bytes.")


async def test_a_body_that_does_not_come_is_not_waited_for(
    dashboard: Client, exporter: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_BODY_SECONDS", 0.1)
    await exporter(echo)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    answer = await dashboard.post("/api/workflows/a", data=slowly())
    assert await problem(answer) == (408, "The body did not arrive within 0.1 s.")


async def test_a_body_that_is_not_packed_as_it_says_is_refused(
    dashboard: Client, exporter: Start
) -> None:
    await exporter(echo)
    headers = {"Content-Encoding": "deflate"}
    answer = await dashboard.post("/api/workflows/a", data=b"not packed", headers=headers)
    assert await problem(answer) == (400, "The body is not encoded as its headers say.")


async def test_a_client_that_takes_nothing_is_cut_off(
    dashboard: Client, exporter: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 16))
        finally:
            ended.set()

    monkeypatch.setattr(forward, "_WRITE_SECONDS", 0.2)
    await exporter(endless)
    url = dashboard.make_url("")
    with socket.create_connection((str(url.host), url.port or 0)) as client:
        client.sendall(b"GET /api/workflows HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(ended.wait(), 30)
        with contextlib.suppress(ConnectionError):
            while part := await asyncio.to_thread(client.recv, 1 << 20):
                last = part
        assert not last.endswith(b"0\r\n\r\n")  # nobody takes it for a whole answer


async def test_a_client_that_leaves_is_no_fault(
    dashboard: Client, exporter: Start, caplog: pytest.LogCaptureFixture
) -> None:
    left, ended = asyncio.Event(), asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await response.write(b"first")
            await left.wait()
            while True:
                await response.write(bytes(1 << 16))
        finally:
            ended.set()

    await exporter(endless)
    answer = await dashboard.get("/api/workflows")
    assert await answer.content.readany() == b"first"
    answer.close()
    left.set()
    await asyncio.wait_for(ended.wait(), 30)
    assert "Traceback" not in caplog.text


async def test_without_an_exporter_the_answer_says_so(dashboard: Client) -> None:
    status, detail = await problem(await dashboard.get("/api/workflows"))
    assert status == 503
    assert detail.startswith("The workflow exporter is not running.")


async def test_an_exporter_that_is_gone_is_not_a_fault_of_the_dashboard(
    dashboard: Client, tmp_path: Path
) -> None:
    point_to(tmp_path, f"http://127.0.0.1:{free_port()}")
    status, detail = await problem(await dashboard.get("/api/workflows"))
    assert (status, detail) == (
        503,
        "The workflow exporter cannot be reached; it may be starting.",
    )


async def test_no_connection_is_left(dashboard: Client, exporter: Start, tmp_path: Path) -> None:
    async def ask() -> int:
        answer = await dashboard.get("/api/workflows")
        await answer.read()
        return answer.status

    await exporter(echo)
    assert await ask() == 200
    before = psutil.Process().num_fds()
    assert [await ask() for _ in range(5)] == [200] * 5
    point_to(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert [await ask() for _ in range(5)] == [503] * 5
    await asyncio.to_thread(wait_until, lambda: psutil.Process().num_fds() <= before)


async def test_an_exporter_that_is_silent_is_given_up(
    dashboard: Client, exporter: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()

    async def silent(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    monkeypatch.setattr(forward, "_TIMEOUT", aiohttp.ClientTimeout(total=None, sock_read=0.2))
    await exporter(silent)
    answer = await dashboard.get("/api/workflows")
    assert await problem(answer) == (504, "The workflow exporter did not answer in time.")
    over.set()


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(
    dashboard: Client, exporter: Start
) -> None:
    async def torn(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport
        request.transport.abort()
        return response

    await exporter(torn)
    answer = await dashboard.get("/api/workflows")
    with pytest.raises(aiohttp.ClientError):
        await answer.read()
