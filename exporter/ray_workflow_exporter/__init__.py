"""Prometheus exporter for Ray Workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client.client import workflow_tasks
    from .client.reader import WorkflowNotFoundError

    __version__: str

__all__ = ["WorkflowNotFoundError", "__version__", "workflow_tasks"]

SERVER_NAME = "ray-workflow-exporter"  # in the header `Server` of all answers


def __getattr__(name: str) -> object:
    # On demand: Ray's dashboard agent imports this package too, and commands have to start fast.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ray-workflow-exporter")
        except PackageNotFoundError:  # run from a source tree that is not installed
            return "0+unknown"
    if name in __all__:
        from .client import client, reader

        return getattr(client if name == "workflow_tasks" else reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
