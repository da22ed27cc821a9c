"""What is counted for one workflow survives as JSON, and adds up what tasks asked for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ray_workflow_exporter.catalog.workflow_counters import MAX_RESOURCES, WorkflowCounters
from ray_workflow_exporter.model import TaskState
from support.snapshots import make_task

TASK = make_task("train_1")  # 2.25 seconds


def test_resources_are_added_up_by_stage_and_by_time() -> None:
    counters = WorkflowCounters()
    counters.finish_task(replace(TASK, resources={"CPU": 2.0, "GPU": 0.5}))
    counters.finish_task(replace(TASK, state=TaskState.FAILED, resources={"CPU": 4.0}))
    counters.finish_task(replace(TASK, state=TaskState.CANCELED, resources={"CPU": 100.0}))
    counters.finish_task(replace(TASK, stage="load", resources={}))
    assert counters.totals().resource_seconds == {"train": {"CPU": 13.5, "GPU": 1.125}, "load": {}}


def test_names_that_differ_from_task_to_task_are_bounded() -> None:
    counters = WorkflowCounters()
    for number in range(MAX_RESOURCES + 5):
        counters.finish_task(replace(TASK, resources={f"slot-{number}": 1.0}))
    assert len(counters.resource_seconds["train"]) == MAX_RESOURCES


def test_what_was_counted_comes_back_from_json() -> None:
    counters = WorkflowCounters()
    counters.finish_task(replace(TASK, resources={"CPU": 2.0}))
    again = WorkflowCounters.from_json(json.loads(json.dumps(vars(counters), default=vars)))
    assert again.totals() == counters.totals()


def test_counters_without_resources_are_no_damage() -> None:
    data = json.loads(json.dumps(vars(WorkflowCounters()), default=vars))
    del data["resource_seconds"]
    assert WorkflowCounters.from_json(data).totals().resource_seconds == {}


def test_resources_of_the_wrong_kind_are_damage() -> None:
    data = json.loads(json.dumps(vars(WorkflowCounters()), default=vars))
    with pytest.raises((AttributeError, TypeError, ValueError)):
        WorkflowCounters.from_json({**data, "resource_seconds": {"train": 1}})
