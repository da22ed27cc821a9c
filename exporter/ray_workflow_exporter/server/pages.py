"""The landing page: what there is, how the exporter fares, and the newest runs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timezone
from html import escape
from typing import Any
from urllib.parse import quote

from aiohttp import web

from .. import __version__
from ..display import NOTHING, moment, printable, span
from ..metrics.text import masked
from ..model import RunStatus, TaskState
from ..palette import STATUS_COLOURS
from ..snapshot import RunView
from .source import SOURCE, Source

NEWEST = 50

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
small { opacity: .7; font-weight: normal }
ul { padding-left: 1.2rem } code { font-family: ui-monospace, monospace; font-size: .93em }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top }
td.id { overflow-wrap: anywhere; min-width: 12rem } td.number { white-space: nowrap;
  font-variant-numeric: tabular-nums }
.counts { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; list-style: none }
.counts li { background: var(--soft); border-radius: .4rem; padding: .3rem .7rem }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em }
progress { width: 7rem; height: .5rem; vertical-align: middle; appearance: none; border: 0;
  border-radius: .25rem; overflow: hidden; background: var(--line) }
progress::-webkit-progress-bar { background: var(--line) }
""" + "".join(
    f".dot.{status.value} {{ background: {colour.hex} }}\n"
    f"progress.{status.value}::-webkit-progress-value {{ background: {colour.hex} }}\n"
    f"progress.{status.value}::-moz-progress-bar {{ background: {colour.hex} }}\n"
    for status, colour in STATUS_COLOURS.items()
)

# The page's only style, by which the Content-Security-Policy knows it.
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_ENDPOINTS = {
    "metrics": "for Prometheus; <code>?tier=</code> chooses cluster, class, run, stage, task, "
    "exporter",
    "api/v1/workflows": "all runs as JSON; <code>?status=</code>, <code>?class=</code>, "
    "<code>?text=</code>, <code>?limit=</code>, <code>?offset=</code>",
    "api/v1/openapi.json": "all of the API, as OpenAPI",
    "-/healthy": "whether the poll loop is alive",
    "-/ready": "whether the first poll is done",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>Ray Workflow Exporter</title>
<style>{style}</style>
</head>
<body>
<h1>Ray Workflow Exporter <small>{version}</small></h1>
<ul class="counts">{counts}</ul>
<h2>Endpoints</h2>
<ul>{endpoints}</ul>
<h2>Runs <small>{shown} of {total}, live ones first; times are UTC</small></h2>
<div class="scroll"><table>
<thead><tr><th>workflow id</th><th>class</th><th>status</th><th>progress</th><th>tasks</th>
<th>started</th><th>duration</th></tr></thead>
<tbody>{runs}</tbody>
</table></div>
<h2>Exporter</h2>
<div class="scroll"><table><tbody>{status}</tbody></table></div>
</body>
</html>
"""


async def landing(request: web.Request) -> web.Response:
    """Show the landing page."""
    page = await asyncio.to_thread(_render, request.app[SOURCE])
    # An id from a file name that is not UTF-8 holds surrogates.
    return web.Response(
        body=page.encode(errors="replace"), content_type="text/html", charset="utf-8"
    )


def _render(source: Source) -> str:
    runs, now = source.runs(), time.time()
    counts = Counter(view.run.status for view in runs)
    return _PAGE.format(
        style=_STYLE,
        version=_text(__version__),
        counts="".join(
            f"<li>{_status(status.value)} <strong>{counts[status]}</strong></li>"
            for status in STATUS_COLOURS
        ),
        endpoints="".join(
            f'<li><a href="{path}">/{path}</a> – {meaning}</li>'
            for path, meaning in _ENDPOINTS.items()
        ),
        shown=min(NEWEST, len(runs)),
        total=len(runs),
        runs="".join(_row(view, now) for view in runs[:NEWEST]),
        status=_facts(source.status),
    )


def _row(view: RunView, now: float) -> str:
    run, analysis = view.run, view.analysis
    percent = f"{analysis.progress:.0%}"
    lasted = run.duration
    if run.status is RunStatus.RUNNING and run.start_time is not None:
        lasted = max(0.0, now - run.start_time)
    # Relative, so that it works behind a proxy under another path.
    link = f"api/v1/workflows/{quote(run.workflow_id, safe='', errors='replace')}"
    done = analysis.tasks.get(TaskState.SUCCESSFUL, 0)
    return (
        f'<tr><td class="id"><a href="{link}">{_text(run.workflow_id)}</a>'
        f"</td><td>{_text(run.workflow)}</td><td>{_status(run.status.value)}</td>"
        f'<td class="number"><progress class="{run.status.value}" max="1" '
        f'value="{analysis.progress:.4f}">{percent}</progress> {percent}</td>'
        f'<td class="number">{done}/{sum(analysis.tasks.values())}</td>'
        f'<td class="number">{moment(run.start_time, timezone.utc)}</td>'
        f'<td class="number">{span(lasted)}</td></tr>'
    )


def _status(status: str) -> str:
    return f'<span class="dot {status}"></span>{status}'


def _facts(status: Mapping[str, Any]) -> str:
    return "".join(
        f"<tr><th>{_text(name.replace('_', ' '))}</th><td>{_text(_fact(value))}</td></tr>"
        for name, value in status.items()
    )


def _fact(value: object) -> str:
    if isinstance(value, float):  # the only floats among the facts are times
        return f"{moment(value, timezone.utc)} UTC"
    # The URI of a storage may hold a key.
    return NOTHING if value in (None, "") else masked(str(value))


def _text(value: object) -> str:
    return escape(printable(str(value)))
