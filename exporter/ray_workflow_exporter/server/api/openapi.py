"""The OpenAPI document of the API, and `docs/api.md`, both made from the table of operations.

python -m ray_workflow_exporter.server.openapi > docs/api.md
"""

from __future__ import annotations

import http
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter

from ... import __version__
from ..auth.tokens import Role
from . import schemas
from .operations import OPERATIONS
from .parameters import ID, Operation, Parameter, query_of
from .runs import reply

_REFERENCE = "#/components/schemas/{model}"
# What any operation may answer, and what is meant.
_ANY = (400, 401, 403, 429)
_MEANINGS = {
    400: "A parameter, the body or the request itself is wrong.",
    401: "Credentials are needed, or those given are not valid.",
    403: "The caller may not do this, or nobody may: actions are off.",
    404: "There is nothing of this id.",
    408: "The body did not come in time.",
    409: "The run's state forbids the action, or another action on it is under way.",
    413: "The body is too long.",
    422: "The `Idempotency-Key` was used before, for another request.",
    429: "Too many requests; `Retry-After` says when to try again.",
    503: "Storage or Ray cannot be asked now, or too many follow already.",
}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, Any] = {}
    _schema(schemas.Problem, components)
    for it in OPERATIONS:
        paths.setdefault(it.path, {})[it.method.lower()] = _operation(it, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ray Workflow Exporter",
            "version": __version__,
            "description": "Runs of Ray Workflows: look at them, follow them, act on them.",
        },
        # Relative to this document, so that it holds behind a proxy under another path as well.
        "servers": [{"url": "../.."}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "user": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(it: Operation, components: dict[str, Any]) -> dict[str, Any]:
    answers = {
        str(status): {
            "description": text,
            "content": {it.content_type: {"schema": _schema(shape, components)}},
        }
        for status, (text, shape) in it.answers.items()
    }
    if any(parameter.name == "If-None-Match" for parameter in it.parameters):
        answers["304"] = {"description": "The caller has the current one already."}
    for status in sorted({*_ANY, *it.errors}):
        answers[str(status)] = {
            "description": _MEANINGS[status],
            "content": {"application/problem+json": {"schema": _schema(schemas.Problem, {})}},
        }
    found: dict[str, Any] = {
        "operationId": it.name,
        "summary": it.summary,
        "parameters": [_parameter(parameter) for parameter in it.parameters],
        "responses": answers,
        # Reading is open to all unless the exporter is told otherwise.
        "security": [{"token": []}] if _needs_token(it) else [{}, {"token": []}, {"user": []}],
    }
    if it.description:
        found["description"] = it.description
    if it.body is not None:
        found["requestBody"] = {
            "content": {"application/json": {"schema": _schema(it.body, components)}}
        }
    return found


def _needs_token(it: Operation) -> bool:
    return it.token or it.role is Role.ACT


def _parameter(it: Parameter) -> dict[str, Any]:
    schema = {"type": "array", "items": it.schema} if it.many else it.schema
    found: dict[str, Any] = {
        "name": it.name,
        "in": it.where,
        "description": it.description,
        "schema": schema,
    }
    if it.where == "path":
        found["required"] = True
    return found


def _schema(shape: Any, components: dict[str, Any]) -> Mapping[str, Any]:
    if isinstance(shape, Mapping):
        return shape
    schema = TypeAdapter(shape).json_schema(ref_template=_REFERENCE, mode="validation")
    components.update(_plain(schema.pop("$defs", {})))
    if "properties" not in schema:
        return _plain(schema)  # type: ignore[no-any-return]
    components[shape.__name__] = _plain(schema)
    return {"$ref": _REFERENCE.format(model=shape.__name__)}


def _plain(value: Any) -> Any:
    """Leave out the titles that pydantic makes of the names."""
    if isinstance(value, dict):
        return {
            key: _plain(item)
            for key, item in value.items()
            if key != "title" or isinstance(item, dict)
        }
    return [_plain(item) for item in value] if isinstance(value, list) else value


async def serve(request: web.Request) -> web.Response:
    """Answer with the document."""
    query_of(request)
    return await reply(request, document)


def page() -> str:
    """Return `docs/api.md`."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _INTRODUCTION.strip("\n").splitlines()
    found = document()
    for it in OPERATIONS:
        yield from ("", f"## {it.summary}", "", f"`{it.method} {it.path}`")
        if it.description:
            yield from ("", it.description)
        if _needs_token(it):
            yield from ("", f"Needs a token with the role `{it.role.value}`.")
        parameters = [parameter for parameter in it.parameters if parameter is not ID]
        if parameters:
            yield from ("", "| parameter | in | allowed | meaning |", "|---|---|---|---|")
        for parameter in parameters:
            cells = (f"`{parameter.name}`", parameter.where, _allowed(parameter.schema))
            yield f"| {' | '.join(cells)} | {parameter.description} |"
        if it.body is not None:
            yield from ("", f"Takes a body: [{it.body.__name__}](#{it.body.__name__.lower()}).")
        yield from ("", "| answer | meaning | content |", "|---|---|---|")
        for status, (text, shape) in it.answers.items():
            yield f"| {status} | {text} | {_content(it, shape)} |"
        for status in it.errors:
            title = http.HTTPStatus(status).phrase
            yield f"| {status} {title} | {_MEANINGS[status]} | [Problem](#problem) |"
    yield from ("", "## Shapes")
    for name, schema in found["components"]["schemas"].items():
        yield from ("", f"### {name}", "", schema.get("description", ""), "")
        yield from ("| field | type | meaning |", "|---|---|---|")
        for key, field in schema["properties"].items():
            yield f"| `{key}` | {_type(field)} | {field.get('description', '')} |"


def _allowed(schema: Mapping[str, Any]) -> str:
    allowed = "text"
    if "enum" in schema:
        allowed = ", ".join(f"`{value}`" for value in schema["enum"])
    elif schema["type"] == "integer":
        allowed = f"{schema['minimum']} to {schema['maximum']}"
    elif schema["type"] == "boolean":
        allowed = "`true`, `false`"
    return f"{allowed}; else `{schema['default']}`" if "default" in schema else allowed


def _content(it: Operation, shape: Any) -> str:
    if it.content_type != "application/json":
        return f"`{it.content_type}`"
    return _type(_schema(shape, {}))


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])} by name"
    return str(kind)


_INTRODUCTION = """
# API

<!-- Generated by `python -m ray_workflow_exporter.server.openapi`: edit server/operations.py. -->

The same as OpenAPI 3.1: `/api/v1/openapi.json`. Bodies are JSON; times are Unix seconds, durations
seconds, sizes bytes.

- **Ids** hold any character: percent-encode them as one segment of the path, slashes as `%2F`.
- **Errors** are problem details (RFC 9457, `application/problem+json`) whose `detail` is a
  sentence. Any operation may answer 400, 401, 403 and 429.
- **Unknown parameters** are errors, so that a filter with a typing mistake does not list all.
- **Entity tags**: send the `ETag` of an answer back as `If-None-Match`, and 304 says that it is
  still the same.
- **Stability**: fields may be added in a minor release; none is taken away or changes its meaning
  before `/api/v2`.
- **Credentials**: none are needed for reading unless the exporter is told otherwise, and actions
  are off unless it is given tokens: see [security](security.md).
"""


if __name__ == "__main__":
    sys.stdout.write(page())
