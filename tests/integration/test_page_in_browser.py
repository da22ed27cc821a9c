"""The pages in a real browser, over runs that a test changes at will."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bcrypt
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState
from ray_workflow_exporter.server.api.events import FEED
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.storage.filesystem import StorageError
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run, view
from support.waiting import wait_until
from support.websites import Site, write_tokens

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
    expect(page.locator("main")).to_contain_text("too large to draw")


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
        expect(page.locator("#actions code")).to_have_text(
            [
                f"ray-workflow-exporter {verb} etl/2025-06-01 --address auto"
                for verb in ("resume", "delete")
            ]
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


@pytest.mark.parametrize("width", [1300, 400])
def test_long_and_wide_names_stay_in_their_places(
    source: FakeSource, site: str, page: Page, width: int
) -> None:
    name = "MW" * 127
    tasks = {name: Task(name, name, TaskState.RUNNING, start_time=1.0)}
    noted = {name: name}
    source.held["wide"] = view(
        Run(name, name, RunStatus.RUNNING, tasks, start_time=1.0, user_metadata=noted)
    )
    page.set_viewport_size({"width": width, "height": 900})
    for url in (site, of(site, "wide")):
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth") == width
    beside = page.locator("#dag .node").evaluate(
        """node => {
          node.scrollIntoView({block: "center"});
          const box = node.querySelector(".box").getBoundingClientRect();
          return document.elementFromPoint(box.right + 4, box.top + 13).tagName;
        }"""
    )
    assert beside != "text"


def see(page: Page, seen: bool) -> None:
    """Bring the tab to the front or to the back, as far as it can tell."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, "hidden", {get: () => hidden, configurable: true});
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        not seen,
    )


def test_a_tab_that_nobody_sees_holds_no_connection_and_catches_up(
    source: FakeSource, page: Page
) -> None:
    with Site(Settings(), source) as site:
        feed = site.app[FEED]
        page.goto(of(f"http://127.0.0.1:{site.port}", "train-7"))
        expect(page.locator("#live")).to_have_text("Live")
        wait_until(lambda: feed.clients == 1)
        see(page, False)
        wait_until(lambda: feed.clients == 0)
        done = replace(running_run(), status=RunStatus.SUCCESSFUL, end_time=25.0)
        source.held["train-7"] = view(done)
        source.change("train-7", "SUCCESSFUL")
        see(page, True)
        expect(page.locator("h1")).to_contain_text("SUCCESSFUL")
        wait_until(lambda: feed.clients == 1)
        page.goto("about:blank")


def test_the_focus_stays_where_it_is_when_others_come_and_go(
    source: FakeSource, site: str, page: Page
) -> None:
    runs = {name: view(running_run(name)) for name in ("one", "two", "three", "four")}
    lost = view(replace(running_run("lost"), status=RunStatus.RESUMABLE))
    source.held = {**runs, "lost": lost}
    page.goto(site)
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.get_by_role("button", name="Resume the")).to_be_visible()

    page.locator("#search").fill("half a wo")
    source.held = dict(runs)
    source.change("lost", None)
    expect(page.locator("#actions")).to_have_count(0)
    expect(page.locator("#search")).to_be_focused()
    expect(page.locator("#search")).to_have_value("half a wo")

    page.get_by_role("link", name="three").focus()
    source.held = {name: runs[name] for name in ("four", "three", "two")}
    source.change("one", None)
    expect(page.locator("#runs tbody th")).to_have_text(["four", "three", "two"])
    expect(page.get_by_role("link", name="three")).to_be_focused()


@pytest.mark.slow
def test_what_was_known_stays_when_storage_does_not_answer(
    source: FakeSource, site: str, page: Page, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    page.goto(of(site, "etl/2025-06-01"))
    expect(page.locator("#live")).to_have_text("Live")

    def hang(workflow_id: str) -> None:
        raise StorageError("The disk is gone.")

    with monkeypatch.context() as patch:
        patch.setattr(source, "run", hang)
        source.change("etl/2025-06-01", "FAILED")
        expect(page.locator("#live")).to_contain_text("Not live")
        expect(page.locator("h1")).to_contain_text("FAILED")
    expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE)
    faults[:] = [it for it in faults if "503" not in it]


def test_a_wrong_clock_of_the_reader_changes_no_duration(
    source: FakeSource, site: str, page: Page
) -> None:
    source.held["now"] = view(replace(running_run("now"), start_time=time.time()))
    page.add_init_script("const right = Date.now; Date.now = () => right() + 7200e3;")
    page.goto(of(site, "now"))
    lasted = page.locator(".facts [data-since]")
    before = lasted.inner_text()
    expect(lasted).not_to_have_text(before)
    assert re.fullmatch(r"[0-9.]+s|0m [0-9]+s", lasted.inner_text())


def order(page: Page, action: str, token: str) -> None:
    page.get_by_role("button", name=action).click()
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")


def test_two_actions_have_an_outcome_each_and_no_news_is_told_once(
    source: FakeSource, site: str, page: Page, faults: list[str]
) -> None:
    source.held["queued"] = view(replace(running_run("queued"), status=RunStatus.PENDING))
    source.outcome = ("WAITING", "It waits in the queue.")
    page.goto(of(site, "queued"))
    lines = page.locator("#outcome p")
    page.evaluate(
        """() => {
          window.told = [];
          new MutationObserver(all => told.push(...all.map(it => it.target.textContent)))
            .observe(document.getElementById("outcome"), {childList: true, subtree: true});
        }"""
    )
    with page.expect_response("**/actions/*"):
        order(page, "Cancel when it starts", "a-token")
    with page.expect_response("**/actions/*"):
        expect(lines).to_have_text(["Cancel when it starts queued: It waits in the queue."])
    order(page, "Cancel when it starts", "a-token")
    expect(lines.nth(1)).to_contain_text("is in progress")
    with page.expect_response("**/actions/*"):
        expect(lines).to_have_count(2)
    expect(lines.nth(1)).to_contain_text("is in progress")
    assert sum("waits in the queue" in it for it in page.evaluate("told")) <= 3  # one for each line
    faults[:] = [it for it in faults if "409" not in it]


def test_a_token_that_cannot_be_one_is_not_sent(source: FakeSource, site: str, page: Page) -> None:
    page.goto(of(site, "train-7"))
    for token in ("ключ", "two words", "“a-token”", ""):
        order(page, "Cancel", token)
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    assert source.acted == []
    expect(page.locator("#outcome")).to_be_empty()
    order(page, "Cancel", " a-token ")
    expect(page.locator("#outcome")).to_contain_text("Cancel train-7: SUCCEEDED")


def test_a_page_opened_with_a_password_in_its_address_acts(
    source: FakeSource, page: Page, tmp_path: Path
) -> None:
    write_tokens(tmp_path / "tokens", {"on-call": ("act", "a-token")})
    hashed = bcrypt.hashpw(b"word", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{ann: {hashed}}}")
    files = {"tokens_file": tmp_path / "tokens", "web_config_file": tmp_path / "web.yml"}
    with Site(Settings.load(None, {}, files), source) as site:
        page.goto(of(f"http://ann:word@127.0.0.1:{site.port}", "train-7"))
        order(page, "Cancel", "a-token")
        expect(page.locator("#outcome")).to_contain_text("Cancel train-7: SUCCEEDED")
        page.goto("about:blank")
