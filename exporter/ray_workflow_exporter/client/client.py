"""Choose how to read runs and tasks: from a running exporter, or from storage and cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Optional, Union

from ..settings.addresses import join_address, local_host, parse_listen
from ..settings.settings import Settings
from .http_reader import HttpReader

if TYPE_CHECKING:  # imports all of the exporter
    from .direct_reader import DirectReader

    # Ways to runs and tasks; what they return has the shape of the API.
    Reader = Union[HttpReader, DirectReader]


def workflow_tasks(
    workflow_id: str,
    *,
    storage: Optional[str] = None,
    address: Optional[str] = None,
    url: Optional[str] = None,
) -> dict[str, dict[str, Any]]:
    """Return {task_id: metadata} of one run, the metadata as in the API's `.../tasks`.

    With `url` a running exporter is asked. Otherwise workflow storage and the cluster's memory
    are read, with the settings of the environment and of the file that it names; in a process
    that is connected to Ray, storage and address default to those of its cluster. Raises
    WorkflowNotFoundError, UnreachableError or SettingsError.
    """
    if url is not None:
        reader: Reader = HttpReader(url)
    else:
        if storage is None and address is None:
            storage, address = _own_cluster()
        flags = {"storage": storage, "address": address}
        reader = read_directly(Settings.load_here(flags))
    try:
        return reader.tasks(workflow_id)
    finally:
        reader.close()


def find_exporter(
    settings: Settings, url: Optional[str] = None, token: Optional[str] = None
) -> Optional[HttpReader]:
    """Return a reader of `url`, else of the exporter on this machine; None if it has none."""
    if url is not None:
        return HttpReader(url, token)
    reader = HttpReader(local_url(settings), token)
    if reader.answers():
        return reader
    reader.close()
    return None


def read_directly(settings: Settings) -> DirectReader:
    """Return a reader of storage and cluster."""
    from .direct_reader import DirectReader

    return DirectReader(settings)


def local_url(settings: Settings) -> str:
    """Return the URL of the exporter that runs on this machine with these settings."""
    host, port = parse_listen(settings.listen)
    return f"http://{join_address(local_host(host), port)}"


def _own_cluster() -> tuple[Optional[str], Optional[str]]:
    """Return storage and address of the cluster that this process is connected to, if it is."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None, None
    try:
        from ray._private.storage import _get_storage_uri
    except ImportError:  # gone with Ray 2.48, as workflows are
        return None, ray.get_runtime_context().gcs_address
    return _get_storage_uri(), ray.get_runtime_context().gcs_address
