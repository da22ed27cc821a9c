from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docs.reference import metrics as reference
from ray_workflow_exporter.catalog.workflow_counters import WorkflowCounters
from ray_workflow_exporter.metrics.exposition import Renderer
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import Kind, Tier
from ray_workflow_exporter.model import Run, RunStatus
from support.expositions import series
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
    found = series(Renderer().render(full_snapshot()))
    assert {name for name, count in found.items() if count == 0} == set()
    kept_elsewhere = {family.name for family in FAMILIES if family.samples is None}
    assert found.keys() == BY_NAME.keys() - kept_elsewhere


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
    shown = series(Renderer().render(make_snapshot(view)))
    found = sum(count for name, count in shown.items() if BY_NAME[name].tier is tier)
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
    of_snapshot = sum(series(Renderer().render(make_snapshot())).values())
    total = sum(series(exposition).values()) - of_snapshot
    assert total < reference.run_series(4, 3, 20, 75)


@pytest.mark.parametrize("stages", [0, 3])
def test_the_budget_of_a_workflow_in_the_docs_is_what_is_rendered(stages: int) -> None:
    counters = WorkflowCounters()
    for stage in range(stages):
        counters.finish_task(replace(make_task("t"), stage=f"stage {stage}"))
    view = replace(make_workflow(), totals=counters.totals())
    shown = series(Renderer().render(make_snapshot(workflows=[view])))
    found = sum(count for name, count in shown.items() if BY_NAME[name].tier is Tier.WORKFLOW)
    assert found == reference.workflow_series(stages)


def test_the_docs_are_made_from_the_table() -> None:
    # python -m docs.reference.metrics > docs/metrics.md
    assert DOCS.read_text(encoding="utf-8") == reference.page()


@pytest.mark.prometheus
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
