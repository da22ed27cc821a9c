"""The pages as they come from the server: what they show, where they lead, that all is escaped."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional
from urllib.parse import quote

import pytest
from yarl import URL

from ray_workflow_exporter.catalog.snapshot import RunView
from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.responses import run_graph
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run
from support.pages import Client, Page, get, of, rows


async def test_the_list_shows_runs_and_leads_to_them(client: Client) -> None:
    page = await get(client, "/")
    assert rows(page) == ["run-train-7", "run-etl%2F2025-06-01", f"run-{quote(HOSTILE, safe='')}"]
    assert "3 of 3 runs, live ones first" in page.text
    assert "ValueError: no row password=***" in page.text
    assert "1970-01-01 00:00:00" in page.text  # last_poll
    assert [it["aria-label"] for it in page.all("progress")] == ["Progress"] * 3
    assert [it["content"] for it in page.all("meta") if "http-equiv" in it] == ["10"]  # no scripts


@pytest.mark.parametrize("path", ["/", of("train-7"), of(HOSTILE), "/workflows/none"])
async def test_every_link_leads_somewhere(client: Client, path: str) -> None:
    answer = await client.get(URL(path, encoded=True))
    page = Page(await answer.text())
    files = [it["href"] for it in page.all("link")] + [it["src"] for it in page.all("script")]
    for link in [*page.links(), *files]:
        assert link
        if link.startswith("#") or link.endswith("/events"):
            continue
        target = answer.url.join(URL(link, encoded=True))
        async with client.session.get(target) as found:
            assert found.status == 200, link


async def test_what_users_wrote_is_escaped_everywhere(client: Client, source: FakeSource) -> None:
    run = failed_run(HOSTILE, message=f"password=hunter2 {HOSTILE}")
    tasks = {
        HOSTILE + task_id: replace(
            task,
            task_id=HOSTILE + task_id,
            stage=HOSTILE + task.stage,
            upstream=tuple(HOSTILE + it for it in task.upstream),
        )
        for task_id, task in run.tasks.items()
    }
    hostile = replace(run, tasks=tasks, workflow=HOSTILE, user_metadata={HOSTILE: [HOSTILE]})
    source.held = FakeSource(hostile).held
    graph = run_graph(source.held[HOSTILE], "stage")
    for path in ("/", of(HOSTILE), of(HOSTILE) + "?level=task", f"/?text={quote(HOSTILE)}"):
        text = await (await client.get(URL(path, encoded=True))).text()
        page = Page(text)
        assert "<script>alert" not in text
        assert "<script>alert(1)</script>" in page.text
        assert "hunter2" not in text
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)
        assert [it for it in page.all("script") if "page.js" not in (it["src"] or "")] == []
    (option,) = [it["value"] for it in (await get(client, "/")).all("option") if it["value"]]
    assert option == HOSTILE.replace("\x1b", "")  # which Python's parser drops, unlike browsers
    page = await get(client, of(HOSTILE))
    named = [it["data-node"] for it in page.all("a") if "data-node" in it]
    assert len(named) == len(graph["nodes"]) == 3


async def test_metadata_of_any_size_leaves_a_page_that_can_be_read(
    client: Client, source: FakeSource
) -> None:
    noted = {f"key {number}": "x" * 1000 for number in range(60)}
    source.held = FakeSource(replace(running_run(), user_metadata=noted)).held
    page = await get(client, of("train-7"))
    assert page.text.count("x" * 500 + " …") == 50
    assert "x" * 501 not in page.text
    assert "10 more" in page.text


class Counting(FakeSource):
    """Counts how often all runs are asked for, and by how many at once."""

    made = at_once = most = 0
    lock = threading.Lock()

    def runs(self) -> Sequence[RunView]:
        with self.lock:
            self.made += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.02)  # long enough for another one to come in
        with self.lock:
            self.at_once -= 1
        return super().runs()


@pytest.mark.parametrize("source", [Counting(running_run())])
async def test_what_watching_costs_does_not_grow_with_the_watchers(
    client: Client, source: Counting
) -> None:
    await asyncio.gather(*(get(client, "/?text=train") for _ in range(20)))
    once = source.made
    assert once < 20
    await asyncio.gather(*(get(client, f"/?text={number}") for number in range(20)))
    assert source.made == once + 20
    assert source.most == 1, "a scrape would have to wait for all of them"


async def test_a_page_that_is_shared_is_never_older_than_the_newest_change(
    client: Client, source: FakeSource
) -> None:
    for status in (RunStatus.FAILED, RunStatus.RUNNING, RunStatus.CANCELED):
        source.held = FakeSource(replace(running_run(), status=status)).held
        source.change("train-7", status.value)
        assert f"train-7 {status.value}" in (await get(client, of("train-7"))).text


async def test_pages_are_compressed_for_who_accepts_it(client: Client) -> None:
    bodies = []
    for coding in ("identity", "gzip"):
        answer = await client.get("/workflows/none", headers={"Accept-Encoding": coding})
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers.get("Content-Encoding", "identity") == coding
        bodies.append(re.sub('data-now="[0-9.]*"', "", await answer.text()))
    assert bodies[0] == bodies[1]


async def test_a_failed_run_says_why(client: Client) -> None:
    page = await get(client, of("etl/2025-06-01"))
    text = " ".join(page.text.split())
    assert "ValueError application error in check; 1 task did not run because of it" in text
    assert "no row password=***" in text
    for fact in ("started1970-01-01 00:01:40", "ended1970-01-01 00:01:46", "duration6.0s"):
        assert fact in text
    assert "teamdata" in text
    assert rows(page) == ["task-load", "task-check", "task-report"]


@pytest.mark.parametrize("settings", [Settings(expose_error_messages=False)])
async def test_messages_are_kept_back_where_the_settings_say_so(client: Client) -> None:
    for path in ("/", of("etl/2025-06-01")):
        page = await get(client, path)
        assert "ValueError" in page.text
        assert "no row" not in page.text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?status=failed", ["etl/2025-06-01", HOSTILE]),
        ("?status=FAILED&status=RUNNING&text=2025", ["etl/2025-06-01"]),
        ("?workflow=train&text=", ["train-7"]),
        ("?workflow=&text=EVIL", [HOSTILE]),
        ("?workflow=none", []),
    ],
)
async def test_the_list_is_filtered_by_its_address(
    client: Client, query: str, found: list[str]
) -> None:
    page = await get(client, "/" + query)
    assert rows(page) == [f"run-{quote(it, safe='')}" for it in found]
    assert "There are no runs yet" not in page.text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?stage=fit", ["fit", "fit_1"]),
        ("?state=pending&level=task", ["fit_1"]),
        ("?text=prep&stage=", ["prepare"]),
        ("?text=none", []),
    ],
)
async def test_tasks_are_filtered_by_the_address(
    client: Client, query: str, found: list[str]
) -> None:
    page = await get(client, of("train-7") + query)
    assert rows(page) == [f"task-{it}" for it in found]
    assert f"{len(found)} of 3" in page.text


async def test_long_lists_have_pages(client: Client, source: FakeSource) -> None:
    source.held = FakeSource(*(running_run(f"run-{number:03}") for number in range(120))).held
    seen, path = [], "/?text=run"
    while path:
        page = await get(client, path)
        seen += rows(page)
        path = next((f"/{it['href']}" for it in page.all("a") if it.get("rel") == "next"), "")
    assert seen == [f"run-run-{number:03}" for number in range(120)]
    (back,) = [it["href"] for it in page.all("a") if it.get("rel") == "prev"]
    assert back == "?text=run&offset=50"
    page = await get(client, "/?offset=4000")
    assert rows(page) == seen[100:], "those behind it are gone by now"


async def test_behind_the_last_task_is_the_last_page(client: Client) -> None:
    page = await get(client, of("train-7") + "?offset=4000&stage=fit")
    assert rows(page) == ["task-fit", "task-fit_1"]


async def test_an_installation_without_a_run_says_what_comes(
    client: Client, source: FakeSource
) -> None:
    source.held = {}
    assert "There are no runs yet" in (await get(client, "/")).text


@pytest.mark.parametrize(
    "status",
    [
        {"storage": "/x", "storage_error": "The storage /x does not exist."},
        {"storage": None, "manager_reason": "Ray was started without --storage."},
    ],
)
async def test_the_list_says_why_there_can_be_no_runs_where_people_look_for_it(
    client: Client, source: FakeSource, status: dict[str, Optional[str]]
) -> None:
    source.held, source.status = {}, {"storage_error": None, **status}
    *_, reason = status.values()
    page = await get(client, "/")
    assert f"There are no runs to show. {reason}" in page.text
    assert "There are no runs yet" not in page.text
    assert f"storage error{reason}" in page.text


async def test_a_storage_in_doubt_is_a_warning_above_the_list(
    client: Client, source: FakeSource
) -> None:
    assert "Warning." not in (await get(client, "/")).text
    source.status = {**source.status, "storage_warning": "It may be <a copy>."}
    assert "Warning. It may be <a copy>." in (await get(client, "/?text=")).text


async def test_an_unknown_run_is_a_page_too(client: Client) -> None:
    page = await get(client, "/workflows/none", 404)
    assert "There is no workflow with this id." in page.text
    assert page.links()[-1] == "../"


async def test_a_wrong_query_is_told_in_a_sentence(client: Client) -> None:
    assert "`status` must be one of" in (await get(client, "/?status=ill", 400)).text
    assert "The parameters of this resource are" in (await get(client, "/?colour=red", 400)).text


async def test_an_id_that_is_no_unicode_is_shown(client: Client, source: FakeSource) -> None:
    source.held = FakeSource(failed_run("odd-\udcff")).held
    assert r"odd-\udcff" in (await get(client, "/")).text


async def test_files_are_kept_by_browsers_and_nothing_else_is_served(client: Client) -> None:
    style = await client.get("/static/page.css?v=1")
    assert style.headers["Content-Type"] == "text/css; charset=utf-8"
    assert "immutable" in style.headers["Cache-Control"]
    assert ".FAILED { --state: #cc1f1f }" in await style.text()
    for name in ("pages.py", "..%2Fpages.py", "%2e%2e/templates/run.html", ""):
        answer = await client.get(URL(f"/static/{name}", encoded=True))
        assert answer.status == 404, name
