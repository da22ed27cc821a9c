"""Scrapes over the wire: by curl, by Prometheus, by readers that are slow or go away."""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import shutil
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import pytest
import requests
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.metrics.exposition import Renderer, page
from ray_workflow_exporter.metrics.family import Tier
from ray_workflow_exporter.metrics.own import SelfMetrics
from ray_workflow_exporter.server import metrics
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from support.expositions import series
from support.fake_source import FakeSource
from support.ports import free_port
from support.snapshots import full_snapshot, make_run, make_snapshot, make_task, make_view
from support.waiting import wait_until

Client = TestClient[Any, Any]
PROMETHEUS = shutil.which("prometheus")
FORMATS = ["text/plain", "application/openmetrics-text; version=1.0.0"]


class ShownSource(FakeSource):
    """Answers scrapes with what a renderer made of a few runs."""

    def __init__(self) -> None:
        super().__init__()
        tasks = [make_task("extract"), make_task("load", upstream=("extract",))]
        runs = [make_view(make_run(f"run-{number}", tasks=tasks)) for number in range(300)]
        full = full_snapshot()
        shown = make_snapshot(*full.runs, *runs, workflows=full.workflows)
        self.exposition = Renderer().render(shown)
        self.own = SelfMetrics("1.2.3")

    def metrics(
        self, *, openmetrics: bool, tiers: Optional[Collection[Tier]], gzip: bool
    ) -> Sequence[bytes]:
        return page(self.exposition, self.own, openmetrics=openmetrics, tiers=tiers, gzip=gzip)


@pytest.fixture(scope="module")
def shown() -> ShownSource:
    return ShownSource()


@pytest.fixture
async def server(shown: ShownSource) -> AsyncIterator[Any]:
    async with TestServer(create_app(shown, Settings())) as server:
        yield server


async def run(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output


def samples(body: bytes) -> Counter[bytes]:
    """Count the sample lines; those of a format are not among them."""
    assert body.endswith(b"\n")
    return Counter(line for line in body.splitlines() if not line.startswith(b"#"))


@pytest.mark.process
@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("tiers", ["", "?tier=task", "?tier=cluster&tier=run&tier=exporter"])
async def test_curl_gets_the_same_from_all_bodies(
    server: TestServer, shown: ShownSource, tiers: str, accept: str
) -> None:
    # A scrape is only as good as its worst reader: curl stops after the first gzip member.
    command = ("curl", "--silent", "--fail", "--header", f"Accept: {accept}")
    url = str(server.make_url(f"/metrics{tiers}"))
    plain, unpacked, packed = (
        await run(*command, url),
        await run(*command, "--compressed", url),
        await run(*command, "--header", "Accept-Encoding: gzip", url),
    )
    assert plain == unpacked == gzip.decompress(packed)
    assert len(packed) < len(plain) / 3
    assert plain.endswith(b"# EOF\n") == (accept != "text/plain")
    chosen = frozenset(Tier(it) for it in re.findall("tier=([a-z]+)", tiers)) or None
    whole = page(shown.exposition, shown.own, tiers=chosen)
    assert samples(plain) == samples(b"".join(whole))
    assert sum(samples(plain).values()) > 600


async def test_head_tells_the_length_of_each_body(server: TestServer, shown: ShownSource) -> None:
    async with TestClient(server) as client:
        for packed in (False, True):
            headers = {"Accept": FORMATS[1], "Accept-Encoding": "gzip" if packed else "identity"}
            head = await client.head("/metrics", headers=headers)
            assert (head.status, await head.read()) == (200, b"")
            body = page(shown.exposition, shown.own, openmetrics=True, gzip=packed)
            assert head.headers["Content-Length"] == str(sum(map(len, body)))
            assert head.headers["Content-Type"] == metrics.OPENMETRICS_TYPE
            assert head.headers.get("Content-Encoding") == ("gzip" if packed else None)


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """Run a Prometheus that scrapes `target`, and give its address."""
    assert PROMETHEUS is not None
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(
        "scrape_configs: [{job_name: it, scrape_interval: 1s, static_configs: "
        f"[{{targets: ['{target}']}}]}}]\n"
    )
    command = [
        *(PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def asked(address: str, query: str) -> Optional[float]:
    """Ask Prometheus for the value of one series, None while there is none."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(f"{address}/api/v1/query", params={"query": query}, timeout=10)
        except requests.ConnectionError:
            return None
    if answer.status_code == 503:  # it is not up yet
        return None
    found = answer.json()["data"]["result"]
    return float(found[0]["value"][1]) if found else None


@pytest.mark.prometheus
@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
async def test_prometheus_reads_every_sample(
    server: TestServer, shown: ShownSource, tmp_path: Path
) -> None:
    def look() -> tuple[Optional[float], Optional[float]]:
        with prometheus(f"{server.host}:{server.port}", tmp_path) as address:
            wait_until(lambda: asked(address, "up"), message="it was not scraped well")
            return asked(address, "scrape_samples_scraped"), asked(
                address, 'count({__name__=~"ray_workflow_task_.*",job="it"})'
            )

    scraped, of_tasks = await asyncio.to_thread(look)
    exposed = series(shown.exposition)
    own = sum(samples(b"".join(shown.own.block().plain)).values())
    assert scraped == sum(exposed.values()) + own
    # Counters of workflows have such names, too.
    of_family = exposed.items()
    assert of_tasks == sum(n for name, n in of_family if name.startswith("ray_workflow_task_"))


class Slow:
    """A scraper that asks and then reads only when it is told to."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.sendall(b"GET /metrics HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n")

    def begin(self) -> bytes:
        return self._socket.recv(10)

    def finish(self) -> bytes:
        text = b"".join(iter(lambda: self._socket.recv(2**20), b""))
        self._socket.close()
        return text.partition(b"\r\n\r\n")[2]

    def reset(self) -> None:
        # Without lingering, closing sends RST: what a scraper's time-out looks like.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


@pytest.fixture
async def big() -> AsyncIterator[web.AppRunner]:
    """A server whose body does not fit into the buffers of a connection."""
    source = FakeSource()
    source.body = b"ray_workflow_storage_up 1\n" * 2_000_000
    # Not a TestServer: that one cancels handlers whose client is gone, ours does not.
    runner = web.AppRunner(create_app(source, Settings()), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner
    await runner.cleanup()


async def test_slow_scrapers_do_not_hold_up_a_fast_one(big: web.AppRunner) -> None:
    slow = [Slow(big.addresses[0]) for _ in range(10)]
    for scraper in slow:
        assert await asyncio.to_thread(scraper.begin) == b"HTTP/1.1 2"
    fast = Slow(big.addresses[0])
    body = await asyncio.to_thread(fast.finish)
    assert len(body) == 52_000_000
    # The others were under way all the time: they get the rest now.
    for scraper in slow:
        assert await asyncio.to_thread(scraper.finish) == body


async def test_a_scraper_that_goes_away_is_no_fault(
    big: web.AppRunner, caplog: pytest.LogCaptureFixture
) -> None:
    scraper = Slow(big.addresses[0])
    await asyncio.to_thread(scraper.begin)
    assert big.server is not None
    (connection,) = big.server.connections
    task = connection._task_handler
    assert task is not None
    with caplog.at_level(logging.DEBUG):
        scraper.reset()
        done, _ = await asyncio.wait([task], timeout=30)
    assert done == {task}
    assert task.exception() is None
    assert [it for it in caplog.records if it.levelno >= logging.WARNING] == []


def test_every_body_is_of_one_snapshot_while_others_are_published() -> None:
    steps = 40
    renderer = Renderer()
    own = SelfMetrics("1.2.3")

    def at(step: int) -> Any:
        # The runs change, come and go; each of their deadlines names the snapshot.
        runs = range(step % 3, 60 + step)
        views = [make_view(make_run(f"run-{it}", deadline=float(step))) for it in runs]
        return renderer.render(make_snapshot(*views))

    published = [at(0)]
    over = threading.Event()

    def publish() -> None:
        for step in range(1, steps):
            published[0] = at(step)
        over.set()

    publisher = threading.Thread(target=publish)
    publisher.start()
    seen = set()
    while not (over.is_set() and steps - 1 in seen):
        body = gzip.decompress(b"".join(page(published[0], own, gzip=True)))
        deadlines = re.findall(rb"^ray_workflow_run_deadline.* (\d+)\.0$", body, re.MULTILINE)
        (step,) = {int(it) for it in deadlines}
        assert len(deadlines) == 60 + step - step % 3
        seen.add(step)
    publisher.join()
    assert len(seen) > 1


# --- chunks


@given(st.lists(st.integers(1, 9), max_size=30))
def test_chunks_are_the_body_in_order(sizes: list[int]) -> None:
    pieces = [bytes([at]) * size for at, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "CHUNK_BYTES", 16)
        found = list(metrics.chunks(pieces))
    assert b"".join(found) == b"".join(pieces)
    assert all(len(chunk) >= 16 for chunk in found[:-1])
    assert all(len(chunk) < 16 + 9 for chunk in found)


def test_a_big_piece_is_not_copied() -> None:
    big = bytes(metrics.CHUNK_BYTES)
    first, second = metrics.chunks([big, big])
    assert first is big
    assert second is big


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=0.0.1", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense,text/plain;q=0.1", False),
        ("text/plain;q=0.9, application/openmetrics-text;version=1.0.0;q=0.1", False),
        # Prometheus 2.42, then 3.0
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
            "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            True,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            True,
        ),
    ],
)
def test_the_accept_header_chooses_the_format(accept: str, openmetrics: bool) -> None:
    assert metrics.wants_openmetrics(accept) is openmetrics
