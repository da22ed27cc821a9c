"""What is stored of one run, on each kind of file system."""

from __future__ import annotations

import json
import pickle
import time
from typing import Any

import pytest

from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.sources.records import StoredRun, StoredTask
from support.stored import statuses, task_of


def test_a_diamond_is_read_word_for_word(tree, storage):
    run = tree.run("w", {"workflow": "etl", "n": 1.5})
    run.task("load").task("f", "load").task("f_1", "load", max_retries=0).task("join", "f", "f_1")
    run.task("note", metadata={"owner": "me"}, checkpoint=False, catch_exceptions=True)
    run.entry("join").status("RUNNING", 100.0)
    run.succeed("load", 101.0, 102.5, "out").start("f", 103.0)
    out = len(pickle.dumps("out", protocol=5))

    stored = storage.read_run("w")
    assert stored is not None
    output_time = stored.tasks["load"].output_time
    assert output_time is not None
    assert abs(output_time - time.time()) < 60
    options: dict[str, Any] = {
        "max_retries": 3,
        "checkpoint": True,
        "catch_exceptions": False,
        "resources": {"CPU": 1.0},
    }
    assert stored == StoredRun(
        "w",
        status=RunStatus.RUNNING,
        start_time=100.0,
        user_metadata={"workflow": "etl", "n": 1.5},
        output_task_id="join",
        base_names=frozenset(("load", "f", "join", "note")),
        tasks={
            "load": StoredTask(
                "load",
                upstream=(),
                start_time=101.0,
                end_time=102.5,
                output_bytes=out,
                output_time=output_time,
                **options,
            ),
            "f": StoredTask("f", upstream=("load",), start_time=103.0, **options),
            "f_1": StoredTask("f_1", upstream=("load",), **{**options, "max_retries": 0}),
            "join": StoredTask("join", upstream=("f", "f_1"), **options),
            "note": StoredTask(
                "note",
                upstream=(),
                max_retries=3,
                checkpoint=False,
                catch_exceptions=True,
                resources={"CPU": 1.0},
                user_metadata={"owner": "me"},
            ),
        },
    )
    run.succeed("f", 103.0, 104.0).status("FAILED", 105.0)
    ended = storage.read_run("w", stored)
    assert ended is not None
    assert (ended.status, ended.end_time) == (RunStatus.FAILED, 105.0)
    assert ended.tasks["f"].end_time == 104.0


def test_a_failed_attempt_shows_its_exception(tree, storage):
    tree.run("w").task("f").start("f", 1.0).fail("f", ValueError("boom")).status("FAILED", 2.0)
    task = task_of(storage)
    assert task.exception == ("ValueError", "boom")
    assert task.exception_time is not None
    assert abs(task.exception_time - time.time()) < 60
    assert (task.end_time, task.output_bytes) == (None, None)


def test_a_retried_task_keeps_its_old_exception_beside_its_output(tree, storage):
    tree.run("w").task("f").fail("f", KeyError("once")).succeed("f", 3.0, 4.0, 7)
    task = task_of(storage)
    assert task.exception == ("KeyError", "'once'")
    assert (task.start_time, task.end_time, task.output_bytes) == (3.0, 4.0, 5)


def test_a_crashed_worker_leaves_only_a_start(tree, storage):
    tree.run("w").task("f").start("f", 1.0).status("FAILED", 2.0)
    task = task_of(storage)
    assert (task.start_time, task.end_time, task.exception) == (1.0, None, None)


def test_an_output_that_could_not_be_saved_leaves_an_end(tree, storage):
    tree.run("w").task("f").start("f", 1.0).end("f", 2.0).status("FAILED", 2.0)
    task = task_of(storage)
    assert (task.end_time, task.output_bytes, task.checkpoint) == (2.0, None, True)


def test_a_task_without_checkpoint_ends_without_output(tree, storage):
    tree.run("w").task("f", checkpoint=False).start("f", 1.0).end("f", 2.0)
    task = task_of(storage)
    assert (task.end_time, task.output_bytes, task.checkpoint) == (2.0, None, False)


def test_a_continuation_names_the_workflow_that_was_returned(tree, storage):
    run = tree.run("w").task("f").entry("f").start("f", 1.0).end("f", 2.0)
    run.task("g").go_on("f", "g")
    assert task_of(storage).continuation == "g"
    run.task("h").go_on("g", "h").succeed("h", 3.0, 4.0).go_on("f", "g", dynamic="h")
    assert task_of(storage).continuation == "g"
    run.put("tasks/f/outputs.json", {"dynamic_output_task_id": "h"})
    assert task_of(storage).continuation == "h"


def test_tasks_of_an_unsaved_continuation_are_known_by_their_times_only(tree, storage):
    run = tree.run("w").task("f", checkpoint=False).count("sub/g").count("sub/g_1")
    run.start("sub/g", 1.0).end("sub/g", 2.0).start("sub/g_1", 3.0)
    stored = storage.read_run("w")
    assert stored is not None
    assert stored.tasks["sub/g"] == StoredTask("sub/g", start_time=1.0, end_time=2.0)
    assert stored.tasks["sub/g_1"] == StoredTask("sub/g_1", start_time=3.0)
    assert stored.base_names == {"f", "sub/g"}


def test_a_task_that_names_itself_needs_no_counter(tree, storage):
    run = tree.run("w").task("f").start("f", 1.0)
    run.delete("duplicate_name_counter/f")
    assert task_of(storage).start_time == 1.0


def test_a_resumed_run_shows_its_new_start_and_its_old_end(tree, storage):
    run = tree.run("w").task("f").status("RUNNING", 1.0).status("FAILED", 2.0)
    run.status("RUNNING", 50.0)
    stored = storage.read_run("w")
    assert stored is not None
    assert (stored.status, stored.start_time, stored.end_time) == (RunStatus.RUNNING, 50.0, 2.0)


def test_a_run_that_was_refused_is_a_ghost(tree, storage):
    tree.run("w").task("f").entry("f")
    assert storage.list_marks() == {}
    stored = storage.read_run("w")
    assert stored is not None
    assert (stored.status, stored.output_task_id, list(stored.tasks)) == (None, "f", ["f"])


def test_cancelling_an_unknown_id_makes_a_run_of_nothing(tree, storage):
    run = tree.run("w").status("CANCELED")
    run.delete("user_run_metadata.json")
    assert storage.read_run("w") == StoredRun("w", status=RunStatus.CANCELED)


def test_an_argument_that_is_used_twice_is_one_upstream_task(tree, storage):
    tree.run("w").task("e").task("f", "e", "e")
    assert task_of(storage).upstream == ("e",)


ODD_TASK_IDS = [
    "tä/sk",
    "inputs.json",
    "outputs.json/x",
    "x/output.pkl",
    "x/inputs.json/y_3",
    "workflow_meta.json",
    "tasks",
    "a b ",
    "100%2F",
    "__main__.f",
    "_1",
    "f_",
    "y" * 255,
]


@pytest.mark.parametrize("task_id", ODD_TASK_IDS, ids=range(len(ODD_TASK_IDS)))
def test_a_task_is_found_under_any_name_that_ray_takes(tree, storage, task_id):
    run = tree.run("w").task("root").task("some/sub").count(task_id).start(task_id, 1.0)
    unsaved = storage.read_run("w")
    assert unsaved is not None
    assert set(unsaved.tasks) == {"root", "some/sub", task_id}
    assert unsaved.tasks[task_id] == StoredTask(task_id, start_time=1.0)
    run.task(task_id, "root", task_id).end(task_id, 2.0)
    saved = storage.read_run("w", unsaved, only=[task_id])
    assert saved is not None
    assert saved == storage.read_run("w")
    assert saved.tasks[task_id].upstream == ("root", task_id)
    assert saved.tasks[task_id].end_time == 2.0


def test_backslashes_in_ids_survive_where_ray_turns_them_into_slashes(tree, storage):
    tree.run("w\\x").task("t\\y").start("t\\y", 1.0).status("RUNNING")
    stored = storage.read_run("w\\x")
    assert stored is not None
    assert stored.workflow_id == "w\\x"
    assert stored.tasks["t\\y"].start_time == 1.0


def test_a_run_inside_the_folder_of_another_runs_task_stays_apart(tree, storage):
    outer = tree.run("a").task("x").start("x", 1.0).status("PENDING")
    inner = tree.run("a/tasks/x").task("y").entry("y").start("y", 2.0).fail("y", ValueError())
    inner.count("u").start("u", 3.0).status("RUNNING")
    assert statuses(storage) == {"a": "PENDING", "a/tasks/x": "RUNNING"}
    stored, nested = storage.read_run("a"), storage.read_run("a/tasks/x")
    assert stored is not None
    assert nested is not None
    assert set(stored.tasks) == {"x"}
    assert set(nested.tasks) == {"y", "u"}
    outer.end("x", 4.0)
    again = storage.read_run("a", stored, only=["x"])
    assert again is not None
    assert set(again.tasks) == {"x"}
    assert again.tasks["x"].end_time == 4.0


@pytest.mark.parametrize(
    "workflow_id",
    ["", ".", "..", "../x", "a/../..", "a/../b", "/etc", "/", "./", "nul\0", "\ud800"],
)
def test_an_id_that_leads_out_of_the_storage_has_no_run(storage, workflow_id, reads):
    assert storage.read_run(workflow_id) is None
    assert reads == []


def test_a_task_id_that_leads_out_of_the_run_is_no_task(tree, storage):
    tree.run("v").task("f").start("f", 1.0)
    tree.run("w").task("f")
    stored = storage.read_run("w")
    assert stored is not None
    odd = ["../../v/tasks/f", "/etc", "", "..", "\ud800", "x" * 300]
    assert storage.read_run("w", stored, only=odd) == stored


def test_user_metadata_that_ray_wrote_comes_back_as_it_was(tree, storage):
    metadata = {"nested": {"list": [1, 2.5, "ü", None, True]}, "workflow": "é"}
    tree.run("w", metadata).task("f", metadata=metadata)
    stored = storage.read_run("w")
    assert stored is not None
    assert stored.user_metadata == metadata
    assert stored.tasks["f"].user_metadata == json.loads(json.dumps(metadata))


@pytest.mark.parametrize(
    ("asked", "resources"),
    [
        ({}, {"CPU": 1.0}),
        ({"num_cpus": None}, {"CPU": 1.0}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": 0.5, "num_gpus": 4}, {"CPU": 0.5, "GPU": 4.0}),
        ({"memory": 2**30}, {"CPU": 1.0, "memory": 2.0**30}),
        ({"num_gpus": 1, "resources": {"tpu": 2, "node:10.0.0.1": 0.001}},
         {"CPU": 1.0, "GPU": 1.0, "tpu": 2.0}),
    ],
)  # fmt: skip
def test_what_a_task_asks_ray_for_is_read(local_tree, local_storage, asked, resources):
    local_tree.run("w").task("f", ray_options=asked).status("RUNNING", 100.0)
    assert local_storage.read_run("w").tasks["f"].resources == resources
