"""What polls see of runs that end and begin again between two of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import pytest

from ray_workflow_exporter.catalog.catalog import Catalog
from ray_workflow_exporter.catalog.counters import Counters
from ray_workflow_exporter.catalog.workflow_counters import WorkflowCounters
from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.poll.poller import Poller
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.records import (
    EndedLife,
    LinkState,
    LiveRun,
    LiveTask,
    ManagerView,
    Mark,
)
from support.trees import RunTree, StorageTree

SUCCESSFUL, FAILED, CANCELED = RunStatus.SUCCESSFUL, RunStatus.FAILED, RunStatus.CANCELED


class Polled:
    """A poller over a storage and a management actor that holds what the test says."""

    def __init__(self, folder: str) -> None:
        self.tree = StorageTree(folder)
        self.counters = Counters()
        self._settings = Settings(storage=folder)
        self.catalog = Catalog(self._settings, self.counters)
        self._view = ManagerView(LinkState.UP)
        self.poller = Poller(self._settings, self.catalog, self, self.counters.begin)  # type: ignore[arg-type]
        self.look()

    def look(
        self,
        life: Optional[int] = None,
        ended: Optional[EndedLife] = None,
        *,
        resumed: bool = False,
    ) -> None:
        """Poll; the actor holds this life of the run "etl" (None: none)."""
        task = LiveTask(upstream=(), submit_time=time.time(), running=True)
        run = LiveRun("etl", False, "f", resumed, {"f": task}, frozenset("f"), life)
        self._view = ManagerView(
            LinkState.UP,
            runs={} if life is None else {"etl": run},
            ended={} if ended is None else {"etl": ended},
        )
        self.poller.poll(time.time(), 1.0)

    def begin(self, start: float) -> RunTree:
        run = self.tree.run("etl").task("f").entry("f").status("RUNNING", start)
        return run.start("f", start + 0.01)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Started, SUCCESSFUL, FAILED and CANCELED runs."""
        it = self.counters.workflows.get("etl") or WorkflowCounters()
        return it.started, it.finished[SUCCESSFUL], it.finished[FAILED], it.finished[CANCELED]

    def poll(self) -> ManagerView:
        return self._view

    def task_details(self, ray_task_ids: list[str]) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def polled(tmp_path) -> Iterator[Polled]:
    polled = Polled(str(tmp_path))
    yield polled
    polled.poller.close()


def test_an_id_that_is_deleted_and_run_again_at_once_counts_each_time(polled: Polled) -> None:
    now, ended = time.time(), None
    for number in range(4):
        start = now + number
        run = polled.begin(start)
        polled.look(number + 1, ended)
        ended = EndedLife(SUCCESSFUL, start + 0.5)
        if number < 3:
            run.remove()
    run.succeed("f", start, start + 0.5).status("SUCCESSFUL", start + 0.5)
    polled.look(None, ended)
    assert polled.counts == (4, 4, 0, 0)
    durations = polled.counters.workflows["etl"].run_durations[SUCCESSFUL]
    assert (sum(durations.counts), durations.total) == (4, pytest.approx(2.0))


@pytest.mark.parametrize(("end", "status"), [("FAILED", FAILED), ("CANCELED", CANCELED)])
def test_a_run_that_is_resumed_before_its_end_was_seen_counts_that_end(
    polled: Polled, end: str, status: RunStatus
) -> None:
    now = time.time()
    run = polled.begin(now)
    polled.look(1)
    for number in (1, 2):
        run.status(end, now + number - 0.5).status("RUNNING", now + number)
        polled.look(number + 1, EndedLife(FAILED, None), resumed=True)
    run.succeed("f", now + 2.1, now + 2.2).status("SUCCESSFUL", now + 2.3)
    polled.look(None, EndedLife(SUCCESSFUL, now + 2.2))
    expected = {FAILED: (3, 1, 2, 0), CANCELED: (3, 1, 0, 2)}
    assert polled.counts == expected[status]


def test_an_end_that_is_seen_is_counted_once(polled: Polled) -> None:
    now = time.time()
    run = polled.begin(now)
    polled.look(1)
    run.fail("f", ValueError("no")).status("FAILED", now + 1)
    polled.look(None, EndedLife(FAILED, None))
    polled.look()
    assert polled.counts == (1, 0, 1, 0)
    run.status("RUNNING", now + 2)
    polled.look(2, resumed=True)
    assert polled.counts == (2, 0, 1, 0)


def test_a_run_that_ended_and_was_deleted_at_once_is_counted(polled: Polled) -> None:
    run = polled.begin(time.time())
    polled.look(1)
    run.remove()
    polled.look(None, EndedLife(SUCCESSFUL, time.time()))
    polled.look()
    assert polled.catalog.get("etl") is None
    assert polled.counts == (1, 1, 0, 0)


def test_a_replay_that_a_poll_sees_at_work_is_no_run(polled: Polled) -> None:
    now = time.time()
    run = polled.begin(now)
    polled.look(1)
    run.succeed("f", now + 0.01, now + 0.5).status("SUCCESSFUL", now + 0.6)
    polled.look(None, EndedLife(SUCCESSFUL, now + 0.5))
    run.status("RUNNING", now + 3)
    task = LiveTask()
    replay = LiveRun("etl", False, "f", True, {"f": task}, frozenset("f"), 2)
    polled._view = ManagerView(LinkState.UP, runs={"etl": replay})
    polled.poller.poll(time.time(), 1.0)
    assert polled.counts == (1, 1, 0, 0)
    run.status("SUCCESSFUL", now + 3.01)
    polled.look(None, EndedLife(SUCCESSFUL, None))
    assert polled.counts == (1, 1, 0, 0)
    shown = polled.catalog.get("etl")
    assert shown is not None
    assert shown.end_time is not None
    assert shown.end_time < now + 1


def test_a_silent_actor_is_waited_for_by_the_monotonic_clock(
    polled: Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    polled.begin(time.time())
    polled.look(1)
    polled._view = ManagerView(LinkState.UNREACHABLE)
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)  # somebody sets the clock
    for _ in range(3):
        polled.poller.poll(later, 1.0)
    run = polled.catalog.get("etl")
    assert run is not None
    assert run.status is RunStatus.RUNNING


def test_a_folder_that_vanished_and_was_written_anew_keeps_nothing_of_before(
    polled: Polled, tmp_path
) -> None:
    now, folder = time.time(), tmp_path / "workflows/etl"

    def write(owner: str) -> None:
        run = polled.tree.run("etl", {"owner": owner}).task("f").entry("f").status("RUNNING", now)
        run.start("f", now).fail("f", ValueError(owner)).status("FAILED", now + 1)
        for path in (folder / "tasks/f").iterdir():  # as a store whose clock is behind
            os.utime(path, (now - 60, now - 60))

    write("one")
    polled.look()
    polled.tree.delete_folder("workflows/etl")
    polled.poller.poll(now + 10, 1.0)
    assert not folder.exists()
    write("two")
    polled.poller.poll(now + 100, 1.0)
    run = polled.catalog.get("etl")
    assert run is not None
    failure = run.tasks["f"].failure
    assert failure is not None
    assert (failure.message, run.user_metadata) == ("two", {"owner": "two"})


def test_a_run_deleted_and_run_anew_on_a_store_without_mtimes_is_read_anew(
    polled: Polled, tmp_path
) -> None:
    now = time.time()

    def run_it(owner: str, start: float) -> None:
        run = polled.tree.run("etl", {"owner": owner}).task("f").entry("f").status("RUNNING", start)
        run.succeed("f", start, start + 1).status("SUCCESSFUL", start + 1)
        os.utime(tmp_path / "workflows/__status__/SUCCESSFUL/etl", (0, 0))

    run_it("one", now)
    polled.look()
    polled.tree.delete_folder("workflows/etl")
    run_it("two", now + 3)  # between two polls, and too short to be seen live
    polled.look(None, EndedLife(SUCCESSFUL, now + 4))
    run = polled.catalog.get("etl")
    assert run is not None
    assert (run.user_metadata, run.start_time) == ({"owner": "two"}, now + 3)


def test_a_first_listing_that_is_refused_is_not_lost(polled: Polled, tmp_path) -> None:
    polled.tree.run("done").task("f").succeed("f", 1.0, 2.0).status("SUCCESSFUL", 2.0)
    refused = [True]

    def first_listing(marks: Mapping[str, Mark], now: float) -> None:
        if refused.pop():
            refused.append(False)
            raise RuntimeError("the state is in use")
        polled.counters.begin(marks, now)

    poller = Poller(polled._settings, polled.catalog, polled, first_listing)  # type: ignore[arg-type]
    try:
        with pytest.raises(RuntimeError):
            poller.poll(time.time(), 1.0)
        poller.poll(time.time(), 1.0)
        assert polled.catalog.ids() == ["done"]
    finally:
        poller.close()


def test_a_live_run_that_never_had_a_mark_is_gone_two_polls_after_its_end(polled: Polled) -> None:
    now = time.time()
    polled.begin(now).unmark("RUNNING")
    polled.look(1)
    polled.look(1)
    assert polled.catalog.get("etl") is not None
    polled.look(None)
    assert polled.catalog.get("etl") is not None
    polled.look(None)
    assert polled.catalog.get("etl") is None


@pytest.mark.parametrize("how", ["told", "outage", "action"])
def test_a_run_that_began_and_ended_between_two_polls_is_seen_at_the_next_one(
    tmp_path, how: str
) -> None:
    # On a store whose folders have no times, by what the management actor says.
    polled = Polled(f"custom://support.trees.below{tmp_path}")
    try:
        polled.tree.run("short").task("f").succeed("f", 1.0, 2.0).status("SUCCESSFUL", 2.0)
        polled.look()
        assert polled.catalog.ids() == []
        if how == "outage":
            polled._view = ManagerView(LinkState.UNREACHABLE)
            polled.poller.poll(time.time(), 1.0)
        polled.poller.unseen = how == "action"
        polled._view = ManagerView(LinkState.UP, unseen=how == "told")
        polled.poller.poll(time.time(), 1.0)
        assert polled.catalog.ids() == ["short"]
    finally:
        polled.poller.close()


def test_a_run_that_an_action_deleted_is_gone_after_two_polls(tmp_path) -> None:
    polled = Polled(f"custom://support.trees.below{tmp_path}")
    try:
        run = polled.begin(time.time())
        polled.look(1)
        run.fail("f", ValueError("no")).status("FAILED", time.time())
        polled.look(None, EndedLife(FAILED, None))
        run.remove()
        polled.poller.unseen = True
        polled.look()
        polled.look()
        assert polled.catalog.ids() == []
    finally:
        polled.poller.close()
