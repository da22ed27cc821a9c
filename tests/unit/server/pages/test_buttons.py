"""The buttons of the pages: which there are, and what they ask."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Optional

import pytest
from aiohttp.test_utils import TestClient, TestServer

from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.records import LinkState, ManagerView
from support.fake_source import FakeSource, failed_run
from support.pages import Client, Page, get, of


def labels(page: Page) -> list[Optional[str]]:
    return [it["data-label"] for it in page.all("button") if "data-url" in it]


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (RunStatus.PENDING, ["Cancel when it starts"]),
        (RunStatus.RUNNING, ["Cancel"]),
        (RunStatus.RESUMABLE, ["Cancel", "Resume", "Delete"]),
        (RunStatus.FAILED, ["Resume", "Delete"]),
        (RunStatus.CANCELED, ["Resume", "Delete"]),
        (RunStatus.SUCCESSFUL, ["Delete"]),
    ],
)
async def test_only_what_makes_sense_is_offered(
    acting: Client, source: FakeSource, status: RunStatus, found: list[str]
) -> None:
    run = replace(failed_run("a/run"), status=status)
    source.held = FakeSource(run).held
    page = await get(acting, of("a/run"))
    assert labels(page) == found
    for it in page.all("button"):
        if "data-url" in it:
            assert (it["data-url"] or "").startswith("../api/v1/run")
            assert "disabled" not in it
    together = labels(await get(acting, "/"))
    assert together == (["Resume the RESUMABLE run"] if status is RunStatus.RESUMABLE else [])


async def test_each_action_tells_the_command_that_does_the_same(
    acting: Client, source: FakeSource
) -> None:
    async def commands(status: RunStatus) -> list[str]:
        source.held = FakeSource(replace(failed_run("a run"), status=status)).held
        source.change("a run", status.value)
        text = (await get(acting, of("a run"))).text
        return re.findall(r"ray-workflow-exporter (\w+ 'a run'[a-z -]*)", text)

    assert await commands(RunStatus.PENDING) == ["cancel 'a run' --address auto --when-started"]
    assert await commands(RunStatus.FAILED) == [
        "resume 'a run' --address auto",
        "delete 'a run' --address auto",
    ]


async def test_buttons_say_why_they_do_not_work(
    client: Client, acting: Client, source: FakeSource, tmp_path: Path
) -> None:
    async def shown(client: Client) -> str:
        page = await get(client, of("train-7"))
        assert ["disabled" in it for it in page.all("button") if "data-url" in it] == [True]
        return page.text

    assert "start the exporter with --tokens-file" in await shown(client)
    settings = Settings(
        tokens_file=tmp_path / "tokens.yml", listen=":1", actions_listen="127.0.0.1:2"
    )
    async with TestClient(TestServer(create_app(source, settings, acts=False))) as reading:
        assert "served at another address" in await shown(reading)
    source.manager = ManagerView(LinkState.UNREACHABLE, reason="The cluster is gone.")
    assert "Ray cannot be reached. The cluster is gone." in await shown(acting)
