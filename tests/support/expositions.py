"""What tests ask of an exposition, whatever it shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Callable, Optional

from prometheus_client import Metric
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from ray_workflow_exporter.catalog.snapshot import RunView, Snapshot
from ray_workflow_exporter.metrics import exposition, text
from ray_workflow_exporter.metrics.blocks import EMPTY, Block
from ray_workflow_exporter.metrics.exposition import Exposition, Renderer
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import DEFAULTS, Options, Tier
from ray_workflow_exporter.metrics.own import SelfMetrics
from support.snapshots import START, make_snapshot


class _NoOwnMetrics(SelfMetrics):
    def __init__(self) -> None:
        pass

    def block(self, *, openmetrics: bool = False) -> Block:
        return EMPTY


def series(exposition: Exposition) -> dict[str, int]:
    """Return the number of series of each family."""
    return {row.family.name: row.samples.lines for row in exposition}


def body(exposition: Exposition, **wanted: Any) -> bytes:
    """Return headers and samples in one piece, without the exporter's own metrics."""
    return page(exposition, _NoOwnMetrics(), **wanted).removesuffix(b"# EOF\n")


def render(snapshot: Snapshot, *, options: Options = DEFAULTS, **wanted: Any) -> bytes:
    """Render one snapshot once, without the exporter's own metrics and without `# EOF`."""
    return body(Renderer(options).render(snapshot), **wanted)


def own_metrics() -> SelfMetrics:
    own = SelfMetrics("1.2.3")
    own.set_ray_version("2.47.1")
    own.set("last_poll_timestamp_seconds", START)
    own.observe("poll_duration_seconds", 0.02)
    own.count("poll_errors_total", "read")
    own.observe("probe_duration_seconds", 0.0007)
    own.observe("change_latency_seconds", 0.75)
    own.set("series", 1, "ray_workflow_storage_up")
    own.count("actions_total", "cancel", "done")
    own.count("link_restarts_total", by=2)
    return own


def page(*about: Any, **wanted: Any) -> bytes:
    """Return a whole answer in one piece."""
    return b"".join(exposition.page(*about, **wanted))


def parsed(body: bytes, *, openmetrics: bool = False) -> list[Metric]:
    parse: Callable[[str], Iterable[Metric]] = (
        openmetrics_parser.text_string_to_metric_families
        if openmetrics
        else text_parser.text_string_to_metric_families
    )
    return list(parse(body.decode()))


def samples(families: Iterable[Metric]) -> list[tuple[str, frozenset[tuple[str, str]], str]]:
    return [
        # As text, because NaN is not equal to itself.
        (sample.name, frozenset(sample.labels.items()), repr(float(sample.value)))
        for family in families
        for sample in family.samples
    ]


def check(snapshot: Snapshot, options: Options) -> list[Metric]:
    """Hold the rules that every exposition keeps; return its families."""
    plain = render(snapshot, options=options)
    families = parsed(plain)
    strict = parsed(
        render(snapshot, options=options, openmetrics=True) + b"# EOF\n", openmetrics=True
    )
    assert samples(families) == samples(strict)
    assert [(it.name, it.type, it.documentation) for it in families] == [
        (it.name, it.type, it.documentation) for it in strict
    ]

    # Families are contiguous and in the order of the table, and no series is there twice.
    headers = [line.split(" ")[2] for line in plain.decode().split("\n") if line[:6] == "# TYPE"]
    assert headers == [family.name for family in FAMILIES if family.name in headers]
    assert len(families) == len(headers)
    assert all(family.samples for family in families)
    repeated = Counter((name, labels) for name, labels, _ in samples(families))
    assert {series: count for series, count in repeated.items() if count > 1} == {}

    for family in families:
        for sample in family.samples:
            for name, label in sample.labels.items():
                assert len(label) <= (text.MAX_MESSAGE if name == "message" else text.MAX_LABEL)

    of = {family.name: [sample.labels for sample in family.samples] for family in families}
    for tier, label in (("stage", "stage"), ("task", "task_id")):
        nodes_of = "ray_workflow_stage_tasks" if tier == "stage" else "ray_workflow_task_state"
        nodes = {(it["workflow_id"], it[label]) for it in of.get(nodes_of, [])}
        for edge in of.get(f"ray_workflow_{tier}_edge", []):
            assert (edge["workflow_id"], edge["source"]) in nodes
            assert (edge["workflow_id"], edge["target"]) in nodes
    return families


def values(snapshot: Snapshot, name: str, **labels: str) -> dict[str, str]:
    """Return the values of a family's samples by their last label, of those that have `labels`."""
    found = {}
    for line in render(snapshot).decode().splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name:
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', head))
            if labels.items() <= pairs.items():
                found[list(pairs.values())[-1] if pairs else ""] = value
    return found


def value(view: RunView, name: str) -> Optional[str]:
    """Return the value of a family that has one sample a run, None where it has none."""
    (found,) = values(make_snapshot(view), f"ray_workflow_{name}").values() or (None,)
    return found


def series_of(snapshot: Snapshot, tier: Tier) -> list[str]:
    """Return the sample lines of one tier, without the prefix that all families share."""
    text = render(snapshot, tiers=[tier]).decode()
    return [line[len("ray_workflow_") :] for line in text.splitlines() if line[0] != "#"]
