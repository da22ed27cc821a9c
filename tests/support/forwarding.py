"""What the tests of the route on Ray's dashboard share: where it leads to, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient

Client = TestClient[web.Request, web.Application]


def point_to(folder: Path, url: str, **more: object) -> None:
    (folder / "address.json").write_text(json.dumps({"url": url.rstrip("/"), **more}))


async def problem(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    assert answer.content_type == "application/problem+json"
    content = await answer.json()
    assert content["status"] == answer.status
    return answer.status, content["detail"]
