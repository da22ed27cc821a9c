from __future__ import annotations

import gzip
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from ray_workflow_exporter.metrics.family import Tier
from ray_workflow_exporter.server import metrics as scrape
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run
from support.waiting import wait_until

Client = TestClient[Any, Any]
API = "/api/v1/workflows"


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


def raw(path: str) -> URL:
    """A path that goes over the wire exactly as it stands here."""
    return URL(path, encoded=True)


async def problem(client: Client, path: str, status: int) -> dict[str, Any]:
    """Get `path` and check that the answer is a problem of this status."""
    answer = await client.get(raw(path))
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    content: dict[str, Any] = await answer.json()
    assert content["status"] == status
    assert content["type"] == "about:blank"
    assert content["title"]
    return content


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,*/*;q=0.8", False),
        ("application/json", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.3", False),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", False),
        ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.7", True),
        ("application/openmetrics-text;q=0", False),
        # what Prometheus 2 and 3 send
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;"
            "version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3",
            True,
        ),
    ],
)
async def test_metrics_come_in_the_format_that_the_scraper_prefers(
    client: Client, source: FakeSource, accept: str, openmetrics: bool
) -> None:
    answer = await client.get("/metrics", headers={"Accept": accept})
    assert answer.status == 200
    assert await answer.read() == source.body
    assert source.asked == [(openmetrics, None)]
    kind = (
        "application/openmetrics-text; version=1.0.0"
        if openmetrics
        else ("text/plain; version=0.0.4")
    )
    assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize("length", [100, 300_000])
async def test_metrics_are_compressed_for_who_accepts_gzip(
    client: Client, source: FakeSource, length: int
) -> None:
    source.body = b"ray_workflow_storage_up 1\n" * (length // 18)
    packed = await client.get(
        "/metrics", headers={"Accept-Encoding": "gzip"}, auto_decompress=False
    )
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await packed.read()) == source.body
    plain = await client.get("/metrics", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert await plain.read() == source.body


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip; q=0", False),
        ("*", True),
        ("*, gzip;q=0", False),
        ("identity", False),
        ("gzip;q=x", False),
    ],
)
def test_gzip_is_used_only_where_it_is_accepted(header: str, accepted: bool) -> None:
    assert scrape.accepts_gzip(header) is accepted


async def test_tiers_can_be_chosen(client: Client, source: FakeSource) -> None:
    answer = await client.get("/metrics?tier=run&tier=workflow")
    assert answer.status == 200
    assert source.asked == [(False, frozenset({Tier.RUN, Tier.WORKFLOW}))]


async def test_an_unknown_tier_is_refused_with_the_known_ones(
    client: Client, source: FakeSource
) -> None:
    content = await problem(client, "/metrics?tier=run&tier=everything", 400)
    assert (
        content["detail"] == "`tier` must be one of cluster, workflow, run, stage, task, exporter."
    )
    assert source.asked == []


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready", API])
async def test_head_answers_like_get_without_a_body(client: Client, path: str) -> None:
    get, head = await client.get(path), await client.head(path)
    assert (head.status, await head.read()) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize(
    ("interval", "age", "status"), [(1.0, 95.0, 200), (1.0, 97.0, 503), (60.0, 150.0, 200)]
)
async def test_healthy_says_whether_the_poll_loop_lives(
    source: FakeSource, interval: float, age: float, status: int
) -> None:
    source.heartbeat_age = age
    app = create_app(source, Settings(interval=interval))
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/-/healthy")).status == status


async def test_ready_waits_for_the_first_poll(client: Client, source: FakeSource) -> None:
    source.ready = False
    assert (await problem(client, "/-/ready", 503))[
        "detail"
    ] == "The first poll has not finished yet."
    assert (await client.get("/-/healthy")).status == 200
    source.ready = True
    assert (await client.get("/-/ready")).status == 200


async def test_runs_are_listed_with_their_progress_and_failure(client: Client) -> None:
    answer = await client.get(API)
    assert answer.content_type == "application/json"
    page = await answer.json()
    assert (page["total"], page["limit"], page["offset"]) == (3, 100, 0)
    assert [run["workflow_id"] for run in page["items"]] == ["train-7", "etl/2025-06-01", HOSTILE]
    failed = page["items"][1]
    assert failed["status"] == "FAILED"
    assert failed["duration"] == 6.0
    assert failed["task_counts"]["NOT_RUN"] == 1
    assert failed["user_metadata"] is None  # lists leave it out
    assert failed["failure"] == {
        "task_id": "check",
        "stage": "check",
        "blocked": 1,
        "kind": "application",
        "exception": "ValueError",
        "message": "no row password=***",
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=running", ["train-7"]),
        ("status=RUNNING&status=FAILED&workflow=train", ["train-7"]),
        ("workflow=nothing", []),
        ("text=2025", ["etl/2025-06-01"]),
        ("text=TRAIN", ["train-7"]),
        ("limit=1", ["train-7"]),
        ("limit=1&offset=1", ["etl/2025-06-01"]),
        ("limit=0", []),
        ("offset=7", []),
    ],
)
async def test_the_list_is_filtered_and_paged(client: Client, query: str, found: list[str]) -> None:
    page = await (await client.get(f"{API}?{query}")).json()
    assert [run["workflow_id"] for run in page["items"]] == found


@pytest.mark.parametrize(
    "query",
    ["status=DONE", "limit=-1", "limit=1001", "limit=x", "offset=%C2%B2", "stauts=FAILED"],
)
async def test_a_wrong_parameter_of_the_list_is_refused(client: Client, query: str) -> None:
    assert (await problem(client, f"{API}?{query}", 400))["title"] == "Bad Request"


async def test_a_run_shows_its_stages_and_edges(client: Client) -> None:
    run = await (await client.get(raw(f"{API}/train-7"))).json()
    assert [stage["stage"] for stage in run["stages"]] == ["prepare", "fit"]
    assert run["stages"][1]["task_counts"]["PENDING"] == 1
    assert run["stage_edges"] == [{"source": "prepare", "target": "fit", "kind": "data"}]


async def test_the_tasks_of_a_run_come_by_their_ids(client: Client) -> None:
    tasks = await (await client.get(raw(f"{API}/etl%2F2025-06-01/tasks"))).json()
    assert list(tasks) == ["load", "check", "report"]
    assert tasks["load"] == {
        "stage": "load",
        "state": "SUCCESSFUL",
        "upstream": [],
        "continuation": None,
        "submit_time": None,
        "start_time": 100.0,
        "end_time": 104.5,
        "duration": 4.5,
        "output_bytes": 2048,
        "attempts": 1,
        "max_retries": None,
        "checkpoint": True,
        "catch_exceptions": None,
        "resources": {},
        "failure": None,
        "ray_task_id": None,
        "node_id": None,
        "user_metadata": {"rows": None},
    }
    assert tasks["check"]["upstream"] == ["load"]
    assert tasks["check"]["failure"]["message"] == "no row password=***"


async def test_error_messages_can_be_withheld(source: FakeSource) -> None:
    app = create_app(source, Settings(expose_error_messages=False))
    async with TestClient(TestServer(app)) as client:
        for path in ("", "/etl%2F2025-06-01", "/etl%2F2025-06-01/tasks"):
            text = await (await client.get(raw(API + path))).text()
            assert "ValueError" in text
            assert "no row" not in text


@pytest.mark.parametrize(
    "workflow_id",
    [
        HOSTILE,
        "a/b",
        "a/../b",
        "a/tasks",
        "tasks",
        "%2F",
        "%252e",
        "a+b c",
        "a?b#c",
        "{id}",
        "new\nline",
        "zero\x00",
        "tä sk\\",
        " ",
        '"',
    ],
)
async def test_any_id_comes_through_intact(
    client: Client, source: FakeSource, workflow_id: str
) -> None:
    source.held = FakeSource(failed_run(workflow_id)).held
    path = f"{API}/{quote(workflow_id, safe='')}"
    assert (await (await client.get(raw(path))).json())["workflow_id"] == workflow_id
    assert "load" in await (await client.get(raw(f"{path}/tasks"))).json()


@pytest.mark.parametrize(
    "path", ["/nowhere", f"{API}/nothing", f"{API}/nothing/tasks", f"{API}/", f"{API}/a/b/c"]
)
async def test_what_is_not_there_is_a_problem_document(client: Client, path: str) -> None:
    assert (await problem(client, path, 404))["detail"]


async def test_other_methods_are_refused(client: Client) -> None:
    answer = await client.post("/metrics")
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET,HEAD"
    assert answer.content_type == "application/problem+json"


async def test_a_fault_of_ours_tells_the_log_and_not_the_client(
    client: Client,
    source: FakeSource,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(source, "runs", fail)
    with caplog.at_level(logging.ERROR):
        content = await problem(client, API, 500)
    assert content["detail"] == "The exporter failed to answer; its log says why."
    assert "the secret reason" in caplog.text


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/ready", API, "/nowhere", "/metrics?tier=x"])
async def test_every_answer_carries_the_security_headers(client: Client, path: str) -> None:
    answer = await client.get(path, headers={"Origin": "http://elsewhere.example"})
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert answer.headers["Server"] == "ray-workflow-exporter"
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start `run_server` in a process of its own; what it says is in `tmp_path/log`."""
    script = (
        "import logging, sys\n"
        "from support import fake_source\n"
        "from ray_workflow_exporter.server.listening import run_server\n"
        "from ray_workflow_exporter.settings.settings import Settings\n"
        "logging.basicConfig(level='INFO')\n"
        "run_server(fake_source.FakeSource(), Settings(listen=sys.argv[1]), id)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = []

    def start(listen: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", script, listen]
        with (tmp_path / "log").open("w") as log:
            started.append(subprocess.Popen(command, stderr=log, env=environ))
        return started[-1]

    yield start
    for server in started:
        server.kill()
        server.wait()


@pytest.mark.process
def test_the_server_runs_until_it_is_told_to_stop(
    start_server: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    server, log = start_server("127.0.0.1:0"), tmp_path / "log"
    url = wait_until(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()))
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(f"{url[0]}/metrics", timeout=10).text == "ray_workflow_storage_up 1\n"
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=30) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.process
def test_an_address_in_use_is_one_sentence(
    start_server: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert start_server(listen).wait(timeout=30) == 1
    assert f"SettingsError: Cannot listen on {listen}: " in (tmp_path / "log").read_text()
