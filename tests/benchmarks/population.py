"""Runs for benchmarks: the same ones each time, with ids, names and times as Ray gives them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import replace

from ray_workflow_exporter.catalog.catalog import Catalog
from ray_workflow_exporter.catalog.counters import Counters
from ray_workflow_exporter.catalog.snapshot import Snapshot
from ray_workflow_exporter.metrics.exposition import Exposition, Renderer
from ray_workflow_exporter.model import Failure, FailureKind, Run, RunStatus, Task, TaskState
from ray_workflow_exporter.settings.settings import Settings

NOW = 1_750_000_000.0
WORKFLOWS = (
    "orders-nightly", "orders-hourly", "customer-churn", "feature-store", "image-thumbnails",
    "embeddings", "billing-export", "counters-reconcile", "sensor-ingest", "model-training",
    "search-index", "audit-report",
)  # fmt: skip
WIDTH = 16  # tasks of the fan-out of each run
TASKS = WIDTH + 6

# Everything is exposed, and nothing ages while a benchmark runs.
SETTINGS = Settings(
    address="none",
    max_finished_runs=1_000_000,
    finished_retention=10 * 31_536_000,
    task_retention=10 * 31_536_000,
)


def dag(module: str) -> dict[str, tuple[str, ...]]:
    """Return a run's tasks with the tasks that each waits for."""
    extract, join = f"{module}.pipeline.extract_partitions", f"{module}.pipeline.merge_partitions"
    maps = [f"{module}.pipeline.transform_partition" + f"_{n}" * (n > 0) for n in range(WIDTH)]
    return {
        extract: (),
        f"{module}.pipeline.load_reference_data": (),
        **dict.fromkeys(maps, (extract, f"{module}.pipeline.load_reference_data")),
        join: tuple(maps),
        f"{module}.quality.validate": (join,),
        f"{module}.sinks.write_warehouse": (f"{module}.quality.validate",),
        f"{module}.sinks.notify": (f"{module}.sinks.write_warehouse",),
    }


def runs(count: int) -> Iterator[Run]:
    """Make runs of 22 tasks each: 10 % at work, 5 % failed, 1 % canceled, all others done."""
    chance = random.Random(20_729)
    for number in range(count):
        start = NOW - 3600 + 3000 * number / count
        # What Ray calls a run that its user gave no name.
        workflow_id = f"{uuid.UUID(int=chance.getrandbits(128), version=4)}.{start:.9f}"
        workflow = WORKFLOWS[number % len(WORKFLOWS)]
        draw = chance.random()
        status = (
            RunStatus.RUNNING if number % 10 == 0
            else RunStatus.FAILED if draw < 0.05
            else RunStatus.CANCELED if draw < 0.06
            else RunStatus.SUCCESSFUL
        )  # fmt: skip
        yield _run(workflow_id, workflow, status, start, chance)


def _run(
    workflow_id: str, workflow: str, status: RunStatus, start: float, chance: random.Random
) -> Run:
    waits = dag(workflow.replace("-", "_"))
    stop = len(waits) if status is RunStatus.SUCCESSFUL else chance.randrange(3, len(waits) - 3)
    tasks: dict[str, Task] = {}
    ends: dict[str, float] = {}
    for number, (task_id, upstream) in enumerate(waits.items()):
        ready = max([ends.get(it, start) for it in upstream], default=start)
        begin = ready + chance.uniform(0.005, 0.5)
        end = ends[task_id] = begin + chance.lognormvariate(1, 1)
        if number < stop:
            task = _task(task_id, TaskState.SUCCESSFUL, upstream, chance, ready, begin, end)
        elif number == stop:
            task = _stopped(task_id, status, upstream, chance, ready, begin, end)
        elif status is RunStatus.RUNNING:
            task = _task(task_id, TaskState.WAITING, upstream, chance)
        else:
            task = _task(task_id, TaskState.NOT_RUN, upstream, chance)
        tasks[task_id] = task
    end = max(it.end_time or it.start_time or start for it in tasks.values())
    return Run(
        workflow_id,
        workflow,
        status,
        tasks,
        output_task_id=task_id,
        start_time=start,
        end_time=end if status.finished else None,
        last_transition=end,
        user_metadata={"workflow": workflow, "owner": "data-platform"},
    )


def wide_run(number: int, tasks: int) -> Run:
    """Make a run at work that is one fan-out of so many tasks, half of them done."""
    chance = random.Random(number)
    root = _task("__main__.split", TaskState.SUCCESSFUL, (), chance, NOW - 60, NOW - 59, NOW - 50)
    made = {root.task_id: root}
    for at in range(tasks - 1):
        task_id = "__main__.score" + f"_{at}" * (at > 0)
        times = (NOW - 50, NOW - 50, NOW - 10) if at < tasks // 2 else ()
        state = TaskState.SUCCESSFUL if times else TaskState.WAITING
        made[task_id] = _task(task_id, state, (root.task_id,), chance, *times)
    return Run(f"wide-{number}", "scoring", RunStatus.RUNNING, made, task_id, start_time=NOW - 60)


def _task(
    task_id: str, state: TaskState, upstream: tuple[str, ...], chance: random.Random, *at: float
) -> Task:
    base, _, number = task_id.rpartition("_")
    task = Task(
        task_id,
        stage=base if number.isdigit() else task_id,
        state=state,
        upstream=upstream,
        max_retries=3,
        checkpoint=True,
        catch_exceptions=False,
    )
    if not at:
        return task
    submit, start, end = at
    done = state is TaskState.SUCCESSFUL
    return replace(
        task,
        submit_time=submit,
        start_time=start,
        end_time=end if state.finished else None,
        output_bytes=chance.randrange(200, 5_000_000) if done else None,
        attempts=1,
        ray_task_id=f"{chance.getrandbits(192):048x}",
        node_id=f"{chance.getrandbits(224):056x}",
    )


def _stopped(
    task_id: str,
    status: RunStatus,
    upstream: tuple[str, ...],
    chance: random.Random,
    *at: float,
) -> Task:
    """Make the task at which a run stands now, or at which it came to its end."""
    state = TaskState(status.value)
    task = _task(task_id, state, upstream, chance, *at)
    if state is TaskState.FAILED:
        message = f"row {chance.randrange(10**6)}: column 'customer_id' must not be null"
        failure = Failure(FailureKind.APPLICATION, "pandera.errors.SchemaError", message)
        return replace(task, failure=failure)
    return task


def count_series(exposition: Exposition) -> int:
    """Return the number of series of an exposition."""
    return sum(row.samples.lines for row in exposition)


def runs_for(series: int) -> int:
    """Return how many runs it takes to expose about so many series."""
    sample = Catalog(SETTINGS, Counters())
    for run in runs(200):
        sample.put(run)
    found = count_series(Renderer().render(snapshot(sample)))
    return max(1, round(series * 200 / found))


def filled(series: int) -> Catalog:
    """Return a catalog whose exposition has about so many series."""
    catalog = Catalog(SETTINGS, Counters())
    for run in runs(runs_for(series)):
        catalog.put(run)
    return catalog


def snapshot(catalog: Catalog) -> Snapshot:
    """Return what the catalog exposes."""
    return catalog.snapshot(NOW, storage_up=True, manager_up=True)


def stepped(run: Run, step: int) -> Run:
    """Return a run at work after one more change: its running task has ended, the next began.

    `step` makes each change another one, for a run has only so many tasks.
    """
    tasks = dict(run.tasks)
    order = list(tasks)
    at = step % (len(order) - 1)
    now = NOW + step
    done, begun = order[at], order[at + 1]
    tasks[done] = replace(
        tasks[done], state=TaskState.SUCCESSFUL, submit_time=now - 9, start_time=now - 9,
        end_time=now, output_bytes=1000 + step, attempts=1,
    )  # fmt: skip
    tasks[begun] = replace(
        tasks[begun], state=TaskState.RUNNING, submit_time=now, start_time=now, end_time=None,
        output_bytes=None, attempts=1,
    )  # fmt: skip
    return replace(run, tasks=tasks, last_transition=now)
