"""What the list of runs shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ...display import NOTHING
from ...model import RunStatus, TaskState
from ...redact import masked
from ..api.parameters import RunsPage
from ..api.runs import matching
from ..source import RESPONSES, SOURCE
from . import buttons

PER_PAGE = 50

ENDPOINTS = {
    "metrics": "for Prometheus; ?tier= selects cluster, workflow, run, stage, task or exporter",
    "api/v1/workflows": "runs as JSON; takes the parameters of the search above",
    "api/v1/openapi.json": "the API as an OpenAPI document",
    "api/v1/events": "changes, as server-sent events",
    "runbooks/index": "what each alert means and what to do",
    "-/healthy": "whether polls finish in time",
    "-/ready": "whether the first poll has finished",
}


def content(request: web.Request, query: RunsPage) -> dict[str, Any]:
    """Return what the template needs."""
    source = request.app[SOURCE]
    runs = source.runs()
    to = request.app[RESPONSES]
    found = matching(runs, query.status, query.workflow or None, query.text)
    # The last page, when what came after it is gone.
    offset = max(0, min(query.offset, (len(found) - 1) // PER_PAGE * PER_PAGE))
    counts = Counter(view.run.status for view in runs)
    status = source.status
    # A Ray without storage is no error, but whoever misses the runs looks there for the reason.
    problem = status.get("storage_error")
    if status.get("storage") is None:
        problem = problem or status.get("manager_reason")
    facts = {**status, "storage_error": problem}
    return {
        "query": query.model_dump(mode="json"),
        "counts": {status.value: counts[status] for status in RunStatus},
        "workflows": sorted({view.run.workflow for view in runs}),
        "total": len(runs),
        "found": len(found),
        "runs": [_row(to.run_summary(view)) for view in found[offset : offset + PER_PAGE]],
        "first": offset + 1,
        "before": max(0, offset - PER_PAGE) if offset else None,
        "after": offset + PER_PAGE if offset + PER_PAGE < len(found) else None,
        "panel": buttons.for_all(request, counts[RunStatus.RESUMABLE]),
        "endpoints": ENDPOINTS,
        "facts": {name.replace("_", " "): _fact(it) for name, it in facts.items()},
        "problem": masked(problem or ""),
        "warning": masked(status.get("storage_warning") or ""),
    }


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    failure = run["failure"]
    error = failure["exception"] if failure else ""
    if failure and failure["message"]:
        error += f": {failure['message']}"
    return {
        **run,
        "error": error,
        "done": run["task_counts"][TaskState.SUCCESSFUL.value],
        "tasks": sum(run["task_counts"].values()),
        "since": run["start_time"] if run["status"] == RunStatus.RUNNING.value else None,
    }


def _fact(value: object) -> object:
    # The only floats among the facts are times. The URI of a storage may hold a key.
    if isinstance(value, float):
        return value
    return NOTHING if value in (None, "") else masked(str(value))
