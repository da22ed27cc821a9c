"""Finished runs remembered in a file: what comes back, and what a bad file costs."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.catalog import run_cache as runcache
from ray_workflow_exporter.catalog.run_cache import RunCache, decode, encode
from ray_workflow_exporter.model import Failure, FailureKind, Run, RunStatus, Task, TaskState
from ray_workflow_exporter.sources.records import Mark
from support.logs import records_of

MARK = Mark(RunStatus.FAILED, 1_600_000_000.123456)

texts = st.text(max_size=8)
times = st.none() | st.floats(allow_nan=False, allow_infinity=False)
metadata = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=2,
)
tasks = st.builds(
    Task,
    task_id=texts,
    stage=texts,
    state=st.sampled_from(TaskState),
    upstream=st.lists(texts, max_size=2).map(tuple),
    continuation=st.none() | texts,
    submit_time=times,
    start_time=times,
    end_time=times,
    output_bytes=st.none() | st.integers(0),
    attempts=st.integers(0),
    max_retries=st.none() | st.integers(),
    checkpoint=st.none() | st.booleans(),
    catch_exceptions=st.none() | st.booleans(),
    resources=st.dictionaries(texts, st.floats(0, 1e18), max_size=2),
    failure=st.none() | st.builds(Failure, st.sampled_from(FailureKind), texts, texts),
    ray_task_id=st.none() | texts,
    node_id=st.none() | texts,
    user_metadata=metadata,
)
runs = st.builds(
    Run,
    workflow_id=texts,
    workflow=texts,
    status=st.sampled_from(RunStatus),
    tasks=st.lists(tasks, max_size=3).map(lambda found: {task.task_id: task for task in found}),
    output_task_id=st.none() | texts,
    start_time=times,
    end_time=times,
    last_transition=times,
    deadline=times,
    user_metadata=metadata,
)


@given(runs)
def test_a_run_comes_back_as_it_was(run) -> None:
    back = decode(encode(run))
    assert back == run
    assert list(back.tasks) == list(run.tasks)
    assert all(type(task.upstream) is tuple for task in back.tasks.values())


@pytest.fixture
def opened(tmp_path) -> Iterator[Callable[..., RunCache]]:
    """Open the cache, as a process does that knows of some runs."""
    made: list[RunCache] = []

    def open_cache(*known: str, path: Path = tmp_path / "state" / "cache.runs") -> RunCache:
        for cache in made:
            cache.close()
        made.append(RunCache(path, known or ("w", "x")))
        return made[-1]

    yield open_cache
    for cache in made:
        cache.close()


def a_run(workflow_id: str = "w") -> Run:
    failure = Failure(FailureKind.APPLICATION, "ValueError", "ü\n\ud800")
    task = Task("f", "f", TaskState.FAILED, ("e",), failure=failure)
    return Run(workflow_id, "etl", RunStatus.FAILED, {"f": task}, user_metadata={"a": [1, None]})


def test_a_run_is_found_under_its_mark_and_under_no_other(opened) -> None:
    opened().add(a_run(), MARK)
    assert opened().find("w", MARK) is None  # nothing is kept before it is saved
    cache = opened()
    cache.add(a_run(), MARK)
    cache.save()
    cache = opened()
    assert cache.find("w", MARK) == a_run()
    assert cache.find("w", MARK._replace(time=MARK.time + 1e-6)) is None
    assert cache.find("w", MARK._replace(status=RunStatus.CANCELED)) is None
    assert cache.find("x", MARK) is None


def test_a_mark_without_a_time_proves_nothing(opened) -> None:
    timeless = MARK._replace(time=0.0)
    cache = opened()
    cache.add(a_run(), timeless)
    cache.save()
    assert opened().find("w", timeless) is None


def test_the_last_word_on_a_run_is_kept(opened) -> None:
    cache = opened()
    later = MARK._replace(time=MARK.time + 1)
    for mark in (MARK, later):
        cache.add(a_run(), mark)
        cache.save()
    cache.add(a_run("x"), MARK)
    cache.remove("x")
    cache.save()
    cache = opened()
    assert cache.find("w", MARK) is None
    assert cache.find("w", later) == a_run()
    assert cache.find("x", MARK) is None
    cache.remove("w")
    cache.save()
    assert opened().find("w", later) is None


def test_runs_that_storage_has_no_more_are_dropped_at_the_start(opened) -> None:
    cache = opened()
    for workflow_id in ("w", "x"):
        cache.add(a_run(workflow_id), MARK)
    cache.save()
    opened("w")
    cache = opened()
    assert cache.find("w", MARK) is not None
    assert cache.find("x", MARK) is None


def test_of_too_many_the_newest_are_kept(opened, monkeypatch) -> None:
    cache = opened()
    cache.add(a_run("w"), MARK)
    cache.add(a_run("x"), MARK._replace(time=MARK.time + 1))
    cache.save()
    monkeypatch.setattr(runcache, "_MAX_BYTES", len(encode(a_run())) + 10)
    cache = opened()
    assert cache.find("w", MARK) is None
    assert cache.find("x", MARK._replace(time=MARK.time + 1)) is not None


def test_what_another_version_wrote_is_not_taken(opened, monkeypatch) -> None:
    cache = opened()
    cache.add(a_run(), MARK)
    cache.save()
    with monkeypatch.context() as patch:
        patch.setattr(runcache, "_FORMAT", "0.0.1 of something else")
        assert opened().find("w", MARK) is None
    assert opened().find("w", MARK) is None


@pytest.mark.parametrize("damage", [b"{}", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_moved_aside_with_one_line(opened, tmp_path, caplog, damage) -> None:
    path = tmp_path / "cache.runs"
    path.write_bytes(damage)
    with caplog.at_level(logging.INFO):
        cache = opened(path=path)
    assert [it.levelname for it in records_of(caplog, runcache.__name__)] == ["WARNING"]
    assert "is damaged" in caplog.text
    assert (tmp_path / "cache.runs.broken").read_bytes() == damage
    cache.add(a_run(), MARK)
    cache.save()
    assert opened(path=path).find("w", MARK) == a_run()


def test_a_database_of_somebody_else_costs_one_line_and_no_answer(opened, tmp_path, caplog) -> None:
    path = tmp_path / "cache.runs"
    other = sqlite3.connect(path)
    with other:
        other.execute("CREATE TABLE runs (name TEXT)")
    other.close()
    cache = opened(path=path)
    assert len(records_of(caplog, runcache.__name__)) == 1
    assert cache.find("w", MARK) is None
    cache.add(a_run(), MARK)
    cache.save()


@pytest.mark.parametrize(
    "body", ["", "[", "[]", "{}", '["w"]', "null", '["w","w","ODD",[]]', "[1]"]
)
def test_a_damaged_row_is_as_good_as_none(opened, tmp_path, body) -> None:
    opened().close()
    path = tmp_path / "state" / "cache.runs"
    file = sqlite3.connect(path)
    with file:
        file.execute("INSERT INTO runs VALUES ('w', 'FAILED', ?, ?)", (MARK.time, body))
    file.close()
    cache = opened()
    assert cache.find("w", MARK) is None
    cache.add(a_run(), MARK)
    cache.save()
    assert opened().find("w", MARK) == a_run()


def test_a_folder_that_cannot_be_written_costs_one_line(opened, tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = opened(path=tmp_path / "file" / "cache.runs")
    cache.add(a_run(), MARK)
    cache.save()
    cache.remove("w")
    assert cache.find("w", MARK) is None
    assert len(records_of(caplog, runcache.__name__)) == 1
    assert "--state-dir" in caplog.text


def test_a_second_exporter_of_the_same_file_does_without(opened, tmp_path, caplog) -> None:
    first = opened()
    first.add(a_run(), MARK)
    first.save()
    second = RunCache(tmp_path / "state" / "cache.runs", ("w",))
    assert "locked" in caplog.text
    assert second.find("w", MARK) is None
    assert first.find("w", MARK) == a_run()
    second.close()


def test_a_file_that_is_deleted_meanwhile_is_missed_by_nobody(opened, tmp_path) -> None:
    cache = opened()
    for file in (tmp_path / "state").iterdir():
        file.unlink()
    cache.add(a_run(), MARK)
    cache.save()
    assert cache.find("w", MARK) == a_run()
