"""How a run's folder is read: what to list, which files to read, and the run that they make.

No I/O here: `read_folder` is a generator that yields the calls to make and receives their results,
so that the calls of many runs can be made at once. A call that failed has a StorageError for a
result: it costs what that file or folder says, never the run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional, Union

from ..records import StoredRun, StoredTask
from .exceptions import UNREADABLE
from .filesystem import NOT_MEASURED, Files, Stamp, StorageError, Tree
from .layout import (
    COUNTERS,
    EXCEPTION,
    OUTPUT,
    RUN_FILES,
    RUN_STARTED,
    RUNS,
    STARTED,
    TASK_FILES,
    TASKS,
    Fields,
    File,
    Read,
    Steps,
    clean,
    is_counted,
    read_file,
)
from .summary import OUTLINE_FILES, judged, outline, read_outline

_IN_A_TASK = frozenset((*TASK_FILES, OUTPUT))
_BY_STAMP = (EXCEPTION, OUTPUT, STARTED)  # their size or time is of interest
_FILES_OF_A_TASK, _PAGE = 9, 1000  # about; and what one request to an object store lists
_NOT_LISTED = dict.fromkeys(RUN_FILES, NOT_MEASURED)
_MAX_UNREADABLE = 10  # that are named


class Request(NamedTuple):
    """Which run to read, and how.

    `previous` is what the last reading returned; with it, `only` names the tasks whose folders
    are read, all others are taken from it. With `measure`, stamps are taken for the next reading
    where that costs something. Files changed after `rested` (Unix ns) are read again though their
    stamp stays the same. A run of which all went well is read in outline if `enough` returns true
    for what its own files say.
    """

    workflow_id: str
    path: str  # of its folder
    previous: Optional[StoredRun]
    only: Optional[Collection[str]]
    measure: bool
    rested: int
    enough: Optional[Callable[[StoredRun], bool]] = None


@dataclass
class _Listed:
    """What was listed of a run: its own files, those of each task's folder, and base names.

    `own` is None where the run's own folder was not listed; `base_names` where the folder of the
    counters cannot be. `blind` are the folders of tasks that cannot be listed.
    """

    own: Optional[dict[str, Stamp]] = None
    tasks: dict[str, Mapping[str, Stamp]] = field(default_factory=dict)
    base_names: Optional[frozenset[str]] = frozenset()
    blind: set[str] = field(default_factory=set)
    all_blind: bool = False
    errors: dict[str, StorageError] = field(default_factory=dict)  # by path below the run's folder


def read_folder(files: Files, request: Request) -> Steps:
    """Yield calls until the run is read, and return it; None if there is no such run."""
    previous = request.previous
    before: Mapping[str, StoredTask] = previous.tasks if previous is not None else {}
    only = request.only if previous is not None else None
    folder_ids = {
        path: task_id
        for task_id in (before if only is None else only)
        if (path := clean(task_id, files.backslash_divides)) is not None
    }
    base = f"{RUNS}/{request.path}"
    paths = None if only is None else list(folder_ids)
    read: dict[File, Read] = {}
    if request.enough is not None and previous is None and not files.lists_deep:
        made = yield from read_outline(files, request.workflow_id, base, request.enough, read)
        if made is not None:
            return made
    # The whole folder, if that takes fewer requests than to list the folders of the tasks.
    pages = 1 + len(before) * _FILES_OF_A_TASK // _PAGE
    if files.lists_deep and (paths is None or pages <= 1 + len(paths)):
        listed = _sort_whole((yield [(files.tree, base)])[0], paths)
    else:
        names = (_IN_A_TASK, _IN_A_TASK if request.measure else _BY_STAMP)
        tasks = f"{base}/{TASKS}"
        calls: list[tuple[Any, ...]] = [(files.tree, f"{base}/{COUNTERS}", True, None, ())]
        if paths is None:
            calls.append((files.tree, tasks, True, *names))
        else:
            calls += [(files.tree, f"{tasks}/{path}", False, *names) for path in paths]
        listed = _sort((yield calls), paths)

    own = _NOT_LISTED if listed.own is None else listed.own
    stamps = previous.stamps if previous is not None else {}
    partial = only is not None
    reading = _Reading(files, request, listed, before, folder_ids, own, stamps, partial, read)
    wanted = reading.wanted()
    all_left_outputs = listed.tasks and all(OUTPUT in names for names in listed.tasks.values())
    if request.enough is not None and previous is None and files.lists_deep and all_left_outputs:
        first = min(listed.tasks)
        outlined = {*(("", name) for name in OUTLINE_FILES), (first, STARTED)}
        calls = [call for file, call in wanted.items() if file in outlined]
        read.update(zip([file for file in wanted if file in outlined], (yield calls)))
        whole = judged(request.workflow_id, request.enough, read)
        sizes = {folder: names[OUTPUT][0] for folder, names in sorted(listed.tasks.items())}
        made = outline(whole, listed.base_names or (), sizes, read.get((first, STARTED)))
        if made is not None:
            return made
        wanted = reading.wanted()
    read.update(zip(wanted, (yield list(wanted.values()))))
    return reading.run()


@dataclass
class _Reading:
    """One reading of a run after its listing: the files to read, what they say, and the run."""

    files: Files
    request: Request
    listed: _Listed
    before: Mapping[str, StoredTask]
    folder_ids: Mapping[str, str]  # task ids by folder
    own: Mapping[str, Stamp]  # the run's own files
    old_stamps: Mapping[str, Mapping[str, Stamp]]
    partial: bool  # some tasks only
    read: dict[File, Read]

    def wanted(self) -> dict[File, tuple[Any, ...]]:
        """Return the calls that read the files which may say something new."""
        base, stamps = f"{RUNS}/{self.request.path}", self.old_stamps
        calls: dict[File, tuple[Any, ...]] = {}
        for folder, names in (("", self.own), *sorted(self.listed.tasks.items())):
            known = stamps.get(folder, {})
            contents = TASK_FILES if folder else RUN_FILES
            prefix = f"{base}/{TASKS}/{folder}" if folder else base
            for name, stamp in names.items():
                if (
                    name in contents
                    and known.get(name) != stamp
                    and (folder, name) not in self.read
                ):
                    call = (read_file, self.files, f"{prefix}/{name}", contents[name])
                    calls[folder, name] = call
        return calls

    def run(self) -> Optional[StoredRun]:
        """Make the run of all that was read, None if there is none."""
        previous, listed = self.request.previous, self.listed
        keep_all = self.partial or listed.all_blind
        tasks = dict(self.before) if keep_all else {}
        stamps = dict(self.old_stamps) if keep_all else {}
        base_names = listed.base_names
        if base_names is None and previous is not None:
            base_names = previous.base_names
        for folder, names in sorted(listed.tasks.items()):
            old = self.before.get(self.folder_ids.get(folder, ""))
            fields, stamps[folder] = self._fields(folder, names, old)
            claimed = fields.pop("task_id", None)
            is_proven = claimed is not None and (
                claimed == folder or clean(claimed, self.files.backslash_divides) == folder
            )
            is_task = is_proven or base_names is None or is_counted(folder, base_names)
            if is_task and folder in listed.blind:
                tasks.setdefault(folder, old or StoredTask(folder))
            elif is_task and names:
                output = names.get(OUTPUT)
                if output is not None:
                    fields.update(output_bytes=output[0], output_time=_seconds(output))
                task_id = claimed if is_proven else folder
                tasks[task_id] = StoredTask(task_id=task_id, **fields)
            elif old is not None:
                tasks.pop(old.task_id, None)
        fields, stamps[""] = self._fields("", self.own, previous)
        errors = {path: error.cause for path, error in listed.errors.items()}
        for (folder, name), result in self.read.items():
            if isinstance(result, StorageError):
                errors[f"{TASKS}/{folder}/{name}" if folder else name] = result.cause
        half_written = any(self.read.get(("", name), {}) is None for name in RUN_FILES)
        if not (fields or tasks or base_names or errors or half_written):
            return None
        unreadable = [f"{path}: {cause}" for path, cause in sorted(errors.items())]
        if len(unreadable) > _MAX_UNREADABLE:
            unreadable[_MAX_UNREADABLE:] = [f"and {len(unreadable) - _MAX_UNREADABLE} more"]
        return StoredRun(
            self.request.workflow_id,
            base_names=base_names or frozenset(),
            tasks=tasks,
            unreadable=tuple(unreadable),
            stamps=stamps,
            **fields,
        )

    def _fields(
        self, folder: str, listed: Mapping[str, Stamp], old: Union[StoredRun, StoredTask, None]
    ) -> tuple[Fields, Mapping[str, Stamp]]:
        """Return what a folder's files say, and the stamps of those not to be read again."""
        contents = TASK_FILES if folder else RUN_FILES
        known = self.old_stamps.get(folder, {})
        fields: Fields = {}
        stamps: dict[str, Stamp] = {}
        from_old = []
        for name, stamp in listed.items():
            if (folder, name) not in self.read:
                if known.get(name) == stamp and name in contents:
                    stamps[name] = stamp
                    from_old.append(name)
                continue
            result = self.read[folder, name]
            if isinstance(result, dict):
                fields.update(result)
                if 0 < stamp[1] <= self.request.rested:
                    stamps[name] = stamp
            elif old is not None:
                from_old.append(name)
            if isinstance(result, StorageError) and name == EXCEPTION:
                text = f"The exporter cannot read the error of this task: {result.cause}."
                fields["exception"] = (UNREADABLE, text)
            if name == EXCEPTION and "exception" in fields:
                fields["exception_time"] = _seconds(stamp)
            if name in (STARTED, RUN_STARTED) and "start_time" in fields:
                fields["start_file_time"] = _seconds(stamp)
        for name in from_old:
            for it in contents[name].fields:
                value = getattr(old, it)
                if value is not None or it not in fields:
                    fields[it] = value
        return fields, stamps


def _sort(results: list[Union[Tree, StorageError]], paths: Optional[list[str]]) -> _Listed:
    """Sort the listings of the counters and of the tasks' folders."""
    listed = _Listed()
    counters, *trees = results
    if isinstance(counters, StorageError):
        listed.errors[COUNTERS] = counters
        listed.base_names = None
    else:
        listed.base_names = frozenset(
            [
                f"{path}/{name}" if path else name
                for path, files in counters.files.items()
                for name in files
            ]
        )
    folders = [""] if paths is None else paths
    for path, tree in zip(folders, trees):
        if isinstance(tree, StorageError):
            listed.errors[f"{TASKS}/{path}".rstrip("/")] = tree
            listed.all_blind = listed.all_blind or paths is None
            if path:
                listed.blind.add(path)
                listed.tasks[path] = {}
        elif paths is not None:
            listed.tasks[path] = tree.files.get("", {})
        else:
            # tasks/outputs.json belongs to the run.
            listed.tasks = {path: files for path, files in tree.files.items() if path and files}
            for folder, error in tree.errors.items():
                listed.errors[f"{TASKS}/{folder}"] = error
                listed.blind.add(folder)
                listed.tasks[folder] = {}
    return listed


def _sort_whole(tree: Union[Tree, StorageError], paths: Optional[list[str]]) -> _Listed:
    """Sort the listing of the run's whole folder."""
    if isinstance(tree, StorageError):
        return _Listed(base_names=None, all_blind=True, errors={"": tree})
    own: dict[str, Stamp] = {}
    tasks: dict[str, Mapping[str, Stamp]] = {path: {} for path in paths or ()}
    base_names = []
    for path, files in tree.files.items():
        top, _, rest = path.partition("/")
        if path in ("", TASKS):
            prefix = f"{path}/" if path else ""
            named = {prefix + name: stamp for name, stamp in files.items()}
            own.update((name, named[name]) for name in named.keys() & RUN_FILES.keys())
        elif top == COUNTERS:
            base_names += [f"{rest}/{name}" if rest else name for name in files]
        elif top == TASKS and (paths is None or rest in tasks):
            known = {name: files[name] for name in files.keys() & _IN_A_TASK}
            if known:
                tasks[rest] = known
    return _Listed(own, tasks, frozenset(base_names))


def _seconds(stamp: Stamp) -> Optional[float]:
    return stamp[1] / 1e9 or None
