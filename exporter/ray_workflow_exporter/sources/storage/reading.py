"""How a run's folder is read: what to list, which files to read, and the run that they make.

No I/O here: `read_folder` is a generator that yields the calls to make and receives their results,
so that the calls of many runs can be made at once. A call that failed has a StorageError for a
result: it costs what that file or folder says, never the run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
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
    Content,
    Fields,
    clean,
    is_counted,
)
from .summary import OUTLINE_FILES, outline

Steps = Generator[list[tuple[Any, ...]], list[Any], Optional[StoredRun]]
Read = Union[Fields, StorageError, None]  # what `read_file` returned, or its failure

_IN_A_TASK = frozenset((*TASK_FILES, OUTPUT))
_BY_STAMP = (EXCEPTION, OUTPUT, STARTED)  # their size or time is of interest
_FILES_OF_A_TASK, _PAGE = 9, 1000  # about; and what one request to an object store lists
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


def read_file(files: Files, path: str, content: Content) -> Optional[Fields]:
    """Return the fields that a file holds: none if it is not there, None if it is half written."""
    data = files.read(path, content.limit)
    if data is None:
        return {}
    fields = content.parse(data)
    if fields is None and len(data) >= content.limit:
        cause = f"the file is larger than {content.limit >> 20} MiB"
        raise StorageError(f"Cannot read {path} in the workflow storage: {cause}.", cause)
    return fields


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

    reading = _Reading(request, listed, before, folder_ids, partial=only is not None)
    if request.enough is not None and previous is None and reading.all_left_outputs():
        first = min(listed.tasks)
        own_names = RUN_FILES if listed.own is None else listed.own
        reads = [("", name) for name in OUTLINE_FILES if name in own_names] + [(first, STARTED)]
        reading.take(reads, (yield reading.calls(files, base, reads)))
        made = reading.outline(first)
        if made is not None:
            return made
    reads = reading.changed()
    reading.take(reads, (yield reading.calls(files, base, reads)))
    return reading.run(files.backslash_divides)


class _Reading:
    """One reading of a run after its listing: the files to read, what they say, and the run."""

    def __init__(
        self,
        request: Request,
        listed: _Listed,
        before: Mapping[str, StoredTask],
        folder_ids: Mapping[str, str],
        *,
        partial: bool,
    ) -> None:
        self._request = request
        self._listed = listed
        self._before = before
        self._folder_ids = folder_ids
        self._partial = partial
        previous = request.previous
        self._old_stamps = previous.stamps if previous is not None else {}
        self._own = dict.fromkeys(RUN_FILES, NOT_MEASURED) if listed.own is None else listed.own
        self._read: dict[str, dict[str, Read]] = {}
        self._errors = dict(listed.errors)

    def all_left_outputs(self) -> bool:
        """Return whether each task's folder holds an output: perhaps an outline suffices."""
        listed = self._listed
        whole = not listed.errors and bool(listed.tasks)
        return whole and all(OUTPUT in names for names in listed.tasks.values())

    def changed(self) -> list[tuple[str, str]]:
        """Return the files (folder, name) that may say something new."""
        reads = []
        for folder, listed in (("", self._own), *sorted(self._listed.tasks.items())):
            known, read = self._old_stamps.get(folder, {}), self._read.get(folder, {})
            contents = TASK_FILES if folder else RUN_FILES
            for name, stamp in listed.items():
                if name in contents and name not in read and known.get(name) != stamp:
                    reads.append((folder, name))
        return reads

    def calls(
        self, files: Files, base: str, reads: Iterable[tuple[str, str]]
    ) -> list[tuple[Any, ...]]:
        """Return the calls that read these files."""
        return [
            (read_file, files, f"{base}/{TASKS}/{folder}/{name}", TASK_FILES[name])
            if folder
            else (read_file, files, f"{base}/{name}", RUN_FILES[name])
            for folder, name in reads
        ]

    def take(self, reads: Iterable[tuple[str, str]], results: Iterable[Read]) -> None:
        """Take what these files say."""
        for (folder, name), result in zip(reads, results):
            self._read.setdefault(folder, {})[name] = result
            if isinstance(result, StorageError):
                self._errors[f"{TASKS}/{folder}/{name}" if folder else name] = result

    def outline(self, first: str) -> Optional[StoredRun]:
        """Make the outline of the run, None if it does not suffice."""
        enough, listed = self._request.enough, self._listed
        own = StoredRun(self._request.workflow_id, **self._fields("", self._own, None)[0])
        if self._errors or enough is None or not enough(own):
            return None
        sizes = {folder: names[OUTPUT][0] for folder, names in sorted(listed.tasks.items())}
        start = self._fields(first, listed.tasks[first], None)[0].get("start_time")
        return outline(own, listed.base_names or (), sizes, start)

    def run(self, backslash_divides: bool) -> Optional[StoredRun]:
        """Make the run of all that was read, None if there is none."""
        previous, listed = self._request.previous, self._listed
        keep_all = self._partial or listed.all_blind
        tasks = dict(self._before) if keep_all else {}
        stamps = dict(self._old_stamps) if keep_all else {}
        base_names = listed.base_names
        if base_names is None and previous is not None:
            base_names = previous.base_names
        for folder, names in sorted(listed.tasks.items()):
            old = self._before.get(self._folder_ids.get(folder, ""))
            fields, stamps[folder] = self._fields(folder, names, old)
            claimed = fields.pop("task_id", None)
            is_proven = claimed is not None and (
                claimed == folder or clean(claimed, backslash_divides) == folder
            )
            is_task = is_proven or base_names is None or is_counted(folder, base_names)
            if is_task and folder in listed.blind:
                tasks.setdefault(folder, old or StoredTask(folder))
            elif is_task and names:
                task_id = claimed if is_proven else folder
                tasks[task_id] = _task(task_id, fields, names)
            elif old is not None:
                tasks.pop(old.task_id, None)
        fields, stamps[""] = self._fields("", self._own, previous)
        if not (fields or tasks or base_names or self._errors or self._half_written()):
            return None
        return StoredRun(
            self._request.workflow_id,
            base_names=base_names or frozenset(),
            tasks=tasks,
            unreadable=self._unreadable(),
            stamps=stamps,
            **fields,
        )

    def _fields(
        self, folder: str, listed: Mapping[str, Stamp], old: Union[StoredRun, StoredTask, None]
    ) -> tuple[Fields, Mapping[str, Stamp]]:
        """Return what a folder's files say, and the stamps of those not to be read again."""
        contents = TASK_FILES if folder else RUN_FILES
        known = self._old_stamps.get(folder, {})
        fields: Fields = {}
        stamps = {name: stamp for name, stamp in listed.items() if known.get(name) == stamp}
        from_old = list(stamps)
        for name, result in self._read.get(folder, {}).items():
            if isinstance(result, dict):
                fields.update(result)
                stamp = listed.get(name, NOT_MEASURED)
                if stamp[1] and (contents[name].immutable or stamp[1] <= self._request.rested):
                    stamps[name] = stamp
            elif old is not None:
                from_old.append(name)
            if isinstance(result, StorageError) and name == EXCEPTION:
                text = f"The exporter cannot read the error of this task: {result.cause}."
                fields["exception"] = (UNREADABLE, text)
            if name == EXCEPTION and "exception" in fields:
                fields["exception_time"] = _seconds(listed[name])
            if name in (STARTED, RUN_STARTED) and "start_time" in fields:
                fields["start_file_time"] = _seconds(listed[name])
        for name in from_old:
            for it in contents[name].fields:
                value = getattr(old, it)
                if value is not None or it not in fields:
                    fields[it] = value
        return fields, stamps

    def _half_written(self) -> bool:
        return any(result is None for result in self._read.get("", {}).values())

    def _unreadable(self) -> tuple[str, ...]:
        texts = [f"{path}: {error.cause}" for path, error in sorted(self._errors.items())]
        if len(texts) > _MAX_UNREADABLE:
            texts[_MAX_UNREADABLE:] = [f"and {len(texts) - _MAX_UNREADABLE} more"]
        return tuple(texts)


def _task(task_id: str, fields: Fields, listed: Mapping[str, Stamp]) -> StoredTask:
    output = listed.get(OUTPUT)
    if output is not None:
        fields.update(output_bytes=output[0], output_time=_seconds(output))
    return StoredTask(task_id=task_id, **fields)


def _sort(results: list[Union[Tree, StorageError]], paths: Optional[list[str]]) -> _Listed:
    """Sort the listings of the counters and of the tasks' folders."""
    listed = _Listed()
    counters, *trees = results
    if isinstance(counters, StorageError):
        listed.errors[COUNTERS] = counters
        listed.base_names = None
    else:
        listed.base_names = _names(counters.files.items())
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
    counters = {}
    for path, files in tree.files.items():
        top, _, rest = path.partition("/")
        if path in ("", TASKS):
            prefix = f"{path}/" if path else ""
            named = {prefix + name: stamp for name, stamp in files.items()}
            own.update((name, named[name]) for name in named.keys() & RUN_FILES.keys())
        elif top == COUNTERS:
            counters[rest] = files
        elif top == TASKS and (paths is None or rest in tasks):
            known = {name: files[name] for name in files.keys() & _IN_A_TASK}
            if known:
                tasks[rest] = known
    return _Listed(own, tasks, _names(counters.items()))


def _names(folders: Iterable[tuple[str, Iterable[str]]]) -> frozenset[str]:
    """Return the names of all files in a tree, with the folders they are in."""
    return frozenset(
        [f"{path}/{name}" if path else name for path, files in folders for name in files]
    )


def _seconds(stamp: Stamp) -> Optional[float]:
    return stamp[1] / 1e9 or None
