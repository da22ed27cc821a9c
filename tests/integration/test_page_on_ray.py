"""The pages in a real browser over a real Ray: one sees what happens and does what one asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Page, expect

from support.cluster import Cluster
from support.served import Served
from support.waiting import wait_until
from support.websites import write_tokens

TOKEN = "the-token-of-somebody-on-call"
PATIENCE = 30_000  # milliseconds

DRIVER = """
import os
def named(task_id): return workflow.options(task_id=task_id)
@ray.remote
def wait_for(path, *after):
    while not os.path.exists(path): time.sleep(0.05)
@ray.remote
def fail(*after):
    raise ValueError("the last row is missing")
name, one, two = sys.argv[1:]
first = [wait_for.options(**named(it)).bind(one) for it in ("left", "middle", "right")]
second = wait_for.options(**named("second")).bind(two, *first)
workflow.run_async(fail.options(**named("last")).bind(second), workflow_id=name)
"""


def of(site: str, workflow_id: str) -> str:
    return f"{site}/workflows/{quote(workflow_id, safe='')}"


def drawn(page: Page) -> dict[str, list[Any]]:
    """Return what the DAG shows, as the API tells it."""
    edges: list[Any] = page.locator("#dag .edges path").evaluate_all(
        "all => all.map(it => ({source: it.dataset.source, target: it.dataset.target,"
        " kind: it.dataset.kind}))"
    )
    nodes: list[Any] = page.locator("#dag .node").evaluate_all(
        "all => all.map(it => it.dataset.node)"
    )
    return {"nodes": nodes, "edges": edges}


def told(site: str, workflow_id: str, level: str) -> dict[str, list[Any]]:
    url = f"{site}/api/v1/workflows/{quote(workflow_id, safe='')}/graph?level={level}"
    graph = requests.get(url, timeout=10).json()
    return {"nodes": [it["id"] for it in graph["nodes"]], "edges": graph["edges"]}


@pytest.fixture
def served(cluster: Cluster, tmp_path: Path) -> Iterator[Served]:
    write_tokens(tmp_path / "tokens", {"on-call": ("act", TOKEN), "guest": ("read", "guest")})
    arguments = ("--address", cluster.address, "--tokens-file", str(tmp_path / "tokens"))
    served = Served(tmp_path, *arguments, "--interval", "500ms").start()
    yield served
    served.stop()


def test_a_run_appears_progresses_and_fails_while_one_watches(
    cluster: Cluster, served: Served, page: Page, tmp_path: Path
) -> None:
    name = 'looked at/"run" <1>'
    page.goto(served.url)
    page.evaluate("window.loadedOnce = true")
    row = page.locator("#runs tr").filter(has_text=name)
    expect(row).to_have_count(0)
    cluster.run_driver(DRIVER, name, str(tmp_path / "one"), str(tmp_path / "two"))
    expect(row).to_contain_text("RUNNING", timeout=PATIENCE)
    assert page.evaluate("window.loadedOnce"), "it appeared without a reload"

    row.get_by_role("link").click()
    page.evaluate("window.loadedOnce = true")
    expect(page.locator("h1")).to_contain_text(name)
    expect(page.locator("#dag .node")).to_have_count(5)
    for level in ("stage", "task"):
        page.get_by_role("link", name=level, exact=True).click()
        expect(page.locator(".levels [aria-current]")).to_have_text(level)
        wait_until(lambda: drawn(page) == told(served.url, name, level))  # noqa: B023
    page.evaluate("window.loadedOnce = true")
    expect(page.locator("#node-left")).to_contain_text("RUNNING", timeout=PATIENCE)
    (tmp_path / "one").touch()
    expect(page.locator("#node-left")).to_contain_text("SUCCESSFUL", timeout=PATIENCE)
    expect(page.locator("p.progress")).to_contain_text("60% ", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()

    (tmp_path / "two").touch()
    expect(page.locator("#failure")).to_contain_text("the last row is missing", timeout=PATIENCE)
    expect(page.locator("#failure")).to_contain_text("ValueError")
    expect(page.locator("h1")).to_contain_text("FAILED")
    expect(page.locator("#node-last")).to_contain_text("FAILED")
    assert re.match(".* · FAILED · ", page.title())
    names = page.locator("#actions button").all_inner_texts()
    assert names == ["Resume", "Delete"]
    assert page.evaluate("window.loadedOnce"), "all of it happened without a reload"
    page.screenshot(path=tmp_path / "failed.png", full_page=True)


@pytest.mark.slow
def test_a_run_is_cancelled_with_a_token_by_keyboard_and_not_without(
    cluster: Cluster, served: Served, page: Page, faults: list[str], tmp_path: Path
) -> None:
    name = "cancelled by hand"
    cluster.run_driver(DRIVER, name, str(tmp_path / "one"), str(tmp_path / "two"))
    wait_until(lambda: served.status(name) == "RUNNING")
    page.goto(of(served.url, name))
    outcome = page.locator("#outcome")

    def cancel(token: str) -> None:
        page.get_by_role("button", name="Cancel").focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Cancel?")
        expect(dialog).to_contain_text(name)
        expect(dialog).to_contain_text("Its tasks are killed.")
        expect(dialog.get_by_role("button", name="Keep as is")).to_be_focused()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        expect(dialog.get_by_label("Token")).to_be_focused()
        page.keyboard.press("Control+a")
        page.keyboard.type(token)
        page.keyboard.press("Enter")

    cancel("wrong")
    expect(outcome).to_contain_text("The token is not valid", timeout=PATIENCE)
    cancel("guest")
    expect(outcome).to_contain_text("This token may only read.", timeout=PATIENCE)
    page.get_by_role("button", name="Cancel").press("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert served.status(name) == "RUNNING"
    assert [it for it in faults if "401" not in it and "403" not in it] == []
    faults.clear()

    cancel(TOKEN)
    expect(outcome).to_contain_text(f"Cancel {name}: SUCCEEDED", timeout=PATIENCE)
    expect(page.locator("h1")).to_contain_text("CANCELED", timeout=PATIENCE)
    assert wait_until(lambda: served.status(name)) == "CANCELED"
    assert TOKEN not in page.content() + page.url
    assert page.context.cookies() == []
    assert f"audit: on-call: cancel {name!r}: accepted as " in served.log()

    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This cannot be undone.")
    expect(dialog.get_by_label("Token")).to_have_value(TOKEN)
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("main")).to_contain_text(
        "There is no workflow with this id.", timeout=PATIENCE
    )
    expect(outcome).to_contain_text("SUCCEEDED")
    faults[:] = [it for it in faults if "404" not in it]
