"""How time grows from a thousand series to a million."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from unittest import mock

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.model import Run, TaskState
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.manager.link import RayLink
from ray_workflow_exporter.sources.records import LinkState, LiveRun, LiveTask, ManagerView
from support.trees import StorageTree

from .harness import RUNS, Result, Table, duration, in_fresh_process, median_seconds, seconds, size
from .population import NOW, TASKS, count_series, runs, runs_for, snapshot, wide_run
from .scrape import Scraped, count_lines
from .update import Changing

SIZES = (1_000, 10_000, 100_000, 1_000_000)
WIDE_RUNS = 10


def measure() -> Result:
    times, polls = [], []
    for series in SIZES:
        times.append(in_fresh_process(scraped_and_updated, series))
        polls.append(in_fresh_process(polled, series))
    return Result(
        tables=[
            Table(
                "A scrape grows with its bytes, an update with what changed",
                ("series", "runs", "plain", "scrape", "gzip", "scrape", "1 % of runs updated",
                 "1 run updated"),
                times,
            ),
            Table(
                "A poll without changes, all runs at work and held by the management actor",
                ("series", "poll (runs)", "poll, the same tasks in ten runs"),
                polls,
            ),
        ]
    )  # fmt: skip


def scraped_and_updated(series: int) -> list[str]:
    """Time scrapes, then changes to one percent of the runs and to one run."""
    changing = Changing(series)
    scraped = Scraped(changing.renderer.render(snapshot(changing.catalog)))
    plain = median_seconds(lambda: scraped.answer(gzip=False))
    zipped = median_seconds(lambda: scraped.answer(gzip=True))
    update = statistics.median(changing.step() for _ in range(RUNS))
    share = f"{duration(update)} ({len(changing.changing)})"
    del changing.changing[1:]
    return [
        f"{count_series(scraped.exposition):,}",
        f"{len(changing.catalog.ids()):,}",
        size(len(scraped.body(gzip=False))),
        duration(plain),
        size(len(scraped.body(gzip=True))),
        duration(zipped),
        share,
        duration(statistics.median(changing.step() for _ in range(RUNS))),
    ]


def polled(series: int) -> list[str]:
    """Time polls of an exporter whose runs are all live, and none of which changes."""
    count = runs_for(series)
    many, shown = _poll(list(runs(count)))
    few, _ = _poll([wide_run(number, count * TASKS // WIDE_RUNS) for number in range(WIDE_RUNS)])
    return [f"{shown:,}", f"{duration(many)} ({count:,})", f"{duration(few)} ({WIDE_RUNS})"]


def _poll(live: list[Run]) -> tuple[float, int]:
    """Return the seconds of a poll without changes, and how many series it keeps up to date."""
    view = ManagerView(LinkState.UP, runs={run.workflow_id: _live(run) for run in live})
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(RayLink, "poll") as poll:
        tree = StorageTree(folder)
        for run in live:
            stored = tree.run(run.workflow_id, dict(run.user_metadata))
            stored.status("RUNNING", run.start_time)
            for task in run.tasks.values():
                if task.state is TaskState.RUNNING:
                    stored.task(task.task_id, *task.upstream).start(task.task_id, NOW)
        exporter = Exporter(Settings(storage=folder, max_tasks_per_run=1_000_000))
        poll.return_value = view
        exporter.poll_once()
        known = {key: replace(run, changed=frozenset()) for key, run in view.runs.items()}
        poll.return_value = replace(view, runs=known)
        exporter.poll_once()
        taken = statistics.median(seconds(exporter.poll_once) for _ in range(15))
        shown = count_lines(b"".join(exporter.metrics()))
        exporter.close()
    return taken, shown


def _live(run: Run) -> LiveRun:
    """Return a run as the management actor would hold it."""
    tasks = {
        task.task_id: LiveTask(
            task.upstream, 3, True, False,
            submit_time=task.submit_time,
            finish_time=task.end_time,
            running=task.state is TaskState.RUNNING,
            done=task.state is TaskState.SUCCESSFUL,
        )
        for task in run.tasks.values()
    }  # fmt: skip
    return LiveRun(run.workflow_id, False, run.output_task_id, False, tasks, frozenset(tasks))
