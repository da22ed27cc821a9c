"""Who may read: users, tokens, client certificates and limits, on real sockets."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
import yaml

from support.certificates import Authority
from support.websites import Site, write_tokens

TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key%s}\n"
CLIENT_CA = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt"


def test_guesses_made_at_once_are_all_counted_and_delay_nobody(serve: Callable[..., Site]) -> None:
    hashed = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
    site = serve(f"basic_auth_users: {{alice: {hashed}, bob: {hashed}}}\n")
    assert site.get(auth=("alice", "s3cret")).ok
    hashed_at_once: list[str] = []
    users = site.listener.web_config.users
    assert users is not None
    hold = threading.Event()

    def check(authorization: str) -> None:
        hashed_at_once.append(authorization)
        assert hold.wait(20)

    users.check = check  # type: ignore[method-assign,assignment]
    connections = []
    for number in range(100):
        connections.append(site.connect())
        guess = base64.b64encode(b"alice:%d" % number).decode()
        connections[-1].sendall(
            f"GET /metrics HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {guess}\r\n\r\n".encode()
        )
    # All but the first ten are answered while those ten still wait to be hashed.
    refused = 0
    for connection in connections[10:]:
        refused += connection.recv(12) == b"HTTP/1.1 429"
    assert refused == 90
    assert len(hashed_at_once) <= 2  # threads
    assert site.get("/", auth=("alice", "s3cret")).ok  # known to be right before
    hold.set()
    for connection in connections[:10]:
        assert connection.recv(12) == b"HTTP/1.1 401"
    for connection in connections:
        connection.close()
    assert len(hashed_at_once) == 10
    del users.check  # type: ignore[method-assign]
    # The guesses at one user do not keep another one behind the same proxy out.
    assert site.get(auth=("bob", "s3cret")).ok
    assert site.get(auth=("alice", "other")).status_code == 429


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "Credentials are missing: send a bearer token in the header `Authorization`."),
        ({"Authorization": "Bearer wrong"}, "The token is not valid"),
        ({"Authorization": "Basic YTpi"}, "These credentials cannot be used here"),
    ],
)
def test_missing_and_wrong_credentials_are_told_apart(
    serve: Callable[..., Site], tmp_path: Path, headers: dict[str, str], said: str
) -> None:
    tokens = tmp_path / "tokens"
    write_tokens(tokens, {"prometheus": ("read", "read-token")})
    site = serve(public_reading=False, tokens_file=tokens)
    answer = site.get(headers=headers)
    assert answer.status_code == 401
    assert said in answer.json()["detail"]


def test_all_requests_together_keep_the_rate_limit(serve: Callable[..., Site]) -> None:
    site = serve("rate_limit: {interval: 1h, burst: 3}\n")
    assert [site.get().status_code for _ in range(4)] == [200, 200, 200, 429]
    assert site.get("/-/healthy").ok


def test_a_client_with_an_ipv6_address_as_its_name_is_known(
    serve: Callable[..., Site], authority: Authority, tmp_path: Path
) -> None:
    site = serve(TLS % (CLIENT_CA + ', client_allowed_sans: ["::1"]'))
    for name, status in (("::1", 200), ("::2", 403)):
        pair = tuple(map(str, authority.issue("client", name)))
        answer = site.get(scheme="https", verify=str(tmp_path / "ca.crt"), cert=pair)
        assert answer.status_code == status


def test_certificates_may_stand_in_the_web_config(
    serve: Callable[..., Site], authority: Authority, tmp_path: Path
) -> None:
    section = {
        "cert": (tmp_path / "server.crt").read_text(),
        "key": (tmp_path / "server.key").read_text(),
        "client_ca": (tmp_path / "ca.crt").read_text(),
        "client_auth_type": "RequireAndVerifyClientCert",
    }
    site = serve(yaml.safe_dump({"tls_server_config": section}))
    pair = tuple(map(str, authority.issue("client", "client")))
    assert site.get(scheme="https", verify=str(tmp_path / "ca.crt"), cert=pair).ok


def test_a_blank_header_is_not_set(serve: Callable[..., Site]) -> None:
    site = serve('http_server_config: {headers: {X-Frame-Options: "", X-XSS-Protection: "0"}}\n')
    answer = site.get()
    assert "X-Frame-Options" not in answer.headers
    assert answer.headers["X-XSS-Protection"] == "0"
