"""The outline of a run of which all went well: what is kept of it once it is no longer exposed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Optional

from ..records import RERUN_GAP, StoredRun, StoredTask
from .layout import ENTRY, RUN_FILES, is_counted

OUTLINE_FILES = [name for name in RUN_FILES if name != ENTRY]


def outline(
    own: StoredRun,
    base_names: Collection[str],
    sizes: Mapping[str, int],
    first_start: Optional[float],
) -> Optional[StoredRun]:
    """Make an outline of what the run's own files say, and of the sizes of its tasks' outputs.

    None if it would not do: a folder is no task of this run, or Ray overwrote the run's start, as
    the start of its first task shows. Only the tasks have the true times then.
    """
    start = own.start_time
    if start is None or first_start is None or first_start < start - RERUN_GAP:
        return None
    if not all(is_counted(task_id, base_names) for task_id in sizes):
        return None
    return StoredRun(
        own.workflow_id,
        own.status,
        start,
        own.end_time,
        own.user_metadata,
        base_names=frozenset(base_names),
        tasks={task_id: StoredTask(task_id, output_bytes=size) for task_id, size in sizes.items()},
        outlined=True,
    )
