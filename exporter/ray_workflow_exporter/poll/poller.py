"""One poll: list storage, ask the management actor, read what changed, update the catalog.

The order matters. Storage is listed before the actor is asked, so a run that the actor holds is
live whatever its mark says, and a run that is live only by its mark may have ended in between: a
run is RESUMABLE or deleted only after two polls in a row find it so.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Optional

from ..catalog.catalog import Catalog
from ..catalog.run_cache import RunCache
from ..model import Run, RunStatus, TaskState
from ..settings.settings import Settings
from ..sources.manager.link import RayLink
from ..sources.records import EndedLife, LinkCause, LinkState, LiveRun, ManagerView, Mark, StoredRun
from ..sources.storage.reader import StorageReader
from .assembler import Assembler
from .loading import Progress, garbage_waits
from .storage_reasons import no_storage, other_storage
from .task_details import Details
from .tracked import UNREADABLE_PAUSE, Pending, Tracked, recheck_time

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
        self.names = self._assembler.names
        self.reader = StorageReader(
            settings.storage, settings.storage_timeout, settings.holds, settings.history_interval
        )
        self._tracked: defaultdict[str, Tracked] = defaultdict(Tracked)
        self._contact = time.monotonic()  # when Ray last answered whether it has a management actor
        self.manager = ManagerView(LinkState.UNREACHABLE, "Ray has not been asked yet.")
        self.manager_seconds = 0.0  # taken by the last request to Ray
        self.listed_at: Optional[float] = None  # Unix time of the last listing
        self._listed: Optional[float] = None  # the same by the monotonic clock
        self._progress = Progress()
        self.cache: Optional[RunCache] = None  # of an exporter with state files
        self._marks: Mapping[str, Mark] = {}  # as listed last
        self._rays_storage: Optional[str] = None
        self.storage_warning: Optional[str] = None  # why it may not be the storage of the cluster
        self._open: set[str] = set()  # runs with a mark that may have to be read
        self._unmarked: set[str] = set()  # runs that may have no mark
        self.unseen = False  # whether runs may have changed unseen; for any thread to set

    @property
    def listing_age(self) -> Optional[float]:
        """Seconds since storage was listed, None before the first listing."""
        return None if self._listed is None else time.monotonic() - self._listed

    def poll(self, now: float, budget: float) -> None:
        """Poll once; read new finished runs for at most about `budget` seconds."""
        if self.reader.uri is None:
            self._ask_manager()  # only Ray knows where storage is
            if self.reader.uri is None:
                self.reader.error = no_storage(self.manager)
                return
        with garbage_waits():
            listed = self._take(self.reader.list())
        view = self._ask_manager()
        if listed is not None and self.listed_at is None:
            self._first_listing(self._marks, now)
            self.unseen = False
        elif listed is not None and (view.unseen or self.unseen):
            self.unseen = False
            listed = self._take(self.reader.list_unseen())
        if listed is not None:
            self.listed_at, self._listed = now, time.monotonic()
        if self.listed_at is None:
            return  # without storage, new runs cannot be told from history
        for workflow_id, ended in view.ended.items():
            if workflow_id in self._tracked:
                self._see_ended(workflow_id, ended)
        fresh = {key: it.stored for key in view.runs if not (it := self._tracked[key]).was_live}
        self._unmarked.update(fresh)
        ahead = self.reader.read_runs(fresh)
        for live in view.runs.values():
            self._see_live(live, listed, ahead)
        if listed is not None:
            self._see_marks(now, budget)
            self._see_gone()
        for workflow_id, reason in self._details.stop_reasons(view.state, now).items():
            run = self._catalog.get(workflow_id)
            if run is not None and run.status is RunStatus.RESUMABLE:
                self._catalog.put(replace(run, reason=reason))
        for workflow_id in self._details.update(self._catalog_runs(), view.state, now):
            self._merge_again(workflow_id)

    @property
    def without_storage(self) -> bool:
        """Whether the Ray that is watched has no workflow storage, so that it can have no runs."""
        return self.reader.uri is None and self.manager.cause is LinkCause.NO_STORAGE

    @property
    def loading(self) -> int:
        """How many finished runs are listed but not read yet."""
        return self._progress.left

    @property
    def settled(self) -> bool:
        """Whether all of storage is read, and no decision waits for a second poll."""
        if self.reader.error is not None or self.loading:
            return False
        found = (self._tracked.get(key) for key in self._open | self._unmarked)
        return not any(it and 0 < it.lost < _DISAGREEMENTS for it in found)

    def save(self) -> None:
        """Save the cache of finished runs."""
        if self.cache is not None:
            self.cache.save()

    def close(self) -> None:
        """Close storage, the link to Ray and the cache."""
        self._details.close()
        self._link.close()
        self.reader.close()
        if self.cache is not None:
            self.cache.close()

    def _take(
        self, listed: Optional[tuple[Mapping[str, Mark], Collection[str]]]
    ) -> Optional[Mapping[str, Mark]]:
        """Take a listing at once: what changed is not told again."""
        if listed is None:
            return None
        self._marks, changed = listed
        self._open.update(changed)
        self._unmarked.update([key for key in changed if key not in self._marks])
        return self._marks

    def _ask_manager(self) -> ManagerView:
        asked = time.monotonic()
        view = self._link.poll()
        self.manager_seconds = time.monotonic() - asked
        if self._settings.shards > 1:
            runs = {key: run for key, run in view.runs.items() if self._settings.holds(key)}
            view = replace(view, runs=runs)
        before, self.manager = self.manager.state, view
        self.reader.uri = self.reader.uri or view.storage_uri
        self._rays_storage = view.storage_uri or self._rays_storage
        self._check_storage()
        if before is LinkState.UNREACHABLE and view.state is not before:
            self.unseen = True
        self._assembler.manager_up = view.state is LinkState.UP
        if view.state is not LinkState.UNREACHABLE:
            self._contact = time.monotonic()
        return view

    def _check_storage(self) -> None:
        """Warn, once, if the storage that is read may not be that of the cluster."""
        warning = other_storage(self.reader.uri, self._rays_storage) or self.reader.warning
        if warning is not None and warning != self.storage_warning:
            logger.warning("%s", warning)
        self.storage_warning = warning

    def _see_ended(self, workflow_id: str, ended: EndedLife) -> None:
        """Note how a known run ended in the actor; it may not have been seen live."""
        tracked = self._tracked[workflow_id]
        tracked.ended = ended
        if tracked.mark is not None and not tracked.mark.time:  # its new mark equals the old one
            tracked.mark = None
            self._open.add(workflow_id)

    def _see_live(
        self,
        live: LiveRun,
        marks: Optional[Mapping[str, Mark]],
        ahead: Mapping[str, Optional[StoredRun]],
    ) -> None:
        """Put a run of the management actor; those new to it are read `ahead`, all at once."""
        workflow_id = live.workflow_id
        tracked = self._tracked[workflow_id]
        known = self._catalog.get(workflow_id)
        status = RunStatus.PENDING if live.queued else RunStatus.RUNNING
        old = tracked.stored if tracked.was_live else None
        touched: Optional[set[str]] = None
        if old is None:
            if workflow_id in ahead:
                tracked.stored = ahead[workflow_id]
            else:
                tracked.stored = self.reader.read(workflow_id, tracked.stored)
            if tracked.stored is None and self.reader.error is not None:
                return  # its workflow is in storage, and it must not be counted under another name
        else:
            touched = tracked.touched.union(live.changed)
            checked = tracked.pending.choose()
            unstarted = known is None or known.status is not status or known.start_time is None
            if touched or checked or unstarted:
                new = tracked.stored = self.reader.read(workflow_id, old, touched | checked) or old
                news = [it for it in checked if new.tasks.get(it) != old.tasks.get(it)]
                tracked.pending.found(len(news))
                touched.update(news)
            if not touched and known is not None and not unstarted:
                return
        # Ray reports a change once: what could not be read from storage waits for the next poll.
        tracked.touched = (touched or set(live.tasks)) if self.reader.error else set()
        tracked.was_live, tracked.lost, tracked.absent = True, 0, 0
        tracked.mark, tracked.recheck_at = None, None
        mark = (marks or {}).get(workflow_id)
        run = self._assembler.put(
            tracked.stored or StoredRun(workflow_id),
            status,
            tracked,
            live=live,
            mark_time=mark.time if mark and mark.status is status else None,
            touched=touched,
        )
        same = known is not None and known.start_time == run.start_time
        tracked.pending.update(run, touched if same else None)

    def _see_marks(self, now: float, budget: float) -> None:
        """Read runs that are not live: those with a new mark, and those that may still change."""
        marks, live = self._marks, self.manager.runs
        # To be read when they are no longer live.
        self._open.update([key for key in live if key in marks])
        due: list[tuple[bool, float, str]] = []
        for workflow_id in self._open.difference(live):
            if workflow_id not in marks:
                self._open.discard(workflow_id)
                continue
            tracked, mark = self._tracked[workflow_id], marks[workflow_id]
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
        left, marks = len(due), self._marks
        self._progress.begin(left)

        def enough(stored: StoredRun) -> bool:
            return self._assembler.outline_suffices(stored, marks[stored.workflow_id], now)

        with garbage_waits(len(due)):
            for start in range(0, len(due), _BATCH):
                batch = due[start : start + _BATCH]
                unread = [key for key in batch if not self._remembered(key, marks[key], now)]
                wanted = {key: self._tracked[key].stored for key in unread}
                found = self.reader.read_runs(wanted, until, enough)
                for workflow_id, stored in found.items():
                    self._see_stored(workflow_id, marks[workflow_id], stored, now)
                left -= len(batch) - len(unread) + len(found)
                self._progress.tell(left, list(found.values()).count(None))
                if self.reader.error is not None or time.monotonic() > until:
                    break

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
        again = tracked.mark == mark
        if stored is None:  # a mark without a folder
            tracked.mark, tracked.recheck_at = mark, now + UNREADABLE_PAUSE
            tracked.stored = None  # if it is written anew, nothing of it is to be taken from before
            return
        status, decided = mark.status, True
        if status.finished:
            if stored.status not in (None, status) and tracked.disagreed < _DISAGREEMENTS:
                tracked.disagreed += 1  # it is being changed: read it again with the next poll
                return
            tracked.disagreed = tracked.lost = 0
            tracked.mark = mark
        elif self._in_grace():
            decided = False  # Ray cannot be asked: show what the files say
        elif stored.status is not None and stored.status.finished:
            # Its mark is still the old one: an object store may list the new one seconds later.
            tracked.disagreed += 1
            if stored.status is RunStatus.CANCELED and tracked.disagreed <= _DISAGREEMENTS:
                return  # the end of a cancelled run is the time of its mark
            status, decided = stored.status, False
            tracked.mark, tracked.recheck_at = mark, now + UNREADABLE_PAUSE
        elif tracked.lost >= _DISAGREEMENTS:
            status, tracked.mark = RunStatus.RESUMABLE, mark
            self._details.explain_stop(workflow_id, stored.start_time)
        else:
            return
        tracked.stored, tracked.was_live = stored, False
        run = self._assembler.put(stored, status, tracked, mark_time=mark.time)
        if not decided:
            return  # it is read again in any case
        at_work = any(it.state is TaskState.RUNNING for it in run.tasks.values())
        tracked.recheck = tracked.recheck + 1 if again else 0
        tracked.recheck_at = recheck_time(
            mark, now, tracked.recheck, unreadable=bool(stored.unreadable), at_work=at_work
        )
        if tracked.recheck_at is None:
            if mark.status.finished and self.cache is not None:
                self.cache.add(run, mark)
            self._settle(tracked, workflow_id)

    def _settle(self, tracked: Tracked, workflow_id: str) -> None:
        """Drop what is only needed while a run may change."""
        tracked.stored = None
        tracked.pending = Pending()
        self.reader.forget(workflow_id)

    def _see_gone(self) -> None:
        """Remove runs that have neither a mark nor a place in the actor for two polls."""
        for workflow_id in list(self._unmarked):
            tracked = self._tracked.get(workflow_id)
            if tracked is None or workflow_id in self._marks:
                self._unmarked.discard(workflow_id)
            if tracked is None:
                continue
            if workflow_id in self._marks or workflow_id in self.manager.runs:
                tracked.absent = 0
                continue
            tracked.absent += 1
            if tracked.absent >= _DISAGREEMENTS:
                self._unmarked.discard(workflow_id)
                self._catalog.remove(workflow_id, tracked.ended)
                if self.cache is not None:
                    self.cache.remove(workflow_id)
                self._settle(tracked, workflow_id)
                del self._tracked[workflow_id]

    def _catalog_runs(self) -> Iterable[Run]:
        """Yield runs of which Ray's state API may know more: live and recently failed ones."""
        for workflow_id in (*self.manager.runs, *self._open.difference(self.manager.runs)):
            tracked, run = self._tracked.get(workflow_id), self._catalog.get(workflow_id)
            if run is not None and tracked is not None and tracked.stored is not None:
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
            self._assembler.put(tracked.stored, run.status, tracked, mark_time=tracked.mark.time)
