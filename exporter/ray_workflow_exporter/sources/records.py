"""What each source says of a run, before `runs/merge.py` makes one Run of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Optional

from ..model import NO_METADATA, NO_RESOURCES, RunStatus, slotted

# What ended or began this many seconds before its run began belongs to an earlier life of it.
RERUN_GAP = 1.0


class Mark(NamedTuple):
    """A run's entry under `__status__/`: its change key.

    `time` is the file's mtime, 0 on a store that has none.
    """

    status: RunStatus
    time: float


@slotted
@dataclass(frozen=True)
class StoredTask:
    """The folder of one task. None stands for a file that is not there or not readable yet.

    `upstream` is None for sub-tasks of a continuation with checkpoint=False: Ray writes no
    inputs.json for them. `exception` is (type, message).
    """

    task_id: str
    upstream: Optional[tuple[str, ...]] = None
    max_retries: Optional[int] = None
    checkpoint: Optional[bool] = None
    catch_exceptions: Optional[bool] = None
    resources: Mapping[str, float] = field(default_factory=lambda: NO_RESOURCES)
    user_metadata: Mapping[str, Any] = field(default_factory=lambda: NO_METADATA)
    start_time: Optional[float] = None  # pre_task_metadata.json: the last attempt
    end_time: Optional[float] = None  # post_task_metadata.json: the body returned
    output_bytes: Optional[int] = None  # size of output.pkl
    output_time: Optional[float] = None  # mtime of output.pkl
    continuation: Optional[str] = None  # outputs.json: output_task_id
    exception: Optional[tuple[str, str]] = None
    exception_time: Optional[float] = None  # mtime of exception.pkl
    # mtime of pre_task_metadata.json
    start_file_time: Optional[float] = field(default=None, compare=False)


@dataclass(frozen=True)
class StoredRun:
    """The folder of one run. `status` is None for a ghost: a folder that never became a run.

    Of an `outlined` run, the files of the tasks were not read but for one that has a start.
    `unreadable` names files and folders that are there and cannot be read, each with the cause.
    `stamps` are those of the files that need not be read again as long as they stay the same.
    """

    workflow_id: str
    status: Optional[RunStatus] = None
    start_time: Optional[float] = None
    end_time: Optional[float] = None
    user_metadata: Mapping[str, Any] = field(default_factory=dict)
    output_task_id: Optional[str] = None
    base_names: frozenset[str] = frozenset()  # names in duplicate_name_counter/: the stages
    tasks: Mapping[str, StoredTask] = field(default_factory=dict)
    outlined: bool = False
    # mtime of pre_run_metadata.json, where that is listed
    start_file_time: Optional[float] = field(default=None, compare=False)
    unreadable: tuple[str, ...] = ()
    stamps: Mapping[str, Mapping[str, tuple[int, int]]] = field(
        default_factory=dict, repr=False, compare=False
    )


class LiveTask(NamedTuple):
    """One task in the memory of the WorkflowManagementActor.

    `running` means submitted to Ray: it may still wait for resources. `done` is Ray's
    `done_tasks`, which leaves out tasks whose continuation still runs; `finish_time` is set as
    soon as a body succeeded, and stays None for a caught exception. `upstream` and the options
    are None for tasks that Ray knows by name only (checkpointed ones of a resumed run).
    """

    upstream: Optional[tuple[str, ...]] = None
    max_retries: Optional[int] = None
    checkpoint: Optional[bool] = None
    catch_exceptions: Optional[bool] = None
    user_metadata: Optional[Mapping[str, Any]] = None
    submit_time: Optional[float] = None
    finish_time: Optional[float] = None
    running: bool = False
    done: bool = False
    retries: int = 0
    continuation: Optional[str] = None
    output_bytes: Optional[int] = None
    ray_task_id: Optional[str] = None


@dataclass(frozen=True)
class LiveRun:
    """One run in the memory of the WorkflowManagementActor, after one poll.

    `changed` names the tasks that differ from the poll before (all of them on the first one).
    `resumed` says that Ray rebuilt the run from storage: its earlier tasks are only there.
    `tasks` is not to be changed by who receives it. `life` is a number that differs between two
    executions under the same id.
    """

    workflow_id: str
    queued: bool
    output_task_id: Optional[str] = None
    resumed: bool = False
    tasks: Mapping[str, LiveTask] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    life: Optional[int] = field(default=None, compare=False)


class EndedLife(NamedTuple):
    """How a run ended that the management actor no longer holds, by its last state in memory."""

    status: RunStatus
    end_time: Optional[float]


class LinkState(str, Enum):
    """How the link to Ray stands."""

    UP = "up"  # the WorkflowManagementActor answered
    ABSENT = "absent"  # Ray answered: there is no WorkflowManagementActor
    UNREACHABLE = "unreachable"  # no answer: from Ray, or from the actor in time
    UNSUPPORTED = "unsupported"  # this Ray cannot be read from, or is not installed
    OFF = "off"  # the user asked for storage only


class LinkCause(str, Enum):
    """Why the memory of the WorkflowManagementActor cannot be read; `reason` says it in words."""

    OFF = "off"  # the user asked for storage only
    STARTING = "starting"  # the link has not connected yet
    NO_RAY = "no_ray"  # no address was given, and no Ray was found on this machine
    NO_ANSWER = "no_answer"  # nothing listens at the address
    NOT_RAY = "not_ray"  # something else listens there, or the address is malformed
    OTHER_USER = "other_user"  # the Ray of another Unix user
    NOT_INSTALLED = "not_installed"  # no Ray beside the exporter
    RAY_VERSION = "ray_version"  # a Ray without workflows, or another one than the cluster's
    NO_STORAGE = "no_storage"  # Ray runs without --storage: no fault, it has no workflows
    NO_MANAGER = "no_manager"  # Ray answers; no workflow has run on it yet
    MANAGER_DIED = "manager_died"
    MANAGER_SILENT = "manager_silent"  # no answer in time, or an error
    LOST = "lost"  # the connection failed


@dataclass(frozen=True)
class ManagerView:
    """What the WorkflowManagementActor holds, or why that is not known.

    `reason` is a sentence, `cause` its kind; without them, the actor has answered.
    """

    state: LinkState
    reason: str = ""
    cause: Optional[LinkCause] = None
    runs: Mapping[str, LiveRun] = field(default_factory=dict)
    running_limit: Optional[int] = None  # None: no limit
    pending_limit: Optional[int] = None
    storage_uri: Optional[str] = None
    session_name: Optional[str] = None
    ray_version: Optional[str] = None
    ended: Mapping[str, EndedLife] = field(default_factory=dict)  # since the view before
    unseen: bool = False  # whether runs may have begun and ended since the view before
    restarts: int = 0  # of the child process, since the exporter began


class NoManagerError(Exception):
    """Why there is no answer: the state and cause that it means, and a sentence.

    `connected` says whether the driver is still of use, `final` that no later try can succeed.
    """

    def __init__(
        self,
        state: LinkState,
        cause: LinkCause,
        reason: str,
        *,
        connected: bool = False,
        final: bool = False,
    ) -> None:
        super().__init__(reason)
        self.state, self.cause = state, cause
        self.connected, self.final = connected, final


class RayTaskDetail(NamedTuple):
    """What Ray's state API says of one Ray task."""

    node_id: Optional[str] = None
    error_type: Optional[str] = None
    error_message: Optional[str] = None
