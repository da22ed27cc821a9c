from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from ray_workflow_exporter.catalog.counters import WorkflowCounters
from ray_workflow_exporter.catalog.snapshot import RunView, Snapshot, WorkflowTotals, WorkflowView
from ray_workflow_exporter.metrics import reference
from ray_workflow_exporter.metrics.exposition import Renderer, render
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import Kind, Options, Tier
from ray_workflow_exporter.model import Failure, FailureKind, Run, RunStatus, TaskState
from support.snapshots import (
    START,
    full_snapshot,
    make_run,
    make_snapshot,
    make_task,
    make_view,
    make_workflow,
)

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
BY_NAME = {family.name: family for family in FAMILIES}


def values(snapshot: Snapshot, name: str, **labels: str) -> dict[str, str]:
    """The values of a family's samples by their last label, of those that have `labels`."""
    found = {}
    for line in render(snapshot).decode().splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name:
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', head))
            if labels.items() <= pairs.items():
                found[list(pairs.values())[-1] if pairs else ""] = value
    return found


def value(view: RunView, name: str) -> Optional[str]:
    """The value of a family that has one sample a run, None where it has none."""
    (found,) = values(make_snapshot(view), f"ray_workflow_{name}").values() or (None,)
    return found


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_row_keeps_the_conventions_of_prometheus(family: Any) -> None:
    assert re.fullmatch(r"ray_workflow_[a-z_]+[a-z]", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert family.name.startswith("ray_workflow_exporter_") == (family.tier is Tier.EXPORTER)
    for unit in ("seconds", "bytes", "ratio"):
        assert family.name.removesuffix("_total").endswith(f"_{unit}") == (family.unit == unit)
    # Such characters would have to be escaped, differently in the two formats.
    assert re.fullmatch(r'[^"\\\n]+\.', family.help)
    labels = (*family.scope.labels, *family.labels)
    assert len(labels) == len(set(labels))
    assert all(re.fullmatch(r"[a-z_]+|meta_\*", label) for label in labels)


def test_each_family_has_one_row() -> None:
    assert len(BY_NAME) == len(FAMILIES)


def test_each_family_has_a_sample_in_some_snapshot() -> None:
    series = Renderer().render(full_snapshot()).series()
    assert {name for name, count in series.items() if count == 0} == set()
    kept_elsewhere = {family.name for family in FAMILIES if family.samples is None}
    assert series.keys() == BY_NAME.keys() - kept_elsewhere


def test_a_new_workflow_has_all_its_counters_at_zero() -> None:
    snapshot = make_snapshot(workflows=[WorkflowView("new", {}, WorkflowTotals())])
    zeros = {"SUCCESSFUL": "0", "FAILED": "0", "CANCELED": "0"}
    assert values(snapshot, "ray_workflow_runs_finished_total") == zeros
    assert values(snapshot, "ray_workflow_tasks_finished_total") == zeros
    assert values(snapshot, "ray_workflow_runs_started_total") == {"new": "0"}
    assert values(snapshot, "ray_workflow_tasks_retried_total") == {"new": "0"}
    assert values(snapshot, "ray_workflow_runs") == {status.value: "0" for status in RunStatus}


def test_a_workflow_that_never_ended_a_run_has_no_last_status_and_no_last_success() -> None:
    snapshot = make_snapshot(workflows=[make_workflow(last_success=None, last_status=None)])
    assert values(snapshot, "ray_workflow_last_run_status") == {}
    assert values(snapshot, "ray_workflow_last_success_timestamp_seconds") == {}


def test_the_last_run_of_a_workflow_has_one_status() -> None:
    snapshot = make_snapshot(workflows=[make_workflow(last_status=RunStatus.FAILED)])
    assert values(snapshot, "ray_workflow_last_run_status") == {
        "SUCCESSFUL": "0",
        "FAILED": "1",
        "CANCELED": "0",
    }


def test_a_histogram_is_cumulative_and_ends_with_all_observations() -> None:
    snapshot = make_snapshot(workflows=[make_workflow()])
    name = "ray_workflow_runs_duration_seconds"
    buckets = values(snapshot, f"{name}_bucket", status="SUCCESSFUL")
    assert buckets == {"1.0": "1", "60.0": "1", "+Inf": "2"}
    assert values(snapshot, f"{name}_sum", status="SUCCESSFUL") == {"SUCCESSFUL": "61.25"}
    assert values(snapshot, f"{name}_count", status="SUCCESSFUL") == {"SUCCESSFUL": "2"}


@pytest.mark.parametrize("status", RunStatus)
def test_a_run_is_in_one_status(status: RunStatus) -> None:
    found = values(make_snapshot(make_view(make_run("r", status))), "ray_workflow_run_status")
    assert found == {other.value: str(int(other is status)) for other in RunStatus}


@pytest.mark.parametrize("state", TaskState)
def test_a_task_has_a_series_for_its_current_state_only(state: TaskState) -> None:
    view = make_view(make_run("r", RunStatus.RUNNING, [make_task("t", state)]))
    assert values(make_snapshot(view), "ray_workflow_task_state") == {state.value: "1"}
    for family in ("ray_workflow_run_tasks", "ray_workflow_stage_tasks"):
        counts = values(make_snapshot(view), family)
        assert counts == {other.value: str(int(other is state)) for other in TaskState}


def test_a_limit_that_is_not_set_has_no_series() -> None:
    assert b"_limit" not in render(make_snapshot())
    assert b"ray_workflow_running_limit 0\n" in render(make_snapshot(running_limit=0))


def test_a_live_run_has_neither_end_nor_duration() -> None:
    # A resumed run still carries the end of its earlier life.
    view = make_view(make_run("r", RunStatus.RUNNING, end_time=START - 5))
    assert value(view, "run_start_timestamp_seconds") == "1700000000.0"
    assert value(view, "run_end_timestamp_seconds") is None
    assert value(view, "run_duration_seconds") is None


def test_an_end_before_the_start_is_not_shown() -> None:
    run = make_run("r", RunStatus.CANCELED, end_time=START - 5)
    task = make_task("t", TaskState.CANCELED, end_time=START)
    view = make_view(replace(run, tasks={"t": task}))
    for name in ("run_end_timestamp", "run_duration", "task_end_timestamp", "task_duration"):
        assert value(view, f"{name}_seconds") is None


def test_a_retried_task_that_runs_has_no_end() -> None:
    view = make_view(
        make_run("r", RunStatus.RUNNING, [make_task("t", TaskState.RUNNING, end_time=START + 9)])
    )
    assert value(view, "task_start_timestamp_seconds") == "1700000001.5"
    assert value(view, "task_end_timestamp_seconds") is None


@pytest.mark.parametrize(
    ("state", "shown"), [(TaskState.FAILED, "1"), (TaskState.SUCCESSFUL, None)]
)
def test_only_a_failed_task_has_a_failure(state: TaskState, shown: Optional[str]) -> None:
    failure = Failure(FailureKind.APPLICATION, "ValueError", "caught")
    view = make_view(make_run("r", RunStatus.RUNNING, [make_task("t", state, failure=failure)]))
    assert value(view, "task_failure_info") == shown


def test_only_a_failed_run_has_a_failure() -> None:
    failed = make_view(make_run("r", RunStatus.FAILED, [make_task("t", TaskState.FAILED)]))
    assert value(failed, "run_failure_info") == "1"
    resumed = replace(failed, run=replace(failed.run, status=RunStatus.RUNNING))
    assert resumed.analysis.root_cause is not None
    assert value(resumed, "run_failure_info") is None


def test_only_tasks_on_the_critical_path_are_critical() -> None:
    run = make_run("r", tasks=[make_task("a"), make_task("b")])
    snapshot = make_snapshot(make_view(run, critical_path=("b",)))
    assert values(snapshot, "ray_workflow_task_critical") == {"b": "1"}


def wide_run(status: RunStatus, stages: int, tasks_per_stage: int) -> Run:
    tasks = []
    for stage in range(stages):
        before = [f"s{stage - 1}x_{n}" for n in range(tasks_per_stage)] if stage else []
        tasks += [
            make_task(f"s{stage}x_{n}", upstream=tuple(before)) for n in range(tasks_per_stage)
        ]
    return make_run("r", status, tasks)


@pytest.mark.parametrize("tier", [Tier.RUN, Tier.STAGE, Tier.TASK])
def test_the_budget_of_a_run_in_the_docs_is_what_is_rendered(tier: Tier) -> None:
    view = make_view(wide_run(RunStatus.SUCCESSFUL, 4, 5), critical_path=())
    series = Renderer().render(make_snapshot(view)).series()
    found = sum(count for name, count in series.items() if BY_NAME[name].tier is tier)
    assert (
        found
        == {
            Tier.RUN: reference.run_series(0, 0),
            Tier.STAGE: reference.run_series(4, 3) - reference.run_series(0, 0),
            Tier.TASK: reference.run_series(4, 3, 20, 75) - reference.run_series(4, 3),
        }[tier]
    )


def test_a_live_run_stays_below_the_budget_of_the_docs() -> None:
    view = make_view(wide_run(RunStatus.RUNNING, 4, 5), critical_path=(), expected_end=START)
    exposition = Renderer().render(make_snapshot(view))
    of_snapshot = sum(Renderer().render(make_snapshot()).series().values())
    total = sum(exposition.series().values()) - of_snapshot
    assert total < reference.run_series(4, 3, 20, 75)


@pytest.mark.parametrize("stages", [0, 3])
def test_the_budget_of_a_workflow_in_the_docs_is_what_is_rendered(stages: int) -> None:
    counters = WorkflowCounters()
    for stage in range(stages):
        counters.finish_task(replace(make_task("t"), stage=f"stage {stage}"))
    view = replace(make_workflow(), totals=counters.totals())
    series = Renderer().render(make_snapshot(workflows=[view])).series()
    found = sum(count for name, count in series.items() if BY_NAME[name].tier is Tier.WORKFLOW)
    assert found == reference.workflow_series(stages)


def test_metadata_labels_are_the_same_for_all_runs_and_never_collide() -> None:
    keys = ("team", "cost-center", "cost.center", "cost_center_2")
    with_data = make_run("a", user_metadata={"team": "x", "cost.center": {"n": [1, True]}})
    snapshot = make_snapshot(make_view(with_data), make_view(make_run("b")))
    text = render(snapshot, options=Options(meta_labels=keys), tiers=["run"]).decode()
    assert [line for line in text.splitlines() if line.startswith("ray_workflow_run_info")] == [
        'ray_workflow_run_info{workflow="etl",workflow_id="a",meta_team="x",meta_cost_center="",'
        r'meta_cost_center_2="{\"n\": [1, true]}",meta_cost_center_2_2=""} 1',
        'ray_workflow_run_info{workflow="etl",workflow_id="b",meta_team="",meta_cost_center="",'
        'meta_cost_center_2="",meta_cost_center_2_2=""} 1',
    ]


def test_the_docs_are_made_from_the_table() -> None:
    # python -m ray_workflow_exporter.metrics.reference > docs/metrics.md
    assert DOCS.read_text(encoding="utf-8") == reference.page()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_queries_in_the_docs_are_promql_over_families_of_the_table(tmp_path: Path) -> None:
    queries = re.findall(r"```promql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(queries) > 10
    known = set(BY_NAME) | {f"{name}_bucket" for name in BY_NAME}
    assert set(re.findall(r"ray_workflow_\w+", "".join(queries))) <= known
    rules = [
        f"  - record: a:b:c{number}\n    expr: |\n      " + query.replace("\n", "\n      ")
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text("groups:\n- name: docs\n  rules:\n" + "\n".join(rules))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
