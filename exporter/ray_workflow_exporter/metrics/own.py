"""The exporter's own metrics: its polls, series and actions.

They change with every poll and are rendered at its end, so that a scrape only copies bytes. A
change between two polls is rendered by the next scrape.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from . import text
from .blocks import Block, block
from .families import FAMILIES
from .family import Family, Kind

POLL_PHASES = ("list", "read", "manager", "render")
ACTIONS = ("cancel", "resume", "delete")
RESULTS = ("succeeded", "refused", "failed", "denied")

_PREFIX = "ray_workflow_exporter_"


class SelfMetrics:
    """The families that have no sampler. Safe for use by several threads."""

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        self._by_name: dict[str, Any] = {}
        self._families = {it.name: it for it in FAMILIES if it.samples is None}
        for family in self._families.values():
            self._by_name[family.name] = self._made(family)
        self._link_restarts = 0
        self._lock = threading.Lock()
        self._ready: dict[bool, Block] = {}  # by whether it is OpenMetrics
        # A counter that first appears at 1 has no increase for Prometheus to see.
        for phase in POLL_PHASES:
            self._of("poll_errors_total").labels(phase)
        for action, result in product(ACTIONS, RESULTS):
            self._of("actions_total").labels(action, result)
        self._version = version
        self.set_ray_version("")
        self.set_state_up(True)

    def expose_process_metrics(self) -> None:
        """Expose memory, CPU, open files and start of this process as `process_…`."""
        ProcessCollector(registry=self._registry)

    def set_ray_version(self, ray_version: str) -> None:
        """Record the version of the cluster's Ray."""
        build_info = self._of("build_info")
        build_info.clear()
        build_info.labels(self._version, platform.python_version(), ray_version).set(1)

    def observe_poll(self, at: float, seconds: float) -> None:
        """Record a poll that ended at `at` (Unix seconds) and took `seconds`."""
        self._of("last_poll_timestamp_seconds").set(at)
        self._of("poll_duration_seconds").observe(seconds)

    def set_runs_to_read(self, runs: int) -> None:
        """Record how many finished runs are listed but not read yet."""
        self._of("runs_to_read").set(runs)

    def count_poll_error(self, phase: str) -> None:
        """Count an error in one of POLL_PHASES."""
        self._of("poll_errors_total").labels(phase).inc()

    def observe_probe(self, seconds: float) -> None:
        """Record an answer of the WorkflowManagementActor."""
        self._of("probe_duration_seconds").observe(seconds)

    def observe_change_latency(self, seconds: float) -> None:
        """Record the seconds between a change in Ray and its first snapshot."""
        self._of("change_latency_seconds").observe(seconds)

    def set_series(self, series: Mapping[str, int]) -> None:
        """Record the number of series of each family, from `Exposition.series`."""
        for family, count in series.items():
            self._of("series").labels(family).set(count)

    def count_action(self, action: str, result: str) -> None:
        """Count an action on a run that a user requested."""
        with self._lock:
            self._of("actions_total").labels(action, result).inc()

    def set_link_restarts(self, total: int) -> None:
        """Record the number of restarts of the link to Ray since the exporter started."""
        self._of("link_restarts_total").inc(max(0, total - self._link_restarts))
        self._link_restarts = total

    def set_state_up(self, up: bool) -> None:
        """Record whether the state files can be used."""
        self._of("state_up").set(int(up))

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

    def _made(self, family: Family) -> Any:
        about = family.name, family.help, family.labels
        if family.kind is Kind.HISTOGRAM:
            return Histogram(*about, buckets=family.bounds, registry=self._registry)
        if family.kind is Kind.COUNTER:
            return Counter(*about, registry=self._registry)
        return Gauge(*about, registry=self._registry)

    def _of(self, name: str) -> Any:
        self._ready = {}  # outdated by what the caller does
        return self._by_name[_PREFIX + name]
