"""The API over a fake source: its document, its entity tags, its pages and its graph."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from docs.reference.api import page
from ray_workflow_exporter.server.api import openapi
from ray_workflow_exporter.server.api.operations import OPERATIONS
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run

Client = TestClient[Any, Any]
API = "/api/v1/workflows"
DOCS = Path(__file__).parents[4] / "docs" / "api.md"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    source = FakeSource(running_run(), failed_run(), failed_run(HOSTILE))
    async with TestClient(TestServer(create_app(source, Settings()))) as client:
        yield client


def test_the_documentation_is_up_to_date() -> None:
    assert DOCS.read_text(encoding="utf-8") == page(), "run `make docs`"


async def test_the_document_is_served_and_names_every_operation(client: Client) -> None:
    document = await (await client.get("/api/v1/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    names = {it["operationId"] for path in document["paths"].values() for it in path.values()}
    assert names == {it.name for it in OPERATIONS}
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("", "RunPage"),
        ("/train-7", "Run"),
        ("/etl%2F2025-06-01", "Run"),
        ("/etl%2F2025-06-01/graph", "Graph"),
        ("/train-7/graph?level=task", "Graph"),
        ("/nothing", "Problem"),
    ],
)
async def test_answers_have_the_shape_that_the_document_tells(
    client: Client, path: str, shape: str
) -> None:
    content = await (await client.get(API + path)).json()
    schema = {"$ref": f"#/components/schemas/{shape}", **openapi.document()}
    jsonschema.Draft202012Validator(schema).validate(content)


async def test_tasks_have_the_shape_that_the_document_tells(client: Client) -> None:
    tasks = await (await client.get(f"{API}/etl%2F2025-06-01/tasks")).json()
    schema = {"$ref": "#/components/schemas/Task", **openapi.document()}
    for task in tasks.values():
        jsonschema.Draft202012Validator(schema).validate(task)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=failed&state=NOT_RUN", ["check", "report"]),
        ("stage=load", ["load"]),
        ("stage=load&state=FAILED", []),
    ],
)
async def test_tasks_are_filtered(client: Client, query: str, found: list[str]) -> None:
    tasks = await (await client.get(f"{API}/etl%2F2025-06-01/tasks?{query}")).json()
    assert list(tasks) == found


async def test_a_page_names_the_next_one_until_the_last(client: Client) -> None:
    seen, path = [], f"{API}?limit=1&status=FAILED&status=RUNNING"
    for _ in range(2):
        answer = await client.get(path)
        seen += [run["workflow_id"] for run in (await answer.json())["items"]]
        path = URL(answer.links["next"]["url"]).path_qs
    answer = await client.get(path)
    seen += [run["workflow_id"] for run in (await answer.json())["items"]]
    assert seen == ["train-7", "etl/2025-06-01", HOSTILE]
    assert "next" not in answer.links


async def test_pages_by_id_miss_and_repeat_nothing_while_runs_change() -> None:
    runs = {name: running_run(name) for name in "dbface"}
    source = FakeSource(*runs.values())
    async with TestClient(TestServer(create_app(source, Settings()))) as client:
        seen: list[str] = []
        path = f"{API}?sort=id&limit=2"
        while path:
            answer = await client.get(path)
            seen += [run["workflow_id"] for run in (await answer.json())["items"]]
            path = URL(answer.links["next"]["url"]).path_qs if "next" in answer.links else ""
            # What was listed first moves to the end, and a run is deleted.
            first = next(iter(source.held))
            source.held[first] = source.held.pop(first)
            source.held.pop("a", None)
    assert seen == list("abcdef")


async def test_lists_leave_user_metadata_out_unless_asked(client: Client) -> None:
    path = f"{API}?status=FAILED&limit=1"
    (without,) = (await (await client.get(path)).json())["items"]
    (included,) = (await (await client.get(f"{path}&metadata=true")).json())["items"]
    assert without["user_metadata"] is None
    assert included["user_metadata"] == {"team": "data"}


async def test_user_metadata_is_bounded_and_says_so() -> None:
    metadata = {
        "long": "x" * 100_000,
        "many": [{str(number): "y" * 100} for number in range(10_000)],
        "nested": {"password": "hunter2" * 10_000},
        "last": 1,
    }
    run = replace(running_run(), user_metadata=metadata)
    async with TestClient(TestServer(create_app(FakeSource(run), Settings()))) as client:
        answer = await client.get(f"{API}/train-7")
        shown = (await answer.json())["user_metadata"]
        assert len(await answer.read()) < 150_000
        answer = await client.get(f"{API}?metadata=true")
        (listed,) = (await answer.json())["items"]
    assert re.fullmatch(r"x{4000,4096} \[truncated\]", listed["user_metadata"]["long"])
    assert shown["long"] == "x" * 8192 + " [truncated]"
    assert re.fullmatch(r"\[truncated\]: \d+ more", shown["many"][-1])
    assert shown["[truncated]"] == "2 more"
    assert len(shown["many"]) > 400


@pytest.mark.parametrize("rest", ["", "/tasks", "/graph"])
@pytest.mark.parametrize("start", [f"{API}/etl/2025-06-01", f"{API}/etl%2F2025-06-01"])
async def test_an_id_with_a_slash_has_three_addresses(
    client: Client, start: str, rest: str
) -> None:
    by_path = await client.get(URL(start + rest, encoded=True))
    by_query = await client.get(f"/api/v1/run{rest}", params={"workflow_id": "etl/2025-06-01"})
    assert (by_path.status, by_query.status) == (200, 200)
    assert await by_path.read() == await by_query.read()


async def test_any_id_can_be_named_in_the_query(client: Client) -> None:
    answer = await client.get("/api/v1/run", params={"workflow_id": HOSTILE})
    assert (await answer.json())["workflow_id"] == HOSTILE
    for query in ("", "?workflow_id=", "?workflow_id=a&workflow_id=b"):
        assert (await client.get(f"/api/v1/run{query}")).status == 400


async def test_what_the_caller_has_already_is_not_sent_again(client: Client) -> None:
    first = await client.get(API)
    etag = first.headers["ETag"]
    for header in (etag, f'"other", W/{etag}', "*"):
        again = await client.get(API, headers={"If-None-Match": header})
        assert (again.status, await again.read()) == (304, b"")
        assert again.headers["ETag"] == etag
    other = await client.get(API, headers={"If-None-Match": '"other"'})
    assert other.status == 200
    assert other.headers["Cache-Control"] == "no-cache, private"


async def test_a_change_gives_another_entity_tag(client: Client) -> None:
    tags = {(await client.get(API + path)).headers["ETag"] for path in ("", "?limit=1", "/train-7")}
    assert len(tags) == 3


async def test_the_graph_shows_stages_or_tasks(client: Client) -> None:
    stages = await (await client.get(f"{API}/train-7/graph")).json()
    assert [node["id"] for node in stages["nodes"]] == ["prepare", "fit"]
    assert stages["edges"] == [{"source": "prepare", "target": "fit", "kind": "data"}]
    tasks = await (await client.get(f"{API}/train-7/graph?level=task")).json()
    assert [(node["id"], node["state"]) for node in tasks["nodes"]] == [
        ("prepare", "SUCCESSFUL"),
        ("fit", "RUNNING"),
        ("fit_1", "PENDING"),
    ]
    ids = {node["id"] for node in tasks["nodes"]}
    assert all({edge["source"], edge["target"]} <= ids for edge in tasks["edges"])


@pytest.mark.parametrize(
    "path",
    [
        "/train-7?status=FAILED",
        "/train-7/graph?level=both",
        "/train-7/tasks?state=x",
        "?text=a&text=b",
    ],
)
async def test_a_wrong_parameter_is_refused_everywhere(client: Client, path: str) -> None:
    assert (await client.get(API + path)).status == 400
