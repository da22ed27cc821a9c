"""Wait for what a link to Ray sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from ray_workflow_exporter.sources.manager.link import RayLink
from ray_workflow_exporter.sources.records import (
    LinkState,
    ManagerView,
)
from support.waiting import wait_until


def seen(link: RayLink, good: Callable[[ManagerView], object], timeout: float = 60) -> ManagerView:
    """Poll until `good` says so, and return that view."""
    last = ManagerView(LinkState.OFF)

    def look() -> Optional[ManagerView]:
        nonlocal last
        last = link.poll()
        return last if good(last) else None

    try:
        return wait_until(look, timeout=timeout)
    except AssertionError as error:
        raise AssertionError(f"the link never saw it, at last {last}") from error
