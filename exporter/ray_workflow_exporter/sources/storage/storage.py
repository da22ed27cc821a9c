"""Workflow storage as a source: which runs there are, and all that is stored of one run.

Everything here only reads. One object belongs to one thread.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple, Optional

from ...model import RunStatus
from ...redact import masked_uri
from ..records import Mark, StoredRun
from .filesystem import Files, LocalFiles, StorageError, Tree, open_files
from .layout import DIRTY, MARKS, META, RUN_FILES, RUNS, could_be_a_file_of_a_run
from .reading import NO_DATA, ReadFile, Reading, Stamps
from .summary import read_outline

__all__ = ["StorageError", "WorkflowStorage"]

# Object stores give mtimes in whole seconds: a file younger than this may be written again
# without a change of its size or mtime.
_YOUNG_NS = 2_000_000_000
# Files of several runs that are read at once: many more than there are connections, so that few
# of them wait idly for the last answers, and few enough to be there within seconds.
_FILES_AT_ONCE = 1024


@dataclass(frozen=True)
class _Memory:
    """What the last read of a run returned, and the stamps of the files it speaks for.

    They live as long as the run that they vouch for is in somebody's hands, or until `forget`.
    """

    run: weakref.ReferenceType[StoredRun]
    stamps: Stamps


class _Marks(NamedTuple):
    """The folder of one status as it was listed, and what that means."""

    tree: Tree
    marks: dict[str, Mark]
    doubtful: Collection[str]


class WorkflowStorage:
    """The runs in the storage that `uri`, the value of Ray's `--storage`, names.

    The storage is opened by the first call that reads. All reading calls raise StorageError
    when the storage cannot be read; the next call tries anew. `answered` is called while answers
    come in; runs that are not `ours` are neither listed nor read.
    """

    def __init__(
        self,
        uri: str,
        answered: Callable[[], None] = lambda: None,
        ours: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._uri = uri
        self._answered = answered
        self._ours = ours
        self._opened: Optional[Files] = None
        self._memory: dict[str, _Memory] = {}
        self._listed = dict.fromkeys(RunStatus, _Marks({}, {}, ()))
        self._marks: Mapping[str, Mark] = {}
        self._doubts = False
        self._had_marks = False

    def list_marks(self) -> Mapping[str, Mark]:
        """List each run's status and the time of its mark: its change key.

        As long as nothing changes, each answer is the same object. While a status changes, a run
        may be missing from one listing: only two in a row mean that it was deleted. Where marks
        leave a doubt, workflow_meta.json decides, as it does in Ray
        (`WorkflowIndexingStorage.list_workflow`).
        """
        files = self._files()
        # In the order of a run's life, and dirty last: a run that moves on meanwhile is found
        # in its new place, in both, or as dirty. (An object store is asked for all at once.)
        folders = [*(status.value for status in RunStatus), DIRTY]
        *trees, dirty_tree = files.map(files.tree, [(f"{MARKS}/{name}",) for name in folders])
        changed = False
        for status, tree in zip(RunStatus, trees):
            if self._listed[status].tree != tree:
                self._listed[status] = self._marks_in(status, tree)
                changed = True
        dirty = self._empty_files(dirty_tree)
        if changed or dirty or self._doubts:
            marks = self._decided(files, dirty)
            if marks != self._marks:
                self._marks = marks
        if self._marks or self._doubts:
            self._had_marks = True
        else:
            self._check_root(files)
        return self._marks

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
        reading = self._reading(workflow_id, previous, only=only, measure=True)
        return next(self._finish([reading]))

    def read_runs(
        self,
        wanted: Mapping[str, Optional[StoredRun]],
        until: float = float("inf"),
        enough: Optional[Callable[[StoredRun], bool]] = None,
    ) -> dict[str, Optional[StoredRun]]:
        """Read the folders of many runs, each as `read_run` does with its previous reading.

        For runs that are not expected to change. They are read in the order of `wanted`, and no
        further once the clock (`time.monotonic`) has passed `until`, or after a failure, which is
        raised if nothing was read before it. An id that leads out of the storage has no folder.
        Of runs without a previous reading, `enough` is asked by what their own files say whether
        an outline will do; those of which all went well are read no further then.
        """
        runs: dict[str, Optional[StoredRun]] = {}
        ids = iter(wanted)
        while chunk := list(islice(ids, self._files().at_once)):
            readings = []
            try:
                for workflow_id in chunk:
                    outline, data = self._outline(workflow_id, wanted[workflow_id], enough)
                    if outline is not None:
                        runs[workflow_id] = outline
                        continue
                    try:
                        reading = self._reading(
                            workflow_id, wanted[workflow_id], data, measure=False, enough=enough
                        )
                    except ValueError:
                        runs[workflow_id] = None
                    else:
                        readings.append(reading)
                for reading, run in zip(readings, self._finish(readings, until)):
                    runs[reading.workflow_id] = run
            except StorageError:
                if not runs:
                    raise
                break
            self._answered()
            if time.monotonic() > until:
                break
        return runs

    def forget(self, workflow_id: str) -> None:
        """Drop what is remembered of a run's files, once no further read is expected."""
        self._memory.pop(workflow_id, None)

    def close(self) -> None:
        """Let go of threads and connections."""
        if self._opened is not None:
            self._opened.close()

    def _files(self) -> Files:
        if self._opened is None:
            self._opened = open_files(self._uri, self._answered)
        return self._opened

    def _marks_in(self, status: RunStatus, tree: Tree) -> _Marks:
        marks = {key: Mark(status, time) for key, time in self._empty_files(tree).items()}
        # Marks are empty. What is not is a file of a run called `__status__/<status>`, and then
        # an empty file may be another one of it, just being written.
        lodger = any(size for files in tree.values() for size, _ in files.values())
        doubtful = [path for path in marks if could_be_a_file_of_a_run(path)] if lodger else ()
        return _Marks(tree, marks, doubtful)

    def _empty_files(self, tree: Tree) -> dict[str, float]:
        """Return the time of each mark that is ours, by the id of its run."""
        found = {
            f"{path}/{name}" if path else name: mtime / 1e9
            for path, files in tree.items()
            for name, (size, mtime) in files.items()
            if not size
        }
        return {key: time for key, time in found.items() if self._ours(key)}

    def _decided(self, files: Files, dirty: Mapping[str, float]) -> dict[str, Mark]:
        """Put the marks of all statuses together; ask the run's own folder where in doubt."""
        marks: dict[str, Mark] = {}
        doubtful = set(dirty)
        for listed in self._listed.values():
            doubtful.update(listed.doubtful, marks.keys() & listed.marks.keys())
            marks.update(listed.marks)
        metas = files.map(
            files.read, [(f"{RUNS}/{it}/{META}", RUN_FILES[META].limit) for it in doubtful]
        )
        for workflow_id, meta in zip(doubtful, metas):
            marks.pop(workflow_id, None)
            found = [
                it.marks[workflow_id] for it in self._listed.values() if workflow_id in it.marks
            ]
            for mark in _decide(meta, found, dirty.get(workflow_id, 0.0)):
                marks[workflow_id] = mark
        self._doubts = bool(doubtful)
        return marks

    def _outline(
        self,
        workflow_id: str,
        previous: Optional[StoredRun],
        enough: Optional[Callable[[StoredRun], bool]],
    ) -> tuple[Optional[StoredRun], Mapping[str, bytes]]:
        """Read a run in outline at once, where that saves the listings of its tasks' folders."""
        files = self._files()
        if enough is None or previous is not None or not isinstance(files, LocalFiles):
            return None, {}
        return read_outline(files, workflow_id, enough)

    def _reading(
        self,
        workflow_id: str,
        previous: Optional[StoredRun],
        data: Mapping[str, bytes] = NO_DATA,
        *,
        only: Optional[Collection[str]] = None,
        measure: bool,
        enough: Optional[Callable[[StoredRun], bool]] = None,
    ) -> Reading:
        files = self._files()
        memory = self._memory.get(workflow_id)
        return Reading(
            workflow_id,
            RUNS,
            previous,
            memory.stamps if memory is not None and memory.run() is previous else None,
            only,
            data,
            measure=measure or previous is not None,
            lists_deep=files.lists_deep,
            backslash_divides=files.backslash_divides,
            # On a disk, an outline was tried before.
            enough=enough if files.lists_deep else None,
        )

    def _finish(
        self, readings: Sequence[Reading], until: float = float("inf")
    ) -> Iterator[Optional[StoredRun]]:
        """Do what the readings ask for, many at once, and yield their runs in order."""
        files = self._files()
        rested = time.time_ns() - _YOUNG_NS
        listings = [listing for reading in readings for listing in reading.listings]
        listed = iter(files.map(files.tree, listings))
        group: list[tuple[Reading, int]] = []
        wanted: list[ReadFile] = []
        for reading in readings:
            its = reading.files(list(islice(listed, len(reading.listings))))
            group.append((reading, len(its)))
            wanted += its
            if len(wanted) < _FILES_AT_ONCE and reading is not readings[-1]:
                continue
            data = iter(files.map(files.read, wanted))
            more = [known.more(islice(data, count)) for known, count in group]
            data = iter(files.map(files.read, chain.from_iterable(more)))
            for (known, _), its in zip(group, more):
                run = known.run(islice(data, len(its)), rested)
                if run is None:
                    self.forget(known.workflow_id)
                else:
                    self._remember(run, known.stamps)
                yield run
            if time.monotonic() > until:
                return
            group, wanted = [], []

    def _remember(self, run: StoredRun, stamps: Stamps) -> None:
        workflow_id = run.workflow_id

        def drop(reference: weakref.ReferenceType[StoredRun]) -> None:
            memory = self._memory.get(workflow_id)
            if memory is not None and memory.run is reference:
                self.forget(workflow_id)

        self._memory[workflow_id] = _Memory(weakref.ref(run, drop), stamps)

    def _check_root(self, files: Files) -> None:
        if not files.is_folder(""):
            raise StorageError(
                f"The storage {masked_uri(self._uri)} does not exist. Check that it is the value "
                "of Ray's --storage and that it is mounted; Ray creates it when a cluster starts."
            )
        if self._had_marks and not files.is_folder(RUNS):
            raise StorageError(
                f"The storage {masked_uri(self._uri)} held workflows, and now its folder '{RUNS}' "
                "is gone. Check that it is still mounted."
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
