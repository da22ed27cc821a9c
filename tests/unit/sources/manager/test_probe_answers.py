"""Answers of the probe are small, and add up."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.sources.manager import probe
from ray_workflow_exporter.sources.records import (
    LiveTask,
    ManagerView,
)
from support.fake_manager import Client, FakeManager, Script, items


def test_wide_run_comes_in_many_answers_and_every_answer_is_small(
    manager: FakeManager, client: Client
) -> None:
    dag: dict[str, list[str]] = {f"t{i}": [] for i in range(2_500)}
    script = Script(manager, "w", dag)
    for task_id in dag:
        script.submit(task_id)
    Script(manager, "v", {"a": []})

    runs = client.poll().runs

    assert len(client.answers) == 6
    told = [items(run) for answer in client.answers for run in answer[-1][:1]]
    assert told == [*[probe.ITEMS_PER_ANSWER] * 5, 1]
    assert {run[0] for run in client.answers[0][-1]} == {"v", "w"}, "each answer names every run"
    assert list(runs["w"].tasks) == list(dag)
    assert all(task.running for task in runs["w"].tasks.values())
    named = [task_id for task_id, task in runs["w"].tasks.items() if task.ray_task_id]
    assert named == list(dag)[: probe.NAMED_TASKS]


def test_answer_about_two_hundred_tasks_is_small(manager: FakeManager, client: Client) -> None:
    maps = [f"__main__.transform_{number}" for number in range(300)]
    script = Script(manager, "w", {task_id: [] for task_id in maps})
    for task_id in maps[:200]:
        script.submit(task_id)
    client.poll()
    for done, begun in zip(maps[:100], maps[200:]):
        script.finish(done)
        script.submit(begun)
    run = client.poll().runs["w"]
    assert len(run.changed) == 200
    assert len(pickle.dumps(client.answers, 5)) < 12_000


@given(data=st.data())
def test_polls_add_up_to_what_a_new_client_sees(data: st.DataObject) -> None:
    manager = FakeManager()
    patient, seldom = Client(manager, "patient"), Client(manager, "seldom")
    script = Script(manager, "w", {f"t{i}": [f"t{i - 1}"] if i % 3 else [] for i in range(8)})
    waiting, running = [f"t{i}" for i in range(8)], list[str]()
    steps = ["submit", "finish", "fail", "catch", "continue", "poll", "poll seldom"]
    for number, step in enumerate(data.draw(st.lists(st.sampled_from(steps), max_size=40))):
        if step == "poll":
            patient.poll()
        elif step == "poll seldom":
            seldom.poll()
        elif step == "submit" and waiting:
            running.append(waiting.pop(0))
            script.submit(running[-1])
        elif step != "submit" and running:
            task_id = running.pop(data.draw(st.integers(0, len(running) - 1)))
            if step == "fail":
                script.fail(task_id)
                waiting.append(task_id)
            elif step == "continue":
                sub = {f"x{number}": [], f"y{number}": [f"x{number}"]}
                script.continue_as(task_id, sub)
                waiting.extend(sub)
            else:
                getattr(script, step)(task_id)
    fresh = comparable(Client(manager, "fresh").poll())
    assert comparable(patient.poll()) == fresh
    assert comparable(seldom.poll()) == fresh


def comparable(view: ManagerView) -> dict[str, LiveTask]:
    """Without what a client that came later cannot know: numbers and ids of ended attempts."""
    return {
        task_id: task._replace(retries=0, ray_task_id=task.ray_task_id if task.running else None)
        for task_id, task in view.runs["w"].tasks.items()
    }


def test_a_shuffle_is_told_in_parts_that_travel_inline(manager: FakeManager) -> None:
    maps: dict[str, list[str]] = {f"some.module.map_{number}": [] for number in range(200)}
    reduces = {f"some.module.reduce_{number}": list(maps) for number in range(200)}
    Script(manager, "w", {**maps, **reduces})
    seq, more, told = 0, True, 0
    while more:
        answer = probe.probe(manager, "client", seq)
        assert len(pickle.dumps(answer)) < 100_000
        _, _, seq, more, *_, runs = answer
        told += sum(len(run[4]) for run in runs)
    assert told == 400
