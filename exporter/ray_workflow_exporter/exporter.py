"""The exporter itself: polls in a thread of its own and answers from the last snapshot."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Optional

from .actions import Actions
from .catalog.catalog import Catalog, Change
from .catalog.counters import Counters
from .catalog.run_cache import RunCache
from .catalog.snapshot import RunView, Snapshot
from .catalog.state_files import StateFiles, StateInUseError
from .metrics.blocks import Body
from .metrics.exposition import Renderer, page
from .metrics.family import Options, Tier
from .metrics.own import SelfMetrics
from .poll.archive import Archive
from .poll.poller import Poller
from .settings.settings import Settings
from .sources.manager.link import RayLink
from .sources.records import LinkState, Mark

# What one poll may spend on finished runs that it sees for the first time: live runs must not
# wait for a long history.
_READ_SECONDS = 1.0
_START_SECONDS = 30.0  # that a command waits for its link to Ray, on a machine that is busy
_SAME_FAILURE_SECONDS = 60.0  # between two lines in the log about it

logger = logging.getLogger(__name__)


class Exporter:
    """Watches the workflows of one cluster.

    With `keep`, counters are kept in the settings' state folder; commands that look once do
    without. All methods may be called from any thread.
    """

    def __init__(self, settings: Settings, *, keep: bool = False) -> None:
        self._settings = settings
        self._keep = keep
        self._files: Optional[StateFiles] = None
        self._counters = Counters()
        self._catalog = Catalog(settings, self._counters)
        self._archive = Archive(settings, self._catalog)
        self._link = RayLink(settings.address, timeout=settings.manager_timeout)
        self._poller = Poller(settings, self._catalog, self._link, self._first_listing)
        self._renderer = Renderer(
            Options(
                detail=Tier(settings.detail),
                error_messages=settings.expose_error_messages,
                meta_labels=settings.metadata_labels,
            )
        )
        self._own = SelfMetrics(version("ray-workflow-exporter"))
        self.actions = Actions(
            self._link.act,
            self._catalog.get,
            self._catalog.ids,
            self._own.count_action,
            lambda: self._poller.manager,
        )
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._begun = self._heartbeat = time.time()
        self._seen_change = 0
        self._phase = "read"  # what a poll is at
        self._unreadable = 0
        self._ray_version = ""
        self._snapshot = Snapshot(self._begun, storage_up=False, manager_up=False)
        self._exposition = self._renderer.render(self._snapshot)

    def start(self) -> None:
        """Begin to poll in the background."""
        self._own.expose_process_metrics()
        self._thread = threading.Thread(target=self._loop, name="poll", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End polling, keep the counters, let go of Ray; waits for a poll under way."""
        self._stop.set()
        self.actions.close()
        if self._thread is not None:
            self._thread.join(timeout=self._settings.manager_timeout + 1.0)
        self._poller.close()
        # A poll that hangs may write yet: the end of the process lets go of the files.
        if self._files is not None and not (self._thread and self._thread.is_alive()):
            self._files.close()

    def poll_once(self, budget: float = _READ_SECONDS) -> None:
        """Look once and publish what was seen. Not while polls run in the background.

        Finished runs that are new are read for at most about `budget` seconds.
        """
        started, now = time.monotonic(), time.time()
        self._phase = "read"
        self._poller.poll(now, budget)
        if self._poller.settled:
            self._counters.advance(now)
        # Kept before it is shown: see Counters.save. What the cache has counts as seen.
        self._counters.save()
        self._poller.save()
        self._phase = "render"
        self._publish(now)
        self.actions.look()
        self._own.set_runs_to_read(self._poller.loading)
        self._own.observe_poll(time.time(), time.monotonic() - started)
        self._own.prepare()
        self._heartbeat = time.time()

    def load(self) -> None:
        """Poll until Ray has answered or cannot be reached, and all of storage is read.

        For commands that look once.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self.poll_once(budget=float("inf"))
            waiting = self._link.starting and time.monotonic() < deadline
            if not waiting and (self._poller.settled or self._poller.storage_error is not None):
                return
            if not self._poller.loading:
                self._stop.wait(0.1)

    @property
    def snapshot(self) -> Snapshot:
        """The last snapshot; without objects once the sources have been silent for too long."""
        return self._stale_snapshot() if self._is_stale() else self._snapshot

    @property
    def ready(self) -> bool:
        """Whether storage was read once."""
        return self._poller.listed_at is not None

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the last poll ended, however it ended."""
        return time.time() - self._heartbeat

    @property
    def status(self) -> Mapping[str, Any]:
        """Facts about the exporter itself, by name, for people to read."""
        poller = self._poller
        return {
            "storage": poller.storage_uri,
            "storage_error": poller.storage_error,
            "manager": poller.manager.state.value,
            "manager_reason": poller.manager.reason,
            "ray_version": poller.manager.ray_version,
            "session_name": poller.manager.session_name,
            "last_poll": poller.listed_at,
            "finished_runs_to_read": poller.loading,
        }

    def metrics(
        self,
        *,
        openmetrics: bool = False,
        tiers: Optional[Collection[Tier]] = None,
        gzip: bool = False,
    ) -> Body:
        """Return the exposition of `tiers` (None: all), in text 0.0.4 or OpenMetrics 1.0."""
        exposition = self._exposition
        if self._is_stale():
            exposition = Renderer().render(self._stale_snapshot())
        return page(exposition, self._own, openmetrics=openmetrics, tiers=tiers, gzip=gzip)

    def run(self, workflow_id: str) -> Optional[RunView]:
        """Return one run, None when there is no such run.

        A run too old to be exposed is read from storage again, which may take a while. Raises
        StorageError or TimeoutError when that fails.
        """
        old = self._archive.read(workflow_id, self._poller.storage_uri)
        return old or self._catalog.view(workflow_id)

    def runs(self) -> Sequence[RunView]:
        """Return all runs, live ones first, then the newest."""
        return self._catalog.views()

    @property
    def last_change(self) -> int:
        """The sequence number of the newest change."""
        return self._catalog.last_change

    def changes(self, after: int) -> list[Change]:
        """Return what changed after the given sequence number."""
        return self._catalog.changes(after)

    def _loop(self) -> None:
        failures = _Failures()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.poll_once()
            except Exception as error:
                # A fault of ours in one poll must not end all polls.
                failures.tell(error)
                self._own.count_poll_error(self._phase)
                self._heartbeat = time.time()
            else:
                failures.over()
            self._stop.wait(max(0.0, self._settings.interval - (time.monotonic() - began)))

    def _first_listing(self, marks: Mapping[str, Mark], now: float) -> None:
        files = None
        if self._keep:
            files = self._files = StateFiles(self._settings, self._poller.storage_uri)
        self._counters.begin(marks, now, files.counters if files else None)
        self._poller.know_workflows(self._counters.workflows)
        if files is not None:
            self._poller.cache = RunCache(files.runs, marks)

    def _publish(self, now: float) -> None:
        poller, view = self._poller, self._poller.manager
        snapshot = self._catalog.snapshot(
            now,
            storage_up=poller.storage_error is None,
            manager_up=self._manager_up(),
            running_limit=view.running_limit,
            pending_limit=view.pending_limit,
            folded_workflows=poller.folded_workflows,
        )
        if snapshot.runs is not self._snapshot.runs or self._shown(snapshot) != self._shown(
            self._snapshot
        ):
            self._exposition = self._renderer.render(snapshot)
            self._own.set_series(self._exposition.series())
        self._snapshot = snapshot
        if view.ray_version is not None and view.ray_version != self._ray_version:
            self._ray_version = view.ray_version
            self._own.set_ray_version(view.ray_version)
        if view.state is LinkState.UP:
            self._own.observe_probe(poller.manager_seconds)
        if poller.storage_error is not None:
            self._own.count_poll_error("list")
        for _ in range(poller.unreadable - self._unreadable):
            self._own.count_poll_error("read")
        self._unreadable = poller.unreadable
        if view.state is LinkState.UNREACHABLE:
            self._own.count_poll_error("manager")
        self._own.set_link_restarts(view.restarts)
        visible = time.time()
        for change in self._catalog.changes(self._seen_change):
            # What happened before the exporter began says nothing about how fast it is.
            if change.moment is not None and self._begun < change.moment <= visible:
                self._own.observe_change_latency(visible - change.moment)
        self._seen_change = self._catalog.last_change

    def _manager_up(self) -> Optional[bool]:
        state = self._poller.manager.state
        return None if state is LinkState.OFF else state is LinkState.UP

    @staticmethod
    def _shown(snapshot: Snapshot) -> tuple[object, ...]:
        return (
            snapshot.storage_up, snapshot.manager_up, snapshot.running_limit,
            snapshot.pending_limit, snapshot.workflows, snapshot.hidden,
        )  # fmt: skip

    def _is_stale(self) -> bool:
        good = self._poller.listed_at or self._begun
        return time.time() - good > self._settings.max_staleness

    def _stale_snapshot(self) -> Snapshot:
        return Snapshot(
            self._snapshot.at,
            storage_up=False,
            manager_up=self._manager_up(),
        )


class _Failures:
    """Tells the log of polls that failed, without filling it."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[object, ...]] = Counter()
        self._next_line: dict[tuple[object, ...], float] = {}
        self._told = False

    def tell(self, error: Exception) -> None:
        """Log a failure: with its traceback when it is new, else in one line a minute."""
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        # Its text may differ each time.
        failure = type(error), frame.f_code.co_filename, line
        self._counts[failure] += 1
        now = time.monotonic()
        if failure not in self._next_line and isinstance(error, StateInUseError):
            logger.error("%s", error)
        elif failure not in self._next_line:
            logger.error("This poll failed; the next one follows.", exc_info=error)
        elif now >= self._next_line[failure]:
            logger.error("Polls failed %d times so far with %r.", self._counts[failure], error)
        else:
            return
        self._told = True
        self._next_line[failure] = now + _SAME_FAILURE_SECONDS

    def over(self) -> None:
        """Log that polls work again, if they were said to fail."""
        if self._told:
            self._told = False
            logger.warning("Polls work again.")
