"""What the web server needs from the exporter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Optional, Protocol

from aiohttp import web

from ..actions import Actions
from ..catalog.catalog import Change
from ..catalog.snapshot import RunView
from ..metrics.family import Tier
from ..responses import Responses
from ..settings.settings import Settings

API = "/api/v1"


class Source(Protocol):
    """The exporter, as the server sees it. Called from any thread; only `run` may block."""

    @property
    def ready(self) -> bool:
        """Whether the first poll is done."""

    @property
    def heartbeat_age(self) -> float:
        """Seconds since a poll last ended, or since the loop began."""

    @property
    def status(self) -> Mapping[str, Any]:
        """Facts about the exporter itself, by name, for people to read."""

    def run(self, workflow_id: str) -> Optional[RunView]:
        """Return one run, None when there is no such run; an old one is read from storage.

        Raises StorageError or TimeoutError.
        """

    def runs(self) -> Sequence[RunView]:
        """Return all runs, live ones first, then the newest."""

    @property
    def actions(self) -> Actions:
        """What may be done to runs."""

    def forget_workflow(self, workflow: str) -> bool:
        """Drop the counters of a workflow; False if there are none. Raises ValueError."""

    @property
    def last_change(self) -> int:
        """The sequence number of the newest change."""

    def changes(self, after: int) -> list[Change]:
        """Return what changed after the given sequence number, as far as it is still known."""

    def metrics(
        self, *, openmetrics: bool, tiers: Optional[Collection[Tier]], gzip: bool
    ) -> Sequence[bytes]:
        """Return the answer to a scrape, in text 0.0.4 or OpenMetrics 1.0; None: all tiers."""


SOURCE: web.AppKey[Source] = web.AppKey("source")
SETTINGS: web.AppKey[Settings] = web.AppKey("settings")
RESPONSES: web.AppKey[Responses] = web.AppKey("responses")
