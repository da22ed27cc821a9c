"""The OpenAPI document of the API, and `docs/api.md`, both made from the table of operations.

python -m ray_workflow_exporter.server.api.openapi > docs/api.md
"""

from __future__ import annotations

import http
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter

from ... import __version__, responses
from ..auth.tokens import Role
from .operations import OPERATIONS, Operation
from .parameters import MAX_TEXT, Query, query_of
from .runs import reply

_REFERENCE = "#/components/schemas/{model}"
_PATHS = {
    "workflow_id": "The run's id, percent-encoded as one segment: a slash in it is `%2F`.",
    "action_id": "The action's id.",
}
# What any operation may answer, and what is meant.
_ANY = (400, 401, 403, 429)
_MEANINGS = {
    400: "A parameter, the body or the request itself is wrong.",
    401: "Credentials are missing or not valid.",
    403: "The caller may not do this, or actions are off.",
    404: "There is nothing with this id.",
    408: "The body did not arrive in time.",
    409: "The run's state forbids the action, or another action on it is in progress.",
    413: "The body is too long.",
    422: "The `Idempotency-Key` was used before, for another request.",
    429: "Too many requests; `Retry-After` says when to try again.",
    503: "Storage or Ray does not answer now, or too many clients read the events.",
}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, Any] = {}
    _schema(responses.Problem, components)
    for it in OPERATIONS:
        paths.setdefault(it.path, {})[it.method.lower()] = _operation(it, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ray Workflow Exporter",
            "version": __version__,
            "description": "Read, follow, cancel, resume and delete runs of Ray Workflows.",
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
    if any(header.name == "If-None-Match" for header in it.headers):
        answers["304"] = {"description": "The caller has the current answer already."}
    for status in sorted({*_ANY, *it.errors}):
        answers[str(status)] = {
            "description": _MEANINGS[status],
            "content": {"application/problem+json": {"schema": _schema(responses.Problem, {})}},
        }
    found: dict[str, Any] = {
        "operationId": it.name,
        "summary": it.summary,
        "parameters": _parameters(it, components),
        "responses": answers,
        # Reading is public unless the settings say otherwise.
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


def _parameters(it: Operation, components: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATHS[name],
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT},
        }
        for name in re.findall(r"{(\w+)}", it.path)
    ]
    schema = TypeAdapter(it.query).json_schema(ref_template=_REFERENCE)
    components.update(_plain(schema.get("$defs", {})))
    for name, parameter in _plain(schema.get("properties", {})).items():
        description = parameter.pop("description")
        if parameter.get("default") in (None, "", []):
            parameter.pop("default", None)
        for one in parameter.pop("anyOf", ()):  # a text or null: null is no parameter
            parameter |= one if one != {"type": "null"} else {}
        found.append({"name": name, "in": "query", "description": description, "schema": parameter})
    found += [
        {"name": name, "in": "header", "description": description, "schema": header}
        for name, description, header in it.headers
    ]
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
    query_of(request, Query)
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
        parameters = [
            parameter
            for parameter in found["paths"][it.path][it.method.lower()]["parameters"]
            if parameter["in"] != "path"
        ]
        if parameters:
            yield from ("", "| parameter | in | allowed | meaning |", "|---|---|---|---|")
        for parameter in parameters:
            cells = (f"`{parameter['name']}`", parameter["in"], _allowed(parameter["schema"]))
            yield f"| {' | '.join(cells)} | {parameter['description']} |"
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
        if "enum" in schema:
            yield _type(schema)
            continue
        yield from ("| field | type | meaning |", "|---|---|---|")
        for key, field in schema["properties"].items():
            yield f"| `{key}` | {_type(field)} | {field.get('description', '')} |"


def _allowed(schema: Mapping[str, Any]) -> str:
    allowed = "text"
    if "enum" in schema or "$ref" in schema or schema["type"] == "array":
        allowed = _type(schema.get("items", schema))
    elif schema["type"] == "integer":
        allowed = f"{schema['minimum']} to {schema['maximum']}"
    elif schema["type"] == "boolean":
        allowed = "`true`, `false`"
    return (
        f"{allowed}; default `{json.dumps(schema['default'])}`" if "default" in schema else allowed
    )


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

<!-- Generated by `python -m ray_workflow_exporter.server.api.openapi`. -->

As OpenAPI 3.1: `/api/v1/openapi.json`. Bodies are JSON; times are Unix seconds, durations seconds,
sizes bytes.

- **Ids** may hold any character: percent-encode them as one segment of the path, slashes as `%2F`.
  Each path that begins with `/api/v1/workflows/{workflow_id}` also exists as
  `/api/v1/run…?workflow_id=…` (`/api/v1/run/tasks?workflow_id=team%2Fetl`), for ids that a proxy
  would change in a path, because it decodes `%2F` or removes `..`.
- **Lists** leave user metadata out; `metadata=true` includes it. To read all runs while they
  change, use `sort=id` and follow the header `Link`.
- **Errors** are problem details (RFC 9457, `application/problem+json`) whose `detail` is a
  sentence. Any operation may answer 400, 401, 403 and 429.
- **Unknown parameters** are errors, so that a misspelt filter does not list everything.
- **Entity tags**: send the `ETag` of an answer back as `If-None-Match`; the answer is 304 if
  nothing has changed.
- **Stability**: a minor release may add fields; none is removed or changes its meaning before
  `/api/v2`.
- **Credentials**: by default reading needs none and actions are off: see [security](security.md).
"""


if __name__ == "__main__":
    sys.stdout.write(page())
