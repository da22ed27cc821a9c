"""The pages as they come from the server: what they show, where they lead, that all is escaped."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from ray_workflow_exporter.catalog.snapshot import RunView
from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState
from ray_workflow_exporter.responses import run_graph
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.server.pages.drawing import MAX_NODES
from ray_workflow_exporter.server.pages.run_page import TASKS_PER_PAGE
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.records import LinkState, ManagerView
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run
from support.websites import write_tokens

Client = TestClient[Any, Any]
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Elements of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Optional[str]]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        found = dict(attrs)
        assert "style" not in found, "the Content-Security-Policy forbids it"
        assert not [name for name in found if name.startswith("on")]
        self.elements.append((tag, found))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, Optional[str]]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def links(self) -> list[str]:
        return [it["href"] or "" for it in self.all("a")]


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


async def get(client: Client, path: str, status: int = 200) -> Page:
    answer = await client.get(URL(path, encoded=True))
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return Page(await answer.text())


def of(workflow_id: str) -> str:
    return "/workflows/" + quote(workflow_id, safe="", errors="replace")


def rows(page: Page) -> list[str]:
    return [it["id"] or "" for it in page.all("tr") if "id" in it]


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


@pytest.mark.parametrize("level", ["stage", "task"])
async def test_the_drawing_has_the_nodes_and_edges_of_the_api(
    client: Client, source: FakeSource, level: str
) -> None:
    page = await get(client, f"{of('train-7')}?level={level}")
    graph = run_graph(source.held["train-7"], level)
    assert [it["data-node"] for it in page.all("a") if "data-node" in it] == [
        node["id"] for node in graph["nodes"]
    ]
    assert [
        {name: it[f"data-{name}"] for name in ("source", "target", "kind")}
        for it in page.all("path")
        if "data-kind" in it
    ] == graph["edges"]


async def test_a_run_too_big_to_be_drawn_by_task_is_drawn_by_stage(
    client: Client, source: FakeSource
) -> None:
    tasks = {
        f"map_{number}": Task(f"map_{number}", "map", TaskState.RUNNING, start_time=1.0)
        for number in range(MAX_NODES + 1)
    }
    wide = Run("wide", "wide", RunStatus.RUNNING, tasks=tasks, start_time=1.0)
    source.held = FakeSource(wide).held
    by_task = await get(client, of("wide") + "?level=task")
    assert f"more than {MAX_NODES} nodes" in " ".join(by_task.text.split())
    assert [it for it in by_task.all("a") if "data-node" in it] == []
    by_stage = await get(client, of("wide"))
    assert [it["aria-label"] for it in by_stage.all("a") if "data-node" in it] == [
        f"map: {MAX_NODES + 1} RUNNING, on the critical path"
    ]


async def test_a_run_of_many_stages_shows_the_first_of_them(
    client: Client, source: FakeSource
) -> None:
    many = MAX_NODES + 7
    names = [f"of_user_{number}x" for number in range(many)]
    tasks = {name: Task(name, name, TaskState.RUNNING, start_time=1.0) for name in names}
    source.held = FakeSource(Run("many", "many", RunStatus.RUNNING, tasks=tasks)).held
    page = await get(client, of("many") + f"?stage={names[-1]}")
    assert len(page.all("tr")) == MAX_NODES + 3  # with two heads, and the task
    assert "7 more in the API" in page.text
    options = [it for it in page.all("option") if it["value"]]
    assert len(options) == MAX_NODES + 1
    assert [it["value"] for it in options if "selected" in it] == [names[-1]]
    assert len((await get(client, of("many"))).all("tr")) == MAX_NODES + 2 + TASKS_PER_PAGE


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
    assert ".FAILED { --state: #d55e00 }" in await style.text()
    for name in ("pages.py", "..%2Fpages.py", "%2e%2e/templates/run.html", ""):
        answer = await client.get(URL(f"/static/{name}", encoded=True))
        assert answer.status == 404, name


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
