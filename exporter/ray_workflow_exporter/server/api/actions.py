"""Actions over HTTP: accept a request, answer with the id of the action."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Optional, TypeVar

import pydantic
from aiohttp import hdrs, web

from ...actions import Order, Refusal, RefusedError, Verb
from ...responses import action_metadata
from ..auth.gate import GATE, body_of
from ..auth.tokens import Caller
from ..source import API, SOURCE
from . import parameters
from .parameters import CancelOptions, ForgetOptions, Options, Query, ResumeOptions, query_of
from .runs import next_page, reply

ACTS: web.AppKey[bool] = web.AppKey("acts")  # whether this address takes orders

_STATUS: dict[Refusal, type[web.HTTPError]] = {
    Refusal.UNKNOWN: web.HTTPNotFound,
    Refusal.STATE: web.HTTPConflict,
    Refusal.BUSY: web.HTTPConflict,
    Refusal.KEY: web.HTTPUnprocessableEntity,
    Refusal.UNAVAILABLE: web.HTTPServiceUnavailable,
}

Shape = TypeVar("Shape", bound=pydantic.BaseModel)


async def cancel(request: web.Request) -> web.Response:
    """Cancel a run."""
    caller = await _actor(request, Verb.CANCEL)
    options = await _options(request, CancelOptions)
    return await _order(request, _of_run(request, Verb.CANCEL, caller, options))


async def resume(request: web.Request) -> web.Response:
    """Resume a run."""
    caller = await _actor(request, Verb.RESUME)
    options = await _options(request, ResumeOptions)
    return await _order(request, _of_run(request, Verb.RESUME, caller, options))


async def delete(request: web.Request) -> web.Response:
    """Delete a run."""
    caller = await _actor(request, Verb.DELETE)
    query = query_of(request, parameters.StartManager)
    options = Options(start_manager=query.start_manager)
    return await _order(request, _of_run(request, Verb.DELETE, caller, options))


async def resume_all(request: web.Request) -> web.Response:
    """Resume all runs that are RESUMABLE."""
    caller = await _actor(request, Verb.RESUME_ALL)
    options = await _options(request, ResumeOptions)
    order = Order(Verb.RESUME_ALL, None, caller.name, **options.model_dump())
    return await _order(request, order)


async def forget(request: web.Request) -> web.Response:
    """Drop the counters of a workflow without runs."""
    await _actor(request, Verb.DELETE)
    workflow = (await _options(request, ForgetOptions)).workflow
    try:
        known = request.app[SOURCE].forget_workflow(workflow)
    except ValueError as error:
        raise web.HTTPConflict(text=str(error)) from None
    if not known:
        raise web.HTTPNotFound(text="There is no workflow of this name.")
    return await reply(request, lambda: {"workflow": workflow})


async def action(request: web.Request) -> web.Response:
    """Show an action and what became of it."""
    await _actor(request)
    query_of(request, Query)
    found = request.app[SOURCE].actions.get(request.match_info["action_id"])
    if found is None:
        raise web.HTTPNotFound(text="There is no action of this id; the exporter keeps the newest.")
    return await reply(request, lambda: action_metadata(found))


async def actions(request: web.Request) -> web.Response:
    """List actions, newest first, in pages."""
    await _actor(request)
    query = query_of(request, parameters.Page)

    def build() -> dict[str, Any]:
        found = request.app[SOURCE].actions.newest()
        page = found[query.offset : query.offset + query.limit]
        items = [action_metadata(it) for it in page]
        return {"total": len(found), "limit": query.limit, "offset": query.offset, "items": items}

    return await reply(request, build, next_page)


async def _actor(request: web.Request, verb: Optional[Verb] = None) -> Caller:
    """Return who orders something or, without a verb, looks at what was ordered."""
    if not request.app[ACTS]:
        raise web.HTTPForbidden(text="Actions are served at another address of this exporter.")
    try:
        return request.app[GATE].check_actor(request, verb)
    except (web.HTTPUnauthorized, web.HTTPForbidden):
        if verb is not None:
            request.app[SOURCE].actions.deny(verb)
        raise


async def _options(request: web.Request, shape: type[Shape]) -> Shape:
    query_of(request, Query)
    body = await body_of(request)
    if not body:
        return shape()
    try:
        return shape.model_validate_json(body, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        names = ", ".join(shape.model_fields)
        text = f"`{where}`: {first['msg'].lower()}." if where else "It is no JSON object."
        raise web.HTTPBadRequest(text=f"The body may hold {names}. {text}") from None


def _of_run(request: web.Request, verb: Verb, caller: Caller, options: Options) -> Order:
    return Order(verb, request.match_info["workflow_id"], caller.name, **options.model_dump())


async def _order(request: web.Request, order: Order) -> web.Response:
    key = _key(request)
    try:
        taken = await asyncio.to_thread(request.app[SOURCE].actions.order, order, key)
    except RefusedError as error:
        raise _STATUS[error.refusal](text=str(error)) from None
    response = await reply(request, lambda: action_metadata(taken))
    response.set_status(202)
    response.headers[hdrs.LOCATION] = f"{API}/actions/{taken.id}"
    return response


def _key(request: web.Request) -> Optional[str]:
    key = request.headers.get(parameters.IDEMPOTENCY_KEY.name)
    if key is not None and not re.fullmatch(r"[ -~]{1,255}", key):
        raise web.HTTPBadRequest(text="`Idempotency-Key` must be 1 to 255 printable characters.")
    return key
