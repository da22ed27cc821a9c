"""What requests may hold: queries, headers and bodies, as models that parse, check and document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypeVar, get_origin

import pydantic
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...model import RunStatus, TaskState

MAX_PAGE = 1000
MAX_TEXT = 255  # characters; Ray itself takes no id above 255 bytes

Form = TypeVar("Form", bound=BaseModel)


def _whole_number(low: int, high: int) -> Any:
    def parse(text: Any) -> int:
        if not isinstance(text, str):
            return int(text)  # a default
        if text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"must be a whole number from {low} to {high}")

    return Annotated[int, Field(ge=low, le=high), BeforeValidator(parse)]


def _flag(text: Any) -> bool:
    if text not in ("true", "false", True, False):
        raise ValueError("must be true or false")
    return text in ("true", True)


Text = Annotated[str, Field(max_length=MAX_TEXT)]
Flag = Annotated[bool, BeforeValidator(_flag)]
AnyCase = BeforeValidator(str.upper)


class Query(BaseModel):
    """A query without parameters, the base of the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunFilter(Query):
    """Which runs are meant."""

    status: list[Annotated[RunStatus, AnyCase]] = Field(
        default=[], description="Only runs of this status; may be repeated."
    )
    workflow: Optional[Text] = Field(default=None, description="Only runs of this workflow.")
    text: Text = Field(
        default="", description="Only runs with this text in their id or workflow, in any case."
    )


class Offset(Query):
    """Where a page starts."""

    offset: _whole_number(0, 2**31) = Field(  # type: ignore[valid-type]
        default=0, description="How many to skip."
    )


class Page(Offset):
    """A page of a list."""

    limit: _whole_number(0, MAX_PAGE) = Field(  # type: ignore[valid-type]
        default=100, description="How many to return at most."
    )


class RunList(Page, RunFilter):
    """A page of runs."""

    sort: Literal["newest", "id"] = Field(
        default="newest",
        description="`newest`: live runs first, then the newest. `id`: by id; with `after`, no "
        "run is missed or repeated while runs come, change and go.",
    )
    after: Optional[Text] = Field(
        default=None, description="Only runs whose id sorts after this one, by id."
    )
    metadata: Flag = Field(default=False, description="Include the user metadata of each run.")


class RunsPage(Offset, RunFilter):
    """What the page of all runs takes."""


class TaskFilter(Query):
    """Which tasks of a run are meant."""

    state: list[Annotated[TaskState, AnyCase]] = Field(
        default=[], description="Only tasks in this state; may be repeated."
    )
    stage: Optional[Text] = Field(default=None, description="Only tasks of this stage.")


class Level(Query):
    """The level of a graph."""

    level: Literal["stage", "task"] = Field(
        default="stage", description="The nodes: stages, or single tasks."
    )


class RunPage(Offset, TaskFilter, Level):
    """What the page of one run takes."""

    text: Text = Field(default="", description="Only tasks with this text in their id.")


class Events(Query):
    """Which events are meant."""

    workflow_id: Optional[Text] = Field(default=None, description="Only events of this run.")


class StartManager(Query):
    """What the deletion of a run takes: it has no body."""

    start_manager: Flag = Field(
        default=False,
        description="Start a workflow management actor if Ray has none.",
    )


class Options(BaseModel):
    """Options of an action."""

    model_config = ConfigDict(extra="forbid")

    start_manager: bool = Field(
        default=False,
        description="Start a workflow management actor if Ray has none. The runs in it have no "
        "`runtime_env` and none of your driver's paths.",
    )


class ForgetOptions(BaseModel):
    """What to forget."""

    model_config = ConfigDict(extra="forbid")

    workflow: str = Field(default="", description="The workflow, as in the label `workflow`.")


class CancelOptions(Options):
    """Options of a cancellation."""

    when_started: bool = Field(
        default=False,
        description="Cancel a queued run as soon as it starts, because Ray cannot cancel it "
        "before.",
    )


class ResumeOptions(Options):
    """Options of a resume."""

    max_running_workflows: Optional[
        Annotated[
            int,
            Field(ge=1, le=1_000_000),
            # JSON has no integers: 3.0 is as good as 3.
            BeforeValidator(lambda it: int(it) if isinstance(it, float) and it % 1 == 0 else it),
        ]
    ] = Field(
        default=None,
        description="How many runs a newly started management actor runs at once; null: any "
        "number.",
    )


class Header(NamedTuple):
    """A request header that an operation uses."""

    name: str
    description: str
    schema: Mapping[str, Any]


LAST_EVENT_ID = Header(
    "Last-Event-ID",
    "The id of the last event received: the stream continues after it.",
    {"type": "string"},
)
IF_NONE_MATCH = Header(
    "If-None-Match",
    "The `ETag` of an earlier answer: 304 without a body if it is still current.",
    {"type": "string"},
)
IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "Any text: the same request with the same key is carried out once.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
)


def query_of(request: web.Request, form: type[Form]) -> Form:
    """Return the query of a request. Raises HTTPBadRequest, also for an unknown parameter."""
    values: dict[str, Any] = {}
    for name in request.query:
        if name == "workflow_id" and name in request.match_info:
            continue  # it names the run itself: see runs.by_query
        field = form.model_fields.get(name)
        texts = request.query.getall(name)
        many = field is not None and get_origin(field.annotation) is list
        if len(texts) > 1 and not many:
            raise web.HTTPBadRequest(text=f"`{name}` may be given only once.")
        values[name] = texts if many else texts[0]
    try:
        return form.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise web.HTTPBadRequest(text=_sentence(first, form)) from None


def _sentence(error: Any, form: type[BaseModel]) -> str:
    name, context = error["loc"][0], error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        names = ", ".join(form.model_fields) or "none"
        return f"The parameters of this resource are: {names}."
    if error["type"] == "string_too_long":
        return f"`{name}` must not be longer than {context['max_length']} characters."
    if "expected" in context:
        values = context["expected"].replace("'", "").replace(" or ", ", ")
        return f"`{name}` must be one of {values}."
    return f"`{name}` {context['error']}."
