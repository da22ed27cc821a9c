"""The server on real sockets: TLS that rotates, users, certificates, and hostile clients."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import bcrypt
import pytest
import requests

from ray_workflow_exporter.server import listening
from ray_workflow_exporter.server.api import events
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.server.auth import gate as security
from ray_workflow_exporter.server.auth.gate import Gate
from ray_workflow_exporter.server.listening import Listener
from ray_workflow_exporter.settings.settings import Settings, SettingsError
from support.certificates import Authority
from support.fake_source import FakeSource
from support.ports import free_port
from support.waiting import wait_until
from support.websites import Site, write_tokens

TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key%s}\n"
CLIENT_CA = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt"


def serial(site: Site, authority: Authority) -> str:
    """Return the serial number of the certificate that the server shows."""
    with authority.client().wrap_socket(site.connect(), server_hostname="127.0.0.1") as tls:
        certificate = tls.getpeercert()
        assert certificate
        return str(certificate["serialNumber"])


def test_tls_is_spoken_and_nothing_else(
    serve: Callable[..., Site], authority: Authority, tmp_path: Path
) -> None:
    site = serve(TLS % "")
    answer = site.get(scheme="https", verify=str(tmp_path / "ca.crt"))
    assert answer.text == "ray_workflow_storage_up 1\n"
    with pytest.raises(requests.ConnectionError):
        site.get()
    old = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with old.wrap_socket(site.connect(), server_hostname="127.0.0.1") as tls:
        assert tls.version() == "TLSv1.2"


def test_a_certificate_is_renewed_while_clients_are_connected(
    serve: Callable[..., Site], authority: Authority, tmp_path: Path
) -> None:
    site = serve(TLS % "")
    before = serial(site, authority)
    with requests.Session() as session:
        session.trust_env, session.verify = False, str(tmp_path / "ca.crt")
        url = f"https://127.0.0.1:{site.port}/metrics"
        assert session.get(url, timeout=20).ok
        authority.issue("server")
        wait_until(lambda: serial(site, authority) != before)
        assert session.get(url, timeout=20).ok


def test_a_renewal_that_is_wrong_leaves_the_last_good_one(
    serve: Callable[..., Site],
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = serve(TLS % "")
    before = serial(site, authority)
    (tmp_path / "web.yml").write_text("tls_server_config: hunter2")
    wait_until(lambda: "The last good one is still used." in caplog.text)
    assert serial(site, authority) == before
    assert "hunter2" not in caplog.text
    (tmp_path / "web.yml").write_text(TLS % "")
    authority.issue("server")
    wait_until(lambda: serial(site, authority) != before)


def test_a_client_refuses_an_expired_certificate(
    serve: Callable[..., Site], authority: Authority, tmp_path: Path
) -> None:
    authority.issue("server", expired=True)
    site = serve(TLS % "")
    with pytest.raises(requests.exceptions.SSLError, match="certificate has expired"):
        site.get(scheme="https", verify=str(tmp_path / "ca.crt"))


def test_clients_show_a_certificate_that_is_good(
    serve: Callable[..., Site], authority: Authority, tmp_path: Path
) -> None:
    site = serve(TLS % CLIENT_CA)
    good = authority.issue("good", "prometheus.example")
    expired = authority.issue("expired", "prometheus.example", expired=True)
    (tmp_path / "elsewhere").mkdir()
    foreign = Authority(tmp_path / "elsewhere").issue("foreign")
    ca = str(tmp_path / "ca.crt")

    def status(pair: Optional[tuple[Path, Path]]) -> int:
        cert = tuple(map(str, pair)) if pair else None
        return site.get("/-/ready", scheme="https", verify=ca, cert=cert).status_code

    assert status(good) == 200
    for bad in (None, expired, foreign):
        with pytest.raises((requests.ConnectionError, requests.exceptions.SSLError)):
            status(bad)


def test_only_named_clients_get_in(
    serve: Callable[..., Site], authority: Authority, tmp_path: Path
) -> None:
    site = serve(TLS % (CLIENT_CA + ", client_allowed_sans: [prometheus.example]"))
    for name, status in (("prometheus.example", 200), ("other.example", 403)):
        pair = tuple(map(str, authority.issue(name, name)))
        answer = site.get(scheme="https", verify=str(tmp_path / "ca.crt"), cert=pair)
        assert answer.status_code == status


def test_users_have_to_give_their_password(serve: Callable[..., Site]) -> None:
    hashed = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
    site = serve(f"basic_auth_users: {{alice: {hashed}}}\n")
    assert site.get(auth=("alice", "s3cret")).ok
    assert site.get("/", auth=("alice", "s3cret")).ok
    for auth in (None, ("alice", "wrong"), ("bob", "s3cret")):
        answer = site.get(auth=auth)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="ray-workflow-exporter"'
        assert "workflow_up" not in answer.text
    tried = site.get(headers={"Authorization": "Bearer wrong"})  # by the page's buttons
    assert tried.headers["WWW-Authenticate"] == 'Bearer realm="ray-workflow-exporter"'
    assert site.get("/-/healthy").ok  # which tells nothing
    guesses = [site.get(auth=("alice", str(number))).status_code for number in range(12)]
    assert guesses[-1] == 429
    assert site.get(auth=("alice", "s3cret")).ok  # known to be right before


def test_headers_of_the_web_config_are_sent(serve: Callable[..., Site]) -> None:
    site = serve("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    for path in ("/metrics", "/nowhere"):
        assert site.get(path).headers["X-Frame-Options"] == "deny"


def test_reading_may_be_closed_to_all_without_a_token(
    serve: Callable[..., Site], tmp_path: Path
) -> None:
    write_tokens(tmp_path / "tokens", {"prometheus": ("read", "read-token")})
    site = serve(public_reading=False, tokens_file=tmp_path / "tokens")
    for path in ("/", "/metrics", "/api/v1/workflows", "/api/v1/events", "/nowhere"):
        assert site.get(path).status_code == 401
    assert site.get(headers={"Authorization": "Bearer read-token"}).ok
    assert site.get(headers={"Authorization": "Bearer other"}).status_code == 401


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"public_reading": False}, "With public_reading off, nobody could read"),
        ({"actions_listen": ":1"}, "actions_listen needs a tokens_file"),
        ({"tokens_file": "/nowhere/tokens"}, "The tokens file /nowhere/tokens cannot be read"),
        ({"web_config_file": "/nowhere/web"}, "The web config /nowhere/web cannot be read"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Gate(Settings.load(None, {}, settings))


# --- hostile clients


def test_who_never_says_what_it_wants_is_let_go(
    serve: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "FIRST_REQUEST_SECONDS", 0.5)
    site = serve()
    silent, slow = site.connect(), site.connect()
    with silent, slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert silent.recv(1) == b""
        assert slow.recv(1) == b""
    assert site.get().ok


def test_a_body_that_never_comes_is_not_waited_for(
    serve: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(security, "BODY_SECONDS", 0.3)
    write_tokens(tmp_path / "tokens", {"ops": ("act", "act-token")})
    site = serve(tokens_file=tmp_path / "tokens")
    with site.connect() as slow:
        slow.sendall(
            b"POST /api/v1/workflows/train-7/cancel HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer act-token\r\nContent-Length: 100\r\n\r\n{"
        )
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    assert site.source.acted == []


@pytest.mark.parametrize("body", [gzip.compress(b" " * 50_000_000), b"no gzip"])
def test_a_body_that_grows_or_cannot_be_unpacked_is_refused(
    serve: Callable[..., Site], tmp_path: Path, body: bytes
) -> None:
    write_tokens(tmp_path / "tokens", {"ops": ("act", "act-token")})
    site = serve(tokens_file=tmp_path / "tokens")
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f"http://127.0.0.1:{site.port}/api/v1/workflows/train-7/cancel",
            data=body,
            headers={"Authorization": "Bearer act-token", "Content-Encoding": "gzip"},
            timeout=20,
        )
    assert 400 <= answer.status_code < 500
    assert site.source.acted == []


def test_who_takes_nothing_of_an_answer_is_cut_off(
    serve: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SILENT_SECONDS", 1)
    site = serve()
    site.source.body = b"ray_workflow_storage_up 1\n" * 2_000_000
    with site.connect() as stuck:
        stuck.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        server = site.listener._runner.server
        assert server
        wait_until(lambda: server.connections)
        wait_until(lambda: not server.connections)
    site.source.body = b"ray_workflow_storage_up 1\n"
    assert site.get().ok


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/v1/workflows/a\nb HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0",
    ],
)
def test_what_is_no_proper_request_is_refused(
    serve: Callable[..., Site], request_line: bytes
) -> None:
    site = serve()
    with site.connect() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(request_line)
        with contextlib.suppress(ConnectionError):
            answer = client.recv(64)
            assert answer == b"" or answer.split()[1].startswith(b"4")
    assert site.get().ok


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/workflows/..%2F..%2F..%2Fetc%2Fpasswd",
        "/api/v1/workflows/%2e%2e/tasks",
        "/api/v1/workflows/%00",
        "/api/v1/workflows/%0d%0aSet-Cookie:%20a=b",
        "/api/v1/workflows/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/api/v1/workflows/%FF%FE",
        "/api/v1/workflows?text=%3Cscript%3E&limit=%0a",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
        "/metrics?tier=%3Cscript%3E",
    ],
)
def test_what_is_asked_is_not_reflected(serve: Callable[..., Site], path: str) -> None:
    answer = serve().get(path)
    assert 400 <= answer.status_code < 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Set-Cookie" not in answer.headers
    for word in ("script", "passwd", "alert"):
        assert word not in answer.text


def test_more_connections_than_allowed_are_closed_at_once(
    serve: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 5)
    site = serve()
    with contextlib.ExitStack() as clients:
        for _ in range(5):
            client = clients.enter_context(site.connect())
            client.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert clients.enter_context(site.connect()).recv(1) == b""
    wait_until(lambda: _answers(site))


def _answers(site: Site) -> bool:
    try:
        return site.get().ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have as many files as it may: both ends of every connection are here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_readers_of_events_are_told_and_the_server_lives(
    serve: Callable[..., Site], many_files: None
) -> None:
    readers = events.MAX_CLIENTS
    assert readers == 1000
    site = serve()
    ask = b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as clients:
        connected = []
        for _ in range(readers):
            client = clients.enter_context(site.connect())
            client.sendall(ask)
            connected.append(client)
        for client in connected:
            read_until(client, b"event: ready")
        assert site.get("/api/v1/events").status_code == 503
        site.source.change("train-7", "FAILED")
        for client in connected:
            assert b"train-7" in read_until(client, b'"FAILED"')
        assert site.get().ok
    wait_until(lambda: _place_is_free(site))


def read_until(client: socket.socket, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        more = client.recv(65536)
        assert more, found
        found += more
    return found


def _place_is_free(site: Site) -> bool:
    with site.get("/api/v1/events", stream=True) as answer:
        return answer.ok


def test_a_reader_that_takes_nothing_is_cut_off_and_delays_nobody(
    serve: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STUCK_SECONDS", 1.0)
    site = serve()
    with site.connect() as stuck, site.connect() as lively:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        lively.sendall(b"GET /api/v1/events?workflow_id=last HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(lively, b"event: ready")
        for number in range(9_000):  # more than all buffers hold
            site.source.change(f"{number} " + "x" * 900, "RUNNING")
        site.source.change("last", "RUNNING")
        read_until(lively, b'"last"')
        feed = site.listener._app[events.FEED]
        wait_until(lambda: feed.clients == 1)
        assert site.get().ok


@pytest.mark.parametrize("host", ["[::]", ""])
def test_all_addresses_are_ipv4_and_ipv6(host: str) -> None:
    async def reached() -> list[str]:
        gate = Gate(Settings())
        app = create_app(FakeSource(), Settings(), gate)
        port = free_port()
        async with Listener(app, gate, f"{host}:{port}"):
            found = []
            for address in ("127.0.0.1", "::1"):
                _, writer = await asyncio.open_connection(address, port)
                writer.close()
                found.append(address)
            return found

    assert asyncio.run(reached()) == ["127.0.0.1", "::1"]
