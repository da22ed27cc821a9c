"""The exporter's own metrics: its polls, series and actions.

They change with every poll and are rendered at its end, so that a scrape only copies bytes. A
change between two polls is rendered by the next scrape.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from . import text
from .blocks import Block, block
from .families import FAMILIES
from .family import Kind

POLL_PHASES = ("list", "read", "manager", "render")
REQUESTS = ("list", "read", "stat")
ACTIONS = ("cancel", "resume", "delete")
RESULTS = ("succeeded", "refused", "failed", "denied")

_PREFIX = "ray_workflow_exporter_"


class SelfMetrics:
    """The families that have no sampler, by their names without `ray_workflow_exporter_`.

    Safe for use by several threads.
    """

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        self._families = {it.name: it for it in FAMILIES if it.samples is None}
        self._by_name: dict[str, Any] = {}
        for it in self._families.values():
            kind: Any = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge}.get(it.kind, Histogram)
            buckets = {"buckets": it.bounds} if it.bounds else {}
            self._by_name[it.name.removeprefix(_PREFIX)] = kind(
                it.name, it.help, it.labels, registry=self._registry, **buckets
            )
        self._lock = threading.Lock()
        self._ready: dict[bool, Block] = {}  # by whether it is OpenMetrics
        # A counter that first appears at 1 has no increase for Prometheus to see.
        for phase in POLL_PHASES:
            self.count("poll_errors_total", phase, by=0)
        for kind in REQUESTS:
            self.count("storage_requests_total", kind, by=0)
        for action, result in product(ACTIONS, RESULTS):
            self.count("actions_total", action, result, by=0)
        self._version = version
        self.set_ray_version("")
        self.set("state_up", 1)
        self.set("storage_verified", 1)

    def expose_process_metrics(self) -> None:
        """Expose memory, CPU, open files and start of this process as `process_…`."""
        ProcessCollector(registry=self._registry)

    def set_ray_version(self, ray_version: str) -> None:
        """Record the version of the cluster's Ray."""
        self._by_name["build_info"].clear()
        self.set("build_info", 1, self._version, platform.python_version(), ray_version)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._metric(name, labels).set(value)

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Increase a counter."""
        with self._lock:
            self._metric(name, labels).inc(by)

    def observe(self, name: str, seconds: float) -> None:
        """Add an observation to a histogram."""
        with self._lock:
            self._metric(name, ()).observe(seconds)

    def _metric(self, name: str, labels: Sequence[str]) -> Any:
        self._ready = {}  # outdated by what the caller does
        metric = self._by_name[name]
        return metric.labels(*labels) if labels else metric

    def prepare(self) -> None:
        """Render the metrics for the next scrapes."""
        with self._lock:
            self._ready = {kind: block(self._text(openmetrics=kind)) for kind in (False, True)}

    def block(self, *, openmetrics: bool = False) -> Block:
        """Return headers and samples, without `# EOF`."""
        return self._ready.get(openmetrics) or block(self._text(openmetrics=openmetrics))

    def _text(self, *, openmetrics: bool) -> bytes:
        """Render headers and samples.

        Done here and not by prometheus_client, which in the text format adds a `_created` family
        to each counter and histogram unless that is switched off for the whole process.
        """
        parts: list[str] = []
        for metric in self._registry.collect():
            name = metric.name + ("_total" if metric.type == "counter" else "")
            family = self._families.get(name)
            unit = family.unit if family else ""
            samples = [it for it in metric.samples if not it.name.endswith("_created")]
            if samples:
                parts.append(
                    text.header(
                        name, metric.type, unit, metric.documentation, openmetrics=openmetrics
                    )
                )
            for sample in samples:
                label_text = text.labels(sample.labels.keys(), sample.labels.values())
                parts.append(text.line(sample.name, label_text, sample.value))
        return "".join(parts).encode()
