"""Workflow storage as a source: which runs there are, and all that is stored of one run.

Everything here only reads. One object belongs to one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import NamedTuple, Optional, Union

from ...model import RunStatus
from ...redact import masked_uri
from ..records import Mark, StoredRun
from . import s3
from .filesystem import Files, StorageError, Tree, open_files
from .layout import (
    DIRTY,
    MARKS,
    META,
    RUN_FILES,
    RUNS,
    VALID,
    Call,
    Fields,
    Steps,
    clean,
    could_be_a_file_of_a_run,
    read_file,
)
from .reading import Request, read_folder

__all__ = ["StorageError", "WorkflowStorage"]

# Object stores give mtimes in whole seconds: a file younger than this may be written again
# without a change of its size or mtime.
_YOUNG_NS = 2_000_000_000
# Files of several runs that are read at once: many more than there are connections, so that few
# of them wait idly for the last answers, and few enough to be there within seconds.
_FILES_AT_ONCE = 1024
_NOT_VALID = (
    f"The storage {{}} has no file '{VALID}', which Ray writes when a cluster starts: it is a "
    "copy, or not the storage of the cluster, whose runs and failures are not shown then. Check "
    "that it is the value of Ray's --storage."
)


class _Marks(NamedTuple):
    """The folder of one status as it was listed, and the marks in it.

    `doubtful` are those that may be files of a run that is called like the folder.
    """

    tree: Tree
    marks: Mapping[str, Mark]
    doubtful: Collection[str]


class WorkflowStorage:
    """The runs in the storage that `uri`, the value of Ray's `--storage`, names.

    The storage is opened by the first call that reads. All reading calls raise StorageError
    when the storage as a whole cannot be read; the next call tries anew. A single file or folder
    that cannot be read is named in the run's `unreadable`, or in `errors` after a listing.
    `answered` is called while answers come in; runs that are not `ours` are neither listed nor
    read.
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
        self._listed = dict.fromkeys(RunStatus, _Marks(Tree({}, {}), {}, ()))
        self._marks: Mapping[str, Mark] = {}
        self._any_doubtful = False
        self._had_marks = self._valid = False
        self.warning: Optional[str] = None  # why this may not be a storage of Ray, after a listing
        self.errors: dict[str, StorageError] = {}  # of the last listing, by path

    def list_marks(self) -> Mapping[str, Mark]:
        """List each run's status and the time of its mark: its change key.

        As long as nothing changes, each answer is the same object. While a status changes, a run
        may be missing from one listing: only two in a row mean that it was deleted. Where marks
        disagree, workflow_meta.json decides, as it does in Ray
        (`WorkflowIndexingStorage.list_workflow`).
        """
        files = self._files()
        self.errors = {}
        # In the order of a run's life, and dirty last: a run that moves on meanwhile is found
        # in its new place, in both, or as dirty. (An object store is asked for all at once.)
        folders = [*(status.value for status in RunStatus), DIRTY]
        *trees, dirty_tree = files.call_all([(files.tree, f"{MARKS}/{name}") for name in folders])
        changed = False
        for status, tree in zip(RunStatus, trees):
            listed = self._listed[status]
            tree = self._checked(f"{MARKS}/{status.value}", tree, listed.tree)
            if listed.tree.files != tree.files:
                self._listed[status] = self._marks_in(status, tree)
                changed = True
        dirty = self._times_of_marks(self._checked(f"{MARKS}/{DIRTY}", dirty_tree, Tree({}, {})))
        if changed or dirty or self._any_doubtful:
            marks = self._decide_all(files, dirty)
            if marks != self._marks:
                self._marks = marks
        if self._marks or self._any_doubtful:
            self._had_marks = True
        else:
            self._check_root(files)
        if not self._valid:
            # What cannot be looked at may be there.
            self._valid = files.call_all([(files.exists, VALID)])[0] is not False
            self.warning = None if self._valid else _NOT_VALID.format(masked_uri(self._uri))
        return self._marks

    def read_run(
        self,
        workflow_id: str,
        previous: Optional[StoredRun] = None,
        only: Optional[Collection[str]] = None,
    ) -> Optional[StoredRun]:
        """Read the folder of a run, None if there is none.

        `previous` is what the last call returned for this run: files that did not change since
        are not read again, and its values stand in for files that are only half written or
        cannot be read. With it, `only` names the tasks whose folders are read; all others are
        taken from it. An id that leads out of the storage has no folder.
        """
        return self.read_runs({workflow_id: previous}, only=only, measure=True)[workflow_id]

    def read_runs(
        self,
        wanted: Mapping[str, Optional[StoredRun]],
        until: float = float("inf"),
        enough: Optional[Callable[[StoredRun], bool]] = None,
        only: Optional[Collection[str]] = None,
        measure: bool = False,
    ) -> dict[str, Optional[StoredRun]]:
        """Read the folders of many runs, each as `read_run` does with its previous reading.

        They are read about in the order of `wanted`, and no further once the clock
        (`time.monotonic`) has passed `until`, or after a failure of the whole storage, which is
        raised if nothing was read before it. Of a run without a previous reading of which all went
        well, only an outline is read if `enough` returns true for what the run's own files say.
        Without `measure`, runs are not expected to change.
        """
        files, rested = self._files(), time.time_ns() - _YOUNG_NS
        runs: dict[str, Optional[StoredRun]] = {}
        waiting: list[tuple[str, Steps]] = []
        for workflow_id, previous in wanted.items():
            path = clean(workflow_id, files.backslash_divides)
            if path is None:
                runs[workflow_id] = None
                continue
            stamped = measure or previous is not None
            request = Request(workflow_id, path, previous, only, stamped, rested, enough)
            waiting.append((workflow_id, read_folder(files, request)))
        waiting.reverse()
        going: list[tuple[str, Steps, list[Call]]] = []  # readings, and the calls they wait for
        while waiting or going:
            while waiting and len(going) < files.at_once:
                workflow_id, reading = waiting.pop()
                going.append((workflow_id, reading, next(reading)))
            count = number = 0
            while count < len(going) and number < _FILES_AT_ONCE:
                number += len(going[count][2])
                count += 1
            now, later = going[:count], going[count:]
            results = files.call_all([call for *_, calls in now for call in calls])
            failed = [it for it in results if isinstance(it, StorageError)]
            # One file, or all of the storage?
            if failed and isinstance(files.call_all([(files.tree, MARKS, False)])[0], StorageError):
                if not runs:
                    raise failed[0]
                break
            answers, going = iter(results), []
            for workflow_id, reading, calls in now:
                try:
                    answer = list(islice(answers, len(calls)))
                    going.append((workflow_id, reading, reading.send(answer)))
                except StopIteration as end:
                    runs[workflow_id] = end.value
            going += later
            self._answered()
            if runs and time.monotonic() > until:
                break
        return {workflow_id: runs[workflow_id] for workflow_id in wanted if workflow_id in runs}

    def _files(self) -> Files:
        if self._opened is None:
            self._opened = open_files(self._uri, self._answered)
        return self._opened

    def _checked(self, path: str, tree: Union[Tree, StorageError], before: Tree) -> Tree:
        """Return what was listed; for folders that cannot be listed, what was there before."""
        if isinstance(tree, StorageError):
            raise tree
        if not tree.errors:
            return tree
        self.errors.update({f"{path}/{within}": error for within, error in tree.errors.items()})
        kept = {
            folder: names
            for folder, names in before.files.items()
            if any(f"{folder}/".startswith(f"{within}/") for within in tree.errors)
        }
        return Tree({**tree.files, **kept}, tree.errors)

    def _marks_in(self, status: RunStatus, tree: Tree) -> _Marks:
        marks = {key: Mark(status, time) for key, time in self._times_of_marks(tree).items()}
        # Marks are empty. What is not is a file of a run called `__status__/<status>`, and then
        # an empty file may be another one of it, just being written.
        any_content = any(size for files in tree.files.values() for size, _ in files.values())
        doubtful = [path for path in marks if could_be_a_file_of_a_run(path)] if any_content else ()
        return _Marks(tree, marks, doubtful)

    def _times_of_marks(self, tree: Tree) -> dict[str, float]:
        """Return the time of each mark that is ours, by the id of its run."""
        found = {
            f"{path}/{name}" if path else name: mtime / 1e9
            for path, files in tree.files.items()
            for name, (size, mtime) in files.items()
            if not size
        }
        return {key: time for key, time in found.items() if self._ours(key)}

    def _decide_all(self, files: Files, dirty: Mapping[str, float]) -> dict[str, Mark]:
        """Put the marks of all statuses together; read the run's own status where in doubt."""
        marks: dict[str, Mark] = {}
        doubtful = set(dirty)
        for listed in self._listed.values():
            doubtful.update(listed.doubtful, marks.keys() & listed.marks.keys())
            marks.update(listed.marks)
        paths = [f"{RUNS}/{workflow_id}/{META}" for workflow_id in doubtful]
        metas = files.call_all([(read_file, files, path, RUN_FILES[META]) for path in paths])
        for workflow_id, path, meta in zip(doubtful, paths, metas):
            marks.pop(workflow_id, None)
            found = [
                it.marks[workflow_id] for it in self._listed.values() if workflow_id in it.marks
            ]
            if isinstance(meta, StorageError):
                self.errors[path] = meta
                meta = None
            for mark in _decide(meta, found, dirty.get(workflow_id, 0.0)):
                marks[workflow_id] = mark
        self._any_doubtful = bool(doubtful)
        return marks

    def _check_root(self, files: Files) -> None:
        if not files.exists(""):
            advice = (
                s3.advice(self._uri)
                if self._uri.startswith("s3:")
                else "Check that it is the value of Ray's --storage and that it is mounted; Ray "
                "creates it when a cluster starts."
            )
            raise StorageError(f"The storage {masked_uri(self._uri)} does not exist. {advice}")
        if not (files.exists(VALID) or files.exists(MARKS)):
            raise StorageError(
                f"{masked_uri(self._uri)} is no storage of Ray: it has neither the file '{VALID}', "
                f"which Ray writes when a cluster starts, nor a folder '{MARKS}'. Check that it is "
                "the value of Ray's --storage."
            )
        if self._had_marks and not files.exists(RUNS):
            raise StorageError(
                f"The storage {masked_uri(self._uri)} held workflows, and now its folder '{RUNS}' "
                "is gone. Check that it is still mounted."
            )


def _decide(meta: Optional[Fields], marks: list[Mark], dirty_time: float) -> list[Mark]:
    """Return the mark that holds by what workflow_meta.json says: one, or none.

    `meta` is empty if there is no such file, None if it is half written or cannot be read.
    """
    if meta is None:
        return sorted(marks, key=lambda mark: mark.time)[-1:]  # the status has not changed yet
    status = meta.get("status")
    if status is None:
        return []  # deleted, or never a run
    times = [mark.time for mark in marks if mark.status is status]
    return [Mark(status, max(times, default=dirty_time))]
