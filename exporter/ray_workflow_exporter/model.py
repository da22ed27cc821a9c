"""Runs, tasks, edges, statuses and states as frozen dataclasses.

Nothing here does I/O or imports another module of the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from itertools import compress, islice
from operator import is_not
from typing import Any, Optional, TypeVar

C = TypeVar("C", bound=type)

NO_METADATA: Mapping[str, Any] = {}  # one for all who have none: there may be a million of them
NO_RESOURCES: Mapping[str, float] = {}


def slotted(cls: C) -> C:
    """Rebuild a dataclass without a dict for each instance, as `slots=True` does in 3.10."""
    names = [it.name for it in fields(cls)]
    left = {*names, "__dict__", "__weakref__"}
    body = {key: value for key, value in vars(cls).items() if key not in left}
    body.update(__slots__=tuple(names), __qualname__=cls.__qualname__)
    made: C = type(cls)(cls.__name__, cls.__bases__, body)
    return made


class RunStatus(str, Enum):
    """Status of a run, in Ray's own words (`ray.workflow.common.WorkflowStatus`)."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RESUMABLE = "RESUMABLE"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    __hash__ = str.__hash__  # that of Enum is written in Python, and states are keys everywhere

    @property
    def finished(self) -> bool:
        """Whether the run has ended: Ray does nothing more with it unless it is resumed."""
        return self in FINISHED_STATUSES


FINISHED_STATUSES = (RunStatus.SUCCESSFUL, RunStatus.FAILED, RunStatus.CANCELED)


class TaskState(str, Enum):
    """State of one task; Ray has no such word, `docs/metrics.md` defines each."""

    WAITING = "WAITING"  # an upstream task is not done
    PENDING = "PENDING"  # submitted to Ray, not started: waits for resources
    RUNNING = "RUNNING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    NOT_RUN = "NOT_RUN"  # the run ended or stopped before the task did; it may have started

    __hash__ = str.__hash__

    @property
    def finished(self) -> bool:
        """Whether the task has ended; a NOT_RUN one has not."""
        return self in FINISHED_STATES


FINISHED_STATES = (TaskState.SUCCESSFUL, TaskState.FAILED, TaskState.CANCELED)


class EdgeKind(str, Enum):
    """Why one task depends on another."""

    DATA = "data"  # the target takes the source's output as an argument
    CONTINUATION = "continuation"  # the source returned a workflow that holds the target

    __hash__ = str.__hash__


class FailureKind(str, Enum):
    """What failed: the task's own code, or what it ran on."""

    APPLICATION = "application"
    SYSTEM = "system"


@slotted
@dataclass(frozen=True)
class Failure:
    """What went wrong in a task: `exception` is a type name, `message` its text."""

    kind: FailureKind
    exception: str
    message: str


@slotted
@dataclass(frozen=True)
class Edge:
    """A dependency between two tasks or two stages, by their ids."""

    source: str
    target: str
    kind: EdgeKind


@slotted
@dataclass(frozen=True)
class Task:
    """One node of a run's DAG. Times are Unix seconds, None where unknown.

    `continuation` is the output task of the workflow that this task returned. `failure` belongs
    to the last failed attempt: a SUCCESSFUL task that has one caught it (`catch_exceptions`).
    `resources` are those that it asks Ray for, by name: CPUs, GPUs, bytes of memory, custom ones;
    empty where unknown.
    """

    task_id: str
    stage: str
    state: TaskState
    upstream: tuple[str, ...] = ()
    continuation: Optional[str] = None
    submit_time: Optional[float] = None
    start_time: Optional[float] = None
    end_time: Optional[float] = None
    output_bytes: Optional[int] = None
    attempts: int = 0
    max_retries: Optional[int] = None
    checkpoint: Optional[bool] = None
    catch_exceptions: Optional[bool] = None
    resources: Mapping[str, float] = field(default_factory=lambda: NO_RESOURCES)
    failure: Optional[Failure] = None
    ray_task_id: Optional[str] = None
    node_id: Optional[str] = None
    user_metadata: Mapping[str, Any] = field(default_factory=lambda: NO_METADATA)

    @property
    def duration(self) -> Optional[float]:
        """Seconds from start to end, None unless the task has finished."""
        return _span(self.start_time, self.end_time) if self.state.finished else None


@slotted
@dataclass(frozen=True)
class Run:
    """One workflow id and all that is known of it. `workflow` is what it is a run of.

    `tasks` keeps the order in which tasks became known and is never changed in place: a change
    is a new Run. `last_transition` is the newest moment at which the run or a task of it
    changed its state. Of the tasks of an `outlined` run, only state and size of output were read.
    `reason` says why a RESUMABLE run stopped, where that is known.
    """

    workflow_id: str
    workflow: str
    status: RunStatus
    tasks: Mapping[str, Task] = field(default_factory=dict)
    output_task_id: Optional[str] = None
    start_time: Optional[float] = None
    end_time: Optional[float] = None
    last_transition: Optional[float] = None
    deadline: Optional[float] = None
    user_metadata: Mapping[str, Any] = field(default_factory=lambda: NO_METADATA)
    outlined: bool = False
    reason: Optional[str] = None

    @property
    def duration(self) -> Optional[float]:
        """Seconds from start to end, None unless the run has finished."""
        return _span(self.start_time, self.end_time) if self.status.finished else None


def changed_tasks(old: Mapping[str, Task], new: Mapping[str, Task]) -> Optional[list[str]]:
    """List the ids of `new` whose task is not the very object in `old`, in order.

    None when `new` does not begin with the ids of `old`, so that nothing can be built upon it.
    Steps of C only: 5 ms for 100,000 tasks.
    """
    if list(old) != list(islice(new, len(old))):
        return None
    changed = list(compress(new, map(is_not, new.values(), old.values())))
    changed += islice(new, len(old), None)
    return changed


def _span(start: Optional[float], end: Optional[float]) -> Optional[float]:
    # An end before its start is left over from an earlier life of the run: no duration at all
    # is better than a negative one.
    return end - start if start is not None and end is not None and end >= start else None
