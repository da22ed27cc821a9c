"""The exporter inside Ray: what Ray's dashboard loads, and the process that it starts."""

from __future__ import annotations

import logging

from ..sources.manager import versions


def load() -> None:
    """Give this Ray's dashboard our modules; called by the shim that `install` writes."""
    import ray

    if versions.supported(ray.__version__):
        from . import modules  # noqa: F401 - Ray finds their classes by itself
    else:
        logging.getLogger(__name__).warning(
            "The workflow exporter stays off: this is Ray %s, and it works inside Ray %s.",
            ray.__version__,
            versions.SUPPORTED,
        )
