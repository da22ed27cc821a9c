"""Server-sent events over real HTTP: what is told, what a reader that comes back gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Optional

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from ray_workflow_exporter.server.api import events
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, running_run

Client = TestClient[Any, Any]
PATH = "/api/v1/events"
SECONDS = 20.0


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(running_run())


@pytest.fixture
async def client(source: FakeSource) -> AsyncIterator[Client]:
    async with TestClient(TestServer(create_app(source, Settings()))) as client:
        yield client


class Reader:
    """Reads a stream as a browser does, by the lines of the standard."""

    def __init__(self, answer: ClientResponse) -> None:
        self.answer = answer
        self.last: Optional[str] = None

    async def next(self) -> tuple[str, dict[str, Any]]:
        """Return kind and data of the next event."""
        fields: dict[str, str] = {}
        while True:
            line = await asyncio.wait_for(self.answer.content.readline(), SECONDS)
            assert line, "the stream ended"
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                self.last = fields["id"]
                return fields["event"], json.loads(fields["data"])


@asynccontextmanager
async def reading(client: Client, last: Optional[str] = None, query: str = "") -> Any:
    headers = {"Last-Event-ID": last} if last else {}
    async with client.get(PATH + query, headers=headers) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Reader(answer)


async def test_changes_are_told_as_they_come(client: Client, source: FakeSource) -> None:
    async with reading(client) as reader:
        assert await reader.next() == ("ready", {})
        source.change("train-7", "RUNNING", "fit")
        source.change("train-7", "FAILED")
        source.change("train-7", None)
        assert await reader.next() == (
            "task",
            {"workflow_id": "train-7", "task_id": "fit", "state": "RUNNING", "time": 7.5},
        )
        assert await reader.next() == (
            "run",
            {"workflow_id": "train-7", "status": "FAILED", "time": 7.5},
        )
        assert await reader.next() == ("gone", {"workflow_id": "train-7"})


async def test_a_hostile_id_stays_within_its_event(client: Client, source: FakeSource) -> None:
    async with reading(client) as reader:
        await reader.next()
        source.change(HOSTILE + "\n\nevent: run\ndata: {}\n\n", "RUNNING")
        source.change("after", "RUNNING")
        kind, data = await reader.next()
        assert (kind, data["workflow_id"][: len(HOSTILE)]) == ("run", HOSTILE)
        assert (await reader.next())[1]["workflow_id"] == "after"


async def test_a_reader_that_comes_back_misses_nothing(client: Client, source: FakeSource) -> None:
    async with reading(client) as reader:
        await reader.next()
        source.change("a", "RUNNING")
        await reader.next()
    for workflow_id in "bcd":
        source.change(workflow_id, "RUNNING")
    async with reading(client, reader.last) as again:
        assert [(await again.next())[1]["workflow_id"] for _ in "bcd"] == ["b", "c", "d"]


@pytest.mark.parametrize("last", ["otherfeed-0", "x", "-", "another-99999999999999999999", "é-²"])
async def test_a_reader_of_an_earlier_life_is_told_to_read_anew(
    client: Client, source: FakeSource, last: str
) -> None:
    async with reading(client, last) as reader:
        assert await reader.next() == ("reset", {})
        source.change("a", "RUNNING")
        assert (await reader.next())[1]["workflow_id"] == "a"


async def test_a_reader_that_missed_more_than_is_kept_is_told_to_read_anew(
    client: Client, source: FakeSource
) -> None:
    async with reading(client) as reader:
        await reader.next()
    async with reading(client) as watcher:
        await watcher.next()
        for _ in range(6):
            source.change("a", "RUNNING")
        await watcher.next()
        del source.feed[:-5]  # the catalog keeps the newest alone
        source.change("b", "RUNNING")
        while (await watcher.next())[1]["workflow_id"] != "b":
            pass
    async with reading(client, reader.last) as again:
        assert await again.next() == ("reset", {})


async def test_a_reader_may_follow_one_run(client: Client, source: FakeSource) -> None:
    async with reading(client, query="?workflow_id=b%2Fc") as reader:
        await reader.next()
        for workflow_id in ("a", "b", "b/c", "c"):
            source.change(workflow_id, "RUNNING")
        assert (await reader.next())[1]["workflow_id"] == "b/c"


async def test_silence_is_filled_with_comments(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.0)
    async with reading(client) as reader:
        await reader.next()
        assert (await reader.answer.content.readline()).startswith(b":")


async def test_a_place_is_free_again_when_a_reader_leaves(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_CLIENTS", 1)
    async with reading(client) as reader:
        await reader.next()
        refused = await client.get(PATH)
        assert refused.status == 503
        assert refused.headers["Retry-After"] == "10"
    deadline = asyncio.get_running_loop().time() + SECONDS
    while True:
        async with client.get(PATH) as answer:
            if answer.status == 200:
                break
        assert asyncio.get_running_loop().time() < deadline


async def test_head_does_not_wait_for_events(client: Client) -> None:
    assert (await client.head(PATH)).status == 200


async def test_the_server_does_not_wait_for_its_readers_when_it_ends(source: FakeSource) -> None:
    client = TestClient(TestServer(create_app(source, Settings())))
    await client.start_server()
    async with reading(client) as reader:
        await reader.next()
        await asyncio.wait_for(client.server.close(), SECONDS)
        assert await reader.answer.content.read() == b""
    await client.close()
