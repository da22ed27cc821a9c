"""The outcomes that are kept inside the management actor."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ray_workflow_exporter.sources.manager import remote_actions


class Manager:
    """Stands for the actor: it needs to hold attributes alone."""


def test_later_actions_do_not_take_the_outcome_of_one_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, manager = threading.Event(), Manager()

    def act(manager: Any, outcome: list[str], verb: str, *rest: Any) -> None:
        if verb == "resume":
            assert release.wait(20)
        outcome[:] = ("WAITING" if verb == "cancel" else "SUCCEEDED", "")

    monkeypatch.setattr(remote_actions, "_act", act)
    threads = set(threading.enumerate())
    remote_actions.begin(manager, "slow", "resume", "a", False)
    remote_actions.begin(manager, "waiting", "cancel", "b", True)
    for number in range(3 * remote_actions.KEPT):
        remote_actions.begin(manager, f"later {number}", "delete", "c", False)
    assert remote_actions.outcome(manager, "slow") == ("ok",)
    assert remote_actions.outcome(manager, "waiting") == ("ok", "WAITING", "")
    release.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)
    assert remote_actions.outcome(manager, "slow") == ("ok", "SUCCEEDED", "")
    remote_actions.begin(manager, "last", "delete", "d", False)
    kept = manager.__dict__["_workflow_exporter_actions"]
    assert len(kept) <= remote_actions.KEPT
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)
