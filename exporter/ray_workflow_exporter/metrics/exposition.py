"""From a snapshot to the bytes of `/metrics`, in both formats.

A `Renderer` makes an `Exposition` after each poll: a block of sample lines for each family, the
same for text 0.0.4 and OpenMetrics 1.0. A scrape puts headers before the blocks it was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Callable, NamedTuple, Optional

from ..catalog.snapshot import Histogram, RunView, Snapshot, WorkflowView
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

# What the samples of a scope are about: the labels that name each object, and the object.
Subjects = Mapping[Scope, Sequence[tuple[str, Any]]]
_EOF = block(b"# EOF\n")
RUN_SCOPES = (RUN, STAGE, STAGE_EDGE, TASK, TASK_EDGE)


class Row(NamedTuple):
    """One family of an exposition: its header in both formats, and its sample lines."""

    family: Family
    text: Block
    openmetrics: Block
    samples: Block


@dataclass(frozen=True)
class Exposition:
    """What one snapshot exposes, in the order of the table."""

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

    def body(self, *, openmetrics: bool = False, tiers: Optional[Collection[str]] = None) -> bytes:
        """Return the same in one piece, as text."""
        return bytes(plain_body(self.blocks(openmetrics=openmetrics, tiers=tiers)))


class Renderer:
    """Makes the exposition of one snapshot after the other; not for use by two threads at once.

    Keeps the lines of each run and workflow, so that only those that changed are rendered again:
    those whose view is not equal to the one before. That costs nothing for the same object, so
    whoever makes snapshots should use an unchanged view again.
    """

    def __init__(self, options: Options = DEFAULTS) -> None:
        families = _exposed(options)
        self._headers = [(it, _header_block(it, False), _header_block(it, True)) for it in families]
        self._snapshots = _Rendered(families, (CLUSTER, EXPORTER), _of_snapshot, options)
        self._workflows = _Rendered(families, (WORKFLOW,), _of_workflow, options)
        self._runs = _Rendered(families, RUN_SCOPES, _of_run, options)

    def render(self, snapshot: Snapshot) -> Exposition:
        """Render what differs from the snapshot before and join it with what does not."""
        blocks = {
            **self._snapshots.blocks({"": snapshot}),
            **self._workflows.blocks({view.workflow: view for view in snapshot.workflows}),
            **self._runs.blocks({view.run.workflow_id: view for view in snapshot.runs}),
        }
        return Exposition(
            tuple(Row(*headers, blocks[headers[0].name]) for headers in self._headers)
        )


class _Rendered:
    """The sample lines of all views of one kind."""

    def __init__(
        self,
        families: Iterable[Family],
        scopes: Collection[Scope],
        subjects: Callable[[Any], Subjects],
        options: Options,
    ) -> None:
        self._families = [family for family in families if family.scope in scopes]
        self._subjects = subjects
        self._options = options
        self._forget()

    def _forget(self) -> None:
        self._views: Mapping[str, object] = {}
        self._blocks = Blocks(len(self._families))

    def blocks(self, views: Mapping[str, object]) -> dict[str, Block]:
        """Return the block of each family, by its name; what is not in `views` is forgotten."""
        try:
            self._blocks.update(self._changes(views))
        except BaseException:
            self._forget()  # half an update is worse than none
            raise
        self._views = views
        return {it.name: block for it, block in zip(self._families, self._blocks.families)}

    def _changes(self, views: Mapping[str, object]) -> Iterator[tuple[str, Optional[Fragments]]]:
        for key in self._views.keys() - views.keys():
            yield key, None
        for key, view in views.items():
            known = self._views.get(key)
            if known is not view and known != view:
                subjects = self._subjects(view)
                yield key, [lines(it, subjects[it.scope], self._options) for it in self._families]


def render(
    snapshot: Snapshot,
    *,
    openmetrics: bool = False,
    tiers: Optional[Collection[str]] = None,
    options: Options = DEFAULTS,
) -> bytes:
    """Render one snapshot once, without the exporter's own metrics and without `# EOF`."""
    return Renderer(options).render(snapshot).body(openmetrics=openmetrics, tiers=tiers)


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


def header(family: Family, *, openmetrics: bool) -> bytes:
    """Return the lines that stand before the samples of a family."""
    return text.header(
        family.name, family.kind.value, family.unit, family.help, openmetrics=openmetrics
    ).encode()


@cache
def _header_block(family: Family, openmetrics: bool) -> Block:
    return block(header(family, openmetrics=openmetrics))


def lines(family: Family, subjects: Iterable[tuple[str, Any]], options: Options) -> bytes:
    """Return the sample lines of one family for some of the objects it is about."""
    assert family.samples is not None
    out: list[str] = []
    for object_labels, subject in subjects:
        for values, value in family.samples(subject, options):
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


def _of_snapshot(snapshot: Snapshot) -> Subjects:
    return {CLUSTER: [("", snapshot)], EXPORTER: [("", snapshot)]}


def _of_workflow(view: WorkflowView) -> Subjects:
    return {WORKFLOW: [(text.labels(WORKFLOW.labels, (view.workflow,)), view)]}


def _of_run(view: RunView) -> Subjects:
    run, analysis = view.run, view.analysis
    run_id = text.labels(("workflow_id",), (run.workflow_id,))

    def below(scope: Scope, *values: str) -> str:
        return f"{run_id},{text.labels(scope.labels[1:], values)}"

    def edges(scope: Scope, known: Iterable[Any], ends: Collection[str]) -> list[tuple[str, Any]]:
        # Grafana's node graph breaks on an edge that leads nowhere.
        return [
            (below(scope, edge.source, edge.target, edge.kind.value), edge)
            for edge in known
            if edge.source in ends and edge.target in ends
        ]

    stages = analysis.stages if view.stages else ()
    critical = frozenset(analysis.critical_path)
    critical_stages = {run.tasks[task_id].stage for task_id in critical}
    return {
        RUN: [(text.labels(RUN.labels, (run.workflow, run.workflow_id)), view)],
        STAGE: [
            (below(STAGE, stage.name), StageOnPath(stage, stage.name in critical_stages))
            for stage in stages
        ],
        STAGE_EDGE: edges(STAGE_EDGE, analysis.stage_edges, {stage.name for stage in stages}),
        TASK: [
            (below(TASK, task.task_id), TaskOnPath(task, task.task_id in critical))
            for task in view.tasks
        ],
        TASK_EDGE: edges(TASK_EDGE, analysis.task_edges, {task.task_id for task in view.tasks}),
    }
