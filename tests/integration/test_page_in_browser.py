"""The pages in a real browser: over a real Ray, and over runs that a test changes at will."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cluster import Cluster
from fake_source import HOSTILE, FakeSource, failed_run, running_run, view
from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState
from ray_workflow_exporter.settings import Settings
from served import Served
from waiting import wait_until
from websites import Site, write_tokens

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "chromium is not installed: run `make system`, or install its package by hand"
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    """What a browser complains about; what a test expects, it takes out."""
    return []


@pytest.fixture
def page(browser: Browser, faults: list[str]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    watch(page, faults)
    yield page
    context.close()
    assert faults == []


def watch(page: Page, faults: list[str]) -> None:
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on(
        "console", lambda it: faults.append(it.text) if it.type in ("error", "warning") else None
    )


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(running_run(), failed_run(), failed_run(HOSTILE))


@pytest.fixture
def site(source: FakeSource, tmp_path: Path) -> Iterator[str]:
    write_tokens(tmp_path / "tokens", {"on-call": ("act", TOKEN)})
    with Site(Settings(tokens_file=tmp_path / "tokens"), source) as site:
        yield f"http://127.0.0.1:{site.port}"


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


# --- Over a real Ray ----------------------------------------------------------------------------


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
    name = 'watched/"run" <1>'
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
        expect(dialog.get_by_role("button", name="Leave it")).to_be_focused()
        page.keyboard.press("Shift+Tab")
        expect(dialog.get_by_label("Token")).to_be_focused()
        page.keyboard.press("Control+a")
        page.keyboard.type(token)
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")

    cancel("wrong")
    expect(outcome).to_contain_text("Valid credentials are needed", timeout=PATIENCE)
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
        "There is no workflow of this id.", timeout=PATIENCE
    )
    expect(outcome).to_contain_text("SUCCEEDED")
    faults[:] = [it for it in faults if "404" not in it]


# --- Over runs that a test changes --------------------------------------------------------------


def wide_run(tasks: int) -> Run:
    mapped = [
        Task(
            f"map_{number}",
            "map",
            TaskState.SUCCESSFUL if number % 2 else TaskState.RUNNING,
            upstream=("split",),
            start_time=100.0,
            end_time=200.0 if number % 2 else None,
        )
        for number in range(tasks)
    ]
    last = Task("reduce", "reduce", TaskState.WAITING, tuple(it.task_id for it in mapped))
    all_tasks = [Task("split", "split", TaskState.SUCCESSFUL, start_time=1, end_time=99.5)]
    all_tasks += [*mapped, last]
    by_id = {task.task_id: task for task in all_tasks}
    return Run("wide", "wide", RunStatus.RUNNING, by_id, "reduce", start_time=1.0)


def test_a_fan_out_of_a_thousand_is_legible_by_stage(
    source: FakeSource, site: str, page: Page
) -> None:
    source.held["wide"] = view(wide_run(1000))
    page.goto(of(site, "wide"))
    expect(page.locator("#dag .node")).to_have_count(3)
    node = page.locator("#node-map")
    expect(node).to_contain_text("500/1000")
    for it in ("#node-split", "#node-map", "#node-reduce"):
        box = page.locator(it).bounding_box()
        assert box
        assert 0 < box["x"] < box["x"] + box["width"] < 1300
        assert box["height"] > 40
    expect(page.locator("#tasks")).to_contain_text("1 to 100 of 1002")
    node.click()
    expect(page.locator("#tasks h2")).to_contain_text("1000 of 1002")
    page.goto(of(site, "wide") + "?level=task")
    expect(page.locator("main")).to_contain_text("nobody could read")


def test_what_one_reads_stays_where_it_is_while_the_run_grows(
    source: FakeSource, site: str, page: Page
) -> None:
    run = running_run()
    page.goto(of(site, "train-7") + "?level=task")
    expect(page.locator("#live")).to_have_text("Live")
    page.locator("#search").fill("half a wo")
    node = page.locator("#node-fit")
    before = node.evaluate("it => it.getAttribute('transform')")
    page.evaluate("window.node = document.getElementById('node-fit')")

    last = Task("score", "score", TaskState.WAITING, upstream=("fit",))
    grown = replace(run, tasks={**run.tasks, "score": last})
    source.held["train-7"] = view(grown)
    source.change("train-7", "WAITING", "score")
    expect(page.locator("#node-score")).to_be_visible()
    assert node.evaluate("it => it === window.node"), "it is the same element"
    assert node.evaluate("it => it.getAttribute('transform')") == before
    expect(page.locator("#search")).to_be_focused()
    expect(page.locator("#search")).to_have_value("half a wo")


def test_it_says_when_the_exporter_is_away_and_catches_up(
    source: FakeSource, page: Page, faults: list[str]
) -> None:
    with Site(Settings(), source) as site:
        url = f"http://127.0.0.1:{site.port}"
        page.goto(of(url, "train-7"))
        expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#live")).to_contain_text("does not answer")
    expect(page.locator("h1")).to_contain_text("train-7")  # what was known stays
    done = replace(running_run(), status=RunStatus.SUCCESSFUL, end_time=25.0)
    source.held["train-7"] = view(done)
    again = Site(Settings(), source)
    again.port = site.port
    with again:
        expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE)
        expect(page.locator("h1")).to_contain_text("SUCCESSFUL")
        faults[:] = [it for it in faults if "ERR_" not in it]
        page.goto("about:blank")


def test_the_list_is_searched_by_keyboard_alone(site: str, page: Page) -> None:
    page.goto(site)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("2025")
    page.keyboard.press("Enter")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    assert "text=2025" in page.url
    page.get_by_role("link", name="etl/2025-06-01").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("etl/2025-06-01")
    page.locator("#node-check").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#tasks h2")).to_contain_text("1 of 3")
    page.go_back()
    page.go_back()
    page.get_by_label("FAILED", exact=True).focus()
    page.keyboard.press("Space")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    assert "status=FAILED" in page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_accessible(
    source: FakeSource, site: str, page: Page, scheme: Any, tmp_path: Path
) -> None:
    source.held["wide"] = view(wide_run(20))
    page.emulate_media(color_scheme=scheme)
    for name, url in {
        "runs": site,
        "run": of(site, "etl/2025-06-01"),
        "tasks": of(site, "wide") + "?level=task",
        "error": of(site, "none"),
    }.items():
        if name != "error":
            page.goto(url)
            expect(page.locator("#live")).to_have_text("Live")
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", shade))) > 380) is (scheme == "light")
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    page.get_by_role("button", name="Cancel").click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_without_scripts_all_can_be_read(site: str, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    try:
        page.goto(site)
        page.locator("#search").fill("2025")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#runs tbody tr")).to_have_count(1)
        page.get_by_role("link", name="etl/2025-06-01").click()
        expect(page.locator("#failure")).to_contain_text("ValueError")
        expect(page.locator("#dag .node")).to_have_count(3)
        expect(page.locator("#actions")).to_contain_text(
            "ray-workflow-exporter resume|delete etl/2025-06-01"
        )
    finally:
        context.close()


def test_what_users_wrote_is_text_and_nothing_else(
    source: FakeSource, site: str, page: Page
) -> None:
    evil = '"><img src=x onerror=alert(1)>{{7*7}}</script>'
    task = Task(evil, evil, TaskState.RUNNING, start_time=1.0, user_metadata={evil: evil})
    run = Run(evil, evil, RunStatus.RUNNING, {evil: task}, start_time=1.0)
    source.held = FakeSource(run, failed_run(HOSTILE, message=evil)).held
    for url in (site, of(site, evil), of(site, evil) + "?level=task", of(site, HOSTILE)):
        page.goto(url)
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.locator("main")).to_contain_text("<img src=x onerror=alert(1)>{{7*7}}")
        assert page.locator("img").count() == 0
    page.goto(of(site, evil))
    expect(page.locator("#live")).to_have_text("Live")
    ended = {evil: replace(task, state=TaskState.FAILED)}
    source.held[evil] = view(replace(run, status=RunStatus.FAILED, tasks=ended))
    source.change(evil, "FAILED")
    expect(page.locator("h1")).to_contain_text("FAILED")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text(evil)
