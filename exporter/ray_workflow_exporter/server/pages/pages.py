"""The pages: the list of runs at `/`, one run at `/run?workflow_id={id}`, and the runbooks.

They work without scripts. `static/page.js` adds live updates and the buttons.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, NamedTuple
from urllib.parse import quote, urlencode

import jinja2
from aiohttp import hdrs, web
from markupsafe import Markup

from ... import __version__
from ...display import STATE_COLOURS, STATUS_COLOURS, moment, printable, resources, size, span
from ..api.parameters import RunPage, RunsPage, query_of
from ..api.runs import by_query, view_of
from ..metrics import accepts_gzip
from . import run_page, runbooks, runs_page

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_COLOURS = {
    **{state.value: colour for state, colour in STATE_COLOURS.items()},
    **{status.value: colour for status, colour in STATUS_COLOURS.items()},
}
_FILES = {path.name: path.read_bytes() for path in (_HERE / "static").iterdir()}
_FILES["page.css"] += "".join(
    f".{name} {{ --state: {colour.hex} }}\n" for name, colour in _COLOURS.items()
).encode()
_VERSION = hashlib.sha256(b"".join(_FILES[name] for name in sorted(_FILES))).hexdigest()[:12]

_KEPT = 20  # pages
_KEPT_SECONDS = 1.0  # durations grow even if nothing changes


class _Kept(NamedTuple):
    change: int  # the newest one when it was made
    until: float
    body: bytes


class Shared:
    """Makes one page at a time and keeps it until something changes.

    So the cost of pages, and the delay of a scrape, do not grow with the number of browsers.
    """

    def __init__(self, last_change: Callable[[], int]) -> None:
        self._last_change = last_change
        self._turn = asyncio.Lock()
        self._kept: dict[str, _Kept] = {}

    async def body(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return what `make` returns, or what it returned for the same key before any change."""
        async with self._turn:
            change, kept = self._last_change(), self._kept.get(key)
            if kept is not None and kept.change == change and time.monotonic() < kept.until:
                return kept.body
            # In a thread: a big run takes a while, and scrapes must not wait for it.
            body = await asyncio.to_thread(make)
            self._kept.pop(key, None)
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = _Kept(change, time.monotonic() + _KEPT_SECONDS, body)
            return body


SHARED: web.AppKey[Shared] = web.AppKey("shared")


def add_routes(router: web.UrlDispatcher) -> None:
    """Add the pages and their files."""
    router.add_get("/", _page(_runs))
    router.add_get("/run", _page(by_query(_run)))
    # Also with its slashes decoded by a proxy; dashboards and alerts link to `/run`.
    router.add_get(r"/workflows/{workflow_id:[\s\S]+}", _page(_run))
    router.add_get("/runbooks/{name}", _page(_runbook))
    router.add_get("/static/{name}", _file)


def _page(handler: Handler) -> Handler:
    """Answer an error with a page instead of JSON."""

    async def shown(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            content = {"title": error.reason, "text": error.text}
            response = await _render(request, "error.html", lambda: content, shared=False)
            response.set_status(error.status)
            return response

    return shown


async def _runs(request: web.Request) -> web.StreamResponse:
    query = query_of(request, RunsPage)
    return await _render(request, "runs.html", lambda: runs_page.content(request, query))


async def _run(request: web.Request) -> web.StreamResponse:
    query = query_of(request, RunPage)
    view = await view_of(request)
    return await _render(request, "run.html", lambda: run_page.content(request, query, view))


async def _runbook(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    body = runbooks.page(name)
    if body is None:
        raise web.HTTPNotFound(text="There is no runbook of this name.")
    return await _render(request, "runbook.html", lambda: {"name": name, "body": Markup(body)})  # noqa: S704 - made without raw HTML


async def _file(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _FILES:
        raise web.HTTPNotFound
    return web.Response(
        body=_FILES[name],
        content_type=_TYPES[Path(name).suffix],
        charset="utf-8",
        # Its address changes with its content.
        headers={hdrs.CACHE_CONTROL: "public, max-age=31536000, immutable"},
    )


async def _render(
    request: web.Request,
    template: str,
    content: Callable[[], Mapping[str, Any]],
    *,
    shared: bool = True,
) -> web.Response:
    # Relative, so that it works behind a proxy under another path.
    root = "../" if request.path.startswith(("/workflows/", "/runbooks/")) else ""
    zipped = accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, ""))

    def made() -> bytes:
        text = _TEMPLATES.get_template(template).render(
            {"root": root, "now": time.time(), **content()}
        )
        # An id from a file name that is not UTF-8 holds surrogates.
        body = text.encode(errors="replace")
        return gzip.compress(body, 1) if zipped else body

    if shared:
        body = await request.app[SHARED].body(f"{zipped} {request.raw_path}", made)
    else:
        body = await asyncio.to_thread(made)
    headers: dict[str, str] = {hdrs.VARY: hdrs.ACCEPT_ENCODING}
    if zipped:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)


def _shown(value: object) -> object:
    """Replace characters that cannot be shown in what users wrote; Jinja escapes the rest."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(text: str) -> Markup:
    return Markup("\n").join(printable(line) for line in text.splitlines())


def _exact(text: str) -> Markup:
    """Return the value of a form field such that the form sends it back unchanged."""
    return Markup("").join(
        char if char.isprintable() else Markup("&#%d;") % ord(char) for char in text
    )


def _segment(text: str) -> str:
    """Return an id percent-encoded: in a path, in a query, or as the id of an element."""
    return quote(text, safe="", errors="replace")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _with(query: Mapping[str, Any], **changes: object) -> str:
    """Return a query with changes; None removes a parameter."""
    merged: dict[str, Any] = {**query, **changes}
    pairs: list[tuple[str, object]] = []
    for name, value in merged.items():
        values: Sequence[object] = value if isinstance(value, list) else [value]
        pairs += [(name, it) for it in values if it not in (None, "")]
    return "?" + urlencode(pairs, errors="replace")


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(
    utc=moment,
    iso=_iso,
    span=span,
    size=size,
    resources=resources,
    lines=_lines,
    exact=_exact,
    segment=_segment,
)
_TEMPLATES.globals.update(
    version=__version__,
    assets=_VERSION,
    statuses=[status.value for status in STATUS_COLOURS],
    states=[state.value for state in STATE_COLOURS],
    with_query=_with,
)
