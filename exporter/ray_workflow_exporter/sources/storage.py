"""Workflow storage as a source: which runs there are, and all that is stored of one run.

Everything here only reads. One object belongs to one thread.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

from ..model import RunStatus
from .files import Entry, Files, StorageError, masked, open_files
from .layout import (
    COUNTERS,
    DIRTY,
    EXCEPTION,
    MARKS,
    META,
    OUTPUT,
    RUN_FILES,
    RUNS,
    TASK_FILES,
    TASKS,
    Content,
    Fields,
    clean,
    could_be_a_file_of_a_run,
    is_counted,
)
from .records import Mark, StoredRun, StoredTask

__all__ = ["StorageError", "WorkflowStorage"]

# Object stores give mtimes in whole seconds: a file younger than this may be written again
# without a change of its size or mtime.
_YOUNG_NS = 2_000_000_000

_Stamp = tuple[int, int]  # size and mtime


@dataclass(frozen=True)
class _Memory:
    """What the last read of a run returned, and the stamps of the task files it speaks for.

    The stamps are keyed by the task's folder, then by file name. They live as long as the run
    that they vouch for is in somebody's hands, or until `forget`.
    """

    run: weakref.ReferenceType[StoredRun]
    stamps: Mapping[str, Mapping[str, _Stamp]]


class _Folder(NamedTuple):
    """A task's folder, listed: its files of known names, and those unchanged since `old`."""

    path: str
    files: Mapping[str, Entry]
    old: Optional[StoredTask]
    unchanged: Mapping[str, _Stamp]


class WorkflowStorage:
    """The runs in the storage that `uri`, the value of Ray's `--storage`, names.

    The storage is opened by the first call that reads. Both reading calls raise StorageError
    when the storage cannot be read; the next call tries anew.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._opened: Optional[Files] = None
        self._memory: dict[str, _Memory] = {}
        self._had_marks = False

    def list_marks(self) -> dict[str, Mark]:
        """List each run's status and the time of its mark: its change key.

        While a status changes, a run may be missing from one listing: only two in a row mean
        that it was deleted. Where marks leave a doubt, workflow_meta.json decides, as it does
        in Ray (`WorkflowIndexingStorage.list_workflow`).
        """
        files = self._files()
        # In the order of a run's life, and dirty last: a run that moves on meanwhile is found
        # in its new place, in both, or as dirty. (An object store is asked for all at once.)
        folders = [f"{MARKS}/{status.value}" for status in RunStatus] + [f"{MARKS}/{DIRTY}"]
        *listings, dirty_listing = files.map(files.entries, folders)
        dirty = {entry.path: entry.time for entry in dirty_listing if not entry.size}

        found: dict[str, list[Mark]] = {workflow_id: [] for workflow_id in dirty}
        doubtful = set(dirty)
        for status, entries in zip(RunStatus, listings):
            # Marks are empty. What is not is a file of a run called `__status__/<status>`, and
            # then an empty file may be another one of it, just being written.
            lodger = any(entry.size for entry in entries)
            for entry in entries:
                if entry.size:
                    continue
                marks = found.setdefault(entry.path, [])
                marks.append(Mark(status, entry.time))
                if len(marks) > 1 or (lodger and could_be_a_file_of_a_run(entry.path)):
                    doubtful.add(entry.path)

        metas = files.map(
            lambda workflow_id: files.read(f"{RUNS}/{workflow_id}/{META}", RUN_FILES[META].limit),
            doubtful,
        )
        for workflow_id, meta in zip(doubtful, metas):
            found[workflow_id] = _decide(meta, found[workflow_id], dirty.get(workflow_id, 0.0))
        if found:
            self._had_marks = True
        else:
            self._check_root(files)
        return {workflow_id: marks[0] for workflow_id, marks in found.items() if marks}

    def read_run(
        self,
        workflow_id: str,
        previous: Optional[StoredRun] = None,
        only: Optional[Collection[str]] = None,
    ) -> Optional[StoredRun]:
        """Read the folder of a run, None if there is none.

        `previous` is what the last call returned for this run: files that did not change since
        are not read again, and its values stand in for files that are only half written. With
        it, `only` names the tasks whose folders are looked at; all others are taken from it.
        Raises ValueError for an id that leads out of the storage.
        """
        files = self._files()
        folder = clean(workflow_id, files.backslash_divides)
        if folder is None:
            raise ValueError(
                f"{workflow_id!r} cannot be a workflow id: it is empty or leads out of the storage."
            )
        base = f"{RUNS}/{folder}"
        rested = time.time_ns() - _YOUNG_NS
        known = previous.tasks if previous is not None else {}
        stamps = self._stamps(workflow_id, previous)
        if previous is None:
            only = None
        ids = {
            path: task_id
            for task_id in (known if only is None else only)
            if (path := clean(task_id, files.backslash_divides)) is not None
        }

        listed, base_names = _list_tasks(files, base, None if only is None else list(ids))
        folders = [
            _folder(path, entries, known.get(ids.get(path, "")), stamps.get(path, {}))
            for path, entries in listed.items()
        ]
        data = _read_files(files, base, folders)

        tasks = {} if only is None else dict(known)
        stamps = {} if only is None else dict(stamps)
        for item in folders:
            fields, well_read = _fields(
                TASK_FILES, f"{base}/{TASKS}/{item.path}", data, item.old, item.unchanged
            )
            task = _task(item, fields, well_read, base_names, files.backslash_divides)
            if task is not None:
                tasks[task.task_id] = task
            elif item.old is not None:
                tasks.pop(item.old.task_id, None)
            stamps[item.path] = {**item.unchanged, **_settled(item.files, well_read, rested)}

        has_files = any(data[f"{base}/{name}"] is not None for name in RUN_FILES)
        if not (has_files or tasks or base_names):
            self.forget(workflow_id)
            return None
        fields, _ = _fields(RUN_FILES, base, data, previous)
        run = StoredRun(workflow_id, base_names=base_names, tasks=tasks, **fields)
        self._remember(run, stamps)
        return run

    def forget(self, workflow_id: str) -> None:
        """Drop what is remembered of a run's files, once no further read is expected."""
        self._memory.pop(workflow_id, None)

    def close(self) -> None:
        """Let go of threads and connections."""
        if self._opened is not None:
            self._opened.close()

    def _files(self) -> Files:
        if self._opened is None:
            self._opened = open_files(self._uri)
        return self._opened

    def _stamps(
        self, workflow_id: str, previous: Optional[StoredRun]
    ) -> Mapping[str, Mapping[str, _Stamp]]:
        memory = self._memory.get(workflow_id)
        return memory.stamps if memory is not None and memory.run() is previous else {}

    def _remember(self, run: StoredRun, stamps: Mapping[str, Mapping[str, _Stamp]]) -> None:
        workflow_id = run.workflow_id

        def drop(reference: weakref.ReferenceType[StoredRun]) -> None:
            memory = self._memory.get(workflow_id)
            if memory is not None and memory.run is reference:
                self.forget(workflow_id)

        self._memory[workflow_id] = _Memory(weakref.ref(run, drop), stamps)

    def _check_root(self, files: Files) -> None:
        if not files.is_folder(""):
            raise StorageError(
                f"The storage {masked(self._uri)} does not exist. Check that it is the value of "
                "Ray's --storage and that it is mounted; Ray creates it when a cluster starts."
            )
        if self._had_marks and not files.is_folder(RUNS):
            raise StorageError(
                f"The storage {masked(self._uri)} held workflows, and now its folder '{RUNS}' is "
                "gone. Check that it is still mounted."
            )


def _decide(meta: Optional[bytes], marks: list[Mark], dirty_time: float) -> list[Mark]:
    """Return the mark that holds by what workflow_meta.json says: one, or none."""
    if meta is None:
        return []  # deleted, or never a run
    fields = RUN_FILES[META].parse(meta)
    if fields is None:
        return sorted(marks, key=lambda mark: mark.time)[-1:]  # only half written: not yet changed
    if fields["status"] is None:
        return []
    times = [mark.time for mark in marks if mark.status is fields["status"]]
    return [Mark(fields["status"], max(times, default=dirty_time))]


def _list_tasks(
    files: Files, base: str, paths: Optional[list[str]]
) -> tuple[dict[str, dict[str, Entry]], frozenset[str]]:
    """List the tasks' folders: those at `paths`, or all in order; and the run's base names."""
    targets = [(f"{base}/{COUNTERS}", True)]
    targets += (
        [(f"{base}/{TASKS}", True)]
        if paths is None
        else [(f"{base}/{TASKS}/{path}", False) for path in paths]
    )
    counters, *listings = files.map(lambda target: files.entries(*target), targets)
    folders: dict[str, dict[str, Entry]] = {path: {} for path in paths or ()}
    for prefix, entries in zip(paths if paths is not None else [""], listings):
        for entry in entries:
            path, _, name = entry.path.rpartition("/")
            if name in TASK_FILES or name == OUTPUT:
                folders.setdefault(path or prefix, {})[name] = entry
    folders.pop("", None)  # tasks/outputs.json belongs to the run
    return dict(sorted(folders.items())), frozenset(entry.path for entry in counters)


def _folder(
    path: str,
    files: Mapping[str, Entry],
    old: Optional[StoredTask],
    stamps: Mapping[str, _Stamp],
) -> _Folder:
    unchanged = {
        name: stamp
        for name, stamp in stamps.items()
        if old is not None and name in files and files[name].stamp == stamp
    }
    return _Folder(path, files, old, unchanged)


def _read_files(files: Files, base: str, folders: list[_Folder]) -> dict[str, Optional[bytes]]:
    """Read, all at once, the run's own files and those of its tasks that may have changed."""
    limits = {f"{base}/{name}": content.limit for name, content in RUN_FILES.items()}
    for folder in folders:
        for name in folder.files:
            if name in TASK_FILES and name not in folder.unchanged:
                limits[f"{base}/{TASKS}/{folder.path}/{name}"] = TASK_FILES[name].limit
    return dict(zip(limits, files.map(lambda item: files.read(*item), limits.items())))


def _fields(
    contents: Mapping[str, Content],
    base: str,
    data: Mapping[str, Optional[bytes]],
    old: Union[StoredRun, StoredTask, None],
    unchanged: Container[str] = (),
) -> tuple[Fields, list[str]]:
    """Return what the files in a folder say, and the names of those that were read well."""
    fields: Fields = {}
    well_read = []
    for name, content in contents.items():
        read = data.get(f"{base}/{name}")
        if read is None and name not in unchanged:
            continue
        parsed = content.parse(read) if read is not None else None
        if parsed is not None:
            fields.update(parsed)
            well_read.append(name)
        elif old is not None:
            fields.update({field: getattr(old, field) for field in content.fields})
    return fields, well_read


def _task(
    folder: _Folder,
    fields: Fields,
    well_read: Collection[str],
    base_names: Collection[str],
    backslash_divides: bool,
) -> Optional[StoredTask]:
    """Make the task of its folder; None if it is none: another run's, called like a subfolder."""
    claimed = fields.pop("task_id", None)
    is_proven = claimed is not None and clean(claimed, backslash_divides) == folder.path
    if not folder.files or not (is_proven or is_counted(folder.path, base_names)):
        return None
    if EXCEPTION in well_read:
        fields["exception_time"] = folder.files[EXCEPTION].time or None
    output = folder.files.get(OUTPUT)
    if output is not None:
        fields.update(output_bytes=output.size, output_time=output.time or None)
    return StoredTask(task_id=claimed if is_proven else folder.path, **fields)


def _settled(
    files: Mapping[str, Entry], well_read: Collection[str], rested: int
) -> dict[str, _Stamp]:
    """Return the stamps of the files that need no second look until their stamp changes."""
    return {
        name: files[name].stamp
        for name in well_read
        if files[name].mtime_ns and (TASK_FILES[name].immutable or files[name].mtime_ns <= rested)
    }
