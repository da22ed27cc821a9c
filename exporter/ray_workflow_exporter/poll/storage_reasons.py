"""Why there is no storage to read, or why it may be the wrong one, in sentences."""

from __future__ import annotations

from typing import Optional

from ..redact import masked_uri
from ..sources.records import LinkCause, ManagerView
from ..sources.storage.filesystem import same_storage


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


def other_storage(read: Optional[str], rays: Optional[str]) -> Optional[str]:
    """Return why the storage that is read is not that of the cluster, None if it is."""
    if same_storage(read, rays):
        return None
    return (
        f"This exporter reads the storage {masked_uri(read or '')}, but Ray uses "
        f"{masked_uri(rays or '')}: finished runs of this cluster are not shown. Give --storage "
        "the value of Ray's --storage."
    )
