"""The probe's clients and their cursors, and that no fault of it reaches the actor."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ray_workflow_exporter.sources.manager import probe
from support.fake_manager import Client, FakeManager, Script


def test_two_clients_do_not_disturb_each_other(manager: FakeManager, client: Client) -> None:
    script = Script(manager, "w", {"a": [], "b": []})
    other = Client(manager, "other")
    client.poll()
    script.submit("a")
    other.poll()
    script.submit("b")
    assert client.poll().runs["w"].tasks == other.poll().runs["w"].tasks


def test_lost_answer_starts_over(manager: FakeManager, client: Client) -> None:
    script = Script(manager, "w", {"a": [], "b": []})
    client.poll()
    script.submit("a")
    probe.probe(manager, "client", client.mirror.seq)  # its answer never arrived
    run = client.poll().runs["w"]
    assert run.tasks["a"].running
    assert run.changed == {"a", "b"}


def test_silent_clients_are_forgotten(
    manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: now))
    Client(manager, "silent").poll()
    now += probe.CLIENT_SECONDS + 1
    Client(manager, "new").poll()
    assert set(manager.__dict__["_workflow_exporter"]) == {"new"}


def test_number_of_clients_is_bounded(manager: FakeManager) -> None:
    for number in range(probe.CLIENTS + 5):
        Client(manager, str(number)).poll()
    clients = manager.__dict__["_workflow_exporter"]
    assert len(clients) == probe.CLIENTS
    assert "0" not in clients


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError, GeneratorExit])
def test_no_error_escapes_and_the_next_poll_starts_over(
    manager: FakeManager, client: Client, error: type[BaseException]
) -> None:
    script = Script(manager, "w", {"a": []})
    client.poll()

    class Broken:
        @property
        def _state(self) -> None:
            raise error

    manager._workflow_executors["broken"] = Broken()
    script.submit("a")  # read before the error comes, and never sent
    assert probe.probe(manager, "client", client.mirror.seq) == ("error", error.__name__)
    del manager._workflow_executors["broken"]
    run = client.poll().runs["w"]
    assert run.tasks["a"].running
    assert run.changed == {"a"}


def test_foreign_actor_of_the_same_name_is_an_error_and_no_crash() -> None:
    assert probe.probe(SimpleNamespace(), "client", 0) == ("error", "AttributeError")


@pytest.mark.slow
@pytest.mark.process
def test_probe_runs_where_the_exporter_is_not_installed() -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(probe)
    try:
        pickled = cloudpickle.dumps(probe.probe)
    finally:
        cloudpickle.unregister_pickle_by_value(probe)
    assert len(pickled) < 21_000  # it is sent with each poll
    code = """
import pickle, sys
sys.modules["ray_workflow_exporter"] = None
class Manager:
    _workflow_executors, _running_workflows, _executed_workflows = {}, set(), set()
    _max_running_workflows = _max_pending_workflows = -1
print(pickle.loads(sys.stdin.buffer.read())(Manager(), "client", 0))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickled, capture_output=True, check=True, env=os.environ
    )
    assert done.stdout.decode().strip() == "('ok', 0, 1, False, (-1, -1), [], 0, [])"
