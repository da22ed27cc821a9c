"""The parent's side of the link, with scripted children in the place of the real one."""

from __future__ import annotations

import itertools
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Optional

import psutil
import pytest

from ray_workflow_exporter.sources.manager import link as running
from ray_workflow_exporter.sources.manager.link import RayLink
from ray_workflow_exporter.sources.records import LinkCause, LinkState, ManagerView, RayTaskDetail
from support.logs import records_of
from support.waiting import wait_until

pytestmark = pytest.mark.process

# A child that answers each poll with `answer(n)`, n counting from 1, and tells that it began.
CHILD = """
import json, os, sys, threading, time
print("began", file=open({log!r}, "a"))
def held():
    while not os.path.exists({gate!r}): time.sleep(0.01)
def up(n, **more):
    tasks = [["t%d" % n, [], 3, True, False]]
    first = n == 1
    run = ["w", first, False, ["t1", False, 1] if first else None, tasks, [], [], [], [], []]
    known = {{"storage_uri": "/s", "session_name": "x", "ray_version": "2.47.1"}}
    return {{"state": "up", "reason": "", "cause": "lost", "connected": True, "final": False,
            "answers": [[n - 1, n, False, [-1, -1], [], 0, [run]]], "ray": known, **more}}
def reply(request, result):
    sys.stdout.write(json.dumps({{"id": request["id"], "result": result}}) + "\\n")
    sys.stdout.flush()
n = 0
def serve(request):
    global n
    if request["op"] == "task_details":
        {details}
        return
    if request["op"] == "executor_errors":
        reply(request, {{"w": "It began at %g." % request["args"]["starts"]["w"]}})
        return
    if request["op"] == "act":
        {act}
        return
    n += 1
    {poll}
for line in sys.stdin:
    threading.Thread(target=serve, args=(json.loads(line),), daemon=True).start()
{end}
"""


class Links:
    """Makes links whose child is scripted, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = folder / "gate"  # ends `held()` in the child
        self.made: list[RayLink] = []

    def __call__(
        self,
        poll: str = "reply(request, up(n))",
        details: str = "reply(request, {})",
        act: str = "reply(request, ['SUCCEEDED', 'It is done.'])",
        end: str = "",
        timeout: float = 60.0,
    ) -> RayLink:
        script = self.folder / "child.py"
        script.write_text(
            textwrap.dedent(CHILD).format(
                log=str(self.folder / "log"),
                gate=str(self.gate),
                poll=poll,
                details=details,
                act=act,
                end=end,
            )
        )
        link = RayLink("192.0.2.1:6379", timeout=timeout)
        link._command = [sys.executable, str(script)]
        self.made.append(link)
        return link

    def begun(self) -> int:
        log = self.folder / "log"
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Links]:
    monkeypatch.setattr(running, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.1)
    links = Links(tmp_path)
    yield links
    for link in links.made:
        link.close()


def polls_until(link: RayLink, good: Callable[[ManagerView], bool]) -> ManagerView:
    def look() -> Optional[ManagerView]:
        view = link.poll()
        return view if good(view) else None

    return wait_until(look, message="no poll gave the view that was waited for")


def children() -> set[int]:
    return {child.pid for child in psutil.Process(os.getpid()).children()}


def test_a_link_that_is_off_starts_nothing() -> None:
    before = children()
    link = RayLink("none")
    view = link.poll()
    assert (view.state, view.cause) == (LinkState.OFF, LinkCause.OFF)
    assert view.reason
    assert children() == before
    link.close()


def test_nothing_is_started_before_the_first_poll(links: Links) -> None:
    before = children()
    links()
    assert children() == before


def test_polls_add_up(links: Links) -> None:
    link = links()
    first, second = link.poll(), link.poll()
    assert first.state is second.state is LinkState.UP
    assert first.runs["w"].changed == {"t1"}
    assert second.runs["w"].changed == {"t2"}
    assert list(second.runs["w"].tasks) == ["t1", "t2"]
    assert (second.storage_uri, second.session_name, second.ray_version) == ("/s", "x", "2.47.1")
    assert second.restarts == 0


def test_a_child_that_dies_is_replaced_and_counted(links: Links) -> None:
    link = links(poll="reply(request, up(n)) if n == 1 else os._exit(9)")
    assert link.poll().state is LinkState.UP
    view = link.poll()
    assert view.state is LinkState.UNREACHABLE
    assert view.reason.endswith(".")
    assert view.storage_uri == "/s", "what is known of Ray stays known"
    view = polls_until(link, lambda view: view.state is LinkState.UP)
    assert view.restarts == 1
    assert links.begun() == 2


def test_the_log_says_once_that_the_link_is_lost_and_why_and_once_that_it_is_back(
    links: Links, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "FIRST_DELAY", 0.5)
    link = links(poll="reply(request, up(n)) if n < 4 else os._exit(1)")
    with caplog.at_level("INFO", logger=running.__name__):
        for state in (LinkState.UP, LinkState.UNREACHABLE, LinkState.UP):
            polls_until(link, lambda view: view.state is state)  # noqa: B023 - called here
            link.poll()
    assert [(it.levelname, it.getMessage()) for it in records_of(caplog, running.__name__)] == [
        ("INFO", "Connected to Ray: its management actor answers."),
        ("WARNING", "The link to Ray ended: its Ray may have died."),
        ("INFO", "Connected to Ray: its management actor answers."),
    ]


def test_a_child_that_dies_in_the_middle_of_a_reply_is_replaced(links: Links) -> None:
    link = links(poll='os.write(1, b\'{"id": 1, "resu\'); os._exit(9)')
    assert link.poll().state is LinkState.UNREACHABLE
    polls_until(link, lambda view: view.restarts >= 1)


def test_delay_between_starts_doubles_up_to_a_limit(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "FIRST_DELAY", 1.0)
    clock = itertools.count(0.0, 0.25)
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    link = links(poll="os._exit(9)")
    starts, at = [0.0], 0.0
    while len(starts) < 8:
        restarts = link.poll().restarts
        at = next(clock)
        if restarts == len(starts):
            starts.append(at)
    gaps = [after - before for before, after in zip(starts, starts[1:])]
    expected = [1, 2, 4, 8, 16, 30, 30]
    assert all(0.7 * gap < seen < 1.3 * gap + 2 for gap, seen in zip(expected, gaps)), gaps


def test_a_reply_that_comes_late_is_not_lost(links: Links) -> None:
    link = links(poll="held() if n == 2 else None; reply(request, up(n))")
    assert link.poll().state is LinkState.UP
    link._timeout = 0.3
    late = link.poll()
    assert late.state is LinkState.UNREACHABLE
    assert late.reason == "The link to Ray did not answer within 0.3 s."
    link._timeout = 60.0
    links.gate.touch()
    view = polls_until(link, lambda view: view.state is LinkState.UP)
    assert list(view.runs["w"].tasks) == ["t1", "t2"]
    assert view.runs["w"].changed == {"t1", "t2"}, "the view before knew no runs"


def test_a_child_that_hangs_is_replaced(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "HANG_SECONDS", 0.5)
    link = links(poll="time.sleep(3600)", timeout=0.1)
    view = link.poll()
    assert view.state is LinkState.UNREACHABLE
    assert "is starting" in view.reason
    polls_until(link, lambda view: view.restarts >= 1)


def test_a_driver_that_lost_its_ray_is_replaced(links: Links) -> None:
    lost = "up(n, state='unreachable', reason='Ray is gone.', answers=[], connected=False)"
    link = links(poll=f"reply(request, {lost})")
    view = link.poll()
    assert (view.state, view.reason) == (LinkState.UNREACHABLE, "Ray is gone.")
    again = link.poll()
    assert (again.reason, again.cause) == ("Ray is gone.", LinkCause.LOST), "while nothing runs"
    polls_until(link, lambda view: view.restarts >= 1)


def test_a_final_verdict_starts_no_more_children(links: Links) -> None:
    fields = "state='unsupported', reason='No.', cause='not_installed', answers=[]"
    no = f"up(n, {fields}, connected=False, final=True)"
    link = links(poll=f"reply(request, {no})")
    for _ in range(3):
        view = link.poll()
        assert (view.state, view.reason, view.restarts) == (LinkState.UNSUPPORTED, "No.", 0)
        assert view.cause is LinkCause.NOT_INSTALLED
    assert links.begun() == 1


def test_a_program_that_cannot_be_started_is_a_sentence(links: Links) -> None:
    link = links()
    link._command = ["/nonexistent/python"]
    view = link.poll()
    assert view.state is LinkState.UNREACHABLE
    assert view.reason.startswith("The link to Ray could not be started: ")


def test_details_do_not_delay_a_poll(links: Links) -> None:
    link = links(details="held(); reply(request, {'aa': ['node', 'E', 'text']})")
    link.poll()
    got: list[object] = []
    asking = threading.Thread(target=lambda: got.append(link.task_details(["aa"])))
    asking.start()
    assert link.poll().state is LinkState.UP
    assert asking.is_alive(), "the details came before the poll"
    links.gate.touch()
    asking.join()
    assert got == [{"aa": RayTaskDetail("node", "E", "text")}]


def test_details_are_empty_when_they_come_too_late_or_never(links: Links) -> None:
    link = links(details="time.sleep(3600)", timeout=0.5)
    assert link.task_details(["aa"]) == {}, "no child yet"
    polls_until(link, lambda view: view.state is LinkState.UP)
    assert link.task_details([]) == {}
    assert link.task_details(["aa"]) == {}


def test_why_a_run_stopped_is_asked_of_the_child(links: Links) -> None:
    link = links()
    assert link.executor_errors({"w": 5.0}) == {}, "no child yet"
    link.poll()
    assert link.executor_errors({"w": 5.0}) == {"w": "It began at 5."}
    link.close()
    assert link.executor_errors({"w": 5.0}) == {}


def test_an_action_is_answered_while_a_poll_waits(links: Links) -> None:
    link = links(poll="held() if n > 1 else None; reply(request, up(n))")
    link.poll()
    polling = threading.Thread(target=link.poll)
    polling.start()
    assert link.act("a", "cancel", "w") == ("SUCCEEDED", "It is done.")
    assert polling.is_alive(), "the poll was answered first"
    links.gate.touch()
    polling.join()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("os._exit(1)", "ended"),
        ("time.sleep(60)", "did not answer in time; it may still be done."),
        ("sys.stdout.write('{'); sys.stdout.flush(); os._exit(1)", "is not known."),
    ],
)
def test_an_action_whose_link_is_lost_is_not_called_done(
    links: Links, monkeypatch: pytest.MonkeyPatch, act: str, said: str
) -> None:
    monkeypatch.setattr(running, "ACT_SECONDS", 0.2)
    link = links(act=act)
    assert link.poll().state is LinkState.UP
    link._timeout = 1.0
    state, detail = link.act("a", "cancel", "w")
    assert state == "FAILED"
    assert said in detail


def test_without_a_link_no_action_is_done(links: Links) -> None:
    assert RayLink("none").act("a", "cancel", "w")[0] == "FAILED"
    assert links().act("a", "cancel", "w")[0] == "FAILED"
    assert links.begun() == 0


def test_close_ends_the_child_within_two_seconds_and_for_ever(links: Links) -> None:
    link = links(end="time.sleep(3600)")
    before = children()
    assert link.poll().state is LinkState.UP
    (child,) = children() - before
    began = time.monotonic()
    link.close()
    assert time.monotonic() - began < 30.0, "it waited for its child to end by itself"
    assert not psutil.pid_exists(child), "not even a zombie"
    assert link.poll().state is LinkState.UNREACHABLE
    assert children() == before
    link.close()


def test_close_interrupts_a_poll(links: Links) -> None:
    link = links(poll="time.sleep(3600)", timeout=60.0)
    views: list[ManagerView] = []
    polling = threading.Thread(target=lambda: views.append(link.poll()))
    polling.start()
    wait_until(links.begun, message="the child did not begin")
    link.close()
    polling.join(5.0)
    assert [view.state for view in views] == [LinkState.UNREACHABLE]
