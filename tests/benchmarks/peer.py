"""prometheus_client as the peer: the same samples in its hands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def registry_of(lines: Iterable[bytes]) -> CollectorRegistry:
    """Hold the samples of an exposition as an exporter written with prometheus_client would.

    Each sample is the child of a gauge: of all its metrics the one that costs the least. Equal
    label values are one string.
    """
    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for raw in lines:
        if raw.startswith(b"#"):
            continue
        series, _, value = raw.decode().rpartition(" ")
        name, _, text = series.partition("{")
        labels = _LABEL.findall(text)
        if name not in gauges:
            names = [label for label, _ in labels]
            gauges[name] = Gauge(name, "The same words for all.", names, registry=registry)
        child = gauges[name].labels(*(sys.intern(it) for _, it in labels)) if labels else None
        (child or gauges[name]).set(float(value))
    return registry
