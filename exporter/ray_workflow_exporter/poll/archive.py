"""Old runs, of which the catalog holds an outline: read from storage for those who ask."""

from __future__ import annotations

import threading
from typing import Optional

from ..analysis.analysis import Analyst
from ..catalog.catalog import Catalog
from ..catalog.snapshot import RunView
from ..runs.evidence import Evidence
from ..runs.merge import merge
from ..settings.settings import Settings
from ..sources.storage.reader import StorageReader
from ..sources.storage.storage import WorkflowStorage

_PATIENCE = 2.0  # seconds that a question waits for the ones before it


class Archive:
    """Reads runs whose tasks the catalog let go. For any thread.

    Not by way of the poll: it must not wait for those who ask, nor hang with them.
    """

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._catalog = catalog
        self._reader = StorageReader(settings.storage, settings.storage_timeout, settings.holds)
        self._asking = threading.Lock()

    def read(self, workflow_id: str, storage_uri: Optional[str]) -> Optional[RunView]:
        """Return such a run, None for any other. Raises StorageError or TimeoutError."""
        known = self._catalog.outline(workflow_id)
        if known is None:
            return None
        if not self._asking.acquire(timeout=_PATIENCE):
            raise TimeoutError("Storage is being read for others who asked; try again.")
        try:
            self._reader.uri = storage_uri
            stored = self._reader.call(WorkflowStorage.read_run, workflow_id)
        finally:
            self._asking.release()
        if stored is None:
            return None
        run = merge(Evidence(known.workflow, known.status, stored, mark_time=known.end_time))
        return RunView(run, Analyst().update(run), True, tuple(run.tasks.values()))

    def requests(self, kind: str) -> int:
        """Return how many requests of a kind were made so far."""
        return self._reader.requests(kind)

    def close(self) -> None:
        """End the thread that reads storage."""
        self._reader.close()
