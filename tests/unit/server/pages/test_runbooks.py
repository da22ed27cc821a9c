"""The runbooks as pages: each alert has one, links work, and nothing of a file is raw HTML."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.server.pages import runbooks
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import FakeSource
from support.websites import write_tokens

Client = TestClient[Any, Any]
DOCS = Path(__file__).parents[4] / "docs" / "runbooks"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(create_app(FakeSource(), Settings()))) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(runbooks, "_FOLDER", tmp_path)
    runbooks.page.cache_clear()
    yield tmp_path
    runbooks.page.cache_clear()


async def test_each_runbook_is_a_page_whose_links_work(client: Client) -> None:
    index = await (await client.get("/runbooks/index")).text()
    names = sorted(path.stem for path in DOCS.glob("*.md"))
    assert len(names) >= 20
    assert re.findall(r'<li><a href="(\w+)">', index) == names
    for name in names:
        answer = await client.get(f"/runbooks/{name}")
        text = await answer.text()
        assert answer.status == 200
        assert f"<h1>{name}</h1>" in text
        assert "<h2>Mitigation</h2>" in text
        for link in re.findall(r'<a href="([^":?#]+)"', text.split("<article")[1]):
            assert link in names, f"{name}: {link}"


@pytest.mark.parametrize("name", ["None", "..%2F..%2FREADME", "%2Fetc%2Fpasswd", "index.md", "\0"])
async def test_other_names_are_no_files(client: Client, name: str) -> None:
    answer = await client.get(f"/runbooks/{name}")
    assert answer.status == 404


def test_nothing_of_a_file_is_raw_html(folder: Path) -> None:
    (folder / "A.md").write_text(
        "# A\n\n<script>alert(1)</script> <b onclick=x>b</b> [bad](javascript:alert(1)) "
        "![x](http://a.example/x.png)\n\n| a | b |\n|---|---|\n| <i>1</i> | 2 |\n"
    )
    found = runbooks.page("A") or ""
    assert "&lt;script&gt;" in found
    assert "<table>" in found
    assert not re.search(r"<(script|b|i)\b|href=.javascript", found)


def test_links_to_other_files_are_plain_text(folder: Path) -> None:
    (folder / "A.md").write_text("[B](B.md#x) [alerts](../alerts.md) [web](https://a.example/)")
    (folder / "B.md").write_text("# B\n")
    found = runbooks.page("A") or ""
    assert '<a href="B">B</a>' in found
    assert "<span>alerts</span>" in found
    assert '<a href="https://a.example/">web</a>' in found


async def test_runbooks_are_as_public_as_the_rest(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", {"reader": ("read", "read-token")})
    settings = Settings(public_reading=False, tokens_file=tmp_path / "tokens")
    async with TestClient(TestServer(create_app(FakeSource(), settings))) as client:
        path = "/runbooks/RayWorkflowStalled"
        assert (await client.get(path)).status == 401
        token = {"Authorization": "Bearer read-token"}
        assert (await client.get(path, headers=token)).status == 200
