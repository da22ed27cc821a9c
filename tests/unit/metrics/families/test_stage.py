"""This object in, this text out: a stage."""

from __future__ import annotations

import pytest

from ray_workflow_exporter.metrics.family import Tier
from ray_workflow_exporter.model import RunStatus, TaskState
from support.expositions import series_of, values
from support.snapshots import make_run, make_snapshot, make_task, make_view


def test_two_stages_and_the_edge_between_them() -> None:
    run = make_run("r", tasks=[make_task("a"), make_task("b", upstream=("a",))])
    shown = series_of(make_snapshot(make_view(run, critical_path=("b",))), Tier.STAGE)
    of_a = 'workflow_id="r",stage="a"'
    assert [line for line in shown if of_a in line] == [
        *(f'stage_tasks{{{of_a},state="{it.value}"}} {int(it.value == "SUCCESSFUL")}'
          for it in TaskState),
        f"stage_output_size_bytes{{{of_a}}} 2048",
        f"stage_start_timestamp_seconds{{{of_a}}} 1700000001.5",
        f"stage_end_timestamp_seconds{{{of_a}}} 1700000003.75",
        f"stage_critical{{{of_a}}} 0",
        f"stage_column{{{of_a}}} 0",
        f"stage_row{{{of_a}}} 0.0",
    ]  # fmt: skip
    assert 'stage_critical{workflow_id="r",stage="b"} 1' in shown
    assert 'stage_column{workflow_id="r",stage="b"} 1' in shown
    edge = 'workflow_id="r",source="a",target="b",kind="data",edge="78e48c37638c"'
    assert shown[-1] == f"stage_edge{{{edge}}} 1"


@pytest.mark.parametrize("state", TaskState)
def test_a_stage_counts_its_tasks_by_state(state: TaskState) -> None:
    view = make_view(make_run("r", RunStatus.RUNNING, [make_task("t", state)]))
    for family in ("ray_workflow_run_tasks", "ray_workflow_stage_tasks"):
        counts = values(make_snapshot(view), family)
        assert counts == {other.value: str(int(other is state)) for other in TaskState}
