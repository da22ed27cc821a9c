"""What the two sources say of a run, for tests of what is made of it."""

from __future__ import annotations

from typing import Any, Optional

from ray_workflow_exporter.model import Run, RunStatus, TaskState
from ray_workflow_exporter.runs.evidence import Evidence
from ray_workflow_exporter.runs.merge import merge
from ray_workflow_exporter.sources.records import (
    LiveRun,
    LiveTask,
    StoredRun,
    StoredTask,
)

T0 = 1_700_000_000.0


RAISED: dict[str, Any] = {"exception": ("ValueError", "bad row"), "exception_time": T0 + 2.5}


def stored_task(task_id: str, **files: Any) -> StoredTask:
    """A task whose node has the clock of the file server."""
    return StoredTask(task_id, **{"start_file_time": files.get("start_time"), **files})


def stored_run(*tasks: StoredTask, **fields: Any) -> StoredRun:
    fields = {"start_time": T0, "end_time": T0 + 10, "output_task_id": "out", **fields}
    fields.setdefault("start_file_time", fields["start_time"])
    return StoredRun("run", tasks={task.task_id: task for task in tasks}, **fields)


def merged(
    status: RunStatus, stored: StoredRun, live: Optional[LiveRun] = None, **fields: Any
) -> Run:
    return merge(Evidence("etl", status, stored, live=live, **fields))


def one_state(status: RunStatus, **files: Any) -> TaskState:
    return merged(status, stored_run(stored_task("t", **files))).tasks["t"].state


def live_run(*names: str, **fields: Any) -> LiveRun:
    task = LiveTask(submit_time=T0, running=True)
    return LiveRun("run", queued=False, tasks=dict.fromkeys(names, task), **fields)


def returned(task_id: str, *upstream: str, **files: Any) -> StoredTask:
    """A task whose body returned and must have stored an output."""
    fields = {"start_time": T0, "end_time": T0 + 1, "checkpoint": True, "max_retries": 3}
    return stored_task(task_id, upstream=upstream, **{**fields, **files})
