"""Prometheus exporter for Ray Workflows."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import WorkflowNotFoundError, workflow_tasks

__all__ = ["WorkflowNotFoundError", "__version__", "workflow_tasks"]

try:
    __version__ = version("ray-workflow-exporter")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> object:
    # Late, because Ray's dashboard agent imports this package too and has to start fast.
    if name in __all__:
        from . import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
