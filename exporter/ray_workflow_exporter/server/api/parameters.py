"""What an operation of the API is made of; from its row in the table come route and document."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Callable, Optional

from aiohttp import web
from pydantic import BaseModel

from ...model import RunStatus, TaskState
from ..auth.tokens import Role

MAX_PAGE = 1000
MAX_OFFSET = 2**31
MAX_TEXT = 255  # characters; Ray itself takes no id above 255 bytes

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query or, with `where`, of the path or the headers."""

    name: str
    description: str
    schema: Schema
    many: bool = False  # may stand more than once, any of the values counts
    where: str = "query"

    def read(self, text: str) -> Any:
        """Return the value of a text. Raises ValueError with the predicate of a sentence."""
        schema = self.schema
        if schema["type"] == "integer":
            low, high = schema["minimum"], schema["maximum"]
            number = text.isascii() and text.isdigit() and len(text) <= len(str(high))
            if not number or not low <= int(text) <= high:
                raise ValueError(f"must be a whole number from {low} to {high}")
            return int(text)
        if schema["type"] == "boolean":
            if text not in ("true", "false"):
                raise ValueError("must be true or false")
            return text == "true"
        if "enum" in schema:
            found = [value for value in schema["enum"] if value.casefold() == text.casefold()]
            if not found:
                raise ValueError(f"must be one of {', '.join(schema['enum'])}")
            return found[0]
        if not schema.get("minLength", 0) <= len(text) <= schema["maxLength"]:
            raise ValueError(f"must not be longer than {schema['maxLength']} characters")
        return text


@dataclass(frozen=True)
class Operation:
    """One row: what the operation takes, what it answers, and who may ask for it."""

    method: str
    path: str  # as in the document: parameters in braces
    name: str  # the document's operationId
    summary: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    answers: Mapping[int, tuple[str, Any]]  # status: description, model or Schema
    parameters: tuple[Parameter, ...] = ()
    body: Optional[type[BaseModel]] = None
    role: Role = Role.READ
    token: bool = False  # needs one even where reading is open to all
    errors: tuple[int, ...] = ()  # beyond those that any operation may answer
    content_type: str = "application/json"
    description: str = ""


def _enum(values: type[Enum]) -> Schema:
    return {"type": "string", "enum": [value.value for value in values]}


TEXT: Schema = {"type": "string", "maxLength": MAX_TEXT}

ID = Parameter(
    "workflow_id",
    "The run's id, percent-encoded as one segment: a slash in it is `%2F`.",
    {"type": "string", "minLength": 1, "maxLength": MAX_TEXT},
    where="path",
)
ACTION_ID = Parameter("action_id", "The action's id.", TEXT, where="path")
STATUS = Parameter(
    "status", "Only runs of this status; may be repeated.", _enum(RunStatus), many=True
)
WORKFLOW = Parameter("workflow", "Only runs of this workflow.", TEXT)
SEARCH = Parameter("text", "Only runs with this in their id or workflow, in any case.", TEXT)
STATE = Parameter(
    "state", "Only tasks in this state; may be repeated.", _enum(TaskState), many=True
)
TASK_SEARCH = Parameter("text", "Only tasks with this in their id.", TEXT)
STAGE = Parameter("stage", "Only tasks of this stage.", TEXT)
LEVEL = Parameter(
    "level",
    "What the nodes are: stages, or single tasks.",
    {"type": "string", "enum": ["stage", "task"], "default": "stage"},
)
LIMIT = Parameter(
    "limit",
    "How many to return at most.",
    {"type": "integer", "minimum": 0, "maximum": MAX_PAGE, "default": 100},
)
OFFSET = Parameter(
    "offset",
    "How many to pass over first.",
    {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET, "default": 0},
)
OF_RUN = Parameter("workflow_id", "Only events of this run.", TEXT)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "The id of the last event that was seen: what came after it is told first.",
    {"type": "string"},
    where="header",
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "An `ETag` seen before: 304 without a body if it is still the current one.",
    {"type": "string"},
    where="header",
)

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "A text of your own choice: the same order with the same key is carried out once.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    where="header",
)
START_MANAGER = Parameter(
    "start_manager",
    "Start a workflow management actor where Ray has none.",
    {"type": "boolean", "default": False},
)
LIST = (STATUS, WORKFLOW, SEARCH, LIMIT, OFFSET)


def query_of(request: web.Request, *parameters: Parameter) -> dict[str, Any]:
    """Return the values of the query by name: lists for those that may be repeated, the default
    or None for what is not there.

    Raises HTTPBadRequest, also for a parameter that is not among `parameters`.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in request.query:
        if name not in known:
            names = ", ".join(known) or "none"
            raise web.HTTPBadRequest(text=f"The parameters of this resource are: {names}.")
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        texts = request.query.getall(name, [])
        if len(texts) > 1 and not parameter.many:
            raise web.HTTPBadRequest(text=f"`{name}` may stand only once.")
        try:
            found = [parameter.read(text) for text in texts]
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"`{name}` {error}.") from None
        if parameter.many:
            values[name] = found
        else:
            values[name] = found[0] if found else parameter.schema.get("default")
    return values
