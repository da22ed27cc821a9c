from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run
from support.pages import Client
from support.websites import write_tokens


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(running_run(), failed_run(), failed_run(HOSTILE))


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def client(source: FakeSource, settings: Settings) -> AsyncIterator[Client]:
    async with TestClient(TestServer(create_app(source, settings))) as client:
        yield client


@pytest.fixture
async def acting(source: FakeSource, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an exporter whose actions are on."""
    write_tokens(tmp_path / "tokens.yml", {"ops": ("act", "act-token")})
    app = create_app(source, Settings(tokens_file=tmp_path / "tokens.yml"))
    async with TestClient(TestServer(app)) as client:
        yield client
