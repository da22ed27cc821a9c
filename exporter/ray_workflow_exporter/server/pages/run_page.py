"""What the page of one run shows."""

from __future__ import annotations

import json
import time
from itertools import islice
from typing import Any, Optional

from aiohttp import web

from ...catalog.snapshot import RunView
from ...model import Run, RunStatus, Task, TaskState
from ...responses import Responses
from ..api.parameters import RunPage
from ..source import RESPONSES
from . import buttons
from .drawing import MAX_EDGES, MAX_NODES, draw

TASKS_PER_PAGE = 100
_MANY_UPSTREAM = 5
_MANY_FACTS = 50
_LONG_FACT = 500  # characters


def content(request: web.Request, query: RunPage, view: RunView) -> dict[str, Any]:
    """Return what the template needs."""
    run, now = view.run, time.time()
    to = request.app[RESPONSES]
    stage = query.stage or None
    found = [
        task
        for task in run.tasks.values()
        if query.text in task.task_id
        and (not query.state or task.state in query.state)
        and stage in (None, task.stage)
    ]
    # The last page, when what came after it is gone.
    offset = max(0, min(query.offset, (len(found) - 1) // TASKS_PER_PAGE * TASKS_PER_PAGE))
    details = to.run(view)
    stages = details["stages"][:MAX_NODES]
    names = dict.fromkeys(it["stage"] for it in stages)
    return {
        "own": {"workflow_id": run.workflow_id},
        "query": {"workflow_id": run.workflow_id, **query.model_dump(mode="json")},
        "run": details,
        "counts": {state: count for state, count in details["task_counts"].items() if count},
        "since": run.start_time if run.status is RunStatus.RUNNING else None,
        "stages": stages,
        "more_stages": len(details["stages"]) - len(stages),
        "stage_names": [*names, *([stage] if stage and stage not in names else [])],
        "metadata": [
            (_brief(name), _brief(value if isinstance(value, str) else json.dumps(value)))
            for name, value in islice(details["user_metadata"].items(), _MANY_FACTS)
        ],
        "more_metadata": max(0, len(details["user_metadata"]) - _MANY_FACTS),
        "outlined": run.outlined,
        "drawing": draw(view, query.level, now),
        "max_nodes": MAX_NODES,
        "max_edges": MAX_EDGES,
        "all_tasks": len(run.tasks),
        "found": len(found),
        "first": offset + 1,
        "before": max(0, offset - TASKS_PER_PAGE) if offset else None,
        "after": offset + TASKS_PER_PAGE if offset + TASKS_PER_PAGE < len(found) else None,
        "tasks": [_row(run, it, to) for it in found[offset : offset + TASKS_PER_PAGE]],
        "panel": buttons.for_run(request, run),
    }


def _brief(text: str) -> str:
    return text if len(text) <= _LONG_FACT else f"{text[:_LONG_FACT]} …"


def _row(run: Run, task: Task, to: Responses) -> dict[str, Any]:
    known = [task_id for task_id in task.upstream if task_id in run.tasks]
    return {
        **to.task(task),
        "id": task.task_id,
        "wait": _wait(task),
        "since": task.start_time if task.state is TaskState.RUNNING else None,
        "after": known[:_MANY_UPSTREAM],
        "more": max(0, len(known) - _MANY_UPSTREAM),
    }


def _wait(task: Task) -> Optional[float]:
    """Return how many seconds a task waited for resources."""
    if task.submit_time is None or task.start_time is None or task.start_time < task.submit_time:
        return None
    return task.start_time - task.submit_time
