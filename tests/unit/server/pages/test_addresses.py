"""Addresses of pages survive a proxy that decodes `%2F` in paths and removes `..` from them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from urllib.parse import quote, unquote

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run

Client = TestClient[Any, Any]
IDS = ("team/etl-2", "odd?x#y%41 z&k=v+w-3", "..", "a/tasks", "a//b", HOSTILE)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    source = FakeSource(*map(failed_run, IDS))
    async with TestClient(TestServer(create_app(source, Settings()))) as client:
        yield client


@pytest.mark.parametrize("workflow_id", IDS)
async def test_every_link_and_button_names_the_run_in_its_query(
    client: Client, workflow_id: str
) -> None:
    start = URL("/run").with_query(workflow_id=workflow_id)
    page = await (await client.get(start)).text()
    assert re.findall("<title>(.*?) · FAILED", page) or workflow_id == HOSTILE
    links = [unescape(it) for it in re.findall('(?:href|data-url)="([^"]*)"', page)]
    assert len(links) > 20
    found = 0
    for link in links:
        path, _, query = link.partition("?")
        assert unquote(path) == path, link
        assert ".." not in path
        if "workflow_id=" in query and not path.endswith(("cancel", "resume")):
            found += 1
            answer = await client.get(start.join(URL(link, encoded=True)))
            assert answer.status == 200, link
    assert found > 10


@pytest.mark.parametrize("decoded", [False, True])
async def test_an_id_in_the_path_works_with_decoded_slashes(client: Client, decoded: bool) -> None:
    path = "/workflows/" + quote("team/etl-2", safe="/" if decoded else "")
    answer = await client.get(URL(path, encoded=True))
    text = await answer.text()
    assert answer.status == 200
    assert "<h1>team/etl-2" in text
    # A browser took the id for one segment: what the page loads lies one above.
    assert 'src="../static/page.js' in text


async def test_a_run_that_is_not_named_is_an_error_page(client: Client) -> None:
    answer = await client.get("/run")
    assert answer.status == 400
    assert "`workflow_id` must be given once" in await answer.text()
