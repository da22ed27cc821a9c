"""The outline of a run of which all went well: what is kept of it once it is no longer exposed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Optional

from ..records import RERUN_GAP, StoredRun, StoredTask
from .filesystem import Files, Stamp, StorageError
from .layout import (
    COUNTERS,
    ENTRY,
    OUTLINE_METADATA,
    OUTPUT,
    RUN_FILES,
    STARTED,
    TASK_FILES,
    TASKS,
    Call,
    Fields,
    File,
    Read,
    Steps,
    is_counted,
    read_file,
    truncated,
)

_FILES = [name for name in RUN_FILES if name != ENTRY]


def read_outline(
    files: Files,
    workflow_id: str,
    base: str,
    enough: Callable[[StoredRun], bool],
    read: dict[File, Read],
) -> Steps:
    """Read a run in outline from a disk, where to ask for a file is cheaper than a listing.

    None if an outline does not suffice; `read` then holds the run's own files.
    """
    calls: list[Call] = [(read_file, files, f"{base}/{name}", RUN_FILES[name]) for name in _FILES]
    read.update(zip([("", name) for name in _FILES], (yield calls)))
    own = _judged(workflow_id, enough, read)
    if own is None:
        return None
    tasks = f"{base}/{TASKS}"
    counters, tree = yield [
        (files.tree, f"{base}/{COUNTERS}", False, None, ()),
        (files.tree, tasks, False, (), ()),
    ]
    if isinstance(counters, StorageError) or isinstance(tree, StorageError):
        return None
    folders = sorted(folder for folder in tree.files if folder)
    if len(counters.files) > 1 or not folders:
        return None  # slashes in task ids: the folder of one task may be within that of another
    calls = [(files.stamp, f"{tasks}/{folder}/{OUTPUT}") for folder in folders]
    calls.append((read_file, files, f"{tasks}/{folders[0]}/{STARTED}", TASK_FILES[STARTED]))
    *outputs, first = yield calls
    read[folders[0], STARTED] = first
    if any(stamp is None or isinstance(stamp, StorageError) for stamp in outputs):
        return None
    sizes = {folder: stamp[0] for folder, stamp in zip(folders, outputs)}
    return outline(own, counters.files[""], sizes, first)


def outline_of_listing(
    workflow_id: str,
    enough: Callable[[StoredRun], bool],
    base_names: Collection[str],
    outputs: Mapping[str, Optional[Stamp]],
    wanted: dict[File, Call],
    read: dict[File, Read],
) -> Steps:
    """Read a run in outline from a store, after its listing: `outputs` are those of its tasks.

    None if an outline does not suffice; what was read for it is in `read`, no more in `wanted`.
    """
    sizes = {folder: stamp[0] for folder, stamp in outputs.items() if stamp is not None}
    if not sizes or len(sizes) < len(outputs):
        return None
    first = (min(sizes), STARTED)
    early = [file for file in (*(("", name) for name in _FILES), first) if file in wanted]
    read.update(zip(early, (yield [wanted.pop(file) for file in early])))
    own = _judged(workflow_id, enough, read)
    return None if own is None else outline(own, base_names, sizes, read.get(first))


def _judged(
    workflow_id: str, enough: Callable[[StoredRun], bool], read: Mapping[File, Read]
) -> Optional[StoredRun]:
    """Return what the run's own files say, None if an outline does not suffice by that."""
    fields: Fields = {}
    for name in _FILES:
        result = read.get(("", name), {})
        if isinstance(result, StorageError):
            return None
        fields.update(result or {})
    own = StoredRun(workflow_id, **fields)
    return own if enough(own) else None


def outline(
    own: StoredRun, base_names: Collection[str], sizes: Mapping[str, int], first: Read
) -> Optional[StoredRun]:
    """Make an outline of what the run's own files say, and of the sizes of its tasks' outputs.

    None if it does not suffice: a folder is no task of this run, or Ray overwrote the run's
    start, as the start of its `first` task shows. Only the tasks have the true times then.
    """
    first_start = first.get("start_time") if isinstance(first, dict) else None
    if own.start_time is None or first_start is None:
        return None
    if first_start < own.start_time - RERUN_GAP:
        return None
    if not all(is_counted(task_id, base_names) for task_id in sizes):
        return None
    return StoredRun(
        own.workflow_id,
        own.status,
        own.start_time,
        own.end_time,
        truncated(own.user_metadata, OUTLINE_METADATA),
        base_names=frozenset(base_names),
        tasks={task_id: StoredTask(task_id, output_bytes=size) for task_id, size in sizes.items()},
        outlined=True,
    )
