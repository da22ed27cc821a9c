"""The exporter inside Ray: the modules that Ray's dashboard loads, and the child process."""

from __future__ import annotations

import logging

from ..sources.manager import versions


def load() -> None:
    """Import our dashboard modules; called by the shim that `install` writes."""
    import ray

    if versions.supported(ray.__version__):
        from . import modules  # noqa: F401 - Ray finds their classes by itself
    else:
        logging.getLogger(__name__).warning(
            "The workflow exporter is not started: this is Ray %s; it supports Ray %s.",
            ray.__version__,
            versions.SUPPORTED,
        )
