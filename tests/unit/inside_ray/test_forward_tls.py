"""The route on Ray's dashboard to an exporter with TLS, users and client certificates."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest

from ray_workflow_exporter.settings.settings import Settings
from support.certificates import Authority
from support.forwarding import Client, point_to, problem
from support.waiting import wait_until
from support.websites import Site


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Start the exporter's server with TLS and more of a web config; point to it."""
    with contextlib.ExitStack() as sites:

        def start(more: str = "") -> Site:
            Authority(tmp_path).issue("server", "exporter.example")
            (tmp_path / "web.yml").write_text(
                "tls_server_config: {cert_file: server.crt, key_file: server.key" + more
            )
            site = Site(Settings(web_config_file=tmp_path / "web.yml"))
            sites.enter_context(site)
            tell(site, tmp_path)
            return site

        yield start


def tell(site: Site, folder: Path) -> None:
    web = site.listener.web_config
    more = {"fingerprint": web.fingerprint, "asks_certificate": web.asks_certificate}
    point_to(folder, f"https://127.0.0.1:{site.port}", **more)


async def test_tls_is_spoken_whatever_name_the_certificate_bears(
    dashboard: Client, secure: Callable[..., Site]
) -> None:
    secure("}")
    answer = await dashboard.get("/api/workflows")
    assert (answer.status, answer.headers["Server"]) == (200, "ray-workflow-exporter")


async def test_another_certificate_is_not_trusted_and_a_new_one_is_once_it_is_announced(
    dashboard: Client, secure: Callable[..., Site], tmp_path: Path
) -> None:
    site = secure("}")
    before = site.listener.web_config.fingerprint
    Authority(tmp_path).issue("server", "exporter.example")
    await asyncio.to_thread(wait_until, lambda: site.listener.web_config.fingerprint != before)
    status, detail = await problem(await dashboard.get("/api/workflows"))
    assert status == 503
    assert "has another certificate" in detail
    tell(site, tmp_path)
    assert (await dashboard.get("/api/workflows")).status == 200


async def test_users_of_the_web_config_come_in_by_their_password(
    dashboard: Client, secure: Callable[..., Site]
) -> None:
    hashed = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
    secure(f"}}\nbasic_auth_users: {{alice: {hashed}}}")
    answer = await dashboard.get("/api/workflows")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="ray-workflow-exporter"'
    for given, status in ((b"alice:wrong", 401), (b"alice:s3cret", 200)):
        headers = {"Authorization": f"Basic {base64.b64encode(given).decode()}"}
        assert (await dashboard.get("/api/workflows", headers=headers)).status == status


async def test_where_a_client_certificate_is_asked_for_the_answer_says_whom_to_ask(
    dashboard: Client, secure: Callable[..., Site]
) -> None:
    secure(", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt}")
    status, detail = await problem(await dashboard.get("/api/workflows"))
    assert status == 502
    assert "Use the exporter's own port." in detail
