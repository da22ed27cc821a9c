"""How reading and acting fail, whichever way runs are read."""

from __future__ import annotations

from collections.abc import Iterable

from ..settings.problems import nearest


class WorkflowNotFoundError(LookupError):
    """There is no run of this id."""


class UnreachableError(ConnectionError):
    """Neither an exporter nor workflow storage could be read."""


class RefusedActionError(RuntimeError):
    """The exporter or Ray refuses the action."""


def not_found(workflow_id: str, known: Iterable[str]) -> WorkflowNotFoundError:
    """Return the error for an unknown id, with the ids that are nearest to it."""
    near = nearest(workflow_id, known)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return WorkflowNotFoundError(f"There is no workflow {workflow_id!r}{hint}")
