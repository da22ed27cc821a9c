"""What both sources know becomes one run: over its lives, and as it changes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.model import RunStatus, TaskState, changed_tasks
from ray_workflow_exporter.runs.evidence import Evidence
from ray_workflow_exporter.runs.merge import merge
from ray_workflow_exporter.sources.records import (
    LiveRun,
    LiveTask,
    StoredRun,
    StoredTask,
)
from support.merging import (
    RAISED,
    T0,
    live_run,
    merged,
    stored_run,
    stored_task,
)


def test_a_resumed_run_keeps_what_its_earlier_life_finished() -> None:
    stored = stored_run(
        StoredTask("kept", start_time=T0 - 50, end_time=T0 - 49, output_bytes=7, checkpoint=True),
        stored_task("again", start_time=T0 - 50, upstream=("kept",), checkpoint=True, **RAISED),
        StoredTask("waits", upstream=("again",)),
    )
    live = LiveRun(
        "run",
        queued=False,
        resumed=True,
        tasks={
            "again": LiveTask(submit_time=T0 + 1, running=True),
            "waits": LiveTask(upstream=("again",)),
        },
    )
    states = {key: it.state for key, it in merged(RunStatus.RUNNING, stored, live).tasks.items()}
    assert states == {
        "kept": TaskState.SUCCESSFUL,
        "again": TaskState.PENDING,  # its start is of the earlier life
        "waits": TaskState.WAITING,
    }


def test_a_rerun_of_a_successful_id_keeps_the_times_in_which_it_ran() -> None:
    task = StoredTask("t", start_time=T0 - 60, end_time=T0 - 20, output_bytes=1)
    run = merged(RunStatus.SUCCESSFUL, stored_run(task, end_time=T0 + 0.01))
    assert run.duration == 40.0


def test_what_both_sources_have_lost_is_carried_over() -> None:
    live = LiveRun(
        "run",
        queued=False,
        tasks={
            "t": LiveTask(
                submit_time=T0 - 1, finish_time=T0 + 2, retries=2, output_bytes=99, ray_task_id="f0"
            )
        },
    )
    files = StoredTask("t", start_time=T0, end_time=T0 + 2, checkpoint=False, upstream=())
    before = merged(RunStatus.RUNNING, stored_run(files, end_time=None), live)
    task = merged(RunStatus.SUCCESSFUL, stored_run(files), previous=before).tasks["t"]
    assert (task.submit_time, task.attempts, task.output_bytes) == (T0 - 1, 3, 99)
    assert task.ray_task_id == "f0"


def test_only_touched_tasks_are_made_anew() -> None:
    live = live_run("a", "b")
    before = merged(RunStatus.RUNNING, stored_run(end_time=None), live)
    begun = stored_run(*(StoredTask(name, start_time=T0 + 1) for name in "ab"), end_time=None)
    run = merged(RunStatus.RUNNING, begun, live, previous=before, touched={"b"})
    assert run.tasks["a"] is before.tasks["a"]
    assert run.tasks["b"].state is TaskState.RUNNING
    assert run.last_transition == T0 + 1


def test_what_did_not_change_stays_the_same_object() -> None:
    live, stored = live_run("a", "b"), stored_run(StoredTask("a", start_time=T0), end_time=None)
    before = merged(RunStatus.RUNNING, stored, live)
    assert merged(RunStatus.RUNNING, stored, live, previous=before) is before
    assert merged(RunStatus.RUNNING, stored, live, previous=before, touched={"a"}) is before
    run = merged(RunStatus.RUNNING, stored, live, previous=before, deadline=T0 + 5)
    assert run.tasks["a"] is before.tasks["a"]
    ended = merged(RunStatus.CANCELED, stored, previous=before)
    assert changed_tasks(before.tasks, ended.tasks) == ["a", "b"]


def test_new_tasks_come_in_the_order_of_ray_and_then_by_id() -> None:
    before = merged(RunStatus.RUNNING, stored_run(end_time=None), live_run("b", "a"))
    stored = stored_run(*map(StoredTask, "uba"), end_time=None)
    live = live_run("b", "a", "z", "y")
    run = merged(RunStatus.RUNNING, stored, live, previous=before, touched=set("uzay"))
    assert list(run.tasks) == [*"bazyu"]
    assert merged(RunStatus.RUNNING, stored, live, previous=before) == run


@given(st.data())
def test_merging_what_was_touched_is_as_good_as_merging_all(data: st.DataObject) -> None:
    times = st.none() | st.integers(0, 9).map(lambda seconds: T0 + seconds)
    live_task = st.builds(
        lambda *fields: LiveTask(
            **dict(zip(("upstream", "submit_time", "finish_time", "running", "done"), fields))
        ),
        st.sampled_from([None, (), ("a",)]),
        times,
        times,
        st.booleans(),
        st.booleans(),
    )

    def stored_task(task_id: str) -> StoredTask:
        return StoredTask(
            task_id,
            start_time=data.draw(times),
            end_time=data.draw(times),
            output_bytes=data.draw(st.none() | st.integers(0, 9)),
            exception=data.draw(st.sampled_from([None, ("E", "no")])),
        )

    ids = [*"abcdefgh"]
    old, new = sorted([data.draw(st.integers(0, 5)), data.draw(st.integers(0, 8))])
    tasks = {task_id: data.draw(live_task) for task_id in ids[:old]}
    stored = {task_id: stored_task(task_id) for task_id in ids[:old] if data.draw(st.booleans())}
    before = merged(
        RunStatus.RUNNING,
        StoredRun("run", start_time=T0, tasks=stored),
        LiveRun("run", False, tasks=tasks),
    )
    touched = set(data.draw(st.lists(st.sampled_from(ids[:old]), unique=True)) if old else ())
    touched.update(ids[old:new])
    tasks = {**tasks, **{task_id: data.draw(live_task) for task_id in sorted(touched)}}
    stored = {**stored, **{task_id: stored_task(task_id) for task_id in sorted(touched)}}
    evidence = Evidence(
        "etl",
        RunStatus.RUNNING,
        StoredRun("run", start_time=T0, tasks=stored),
        LiveRun("run", False, tasks=tasks),
        previous=before,
    )
    part = merge(replace(evidence, touched=touched))
    assert part == merge(evidence)
    assert list(part.tasks) == list(merge(evidence).tasks)


def test_a_cancelled_run_ends_by_the_clock_of_its_start() -> None:
    stored = stored_run(start_file_time=T0 - 60, end_time=None)
    assert merged(RunStatus.CANCELED, stored, mark_time=T0 - 57).duration == 3.0
    without_times = merged(RunStatus.CANCELED, stored, mark_time=0.0)
    assert (without_times.end_time, without_times.duration) == (None, None)


def test_edges_and_options_that_were_seen_live_stay_known() -> None:
    live = LiveRun(
        "run",
        queued=False,
        tasks={
            "sub": LiveTask(upstream=(), max_retries=2, checkpoint=False, catch_exceptions=False),
            "out": LiveTask(upstream=("sub",), checkpoint=False, submit_time=T0),
        },
    )
    before = merged(RunStatus.RUNNING, stored_run(end_time=None), live)
    times = {"start_time": T0, "end_time": T0 + 1}
    stored = stored_run(stored_task("sub", **times), stored_task("out", **times))
    tasks = merged(RunStatus.SUCCESSFUL, stored, previous=before).tasks
    assert tasks["out"].upstream == ("sub",)
    assert (tasks["sub"].max_retries, tasks["sub"].checkpoint) == (2, False)
