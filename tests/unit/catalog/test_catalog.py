"""Retention, limits with everything hidden counted, workflow aggregates, and the change feed."""

from __future__ import annotations

from typing import Any, Optional

from ray_workflow_exporter.catalog.catalog import Catalog
from ray_workflow_exporter.catalog.counters import Counters
from ray_workflow_exporter.catalog.snapshot import Snapshot
from ray_workflow_exporter.catalog.workflow_counters import LastRun
from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState
from ray_workflow_exporter.settings.settings import Settings

NOW = 1_700_000_000.0
HOUR = 3600.0


def a_run(
    name: str,
    status: str = "SUCCESSFUL",
    *,
    ended: Optional[float] = None,
    workflow: str = "etl",
    tasks: int = 3,
    failed: int = 0,
) -> Run:
    state = TaskState.SUCCESSFUL if RunStatus(status).finished else TaskState.RUNNING
    states = [TaskState.FAILED] * failed + [state] * (tasks - failed)
    end = None if ended is None else NOW - ended
    start = NOW - (10 if ended is None or ended < 10 * HOUR else 111) * HOUR
    return Run(
        workflow_id=name,
        workflow=workflow,
        status=RunStatus(status),
        start_time=start,
        end_time=end,
        tasks={
            f"t_{number}": Task(f"t_{number}", "t", state, start_time=start, end_time=end)
            for number, state in enumerate(states)
        },
    )


def a_catalog(**settings: Any) -> Catalog:
    counters = Counters()
    counters.begin({}, NOW - 100 * HOUR)
    return Catalog(Settings.load(None, {}, settings), counters)


def at(catalog: Catalog, now: float = NOW) -> Snapshot:
    return catalog.snapshot(now, storage_up=True, manager_up=True)


def shown(catalog: Catalog, now: float = NOW) -> dict[str, int]:
    """Return the exposed runs, each with the number of its exposed tasks."""
    return {view.run.workflow_id: len(view.tasks) for view in at(catalog, now).runs}


def test_finished_runs_leave_after_their_retention_and_live_ones_never() -> None:
    catalog = a_catalog(finished_retention="24h", max_finished_runs=1)
    catalog.put(a_run("live", "RUNNING"))
    catalog.put(a_run("left-over", "RESUMABLE"))
    catalog.put(a_run("old", ended=25 * HOUR))
    catalog.put(a_run("new", ended=1.0))
    assert set(shown(catalog)) == {"live", "left-over", "new"}
    assert set(shown(catalog, NOW + 48 * HOUR)) == {"live", "left-over"}
    assert at(catalog).hidden["max_finished_runs"] == 0


def test_the_newest_finished_runs_stay_under_the_limit_and_the_rest_is_counted() -> None:
    catalog = a_catalog(max_finished_runs=2)
    for number in range(5):
        catalog.put(a_run(f"r{number}", ended=100.0 - number))
    assert set(shown(catalog)) == {"r4", "r3"}
    assert at(catalog).hidden["max_finished_runs"] == 3


def test_tasks_of_finished_runs_leave_earlier_and_failed_ones_stay_with_their_run() -> None:
    catalog = a_catalog(task_retention="1h")
    catalog.put(a_run("r", "FAILED", ended=0.5 * HOUR, failed=1))
    assert shown(catalog) == {"r": 3}
    assert shown(catalog, NOW + HOUR) == {"r": 1}
    assert shown(catalog, NOW + 23 * HOUR) == {"r": 1}
    assert shown(catalog, NOW + 24 * HOUR) == {}


def test_a_run_with_too_many_tasks_shows_its_stages_only() -> None:
    catalog = a_catalog(max_tasks_per_run=10)
    catalog.put(a_run("wide", "RUNNING", tasks=11))
    catalog.put(a_run("fits", "RUNNING", tasks=10))
    assert shown(catalog) == {"wide": 0, "fits": 10}
    (wide,) = (view for view in at(catalog).runs if view.run.workflow_id == "wide")
    assert wide.stages
    assert [stage.name for stage in wide.analysis.stages] == ["t"]
    assert at(catalog).hidden["max_tasks_per_run"] == 11


def test_an_unchanged_run_keeps_its_view_and_a_changed_one_gets_another() -> None:
    catalog = a_catalog()
    catalog.put(a_run("same", "RUNNING"))
    catalog.put(a_run("other", "RUNNING"))
    before = {view.run.workflow_id: view for view in at(catalog).runs}
    catalog.put(a_run("same", "RUNNING"))
    catalog.put(a_run("other", "FAILED", ended=1.0))
    after = {view.run.workflow_id: view for view in at(catalog, NOW + 1).runs}
    assert after["same"] is before["same"]
    assert after["other"] is not before["other"]


def test_nothing_new_gives_the_very_same_runs() -> None:
    catalog = a_catalog()
    catalog.put(a_run("r", ended=10.0))
    assert at(catalog, NOW + 1).runs is at(catalog, NOW).runs


def test_workflows_count_runs_of_any_age() -> None:
    catalog = a_catalog(workflows={"etl": {"expected_interval": "1d"}})
    catalog.put(a_run("old", ended=90 * HOUR))
    catalog.put(a_run("bad", "FAILED", ended=5.0))
    catalog.put(a_run("live", "RUNNING", workflow="train"))
    etl, train = at(catalog).workflows
    assert (etl.workflow, etl.runs[RunStatus.SUCCESSFUL], etl.runs[RunStatus.FAILED]) == (
        "etl",
        1,
        1,
    )
    assert (etl.last_status, etl.last_success) == (RunStatus.FAILED, NOW - 90 * HOUR)
    assert etl.expected_interval == 86400.0
    assert (train.runs[RunStatus.RUNNING], train.last_status) == (1, None)


def test_a_workflow_of_the_settings_shows_before_it_ever_ran() -> None:
    catalog = a_catalog(
        objective=0.9, workflows={"etl": {"expected_interval": "1d", "objective": 0.5}}
    )
    catalog.put(a_run("other", workflow="train"))
    etl, train = at(catalog).workflows
    assert (etl.workflow, etl.expected_interval, etl.objective) == ("etl", 86400.0, 0.5)
    assert set(etl.runs.values()) == {0}
    assert (train.expected_interval, train.objective) == (None, 0.9)


def test_old_runs_are_kept_in_outline() -> None:
    catalog = a_catalog()
    catalog.put(a_run("old", ended=90 * HOUR))
    assert catalog.outline("old") is None
    at(catalog)
    assert catalog.outline("old") is not None
    view = catalog.view("old")
    assert view is not None
    assert view.run.tasks == {}
    assert view.analysis.tasks[TaskState.SUCCESSFUL] == 3
    seq = catalog.feed.last
    catalog.put(a_run("old", ended=90 * HOUR))
    assert catalog.feed.last == seq
    assert catalog.outline("old") is not None


def test_the_feed_tells_each_change_once_and_in_order() -> None:
    catalog = a_catalog()
    catalog.put(a_run("r", "RUNNING", tasks=1))
    begun = catalog.feed.last
    catalog.put(a_run("r", "RUNNING", tasks=1))
    catalog.put(a_run("r", "SUCCESSFUL", ended=3.0, tasks=1))
    catalog.remove("r")
    catalog.remove("r")
    changes = catalog.feed.after(begun)
    assert [(it.task_id, it.state, it.moment) for it in changes] == [
        ("t_0", "SUCCESSFUL", NOW - 3.0),
        (None, "SUCCESSFUL", NOW - 3.0),
        (None, None, None),
    ]
    assert [it.seq for it in changes] == [begun + 1, begun + 2, begun + 3]
    assert shown(catalog) == {}


def test_a_success_tells_live_runs_of_its_workflow_when_they_may_end() -> None:
    catalog = a_catalog()
    live = a_run("live", "RUNNING", tasks=1)
    catalog.put(live)
    assert at(catalog).runs[0].analysis.expected_end is None
    catalog.put(a_run("done", ended=9 * HOUR, tasks=1))
    (view,) = (it for it in at(catalog).runs if it.run.workflow_id == "live")
    assert view.analysis.expected_end is not None
    assert view.run is live


def test_live_runs_are_listed_before_the_newest_that_ended() -> None:
    catalog = a_catalog()
    catalog.put(a_run("newer", ended=5.0))
    catalog.put(a_run("live", "RUNNING"))
    catalog.put(a_run("older", ended=50.0))
    assert [view.run.workflow_id for view in catalog.views()] == ["live", "newer", "older"]


def test_the_last_run_is_one_that_still_exists() -> None:
    catalog = a_catalog()
    catalog.put(a_run("good", ended=90.0))
    catalog.put(a_run("bad", "FAILED", ended=5.0))
    assert at(catalog).workflows[0].last_status is RunStatus.FAILED
    catalog.remove("bad")
    (etl,) = at(catalog).workflows
    assert (etl.last_status, etl.last_success) == (RunStatus.SUCCESSFUL, NOW - 90.0)
    catalog.remove("good")
    (etl,) = at(catalog).workflows
    assert (etl.last_status, etl.totals.started) == (None, 2)


def test_what_ended_before_the_exporter_is_no_last_run() -> None:
    catalog = a_catalog()
    catalog.put(a_run("old", "FAILED", ended=110 * HOUR))
    assert at(catalog).workflows[0].last_status is None
    catalog.put(a_run("new", ended=5.0))
    assert at(catalog).workflows[0].last_status is RunStatus.SUCCESSFUL
    catalog.remove("new")
    assert at(catalog).workflows[0].last_status is None


def test_a_last_run_that_was_deleted_while_the_exporter_was_away_is_corrected() -> None:
    catalog = a_catalog()
    catalog.put(a_run("good", ended=90.0))
    counters = catalog._counters
    counters.workflows["etl"].set_last_run(LastRun("gone", NOW, RunStatus.FAILED))
    catalog.check_workflows(NOW)
    assert at(catalog).workflows[0].last_status is RunStatus.SUCCESSFUL


def test_a_workflow_ends_when_nothing_is_left_of_it() -> None:
    catalog = a_catalog(workflow_retention="1d", workflows={"kept": {}})
    for name, ended in (("old", 50 * HOUR), ("new", HOUR), ("kept", 50 * HOUR), ("runs", 50.0)):
        catalog.put(a_run(name, ended=ended, workflow=name))
        if name != "runs":
            catalog.remove(name)
    assert catalog.check_workflows(NOW) == ["old"]
    assert [it.workflow for it in at(catalog).workflows] == ["kept", "new", "runs"]
    assert catalog.check_workflows(NOW + 48 * HOUR) == ["new"]
    assert [it.workflow for it in at(catalog).workflows] == ["kept", "runs"]
    assert not catalog.may_forget("runs")
