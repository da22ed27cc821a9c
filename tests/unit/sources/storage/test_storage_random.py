"""Workflow storage against random trees, random ids and random damage."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.sources.records import StoredRun
from ray_workflow_exporter.sources.storage import storage as storage_module
from ray_workflow_exporter.sources.storage.layout import clean
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage
from support.trees import STATUSES, RunTree, StorageTree

# Names of Ray's own files and folders, and whatever else a path may be made of.
segments = st.one_of(
    st.sampled_from(
        [
            "tasks",
            "inputs.json",
            "outputs.json",
            "output.pkl",
            "exception.pkl",
            "pre_task_metadata.json",
            "workflow_meta.json",
            "duplicate_name_counter",
            "__status__",
            "dirty",
            *STATUSES,
        ]
    ),
    st.sampled_from(["f", "f_1", "f_2", "f_x", "_1", "g"]),
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
    ).filter(lambda text: text not in (".", "..")),
)
ids = st.lists(segments, min_size=1, max_size=3).map("/".join)


def collide(one: str, other: str) -> bool:
    """Tell whether one id is a folder of the other: two that no disk can hold together."""
    return one == other or one.startswith(other + "/") or other.startswith(one + "/")


# Task ids of one run. Ray makes up `f_1` itself, so a base name never is one.
task_ids = st.lists(ids, min_size=1, max_size=6).map(
    lambda found: [
        one for i, one in enumerate(found) if not any(collide(one, two) for two in found[:i])
    ]
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@contextmanager
def new_tree() -> Iterator[StorageTree]:
    with tempfile.TemporaryDirectory() as folder:
        yield StorageTree(folder)


def fresh(tree: StorageTree, workflow_id: str) -> Optional[StoredRun]:
    return WorkflowStorage(tree.uri).read_run(workflow_id)


@given(workflow_id=ids, found=task_ids, data=st.data())
def test_a_run_of_any_names_is_read_as_it_was_written(workflow_id, found, data):
    status = data.draw(st.sampled_from(STATUSES))
    saved = {task_id: data.draw(st.booleans()) for task_id in found}
    upstream = {task_id: data.draw(st.lists(st.sampled_from(found))) for task_id in found}
    with new_tree() as tree:
        run = tree.run(workflow_id)
        for number, task_id in enumerate(found):
            if saved[task_id]:
                run.task(task_id, *upstream[task_id])
            run.count(task_id).start(task_id, number + 1.0)
        run.status(status)
        storage = WorkflowStorage(tree.uri)
        marks = storage.list_marks()
        assert {one: mark.status.value for one, mark in marks.items()} == {workflow_id: status}
        stored = storage.read_run(workflow_id)
        assert stored is not None
        assert {i: task.start_time for i, task in stored.tasks.items()} == {
            task_id: number + 1.0 for number, task_id in enumerate(found)
        }
        assert {i: task.upstream for i, task in stored.tasks.items()} == {
            i: tuple(dict.fromkeys(upstream[i])) if saved[i] else None for i in found
        }


@given(st.dictionaries(ids, st.sampled_from(STATUSES), max_size=8))
def test_runs_of_any_names_in_one_storage_are_listed_each_with_its_own_status(wanted):
    written: dict[str, str] = {}
    with new_tree() as tree:
        for workflow_id, status in wanted.items():
            try:
                tree.run(workflow_id).task("f").entry("f").status(status)
            except OSError:
                continue  # Ray itself cannot write it beside those before
            written[workflow_id] = status
        storage = WorkflowStorage(tree.uri)
        found = {i: mark.status.value for i, mark in storage.list_marks().items()}
        # What Ray could write only in part may be listed too, but only under its own name.
        assert written.items() <= found.items()
        assert set(found) <= set(wanted)
        for workflow_id in written:
            stored = storage.read_run(workflow_id)
            assert stored is not None
            assert "f" in stored.tasks


JSON_FILES = [
    "workflow_meta.json",
    "pre_run_metadata.json",
    "post_run_metadata.json",
    "user_run_metadata.json",
    "tasks/outputs.json",
    "tasks/f/inputs.json",
    "tasks/f/pre_task_metadata.json",
    "tasks/f/post_task_metadata.json",
    "tasks/f/outputs.json",
]
KEYS = [
    "status",
    "start_time",
    "end_time",
    "output_task_id",
    "dynamic_output_task_id",
    "task_id",
    "task_options",
    "workflow_refs",
    "user_metadata",
]
documents = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(KEYS), json_values).map(
        lambda value: json.dumps(value).encode()
    ),
)


@given(st.dictionaries(st.sampled_from([*JSON_FILES, "tasks/f/exception.pkl"]), documents))
def test_whatever_stands_in_the_files_the_run_is_read_and_is_fit_to_be_shown(damage):
    with new_tree() as tree:
        run = tree.run("w").task("f").task("g", "f").entry("g").status("RUNNING", 1.0)
        storage = WorkflowStorage(tree.uri)
        first = storage.read_run("w")
        for name, content in damage.items():
            run.put(name, content)
        run.dirty()
        second = storage.read_run("w", first)
        third = storage.read_run("w", second, only=["f", "g"])
        assert second == third
        for stored in (second, fresh(tree, "w")):
            assert stored is not None
            assert "g" in stored.tasks
            for value in (stored.start_time, stored.end_time, stored.tasks["g"].start_time):
                assert value is None or 0 < value < 1e11
            json.dumps(stored.user_metadata, allow_nan=False, ensure_ascii=False).encode()
            repr(stored).encode()
        storage.list_marks()


TASKS = ["a", "b/c", "b/d", "e", "e_1"]

steps = st.lists(
    st.tuples(
        st.sampled_from(TASKS),
        st.sampled_from(["submit", "start", "end", "output", "fail", "go_on", "status", "wipe"]),
        st.integers(1, 99),
    ),
    max_size=12,
)


def act(run: RunTree, task_id: str, action: str, number: int) -> None:
    run.count(task_id)
    actions: dict[str, Any] = {
        "submit": lambda: run.task(task_id, *TASKS[: number % 4], max_retries=number),
        "start": lambda: run.start(task_id, float(number)),
        "end": lambda: run.end(task_id, float(number)),
        "output": lambda: run.output(task_id, "x" * number),
        "fail": lambda: run.fail(task_id, ValueError(str(number))),
        "go_on": lambda: run.go_on(task_id, TASKS[number % 5]),
        "status": lambda: run.status(STATUSES[number % 6], float(number)),
        "wipe": lambda: run.delete(f"tasks/{task_id}/exception.pkl"),
    }
    actions[action]()


@given(rounds=st.lists(st.tuples(steps, st.booleans()), min_size=1, max_size=5))
def test_a_run_that_is_read_again_and_again_reads_as_if_for_the_first_time(rounds):
    with new_tree() as tree:
        run = tree.run("w")
        storage = WorkflowStorage(tree.uri)
        stored = storage.read_run("w")
        for actions, partial in rounds:
            for action in actions:
                act(run, *action)
            touched = {task_id for task_id, _, _ in actions}
            stored = storage.read_run("w", stored, only=touched if partial else None)
            assert stored == fresh(tree, "w")


@given(rounds=st.lists(steps, min_size=1, max_size=5))
def test_a_file_whose_size_differs_is_read_again_however_old_it_is(rounds):
    with pytest.MonkeyPatch.context() as patch, new_tree() as tree:
        patch.setattr(
            storage_module,
            "time",
            SimpleNamespace(time_ns=lambda: 1 << 62, monotonic=time.monotonic),
        )
        run = tree.run("w")
        storage = WorkflowStorage(tree.uri)
        stored = storage.read_run("w")
        for turn, actions in enumerate(rounds, start=1):
            for task_id, action, number in actions:
                # Each turn has numbers of its own length: so has each file that it writes.
                act(run, task_id, action, number % 9 * 10**turn + 10**turn)
            stored = storage.read_run("w", stored)
            last = fresh(tree, "w")
            assert stored == last


@given(st.text(max_size=30) | ids)
def test_an_id_is_refused_or_stays_inside_the_storage(identifier):
    path = clean(identifier, backslash_divides=False)
    if path is not None:
        parts = path.split("/")
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(parts)
        assert clean(path, backslash_divides=False) == path
    for odd in (f"../{identifier}", f"/{identifier}", f"{identifier}/..", f"{identifier}\0"):
        assert clean(odd, backslash_divides=False) is None
