"""A run of which all went well, in outline: what is told of it once it is no longer exposed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Optional

from ..records import RERUN_GAP, StoredRun, StoredTask
from .filesystem import LocalFiles
from .layout import (
    COUNTERS,
    ENTRY,
    OUTPUT,
    RUN_FILES,
    RUNS,
    STARTED,
    TASK_FILES,
    TASKS,
    Fields,
    clean,
    is_counted,
)

OUTLINE_FILES = [name for name in RUN_FILES if name != ENTRY]


def outline(
    own: StoredRun, base_names: Collection[str], sizes: Mapping[str, int], started: Fields
) -> Optional[StoredRun]:
    """Make an outline of what the run's own files say, and of the sizes of its tasks' outputs.

    None if it would not do: a folder is no task of this run, or Ray overwrote the run's start,
    as what `started` says of some task tells. Only the tasks tell the truth then.
    """
    start, first = own.start_time, started.get("start_time")
    if start is None or first is None or first < start - RERUN_GAP:
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


def read_outline(
    files: LocalFiles, workflow_id: str, enough: Callable[[StoredRun], bool]
) -> tuple[Optional[StoredRun], Mapping[str, bytes]]:
    """Read a run in outline from a disk, where to ask for a file is cheaper than to list a folder.

    `enough` tells by what the run's own files say whether its outline will do. None if not, or if
    not all went well; and what was read of those files.
    """
    path = clean(workflow_id, files.backslash_divides)
    if path is None:
        return None, {}
    data = {}
    fields: Fields = {}
    for name in OUTLINE_FILES:
        content = RUN_FILES[name]
        read = files.read(f"{RUNS}/{path}/{name}", content.limit)
        if read is not None:
            data[name] = read
            fields.update(content.parse(read) or {})
    own = StoredRun(workflow_id, **fields)
    return (_with_tasks(files, path, own) if enough(own) else None), data


def _with_tasks(files: LocalFiles, path: str, own: StoredRun) -> Optional[StoredRun]:
    base_names, deeper = files.names(f"{RUNS}/{path}/{COUNTERS}")
    if deeper:
        return None  # slashes in task ids: the folder of one task may be within that of another
    tasks = f"{RUNS}/{path}/{TASKS}"
    sizes = {}
    for task_id in sorted(files.names(tasks)[1]):
        size = files.size(f"{tasks}/{task_id}/{OUTPUT}")
        if size is None:
            return None
        sizes[task_id] = size
    if not sizes:
        return None
    content = TASK_FILES[STARTED]
    data = files.read(f"{tasks}/{next(iter(sizes))}/{STARTED}", content.limit)
    return outline(own, base_names, sizes, content.parse(data or b"") or {})
