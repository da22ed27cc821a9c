"""The deadline of a run, its own or that of its workflow; the times of one that is run again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.model import RunStatus
from ray_workflow_exporter.poll.assembler import _without_replay
from ray_workflow_exporter.settings.settings import Settings, WorkflowSettings
from support.runs import run, task
from support.trees import StorageTree

T0 = 1_600_000_000.0
Deadline = Callable[[dict[str, Any]], Optional[float]]


@pytest.fixture
def deadline_of(tmp_path: Path) -> Iterator[Deadline]:
    """Return the deadline that a run of `etl` is shown with, given its metadata."""
    tree = StorageTree(str(tmp_path / "storage"))
    workflows = {"etl": WorkflowSettings(deadline=60.0)}
    settings = Settings(address="none", storage=tree.uri, workflows=workflows)
    exporters: list[Exporter] = []

    def shown(metadata: dict[str, Any]) -> Optional[float]:
        run = tree.run("r", {"workflow": "etl", **metadata}).task("f").entry("f")
        run.status("RUNNING", T0).start("f", T0)
        exporters.append(Exporter(settings))
        for _ in range(2):  # a run that nobody holds is shown when two polls agree
            exporters[-1].poll_once()
        view = exporters[-1].run("r")
        assert view is not None
        return view.run.deadline

    yield shown
    for exporter in exporters:
        exporter.close()


def test_without_one_of_its_own_it_is_that_of_the_workflow(deadline_of: Deadline) -> None:
    assert deadline_of({}) == T0 + 60


@pytest.mark.parametrize("own", [1_700_000_000, 1_700_000_000.5])
def test_its_own_comes_first(deadline_of: Deadline, own: float) -> None:
    assert deadline_of({"deadline": own}) == own


@pytest.mark.parametrize("wrong", [True, "tomorrow", None, [1.0]])
def test_what_is_no_time_is_left_out(deadline_of: Deadline, wrong: object) -> None:
    assert deadline_of({"deadline": wrong}) == T0 + 60


@pytest.mark.parametrize("names", ["ab", "ba"], ids=["in the same order", "in another order"])
def test_a_run_that_is_run_again_keeps_its_times(names: str) -> None:
    spans = {"a": (T0, T0 + 1), "b": (T0 + 1, T0 + 2)}
    tasks = [task(name, span=span) for name, span in spans.items()]
    before = run(*tasks, status=RunStatus.SUCCESSFUL, start_time=T0 - 1, end_time=T0 + 3)
    again = run(
        *[task(name, span=spans[name]) for name in names],
        status=RunStatus.SUCCESSFUL,
        start_time=T0 + 60,
        end_time=T0 + 61,
    )
    seen = _without_replay(before, again)
    assert (seen.start_time, seen.end_time) == (T0 - 1, T0 + 3)


def test_a_run_whose_tasks_ran_anew_has_new_times() -> None:
    before = run(task("a", span=(T0, T0 + 1)), status=RunStatus.SUCCESSFUL, start_time=T0)
    again = run(task("a", span=(T0 + 5, T0 + 6)), status=RunStatus.SUCCESSFUL, start_time=T0 + 5)
    assert _without_replay(before, again) is again
