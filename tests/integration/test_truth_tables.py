"""Every row of the truth tables as a real workflow: our view against Ray's and the scenario's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.model import EdgeKind, Run, Task, TaskState
from ray_workflow_exporter.settings.settings import Settings
from support.analysis import analyse
from support.cluster import STATE_API, Cluster
from support.lab import Lab
from support.waiting import wait_until

PREFIX = "__main__."


def states(run: Run) -> dict[str, str]:
    return {key.replace(PREFIX, ""): task.state.value for key, task in run.tasks.items()}


def the_task(run: Run, name: str) -> Task:
    return run.tasks[PREFIX + name]


def edges(run: Run, kind: EdgeKind) -> set[tuple[str, str]]:
    return {
        (edge.source.replace(PREFIX, ""), edge.target.replace(PREFIX, ""))
        for edge in analyse(run).task_edges
        if edge.kind is kind
    }


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Cluster(num_cpus=6, dashboard=True, modules=STATE_API) as cluster:
        lab = Lab(cluster, tmp_path_factory.mktemp("lab"))
        try:
            yield lab
        finally:
            lab.close()


def test_a_diamond_succeeds_with_its_edges_times_and_sizes(lab: Lab) -> None:
    lab.ask("start", "diamond")
    run = lab.ended("diamond", "SUCCESSFUL")
    assert set(states(run)) == {"number", "add", "add_1", "add_2"}
    assert set(states(run).values()) == {"SUCCESSFUL"}
    sources = edges(run, EdgeKind.DATA)
    assert {source for source, _ in sources} == {"number", "add_1", "add_2"} or len(sources) == 4
    assert len(sources) == 4
    assert {task.stage for task in run.tasks.values()} == {PREFIX + "number", PREFIX + "add"}
    (status, stats) = lab.ask("truth", "diamond")["diamond"]
    assert (run.status.value, run.start_time, run.end_time) == (
        status,
        stats["start_time"],
        stats["end_time"],
    )
    for name, said in lab.ask("tasks", "diamond", *run.tasks).items():
        task = run.tasks[name]
        assert (task.start_time, task.end_time) == (
            said["stats"]["start_time"],
            said["stats"]["end_time"],
        )
        assert task.output_bytes is not None
        assert 0 < task.output_bytes < 100
        assert task.attempts == 1
        assert task.max_retries == said["task_options"]["max_retries"]
        assert task.resources == {"CPU": 1.0}
    assert run.workflow == "test"


def test_continuations_are_followed_down(lab: Lab) -> None:
    lab.ask("start", "countdown", "grow")
    run = lab.ended("countdown", "SUCCESSFUL")
    assert set(states(run).values()) == {"SUCCESSFUL"}
    assert len(run.tasks) == 4
    assert len(edges(run, EdgeKind.CONTINUATION)) == 3
    assert {task.stage for task in run.tasks.values()} == {PREFIX + "countdown"}

    run = lab.ended("grow", "SUCCESSFUL")
    entries = {target for source, target in edges(run, EdgeKind.CONTINUATION) if source == "grow"}
    assert len(entries) == 2
    assert all(name.startswith("number") for name in entries)
    assert the_task(run, "grow").continuation in run.tasks


def test_retries_are_counted_and_leave_no_failure_behind(lab: Lab) -> None:
    lab.ask("start", "retried")
    run = lab.until("retried", lambda run: any(it.attempts == 3 for it in run.tasks.values()))
    assert run.status.value == "RUNNING"
    lab.until("retried", lambda run: "RUNNING" in states(run).values())
    lab.release("retry.go")
    run = lab.ended("retried", "SUCCESSFUL")
    task = the_task(run, "third_time_lucky")
    assert (task.state, task.attempts, task.failure) == (TaskState.SUCCESSFUL, 3, None)


def test_a_failure_names_its_cause_and_what_it_blocks(lab: Lab) -> None:
    lab.ask("start", "failed")
    lab.ended("failed", "FAILED")
    view = lab.exporter.run("failed")
    assert view is not None
    cause = view.analysis.root_cause
    assert cause is not None
    assert (cause.task_id, cause.failure.exception, cause.failure.message, cause.blocked) == (
        PREFIX + "raises",
        "ValueError",
        "42 rows have no customer",
        1,
    )
    assert states(view.run)["add"] == "NOT_RUN"


def test_a_caught_exception_is_a_success_with_a_failure(lab: Lab) -> None:
    lab.ask("start", "caught")
    task = the_task(lab.ended("caught", "SUCCESSFUL"), "raises")
    assert task.state is TaskState.SUCCESSFUL
    assert task.failure is not None
    assert task.failure.exception == "ValueError"


@pytest.mark.parametrize(
    ("name", "task", "exception"),
    [
        ("crashed", "crashes", "WorkerCrashedError"),
        ("crashed at once", "crashes", None),
        ("exited", "exits", None),
        ("odd error", "raises_what_cannot_be_pickled", None),
        ("odd output", "returns_what_cannot_be_pickled", "UnpicklableOutput"),
    ],
)
def test_a_failure_without_a_record_is_found(
    lab: Lab, name: str, task: str, exception: Optional[str]
) -> None:
    lab.ask("start", name)
    run = lab.ended(name, "FAILED")
    assert the_task(run, task).state is TaskState.FAILED
    failure = the_task(run, task).failure
    assert failure is not None
    if exception is not None:
        # Ray's state API needs a second or more to tell why a worker died.
        lab.until(name, lambda run: the_task(run, task).failure.exception == exception)  # type: ignore[union-attr]
    assert all(it.state is TaskState.NOT_RUN for it in run.tasks.values() if it.upstream)


def test_a_run_that_rays_executor_cannot_run_says_why_and_is_not_called_resumed(lab: Lab) -> None:
    lab.ask("start", "limited")
    lab.ended("limited", "RESUMABLE")
    # Ray's state API tells the error later than the actor tells that the executor left the run.
    run = lab.until("limited", lambda run: "max_calls" in str(run.reason))
    assert str(run.reason).startswith("Ray's workflow executor failed and left the run: ")
    state, detail = lab.exporter._link.act("resume limited", "resume", "limited")
    assert state == "FAILED"
    assert "max_calls" in detail
    lab.ended("limited", "RESUMABLE")


@pytest.mark.parametrize("name", ["bad input", "bad environment"])
def test_a_run_that_fails_before_its_first_task_starts_has_a_cause(lab: Lab, name: str) -> None:
    lab.ask("start", name)
    lab.ended(name, "FAILED")
    view = lab.exporter.run(name)
    assert view is not None
    cause = view.analysis.root_cause
    assert cause is not None
    assert cause.failure.message
    assert cause.blocked + len(view.run.tasks) >= 2


def test_edges_without_a_checkpoint_are_kept_as_they_were_seen(lab: Lab) -> None:
    lab.ask("start", "loose and held")
    lab.until("loose and held", lambda run: states(run).get("held") == "RUNNING")
    run = lab.until("loose and held", lambda run: len(edges(run, EdgeKind.DATA)) == 2)
    before = edges(run, EdgeKind.DATA), edges(run, EdgeKind.CONTINUATION)
    lab.release("loose")
    run = lab.ended("loose and held", "SUCCESSFUL")
    assert (edges(run, EdgeKind.DATA), edges(run, EdgeKind.CONTINUATION)) == before
    assert set(states(run).values()) == {"SUCCESSFUL"}


def test_results_without_a_checkpoint_are_results(lab: Lab) -> None:
    lab.ask("start", "no checkpoint", "loose growth")
    run = lab.ended("no checkpoint", "SUCCESSFUL")
    assert set(states(run).values()) == {"SUCCESSFUL"}
    assert the_task(run, "add").checkpoint is False
    run = lab.ended("loose growth", "SUCCESSFUL")
    assert set(states(run).values()) == {"SUCCESSFUL"}


def test_a_task_without_resources_is_pending_until_its_run_is_cancelled(lab: Lab) -> None:
    lab.ask("start", "starved")
    run = lab.until("starved", lambda run: "PENDING" in states(run).values())
    assert states(run) == {"number": "PENDING", "add": "WAITING"}
    assert the_task(run, "number").submit_time is not None
    assert the_task(run, "number").start_time is None
    assert the_task(run, "number").resources == {"CPU": 1000.0}
    lab.ask("cancel", "starved")
    run = lab.ended("starved", "CANCELED")
    assert set(states(run).values()) == {"NOT_RUN"}
    assert run.end_time is not None


def test_a_cancelled_task_is_cancelled(lab: Lab) -> None:
    lab.ask("start", "cancelled")
    lab.until("cancelled", lambda run: "RUNNING" in states(run).values())
    lab.ask("cancel", "cancelled")
    run = lab.ended("cancelled", "CANCELED")
    assert states(run) == {"held": "CANCELED", "add": "NOT_RUN"}
    assert run.duration is not None
    assert run.duration >= 0


def test_siblings_that_outlive_a_failed_run_are_followed_to_their_end(lab: Lab) -> None:
    lab.ask("start", "siblings")
    run = lab.ended("siblings", "FAILED")
    assert states(run)["raises"] == "FAILED"
    lab.until("siblings", lambda run: states(run)["held"] == "RUNNING")
    lab.release("sibling")
    run = lab.until("siblings", lambda run: states(run)["held"] == "SUCCESSFUL")
    assert run.status.value == "FAILED"


def test_a_resumed_run_goes_on_from_what_it_had(lab: Lab) -> None:
    lab.ask("start", "resumed")
    failed = lab.ended("resumed", "FAILED")
    lab.release("mended")
    lab.ask("resume", "resumed")
    run = lab.ended("resumed", "SUCCESSFUL")
    assert set(states(run).values()) == {"SUCCESSFUL"}
    assert run.start_time is not None
    assert failed.start_time is not None
    assert run.start_time > failed.start_time
    assert the_task(run, "number").end_time == the_task(failed, "number").end_time


def test_a_rerun_of_a_successful_id_keeps_the_duration_of_the_real_run(lab: Lab) -> None:
    lab.ask("start", "again")
    first = lab.ended("again", "SUCCESSFUL")
    # Only a later second tells the new, empty run from the real one.
    end = first.end_time
    assert end is not None
    wait_until(lambda: time.time() > end + 1.5)
    lab.ask("resume", "again")

    def rewritten() -> bool:
        stats = lab.ask("truth", "again")["again"][1]
        # Ray finds nothing at all in a file that is just being written.
        known = stats.get("start_time"), stats.get("end_time")
        return None not in known and known[0] != first.start_time

    wait_until(rewritten)
    seen = lab.exporter.snapshot.at
    wait_until(lambda: lab.exporter.snapshot.at > seen + 1.0)
    run = lab.ended("again", "SUCCESSFUL")
    # Those of the run itself, or those of its tasks if a poll saw the new one at work.
    times = [first.start_time, run.start_time, run.end_time, first.end_time]
    assert times == sorted(times)  # type: ignore[type-var]
    # One that never saw the real run goes by its tasks.
    later = Exporter(Settings(address="none", storage=str(lab.cluster.storage)))
    try:
        later.poll_once()
        view = later.run("again")
        assert view is not None
        ends = [task.end_time for task in view.run.tasks.values() if task.end_time is not None]
        assert view.run.end_time == max(ends)
    finally:
        later.close()


def test_a_cancel_of_a_finished_run_shows_what_ray_makes_of_it(lab: Lab) -> None:
    lab.ask("start", "cancelled late")
    lab.ended("cancelled late", "SUCCESSFUL")
    lab.ask("cancel", "cancelled late")
    run = lab.ended("cancelled late", "CANCELED")
    assert set(states(run).values()) == {"SUCCESSFUL"}


def test_a_deleted_run_vanishes(lab: Lab) -> None:
    lab.ask("start", "deleted")
    lab.ended("deleted", "SUCCESSFUL")
    lab.ask("delete", "deleted")
    wait_until(lambda: lab.run("deleted") is None)


def test_rays_own_sleep_is_a_run_like_any_other(lab: Lab) -> None:
    lab.ask("start", "sleeper")
    run = lab.ended("sleeper", "SUCCESSFUL")
    assert set(states(run).values()) == {"SUCCESSFUL"}


IDS = [
    "with/slash", "new\nline", 'quo"te', "back\\slash", "ünïcode ✓", "trailing ", "{curly}", "%2F",
    "RUNNING", "dirty", "x" * 255,
]  # fmt: skip


def test_ids_of_any_kind_are_runs_with_their_status(lab: Lab) -> None:
    lab.ask("start", *IDS)
    for name in IDS:
        lab.ended(name, "SUCCESSFUL")
    said = lab.ask("truth", *IDS)
    assert {name: status for name, (status, _) in said.items()} == dict.fromkeys(IDS, "SUCCESSFUL")


def test_a_live_run_is_in_the_metrics_while_it_runs(lab: Lab) -> None:
    lab.ask("start", "live")
    lab.until("live", lambda run: states(run).get("held") == "RUNNING")

    def series() -> set[tuple[str, ...]]:
        families = text_string_to_metric_families(b"".join(lab.exporter.metrics()).decode())
        return {
            (sample.name, sample.labels.get("task_id", ""), sample.labels.get("state", ""))
            for family in families
            for sample in family.samples
            if sample.labels.get("workflow_id") == "live" and sample.value == 1
        }

    wanted = {
        ("ray_workflow_task_state", PREFIX + "held", "RUNNING"),
        ("ray_workflow_task_state", PREFIX + "number", "SUCCESSFUL"),
        ("ray_workflow_task_state", PREFIX + "add", "WAITING"),
    }
    wait_until(lambda: wanted <= series())
    lab.release("live")
    lab.ended("live", "SUCCESSFUL")
    wait_until(lambda: ("ray_workflow_task_state", PREFIX + "add", "SUCCESSFUL") in series())


def test_all_runs_agree_with_ray(lab: Lab) -> None:
    """Whatever ran before this test: no run has another status than the one Ray tells."""

    def disagreements() -> dict[str, tuple[str, str]]:
        ours = {it.run.workflow_id: it.run.status.value for it in lab.exporter.runs()}
        said = lab.ask("truth", *ours)
        return {
            name: (status, said[name][0])
            for name, status in ours.items()
            if status != said[name][0]
        }

    lab.ask("start", "one more")
    lab.ended("one more", "SUCCESSFUL")
    wait_until(lambda: not disagreements(), message="statuses agree with Ray's")


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Lab]:
    """A cluster that runs one workflow at a time and queues one more."""
    with Cluster(num_cpus=2) as cluster:
        lab = Lab(cluster, tmp_path)
        try:
            lab.ask("init", 1, 1)
            yield lab
        finally:
            lab.close()


@pytest.mark.ray
def test_a_queued_run_is_pending_and_one_that_is_turned_away_is_none(narrow: Lab) -> None:
    narrow.ask("start", "live")
    narrow.ended("live", "RUNNING")
    narrow.ask("start", "diamond")
    run = narrow.ended("diamond", "PENDING")
    assert set(states(run).values()) == {"WAITING"}
    assert run.start_time is None
    assert "queue has been full" in narrow.ask("start", "again")
    assert narrow.exporter.snapshot.running_limit == 1
    assert narrow.exporter.snapshot.pending_limit == 1
    narrow.release("live")
    narrow.ended("diamond", "SUCCESSFUL")
    assert narrow.run("again") is None


@pytest.mark.slow
@pytest.mark.ray
def test_runs_of_a_manager_that_died_are_resumable(narrow: Lab) -> None:
    narrow.ask("start", "live")
    narrow.until("live", lambda run: states(run).get("held") == "RUNNING")
    narrow.until("live", lambda run: states(run).get("number") == "SUCCESSFUL")
    narrow.ask("kill manager")
    run = narrow.ended("live", "RESUMABLE")
    assert states(run) == {"held": "NOT_RUN", "number": "SUCCESSFUL", "add": "NOT_RUN"}
    assert the_task(run, "held").start_time is not None
    assert not narrow.exporter.snapshot.manager_up
    narrow.release("live")
    narrow.ask("resume", "live")
    run = narrow.ended("live", "SUCCESSFUL")
    assert set(states(run).values()) == {"SUCCESSFUL"}
    wait_until(lambda: narrow.exporter.snapshot.manager_up)
