"""The buttons of the pages: what may be done, and what is said before it is done."""

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
    """One action: the request that orders it, and the words of the question before."""

    verb: str
    label: str
    question: str
    method: str
    path: str  # from the root of the exporter
    command: str  # that does the same
    body: Mapping[str, Any] = field(default_factory=dict)
    workflow_id: str = ""
    harmful: bool = False


@dataclass(frozen=True)
class Panel:
    """The buttons that make sense; `obstacle` says why none of them works."""

    buttons: Sequence[Button]
    obstacle: Optional[str]
    start_manager: bool  # Ray has no management actor, and is to be asked for one


_PROGRAM = "ray-workflow-exporter"
_AS = "--address auto"  # as a driver of the cluster, which needs no token and no exporter
_CANCEL_TEXTS = {
    RunStatus.PENDING: "It waits in Ray's queue, where Ray cannot cancel it. It will be cancelled "
    "as soon as it starts.",
    RunStatus.RUNNING: "Its tasks are killed. What they have checkpointed stays, and the run can "
    "be resumed.",
    RunStatus.RESUMABLE: "It is not at work; it is marked as CANCELED, and can still be resumed.",
}


def for_run(request: web.Request, run: Run) -> Panel:
    """Return what can be done to a run."""
    path = f"{API.lstrip('/')}/workflows/{quote(run.workflow_id, safe='', errors='replace')}"
    waits = run.status is RunStatus.PENDING
    name = shlex.quote(run.workflow_id)
    offers = {
        Verb.CANCEL: Button(
            "cancel",
            "Cancel when it starts" if waits else "Cancel",
            _CANCEL_TEXTS.get(run.status, ""),
            "POST",
            f"{path}/cancel",
            f"{_PROGRAM} cancel {name} {_AS}{' --when-started' if waits else ''}",
            {"when_started": True} if waits else {},
            run.workflow_id,
            harmful=True,
        ),
        Verb.RESUME: Button(
            "resume",
            "Resume",
            "It goes on from its checkpoints; tasks without one run again.",
            "POST",
            f"{path}/resume",
            f"{_PROGRAM} resume {name} {_AS}",
            workflow_id=run.workflow_id,
        ),
        Verb.DELETE: Button(
            "delete",
            "Delete",
            "Its folder in storage is removed, with all outputs. This cannot be undone.",
            "DELETE",
            path,
            f"{_PROGRAM} delete {name} {_AS}",
            workflow_id=run.workflow_id,
            harmful=True,
        ),
    }
    return _panel(request, [offers[verb] for verb in applicable(run)])


def for_all(request: web.Request, resumable: int) -> Panel:
    """Return what can be done to all runs at once, `resumable` of which are RESUMABLE."""
    text = "They go on from their checkpoints, one after the other, within the limits of Ray."
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
