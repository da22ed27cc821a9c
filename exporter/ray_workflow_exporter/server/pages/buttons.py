"""The buttons of the pages: which actions are possible, and what each asks before it acts."""

from __future__ import annotations

import shlex
from typing import Any, Optional
from urllib.parse import quote

from aiohttp import web

from ...actions import Verb, applicable
from ...model import Run, RunStatus
from ..api.actions import ACTS
from ..auth.gate import ACTIONS_OFF, GATE
from ..source import API, SOURCE

_AS = "--address auto"  # as a Ray driver: without a token
_CANCEL_TEXTS = {
    RunStatus.PENDING: "The run is queued, and Ray cannot cancel a queued run. It will be "
    "cancelled as soon as it starts.",
    RunStatus.RUNNING: "Its tasks are killed. Checkpoints are kept, and the run can be resumed.",
    RunStatus.RESUMABLE: "The run is not running. It is marked as CANCELED and can be resumed.",
}


def for_run(request: web.Request, run: Run) -> dict[str, Any]:
    """Return the buttons of a run."""
    path = f"{API.lstrip('/')}/run"
    query = f"?workflow_id={quote(run.workflow_id, safe='', errors='replace')}"
    waits = run.status is RunStatus.PENDING
    name = shlex.quote(run.workflow_id)
    offers = {
        Verb.CANCEL: _button(
            "cancel",
            "Cancel when it starts" if waits else "Cancel",
            _CANCEL_TEXTS.get(run.status, ""),
            f"{path}/cancel{query}",
            f"cancel {name} {_AS}{' --when-started' if waits else ''}",
            body={"when_started": True} if waits else {},
            workflow_id=run.workflow_id,
            harmful=True,
        ),
        Verb.RESUME: _button(
            "resume",
            "Resume",
            "It continues from its checkpoints. Tasks without one run again.",
            f"{path}/resume{query}",
            f"resume {name} {_AS}",
            workflow_id=run.workflow_id,
        ),
        Verb.DELETE: _button(
            "delete",
            "Delete",
            "Its folder in storage is removed, with all outputs. This cannot be undone.",
            path + query,
            f"delete {name} {_AS}",
            method="DELETE",
            workflow_id=run.workflow_id,
            harmful=True,
        ),
    }
    return _panel(request, [offers[verb] for verb in applicable(run)])


def for_all(request: web.Request, resumable: int) -> dict[str, Any]:
    """Return the buttons of the list, where `resumable` runs are RESUMABLE."""
    text = "They continue from their checkpoints, one after the other, within Ray's limits."
    label = (
        f"Resume all {resumable} RESUMABLE runs" if resumable > 1 else "Resume the RESUMABLE run"
    )
    path = f"{API.lstrip('/')}/resume-all"
    offers = [_button("resume-all", label, text, path, f"resume --all {_AS}")]
    return _panel(request, offers if resumable else [])


def _button(
    verb: str, label: str, question: str, path: str, command: str, **more: Any
) -> dict[str, Any]:
    """Return one action: its request, the question before it, and the command that does the same.

    The path is from the root of the exporter.
    """
    button = {"verb": verb, "label": label, "question": question, "path": path}
    others = {"method": "POST", "body": {}, "workflow_id": "", "harmful": False}
    return {**button, "command": f"ray-workflow-exporter {command}", **others, **more}


def _panel(request: web.Request, buttons: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the buttons of the possible actions, and the obstacle because of which none works."""
    actions = request.app[SOURCE].actions
    if not request.app[GATE].takes_orders:
        obstacle: Optional[str] = ACTIONS_OFF
    elif not request.app[ACTS]:
        obstacle = "Actions are served at another address of this exporter: open this page there."
    else:
        obstacle = actions.obstacle
    # Without a management actor, one must be started.
    return {"buttons": buttons, "obstacle": obstacle, "start_manager": actions.lacks_manager}
