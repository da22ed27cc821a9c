"""What the probe tells of a run."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.sources.records import (
    EndedLife,
    LinkState,
    LiveRun,
    LiveTask,
)
from support.fake_manager import Client, FakeManager, Script, ray_task_id


def test_first_poll_returns_everything(manager: FakeManager, client: Client) -> None:
    script = Script(manager, "w", {"a": [], "b": ["a"]})
    script.submit("a")

    view = client.poll()

    assert view.state is LinkState.UP
    assert view.running_limit is None
    assert view.runs["w"] == LiveRun(
        "w",
        queued=False,
        output_task_id="b",
        tasks={
            "a": LiveTask(
                (), 3, True, False, submit_time=1.0, running=True, ray_task_id=ray_task_id(1)
            ),
            "b": LiveTask(("a",), 3, True, False),
        },
        changed=frozenset({"a", "b"}),
    )


def test_second_poll_returns_only_what_changed(manager: FakeManager, client: Client) -> None:
    script = Script(manager, "w", {"a": [], "b": ["a"], "c": ["b"]})
    script.submit("a")
    client.poll()
    script.finish("a")
    script.submit("b")

    run = client.poll().runs["w"]

    assert run.changed == {"a", "b"}
    assert run.tasks["a"].done
    assert not run.tasks["a"].running
    assert run.tasks["b"].running


def test_idle_poll_is_empty(manager: FakeManager, client: Client) -> None:
    Script(manager, "w", {"a": []}).submit("a")
    client.poll()

    view = client.poll()

    assert [answer[-1] for answer in client.answers] == [[]]
    assert view.runs["w"].changed == frozenset()


def test_runs_handed_out_never_change(manager: FakeManager, client: Client) -> None:
    script = Script(manager, "w", {"a": []})
    before = client.poll().runs["w"]
    script.submit("a")
    client.poll()
    assert before.tasks == {"a": LiveTask((), 3, True, False)}


def test_retry_between_two_polls_is_seen(manager: FakeManager, client: Client) -> None:
    script = Script(manager, "w", {"a": []})
    script.submit("a")
    client.poll()
    script.fail("a")
    script.submit("a")

    task = client.poll().runs["w"].tasks["a"]

    assert (task.running, task.retries, task.submit_time) == (True, 1, 2.0)
    assert task.ray_task_id == ray_task_id(2)


def test_retry_submitted_after_a_poll_is_seen(manager: FakeManager, client: Client) -> None:
    script = Script(manager, "w", {"a": []})
    script.submit("a")
    script.fail("a")
    assert not client.poll().runs["w"].tasks["a"].running
    script.submit("a")
    assert client.poll().runs["w"].tasks["a"].running


def test_retries_stay_known_after_ray_has_dropped_them(
    manager: FakeManager, client: Client
) -> None:
    script = Script(manager, "w", {"a": []})
    script.submit("a")
    script.fail("a")
    client.poll()
    script.submit("a")
    script.finish("a")
    assert client.poll().runs["w"].tasks["a"].retries == 1
    client.mirror.seq = 99  # an answer got lost: all is told again
    assert client.poll().runs["w"].tasks["a"].retries == 1


def test_continuation_root_is_done_only_at_the_end_of_all(
    manager: FakeManager, client: Client
) -> None:
    script = Script(manager, "w", {"a": []})
    script.submit("a")
    client.poll()
    script.continue_as("a", {"x": [], "y": ["x"]})
    root = client.poll().runs["w"].tasks["a"]
    assert (root.continuation, root.running, root.done) == ("y", False, False)
    assert root.finish_time
    for task_id in ("x", "y"):
        script.submit(task_id)
        script.finish(task_id)
    tasks = client.poll().runs["w"].tasks
    assert tasks["a"].done
    assert not tasks["y"].done
    assert tasks["y"].finish_time


def test_caught_task_is_done_without_a_finish_time(manager: FakeManager, client: Client) -> None:
    script = Script(manager, "w", {"a": []})
    script.submit("a")
    client.poll()
    script.catch("a")
    task = client.poll().runs["w"].tasks["a"]
    assert task.done
    assert task.finish_time is None


def test_finish_time_that_came_after_the_poll_is_sent_later(
    manager: FakeManager, client: Client
) -> None:
    script = Script(manager, "w", {"a": []})
    script.submit("a")
    script.pop("a")
    client.poll()
    script.state.task_execution_metadata["a"].finish_time = 5.0
    script.state.done_tasks.add("a")
    task = client.poll().runs["w"].tasks["a"]
    assert (task.done, task.finish_time) == (True, 5.0)


def test_inner_task_whose_finish_time_came_after_the_poll_is_sent_later(
    manager: FakeManager, client: Client
) -> None:
    script = Script(manager, "w", {"a": []})
    script.submit("a")
    script.continue_as("a", {"x": []})
    script.submit("x")
    script.pop("x")
    assert client.poll().runs["w"].tasks["x"].finish_time is None
    script.state.task_execution_metadata["x"].finish_time = 5.0
    script.state.done_tasks.add("a")
    tasks = client.poll().runs["w"].tasks
    assert (tasks["x"].finish_time, tasks["a"].done) == (5.0, True)


def test_task_whose_continuation_could_not_be_fetched_runs_again(
    manager: FakeManager, client: Client
) -> None:
    script = Script(manager, "w", {"a": []})
    script.submit("a")
    script.fail("a")
    script.state.task_execution_metadata["a"].finish_time = 5.0  # its body had succeeded
    assert client.poll().runs["w"].tasks["a"].finish_time == 5.0
    script.submit("a")
    task = client.poll().runs["w"].tasks["a"]
    assert (task.running, task.finish_time) == (True, None)


def test_resumed_run_is_marked_and_names_what_only_storage_knows(
    manager: FakeManager, client: Client
) -> None:
    script = Script(manager, "w", {"b": ["a"]})
    script.state.tasks["b"].task_id = ""
    script.state.append_continuation("root", "b")

    run = client.poll().runs["w"]

    assert run.resumed
    assert run.tasks["a"] == LiveTask()
    assert run.tasks["root"] == LiveTask(continuation="b")
    script.submit("b")
    script.finish("b")
    assert client.poll().runs["w"].tasks["root"].done


def test_second_life_of_an_id_is_sent_in_full_with_another_number(
    manager: FakeManager, client: Client
) -> None:
    script = Script(manager, "w", {"a": [], "b": []})
    script.submit("a")
    script.fail("a")
    first = client.poll().runs["w"]
    assert first.life == Client(manager, "other").poll().runs["w"].life
    Script(manager, "w", {"a": []})

    run = client.poll().runs["w"]

    assert run.tasks == {"a": LiveTask((), 3, True, False)}
    assert run.changed == {"a"}
    assert run.life != first.life


def test_ended_run_leaves_the_view_and_its_cursor(manager: FakeManager, client: Client) -> None:
    Script(manager, "w", {"a": []})
    client.poll()
    manager._workflow_executors.clear()
    assert client.poll().runs == {}
    assert manager.__dict__["_workflow_exporter"]["client"].runs == {}


def test_a_life_that_ends_between_two_polls_says_whether_it_succeeded(
    manager: FakeManager, client: Client
) -> None:
    first = Script(manager, "w", {"a": []})
    first.submit("a")
    before = client.poll()
    assert before.ended == {}
    first.finish("a")
    second = Script(manager, "w", {"a": []})  # deleted, and run again
    view = client.poll()
    ended = view.ended["w"]
    assert ended.status is RunStatus.SUCCESSFUL
    assert ended.end_time == first.state.task_execution_metadata["a"].finish_time
    assert view.runs["w"].life != before.runs["w"].life
    second.submit("a")
    assert client.poll().runs["w"].life == view.runs["w"].life
    second.pop("a")  # it failed
    manager._workflow_executors.clear()
    assert client.poll().ended == {"w": EndedLife(RunStatus.FAILED, None)}
    assert client.poll().ended == {}


def end(manager: FakeManager, workflow_id: str) -> None:
    manager._workflow_executors.pop(workflow_id, None)
    manager._executed_workflows.add(workflow_id)


def test_runs_that_began_and_ended_between_two_polls_are_noticed_by_their_number(
    manager: FakeManager, client: Client
) -> None:
    end(manager, "before")
    assert client.poll().unseen  # of the time before, nobody knows
    assert not client.poll().unseen
    for name in ("seen", "before"):
        Script(manager, name, {"a": []})
    assert not client.poll().unseen
    for name in ("seen", "before"):  # the second one was resumed: its name is not new
        end(manager, name)
    assert not client.poll().unseen
    end(manager, "short")
    assert client.poll().unseen
    Script(manager, "seen", {"a": []})
    client.poll()
    end(manager, "seen")
    end(manager, "short too")
    assert client.poll().unseen
    assert not client.poll().unseen


def test_a_run_that_has_left_but_is_not_named_yet_is_no_unseen_one(
    manager: FakeManager, client: Client
) -> None:
    Script(manager, "w", {"a": []})
    client.poll()
    del manager._workflow_executors["w"]
    assert not client.poll().unseen
    end(manager, "w")
    assert not client.poll().unseen
    end(manager, "short")
    assert client.poll().unseen


def test_a_deletion_hides_no_unseen_run(manager: FakeManager, client: Client) -> None:
    end(manager, "old")
    client.poll()
    manager._executed_workflows.discard("old")
    assert client.poll().unseen
    assert not client.poll().unseen
    end(manager, "short")
    assert client.poll().unseen


def test_a_life_that_ended_keeps_nothing_of_its_outputs(
    manager: FakeManager, client: Client
) -> None:
    script = Script(manager, "w", {"a": []})
    client.poll()
    state = weakref.ref(script.state)
    manager._workflow_executors.clear()
    del script
    assert state() is None


def test_a_queue_of_size_nothing_has_no_limit_as_in_pythons_queue(
    manager: FakeManager, client: Client
) -> None:
    manager._max_running_workflows, manager._max_pending_workflows = 0, 0
    view = client.poll()
    assert (view.running_limit, view.pending_limit) == (0, None)


def test_leaving_the_queue_is_a_change(manager: FakeManager, client: Client) -> None:
    manager._max_running_workflows, manager._max_pending_workflows = 1, 5
    Script(manager, "w", {"a": []})
    manager._running_workflows.clear()
    view = client.poll()
    assert view.runs["w"].queued
    assert (view.running_limit, view.pending_limit) == (1, 5)
    manager._running_workflows.add("w")
    assert not client.poll().runs["w"].queued


@pytest.mark.parametrize("before_the_copy", [True, False])
def test_no_more_runs_are_at_work_than_ray_allows_while_one_takes_the_place_of_another(
    manager: FakeManager, client: Client, before_the_copy: bool
) -> None:
    for workflow_id in ("first", "second", "queued"):
        Script(manager, workflow_id, {"a": []})
    manager._running_workflows.remove("queued")

    class Executors(dict[str, Any]):
        """Another thread goes on while the probe copies this."""

        def items(self) -> Any:
            copy = [] if before_the_copy else list(super().items())
            if "queued" not in manager._running_workflows:
                del self["first"]
                manager._running_workflows.remove("first")
                manager._running_workflows.add("queued")
            return copy or list(super().items())

    manager._workflow_executors = Executors(manager._workflow_executors)
    at_work = [key for key, run in client.poll().runs.items() if not run.queued]
    assert len(at_work) <= 2
    assert [key for key, run in client.poll().runs.items() if not run.queued] == [
        "second",
        "queued",
    ]
