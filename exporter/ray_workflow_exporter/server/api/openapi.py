"""The OpenAPI document of the API, made from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
MEANINGS = {
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
    schema_of(responses.Problem, components)
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
            "content": {it.content_type: {"schema": schema_of(shape, components)}},
        }
        for status, (text, shape) in it.answers.items()
    }
    if any(header.name == "If-None-Match" for header in it.headers):
        answers["304"] = {"description": "The caller has the current answer already."}
    for status in sorted({*_ANY, *it.errors}):
        answers[str(status)] = {
            "description": MEANINGS[status],
            "content": {"application/problem+json": {"schema": schema_of(responses.Problem, {})}},
        }
    found: dict[str, Any] = {
        "operationId": it.name,
        "summary": it.summary,
        "parameters": _parameters(it, components),
        "responses": answers,
        # Reading is public unless the settings say otherwise.
        "security": [{"token": []}] if needs_token(it) else [{}, {"token": []}, {"user": []}],
    }
    if it.description:
        found["description"] = it.description
    if it.body is not None:
        found["requestBody"] = {
            "content": {"application/json": {"schema": schema_of(it.body, components)}}
        }
    return found


def needs_token(it: Operation) -> bool:
    """Return whether an operation needs a token even where reading is public."""
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


def schema_of(shape: Any, components: dict[str, Any]) -> Mapping[str, Any]:
    """Return the JSON schema of a shape; the shapes that it refers to are added to `components`."""
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
