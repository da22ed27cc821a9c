"""Workflow storage as a source: which runs there are, and all that is stored of one run.

Everything here only reads. One object belongs to one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Optional

from ...model import RunStatus
from ...redact import masked_uri
from ..records import Mark, StoredRun
from . import s3
from .filesystem import Files, Stamp, StorageError, open_files
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
from .listing import Listing
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
# Marks that Ray moves on; all others stay for good. (RESUMABLE is never written.)
_LIVE = (RunStatus.PENDING.value, RunStatus.RUNNING.value, DIRTY)


class WorkflowStorage:
    """The runs in the storage that `uri`, the value of Ray's `--storage`, names.

    The storage is opened by the first call that reads. All reading calls raise StorageError
    when the storage as a whole cannot be read; the next call tries anew. A single file or folder
    that cannot be read is named in the run's `unreadable`, or in `errors` after a listing.
    `answered` is called while answers come in; runs that are not `ours` are neither listed nor
    read. `history_interval` (None: as the kind of storage needs it) is the longest time between
    two listings in which all marks are measured.
    """

    def __init__(
        self,
        uri: str,
        answered: Callable[[], None] = lambda: None,
        ours: Callable[[str], bool] = lambda _: True,
        history_interval: Optional[float] = None,
    ) -> None:
        self._uri = uri
        self._answered = answered
        self._ours = ours
        self._interval = history_interval
        self._opened: Optional[Files] = None
        # In the order of a run's life, and dirty last: a run that moves on meanwhile is found
        # in its new place, in both, or as dirty. (An object store is asked for all at once.)
        self._listed = {name: Listing() for name in (*(it.value for it in RunStatus), DIRTY)}
        self._whole_at = 0.0  # monotonic time at which all marks are measured again
        self._marks: dict[str, Mark] = {}
        self._undecided: set[str] = set()  # runs of which a mark changed
        self._to_ask: set[str] = set()  # runs of which no listing tells how they ended
        self._doubtful: set[str] = set()  # runs whose marks disagree
        # Marks are empty. What is not is a file of a run called `__status__/<status>`, and then
        # an empty file may be another one of it, just being written.
        self._contents: dict[str, set[str]] = {it: set() for it in self._listed}
        self._could_be_files: dict[str, set[str]] = {it: set() for it in self._listed}
        self._had_marks = self._valid = False
        self.warning: Optional[str] = None  # why this may not be a storage of Ray, after a listing
        self.changed: set[str] = set()  # runs whose mark changed, until the caller clears it
        self.errors: dict[str, StorageError] = {}  # of the last listing, by path

    def list_marks(self, whole: bool = False) -> Mapping[str, Mark]:
        """List each run's status and the time of its mark: its change key.

        The answer is always the same object; `changed` are the runs for which it was changed. It
        costs what changed, but for a `whole` listing, which is due every `history_interval` at
        least: on an object store, only that one sees runs that ended before they were seen live,
        and runs that were deleted.

        While a status changes, a run may be missing from one listing: only two in a row mean that
        it was deleted. Where marks disagree, workflow_meta.json decides, as it does in Ray
        (`WorkflowIndexingStorage.list_workflow`).
        """
        files, now = self._files(), time.monotonic()
        self.errors = {}
        whole = whole or now >= self._whole_at
        results = files.call_all(
            [
                (files.update, f"{MARKS}/{name}", listing, whole or name in _LIVE)
                for name, listing in self._listed.items()
                if whole or name in _LIVE or files.folders_have_times
            ]
        )
        for result in results:
            if isinstance(result, StorageError):
                raise result
        if not (whole or files.folders_have_times):
            self._ask_for_ends(files)
        known = len(self._marks)
        self._note_changes()
        self._decide_undecided(files)
        if whole:
            interval = files.history_interval if self._interval is None else self._interval
            self._whole_at = now + interval
            self._to_ask.clear()
            if not files.folders_have_times and len(self._marks) < known:
                self._whole_at = now  # they are deleted only if two listings say so
        if self._marks or self._doubtful:
            self._had_marks = True
        else:
            self._check_root(files)
        if not self._valid:
            # What cannot be looked at may be there.
            self._valid = files.call_all([(files.exists, VALID)])[0] is not False
            self.warning = None if self._valid else _NOT_VALID.format(masked_uri(self._uri))
        return self._marks

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were made so far, by kind."""
        return {} if self._opened is None else self._opened.requests

    def list_unseen(self) -> Mapping[str, Mark]:
        """List the marks of runs that may have begun and ended since the last listing."""
        if self._files().folders_have_times:
            return self._marks  # the next listing sees them
        return self.list_marks(whole=True)

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

    def _ask_for_ends(self, files: Files) -> None:
        """Ask for the ends of runs whose live marks changed: the status is in the run's folder.

        Those that cannot be told yet are asked for again with the next listing.
        """
        for name in _LIVE:
            self._to_ask |= self._listed[name].changed
        asked = [it for it in self._to_ask if self._ours(it) and self._may_have_ended(it)]
        self._to_ask.clear()
        paths = [f"{RUNS}/{it}/{META}" for it in asked]
        metas = files.call_all([(read_file, files, path, RUN_FILES[META]) for path in paths])
        marks: dict[str, str] = {}
        for workflow_id, meta in zip(asked, metas):
            if isinstance(meta, StorageError) or meta is None:
                self._to_ask.add(workflow_id)
            elif meta.get("status") is None:
                self._put_end(workflow_id)  # deleted
            else:
                marks[workflow_id] = meta["status"].value
        paths = [f"{MARKS}/{status}/{it}" for it, status in marks.items()]
        stamps = files.call_all([(files.stamp, path) for path in paths])
        for (workflow_id, status), stamp in zip(marks.items(), stamps):
            self._put_end(workflow_id)
            if status in _LIVE:
                if not self._is_live(workflow_id):
                    self._to_ask.add(workflow_id)  # its mark came after the listing
            elif stamp is None or isinstance(stamp, StorageError):
                self._to_ask.add(workflow_id)
            else:
                self._put_end(workflow_id, status, stamp)

    def _may_have_ended(self, workflow_id: str) -> bool:
        if not self._is_live(workflow_id):
            return True
        return any(it.stamp(workflow_id) for name, it in self._listed.items() if name not in _LIVE)

    def _is_live(self, workflow_id: str) -> bool:
        return any(self._listed[name].stamp(workflow_id) for name in _LIVE if name != DIRTY)

    def _put_end(
        self, workflow_id: str, status: Optional[str] = None, stamp: Optional[Stamp] = None
    ) -> None:
        """Take the one mark that a run has among those that ended, if it has one."""
        within, _, file = workflow_id.rpartition("/")
        for name, listing in self._listed.items():
            if name not in _LIVE:
                listing.put(within, file, stamp if name == status else None)

    def _note_changes(self) -> None:
        """Take what changed in the listings."""
        for name, listing in self._listed.items():
            for within, error in listing.errors.items():
                self.errors[f"{MARKS}/{name}/{within}"] = error
            contents, could_be_files = self._contents[name], self._could_be_files[name]
            had_contents = bool(contents)
            for path in listing.changed:
                stamp = listing.stamp(path)
                if stamp is not None and stamp[0]:
                    contents.add(path)
                else:
                    contents.discard(path)
                if could_be_a_file_of_a_run(path):
                    could_be_files.add(path)
            self._undecided |= listing.changed
            if bool(contents) is not had_contents:
                self._undecided |= could_be_files
            listing.changed = set()

    def _decide_undecided(self, files: Files) -> None:
        """Put the marks of all statuses together; read the run's own status where in doubt."""
        doubtful = {}
        for workflow_id in self._undecided | self._doubtful:
            found, dirty_time, doubts = self._found(workflow_id)
            if doubts:
                doubtful[workflow_id] = found, dirty_time
            else:
                self._put(workflow_id, found[0] if found else None)
        paths = [f"{RUNS}/{workflow_id}/{META}" for workflow_id in doubtful]
        metas = files.call_all([(read_file, files, path, RUN_FILES[META]) for path in paths])
        for (workflow_id, (found, dirty_time)), path, meta in zip(doubtful.items(), paths, metas):
            if isinstance(meta, StorageError):
                self.errors[path] = meta
                meta = None
            self._put(workflow_id, _decide(meta, found, dirty_time))
        self._undecided, self._doubtful = set(), set(doubtful)

    def _found(self, workflow_id: str) -> tuple[list[Mark], float, bool]:
        """Return the marks of a run, the time of its dirty one, and whether there are doubts."""
        found: list[Mark] = []
        dirty_time, doubts = 0.0, False
        if not self._ours(workflow_id):
            return found, dirty_time, doubts
        within, _, name = workflow_id.rpartition("/")
        for status, listing in self._listed.items():
            folder = listing.folders.get(within)
            stamp = folder.files.get(name) if folder is not None else None
            if stamp is None or stamp[0]:
                continue
            if status == DIRTY:
                dirty_time, doubts = stamp[1] / 1e9, True
                continue
            found.append(Mark(RunStatus(status), stamp[1] / 1e9))
            if self._contents[status] and workflow_id in self._could_be_files[status]:
                doubts = True
        return found, dirty_time, doubts or len(found) > 1

    def _put(self, workflow_id: str, mark: Optional[Mark]) -> None:
        if self._marks.get(workflow_id) == mark:
            return
        self.changed.add(workflow_id)
        if mark is None:
            del self._marks[workflow_id]
        else:
            self._marks[workflow_id] = mark

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


def _decide(meta: Optional[Fields], marks: list[Mark], dirty_time: float) -> Optional[Mark]:
    """Return the mark that holds by what workflow_meta.json says, if there is one.

    `meta` is empty if there is no such file, None if it is half written or cannot be read.
    """
    if meta is None:  # the status has not changed yet
        return max(reversed(marks), key=lambda mark: mark.time, default=None)
    status = meta.get("status")
    if status is None:
        return None  # deleted, or never a run
    times = [mark.time for mark in marks if mark.status is status]
    return Mark(status, max(times, default=dirty_time))
