"""The pages in a real browser, over runs that a test changes at will."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from fake_source import HOSTILE, FakeSource, failed_run, running_run, view
from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState
from ray_workflow_exporter.settings import Settings
from websites import Site, write_tokens

PATIENCE = 30_000  # milliseconds


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(running_run(), failed_run(), failed_run(HOSTILE))


@pytest.fixture
def site(source: FakeSource, tmp_path: Path) -> Iterator[str]:
    write_tokens(tmp_path / "tokens", {"on-call": ("act", "a-token")})
    with Site(Settings(tokens_file=tmp_path / "tokens"), source) as site:
        yield f"http://127.0.0.1:{site.port}"


def of(site: str, workflow_id: str) -> str:
    return f"{site}/workflows/{quote(workflow_id, safe='')}"


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
