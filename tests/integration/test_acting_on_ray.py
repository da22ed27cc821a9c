"""Each action in each state of a real run, with races and with a management actor that dies."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from ray_workflow_exporter.actions import Action, ActionState, Order, Refusal, RefusedError, Verb
from ray_workflow_exporter.model import RunStatus
from support.cluster import Cluster
from support.lab import Lab
from support.logs import messages_of
from support.waiting import wait_until

LIMIT = 2  # runs at once
PENDING_LIMIT = 20
numbers = itertools.count()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Cluster(num_cpus=4) as cluster:
        lab = Lab(cluster, tmp_path_factory.mktemp("actions"))
        lab.ask("init", LIMIT, PENDING_LIMIT)
        yield lab
        lab.close()


@pytest.fixture(autouse=True)
def tidy(lab: Lab) -> Iterator[None]:
    """Leave an idle management actor with its limits behind; begin when the exporter knows it."""
    wait_until(lambda: lab.exporter.status["manager"] == "up", timeout=60)
    yield
    for view in lab.exporter.runs():
        lab.release(view.run.workflow_id)
    lab.ask("init", LIMIT, PENDING_LIMIT)
    wait_until(
        lambda: (
            not [
                view
                for view in lab.exporter.runs()
                if view.run.status in (RunStatus.RUNNING, RunStatus.PENDING)
            ]
        ),
        timeout=60,
    )


def order(lab: Lab, verb: Verb, workflow_id: Optional[str], **options: Any) -> Action:
    return lab.exporter.actions.order(Order(verb, workflow_id, "tester", **options))


def outcome(lab: Lab, action: Action, *states: ActionState) -> Action:
    """Wait until an action is in one of these states, by default until it has ended."""

    def reached() -> Optional[Action]:
        now = lab.exporter.actions.get(action.id)
        assert now is not None
        return now if (now.state in states if states else now.state.finished) else None

    return wait_until(reached, timeout=60)


def done(lab: Lab, verb: Verb, workflow_id: Optional[str], **options: Any) -> Action:
    """Order an action, wait for its end, and expect it to succeed."""
    action = outcome(lab, order(lab, verb, workflow_id, **options))
    assert action.state is ActionState.SUCCEEDED, action
    return action


def refusal(lab: Lab, verb: Verb, workflow_id: str, **options: Any) -> tuple[Refusal, str]:
    with pytest.raises(RefusedError) as caught:
        order(lab, verb, workflow_id, **options)
    return caught.value.refusal, str(caught.value)


def directly(lab: Lab, verb: str, workflow_id: str, **options: Any) -> tuple[str, str]:
    """Ask Ray without a look into the catalog, as if that were out of date."""
    return lab.exporter._link.act(f"direct-{next(numbers)}", verb, workflow_id, **options)


def held(lab: Lab, name: str) -> str:
    """Start a run that works until it is released, and return its id."""
    lab.ask("start held", name)
    lab.until(name, lambda run: run.status is RunStatus.RUNNING and run.start_time is not None)
    return name


def ended(lab: Lab, dag: str, name: str, status: str) -> str:
    """Run something to its end, and return its id."""
    lab.ask("start as", dag, name)
    lab.ended(name, status)
    return name


def ray_status(lab: Lab, name: str) -> str:
    return str(lab.ask("truth", name)[name][0])


def folder(lab: Lab, name: str) -> Path:
    return lab.cluster.storage / "workflows" / name


def test_a_running_run_is_cancelled(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    name = held(lab, "cancel/running")
    with caplog.at_level(logging.INFO):
        action = done(lab, Verb.CANCEL, name)
    assert action.finished_at is not None
    assert ray_status(lab, name) == "CANCELED"
    lab.ended(name, "CANCELED")
    assert messages_of(caplog, "ray_workflow_exporter.audit") == [
        f"tester: cancel 'cancel/running': accepted as {action.id}",
        f"tester: cancel 'cancel/running': {action.id} SUCCEEDED: It is cancelled.",
    ]


def test_what_has_ended_is_not_cancelled_and_keeps_its_status(lab: Lab) -> None:
    for dag, status in (("again", "SUCCESSFUL"), ("odd error", "FAILED")):
        name = ended(lab, dag, f"cancel {status}", status)
        assert refusal(lab, Verb.CANCEL, name) == (
            Refusal.STATE,
            f"It is {status} already: there is nothing to cancel.",
        )
        before = lab.ask("truth", name)
        assert directly(lab, "cancel", name) == ("REFUSED", f"It is {status} already.")
        assert lab.ask("truth", name) == before


def test_an_unknown_run_is_not_made_by_an_action(lab: Lab) -> None:
    for verb in (Verb.CANCEL, Verb.RESUME, Verb.DELETE):
        assert refusal(lab, verb, "nobody")[0] is Refusal.UNKNOWN
        assert directly(lab, verb.value, "nobody") == ("REFUSED", "There is no such run.")
    assert not folder(lab, "nobody").exists()


def test_a_run_that_ends_while_it_is_cancelled_is_told_truly(lab: Lab) -> None:
    told = set()
    for number in range(12):
        name = f"race {number}"
        lab.ask("start as", "cancelled late", name)
        time.sleep(number * 0.01)  # nothing waits for this: it only spreads the moments
        state, detail = directly(lab, "cancel", name)
        told.add(state)
        status = ray_status(lab, name)
        assert (state, status) in (("SUCCEEDED", "CANCELED"), ("REFUSED", "SUCCESSFUL")), detail
    assert told <= {"SUCCEEDED", "REFUSED"}


def test_a_queued_run_is_cancelled_as_soon_as_it_starts(lab: Lab) -> None:
    first, second = held(lab, "first"), held(lab, "second")
    lab.ask("start held", "queued")
    lab.until("queued", lambda run: run.status is RunStatus.PENDING)
    kind, reason = refusal(lab, Verb.CANCEL, "queued")
    assert kind is Refusal.STATE
    assert "when_started: true" in reason
    assert directly(lab, "cancel", "queued")[0] == "REFUSED"
    assert ray_status(lab, "queued") == "PENDING"

    action = order(lab, Verb.CANCEL, "queued", when_started=True)
    outcome(lab, action, ActionState.WAITING)
    assert refusal(lab, Verb.CANCEL, "queued", when_started=True)[0] is Refusal.BUSY
    lab.release(first)
    assert outcome(lab, action).state is ActionState.SUCCEEDED
    assert ray_status(lab, "queued") == "CANCELED"
    lab.ended("queued", "CANCELED")
    lab.release(second)
    lab.ended(second, "SUCCESSFUL")


def test_failed_and_cancelled_runs_are_resumed(lab: Lab) -> None:
    lab.ask("start as", "resumed", "mend")
    lab.ended("mend", "FAILED")
    lab.release("mended")
    done(lab, Verb.RESUME, "mend")
    lab.ended("mend", "SUCCESSFUL")

    name = held(lab, "cancelled then resumed")
    done(lab, Verb.CANCEL, name)
    lab.ended(name, "CANCELED")
    done(lab, Verb.RESUME, name)
    lab.ended(name, "RUNNING")
    lab.release(name)
    lab.ended(name, "SUCCESSFUL")


def test_what_runs_or_has_succeeded_is_not_resumed(lab: Lab) -> None:
    name = held(lab, "resume running")
    assert refusal(lab, Verb.RESUME, name)[0] is Refusal.STATE
    assert directly(lab, "resume", name) == ("REFUSED", "It is running or queued already.")
    lab.release(name)
    lab.ended(name, "SUCCESSFUL")
    before = lab.ask("truth", name)
    assert refusal(lab, Verb.RESUME, name)[0] is Refusal.STATE
    assert directly(lab, "resume", name) == ("REFUSED", "It is SUCCESSFUL already.")
    assert lab.ask("truth", name) == before


def test_a_run_that_cannot_be_rebuilt_fails_to_resume_with_a_reason(lab: Lab) -> None:
    name = ended(lab, "odd error", "broken", "FAILED")
    for file in folder(lab, name).glob("tasks/*/func_body.pkl"):
        file.write_bytes(b"no pickle")
    action = outcome(lab, order(lab, Verb.RESUME, name))
    assert action.state is ActionState.FAILED
    assert action.detail is not None
    assert action.detail.startswith("Ray said ")
    assert lab.run(name) is not None


def test_what_has_ended_is_deleted_and_what_runs_is_not(lab: Lab) -> None:
    name = held(lab, "delete me")
    assert refusal(lab, Verb.DELETE, name) == (
        Refusal.STATE,
        "It is RUNNING: cancel it first.",
    )
    assert directly(lab, "delete", name) == (
        "REFUSED",
        "It is running or queued: cancel it first.",
    )
    assert folder(lab, name).exists()
    lab.release(name)
    lab.ended(name, "SUCCESSFUL")
    done(lab, Verb.DELETE, name)
    assert not folder(lab, name).exists()
    wait_until(lambda: lab.run(name) is None)


def test_a_run_in_whose_folder_others_lie_is_not_deleted(lab: Lab) -> None:
    ended(lab, "odd error", "nest", "FAILED")
    ended(lab, "again", "nest/egg", "SUCCESSFUL")
    kind, reason = refusal(lab, Verb.DELETE, "nest")
    assert (kind, "'nest/egg'" in reason) == (Refusal.STATE, True)
    assert folder(lab, "nest/egg").exists()


def test_a_management_actor_that_dies_loses_no_run(lab: Lab) -> None:
    """Cancel and resume what it left behind, with one manager started on request."""
    names = [held(lab, "lost one"), held(lab, "lost two")]
    lab.ask("start held", "lost three")
    lab.until("lost three", lambda run: run.status is RunStatus.PENDING)
    waiting = order(lab, Verb.CANCEL, "lost three", when_started=True)
    outcome(lab, waiting, ActionState.WAITING)

    lab.ask("kill manager")
    for name in (*names, "lost three"):
        lab.ended(name, "RESUMABLE")
    assert outcome(lab, waiting).state in (ActionState.REFUSED, ActionState.FAILED)
    kind, reason = refusal(lab, Verb.RESUME, names[0])
    assert (kind, "start_manager" in reason) == (Refusal.STATE, True)
    started = {"start_manager": True, "max_running_workflows": LIMIT}
    done(lab, Verb.CANCEL, "lost three", **started)
    assert ray_status(lab, "lost three") == "CANCELED"

    wait_until(lambda: lab.exporter.status["manager"] == "up")
    action = outcome(lab, order(lab, Verb.RESUME_ALL, None))
    mine = [replace(it, detail="") for it in action.outcomes if it.workflow_id in names]
    assert [it.state for it in mine] == [ActionState.SUCCEEDED] * 2
    for name in names:
        lab.release(name)
        lab.ended(name, "SUCCESSFUL")


def test_an_action_whose_management_actor_dies_meanwhile_is_not_called_done(lab: Lab) -> None:
    name = held(lab, "dies meanwhile")
    action = order(lab, Verb.CANCEL, name)
    lab.ask("kill manager")
    ended = outcome(lab, action)
    # Whichever was first: what is called done was done.
    if ended.state is ActionState.SUCCEEDED:
        assert lab.until(name, lambda run: run.status is not RunStatus.RUNNING)
        assert (folder(lab, name) / "workflow_meta.json").read_text().count("CANCELED") == 1
    else:
        left = (RunStatus.RESUMABLE, RunStatus.CANCELED)  # the answer alone may be lost
        lab.until(name, lambda run: run.status in left)
