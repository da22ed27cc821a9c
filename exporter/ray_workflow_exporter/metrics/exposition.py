"""From a snapshot to the bytes of `/metrics`, in both formats.

A `Renderer` makes an exposition after each poll: a block of sample lines for each family, the
same for text 0.0.4 and OpenMetrics 1.0. A scrape joins the blocks and their headers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple, Optional

from ..catalog.snapshot import Histogram, RunView, Snapshot, WorkflowView
from . import text
from .blocks import Block, Blocks, Fragments, block, gzip_pieces
from .families import FAMILIES
from .family import (
    DEFAULTS,
    DETAILS,
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

_EOF = block(b"# EOF\n")


class Row(NamedTuple):
    """One family of an exposition: its header in both formats, and its sample lines."""

    family: Family
    text: Block
    openmetrics: Block
    samples: Block


Exposition = Sequence[Row]  # what one snapshot exposes, in the order of the families


class Renderer:
    """Makes the exposition of one snapshot after the other; not thread-safe.

    Keeps the lines of each run and workflow and renders only those whose view is not equal to the
    one before. The comparison is free for the same object, so reuse the view of an unchanged run.
    """

    def __init__(self, options: Options = DEFAULTS) -> None:
        self._options = options
        self._families = _exposed(options)
        self._clear()

    def _clear(self) -> None:
        options, families = self._options, self._families
        of_workflow = [it for it in families if it.scope is WORKFLOW]
        of_run = [it for it in families if it.tier in (Tier.RUN, Tier.STAGE, Tier.TASK)]
        self._workflows = Blocks(of_workflow, partial(_lines_of_workflow, of_workflow, options))
        self._runs = Blocks(of_run, partial(_lines_of_run, of_run, options))

    def render(self, snapshot: Snapshot) -> Exposition:
        """Render what differs from the snapshot before, and reuse the rest."""
        try:
            blocks = {
                **self._workflows.update({it.workflow: it for it in snapshot.workflows}),
                **self._runs.update({it.run.workflow_id: it for it in snapshot.runs}),
            }
        except BaseException:
            self._clear()  # half an update is worse than none
            raise
        rows = []
        for family in self._families:
            samples = blocks.get(family)
            if samples is None:
                samples = block(lines(family, [("", snapshot)], self._options))
            rows.append(Row(family, *_headers(family), samples))
        return rows


def page(
    exposition: Exposition,
    own: SelfMetrics,
    *,
    openmetrics: bool = False,
    tiers: Optional[Collection[str]] = None,
    gzip: bool = False,
) -> Sequence[bytes]:
    """Return the whole answer to a scrape, in pieces that all answers share.

    `tiers` holds values of `Tier`, None means all. A family without samples has no header.
    """
    blocks: list[Block] = []
    for row in exposition:
        if row.samples.length and (tiers is None or row.family.tier in tiers):
            blocks += row.openmetrics if openmetrics else row.text, row.samples
    if tiers is None or Tier.EXPORTER in tiers:
        blocks.append(own.block(openmetrics=openmetrics))
    if openmetrics:
        blocks.append(_EOF)
    return gzip_pieces(blocks) if gzip else [piece for it in blocks for piece in it.plain]


@cache
def _headers(family: Family) -> tuple[Block, Block]:
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
            elif label_text:
                out.append(f"{family.name}{{{label_text}}} {text.number(value)}\n")
            else:
                out.append(f"{family.name} {text.number(value)}\n")
    return "".join(out).encode()


def _lines_of_workflow(
    families: Iterable[Family], options: Options, view: WorkflowView
) -> Fragments:
    name = text.labels(WORKFLOW.labels, (view.workflow,))
    return [lines(family, [(name, view)], options) for family in families]


def _lines_of_run(families: Iterable[Family], options: Options, view: RunView) -> Fragments:
    run, analysis = view.run, view.analysis
    run_id = text.labels(("workflow_id",), (run.workflow_id,))
    path = frozenset(analysis.critical_path)
    stages_on_path = {run.tasks[task_id].stage for task_id in path}
    stages = {it.name: it for it in analysis.stages} if view.stages else {}
    tasks = {it.task_id: it for it in view.tasks}
    found: list[tuple[Scope, tuple[str, ...], Any]] = []
    for key, stage in stages.items():
        on_path = StageOnPath(stage, key in stages_on_path, analysis.stage_places.get(key))
        found.append((STAGE, (key,), on_path))
    for key, task in tasks.items():
        found.append((TASK, (key,), TaskOnPath(task, key in path, view.places.get(key))))
    for scope, edges, ends in (
        (STAGE_EDGE, analysis.stage_edges, stages.keys()),
        (TASK_EDGE, analysis.task_edges, tasks.keys()),
    ):
        for it in edges:
            # A loose edge breaks Grafana's node graph.
            if it.source in ends and it.target in ends:
                found.append((scope, (it.source, it.target, it.kind.value), it))
    objects: defaultdict[Scope, list[tuple[str, Any]]] = defaultdict(list)
    objects[RUN].append((text.labels(RUN.labels, (run.workflow, run.workflow_id)), view))
    for scope, values, item in found:
        objects[scope].append((f"{run_id},{text.labels(scope.labels[1:], values)}", item))
    return [lines(family, objects[family.scope], options) for family in families]


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
