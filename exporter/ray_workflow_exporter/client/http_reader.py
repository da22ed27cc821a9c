"""Ask a running exporter for runs and tasks."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Optional

from .. import SERVER_NAME
from .connection import Connection
from .reader import RefusedActionError, UnreachableError, not_found

if TYPE_CHECKING:
    from ..actions import Verb

_PAGE = 1000
_PROBE_SECONDS = 1.0
_FINISHED = ("SUCCESSFUL", "FAILED", "CANCELED")


class HttpReader:
    """Asks the exporter at a URL."""

    acts_itself = False
    unsure = False

    def __init__(self, url: str, token: Optional[str] = None) -> None:
        """Raises UnreachableError if it is not a URL."""
        try:
            self._connection = Connection(url, token)
        except ValueError as error:
            reason = str(error) if str(error).startswith("must") else "is not a URL"
            raise UnreachableError(f"The URL {reason}, such as http://127.0.0.1:20729.") from None
        self._shown = self._connection.shown
        self.notes: list[str] = []
        self._warnings: Optional[list[str]] = None  # of the last page that was read

    def answers(self) -> bool:
        """Return whether an exporter is there and ready."""
        try:
            answer = self._connection.request("GET", "/-/ready", seconds=_PROBE_SECONDS)
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200 and answer.server == SERVER_NAME

    def refresh(self) -> None:
        """Do nothing: each answer is new."""

    @property
    def warnings(self) -> list[str]:
        """Sentences on why the runs may not be those of the cluster."""
        if self._warnings is None:
            self._page({"limit": 1})
        return self._warnings or []

    def runs(
        self,
        statuses: Collection[str] = (),
        workflow: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> list[Any]:
        """Return all runs, or the first `limit`: live ones first, then the newest."""
        query = {"status": list(statuses), "workflow": workflow}
        if limit is not None and limit <= _PAGE:
            items: list[Any] = self._page({**query, "limit": limit})["items"]
            return items or self._nothing()
        # By id, so that none is missed or repeated while runs come and go.
        runs: list[Any] = []
        while True:
            after = runs[-1]["workflow_id"] if runs else None
            page = self._page({**query, "limit": _PAGE, "sort": "id", "after": after})
            runs += page["items"]
            if len(page["items"]) < _PAGE:
                break
        runs.sort(key=_age)
        return runs[:limit] or self._nothing()

    def ids(self, prefix: str, limit: int) -> list[str]:
        """Return ids that begin with `prefix`, those of live runs first."""
        items = self._page({"text": prefix, "limit": limit})["items"]
        return [it["workflow_id"] for it in items if it["workflow_id"].startswith(prefix)]

    def _nothing(self) -> list[Any]:
        """Return no runs, unless the exporter does not know yet whether there are any."""
        try:
            answer = self._connection.request("GET", "/-/ready")
        except (OSError, http.client.HTTPException):
            return []
        if answer.status == 503:
            raise UnreachableError(
                f"The exporter at {self._shown} has not read workflow storage yet. Its page and "
                "its log say why."
            )
        return []

    def _page(self, query: Mapping[str, Any]) -> Any:
        page = self._ask("GET", "/workflows", query, holds="items")
        if page is None:
            raise self._is_no_exporter()
        self._warnings = page.get("warnings", [])
        return page

    def run(self, workflow_id: str) -> Any:
        """Return one run with its stages."""
        return self._of_run("GET", workflow_id, "", holds="workflow_id")

    def tasks(self, workflow_id: str, states: Collection[str] = ()) -> dict[str, Any]:
        """Return {task_id: metadata} of all tasks, or of those in `states`."""
        query = {"state": list(states)}
        tasks: dict[str, Any] = self._of_run("GET", workflow_id, "/tasks", query)
        return tasks

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def order(self, verb: Verb, workflow_id: Optional[str], options: Mapping[str, Any]) -> Any:
        """Order an action, and return it."""
        if workflow_id is None:
            answer = self._ask("POST", f"/{verb.value}", content=options, holds="action_id")
            if answer is None:
                raise self._is_no_exporter()
            return answer
        if verb.value == "delete":
            query = {key: str(value).lower() for key, value in options.items()}
            return self._of_run("DELETE", workflow_id, "", query, holds="action_id")
        path = f"/{verb.value}"
        return self._of_run("POST", workflow_id, path, content=options, holds="action_id")

    def forget(self, workflow: str) -> bool:
        """Drop the counters of a workflow; False if the exporter knows no such workflow."""
        content = {"workflow": workflow}
        return self._ask("POST", "/forget", content=content, holds="workflow") is not None

    def action(self, action_id: str) -> Any:
        """Return an action and its outcome so far."""
        answer = self._ask("GET", f"/actions/{action_id}", holds="action_id")
        if answer is None:
            raise UnreachableError(
                f"The exporter at {self._shown} was restarted and knows no earlier action."
            )
        return answer

    def _of_run(
        self,
        method: str,
        workflow_id: str,
        path: str,
        query: Optional[Mapping[str, Any]] = None,
        content: Any = None,
        holds: Optional[str] = None,
    ) -> Any:
        # In the query, not in the path: proxies change `%2F` and `..` in paths.
        named = {"workflow_id": workflow_id, **(query or {})}
        answer = self._ask(method, f"/run{path}", named, content, holds)
        if answer is None:
            raise not_found(workflow_id, (run["workflow_id"] for run in self.runs()))
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, Any]] = None,
        content: Any = None,
        holds: Optional[str] = None,
    ) -> Any:
        """Return an answer of the API, an object with the key `holds`; None for 404."""
        try:
            answer = self._connection.request(method, f"/api/v1{path}", query, content)
            found = json.loads(answer.body)
        except (socket.timeout, TimeoutError):
            raise UnreachableError(
                f"The exporter at {self._shown} did not answer in time."
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise UnreachableError(
                f"The certificate of {self._shown} cannot be verified: {error.verify_message}. "
                "SSL_CERT_FILE may name the file of its CA."
            ) from None
        except ssl.SSLError:
            raise UnreachableError(f"No TLS server answers at {self._shown}.") from None
        except OSError:
            raise UnreachableError(f"No exporter answers at {self._shown}.") from None
        except (http.client.HTTPException, ValueError):
            raise self._is_no_exporter() from None
        if answer.status == 404:
            return None
        if not isinstance(found, dict) or answer.status < 200 or 300 <= answer.status < 400:
            raise self._is_no_exporter()
        if answer.status >= 400:
            refused = answer.status < 500 and answer.status != 400
            kind = RefusedActionError if refused else UnreachableError
            raise kind(f"{self._shown} answered: {found.get('detail') or answer.status}")
        if holds is not None and holds not in found:
            raise self._is_no_exporter()
        return found

    def _is_no_exporter(self) -> UnreachableError:
        return UnreachableError(f"The server at {self._shown} is not an exporter.")


def _age(run: Any) -> tuple[bool, float]:
    # As the exporter itself sorts: live runs first, then the newest.
    last = run["end_time"] or run["last_transition"] or run["start_time"] or 0.0
    return run["status"] in _FINISHED, -last
