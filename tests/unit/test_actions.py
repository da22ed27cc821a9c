"""Actions without Ray: what is refused, what is carried out once, what is told and counted."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

import pytest

from ray_workflow_exporter import actions
from ray_workflow_exporter.actions import (
    Action,
    ActionState,
    Order,
    Refusal,
    RefusedError,
    Verb,
    applicable,
    objection,
)
from ray_workflow_exporter.model import RunStatus, TaskState
from ray_workflow_exporter.sources.records import LinkCause, LinkState, ManagerView
from support.fake_source import FakeSource, failed_run, running_run
from support.logs import messages_of
from support.runs import run, task
from support.waiting import wait_until

CANCEL, RESUME, DELETE = Verb.CANCEL, Verb.RESUME, Verb.DELETE


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(running_run("live"), failed_run("dead"))


def order(source: FakeSource, verb: Verb, workflow_id: str = "live", **options: Any) -> Action:
    key = options.pop("key", None)
    return source.actions.order(Order(verb, workflow_id, "ops", **options), key)


def ended(source: FakeSource, action: Action) -> Action:
    wait_until(lambda: source.actions.get(action.id).state.finished)  # type: ignore[union-attr]
    found = source.actions.get(action.id)
    assert found is not None
    return found


def refusal(source: FakeSource, *order_of: Any, **options: Any) -> Refusal:
    with pytest.raises(RefusedError) as caught:
        order(source, *order_of, **options)
    return caught.value.refusal


@pytest.mark.parametrize(
    ("status", "verbs"),
    [
        (RunStatus.PENDING, [CANCEL]),
        (RunStatus.RUNNING, [CANCEL]),
        (RunStatus.RESUMABLE, [CANCEL, RESUME, DELETE]),
        (RunStatus.SUCCESSFUL, [DELETE]),
        (RunStatus.FAILED, [RESUME, DELETE]),
        (RunStatus.CANCELED, [RESUME, DELETE]),
    ],
)
def test_what_makes_sense_in_each_state(status: RunStatus, verbs: list[Verb]) -> None:
    assert applicable(run(task("a"), status=status)) == verbs


def test_a_queued_run_is_cancelled_only_by_who_knows_that_it_must_start_first() -> None:
    queued = run(task("a"), status=RunStatus.PENDING)
    reason = objection(Order(CANCEL, "id", "ops"), queued)
    assert reason is not None
    assert "`when_started: true`" in reason
    assert objection(Order(CANCEL, "id", "ops", when_started=True), queued) is None


def test_a_failed_run_whose_tasks_still_write_is_not_deleted() -> None:
    writing = run(task("a", state=TaskState.RUNNING), status=RunStatus.FAILED)
    assert applicable(writing) == [RESUME]


def test_an_action_is_carried_out_and_told(
    source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    assert logging.getLogger().getEffectiveLevel() == logging.WARNING  # which does not count
    action = ended(source, order(source, CANCEL))
    assert (action.state, action.detail) == (ActionState.SUCCEEDED, "It is done.")
    assert action.finished_at is not None
    assert source.acted == [("cancel", "live")]
    assert source.counted == [("cancel", "succeeded")]
    assert messages_of(caplog, actions.audit.name) == [
        f"ops: cancel 'live': accepted as {action.id}",
        f"ops: cancel 'live': {action.id} SUCCEEDED: It is done.",
    ]


def test_what_makes_no_sense_is_refused_and_never_reaches_ray(source: FakeSource) -> None:
    assert refusal(source, CANCEL, "dead") is Refusal.STATE
    assert refusal(source, DELETE, "live") is Refusal.STATE
    assert refusal(source, CANCEL, "nobody") is Refusal.UNKNOWN
    assert source.acted == []
    assert source.counted == [("cancel", "refused"), ("delete", "refused"), ("cancel", "refused")]


@pytest.mark.parametrize(
    "workflow_id", [".", "..", "a/../b", "/etc", "a//b", "./a", "__status__", "__status__/FAILED/a"]
)
def test_an_id_that_leads_elsewhere_is_no_target(workflow_id: str) -> None:
    source = FakeSource(failed_run(workflow_id))
    for verb in (RESUME, DELETE):
        assert refusal(source, verb, workflow_id) is Refusal.STATE
    assert source.acted == []


def test_a_folder_with_other_runs_in_it_is_not_deleted() -> None:
    source = FakeSource(failed_run("a"), failed_run("a/b"), failed_run("ab"))
    assert refusal(source, DELETE, "a") is Refusal.STATE
    ended(source, order(source, RESUME, "a"))
    ended(source, order(source, DELETE, "a/b"))
    ended(source, order(source, DELETE, "ab"))


def test_the_same_key_stands_for_the_same_action(source: FakeSource) -> None:
    first = order(source, CANCEL, key="k")
    ended(source, first)
    assert order(source, CANCEL, key="k").id == first.id
    assert source.acted == [("cancel", "live")]
    assert refusal(source, RESUME, "dead", key="k") is Refusal.KEY
    with pytest.raises(RefusedError) as caught:
        source.actions.order(Order(CANCEL, "live", "ops", when_started=True), "k")
    assert caught.value.refusal is Refusal.KEY
    # A key belongs to the one who made it up.
    assert source.actions.order(Order(CANCEL, "live", "another"), "k").id != first.id


def test_a_run_is_acted_upon_by_one_at_a_time(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def act(*_: Any, **__: Any) -> tuple[str, str]:
        assert release.wait(30)
        return "FAILED", "No."

    monkeypatch.setattr(source.actions, "_act", act)
    action = order(source, CANCEL)
    try:
        assert refusal(source, CANCEL) is Refusal.BUSY
    finally:
        release.set()
    assert ended(source, action).state is ActionState.FAILED
    ended(source, order(source, CANCEL))


def test_ray_that_cannot_be_asked_is_the_answer(source: FakeSource) -> None:
    source.manager = ManagerView(LinkState.UNREACHABLE, "Ray is away.")
    assert refusal(source, CANCEL) is Refusal.UNAVAILABLE
    source.manager = ManagerView(LinkState.OFF, "Ray is switched off: storage only.")
    assert refusal(source, CANCEL) is Refusal.UNAVAILABLE
    source.manager = ManagerView(LinkState.ABSENT)
    assert refusal(source, RESUME, "dead") is Refusal.STATE
    ended(source, order(source, RESUME, "dead", start_manager=True))


def test_a_refusal_without_a_manager_says_why_and_what_to_do_here_and_over_http(
    source: FakeSource,
) -> None:
    reason = "The management actor has died."
    source.manager = ManagerView(LinkState.ABSENT, reason, LinkCause.MANAGER_DIED)
    with pytest.raises(RefusedError, match=r"has died\. .*--start-manager.*start_manager: true"):
        order(source, RESUME, "dead")


def test_no_manager_can_be_started_on_a_ray_without_storage(source: FakeSource) -> None:
    reason = "Ray was started without --storage, so that no workflow can run on it."
    source.manager = ManagerView(LinkState.ABSENT, reason, LinkCause.NO_STORAGE)
    for start in (False, True):
        with pytest.raises(RefusedError, match=r"^Ray was started without --storage[^`]*$"):
            order(source, RESUME, "dead", start_manager=start)


def test_an_action_that_waits_is_asked_again_once_its_run_has_started() -> None:
    queued = run(task("a"), status=RunStatus.PENDING)
    source = FakeSource(queued)
    source.outcome = ("WAITING", "It waits.")
    action = order(source, CANCEL, "id", when_started=True)
    wait_until(lambda: source.actions.get(action.id).state is ActionState.WAITING)  # type: ignore[union-attr]
    source.actions.retry_waiting()
    assert source.acted == [("cancel", "id")]
    source.held = FakeSource(run(task("a"), status=RunStatus.CANCELED)).held
    source.outcome = ("SUCCEEDED", "It is cancelled.")
    source.actions.retry_waiting()
    assert ended(source, action).state is ActionState.SUCCEEDED
    assert source.counted == [("cancel", "succeeded")]


def test_all_that_are_resumable_are_resumed_one_by_one() -> None:
    lost = [run(task("a"), status=RunStatus.RESUMABLE) for _ in range(3)]
    ids = ["one", "__status__/x", "two"]
    source = FakeSource(running_run("live"), failed_run("dead"))
    for workflow_id, it in zip(ids, lost):
        source.held |= FakeSource(replace(it, workflow_id=workflow_id)).held
    action = ended(source, source.actions.order(Order(Verb.RESUME_ALL, None, "ops")))
    assert source.acted == [("resume", "one"), ("resume", "two")]
    assert [(it.workflow_id, it.state.value) for it in action.outcomes] == [
        ("one", "SUCCEEDED"),
        ("__status__/x", "REFUSED"),
        ("two", "SUCCEEDED"),
    ]
    assert (action.state, action.detail) == (ActionState.FAILED, "2 resumed, 1 not.")
    assert source.counted.count(("resume", "succeeded")) == 2


def test_a_fault_of_ours_leaves_no_run_busy(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(source.actions, "_act", lambda *_, **__: 1 // 0)
    action = ended(source, order(source, CANCEL))
    assert action.state is ActionState.FAILED
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    ended(source, order(source, CANCEL))


def test_only_the_newest_actions_are_kept(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "KEPT", 3)
    made = [ended(source, order(source, CANCEL, key=str(number))) for number in range(5)]
    assert [it.id for it in source.actions.newest()] == [it.id for it in reversed(made[2:])]
    assert source.actions.get(made[0].id) is None


def test_a_hostile_id_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    source = FakeSource(failed_run("x\nops: delete 'all': accepted"))
    action = order(source, RESUME, "x\nops: delete 'all': accepted")
    ended(source, action)
    said = messages_of(caplog, actions.audit.name)
    assert len(said) == 2
    assert not any("\n" in message for message in said)
