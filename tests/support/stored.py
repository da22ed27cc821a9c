"""Short forms of what workflow storage says, for assertions."""

from __future__ import annotations

import os
from typing import Union

from ray_workflow_exporter.sources.records import StoredTask
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage


def statuses(storage: WorkflowStorage) -> dict[str, str]:
    """Return each run's status by its marks."""
    return {workflow_id: mark.status.value for workflow_id, mark in storage.list_marks().items()}


def task_of(storage: WorkflowStorage, task_id: str = "f") -> StoredTask:
    """Return a task of the run `w`."""
    run = storage.read_run("w")
    assert run is not None
    return run.tasks[task_id]


def path_of(folder: Union[int, str]) -> str:
    """Return the path of a folder that is listed by path or as an open file."""
    return os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) else str(folder)
