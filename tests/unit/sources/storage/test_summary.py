"""Runs too old to be exposed are read in outline: nothing that is told of them may differ."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from ray_workflow_exporter.catalog.catalog import Catalog
from ray_workflow_exporter.catalog.counters import Counters
from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.model import Run, RunStatus
from ray_workflow_exporter.poll import poller
from ray_workflow_exporter.responses import Responses
from ray_workflow_exporter.runs.merge import outline_suffices
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.records import Mark, StoredRun
from ray_workflow_exporter.sources.storage.local_files import LocalFiles
from ray_workflow_exporter.sources.storage.summary import outline
from support.trees import RunTree, StorageTree

T0 = 1_600_000_000.0
LEARNED = 50  # runs of a workflow that tell what the next one takes


@pytest.fixture
def tree(tmp_path) -> StorageTree:
    return StorageTree(str(tmp_path / "storage"))


@pytest.fixture
def load(tmp_path, tree, monkeypatch) -> Iterator[Callable[..., Exporter]]:
    """Read all of the storage, without Ray."""
    # What is read at once is judged by what was read before.
    monkeypatch.setattr(poller, "_BATCH", 1)
    made: list[Exporter] = []

    def make(limit: int, *, keep: bool = False, **settings: Any) -> Exporter:
        settings = {"address": "none", "storage": tree.uri, "finished_retention": "50y", **settings}
        settings.update(state_dir=tmp_path / "state", max_finished_runs=limit)
        made.append(Exporter(Settings.load(None, {}, settings), keep=keep))
        made[-1].load()
        return made[-1]

    yield make
    while made:  # the threads of storage end with the last reference
        made.pop().close()


@pytest.fixture
def reads(monkeypatch) -> Counter[str]:
    """Count the files that are read, by run."""
    counts: Counter[str] = Counter()
    original = LocalFiles.read

    def note(self, path, limit):
        counts[path.split("/")[1]] += 1
        return original(self, path, limit)

    monkeypatch.setattr(LocalFiles, "read", note)
    return counts


def succeed(tree: StorageTree, workflow_id: str, at: float, workflow: str = "etl") -> RunTree:
    """Let two tasks of a run succeed; it is marked a second after it began."""
    run = tree.run(workflow_id, {"workflow": workflow, "owner": "us"}).status("RUNNING", at)
    run.task("f").task("g", "f").entry("g")
    run.succeed("f", at, at + 0.3, "x" * 99).succeed("g", at + 0.4, at + 1)
    run.status("SUCCESSFUL", at + 1)
    return age(tree, run, workflow_id, at + 1)


def age(tree: StorageTree, run: RunTree, workflow_id: str, at: float) -> RunTree:
    (status,) = (
        it for it in RunStatus if os.path.exists(f"{_marks(tree)}/{it.value}/{workflow_id}")
    )
    os.utime(f"{_marks(tree)}/{status.value}/{workflow_id}", (at, at))
    return run


def _marks(tree: StorageTree) -> str:
    return f"{tree.uri}/workflows/__status__"


def plant(tree: StorageTree, count: int = LEARNED + 10) -> list[str]:
    """Write runs of one workflow; the first one is the oldest."""
    ids = [f"run-{number:03}" for number in range(count)]
    for number, workflow_id in enumerate(ids):
        succeed(tree, workflow_id, T0 + 10 * number)
    return ids


def told(exporter: Exporter) -> dict[str, Any]:
    views = exporter.runs()
    return {
        view.run.workflow_id: Responses(error_messages=True).run_summary(view, metadata=True)
        for view in views
    }


def shown(exporter: Exporter, workflow_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    view = exporter.run(workflow_id)
    assert view is not None
    to = Responses(error_messages=True)
    return to.run(view), to.tasks(view)


def test_a_run_in_outline_is_listed_and_shown_as_if_all_of_it_had_been_read(
    tree, load, reads
) -> None:
    ids = plant(tree)
    whole = load(1000)
    of_the_oldest = reads[ids[0]]
    reads.clear()
    outlined = load(5)
    assert reads[ids[0]] < reads[ids[-1]] == of_the_oldest
    assert told(outlined) == told(whole)
    assert shown(outlined, ids[0]) == shown(whole, ids[0])
    assert {view.run.workflow_id for view in outlined.snapshot.runs} == set(ids[-5:])


def test_a_run_that_expired_is_read_in_outline_too(tree, load, reads) -> None:
    ids = plant(tree)
    expired = load(1000, finished_retention="24h")
    assert reads[ids[0]] < reads[ids[-1]]
    assert told(expired) == told(load(1000))


def test_the_runs_that_tell_what_a_workflow_takes_are_read_whole(tree, load, reads) -> None:
    ids = plant(tree)
    rare = [f"rare-{number}" for number in range(3)]
    for number, workflow_id in enumerate(rare):
        succeed(tree, workflow_id, T0 - 1000 + number, "rare")
    load(5)
    assert {key for key, count in reads.items() if count == reads[ids[-1]]} == {
        *ids[-LEARNED:], *rare,
    }  # fmt: skip


def retried(run: RunTree, at: float) -> None:
    run.fail("f", ValueError("the first attempt"))


def run_again(run: RunTree, at: float) -> None:
    run.put("pre_run_metadata.json", {"start_time": at + 500})
    run.put("post_run_metadata.json", {"end_time": at + 500.01})


def without_checkpoint(run: RunTree, at: float) -> None:
    run.task("h", checkpoint=False).start("h", at).end("h", at + 0.5)


def with_a_continuation(run: RunTree, at: float) -> None:
    run.task("h").start("h", at).end("h", at + 0.1).go_on("h", "f")


def with_a_task_that_never_ran(run: RunTree, at: float) -> None:
    run.task("h")


def without_an_end(run: RunTree, at: float) -> None:
    run.delete("post_run_metadata.json")


def half_written(run: RunTree, at: float) -> None:
    run.put("tasks/f/pre_task_metadata.json", b"")


def with_a_slash_in_a_task_id(run: RunTree, at: float) -> None:
    run.task("x/h").succeed("x/h", at, at + 0.2, "y" * 50)


def with_a_folder_of_another_run(run: RunTree, at: float) -> None:
    run.put("tasks/stranger/output.pkl", b"output of nobody")


@pytest.mark.parametrize(
    "happen",
    [
        retried, run_again, without_checkpoint, with_a_continuation, with_a_task_that_never_ran,
        without_an_end, half_written, with_a_slash_in_a_task_id, with_a_folder_of_another_run,
    ],
    ids=lambda it: it.__name__,
)  # fmt: skip
def test_whatever_happened_to_an_old_run_the_same_is_told_of_it(tree, load, happen) -> None:
    plant(tree)
    at = T0 - 1000
    happen(succeed(tree, "odd", at), at)
    whole, outlined = load(1000), load(5)
    assert told(outlined)["odd"] == told(whole)["odd"]
    assert shown(outlined, "odd") == shown(whole, "odd")


def test_a_restart_that_may_expose_more_reads_what_was_remembered_in_outline(
    tree, load, reads
) -> None:
    ids = plant(tree)
    load(5, keep=True).close()
    reads.clear()
    again = load(5, keep=True)
    assert not reads
    assert len(told(again)) == len(ids)
    again.close()
    more = load(1000, keep=True)
    assert set(reads) == set(ids[:-LEARNED])
    assert told(more) == told(load(1000))
    assert all(len(view.analysis.stages) == 2 for view in more.snapshot.runs)


def test_a_run_that_changes_after_it_was_read_in_outline_is_read_whole(tree, load, reads) -> None:
    ids = plant(tree)
    exporter = load(5)
    reads.clear()
    age(tree, tree.run(ids[0]), ids[0], T0 + 5000)  # somebody asked for its result again
    exporter.poll_once()
    assert reads[ids[0]] == 5 + 2 * 3  # of the run, of each task
    assert told(exporter)[ids[0]] == told(load(1000))[ids[0]]


def test_a_run_that_still_has_to_be_counted_needs_more_than_an_outline() -> None:
    counters = Counters()
    counters.begin({"old": Mark(RunStatus.SUCCESSFUL, T0)}, T0 + 100)
    catalog = Catalog(Settings(storage="/nowhere", finished_retention=1.0), counters)
    for number in range(LEARNED):
        end = T0 + 1 + number
        run = Run(f"run-{number}", "etl", RunStatus.SUCCESSFUL, start_time=end - 1, end_time=end)
        catalog.put(run, T0)
    now = T0 + 1000

    def enough(workflow_id: str, start: float = T0 - 9, end: float = T0) -> bool:
        return catalog.needs_outline_only(workflow_id, "etl", start, end, now)

    assert enough("old")
    assert enough("from a backup")  # whatever the times of its files are
    assert not enough("new", T0 + 200)
    assert not enough("old", end=T0 + 20)  # newer than some that the workflow learned from
    assert not enough("run-0")  # known already


@pytest.mark.parametrize(
    ("start", "end", "suffices"),
    [(T0, T0 + 9, True), (T0, T0 - 1, False), (None, T0 + 9, False), (T0, None, False)],
)
def test_an_outline_has_to_tell_how_long_the_run_took(start, end, suffices) -> None:
    assert outline_suffices(StoredRun("w", RunStatus.SUCCESSFUL, start, end)) is suffices
    assert not outline_suffices(StoredRun("w", RunStatus.FAILED, start, end))


@pytest.mark.parametrize(
    ("started", "suffices"),
    [(T0 + 1, True), (T0 - 0.5, True), (T0 - 2, False), (None, False)],
    ids=["after the run", "by another clock", "in an earlier life", "not known"],
)
def test_an_outline_has_to_tell_when_the_run_really_was(started, suffices) -> None:
    own = StoredRun("w", RunStatus.SUCCESSFUL, T0, T0 + 9)
    made = outline(own, {"f"}, {"f": 1}, {"start_time": started})
    assert (made is not None) is suffices
