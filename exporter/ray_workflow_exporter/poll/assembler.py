"""From what the sources say of a run to the run in the catalog: workflow, deadline and tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Optional

from ..catalog.catalog import Catalog
from ..model import Run, RunStatus
from ..runs.merge import Evidence, merge, outline_suffices
from ..runs.naming import WorkflowNames, workflow_name
from ..settings.settings import Settings
from ..sources.records import Mark, StoredRun
from .task_details import Details


class Assembler:
    """Puts runs into the catalog, made anew or as they were remembered."""

    def __init__(self, settings: Settings, catalog: Catalog, details: Details) -> None:
        self._settings = settings
        self._catalog = catalog
        self._details = details
        self._names = WorkflowNames(settings.max_workflows)
        self.know(settings.workflows)  # what is expected of a workflow is never told of `other`

    @property
    def folded_workflows(self) -> int:
        """How many workflows count as `other` because of the limit."""
        return self._names.folded

    def know(self, workflows: Iterable[str]) -> None:
        """Give their places to workflows that were counted before a restart."""
        for name in workflows:
            self._names.name(name)

    def outline_suffices(self, stored: StoredRun, mark: Mark, now: float) -> bool:
        """Whether no more than its outline has to be read of a run that is not live."""
        name, _ = self._expected(stored.workflow_id, stored.user_metadata, stored.start_time)
        end = stored.end_time
        return (
            end is not None
            and mark.status is stored.status
            and outline_suffices(stored)
            and self._catalog.needs_outline_only(stored.workflow_id, name, end, mark.time, now)
        )

    def put(self, stored: StoredRun, status: RunStatus, **more: Any) -> Run:
        """Make a run of what storage says and of `more`, the other fields of the evidence."""
        name, deadline = self._expected(stored.workflow_id, stored.user_metadata, stored.start_time)
        run = merge(
            Evidence(
                workflow=name,
                status=status,
                stored=stored,
                previous=self._catalog.get(stored.workflow_id),
                deadline=deadline,
                details=self._details.of(stored.workflow_id),
                **more,
            )
        )
        self._catalog.put(run, more.get("mark_time"))
        return run

    def restore(self, run: Run, mark_time: float, now: float) -> bool:
        """Take a run as it was made earlier, perhaps with other settings; tell if it suffices."""
        name, deadline = self._expected(run.workflow_id, run.user_metadata, run.start_time)
        if run.outlined and not self._catalog.needs_outline_only(
            run.workflow_id, name, run.end_time or 0.0, mark_time, now
        ):
            return False
        self._catalog.put(replace(run, workflow=name, deadline=deadline), mark_time)
        return True

    def _expected(
        self, workflow_id: str, user_metadata: Mapping[str, Any], start_time: Optional[float]
    ) -> tuple[str, Optional[float]]:
        """Return workflow and deadline (Unix seconds), the run's own or that of its workflow."""
        key = self._settings.workflow_key
        name = self._names.name(workflow_name(workflow_id, user_metadata, key))
        own = user_metadata.get("deadline")
        if isinstance(own, (int, float)) and not isinstance(own, bool):
            return name, float(own)
        settings = self._settings.workflows.get(name)
        if settings is None or settings.deadline is None or start_time is None:
            return name, None
        return name, start_time + settings.deadline
