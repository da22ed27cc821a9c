"""Which tasks Ray's state API is asked about, and how often."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Optional

import pytest

from ray_workflow_exporter.model import Failure, FailureKind, Run, RunStatus
from ray_workflow_exporter.poll.task_details import Details
from ray_workflow_exporter.runs.failures import NO_RECORD
from ray_workflow_exporter.sources.records import LinkState, RayTaskDetail
from support.runs import FAILED, RUNNING, SUCCESSFUL, run, task
from support.waiting import wait_until

NOW = 1_000.0
LOST = Failure(FailureKind.SYSTEM, NO_RECORD, "no record")


class FakeLink:
    """The part of RayLink that is asked; knows the node of every task."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.asked_for_errors = 0
        self.known_from = 0  # the question from which on the error of an executor is known

    def executor_errors(self, starts: Mapping[str, Optional[float]]) -> Mapping[str, str]:
        self.asked_for_errors += 1
        known = self.asked_for_errors > self.known_from
        return {key: f"It began at {start}." if known else "" for key, start in starts.items()}

    def task_details(self, ray_task_ids: Collection[str]) -> Mapping[str, RayTaskDetail]:
        self.asked.append(set(ray_task_ids))
        return {ray_task_id: RayTaskDetail("node") for ray_task_id in ray_task_ids}


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def details(link: Any) -> Iterator[Details]:
    details = Details(link)
    yield details
    details.close()


def news(details: Details, it: Run, now: float) -> list[str]:
    """Return the runs with news, once the question that is under way has its answer."""
    if details._asked is not None:
        wait_until(details._asked.done, message="the link was not asked")
    return list(details.update([it], LinkState.UP, now))


def at_work(task_id: str, start: float = NOW - 60.0) -> Any:
    return task(task_id, state=RUNNING, span=(start, None), ray_task_id=f"ray-{task_id}")


def test_long_running_tasks_and_lost_ones_are_asked_about(details: Details, link: FakeLink) -> None:
    lost = task("lost", state=FAILED, failure=LOST, ray_task_id="ray-lost")
    ended = task("ended", state=SUCCESSFUL, span=(0, 1), ray_task_id="ray-ended")
    it = run(at_work("long"), at_work("short", NOW - 1.0), at_work("unnamed"), lost, ended)
    it = replace(it, tasks={**it.tasks, "unnamed": replace(it.tasks["unnamed"], ray_task_id=None)})
    assert news(details, it, NOW) == []
    assert news(details, it, NOW + 0.1) == [it.workflow_id]
    assert link.asked == [{"ray-long", "ray-lost"}]
    assert details.news(it.workflow_id) == {"long", "lost"}
    assert details.of(it.workflow_id)["ray-long"].node_id == "node"


def test_what_changed_between_two_questions_is_followed(details: Details, link: FakeLink) -> None:
    it = run(at_work("a"), at_work("b"))
    news(details, it, NOW)
    known = replace(it.tasks["a"], node_id="node")
    later = replace(it, tasks={**it.tasks, "a": known, "c": at_work("c")})
    assert news(details, later, NOW + 5.0) == [it.workflow_id]
    news(details, later, NOW + 10.0)
    assert link.asked[:2] == [{"ray-a", "ray-b"}, {"ray-b", "ray-c"}]


def test_questions_are_seldom_and_given_up_in_the_end(details: Details, link: FakeLink) -> None:
    it = run(at_work("a"))
    for tenth in range(1000):
        news(details, it, NOW + tenth / 10)
    assert len(link.asked) == 5


def test_a_run_that_is_cancelled_is_not_asked_about(details: Details, link: FakeLink) -> None:
    news(details, run(at_work("a"), status=RunStatus.CANCELED), NOW)
    assert link.asked == []


def test_why_runs_stopped_is_asked_beside_the_polls_until_it_is_known(
    details: Details, link: FakeLink
) -> None:
    link.known_from = 2
    details.explain_stop("w", 5.0)
    assert details.stop_reasons(LinkState.ABSENT, NOW) == {}
    unknown = explained(details, NOW)
    assert list(unknown) == ["w"]
    assert unknown["w"].endswith("; the log of the management actor has the error.")
    assert details.stop_reasons(LinkState.UP, NOW + 0.1) == {}, "asked again at once"
    assert explained(details, NOW + 5.0) == unknown
    known = explained(details, NOW + 10.0)
    assert known["w"].endswith(" left the run: It began at 5.0.")
    assert explained(details, NOW + 15.0) == {}
    assert link.asked_for_errors == 3


def test_why_runs_stopped_is_not_asked_for_ever(details: Details, link: FakeLink) -> None:
    link.known_from = 100
    details.explain_stop("w", 5.0)
    for turn in range(10):
        explained(details, NOW + 5.0 * turn)
    assert link.asked_for_errors == 5


def explained(details: Details, now: float) -> Mapping[str, str]:
    """Ask if it is time to, and return the answer."""
    assert details.stop_reasons(LinkState.UP, now) == {}
    if details._explaining is not None:
        wait_until(details._explaining.done, message="the link was not asked")
    return details.stop_reasons(LinkState.UP, now)
