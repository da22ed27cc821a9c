"""The exporter: polls in its own thread and answers from the last snapshot."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Optional

from .actions import Actions
from .catalog.catalog import Catalog
from .catalog.counters import Counters
from .catalog.feed import Change
from .catalog.run_cache import RunCache
from .catalog.snapshot import RunView, Snapshot
from .catalog.state_files import StateFiles, StateInUseError
from .metrics.exposition import Renderer, page
from .metrics.family import Options, Tier
from .metrics.own import REQUESTS, SelfMetrics
from .poll.archive import Archive
from .poll.poller import Poller
from .settings.settings import Settings
from .sources.manager.link import RayLink
from .sources.records import LinkState, Mark

# Time for finished runs that a poll finds for the first time: live runs must not wait for a long
# history.
_READ_SECONDS = 1.0
_START_SECONDS = 30.0  # that a command waits for its link to Ray, on a busy machine
_SAME_FAILURE_SECONDS = 60.0  # between two log lines about the same failure
_CHECK_SECONDS = 60.0  # between two looks for workflows that no longer exist

logger = logging.getLogger(__name__)


class Exporter:
    """Observes the workflows of one cluster.

    With `keep`, counters and finished runs are saved in the state folder; commands that poll once
    do without. All methods may be called from any thread.
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
            self._count_action,
            lambda: self._poller.manager,
        )
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._begun = time.time()
        self._heartbeat = self._started = time.monotonic()  # no timer follows the wall clock
        self._next_check = 0.0
        self._to_forget: deque[str] = deque()
        self._phase = "read"  # of the poll
        self._unreadable = self._restarts = 0  # of the poll before
        self._requests = dict.fromkeys(REQUESTS, 0)  # counted so far
        self._ray_version = ""
        self._snapshot = Snapshot(self._begun, storage_up=False, manager_up=False)
        self._exposition = self._renderer.render(self._snapshot)

    def start(self) -> None:
        """Start polling in the background."""
        self._own.expose_process_metrics()
        self._thread = threading.Thread(target=self._loop, name="poll", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop polling and close all files and links; wait for a poll that is running."""
        self._stop.set()
        self.actions.close()
        if self._thread is not None:
            self._thread.join(timeout=self._settings.manager_timeout + 1.0)
        self._archive.close()
        self._poller.close()
        # A hanging poll may still write: the end of the process unlocks the files then.
        if self._files is not None and not (self._thread and self._thread.is_alive()):
            self._files.close()

    def poll_once(self, budget: float = _READ_SECONDS) -> None:
        """Poll once and publish the result. Not while polls run in the background.

        New finished runs are read for at most about `budget` seconds.
        """
        started, now = time.monotonic(), time.time()
        self._phase = "read"
        while self._to_forget:
            workflow = self._to_forget.popleft()
            if self._catalog.may_forget(workflow):
                self._catalog.forget_workflow(workflow)
                self._poller.names.release(workflow)
        self._poller.poll(now, budget)
        if self._poller.settled:
            self._counters.advance(now)
            if now >= self._next_check:
                self._next_check = now + _CHECK_SECONDS
                for workflow in self._catalog.check_workflows(now):
                    self._poller.names.release(workflow)
        # Saved before it is exposed: see Counters.save. A run in the cache counts as observed.
        self._counters.save()
        self._poller.save()
        self._phase = "render"
        self._publish(now)
        self.actions.retry_waiting()
        self._own.set("runs_to_read", self._poller.loading)
        self._own.set("last_poll_timestamp_seconds", time.time())
        self._own.observe("poll_duration_seconds", time.monotonic() - started)
        self._own.prepare()
        self._heartbeat = time.monotonic()

    def load(self) -> None:
        """Poll until Ray has answered or cannot be reached, and all of storage is read.

        For commands that poll once.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self.poll_once(budget=float("inf"))
            waiting = self._link.starting and time.monotonic() < deadline
            if not waiting and (self._poller.settled or self._poller.reader.error is not None):
                return
            if not self._poller.loading:
                self._stop.wait(0.1)

    @property
    def snapshot(self) -> Snapshot:
        """The last snapshot; without objects if it is older than `max_staleness`."""
        if not self._is_stale():
            return self._snapshot
        return Snapshot(self._snapshot.at, storage_up=False, manager_up=self._manager_up())

    @property
    def ready(self) -> bool:
        """Whether storage was read at least once, or the cluster has none."""
        return self._poller.listed_at is not None or self._poller.without_storage

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the last poll ended, with or without an error."""
        return time.monotonic() - self._heartbeat

    @property
    def status(self) -> Mapping[str, Any]:
        """Facts about the exporter itself, by name, for users to read."""
        poller = self._poller
        return {
            "storage": poller.reader.uri,
            "storage_error": poller.reader.error,
            "storage_warning": poller.storage_warning,
            "manager": poller.manager.state.value,
            "manager_reason": poller.manager.reason,
            "ray_version": poller.manager.ray_version,
            "session_name": poller.manager.session_name,
            "last_poll": poller.listed_at,
            "finished_runs_to_read": poller.loading,
            "state_error": self._state_error(),
        }

    def metrics(
        self,
        *,
        openmetrics: bool = False,
        tiers: Optional[Collection[Tier]] = None,
        gzip: bool = False,
    ) -> Sequence[bytes]:
        """Return the exposition of `tiers` (None: all), in text 0.0.4 or OpenMetrics 1.0."""
        exposition = Renderer().render(self.snapshot) if self._is_stale() else self._exposition
        return page(exposition, self._own, openmetrics=openmetrics, tiers=tiers, gzip=gzip)

    def run(self, workflow_id: str) -> Optional[RunView]:
        """Return one run, None if there is no such run.

        A run too old to be exposed is read from storage again, which may take some time. Raises
        StorageError or TimeoutError if that fails.
        """
        old = self._archive.read(workflow_id, self._poller.reader.uri)
        return old or self._catalog.view(workflow_id)

    def runs(self) -> Sequence[RunView]:
        """Return all runs, live ones first, then the newest."""
        return self._catalog.views()

    @property
    def last_change(self) -> int:
        """The sequence number of the newest change."""
        return self._catalog.feed.last

    def changes(self, after: int) -> list[Change]:
        """Return what changed after the given sequence number."""
        return self._catalog.feed.after(after)

    def forget_workflow(self, workflow: str) -> bool:
        """Drop the counters of a workflow with the next poll; False if there are none.

        Raises ValueError if it still has runs, or is named in the settings.
        """
        if workflow not in self._counters.workflows:
            return False
        if not self._catalog.may_forget(workflow):
            raise ValueError(
                f"The workflow {workflow!r} still has runs or is named in the settings. Delete "
                "them first."
            )
        self._to_forget.append(workflow)
        return True

    def _loop(self) -> None:
        failures = _FailureLog()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.poll_once()
            except Exception as error:
                # An error in one poll must not end all polls.
                failures.add(error)
                self._own.count("poll_errors_total", self._phase)
                self._heartbeat = time.monotonic()
            else:
                failures.end()
            self._stop.wait(max(0.0, self._settings.interval - (time.monotonic() - began)))

    def _count_action(self, action: str, result: str) -> None:
        self._own.count("actions_total", action, result)
        if result == "succeeded":
            self._poller.unseen = True  # a run may be gone

    def _first_listing(self, marks: Mapping[str, Mark], now: float) -> None:
        files = None
        if self._keep:
            try:
                files = self._files = StateFiles(self._settings, self._poller.reader.uri)
            except RuntimeError as error:  # `~` for a user without a home directory
                logger.error(
                    "There is no folder for the state files (%s). The exporter keeps its counters "
                    "in memory and starts at zero after a restart. Set --state-dir.", error,
                )  # fmt: skip
        self._counters.begin(marks, now, files.counters if files else None)
        for workflow in self._counters.workflows:  # their names from before a restart
            self._poller.names.name(workflow)
        if files is not None:
            self._poller.cache = RunCache(files.runs, marks)

    def _state_error(self) -> Optional[str]:
        """Return why the state files cannot be used, None if they can."""
        if not self._keep or self._poller.listed_at is None:
            return None
        cache, saved = self._poller.cache, self._counters.saved and self._files is not None
        if saved and (cache is None or cache.error is None):
            return None
        what = "the cache of finished runs" if saved else "counters"
        return f"The state folder cannot be used for {what}; see the log."

    def _publish(self, now: float) -> None:
        poller, view = self._poller, self._poller.manager
        snapshot = self._catalog.snapshot(
            now,
            storage_up=poller.reader.error is None,
            manager_up=self._manager_up(),
            running_limit=view.running_limit,
            pending_limit=view.pending_limit,
            folded_workflows=poller.names.folded,
        )
        if replace(self._snapshot, at=now) != snapshot:
            self._exposition = self._renderer.render(snapshot)
            for row in self._exposition:
                self._own.set("series", row.samples.lines, row.family.name)
        self._snapshot = snapshot
        if view.ray_version is not None and view.ray_version != self._ray_version:
            self._ray_version = view.ray_version
            self._own.set_ray_version(view.ray_version)
        if view.state is LinkState.UP:
            self._own.observe("probe_duration_seconds", poller.manager_seconds)
        if poller.reader.error is not None:
            self._own.count("poll_errors_total", "list")
        self._own.count("poll_errors_total", "read", by=poller.reader.unreadable - self._unreadable)
        self._unreadable = poller.reader.unreadable
        for kind in REQUESTS:
            made = poller.reader.requests(kind) + self._archive.requests(kind)
            self._own.count("storage_requests_total", kind, by=made - self._requests[kind])
            self._requests[kind] = made
        if view.state is LinkState.UNREACHABLE:
            self._own.count("poll_errors_total", "manager")
        self._own.count("link_restarts_total", by=max(0, view.restarts - self._restarts))
        self._restarts = view.restarts
        self._own.set("state_up", self._state_error() is None)
        self._own.set("storage_verified", poller.storage_warning is None)
        visible = time.time()
        for moment in self._catalog.feed.take_moments():
            # What happened before the exporter started says nothing about its latency.
            if self._begun < moment <= visible:
                self._own.observe("change_latency_seconds", visible - moment)

    def _manager_up(self) -> Optional[bool]:
        state = self._poller.manager.state
        return None if state is LinkState.OFF else state is LinkState.UP

    def _is_stale(self) -> bool:
        if self._poller.without_storage:
            return False
        age = self._poller.listing_age
        if age is None:
            age = time.monotonic() - self._started
        return age > self._settings.max_staleness


class _FailureLog:
    """Logs failed polls without filling the log."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[object, ...]] = Counter()
        self._next_line: dict[tuple[object, ...], float] = {}
        self._failing = False

    def add(self, error: Exception) -> None:
        """Log a failure: with its traceback if it is new, else in one line a minute."""
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        # Its text may be different each time.
        failure = type(error), frame.f_code.co_filename, line
        self._counts[failure] += 1
        now = time.monotonic()
        if failure not in self._next_line and isinstance(error, StateInUseError):
            logger.error("%s", error)
        elif failure not in self._next_line:
            logger.error("A poll failed. Polling continues.", exc_info=error)
        elif now >= self._next_line[failure]:
            logger.error("Polls have failed %d times with %r.", self._counts[failure], error)
        else:
            return
        self._failing = True
        self._next_line[failure] = now + _SAME_FAILURE_SECONDS

    def end(self) -> None:
        """Log that polls succeed again, if a failure was logged."""
        if self._failing:
            self._failing = False
            logger.warning("Polls succeed again.")
