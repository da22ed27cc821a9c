"""Merge what the sources say of a run, and put the run into the catalog."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Optional

from ..catalog.catalog import Catalog
from ..model import Run, RunStatus
from ..runs.evidence import Evidence
from ..runs.merge import merge, outline_suffices
from ..runs.naming import WorkflowNames, workflow_name
from ..settings.settings import Settings
from ..sources.records import EndedLife, LiveRun, Mark, StoredRun
from .task_details import Details
from .tracked import FOLLOWED_SECONDS, Tracked


class Assembler:
    """Puts runs into the catalog, merged from the sources or from the cache."""

    def __init__(self, settings: Settings, catalog: Catalog, details: Details) -> None:
        self._settings = settings
        self._catalog = catalog
        self._details = details
        self.manager_up = False  # whether Ray's management actor answered the last poll
        self.names = WorkflowNames(settings.max_workflows)
        for name in settings.workflows:  # expectations never apply to `other`
            self.names.name(name)

    def outline_suffices(self, stored: StoredRun, mark: Mark, now: float) -> bool:
        """Whether it is enough to read a finished run in outline."""
        name, _ = self._expected(stored.workflow_id, stored.user_metadata, stored.start_time)
        end = stored.end_time
        return (
            end is not None
            and mark.status is stored.status
            and outline_suffices(stored)
            and self._catalog.needs_outline_only(
                stored.workflow_id, name, stored.start_time, end, now
            )
        )

    def put(
        self,
        stored: StoredRun,
        status: RunStatus,
        tracked: Tracked,
        *,
        mark_time: Optional[float],
        live: Optional[LiveRun] = None,
        touched: Optional[Collection[str]] = None,
    ) -> Run:
        """Merge what is known of a run, and put it into the catalog."""
        name, deadline = self._expected(stored.workflow_id, stored.user_metadata, stored.start_time)
        previous = self._catalog.get(stored.workflow_id)
        followed = time.time() - (mark_time or 0.0) < FOLLOWED_SECONDS
        run = merge(
            Evidence(
                workflow=name,
                status=status,
                stored=stored,
                live=live,
                previous=previous,
                mark_time=mark_time,
                may_still_write=status is RunStatus.FAILED and self.manager_up and followed,
                deadline=deadline,
                details=self._details.of(stored.workflow_id),
                touched=touched,
            )
        )
        # The end of the life before this one, if it is known and was not observed.
        ended, tracked.ended = tracked.ended, None
        if previous is not None:
            run = _without_replay(previous, run)
            failed = _failed_before(previous, run, stored.end_time)
            resumed = live is not None and live.resumed
            if ended is None or (resumed and ended.status is RunStatus.FAILED):
                # The actor cannot tell a failure from a cancel, of which storage notes no end.
                ended = failed or (ended and EndedLife(RunStatus.CANCELED, None))
        number = live.life if live is not None else None
        self._catalog.put(run, mark_time, number, ended)
        return run

    def restore(self, run: Run, mark_time: float, now: float) -> bool:
        """Put a run from the cache; return whether that suffices under the present settings."""
        name, deadline = self._expected(run.workflow_id, run.user_metadata, run.start_time)
        if run.outlined and not self._catalog.needs_outline_only(
            run.workflow_id, name, run.start_time, run.end_time or 0.0, now
        ):
            return False
        self._catalog.put(replace(run, workflow=name, deadline=deadline), mark_time)
        return True

    def _expected(
        self, workflow_id: str, user_metadata: Mapping[str, Any], start_time: Optional[float]
    ) -> tuple[str, Optional[float]]:
        """Return workflow and deadline (Unix seconds), the run's own or that of its workflow."""
        key = self._settings.workflow_key
        name = self.names.name(workflow_name(workflow_id, user_metadata, key))
        own = user_metadata.get("deadline")
        if isinstance(own, (int, float)) and not isinstance(own, bool):
            return name, float(own)
        settings = self._settings.workflows.get(name)
        if settings is None or settings.deadline is None or start_time is None:
            return name, None
        return name, start_time + settings.deadline


def _without_replay(previous: Run, run: Run) -> Run:
    """Keep the times of a run that succeeded if it was run again.

    Ray answers with the stored result then, but overwrites the times of the run.
    """
    if not previous.status is run.status is RunStatus.SUCCESSFUL or not run.tasks:
        return run
    if _spans(previous) != _spans(run):
        return run
    return replace(
        run,
        start_time=previous.start_time,
        end_time=previous.end_time,
        last_transition=previous.last_transition,
    )


def _spans(run: Run) -> dict[str, tuple[Optional[float], Optional[float]]]:
    return {task_id: (task.start_time, task.end_time) for task_id, task in run.tasks.items()}


def _failed_before(previous: Run, run: Run, end: Optional[float]) -> Optional[EndedLife]:
    """Return the failure of a run that was resumed before anybody saw that it had failed.

    A resume leaves the end of the life before it; only a failed run has one and can be resumed.
    """
    start, was = run.start_time, previous.start_time
    if run.status.finished or start is None or was is None or end is None:
        return None
    between = was <= end <= start or (start == was <= end)  # the new start may not be written yet
    return EndedLife(RunStatus.FAILED, end) if between else None
