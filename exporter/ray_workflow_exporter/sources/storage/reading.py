"""How a run's folder is read: list it, then read the files that may say something new. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional, Union

from ..records import StoredRun, StoredTask
from .filesystem import NOT_MEASURED, Stamp, Tree
from .layout import (
    COUNTERS,
    EXCEPTION,
    OUTPUT,
    RUN_FILES,
    STARTED,
    TASK_FILES,
    TASKS,
    Content,
    Fields,
    clean,
    is_counted,
)
from .summary import OUTLINE_FILES, outline

Stamps = Mapping[str, Mapping[str, Stamp]]  # by folder below tasks/ ("": the run's), then by file
ReadFile = tuple[str, int]  # path, and how many bytes of it at most
NO_DATA: Mapping[str, bytes] = {}

_IN_A_TASK = frozenset((*TASK_FILES, OUTPUT))
_TELLING = (EXCEPTION, OUTPUT)  # by their size or their time
_FILES_OF_A_TASK, _PAGE = 9, 1000  # about; and what one request to an object store lists


class Listing(NamedTuple):
    """What to list, as `Files.tree` takes it."""

    folder: str
    recursive: bool = True
    names: Optional[Container[str]] = None
    measured: Optional[Container[str]] = None


class _Folder:
    """The run's own folder or that of a task: its files of known names and what they hold.

    `unchanged` are the stamps of those that `old` speaks for.
    """

    __slots__ = ("contents", "data", "files", "old", "path", "prefix", "unchanged")

    def __init__(
        self,
        path: str,
        contents: Mapping[str, Content],
        files: Mapping[str, Stamp],
        old: Union[StoredRun, StoredTask, None],
        stamps: Mapping[str, Stamp],
    ) -> None:
        self.path = path
        self.prefix = f"{TASKS}/{path}/" if path else ""
        self.contents = contents
        self.files = files
        self.old = old
        self.unchanged: Mapping[str, Stamp] = {}
        if old is not None and stamps:
            self.unchanged = {
                name: stamp for name, stamp in stamps.items() if files.get(name) == stamp
            }
        self.data: dict[str, bytes] = {}

    def fields(self) -> tuple[Fields, list[str]]:
        """Return what the files say, and the names of those that were read well."""
        fields: Fields = {}
        well_read = []
        from_old = list(self.unchanged)
        for name, data in self.data.items():
            parsed = self.contents[name].parse(data)
            if parsed is not None:
                fields.update(parsed)
                well_read.append(name)
            else:
                from_old.append(name)
        if self.old is not None:
            for name in from_old:
                for field in self.contents[name].fields:
                    fields[field] = getattr(self.old, field)
        return fields, well_read

    def settled(self, well_read: Iterable[str], rested: int) -> Mapping[str, Stamp]:
        """Return the stamps of the files that need no second look until their stamp changes."""
        stamps = dict(self.unchanged)
        for name in well_read:
            stamp = self.files.get(name, NOT_MEASURED)
            if stamp[1] and (self.contents[name].immutable or stamp[1] <= rested):
                stamps[name] = stamp
        return stamps


class Reading:
    """One reading of a run: `listings`, then what `files` names, then `more`, then the `run`.

    `previous` is what the last reading returned and `stamps` the files it speaks for; with it,
    `only` names the tasks whose folders are looked at. With `measure`, stamps are there for the
    next reading where taking them costs something. `lists_deep` and `backslash_divides` are those
    of the `Files`. `stamps` are those of all that was read, afterwards. `data` is what was just
    read of the run's own files. A run that looks as if all went well is first read in outline, if
    somebody tells whether that is `enough`. Raises ValueError for an id that leads out of the
    storage.
    """

    def __init__(
        self,
        workflow_id: str,
        root: str,
        previous: Optional[StoredRun] = None,
        stamps: Optional[Stamps] = None,
        only: Optional[Collection[str]] = None,
        data: Mapping[str, bytes] = NO_DATA,
        *,
        measure: bool,
        lists_deep: bool,
        backslash_divides: bool,
        enough: Optional[Callable[[StoredRun], bool]] = None,
    ) -> None:
        path = clean(workflow_id, backslash_divides)
        if path is None:
            raise ValueError(
                f"{workflow_id!r} cannot be a workflow id: it is empty or leads out of the storage."
            )
        self.workflow_id = workflow_id
        self._base = f"{root}/{path}"
        self._previous = previous
        self._known: Mapping[str, StoredTask] = previous.tasks if previous is not None else {}
        self.stamps: Stamps = stamps or {}
        self._backslash_divides = backslash_divides
        self._ids = {
            path: task_id
            for task_id in (self._known if previous is None or only is None else only)
            if (path := clean(task_id, backslash_divides)) is not None
        }
        self._paths = list(self._ids) if previous is not None and only is not None else None
        self._base_names: frozenset[str] = frozenset()
        self._own = _Folder("", RUN_FILES, {}, previous, {})
        self._own_data = data
        self._folders: list[_Folder] = []
        self._reads: list[tuple[_Folder, str]] = []
        self._enough = enough if previous is None else None
        self._outline: Optional[StoredRun] = None
        self._whole = lists_deep and self._few_pages()
        self.listings = self._listings(_IN_A_TASK if measure else _TELLING)

    def files(self, listed: Sequence[Tree]) -> list[ReadFile]:
        """Take the answers to `listings`; return which files to read first."""
        own, tasks = self._split(listed)
        self._own = _Folder("", RUN_FILES, own, self._previous, self.stamps.get("", {}))
        self._own.data.update(self._own_data)
        self._folders = [
            _Folder(
                path,
                TASK_FILES,
                files,
                self._known.get(self._ids.get(path, "")),
                self.stamps.get(path, {}),
            )
            for path, files in sorted(tasks.items())
        ]
        self._own_names = own if self._whole else RUN_FILES
        if self._enough is None or not self._all_left_outputs():
            self._enough = None
            return self._ask(self._all_files())
        return self._ask(
            [
                *((self._own, name) for name in OUTLINE_FILES if name in self._own_names),
                (self._folders[0], STARTED),
            ]
        )

    def more(self, data: Iterable[Optional[bytes]]) -> list[ReadFile]:
        """Take what is in the files; return which to read next, none where it is enough."""
        self._take(data)
        if self._enough is None:
            return []
        fields, _ = self._own.fields()
        own = StoredRun(self.workflow_id, **fields)
        if self._enough(own):
            sizes = {it.path: it.files[OUTPUT][0] for it in self._folders}
            self._outline = outline(own, self._base_names, sizes, self._folders[0].fields()[0])
        return [] if self._outline is not None else self._ask(self._all_files())

    def run(self, data: Iterable[Optional[bytes]], rested: int) -> Optional[StoredRun]:
        """Take what is in the files that were read next; return the run, None if there is none.

        Files changed before `rested` (Unix ns) need no second look until their stamp changes.
        """
        if self._outline is not None:
            return self._outline
        self._take(data)
        tasks = {} if self._paths is None else dict(self._known)
        stamps = {} if self._paths is None else dict(self.stamps)
        for folder in self._folders:
            fields, well_read = folder.fields()
            task = self._task(folder, fields, well_read)
            if task is not None:
                tasks[task.task_id] = task
            elif isinstance(folder.old, StoredTask):
                tasks.pop(folder.old.task_id, None)
            stamps[folder.path] = folder.settled(well_read, rested)

        own = self._own
        if not (own.data or own.unchanged or tasks or self._base_names):
            return None
        fields, well_read = own.fields()
        stamps[""] = own.settled(well_read, rested)
        self.stamps = stamps
        return StoredRun(self.workflow_id, base_names=self._base_names, tasks=tasks, **fields)

    def _all_files(self) -> list[tuple[_Folder, str]]:
        own = [(self._own, name) for name in self._own_names if name not in self._own.unchanged]
        all_files = own + [
            (folder, name)
            for folder in self._folders
            for name in folder.files
            if name in TASK_FILES and name not in folder.unchanged
        ]
        return [(folder, name) for folder, name in all_files if name not in folder.data]

    def _ask(self, reads: list[tuple[_Folder, str]]) -> list[ReadFile]:
        self._reads = reads
        return [
            (f"{self._base}/{folder.prefix}{name}", folder.contents[name].limit)
            for folder, name in reads
        ]

    def _take(self, data: Iterable[Optional[bytes]]) -> None:
        for (folder, name), content in zip(self._reads, data):
            if content is not None:
                folder.data[name] = content

    def _all_left_outputs(self) -> bool:
        return bool(self._folders) and all(OUTPUT in it.files for it in self._folders)

    def _few_pages(self) -> bool:
        """Whether the whole folder is listed with fewer requests than the tasks' folders are."""
        pages = 1 + len(self._known) * _FILES_OF_A_TASK // _PAGE
        return self._paths is None or pages <= 1 + len(self._paths)

    def _listings(self, measured: Container[str]) -> list[Listing]:
        if self._whole:
            return [Listing(self._base)]
        counters = Listing(f"{self._base}/{COUNTERS}", measured=())
        tasks = f"{self._base}/{TASKS}"
        if self._paths is None:
            return [counters, Listing(tasks, True, _IN_A_TASK, measured)]
        folders = [f"{tasks}/{path}" for path in self._paths]
        return [counters, *(Listing(it, False, _IN_A_TASK, measured) for it in folders)]

    def _split(
        self, listed: Sequence[Tree]
    ) -> tuple[Mapping[str, Stamp], Mapping[str, Mapping[str, Stamp]]]:
        """Sort what was listed: the run's own files by name, and those of each task's folder."""
        if not self._whole:
            self._base_names = _names(listed[0].items())
            if self._paths is not None:
                return {}, {path: tree.get("", {}) for path, tree in zip(self._paths, listed[1:])}
            # tasks/outputs.json belongs to the run.
            return {}, {path: files for path, files in listed[1].items() if path and files}
        own: dict[str, Stamp] = {}
        tasks: dict[str, Mapping[str, Stamp]] = {path: {} for path in self._paths or ()}
        counters = {}
        for path, files in listed[0].items():
            top, _, rest = path.partition("/")
            if path in ("", TASKS):
                prefix = f"{path}/" if path else ""
                named = {prefix + name: stamp for name, stamp in files.items()}
                own.update((name, named[name]) for name in named.keys() & RUN_FILES.keys())
            elif top == COUNTERS:
                counters[rest] = files
            elif top == TASKS and (self._paths is None or rest in tasks):
                known = {name: files[name] for name in files.keys() & _IN_A_TASK}
                if known:
                    tasks[rest] = known
        self._base_names = _names(counters.items())
        return own, tasks

    def _task(
        self, folder: _Folder, fields: Fields, well_read: Collection[str]
    ) -> Optional[StoredTask]:
        """Make the task of its folder; None if it is another run's, named like a folder of this."""
        claimed = fields.pop("task_id", None)
        is_proven = claimed == folder.path or (
            claimed is not None and clean(claimed, self._backslash_divides) == folder.path
        )
        if not folder.files or not (is_proven or is_counted(folder.path, self._base_names)):
            return None
        if EXCEPTION in well_read:
            fields["exception_time"] = _seconds(folder.files[EXCEPTION])
        output = folder.files.get(OUTPUT)
        if output is not None:
            fields.update(output_bytes=output[0], output_time=_seconds(output))
        return StoredTask(task_id=claimed if is_proven else folder.path, **fields)


def _names(folders: Iterable[tuple[str, Iterable[str]]]) -> frozenset[str]:
    """Return the names of all files in a tree, with the folders they are in."""
    return frozenset(
        [f"{path}/{name}" if path else name for path, files in folders for name in files]
    )


def _seconds(stamp: Stamp) -> Optional[float]:
    return stamp[1] / 1e9 or None
