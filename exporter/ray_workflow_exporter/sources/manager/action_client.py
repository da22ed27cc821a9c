"""The link's side of an action: sends it into the management actor, and waits for its outcome."""

from __future__ import annotations

import time
from typing import Any, Optional

from ..records import LinkCause, LinkState, NoManagerError
from . import remote_actions
from .remote_actions import FAILED, REFUSED

ACT_SECONDS = 60.0  # a resume loads the whole run, which a big one takes long for
_POLL_SECONDS = 0.1


class ActionClient:
    """Acts on runs through a `ManagerClient`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def act(
        self,
        action_id: str,
        verb: str,
        workflow_id: str,
        *,
        when_started: bool = False,
        start_manager: bool = False,
        max_running_workflows: Optional[int] = None,
    ) -> list[str]:
        """Return the outcome of an action: one of the states of `remote_actions`, and a sentence.

        An `action_id` that was used before begins nothing: its outcome is returned again.
        `start_manager` starts a management actor where there is none, with that limit.
        """
        asked = False
        order = (action_id, verb, workflow_id, when_started)
        until = time.monotonic() + ACT_SECONDS
        try:
            try:
                answer = self._client.send(remote_actions.begin, *order)
            except NoManagerError as error:
                absent = error.cause in (LinkCause.NO_MANAGER, LinkCause.MANAGER_DIED)
                if not absent or not start_manager:
                    raise
                self._client.start_manager(max_running_workflows)
                answer = self._client.send(remote_actions.begin, *order)
            asked = True
            while answer[0] == "ok":
                if len(answer) == 3:
                    return list(answer[1:])
                if time.monotonic() > until:
                    return [FAILED, f"Not done within {ACT_SECONDS:g} s; it may still be done."]
                time.sleep(_POLL_SECONDS)
                answer = self._client.send(remote_actions.outcome, action_id)
        except NoManagerError as error:
            if asked or (error.state is LinkState.UNREACHABLE and error.connected):
                return [FAILED, f"{error} Whether the action was done is not known."]
            refused = error.state is LinkState.ABSENT and error.connected
            return [REFUSED if refused else FAILED, str(error)]
        return [FAILED, f"The action failed inside the management actor with {answer[1]}."]
