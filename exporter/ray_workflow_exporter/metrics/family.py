"""What the metric contract is made of: tiers, scopes, and the row that describes a family."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Callable, NamedTuple, Optional, Union

from ..analysis.layered import Place
from ..analysis.stages import Stage
from ..catalog.snapshot import Histogram
from ..model import Task


class Tier(str, Enum):
    """How deep a family looks; the part of the metrics that can be chosen or left out."""

    CLUSTER = "cluster"
    WORKFLOW = "workflow"
    RUN = "run"
    STAGE = "stage"
    TASK = "task"
    EXPORTER = "exporter"


DETAILS = (Tier.WORKFLOW, Tier.RUN, Tier.STAGE, Tier.TASK)  # each includes those before it


class Kind(str, Enum):
    """Prometheus type of a family."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Stability(str, Enum):
    """What a user may build on: only experimental families change in a minor release."""

    STABLE = "stable"
    EXPERIMENTAL = "experimental"


COUNTER, GAUGE, HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
EXPERIMENTAL = Stability.EXPERIMENTAL

META_LABELS = "meta_*"  # in a row: the labels of the allow-listed user metadata


@dataclass(frozen=True)
class Options:
    """What of a snapshot is exposed. `meta_labels` are keys of the users' own run metadata."""

    detail: Tier = Tier.TASK  # one of DETAILS
    error_messages: bool = True
    meta_labels: tuple[str, ...] = ()


DEFAULTS = Options()


@dataclass(frozen=True, eq=False)
class Scope:
    """What the samples of a family are about, and the labels that tell one of these apart."""

    tier: Tier
    labels: tuple[str, ...] = ()


CLUSTER = Scope(Tier.CLUSTER)  # a Snapshot
EXPORTER = Scope(Tier.EXPORTER)  # a Snapshot
WORKFLOW = Scope(Tier.WORKFLOW, ("workflow",))  # a WorkflowView
RUN = Scope(Tier.RUN, ("workflow", "workflow_id"))  # a RunView
STAGE = Scope(Tier.STAGE, ("workflow_id", "stage"))  # a StageOnPath
STAGE_EDGE = Scope(Tier.STAGE, ("workflow_id", "source", "target", "kind"))  # an Edge
TASK = Scope(Tier.TASK, ("workflow_id", "task_id"))  # a TaskOnPath
TASK_EDGE = Scope(Tier.TASK, ("workflow_id", "source", "target", "kind"))  # an Edge


class StageOnPath(NamedTuple):
    """A stage, whether a task of it lies on the critical path of the run, and where it is drawn."""

    stage: Stage
    critical: bool
    place: Optional[Place]


class TaskOnPath(NamedTuple):
    """A task, whether it lies on the critical path of its run, and where it is drawn."""

    task: Task
    critical: bool
    place: Optional[Place]


Value = Union[int, float, Histogram]
# The values of a row's own labels, and the sample's value.
Sample = tuple[tuple[str, ...], Value]
Sampler = Callable[[Any, Options], Iterable[Sample]]


@dataclass(frozen=True, eq=False)
class Family:
    """One row. `labels` are those beyond the scope's own.

    `samples` is None where `own.py` keeps the value; `bounds` are the buckets of a histogram kept
    there.
    """

    name: str
    kind: Kind
    scope: Scope
    help: str
    samples: Optional[Sampler] = None
    labels: tuple[str, ...] = ()
    stability: Stability = Stability.STABLE
    bounds: tuple[float, ...] = ()

    @property
    def tier(self) -> Tier:
        """The tier of the scope."""
        return self.scope.tier

    @property
    def unit(self) -> str:
        """The unit, which Prometheus wants at the end of the name."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in ("seconds", "bytes", "ratio") else ""
