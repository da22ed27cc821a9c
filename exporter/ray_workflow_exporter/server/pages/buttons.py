"""The buttons of the pages: which actions are possible, and what each asks before it acts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional
from urllib.parse import quote

from aiohttp import web

from ...actions import Verb, applicable
from ...model import Run, RunStatus
from ..api.actions import ACTS
from ..auth.gate import ACTIONS_OFF, GATE
from ..source import API, SOURCE


@dataclass(frozen=True)
class Button:
    """One action: its request, and the question that is asked before."""

    verb: str
    label: str
    question: str
    method: str
    path: str  # from the root of the exporter
    command: str  # the command line that does the same
    body: Mapping[str, Any] = field(default_factory=dict)
    workflow_id: str = ""
    harmful: bool = False


@dataclass(frozen=True)
class Panel:
    """The buttons of the possible actions; `obstacle` says why none of them works."""

    buttons: Sequence[Button]
    obstacle: Optional[str]
    start_manager: bool  # whether Ray has no management actor, so that one must be started


_PROGRAM = "ray-workflow-exporter"
_AS = "--address auto"  # as a Ray driver: without a token
_CANCEL_TEXTS = {
    RunStatus.PENDING: "The run is queued, and Ray cannot cancel a queued run. It will be "
    "cancelled as soon as it starts.",
    RunStatus.RUNNING: "Its tasks are killed. Checkpoints are kept, and the run can be resumed.",
    RunStatus.RESUMABLE: "The run is not running. It is marked as CANCELED and can be resumed.",
}


def for_run(request: web.Request, run: Run) -> Panel:
    """Return the buttons of a run."""
    path = f"{API.lstrip('/')}/run"
    query = f"?workflow_id={quote(run.workflow_id, safe='', errors='replace')}"
    waits = run.status is RunStatus.PENDING
    name = shlex.quote(run.workflow_id)
    offers = {
        Verb.CANCEL: Button(
            "cancel",
            "Cancel when it starts" if waits else "Cancel",
            _CANCEL_TEXTS.get(run.status, ""),
            "POST",
            f"{path}/cancel{query}",
            f"{_PROGRAM} cancel {name} {_AS}{' --when-started' if waits else ''}",
            {"when_started": True} if waits else {},
            run.workflow_id,
            harmful=True,
        ),
        Verb.RESUME: Button(
            "resume",
            "Resume",
            "It continues from its checkpoints. Tasks without one run again.",
            "POST",
            f"{path}/resume{query}",
            f"{_PROGRAM} resume {name} {_AS}",
            workflow_id=run.workflow_id,
        ),
        Verb.DELETE: Button(
            "delete",
            "Delete",
            "Its folder in storage is removed, with all outputs. This cannot be undone.",
            "DELETE",
            path + query,
            f"{_PROGRAM} delete {name} {_AS}",
            workflow_id=run.workflow_id,
            harmful=True,
        ),
    }
    return _panel(request, [offers[verb] for verb in applicable(run)])


def for_all(request: web.Request, resumable: int) -> Panel:
    """Return the buttons of the list, where `resumable` runs are RESUMABLE."""
    text = "They continue from their checkpoints, one after the other, within Ray's limits."
    label = (
        f"Resume all {resumable} RESUMABLE runs" if resumable > 1 else "Resume the RESUMABLE run"
    )
    path = f"{API.lstrip('/')}/resume-all"
    offers = [Button("resume-all", label, text, "POST", path, f"{_PROGRAM} resume --all {_AS}")]
    return _panel(request, offers if resumable else [])


def _panel(request: web.Request, buttons: Sequence[Button]) -> Panel:
    actions = request.app[SOURCE].actions
    if not request.app[GATE].takes_orders:
        obstacle: Optional[str] = ACTIONS_OFF
    elif not request.app[ACTS]:
        obstacle = "Actions are served at another address of this exporter: open this page there."
    else:
        obstacle = actions.obstacle
    return Panel(buttons, obstacle, actions.lacks_manager)
