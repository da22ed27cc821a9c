"""Runs read in outline, on storages of each kind: no more is read, and nothing else is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.sources.records import StoredRun, StoredTask
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage
from support.trees import RunTree, StorageTree

T0 = 1_600_000_000.0


def succeed(tree: StorageTree, workflow_id: str = "w") -> RunTree:
    run = tree.run(workflow_id, {"owner": "us"}).status("RUNNING", T0)
    run.task("f").task("f_1", "f").task("g", "f_1").entry("g")
    run.succeed("f", T0, T0 + 1, "x" * 99).succeed("f_1", T0 + 1, T0 + 2).succeed(
        "g", T0 + 2, T0 + 3
    )
    return run.status("SUCCESSFUL", T0 + 3)


def in_outline(storage: WorkflowStorage, workflow_id: str = "w") -> StoredRun:
    found = storage.read_runs({workflow_id: None}, enough=lambda _: True)[workflow_id]
    assert found is not None
    return found


def test_an_outline_tells_of_the_run_what_a_whole_reading_does(tree, storage, reads) -> None:
    succeed(tree)
    whole = storage.read_run("w")
    assert whole is not None
    reads.clear()
    outline = in_outline(storage)
    assert len(reads) == 5
    assert outline == replace(
        whole,
        output_task_id=None,
        outlined=True,
        tasks={
            task_id: StoredTask(task_id, output_bytes=task.output_bytes)
            for task_id, task in whole.tasks.items()
        },
    )


def test_who_asks_for_an_outline_judges_by_the_runs_own_files(tree, storage) -> None:
    succeed(tree)
    judged: list[StoredRun] = []
    found = storage.read_runs({"w": None}, enough=judged.append)  # None: it is not
    whole = storage.read_run("w")
    assert found == {"w": whole}
    assert judged == [
        StoredRun("w", RunStatus.SUCCESSFUL, T0, T0 + 3, user_metadata={"owner": "us"})
    ]


def test_what_was_read_for_an_outline_is_not_read_again(tree, storage, reads) -> None:
    succeed(tree)
    storage.read_runs({"w": None}, enough=lambda _: False)
    assert len(reads) == len(set(reads)) == 5 + 3 * 3


def a_task_without_an_output(tree: StorageTree, run: RunTree) -> None:
    run.delete("tasks/f_1/output.pkl")


def a_start_of_a_later_life(tree: StorageTree, run: RunTree) -> None:
    run.put("pre_run_metadata.json", {"start_time": T0 + 2})


def no_start_of_the_first_task(tree: StorageTree, run: RunTree) -> None:
    run.delete("tasks/f/pre_task_metadata.json")


def a_start_that_is_half_written(tree: StorageTree, run: RunTree) -> None:
    run.put("tasks/f/pre_task_metadata.json", b"")


def no_start_of_the_run(tree: StorageTree, run: RunTree) -> None:
    run.delete("pre_run_metadata.json")


def no_tasks(tree: StorageTree, run: RunTree) -> None:
    tree.delete_folder("workflows/w/tasks")


def a_folder_that_is_no_task(tree: StorageTree, run: RunTree) -> None:
    run.put("tasks/stranger/output.pkl", b"output of nobody")


def an_output_that_is_a_folder(tree: StorageTree, run: RunTree) -> None:
    run.delete("tasks/f_1/output.pkl").put("tasks/f_1/output.pkl/file", b"x")


@pytest.mark.parametrize(
    "happen",
    [
        a_task_without_an_output, a_start_of_a_later_life, no_start_of_the_first_task,
        a_start_that_is_half_written, no_start_of_the_run, no_tasks, a_folder_that_is_no_task,
        an_output_that_is_a_folder,
    ],
    ids=lambda it: it.__name__,
)  # fmt: skip
def test_what_did_not_go_well_is_read_whole(tree, storage, happen) -> None:
    happen(tree, succeed(tree))
    assert in_outline(storage) == storage.read_run("w")


def test_a_task_in_the_folder_of_another_is_found(tree, storage) -> None:
    run = succeed(tree)
    run.task("f_1/h").succeed("f_1/h", T0 + 2, T0 + 3, "y")
    found, whole = in_outline(storage), storage.read_run("w")
    assert whole is not None
    assert {key: it.output_bytes for key, it in found.tasks.items()} == {
        key: it.output_bytes for key, it in whole.tasks.items()
    }


def test_an_id_that_leads_out_of_the_storage_has_no_outline(tree, storage, reads) -> None:
    ids = ["..", ".", "", "/etc"]
    assert storage.read_runs(dict.fromkeys(ids), enough=lambda _: True) == dict.fromkeys(ids)
    assert reads == []
