"""One poll: list storage, ask the management actor, read what changed, update the catalog.

The order matters. Storage is listed before the actor is asked, so a run that the actor holds is
live whatever its mark says, and a run that is live only by its mark may have ended in between: a
run is RESUMABLE or deleted only after two polls in a row find it so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from ..catalog.catalog import Catalog
from ..catalog.run_cache import RunCache
from ..model import Run, RunStatus
from ..redact import masked_uri
from ..settings.settings import Settings
from ..sources.manager.link import RayLink
from ..sources.records import LinkCause, LinkState, LiveRun, ManagerView, Mark, StoredRun
from ..sources.storage.filesystem import same_storage
from ..sources.storage.reader import StorageReader
from .assembler import Assembler
from .loading import Progress, garbage_waits
from .task_details import Details
from .tracked import FOLLOWED_SECONDS, UNREADABLE_PAUSE, Pending, Tracked

logger = logging.getLogger(__name__)

_DISAGREEMENTS = 2  # polls
_BATCH = 64  # runs that are read at once: the files of a live run must not wait for more


class Poller:
    """Reads the sources and keeps a catalog up to date; used by one thread."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        link: RayLink,
        first_listing: Callable[[Mapping[str, Mark], float], None],
    ) -> None:
        self._settings = settings
        self._first_listing = first_listing
        self._catalog = catalog
        self._link = link
        self._details = Details(link)
        self._assembler = Assembler(settings, catalog, self._details)
        self._reader = StorageReader(settings.storage, settings.storage_timeout, settings.holds)
        self._tracked: dict[str, Tracked] = {}
        self._contact = time.monotonic()  # when Ray last answered whether it has a management actor
        self.manager = ManagerView(LinkState.UNREACHABLE, "Ray has not been asked yet.")
        self.manager_seconds = 0.0  # taken by the last request to Ray
        self.listed_at: Optional[float] = None  # Unix time of the last listing
        self._listed: Optional[float] = None  # the same by the monotonic clock
        self._progress = Progress()
        self.cache: Optional[RunCache] = None  # of an exporter with state files
        self._marks: Mapping[str, Mark] = {}  # as listed last
        self._rays_storage: Optional[str] = None
        self._open: set[str] = set()  # runs with a mark that may have to be read
        self._missing: set[str] = set()  # runs that the last listing did not have

    @property
    def folded_workflows(self) -> int:
        """How many workflows are named `other` because of the limit."""
        return self._assembler.folded_workflows

    @property
    def listing_age(self) -> Optional[float]:
        """Seconds since storage was listed, None before the first listing."""
        return None if self._listed is None else time.monotonic() - self._listed

    def reserve_names(self, workflows: Iterable[str]) -> None:
        """Keep the names of workflows that were counted before a restart."""
        self._assembler.reserve_names(workflows)

    def release_names(self, workflows: Iterable[str]) -> None:
        """Give the places of workflows that no longer exist to others."""
        self._assembler.release_names(workflows)

    def poll(self, now: float, budget: float) -> None:
        """Poll once; read new finished runs for at most about `budget` seconds."""
        if self._reader.uri is None:
            self._ask_manager(now)  # only Ray knows where storage is
            if self._reader.uri is None:
                self._reader.error = no_storage(self.manager)
                return
        with garbage_waits():
            marks = self._reader.list()
        view = self._ask_manager(now)
        if marks is not None:
            if self.listed_at is None:
                self._first_listing(marks, now)
            self.listed_at, self._listed = now, time.monotonic()
        if self.listed_at is None:
            return  # without storage, new runs cannot be told from history
        for workflow_id, ended in view.ended.items():
            if workflow_id in self._tracked:
                self._tracked[workflow_id].ended = ended
        fresh = {key: it for key in view.runs if not (it := self._track(key)).was_live}
        self._reader.read_ahead({key: it.stored for key, it in fresh.items()})
        for live in view.runs.values():
            self._see_live(live, marks)
        if marks is not None:
            self._see_marks(marks, now, budget)
            self._see_gone(marks)
        for workflow_id, reason in self._details.stop_reasons(view.state, now).items():
            run = self._catalog.get(workflow_id)
            if run is not None and run.status is RunStatus.RESUMABLE:
                self._catalog.put(replace(run, reason=reason))
        for workflow_id in self._details.update(self._catalog_runs(), view.state, now):
            self._merge_again(workflow_id)

    @property
    def storage_uri(self) -> Optional[str]:
        """The value of Ray's `--storage`, None as long as it is not known."""
        return self._reader.uri

    @property
    def unreadable(self) -> int:
        """How many times a single run could not be read."""
        return self._reader.unreadable

    @property
    def storage_error(self) -> Optional[str]:
        """Why storage cannot be read, None if it can."""
        return self._reader.error

    @property
    def without_storage(self) -> bool:
        """Whether the Ray that is watched has no workflow storage, so that it can have no runs."""
        return self.storage_uri is None and self.manager.cause is LinkCause.NO_STORAGE

    @property
    def loading(self) -> int:
        """How many finished runs are listed but not read yet."""
        return self._progress.left

    @property
    def settled(self) -> bool:
        """Whether all of storage is read, and no decision waits for a second poll."""
        waiting = any(0 < it.lost < _DISAGREEMENTS for it in self._tracked.values())
        return self.storage_error is None and self.loading == 0 and not waiting

    def save(self) -> None:
        """Save the cache of finished runs."""
        if self.cache is not None:
            self.cache.save()

    def close(self) -> None:
        """Close storage, the link to Ray and the cache."""
        self._details.close()
        self._link.close()
        self._reader.close()
        if self.cache is not None:
            self.cache.close()

    def _ask_manager(self, now: float) -> ManagerView:
        asked = time.monotonic()
        view = self._link.poll()
        self.manager_seconds = time.monotonic() - asked
        if self._settings.shards > 1:
            runs = {key: run for key, run in view.runs.items() if self._settings.holds(key)}
            view = replace(view, runs=runs)
        self.manager = view
        self._reader.uri = self._reader.uri or view.storage_uri
        if view.storage_uri != self._rays_storage:
            self._rays_storage = view.storage_uri or self._rays_storage
            if not same_storage(self._reader.uri, self._rays_storage):
                logger.warning(
                    "This exporter reads the storage %s, but Ray uses %s: finished runs of this "
                    "cluster are not shown. Give --storage the value of Ray's --storage.",
                    masked_uri(self._reader.uri or ""),
                    masked_uri(self._rays_storage or ""),
                )
        if view.state is not LinkState.UNREACHABLE:
            self._contact = time.monotonic()
        return view

    def _read(
        self, tracked: Tracked, workflow_id: str, only: Optional[Collection[str]] = None
    ) -> Optional[StoredRun]:
        """Read a run's folder; on a failure return what was read before."""
        return self._reader.read(workflow_id, tracked.stored, only)

    def _track(self, workflow_id: str) -> Tracked:
        tracked = self._tracked.get(workflow_id)
        if tracked is None:
            tracked = self._tracked[workflow_id] = Tracked()
        return tracked

    def _see_live(self, live: LiveRun, marks: Optional[Mapping[str, Mark]]) -> None:
        workflow_id = live.workflow_id
        tracked = self._track(workflow_id)
        known = self._catalog.get(workflow_id)
        status = RunStatus.PENDING if live.queued else RunStatus.RUNNING
        fresh = tracked.stored is None or not tracked.was_live
        touched: Optional[set[str]] = None
        if fresh:
            tracked.stored = self._read(tracked, workflow_id)
            if tracked.stored is None and self.storage_error is not None:
                return  # its workflow is in storage, and it must not be counted under another name
        else:
            touched = tracked.touched.union(live.changed)
            checked = tracked.pending.choose()
            unstarted = known is None or known.status is not status or known.start_time is None
            if touched or checked or unstarted:
                before = tracked.stored.tasks if tracked.stored else {}
                tracked.stored = self._read(tracked, workflow_id, touched | checked) or (
                    tracked.stored
                )
                stored = tracked.stored.tasks if tracked.stored else {}
                news = [it for it in checked if stored.get(it) != before.get(it)]
                tracked.pending.found(len(news))
                touched.update(news)
            if not touched and known is not None and not unstarted:
                return
        # Ray reports a change once: what could not be read from storage waits for the next poll.
        tracked.touched = (touched or set(live.tasks)) if self.storage_error else set()
        tracked.was_live, tracked.lost, tracked.absent = True, 0, 0
        tracked.mark, tracked.recheck_at = None, None
        mark = (marks or {}).get(workflow_id)
        self._put(
            tracked.stored or StoredRun(workflow_id),
            status,
            live=live,
            mark_time=mark.time if mark and mark.status is status else None,
            touched=touched,
        )
        run = self._catalog.get(workflow_id)
        if run is not None:
            same = known is not None and known.start_time == run.start_time
            tracked.pending.update(run, touched if same else None)

    def _see_marks(self, marks: Mapping[str, Mark], now: float, budget: float) -> None:
        """Read runs that are not live: those with a new mark, and those that may still change."""
        live = self.manager.runs
        if marks is not self._marks:
            known = self._marks
            self._open.update(key for key, mark in marks.items() if known.get(key) != mark)
            self._marks = marks
        self._open.update(marks.keys() & live.keys())  # to be read when they are no longer live
        due: list[tuple[bool, float, str]] = []
        for workflow_id in self._open - live.keys():
            if workflow_id not in marks:
                self._open.discard(workflow_id)
                continue
            tracked, mark = self._track(workflow_id), marks[workflow_id]
            if self._is_due(workflow_id, tracked, mark, now):
                due.append((not mark.status.finished, mark.time, workflow_id))
            elif mark.status.finished and tracked.recheck_at is None:
                self._open.discard(workflow_id)
        # Newest first: after a start, recent runs are available long before all of the history.
        due.sort(reverse=True)
        self._see_due([workflow_id for *_, workflow_id in due], now, time.monotonic() + budget)

    def _is_due(self, workflow_id: str, tracked: Tracked, mark: Mark, now: float) -> bool:
        """Whether a run that is not live has to be read."""
        if tracked.mark == mark and tracked.recheck_at is not None:
            return now >= tracked.recheck_at
        if mark.status.finished:
            return tracked.mark != mark
        known = self._catalog.get(workflow_id)
        settled = known is not None and known.status is RunStatus.RESUMABLE and tracked.mark == mark
        if not self._in_grace():
            tracked.lost += 1
            # It has just left the actor: its own folder may have the end before the marks do.
            ended = tracked.was_live and tracked.lost == 1
            return (ended or tracked.lost >= _DISAGREEMENTS) and not settled
        return not settled

    def _in_grace(self) -> bool:
        """Whether Ray does not answer, but not for long enough to make its runs RESUMABLE."""
        silent = self.manager.state is LinkState.UNREACHABLE
        return silent and time.monotonic() - self._contact <= self._settings.manager_grace

    def _see_due(self, due: Sequence[str], now: float, until: float) -> None:
        """Read runs that are not live until the time is over, at least one batch."""
        left = len(due)
        self._progress.begin(left)
        with garbage_waits(len(due)):
            for start in range(0, len(due), _BATCH):
                left -= self._see_batch(due[start : start + _BATCH], now, until)
                self._progress.tell(left)
                if self.storage_error is not None or time.monotonic() > until:
                    break

    def _see_batch(self, batch: Sequence[str], now: float, until: float) -> int:
        """Read some runs at once; return how many were read or found in the cache."""
        unread = [key for key in batch if not self._remembered(key, self._marks[key], now)]
        found = self._reader.read_runs(
            {key: self._tracked[key].stored for key in unread},
            until,
            lambda it: self._assembler.outline_suffices(it, self._marks[it.workflow_id], now),
        )
        for workflow_id, stored in found.items():
            self._see_stored(workflow_id, self._marks[workflow_id], stored, now)
        return len(batch) - len(unread) + len(found)

    def _remembered(self, workflow_id: str, mark: Mark, now: float) -> bool:
        """Take a finished run from the cache, if this process has not read it yet."""
        tracked = self._tracked[workflow_id]
        fresh = tracked.mark is None and not tracked.was_live and mark.status.finished
        run = self.cache.find(workflow_id, mark) if fresh and self.cache is not None else None
        if run is None or not self._assembler.restore(run, mark.time, now):
            return False
        tracked.mark = mark
        return True

    def _see_stored(
        self, workflow_id: str, mark: Mark, stored: Optional[StoredRun], now: float
    ) -> None:
        """Put a run that is not live into the catalog."""
        tracked = self._tracked[workflow_id]
        if stored is None:  # a mark without a folder
            tracked.mark, tracked.recheck_at = mark, now + UNREADABLE_PAUSE
            tracked.stored = None  # if it is written anew, nothing of it is to be taken from before
        elif mark.status.finished:
            self._see_finished(stored, tracked, mark, now)
        elif self._in_grace():
            # Ray cannot be asked: show what the files say.
            tracked.stored, tracked.was_live = stored, False
            self._put(stored, mark.status, mark_time=mark.time)
        elif stored.status is not None and stored.status.finished:
            # Its mark is still the old one: an object store may list the new one seconds later.
            tracked.disagreed += 1
            ended = stored.status is not RunStatus.CANCELED  # whose end is the time of its mark
            if ended or tracked.disagreed > _DISAGREEMENTS:
                tracked.mark, tracked.recheck_at = mark, now + UNREADABLE_PAUSE
                tracked.was_live = False
                self._put(stored, stored.status, mark_time=mark.time)
        elif tracked.lost >= _DISAGREEMENTS:
            tracked.stored, tracked.was_live = stored, False
            again, tracked.mark = tracked.mark == mark, mark
            run = self._put(stored, RunStatus.RESUMABLE, mark_time=mark.time)
            self._details.explain_stop(workflow_id, stored.start_time)
            if not tracked.plan_recheck(run, mark, now, again=again):
                self._settle(tracked, workflow_id)

    def _see_finished(self, stored: StoredRun, tracked: Tracked, mark: Mark, now: float) -> None:
        if stored.status not in (None, mark.status) and tracked.disagreed < _DISAGREEMENTS:
            tracked.disagreed += 1  # the status is being changed: read it again with the next poll
            return
        tracked.disagreed = 0
        again = tracked.mark == mark
        tracked.mark, tracked.was_live, tracked.lost = mark, False, 0
        tracked.stored = stored
        run = self._put(stored, mark.status, mark_time=mark.time)
        if not tracked.plan_recheck(run, mark, now, again=again):
            if self.cache is not None:
                self.cache.add(run, mark)
            self._settle(tracked, run.workflow_id)

    def _settle(self, tracked: Tracked, workflow_id: str) -> None:
        """Drop what is only needed while a run may change."""
        tracked.stored = None
        tracked.pending = Pending()
        self._reader.forget(workflow_id)

    def _see_gone(self, marks: Mapping[str, Mark]) -> None:
        if not self._missing and self._tracked.keys() <= marks.keys():
            return
        missing = self._tracked.keys() - marks.keys() - self.manager.runs.keys()
        for workflow_id in self._missing - missing:
            self._tracked[workflow_id].absent = 0
        for workflow_id in list(missing):
            tracked = self._tracked[workflow_id]
            tracked.absent += 1
            if tracked.absent >= _DISAGREEMENTS:
                missing.discard(workflow_id)
                self._catalog.remove(workflow_id, tracked.ended)
                if self.cache is not None:
                    self.cache.remove(workflow_id)
                self._settle(tracked, workflow_id)
                del self._tracked[workflow_id]
        self._missing = missing

    def _put(self, stored: StoredRun, status: RunStatus, **more: Any) -> Run:
        followed = time.time() - (more["mark_time"] or 0.0) < FOLLOWED_SECONDS
        writing = status is RunStatus.FAILED and self.manager.state is LinkState.UP and followed
        tracked = self._tracked[stored.workflow_id]
        ended, tracked.ended = tracked.ended, None
        return self._assembler.put(stored, status, ended=ended, may_still_write=writing, **more)

    def _catalog_runs(self) -> Iterable[Run]:
        """Yield runs of which Ray's state API may know more: live and recently failed ones."""
        for workflow_id, tracked in self._tracked.items():
            if tracked.stored is not None:
                run = self._catalog.get(workflow_id)
                if run is not None:
                    yield run

    def _merge_again(self, workflow_id: str) -> None:
        """Merge news from Ray's state API into a run."""
        tracked = self._tracked.get(workflow_id)
        run = self._catalog.get(workflow_id)
        if tracked is None or run is None:
            return
        if workflow_id in self.manager.runs:
            # With the next poll, which has the live facts.
            tracked.touched.update(self._details.news(workflow_id))
        elif tracked.stored is not None and tracked.mark is not None:
            self._put(tracked.stored, run.status, mark_time=tracked.mark.time)


def no_storage(view: ManagerView) -> Optional[str]:
    """Return why no workflow storage is known, None if the cluster has none: that is no fault."""
    if view.cause is LinkCause.NO_STORAGE:
        return None
    if view.cause is LinkCause.OFF:
        return "No workflow storage is given: with --address none, add --storage URI."
    reason = view.reason or "Ray has not answered yet."
    if "--storage" in reason:
        return reason
    return f"{reason} To read storage without Ray, use --address none --storage URI."
