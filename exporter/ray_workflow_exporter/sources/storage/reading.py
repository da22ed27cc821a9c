"""How a run's folder is read: what to list, which files to read, and the run that they make.

No I/O here: `read_folder` is a generator that yields the calls to make and receives their results,
so that the calls of many runs can be made at once. A call that failed has a StorageError for a
result: it costs what that file or folder says, never the run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, NamedTuple, Optional, Union

from ..records import StoredRun, StoredTask
from .exceptions import UNREADABLE
from .filesystem import NOT_MEASURED, Files, Stamp, StorageError
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
    Call,
    Fields,
    File,
    Read,
    Steps,
    clean,
    is_counted,
    read_file,
)
from .summary import outline_of_listing, read_outline

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
    enough: Optional[Callable[[StoredRun], bool]]


class _Listed(NamedTuple):
    """What was listed of a run: its own files, those of each task's folder, and base names.

    `base_names` are None where the folder of the counters cannot be listed. `errors` are of
    folders that cannot, by path below the run's folder.
    """

    own: Mapping[str, Stamp]
    tasks: Mapping[str, Mapping[str, Stamp]]
    base_names: Optional[frozenset[str]]
    errors: Mapping[str, StorageError]


def read_folder(files: Files, request: Request) -> Steps:
    """Yield calls until the run is read, and return it; None if there is no such run."""
    previous, base = request.previous, f"{RUNS}/{request.path}"
    enough = request.enough if previous is None else None
    read: dict[File, Read] = {}
    if enough is not None and not files.lists_deep:
        made = yield from read_outline(files, request.workflow_id, base, enough, read)
        if made is not None:
            return made
    listed = yield from _list(files, request, base)
    wanted: dict[File, Call] = {}
    for folder, names in (("", listed.own), *sorted(listed.tasks.items())):
        contents = TASK_FILES if folder else RUN_FILES
        known = previous.stamps.get(folder, {}) if previous is not None else {}
        prefix = f"{base}/{TASKS}/{folder}" if folder else base
        for name, stamp in names.items():
            if name in contents and known.get(name) != stamp and (folder, name) not in read:
                wanted[folder, name] = (read_file, files, f"{prefix}/{name}", contents[name])
    if enough is not None and files.lists_deep:
        sizes = {folder: names.get(OUTPUT) for folder, names in sorted(listed.tasks.items())}
        made = yield from outline_of_listing(
            request.workflow_id, enough, listed.base_names or (), sizes, wanted, read
        )
        if made is not None:
            return made
    read.update(zip(wanted, (yield list(wanted.values()))))
    return _make(files, request, listed, read)


def _list(files: Files, request: Request, base: str) -> Generator[list[Call], list[Any], _Listed]:
    """List all of a run's folder on a store, what is of interest on a disk, or some tasks of it."""
    paths = None
    deep = files.lists_deep
    if request.previous is not None and request.only is not None:
        cleaned = [clean(task_id, files.backslash_divides) for task_id in request.only]
        paths = [path for path in cleaned if path is not None]
        pages = 1 + len(request.previous.tasks) * _FILES_OF_A_TASK // _PAGE
        deep = deep and pages <= 1 + len(paths)
    calls: list[Call] = [(files.tree, base)]
    places = [""]
    if not deep:
        places = [TASKS] if paths is None else [f"{TASKS}/{path}" for path in paths]
        how = (paths is None, _IN_A_TASK, _IN_A_TASK if request.measure else _BY_STAMP)
        calls = [(files.tree, f"{base}/{COUNTERS}", True, None, ())]
        calls += [(files.tree, f"{base}/{place}", *how) for place in places]
        places.insert(0, COUNTERS)
    found: dict[str, Mapping[str, Stamp]] = {}
    errors: dict[str, StorageError] = {}
    for place, tree in zip(places, (yield calls)):
        if isinstance(tree, StorageError):
            errors[place] = tree
            continue
        found.update({f"{place}/{path}".strip("/"): it for path, it in tree.files.items()})
        errors.update({f"{place}/{path}".strip("/"): it for path, it in tree.errors.items()})

    tasks: dict[str, Mapping[str, Stamp]] = {}
    if paths is not None and "" not in errors:
        tasks.update({path: {} for path in paths})
    base_names = []
    for path, names in found.items():
        top, _, rest = path.partition("/")
        if top == COUNTERS:
            base_names += [f"{rest}/{name}" if rest else name for name in names]
        elif top == TASKS and rest and (paths is None or rest in tasks):
            known = {name: stamp for name, stamp in names.items() if name in _IN_A_TASK}
            if known:
                tasks[rest] = known
    tasks.update({path[len(TASKS) + 1 :]: {} for path in errors if path.startswith(f"{TASKS}/")})
    own: Mapping[str, Stamp] = _NOT_LISTED
    if deep and not errors:
        own = {
            name: found[folder][file]
            for name in RUN_FILES
            for folder, _, file in [name.rpartition("/")]
            if file in found.get(folder, {})
        }
    counted = "" not in errors and COUNTERS not in errors
    return _Listed(own, tasks, frozenset(base_names) if counted else None, errors)


def _make(
    files: Files, request: Request, listed: _Listed, read: Mapping[File, Read]
) -> Optional[StoredRun]:
    """Make the run of all that was read, None if there is none."""
    previous, rested = request.previous, request.rested
    before: Mapping[str, StoredTask] = {}
    stamps: dict[str, Mapping[str, Stamp]] = {}
    tasks: dict[str, StoredTask] = {}
    known: Mapping[str, Mapping[str, Stamp]] = {}
    base_names = listed.base_names
    if previous is not None:
        before, known = previous.tasks, previous.stamps
        base_names = previous.base_names if base_names is None else base_names
        if request.only is not None or "" in listed.errors or TASKS in listed.errors:
            tasks, stamps = dict(before), dict(known)
    folders = before if request.only is None else request.only
    ids = {clean(task_id, files.backslash_divides): task_id for task_id in folders}
    for folder, names in sorted(listed.tasks.items()):
        old = before.get(ids.get(folder, ""))
        fields, stamps[folder] = _fields(folder, names, read, known.get(folder, {}), old, rested)
        claimed = fields.pop("task_id", None)
        is_proven = claimed is not None and (
            claimed == folder or clean(claimed, files.backslash_divides) == folder
        )
        is_task = is_proven or base_names is None or is_counted(folder, base_names)
        if is_task and f"{TASKS}/{folder}" in listed.errors:
            tasks.setdefault(folder, old or StoredTask(folder))
        elif is_task and names:
            output = names.get(OUTPUT)
            if output is not None:
                fields.update(output_bytes=output[0], output_time=_seconds(output))
            task_id = claimed if is_proven else folder
            tasks[task_id] = StoredTask(task_id=task_id, **fields)
        elif old is not None:
            tasks.pop(old.task_id, None)
    fields, stamps[""] = _fields("", listed.own, read, known.get("", {}), previous, rested)
    errors = {path: error.cause for path, error in listed.errors.items()}
    for (folder, name), result in read.items():
        if isinstance(result, StorageError):
            errors[f"{TASKS}/{folder}/{name}" if folder else name] = result.cause
    half_written = any(read.get(("", name), {}) is None for name in RUN_FILES)
    if not (fields or tasks or base_names or errors or half_written):
        return None
    unreadable = [f"{path}: {cause}" for path, cause in sorted(errors.items())]
    if len(unreadable) > _MAX_UNREADABLE:
        unreadable[_MAX_UNREADABLE:] = [f"and {len(unreadable) - _MAX_UNREADABLE} more"]
    return StoredRun(
        request.workflow_id,
        base_names=base_names or frozenset(),
        tasks=tasks,
        unreadable=tuple(unreadable),
        stamps=stamps,
        **fields,
    )


def _fields(
    folder: str,
    listed: Mapping[str, Stamp],
    read: Mapping[File, Read],
    known: Mapping[str, Stamp],
    old: Union[StoredRun, StoredTask, None],
    rested: int,
) -> tuple[Fields, Mapping[str, Stamp]]:
    """Return what a folder's files say, and the stamps of those not to be read again."""
    contents = TASK_FILES if folder else RUN_FILES
    fields: Fields = {}
    stamps: dict[str, Stamp] = {}
    from_old = []
    for name, stamp in listed.items():
        if (folder, name) not in read:
            if name in contents and known.get(name) == stamp:
                stamps[name] = stamp
                from_old.append(name)
            continue
        result = read[folder, name]
        if isinstance(result, dict):
            fields.update(result)
            if 0 < stamp[1] <= rested:
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


def _seconds(stamp: Stamp) -> Optional[float]:
    return stamp[1] / 1e9 or None
