"""What is not an exporter, or not a good one, at the other end of the connection."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from ray_workflow_exporter.actions import Verb
from ray_workflow_exporter.client import connection
from ray_workflow_exporter.client.connection import Connection
from ray_workflow_exporter.client.http_reader import HttpReader
from ray_workflow_exporter.client.reader import RefusedActionError, UnreachableError
from support.certificates import Authority

Answer = tuple[int, bytes]
ONE = {
    "items": [
        {
            "workflow_id": "etl",
            "status": "RUNNING",
            "start_time": None,
            "end_time": None,
            "last_transition": None,
        }
    ]
}


class Server(ThreadingHTTPServer):
    """Gives every request the same answer, and notes what was asked over which connection."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.asked: list[tuple[str, str, Any]] = []
        self.peers: list[int] = []
        self.hang_up_after = 0  # requests over one connection; 0: never
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    answered = 0

    def answer(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        self.server.peers.append(self.client_address[1])
        if self.server.hang_up_after and self.answered == self.server.hang_up_after:
            self.close_connection = True
            return
        self.answered += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Any, int], Server]]:
    servers = []

    def start(content: Any, status: int = 200) -> Server:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        server = Server((status, body))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def read() -> Iterator[Callable[..., HttpReader]]:
    readers = []

    def connect(url: str, token: Optional[str] = None) -> HttpReader:
        readers.append(HttpReader(url, token))
        return readers[-1]

    yield connect
    for reader in readers:
        reader.close()


CALLS: dict[str, Callable[[HttpReader], object]] = {
    "runs": lambda reader: reader.runs(),
    "run": lambda reader: reader.run("etl"),
    "tasks": lambda reader: reader.tasks("etl"),
    "cancel": lambda reader: reader.order(Verb.CANCEL, "etl", {}),
    "delete": lambda reader: reader.order(Verb.DELETE, "etl", {}),
    "resume all": lambda reader: reader.order(Verb.RESUME_ALL, None, {}),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"detail": "Not Found"}, 404),
        ({"message": "no such route"}, 404),
        ([], 404),
        (b"<html>404</html>", 404),
        (b"<html>hello</html>", 200),
        ([1, 2], 200),
        ("text", 200),
        (None, 200),
        ({}, 302),
        (b"", 204),
    ],
)
def test_a_server_that_is_no_exporter_is_named_in_one_sentence(
    read: Callable[..., HttpReader],
    serve: Callable[..., Server],
    call: str,
    content: Any,
    status: int,
) -> None:
    server = serve(content, status)
    with pytest.raises(UnreachableError) as caught:
        CALLS[call](read(server.url))
    assert str(caught.value) == f"The server at {server.url} is not an exporter."


@pytest.mark.parametrize("call", [it for it in CALLS if it != "tasks"])
def test_so_is_one_whose_objects_are_others(
    read: Callable[..., HttpReader], serve: Callable[..., Server], call: str
) -> None:
    server = serve({"items_of_another_api": []})
    with pytest.raises(UnreachableError, match="is not an exporter"):
        CALLS[call](read(server.url))


def test_the_reason_of_a_refusal_is_kept(
    read: Callable[..., HttpReader], serve: Callable[..., Server]
) -> None:
    server = serve({"detail": "This token may only read."}, 403)
    with pytest.raises(RefusedActionError, match=r"answered: This token may only read\.$"):
        read(server.url).order(Verb.CANCEL, "etl", {})
    with pytest.raises(UnreachableError, match="answered: 503"):
        read(serve({}, 503).url).runs()


def test_one_connection_serves_many_requests(
    read: Callable[..., HttpReader], serve: Callable[..., Server]
) -> None:
    server = serve(ONE)
    reader = read(server.url)
    for _ in range(3):
        reader.runs()
    assert len(server.peers) == 3
    assert len(set(server.peers)) == 1


def test_a_connection_that_ended_while_idle_is_opened_again_for_reading(
    read: Callable[..., HttpReader],
    serve: Callable[..., Server],
) -> None:
    server = serve(ONE)
    server.hang_up_after = 1
    reader = read(server.url)
    reader.runs()
    reader.runs()
    assert len(server.asked) == 3
    assert len(set(server.peers)) == 2


def test_an_action_is_never_sent_twice(
    read: Callable[..., HttpReader], serve: Callable[..., Server]
) -> None:
    server = serve(ONE)
    server.hang_up_after = 1
    reader = read(server.url)
    reader.runs()
    server.answer = (202, b'{"action_id": "a"}')
    assert reader.order(Verb.CANCEL, "etl", {}) == {"action_id": "a"}
    assert [method for method, *_ in server.asked] == ["GET", "POST"]
    assert len(set(server.peers)) == 2


def test_a_token_stands_before_the_user_of_the_url(
    read: Callable[..., HttpReader], serve: Callable[..., Server]
) -> None:
    server = serve(ONE)
    with_user = server.url.replace("http://", "http://ann:s%20x@")
    read(with_user).runs()
    read(with_user, "secret").runs()
    assert [it[2] for it in server.asked] == ["Basic YW5uOnMgeA==", "Bearer secret"]


def test_a_url_may_have_a_path_and_an_id_any_character(
    read: Callable[..., HttpReader], serve: Callable[..., Server]
) -> None:
    server = serve({"workflow_id": "x"})
    read(server.url + "/prefix/").run("a/b?c#d%ü\udcff")
    assert server.asked[0][1] == "/prefix/api/v1/run?workflow_id=a%2Fb%3Fc%23d%25%C3%BC%FF"


def test_a_proxy_of_the_environment_is_asked_but_for_this_machine(
    read: Callable[..., HttpReader], serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(ONE)
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.url)
    read("http://exporter.invalid:20729").runs()
    assert proxy.asked[0][1].startswith("http://exporter.invalid:20729/api/v1/workflows?")
    local = serve(ONE)
    read(local.url).runs()
    assert (len(proxy.asked), len(local.asked)) == (1, 1)
    monkeypatch.setenv("no_proxy", "exporter.invalid")
    with pytest.raises(UnreachableError, match="No exporter answers"):
        read("http://exporter.invalid:20729").runs()
    assert len(proxy.asked) == 1


def test_one_that_does_not_answer_has_a_deadline(
    read: Callable[..., HttpReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(connection.Connection.request, "__defaults__", (None, None, 0.1))
        with pytest.raises(UnreachableError, match="did not answer in time"):
            read(url).runs()


def test_tls_is_verified_and_its_fault_is_said(
    read: Callable[..., HttpReader],
    serve: Callable[..., Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Authority(tmp_path).issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server = serve(ONE)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    with pytest.raises(UnreachableError, match=r"cannot be verified: .*SSL_CERT_FILE"):
        read(url).runs()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    assert len(read(url).runs()) == 1
    plain = serve({})
    with pytest.raises(UnreachableError, match="No TLS server answers at https://127"):
        read(plain.url.replace("http:", "https:")).runs()


@pytest.mark.parametrize("url", ["localhost:20729", "nonsense", "", "ftp://x", "http://", "http:x"])
def test_what_is_no_url_is_said_with_an_example(url: str) -> None:
    with pytest.raises(UnreachableError) as caught:
        HttpReader(url)
    assert str(caught.value) == (
        "The URL must begin with http:// or https://, such as http://127.0.0.1:20729."
    )


def test_a_port_that_is_none_is_said_too() -> None:
    with pytest.raises(UnreachableError, match="The URL is not a URL"):
        HttpReader("http://host:port")
    with pytest.raises(ValueError, match="must begin"):
        Connection("localhost:1")
