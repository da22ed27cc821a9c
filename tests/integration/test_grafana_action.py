"""The guide's button for Grafana, as Grafana's script presses it in a real browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page

from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import FakeSource, running_run
from support.waiting import wait_until
from support.websites import Site, write_tokens

TOKEN = "the-token-of-a-dashboard"
GUIDE = Path(__file__).parents[2] / "docs" / "grafana-actions.md"
# What Grafana's own script does with an action: it asks from the browser, with headers of its own.
CLICK = """async action => {
  const headers = new Headers(action.headers);
  headers.set("X-Grafana-Action", "1");
  headers.set("X-Grafana-Device-Id", "0815");
  try {
    const answer = await fetch(action.url, {...action, headers, credentials: "same-origin"});
    return answer.status;
  } catch (error) { return error.name; }
}"""


def guided_action(url: str, workflow_id: str) -> dict[str, Any]:
    """Return the action that the guide shows, as Grafana fills it in for a row."""
    (example,) = re.findall(r"```json\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (actions,) = [it["value"] for it in json.loads(example)["properties"] if it["id"] == "actions"]
    action: dict[str, Any] = actions[0]["fetch"]
    filled = action["url"].replace(
        "${__data.fields.workflow_id:percentencode}", quote(workflow_id, safe="")
    )
    action["url"] = filled.replace("https://head-node:20729", url)
    action["headers"] = [
        [name, value.replace("TOKEN-OF-THIS-DASHBOARD", TOKEN)] for name, value in action["headers"]
    ]
    return action


class Elsewhere(BaseHTTPRequestHandler):
    """A page of another origin, without a policy of its own, as Grafana's are by default."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Elsewhere</title>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def origins() -> Iterator[list[str]]:
    """Two origins with a page each."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    for server, thread in zip(servers, threads):
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_guides_action_works_from_the_named_origin_alone(
    origins: list[str], page: Page, faults: list[str], tmp_path: Path
) -> None:
    write_tokens(tmp_path / "tokens", {"dashboard": ("act", TOKEN)})
    elsewhere, grafana = origins
    source = FakeSource(running_run())
    settings = Settings(tokens_file=tmp_path / "tokens", cors_origins=(grafana,))
    with Site(settings, source) as site:
        action = guided_action(f"http://127.0.0.1:{site.port}", "train-7")
        page.goto(elsewhere)
        assert page.evaluate(CLICK, action) == "TypeError"
        assert source.actions.newest() == []
        page.goto(grafana)
        assert page.evaluate(CLICK, action) == 202
        wait_until(lambda: source.acted == [("cancel", "train-7")])
    assert [it for it in faults if "CORS" not in it and "ERR_FAILED" not in it] == []
    faults.clear()
