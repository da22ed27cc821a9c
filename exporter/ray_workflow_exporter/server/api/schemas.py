"""The shapes of what the API says and takes. Served as JSON Schema; a test holds answers to it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal, Optional

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ...actions import ActionState, Verb
from ...model import EdgeKind, FailureKind, RunStatus, TaskState


def _one_of(values: type[Enum]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": [value.value for value in values]})


Status = Annotated[RunStatus, _one_of(RunStatus)]
State = Annotated[TaskState, _one_of(TaskState)]
Kind = Annotated[FailureKind, _one_of(FailureKind)]
EdgeType = Annotated[EdgeKind, _one_of(EdgeKind)]
Verbs = Annotated[Verb, _one_of(Verb)]
ActionStates = Annotated[ActionState, _one_of(ActionState)]
# JSON knows no integers: 3.0 is as good as 3.
Limit = Annotated[
    int,
    Field(ge=1, le=1_000_000),
    BeforeValidator(lambda it: int(it) if isinstance(it, float) and it.is_integer() else it),
]
Time = Optional[float]
Counts = dict[State, int]


def about(text: str) -> Any:
    """Describe a field that is always there."""
    return Field(description=text)


class Shape(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Failure(Shape):
    """What went wrong in a task."""

    kind: Kind = about("Who is to blame: the task's own code, or what it ran on.")
    exception: str = about("The type of the exception.")
    message: Optional[str] = about("Its text, secrets masked; null where messages are withheld.")


class RootCause(Failure):
    """The failure that brought a run down."""

    task_id: str = about("The task to blame.")
    stage: str = about("Its stage.")
    blocked: int = about("How many tasks it kept from running.")


class Edge(Shape):
    """A dependency between two tasks or stages."""

    source: str = about("What comes first.")
    target: str = about("What needs it.")
    kind: EdgeType = about("An argument, or a workflow that the source returned.")


class Stage(Shape):
    """All tasks of a run with the same task name."""

    stage: str = about("The task name.")
    task_counts: Counts = about("Tasks by state.")
    output_bytes: Optional[int] = about("Sum of the known sizes.")
    start_time: Time = about("The first start of a task, Unix seconds.")
    end_time: Time = about("The last end, null while a task may still run.")


class RunSummary(Shape):
    """What a list shows of a run. Times are Unix seconds, null where nobody knows them."""

    workflow_id: str = about("The run's id.")
    workflow: str = about("Its workflow.")
    status: Status = about("Ray's own word.")
    start_time: Time = about("The start of its last life: a resume overwrites it.")
    end_time: Time = about("Its end.")
    duration: Time = about("Seconds from start to end, null unless it has finished.")
    last_transition: Time = about("The newest moment at which the run or a task changed state.")
    deadline: Time = about("When it should be done at the latest.")
    expected_end: Time = about("When it will be done if its tasks take as long as they used to.")
    progress: float = about("SUCCESSFUL share of the known tasks, 0 to 1.")
    task_counts: Counts = about("Tasks by state.")
    output_bytes: Optional[int] = about("Sum of the known output sizes.")
    failure: Optional[RootCause] = about("Why a FAILED run failed.")
    user_metadata: dict[str, Any] = about("What its author noted down, secrets masked.")


class RunPage(Shape):
    """Some of the runs: live ones first, then the newest."""

    total: int = about("How many runs match.")
    limit: int = about("How many were asked for at most.")
    offset: int = about("How many were passed over.")
    items: list[RunSummary] = about("The runs.")


class Run(RunSummary):
    """A run and its shape."""

    output_task_id: Optional[str] = about("The task whose output is the run's.")
    critical_path: list[str] = about("Ids of the tasks that decided how long it took.")
    critical_seconds: Optional[float] = about("What the finished ones among them took.")
    stages: list[Stage] = about("Its stages, in the order in which they became known.")
    stage_edges: list[Edge] = about("Dependencies between different stages.")


class Task(Shape):
    """All that is known of a task. Times are Unix seconds, null where nobody knows them."""

    stage: str = about("Its task name.")
    state: State = about("Its state, as the metrics reference defines them.")
    upstream: list[str] = about("Ids of the tasks whose outputs it takes.")
    continuation: Optional[str] = about("The output task of the workflow that it returned.")
    submit_time: Time = about("When the last attempt was handed to Ray.")
    start_time: Time = about("When its body began.")
    end_time: Time = about("When its body returned.")
    duration: Time = about("Seconds from start to end, null unless it has finished.")
    output_bytes: Optional[int] = about("Size of its output.")
    attempts: int = about("How often it was tried.")
    max_retries: Optional[int] = about("How often it may be tried again.")
    checkpoint: Optional[bool] = about("Whether its output is kept in storage.")
    catch_exceptions: Optional[bool] = about("Whether its exception is its output.")
    failure: Optional[Failure] = about("What went wrong in the last failed attempt.")
    ray_task_id: Optional[str] = about("The id by which Ray knows it.")
    node_id: Optional[str] = about("The node it ran on.")
    user_metadata: dict[str, Any] = about("What its author noted down, secrets masked.")


Tasks = dict[str, Task]


class Node(Shape):
    """A stage or a task in a graph."""

    id: str = about("The stage, or the task's id.")
    stage: str = about("The stage.")
    state: Optional[State] = about("The task's state, null for a stage.")
    task_counts: Counts = about("Tasks by state; of a task, itself alone.")
    output_bytes: Optional[int] = about("Sum of the known output sizes.")
    start_time: Time = about("First start, Unix seconds.")
    end_time: Time = about("Last end, null while a task may still run.")
    critical: bool = about("Whether it lies on the critical path.")


class Graph(Shape):
    """The DAG of a run. An edge is there only together with both its ends."""

    level: Literal["stage", "task"] = about("What the nodes are.")
    nodes: list[Node] = about("The nodes, in the order in which they became known.")
    edges: list[Edge] = about("The dependencies.")


class Options(Shape):
    """How an action is to be done."""

    start_manager: bool = Field(
        default=False,
        description="Start a workflow management actor where Ray has none. What it runs then finds "
        "no `runtime_env` and no path of a driver of yours.",
    )


class CancelOptions(Options):
    """How a run is to be cancelled."""

    when_started: bool = Field(
        default=False,
        description="Cancel a run that waits in Ray's queue as soon as it starts, because Ray "
        "cannot cancel it before.",
    )


class ResumeOptions(Options):
    """How a run is to be resumed."""

    max_running_workflows: Optional[Limit] = Field(
        default=None,
        description="How many runs a management actor that is started lets run at once; null: "
        "any number.",
    )


class Outcome(Shape):
    """What came of an action for one run."""

    workflow_id: str = about("The run.")
    state: ActionStates = about("What came of it.")
    detail: str = about("The same as a sentence.")


class Action(Shape):
    """An order and what became of it. Times are Unix seconds."""

    action_id: str = about("Its id.")
    action: Verbs = about("What was ordered.")
    workflow_id: Optional[str] = about("The run; null for `resume-all`.")
    requested_by: str = about("The name of the token.")
    requested_at: float = about("When it was ordered.")
    state: ActionStates = about(
        "`RUNNING`; `WAITING` for a queued run to start; `SUCCEEDED`; `REFUSED`: by the state that "
        "Ray found, nothing was done; `FAILED`."
    )
    detail: Optional[str] = about("The same as a sentence, null while it is under way.")
    finished_at: Time = about("When its outcome was known.")
    outcomes: list[Outcome] = about("Of `resume-all`, what came of each run so far.")


class ActionPage(Shape):
    """Some of the actions, newest first. The exporter keeps the newest 1,000, until it ends."""

    total: int = about("How many there are.")
    limit: int = about("How many were asked for at most.")
    offset: int = about("How many were passed over.")
    items: list[Action] = about("The actions.")


class Problem(Shape):
    """Why there is no better answer (RFC 9457)."""

    type: str = about("`about:blank`: the status says what kind of problem it is.")
    title: str = about("The status in words.")
    status: int = about("The HTTP status.")
    detail: Optional[str] = about("A sentence for people: what is wrong and what to do.")
