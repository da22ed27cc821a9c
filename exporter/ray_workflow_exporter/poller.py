"""One poll: list storage, ask the management actor, read what changed, hand runs to the catalog.

The order matters. Storage is listed before the actor is asked, so a run that the actor holds is
live whatever its mark says, and a run that only its mark calls live may have ended in between:
it takes two polls that agree to call a run RESUMABLE or gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar

from .analysis import analyse
from .catalog import Catalog
from .details import Details
from .model import Run, RunStatus, TaskState
from .naming import ClassNames, workflow_class
from .settings import Settings
from .snapshot import RunView
from .sources.records import LinkState, LiveRun, ManagerView, Mark, StoredRun
from .sources.running import RayLink
from .sources.storage import StorageError, WorkflowStorage
from .timebox import TimeBox
from .truth import Evidence, merge

T = TypeVar("T")

# Ray submits all ready tasks at once, so thousands may wait for a CPU. They start about in the
# order of their submission: a look at the first ones of each poll finds the ones that started.
_START_CHECKS = 1000
# Tasks beside a failed one run on and write their files after the run's end: look again after
# these many seconds, as long as they write.
_RECHECKS = (2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
_DISAGREEMENTS = 2  # polls

logger = logging.getLogger(__name__)


@dataclass
class _Tracked:
    """What the poller remembers of one run between polls.

    `stored` is kept for runs that may still change. `lost` and `absent` count polls in a row.
    """

    mark: Optional[Mark] = None
    stored: Optional[StoredRun] = None
    was_live: bool = False
    lost: int = 0
    absent: int = 0
    disagreed: int = 0
    recheck: int = 0
    recheck_at: Optional[float] = None
    touched: set[str] = field(default_factory=set)


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
        self._names = ClassNames(settings.max_classes)
        self._details = Details(link)
        self._box = TimeBox(settings.storage_timeout, "The workflow storage")
        self._storage: Optional[WorkflowStorage] = None
        self._tracked: dict[str, _Tracked] = {}
        self._contact = time.time()  # when Ray last told whether it has a management actor
        self.manager = ManagerView(LinkState.UNREACHABLE, "Ray has not been asked yet.")
        self.manager_seconds = 0.0  # that the last question to Ray took
        self.storage_uri: Optional[str] = settings.storage
        self.storage_error: Optional[str] = "The workflow storage has not been read yet."
        self.listed_at: Optional[float] = None
        self.loading = 0  # finished runs that were listed and not read yet

    @property
    def folded_classes(self) -> int:
        """How many classes count as `other` because of the limit."""
        return self._names.folded

    def poll(self, now: float, budget: float) -> None:
        """Look once; read finished runs that are new for at most about `budget` seconds."""
        if self.storage_uri is None:
            self._ask_manager(now)  # only Ray knows where storage is
        marks = self._list(now)
        view = self._ask_manager(now)
        if marks is not None:
            if self.listed_at is None:
                self._first_listing(marks, now)
            self.listed_at = now
        if self.listed_at is None:
            return  # without storage nothing could be told from history
        for live in view.runs.values():
            self._see_live(live, marks, now)
        if marks is not None:
            self._see_marks(marks, now, budget)
            self._see_gone(marks)
        for workflow_id in self._details.update(self._catalog_runs(), view.state, now):
            self._merge_again(workflow_id)

    @property
    def settled(self) -> bool:
        """Whether all that storage holds is read, and no verdict waits for a second poll."""
        waiting = any(0 < it.lost < _DISAGREEMENTS for it in self._tracked.values())
        return self.storage_error is None and self.loading == 0 and not waiting

    def read_again(self, workflow_id: str) -> Optional[RunView]:
        """Read a run whose tasks the catalog let go; None for any other.

        For any thread. Raises StorageError or TimeoutError.
        """
        known = self._catalog.outline(workflow_id)
        if known is None:
            return None
        stored = self._ask(lambda it: it.read_run(workflow_id))
        if stored is None:
            return None
        run = merge(Evidence(known.workflow, known.status, stored, mark_time=known.end_time))
        return RunView(run, analyse(run), True, tuple(run.tasks.values()))

    def close(self) -> None:
        """Let go of storage and Ray."""
        self._details.close()
        self._link.close()
        self._box.close()

    def _ask_manager(self, now: float) -> ManagerView:
        asked = time.monotonic()
        self.manager = view = self._link.poll()
        self.manager_seconds = time.monotonic() - asked
        self.storage_uri = self.storage_uri or view.storage_uri
        if view.state is not LinkState.UNREACHABLE:
            self._contact = now
        return view

    def _list(self, now: float) -> Optional[dict[str, Mark]]:
        try:
            marks = self._ask(lambda it: it.list_marks())
        except (StorageError, TimeoutError) as error:
            if str(error) != self.storage_error:
                logger.warning("%s", error)
            self.storage_error = str(error)
            return None
        if self.storage_error is not None:
            logger.info("Reading workflow storage: %d runs.", len(marks))
        self.storage_error = None
        return marks

    def _ask(self, question: Callable[[WorkflowStorage], T]) -> T:
        """Ask storage in the time box; raise StorageError or TimeoutError."""
        if self.storage_uri is None:
            raise StorageError(
                "No workflow storage is known yet: Ray has not told its storage. Name it with "
                "--storage if this cluster cannot be reached."
            )
        if self._storage is None:
            self._storage = self._box.call(WorkflowStorage, self.storage_uri)
        return self._box.call(question, self._storage)

    def _read(
        self, tracked: _Tracked, workflow_id: str, only: Optional[Collection[str]] = None
    ) -> Optional[StoredRun]:
        """Read a run's folder; on a failure return what was read before."""
        if self.storage_error is not None:
            return tracked.stored
        previous = tracked.stored
        try:
            return self._ask(lambda it: it.read_run(workflow_id, previous, only))
        except (StorageError, TimeoutError, ValueError) as error:
            self.storage_error = str(error)
            logger.warning("%s", error)
            return previous

    def _track(self, workflow_id: str) -> _Tracked:
        return self._tracked.setdefault(workflow_id, _Tracked())

    def _see_live(self, live: LiveRun, marks: Optional[Mapping[str, Mark]], now: float) -> None:
        workflow_id = live.workflow_id
        tracked = self._track(workflow_id)
        known = self._catalog.get(workflow_id)
        status = RunStatus.PENDING if live.queued else RunStatus.RUNNING
        fresh = tracked.stored is None or not tracked.was_live
        touched: Optional[set[str]] = None
        if fresh:
            tracked.stored = self._read(tracked, workflow_id)
        else:
            touched = self._wanted(live, known) | tracked.touched
            unstarted = known is None or known.status is not status or known.start_time is None
            if touched or unstarted:
                tracked.stored = self._read(tracked, workflow_id, touched) or tracked.stored
            if not touched and known is not None and not unstarted:
                return
        # Ray tells a change once: what storage could not be asked for waits for the next poll.
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

    def _wanted(self, live: LiveRun, known: Optional[Run]) -> set[str]:
        """Choose the tasks whose files may say something new."""
        wanted = set(live.changed)
        if known is None:
            return wanted
        checks = _START_CHECKS
        for task_id, task in known.tasks.items():
            if task.state is TaskState.PENDING:
                wanted.add(task_id)
                checks -= 1
                if checks == 0:
                    break
        return wanted

    def _see_marks(self, marks: Mapping[str, Mark], now: float, budget: float) -> None:
        changed: list[tuple[float, str, Mark]] = []
        for workflow_id, mark in marks.items():
            if workflow_id in self.manager.runs:
                continue
            tracked = self._track(workflow_id)
            tracked.absent = 0
            if not mark.status.finished:
                self._see_left_over(workflow_id, tracked, mark, now)
            elif tracked.mark != mark or (
                tracked.recheck_at is not None and now >= tracked.recheck_at
            ):
                changed.append((mark.time, workflow_id, mark))
        # Newest first: after a start, what people ask for is there long before all history is.
        changed.sort(reverse=True)
        self.loading = len(changed)
        until = time.monotonic() + budget
        for _, workflow_id, mark in changed:
            if self.storage_error is not None or time.monotonic() > until:
                return
            self._see_finished(workflow_id, self._tracked[workflow_id], mark, now)
            self.loading -= 1

    def _see_finished(self, workflow_id: str, tracked: _Tracked, mark: Mark, now: float) -> None:
        stored = self._read(tracked, workflow_id)
        if stored is None or self.storage_error is not None:
            return
        if stored.status not in (None, mark.status) and tracked.disagreed < _DISAGREEMENTS:
            tracked.disagreed += 1  # the status is just being changed: look again
            return
        tracked.disagreed = 0
        again = tracked.mark == mark
        tracked.mark, tracked.was_live, tracked.lost = mark, False, 0
        tracked.stored = stored
        self._put(stored, mark.status, mark_time=mark.time)
        self._plan_recheck(tracked, workflow_id, mark, now, again)

    def _plan_recheck(
        self, tracked: _Tracked, workflow_id: str, mark: Mark, now: float, again: bool
    ) -> None:
        tracked.recheck = tracked.recheck + 1 if again else 0
        run = self._catalog.get(workflow_id)
        still = run is not None and any(it.state is TaskState.RUNNING for it in run.tasks.values())
        unsettled = mark.status in (RunStatus.FAILED, RunStatus.CANCELED)
        young = now - mark.time < _RECHECKS[-1]
        if unsettled and (still or young) and tracked.recheck < len(_RECHECKS):
            tracked.recheck_at = now + _RECHECKS[tracked.recheck]
            return
        tracked.recheck_at = None
        self._settle(tracked, workflow_id)

    def _settle(self, tracked: _Tracked, workflow_id: str) -> None:
        """Let go of what is only needed while a run may change."""
        tracked.stored = None
        if self._storage is not None:
            self._storage.forget(workflow_id)

    def _see_left_over(self, workflow_id: str, tracked: _Tracked, mark: Mark, now: float) -> None:
        """Look at a run that its mark calls live and the management actor does not hold."""
        silent = self.manager.state is LinkState.UNREACHABLE
        if silent and now - self._contact <= self._settings.manager_grace:
            self._see_unwatched(workflow_id, tracked, mark)
            return
        tracked.lost += 1
        known = self._catalog.get(workflow_id)
        settled = known is not None and known.status is RunStatus.RESUMABLE
        if tracked.lost < _DISAGREEMENTS or (settled and tracked.mark == mark):
            return
        stored = self._read(tracked, workflow_id)
        if stored is None or (stored.status is not None and stored.status.finished):
            return  # it ended since storage was listed
        tracked.mark, tracked.was_live = mark, False
        self._put(stored, RunStatus.RESUMABLE, mark_time=mark.time)
        self._settle(tracked, workflow_id)

    def _see_unwatched(self, workflow_id: str, tracked: _Tracked, mark: Mark) -> None:
        """Say what the files say while Ray cannot be asked."""
        known = self._catalog.get(workflow_id)
        if known is not None and known.status is RunStatus.RESUMABLE and tracked.mark == mark:
            return
        tracked.stored = self._read(tracked, workflow_id) or tracked.stored
        if tracked.stored is not None:
            tracked.was_live = False
            self._put(tracked.stored, mark.status, mark_time=mark.time)

    def _see_gone(self, marks: Mapping[str, Mark]) -> None:
        for workflow_id in self._catalog.ids():
            if workflow_id in marks or workflow_id in self.manager.runs:
                continue
            tracked = self._track(workflow_id)
            tracked.absent += 1
            if tracked.absent >= _DISAGREEMENTS:
                self._catalog.remove(workflow_id)
                self._settle(tracked, workflow_id)
                del self._tracked[workflow_id]

    def _put(self, stored: StoredRun, status: RunStatus, **more: Any) -> None:
        workflow_id = stored.workflow_id
        name = self._names.name(
            workflow_class(workflow_id, stored.user_metadata, self._settings.workflow_key)
        )
        previous = self._catalog.get(workflow_id)
        run = merge(
            Evidence(
                workflow=name,
                status=status,
                stored=stored,
                previous=previous,
                may_still_write=status is RunStatus.FAILED and self.manager.state is LinkState.UP,
                deadline=self._deadline(name, stored),
                details=self._details.of(workflow_id),
                **more,
            )
        )
        self._catalog.put(run, more.get("mark_time"))

    def _deadline(self, name: str, stored: StoredRun) -> Optional[float]:
        """Take the deadline from the run's own metadata (Unix seconds), else from its class."""
        own = stored.user_metadata.get("deadline")
        if isinstance(own, (int, float)) and not isinstance(own, bool):
            return float(own)
        settings = self._settings.classes.get(name)
        if settings is None or settings.deadline is None or stored.start_time is None:
            return None
        return stored.start_time + settings.deadline

    def _catalog_runs(self) -> Iterable[Run]:
        """Runs of which Ray's state API may know more: live ones, and those that failed lately."""
        for workflow_id, tracked in self._tracked.items():
            if tracked.stored is not None:
                run = self._catalog.get(workflow_id)
                if run is not None:
                    yield run

    def _merge_again(self, workflow_id: str) -> None:
        """Bring what Ray's state API told into a run."""
        tracked = self._tracked.get(workflow_id)
        run = self._catalog.get(workflow_id)
        if tracked is None or run is None:
            return
        if workflow_id in self.manager.runs:
            # With the next poll, so that live facts and details meet in one place.
            tracked.touched.update(self._details.news(workflow_id))
        elif tracked.stored is not None and tracked.mark is not None:
            self._put(tracked.stored, run.status, mark_time=tracked.mark.time)
