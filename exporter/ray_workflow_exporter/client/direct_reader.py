"""Read storage and cluster in this process, without a running exporter."""

from __future__ import annotations

import getpass
from collections.abc import Collection, Mapping
from typing import Any, Optional

from ..actions import Order, Refusal, RefusedError, Verb
from ..catalog.snapshot import RunView
from ..exporter import Exporter
from ..responses import Responses, action_metadata
from ..settings.settings import Settings
from ..sources.records import LinkState
from ..sources.storage.filesystem import StorageError
from .reader import RefusedActionError, UnreachableError, not_found

_NOT_ASKED = {LinkState.OFF.value, LinkState.UNREACHABLE.value, LinkState.UNSUPPORTED.value}
_UNSURE = "Live runs cannot be told from interrupted ones: `RESUMABLE?` stands for both."


class DirectReader:
    """Reads storage and cluster in this process."""

    acts_itself = True

    def __init__(self, settings: Settings) -> None:
        self._responses = Responses(error_messages=settings.expose_error_messages)
        self._exporter = Exporter(settings)
        try:
            self._exporter.load()
            problem = self._exporter.status["storage_error"]
            if problem is not None:
                raise UnreachableError(problem)
        except BaseException:
            self._exporter.close()
            raise

    @property
    def unsure(self) -> bool:
        """Whether a run shown as RESUMABLE may be live."""
        return self._exporter.status.get("manager") in _NOT_ASKED

    @property
    def warnings(self) -> list[str]:
        """Sentences on why the runs may not be those of the cluster."""
        warning = self._exporter.status.get("storage_warning")
        return [warning] if warning else []

    @property
    def notes(self) -> list[str]:
        """Sentences on what Ray could not be asked."""
        status = self._exporter.status
        state, reason = status.get("manager"), status.get("manager_reason")
        if state == LinkState.OFF.value:
            return [f"Ray was not asked (--address none). {_UNSURE}"]
        if state in _NOT_ASKED:
            return [f"{reason} {_UNSURE}"]
        if status.get("storage", "") is None:
            return [str(reason)]
        return []

    def refresh(self) -> None:
        """Poll once."""
        self._exporter.poll_once()

    def runs(
        self,
        statuses: Collection[str] = (),
        workflow: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> list[Any]:
        """Return all runs, or the first `limit`: live ones first, then the newest."""
        found = [
            self._responses.run_summary(view)
            for view in self._exporter.runs()
            if (not statuses or view.run.status.value in statuses)
            and (workflow is None or view.run.workflow == workflow)
        ]
        return found if limit is None else found[:limit]

    def run(self, workflow_id: str) -> Any:
        """Return one run with its stages."""
        return self._responses.run(self._view(workflow_id))

    def tasks(self, workflow_id: str, states: Collection[str] = ()) -> dict[str, Any]:
        """Return {task_id: metadata} of all tasks, or of those in `states`."""
        tasks = self._responses.tasks(self._view(workflow_id))
        return {key: it for key, it in tasks.items() if not states or it["state"] in states}

    def order(self, verb: Verb, workflow_id: Optional[str], options: Mapping[str, Any]) -> Any:
        """Act through this process's own link to Ray, in the name of its user."""
        order = Order(verb, workflow_id, f"{getpass.getuser()} on the command line", **options)
        try:
            return action_metadata(self._exporter.actions.order(order))
        except RefusedError as error:
            if error.refusal is Refusal.UNKNOWN and workflow_id is not None:
                ids = (it.run.workflow_id for it in self._exporter.runs())
                raise not_found(workflow_id, ids) from None
            raise RefusedActionError(str(error)) from None

    def action(self, action_id: str) -> Any:
        """Return an action and what became of it."""
        action = self._exporter.actions.get(action_id)
        assert action is not None
        return action_metadata(action)

    def close(self) -> None:
        """End the exporter's processes."""
        self._exporter.close()

    def _view(self, workflow_id: str) -> RunView:
        try:
            view = self._exporter.run(workflow_id)
        except (StorageError, TimeoutError) as error:
            raise UnreachableError(str(error)) from None
        if view is None:
            raise not_found(workflow_id, (it.run.workflow_id for it in self._exporter.runs()))
        return view
