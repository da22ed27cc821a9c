"""Half-written files, untrusted values, and that watching does no harm."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from ray_workflow_exporter.catalog.snapshot import RunView
from ray_workflow_exporter.model import Run, RunStatus
from ray_workflow_exporter.responses import Responses
from ray_workflow_exporter.sources.records import StoredRun, StoredTask
from ray_workflow_exporter.sources.storage.storage import StorageError, WorkflowStorage
from support.analysis import analyse
from support.stored import statuses, task_of

TORN = [b"", b"{", b'{"start_time": 17', b'{"start_time": 1} {', b"\xff\xfe\x00", b"[" * 100_000]


@pytest.mark.parametrize("torn", TORN, ids=range(len(TORN)))
def test_a_half_written_file_keeps_the_last_good_value_until_it_is_whole(tree, storage, torn):
    run = tree.run("w", {"k": 1}).task("f").task("g", "f").entry("g").status("RUNNING", 1.0)
    run.start("f", 2.0).end("f", 3.0).go_on("f", "g").fail("f", ValueError("x"))
    good = storage.read_run("w")
    assert good is not None
    names = {
        "workflow_meta.json",
        "pre_run_metadata.json",
        "user_run_metadata.json",
        "tasks/outputs.json",
        "tasks/f/inputs.json",
        "tasks/f/pre_task_metadata.json",
        "tasks/f/post_task_metadata.json",
        "tasks/f/outputs.json",
        "tasks/f/exception.pkl",
    }
    whole = {name: tree.get(f"workflows/w/{name}") for name in names}
    for name in names:
        run.put(name, torn)
    once = storage.read_run("w", good)
    twice = storage.read_run("w", once, only=["f"])
    assert once == good
    assert twice == good
    for name, data in whole.items():
        run.put(name, data)
    run.start("f", 9.0)
    again = storage.read_run("w", twice)
    assert again is not None
    assert again.tasks["f"].start_time == 9.0
    assert again.status is RunStatus.RUNNING


@pytest.mark.parametrize("torn", TORN, ids=range(len(TORN)))
def test_a_file_that_was_never_whole_counts_as_absent(tree, storage, torn):
    run = tree.run("w").task("f")
    for name in ("workflow_meta.json", "pre_run_metadata.json", "tasks/outputs.json"):
        run.put(name, torn)
    for name in ("inputs.json", "pre_task_metadata.json", "outputs.json", "exception.pkl"):
        run.put(f"tasks/f/{name}", torn)
    assert storage.read_run("w") == StoredRun(
        "w", base_names=frozenset("f"), tasks={"f": StoredTask("f")}
    )


WRONG: list[Any] = [None, True, "12", [], {}, -1, 0, 1e300, float("nan"), float("inf"), 10**400]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_a_value_of_a_wrong_type_counts_as_absent(local_tree, local_storage, wrong):
    run = local_tree.run("w").task("f")
    run.put("pre_run_metadata.json", {"start_time": wrong})
    run.put("post_run_metadata.json", {"end_time": wrong})
    run.put("workflow_meta.json", {"status": wrong})
    run.put("tasks/outputs.json", {"output_task_id": wrong if wrong != "12" else 12})
    run.put("tasks/f/pre_task_metadata.json", {"start_time": wrong})
    run.put("tasks/f/post_task_metadata.json", {"end_time": wrong})
    assert local_storage.read_run("w") == StoredRun(
        "w",
        base_names=frozenset("f"),
        tasks={"f": StoredTask("f", (), 3, True, False, {"CPU": 1.0})},
    )


@pytest.mark.parametrize("document", [[], 1, None, "x", {}, [{"status": "FAILED"}]])
def test_a_document_of_a_wrong_type_counts_as_empty(local_tree, local_storage, document):
    run = local_tree.run("w").task("f")
    for name in ("workflow_meta.json", "pre_run_metadata.json", "user_run_metadata.json"):
        run.put(name, document)
    for name in ("inputs.json", "pre_task_metadata.json", "outputs.json"):
        run.put(f"tasks/f/{name}", document)
    assert local_storage.read_run("w") == StoredRun(
        "w", base_names=frozenset("f"), tasks={"f": StoredTask("f")}
    )


def test_wrong_inputs_of_a_task_count_as_absent_one_by_one(local_tree, local_storage):
    run = local_tree.run("w").task("f")
    options = {"max_retries": 1.5, "checkpoint": "yes", "catch_exceptions": 1}
    inputs = {"workflow_refs": ["e", 7, None, "", ["x"]], "user_metadata": [], "task_id": ["f"]}
    run.put("tasks/f/inputs.json", {**inputs, "task_options": options})
    assert task_of(local_storage) == StoredTask("f", upstream=("e",))
    run.put("tasks/f/inputs.json", {"workflow_refs": "e", "task_options": {"max_retries": True}})
    assert task_of(local_storage) == StoredTask("f")
    run.put("tasks/f/inputs.json", {"task_options": {"max_retries": -1}})
    assert task_of(local_storage).max_retries == -1


@pytest.mark.parametrize(
    ("asked", "resources"),
    [
        ("many", {}),
        ({"num_cpus": "2", "num_gpus": -1, "memory": 1e999, "resources": [1]}, {}),
        ({"resources": {"": 1, "x" * 101: 1, "good": 1.5, "bad": {}}}, {"CPU": 1.0, "good": 1.5}),
    ],
)
def test_resources_that_make_no_sense_are_left_out(local_tree, local_storage, asked, resources):
    run = local_tree.run("w").task("f")
    run.put("tasks/f/inputs.json", {"task_options": {"ray_options": asked}})
    assert task_of(local_storage).resources == resources


def test_of_very_many_resources_some_are_kept(local_tree, local_storage):
    run = local_tree.run("w").task("f")
    many = {"resources": {f"r{number}": 1 for number in range(1000)}}
    run.put("tasks/f/inputs.json", {"task_options": {"ray_options": many}})
    assert len(task_of(local_storage).resources) == 8


def test_what_no_text_or_number_can_hold_is_taken_out_of_metadata(local_tree, local_storage):
    metadata = b'{"nan": NaN, "big": 1e999, "half\\ud800": "\\uDFFF", "face": "\\ud83d\\ude00"}'
    local_tree.run("w").put("user_run_metadata.json", metadata)
    stored = local_storage.read_run("w")
    assert stored is not None
    assert stored.user_metadata == {"nan": None, "big": None, "half?": "?", "face": "😀"}


def test_no_more_of_a_huge_file_is_read_than_is_needed(local_tree, local_storage, reads):
    run = local_tree.run("w").task("f").fail("f", ValueError("x" * (2 << 20)))
    run.put("user_run_metadata.json", {"x": "y" * (5 << 20)})
    stored = local_storage.read_run("w")
    assert stored is not None
    assert stored.user_metadata == {}
    exception = stored.tasks["f"].exception
    assert exception is not None
    assert "x" * 3000 not in exception[1]
    limits = {path.rpartition("/")[2]: limit for path, limit in reads}
    assert limits["exception.pkl"] == (1 << 20) + 1
    assert max(limits.values()) <= 4 << 20


def test_names_that_are_no_text_are_ignored_on_a_disk(local_tree, local_storage, tmp_path):
    local_tree.run("w").task("f").status("RUNNING")
    root = os.fsencode(tmp_path / "storage" / "workflows")
    os.close(os.open(root + b"/__status__/RUNNING/\xff", os.O_CREAT))
    os.makedirs(root + b"/w/tasks/\xff")
    os.close(os.open(root + b"/w/tasks/\xff/inputs.json", os.O_CREAT))
    assert statuses(local_storage) == {"w": "RUNNING"}
    stored = local_storage.read_run("w")
    assert stored is not None
    assert list(stored.tasks) == ["f"]


def test_links_and_pipes_on_a_disk_do_not_stall_or_loop(local_tree, local_storage, tmp_path):
    local_tree.run("w").task("f").status("RUNNING")
    folder = tmp_path / "storage" / "workflows"
    (folder / "__status__" / "RUNNING" / "loop").symlink_to(folder)
    (folder / "w" / "tasks" / "loop").symlink_to(folder / "w")
    (folder / "w" / "tasks" / "f" / "outputs.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "w" / "tasks" / "f" / "exception.pkl")
    assert statuses(local_storage) == {"w": "RUNNING"}
    assert task_of(local_storage) == StoredTask("f", (), 3, True, False, {"CPU": 1.0})


def test_watching_changes_nothing_and_opens_no_file_that_is_not_ours_to_open(tree, storage, reads):
    run = tree.run("w").task("f").task("g", "f").entry("g").status("RUNNING", 1.0)
    run.succeed("f", 2.0, 3.0, "x" * 10_000).fail("g", ValueError("x"))
    tree.run("d/e").dirty().meta("FAILED").mark("FAILED").mark("RUNNING")
    before = tree.content()
    marks = storage.list_marks()
    for workflow_id in (*marks, "missing", "a/b/c"):
        first = storage.read_run(workflow_id)
        storage.read_run(workflow_id, first)
        storage.read_run(workflow_id, first, only=["f", "missing"])
    storage.list_marks()
    assert set(marks) == {"w", "d/e"}
    assert tree.content() == before
    opened = {path.rpartition("/")[2] for path, _ in reads}
    assert opened.isdisjoint({"output.pkl", "func_body.pkl", "args.pkl", "_valid"})
    assert "exception.pkl" in opened


def test_looking_at_a_storage_that_is_not_there_creates_nothing(tmp_path):
    storage = WorkflowStorage(str(tmp_path / "a" / "b"))
    with pytest.raises(StorageError):
        storage.list_marks()
    assert storage.read_run("w") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("depth", [10, 150, 250, 600, 980, 5000, 100_000])
def test_metadata_nested_at_will_spoils_nothing(local_tree, local_storage, depth):
    # As text: Python's own encoder would not go so deep.
    text = '{"a": ' * depth + "1" + "}" * depth
    local_tree.run("w").put("user_run_metadata.json", text.encode()).status("RUNNING")
    metadata = local_storage.read_run("w").user_metadata
    assert bool(metadata) is (depth <= 150)
    run = Run("w", "w", RunStatus.RUNNING, user_metadata=metadata)
    shown = Responses(error_messages=True).run(RunView(run, analyse(run), True, ()))
    assert json.loads(json.dumps(shown))["user_metadata"] == metadata
