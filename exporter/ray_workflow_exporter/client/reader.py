"""What a reader of runs can do, whichever way it reads, and how it fails."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Protocol

if TYPE_CHECKING:  # only for annotations: a command that asks an exporter starts without it
    from ..actions import Verb


class WorkflowNotFoundError(LookupError):
    """There is no run of this id."""


class UnreachableError(ConnectionError):
    """Neither an exporter nor workflow storage could be read."""


class RefusedActionError(RuntimeError):
    """The exporter or Ray refuses the action."""


class Reader(Protocol):
    """A way to runs and tasks; what it returns has the shape of the API."""

    acts_itself: bool  # whether actions are carried out by this process and end with it

    @property
    def notes(self) -> list[str]:
        """Sentences on what could not be read, and what that means."""

    @property
    def unsure(self) -> bool:
        """Whether a run shown as RESUMABLE may be live, because Ray was not asked."""

    def refresh(self) -> None:
        """Read again."""

    def runs(
        self,
        statuses: Collection[str] = (),
        workflow: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> list[Any]:
        """Return all runs, or the first `limit`: live ones first, then the newest."""

    def run(self, workflow_id: str) -> Any:
        """Return one run with its stages. Raises WorkflowNotFoundError."""

    def tasks(self, workflow_id: str, states: Collection[str] = ()) -> dict[str, Any]:
        """Return {task_id: metadata} of all tasks, or of those in `states`.

        Raises WorkflowNotFoundError.
        """

    def order(self, verb: Verb, workflow_id: Optional[str], options: Mapping[str, Any]) -> Any:
        """Order an action, and return it. Raises RefusedActionError or WorkflowNotFoundError."""

    def action(self, action_id: str) -> Any:
        """Return an action and its outcome so far."""

    def close(self) -> None:
        """Close connections and end processes."""


def not_found(workflow_id: str, known: Iterable[str]) -> WorkflowNotFoundError:
    """Return the error for an unknown id, with the ids that are nearest to it."""
    near = difflib.get_close_matches(workflow_id, known)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return WorkflowNotFoundError(f"There is no workflow {workflow_id!r}{hint}")
