"""From a snapshot to the bytes of `/metrics`, in both formats.

A `Renderer` makes an `Exposition` after each poll: a block of sample lines for each family, the
same for text 0.0.4 and OpenMetrics 1.0. A scrape joins the blocks and their headers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Callable, NamedTuple, Optional

from ..catalog.snapshot import Histogram, RunView, Snapshot, WorkflowView
from ..model import Edge
from . import text
from .blocks import Block, Blocks, Body, Fragments, block, gzip_body, plain_body
from .families import FAMILIES
from .family import (
    CLUSTER,
    DEFAULTS,
    DETAILS,
    EXPORTER,
    META_LABELS,
    RUN,
    STAGE,
    STAGE_EDGE,
    TASK,
    TASK_EDGE,
    WORKFLOW,
    Family,
    Options,
    Scope,
    StageOnPath,
    TaskOnPath,
    Tier,
)
from .own import SelfMetrics

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# The objects of each scope: the labels that identify one, and the object itself.
Objects = Mapping[Scope, Sequence[tuple[str, Any]]]
RUN_SCOPES = (RUN, STAGE, STAGE_EDGE, TASK, TASK_EDGE)
_EOF = block(b"# EOF\n")


class Row(NamedTuple):
    """One family of an exposition: its header in both formats, and its sample lines."""

    family: Family
    text: Block
    openmetrics: Block
    samples: Block


@dataclass(frozen=True)
class Exposition:
    """What one snapshot exposes, in the order of the families."""

    rows: tuple[Row, ...]

    def series(self) -> dict[str, int]:
        """Return the number of series of each family."""
        return {row.family.name: row.samples.lines for row in self.rows}

    def blocks(
        self, *, openmetrics: bool = False, tiers: Optional[Collection[str]] = None
    ) -> list[Block]:
        """Return headers and samples of the families in `tiers` (None: all) that have any."""
        parts: list[Block] = []
        for row in self.rows:
            if row.samples.length and (tiers is None or row.family.tier in tiers):
                parts += row.openmetrics if openmetrics else row.text, row.samples
        return parts


class Renderer:
    """Makes the exposition of one snapshot after the other; not thread-safe.

    Keeps the lines of each run and workflow and renders only those whose view is not equal to the
    one before. The comparison is free for the same object, so reuse the view of an unchanged run.
    """

    def __init__(self, options: Options = DEFAULTS) -> None:
        self._families = _exposed(options)
        self._headers = [_header_blocks(family) for family in self._families]
        self._snapshots = _Rendered(self._families, (CLUSTER, EXPORTER), _of_snapshot, options)
        self._workflows = _Rendered(self._families, (WORKFLOW,), _of_workflow, options)
        self._runs = _Rendered(self._families, RUN_SCOPES, _of_run, options)

    def render(self, snapshot: Snapshot) -> Exposition:
        """Render what differs from the snapshot before, and reuse the rest."""
        blocks = {
            **self._snapshots.update({"": snapshot}),
            **self._workflows.update({view.workflow: view for view in snapshot.workflows}),
            **self._runs.update({view.run.workflow_id: view for view in snapshot.runs}),
        }
        rows = zip(self._families, self._headers)
        return Exposition(tuple(Row(it, *headers, blocks[it.name]) for it, headers in rows))


class _Rendered:
    """The sample lines of all views of one kind."""

    def __init__(
        self,
        families: Iterable[Family],
        scopes: Collection[Scope],
        objects_of: Callable[[Any], Objects],
        options: Options,
    ) -> None:
        self._families = [family for family in families if family.scope in scopes]
        self._objects_of = objects_of
        self._options = options
        self._clear()

    def _clear(self) -> None:
        self._views: Mapping[str, object] = {}
        self._blocks = Blocks(len(self._families))

    def update(self, views: Mapping[str, object]) -> dict[str, Block]:
        """Return the block of each family by its name; drop what is not in `views`."""
        try:
            self._blocks.update(self._changes(views))
        except BaseException:
            self._clear()  # half an update is worse than none
            raise
        self._views = views
        return {it.name: block for it, block in zip(self._families, self._blocks.families)}

    def _changes(self, views: Mapping[str, object]) -> Iterator[tuple[str, Optional[Fragments]]]:
        for key in self._views.keys() - views.keys():
            yield key, None
        for key, view in views.items():
            known = self._views.get(key)
            if known is not view and known != view:
                objects = self._objects_of(view)
                yield key, [lines(it, objects[it.scope], self._options) for it in self._families]


def page(
    exposition: Exposition,
    own: SelfMetrics,
    *,
    openmetrics: bool = False,
    tiers: Optional[Collection[str]] = None,
    gzip: bool = False,
) -> Body:
    """Return the whole answer to a scrape; `tiers` holds values of `Tier`, None means all."""
    parts = exposition.blocks(openmetrics=openmetrics, tiers=tiers)
    if tiers is None or Tier.EXPORTER in tiers:
        parts.append(own.block(openmetrics=openmetrics))
    if openmetrics:
        parts.append(_EOF)
    return gzip_body(parts) if gzip else plain_body(parts)


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header prefers OpenMetrics 1.0 to the text format (RFC 9110, 12.5.1)."""
    openmetrics = plain = 0.0
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            quality = float(given.get("q", "1"))
        except ValueError:
            quality = 0.0
        # Version 0.0.1 has other rules for counters: who asks for that alone gets text.
        if media_type == "application/openmetrics-text":
            if given.get("version", "1.0.0") == "1.0.0":
                openmetrics = max(openmetrics, quality)
        elif media_type == "text/plain":
            plain = max(plain, quality)
    return openmetrics > 0 and openmetrics >= plain


@cache
def _header_blocks(family: Family) -> tuple[Block, Block]:
    """Return the lines before the samples of a family, in text 0.0.4 and in OpenMetrics."""
    facts = family.name, family.kind.value, family.unit, family.help
    plain, openmetrics = (text.header(*facts, openmetrics=it).encode() for it in (False, True))
    return block(plain), block(openmetrics)


def lines(family: Family, objects: Iterable[tuple[str, Any]], options: Options) -> bytes:
    """Return the sample lines of one family for some objects of its scope."""
    assert family.samples is not None
    out: list[str] = []
    for object_labels, item in objects:
        for values, value in family.samples(item, options):
            label_text = object_labels
            if values:
                own = text.labels(family.labels, values)
                label_text = f"{object_labels},{own}" if object_labels else own
            if isinstance(value, Histogram):
                out.append(text.histogram_lines(family.name, label_text, value))
            else:
                out.append(text.line(family.name, label_text, value))
    return "".join(out).encode()


def meta_label_names(keys: Iterable[str]) -> tuple[str, ...]:
    """Return a label name `meta_…` for each metadata key; of two alike the later gets a number.

    >>> meta_label_names(["team", "cost-center", "cost.center"])
    ('meta_team', 'meta_cost_center', 'meta_cost_center_2')
    """
    names: list[str] = []
    for key in keys:
        base = name = "meta_" + re.sub(r"[^a-zA-Z0-9_]", "_", key)
        number = 1
        while name in names:
            number += 1
            name = f"{base}_{number}"
        names.append(name)
    return tuple(names)


def _exposed(options: Options) -> tuple[Family, ...]:
    hidden = DETAILS[DETAILS.index(options.detail) + 1 :]
    meta = meta_label_names(options.meta_labels)
    return tuple(
        replace(family, labels=meta) if family.labels == (META_LABELS,) else family
        for family in FAMILIES
        if family.samples is not None and family.tier not in hidden
    )


def _of_snapshot(snapshot: Snapshot) -> Objects:
    return {CLUSTER: [("", snapshot)], EXPORTER: [("", snapshot)]}


def _of_workflow(view: WorkflowView) -> Objects:
    return {WORKFLOW: [(text.labels(WORKFLOW.labels, (view.workflow,)), view)]}


def _of_run(view: RunView) -> Objects:
    run, analysis = view.run, view.analysis
    run_id = text.labels(("workflow_id",), (run.workflow_id,))

    def labelled(scope: Scope, items: Iterable[tuple[Any, ...]]) -> list[tuple[str, Any]]:
        names = scope.labels[1:]
        return [(f"{run_id},{text.labels(names, values)}", item) for item, *values in items]

    stages = analysis.stages if view.stages else ()
    critical = frozenset(analysis.critical_path)
    critical_stages = {run.tasks[task_id].stage for task_id in critical}
    stage_edges = _between(analysis.stage_edges, {stage.name for stage in stages})
    task_edges = _between(analysis.task_edges, {task.task_id for task in view.tasks})
    return {
        RUN: [(text.labels(RUN.labels, (run.workflow, run.workflow_id)), view)],
        STAGE: labelled(
            STAGE, ((StageOnPath(it, it.name in critical_stages), it.name) for it in stages)
        ),
        STAGE_EDGE: labelled(STAGE_EDGE, stage_edges),
        TASK: labelled(
            TASK, ((TaskOnPath(it, it.task_id in critical), it.task_id) for it in view.tasks)
        ),
        TASK_EDGE: labelled(TASK_EDGE, task_edges),
    }


def _between(edges: Iterable[Edge], ends: Collection[str]) -> Iterator[tuple[Edge, str, str, str]]:
    """Yield the edges whose both ends are exposed: a loose edge breaks Grafana's node graph."""
    for edge in edges:
        if edge.source in ends and edge.target in ends:
            yield edge, edge.source, edge.target, edge.kind.value
