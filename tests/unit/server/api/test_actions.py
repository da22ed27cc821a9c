"""Actions over HTTP: who may, what is answered, and that nothing happens without a token."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Optional

import jsonschema
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from ray_workflow_exporter.server.api import openapi
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run
from support.waiting import wait_until
from support.websites import write_tokens

Client = TestClient[Any, Any]
API = "/api/v1"
CANCEL = f"{API}/workflows/train-7/cancel"
ORDERS = [
    ("POST", CANCEL),
    ("POST", f"{API}/workflows/etl%2F2025-06-01/resume"),
    ("DELETE", f"{API}/workflows/etl%2F2025-06-01"),
    ("POST", f"{API}/resume-all"),
]


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.yml"
    write_tokens(file, {"ops": ("act", "act-token"), "grafana": ("read", "read-token")})
    return file


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(running_run(), failed_run(), failed_run(HOSTILE))


@pytest.fixture
async def client(source: FakeSource, tokens_file: Path) -> AsyncIterator[Client]:
    app = create_app(source, Settings(tokens_file=tokens_file))
    async with TestClient(TestServer(app)) as client:
        yield client


async def ask(
    client: Client, method: str, path: str, token: Optional[str] = "act-token", **more: Any
) -> ClientResponse:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers.update(more.pop("headers", {}))
    return await client.request(method, URL(path, encoded=True), headers=headers, **more)


async def detail(answer: ClientResponse, status: int) -> str:
    """Check that an answer is a problem of this status; return its sentence."""
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    return str((await answer.json())["detail"])


@pytest.mark.parametrize(("method", "path"), ORDERS)
async def test_an_order_is_taken_and_its_outcome_told(
    client: Client, source: FakeSource, method: str, path: str
) -> None:
    taken = await ask(client, method, path)
    assert taken.status == 202
    action = await taken.json()
    schema = {"$ref": "#/components/schemas/Action", **openapi.document()}
    jsonschema.Draft202012Validator(schema).validate(action)
    where = taken.url.join(URL(taken.headers["Location"]))
    assert where.path == f"{API}/actions/{action['action_id']}"
    wait_until(lambda: source.actions.newest()[0].state.finished)
    told = await (await ask(client, "GET", where.path, "read-token")).json()
    assert (told["state"], told["requested_by"]) == ("SUCCEEDED", "ops")
    listed = await (await ask(client, "GET", f"{API}/actions")).json()
    assert [it["action_id"] for it in listed["items"]] == [action["action_id"]]


async def test_a_workflow_without_runs_can_be_forgotten(client: Client, source: FakeSource) -> None:
    async def forget(workflow: str, token: Optional[str]) -> ClientResponse:
        head = {"Authorization": f"Bearer {token}"} if token else {}
        return await client.post(f"{API}/forget", json={"workflow": workflow}, headers=head)

    for token, status in ((None, 401), ("read-token", 403)):
        await detail(await forget("retired", token), status)
    assert source.forgotten == []
    assert "still has runs" in await detail(await forget("train", "act-token"), 409)
    await detail(await forget("unknown", "act-token"), 404)
    answer = await forget("retired", "act-token")
    assert (answer.status, await answer.json()) == (200, {"workflow": "retired"})


@pytest.mark.parametrize(("method", "path"), ORDERS)
@pytest.mark.parametrize("token", [None, "wrong", "act-toke", "act-token2", "read-token"])
async def test_nobody_without_the_right_token_changes_anything(
    client: Client, source: FakeSource, method: str, path: str, token: Optional[str]
) -> None:
    answer = await ask(client, method, path, token)
    text = await detail(answer, 403 if token == "read-token" else 401)
    assert "act-token" not in text
    assert source.acted == []
    assert [result for _, result in source.counted] == ["denied"]
    if token != "read-token":
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="ray-workflow-exporter"'


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic b3BzOmFjdC10b2tlbg==", "act-token", "Bearer act-token x"],
)
async def test_other_credentials_are_no_token(
    client: Client, source: FakeSource, authorization: str
) -> None:
    answer = await ask(client, "POST", CANCEL, None, headers={"Authorization": authorization})
    assert answer.status == 401
    cookie = await ask(client, "POST", CANCEL, None, headers={"Cookie": "token=act-token"})
    assert cookie.status == 401
    query = await ask(client, "POST", f"{CANCEL}?access_token=act-token", None)
    assert query.status == 401
    assert source.acted == []


@pytest.mark.parametrize(("method", "path"), [*ORDERS, ("GET", f"{API}/actions")])
async def test_without_a_tokens_file_actions_are_off(
    source: FakeSource, method: str, path: str
) -> None:
    async with TestClient(TestServer(create_app(source, Settings()))) as client:
        assert "Actions are off" in await detail(await ask(client, method, path), 403)
    assert source.acted == []


async def test_actions_may_have_an_address_of_their_own(
    source: FakeSource, tokens_file: Path
) -> None:
    app = create_app(source, Settings(tokens_file=tokens_file), acts=False)
    async with TestClient(TestServer(app)) as client:
        assert "another address" in await detail(await ask(client, "POST", CANCEL), 403)
        assert (await ask(client, "GET", f"{API}/workflows")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", f"{API}/workflows/nobody/cancel", 404, "no workflow with this id"),
        ("POST", f"{API}/workflows/..%2F..%2Fetc/resume", 404, "no workflow with this id"),
        ("POST", f"{API}/workflows/etl%2F2025-06-01/cancel", 409, "It is FAILED already"),
        ("POST", f"{API}/workflows/train-7/resume", 409, "nothing to resume"),
        ("DELETE", f"{API}/workflows/train-7", 409, "cancel it first"),
        ("DELETE", f"{API}/workflows/train-7?force=true", 400, "start_manager"),
        ("DELETE", f"{API}/workflows/train-7?start_manager=1", 400, "true or false"),
        ("POST", f"{CANCEL}?when_started=true", 400, "are: none"),
        ("PUT", CANCEL, 405, ""),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_reason(
    client: Client, source: FakeSource, method: str, path: str, status: int, said: str
) -> None:
    assert said in await detail(await ask(client, method, path), status)
    assert source.acted == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'{"when_started": "true"}',
        b'{"when_started": 1}',
        b'{"force": true}',
        b"\xff\xfe",
        b'{"a":' * 3000,
        b'{"when_started": NaN}',
    ],
)
async def test_a_body_that_is_wrong_is_refused(
    client: Client, source: FakeSource, body: bytes
) -> None:
    text = await detail(await ask(client, "POST", CANCEL, data=body), 400)
    assert text.startswith("The body may hold start_manager, when_started.")
    assert source.acted == []


async def test_a_body_that_is_too_long_is_refused_before_it_is_read(
    client: Client, source: FakeSource
) -> None:
    answer = await ask(client, "POST", CANCEL, data=io.BytesIO(b" " * 10_000_000))
    assert "at most 16384 bytes" in await detail(answer, 413)
    assert source.acted == []


async def test_the_same_key_orders_once(client: Client, source: FakeSource) -> None:
    key = {"Idempotency-Key": "3a7e"}
    first = await (await ask(client, "POST", CANCEL, headers=key)).json()
    wait_until(lambda: source.actions.newest()[0].state.finished)
    again = await ask(client, "POST", CANCEL, headers=key)
    assert again.status == 202
    assert (await again.json())["action_id"] == first["action_id"]
    assert source.acted == [("cancel", "train-7")]
    other = await ask(client, "DELETE", f"{API}/workflows/etl%2F2025-06-01", headers=key)
    assert "used before" in await detail(other, 422)
    for wrong in ("", "x" * 256, "é"):
        refused = await ask(client, "POST", CANCEL, headers={"Idempotency-Key": wrong})
        assert refused.status == 400


async def test_tokens_change_without_a_restart(client: Client, tokens_file: Path) -> None:
    async def status(token: str) -> int:
        return (await ask(client, "GET", f"{API}/actions", token)).status

    assert await status("act-token") == 200
    write_tokens(tokens_file, {"ops": ("act", "a-new-token")})
    await until(status, "a-new-token", 200)
    assert await status("act-token") in DENIED
    tokens_file.write_text("tokens: [")
    await until(status, "a-new-token", *DENIED)
    write_tokens(tokens_file, {"ops": ("act", "act-token")})
    await until(status, "act-token", 200)
    tokens_file.unlink()
    await until(status, "act-token", *DENIED)


DENIED = (401, 429)  # 429 once it was said often enough


async def until(status: Any, token: str, *wanted: int) -> None:
    """Ask until the answer has one of these statuses."""
    deadline = asyncio.get_running_loop().time() + 20
    while await status(token) not in wanted:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)


async def test_who_guesses_tokens_has_to_wait(client: Client) -> None:
    answers = [await ask(client, "POST", CANCEL, f"guess-{number}") for number in range(12)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) > 0
    # The one with the right token, behind the same proxy, is not kept out.
    assert (await ask(client, "GET", f"{API}/actions")).status == 200


async def test_one_caller_cannot_order_without_end(client: Client) -> None:
    answers = [await ask(client, "POST", f"{API}/workflows/no/cancel") for _ in range(32)]
    statuses = [answer.status for answer in answers]
    assert statuses[:30] == [404] * 30
    assert 429 in statuses[30:]


async def test_pages_of_named_origins_alone_may_use_the_api(
    source: FakeSource, tokens_file: Path
) -> None:
    settings = Settings(tokens_file=tokens_file, cors_origins=("https://grafana.example",))
    async with TestClient(TestServer(create_app(source, settings))) as client:
        asked = {
            "Origin": "https://grafana.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-grafana-action",
        }
        preflight = await ask(client, "OPTIONS", CANCEL, None, headers=asked)
        assert preflight.status == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://grafana.example"
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        allowed = preflight.headers["Access-Control-Allow-Headers"].lower()
        assert all(name in allowed for name in asked["Access-Control-Request-Headers"].split(","))
        answer = await ask(client, "GET", f"{API}/workflows", headers=asked)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://grafana.example"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        for origin in ("https://evil.example", "null", "https://grafana.example.evil.example"):
            other = {**asked, "Origin": origin}
            for method, path in (("OPTIONS", CANCEL), ("GET", f"{API}/workflows")):
                answer = await ask(client, method, path, None, headers=other)
                assert not [it for it in answer.headers if it.startswith("Access-Control-")]
                assert "Origin" in answer.headers["Vary"]
        page = await ask(client, "GET", "/metrics", headers=asked)
        assert "Access-Control-Allow-Origin" not in page.headers
