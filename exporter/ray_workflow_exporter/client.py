"""Runs and tasks for commands and Python callers: from a running exporter, or from the source."""

from __future__ import annotations

import difflib
import getpass
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Optional, Protocol
from urllib.parse import quote, urlsplit

import requests

from .actions import Order, Refusal, RefusedError, Verb
from .catalog.snapshot import RunView
from .exporter import Exporter
from .responses import SERVER_NAME, Responses, action_metadata
from .settings.addresses import join_address, local_host, parse_listen
from .settings.settings import Settings
from .sources.storage.filesystem import StorageError

_PAGE = 1000
_TIMEOUT = (3.05, 30.0)  # seconds to connect, seconds to answer
_PROBE_TIMEOUT = 1.0


class WorkflowNotFoundError(LookupError):
    """There is no run of this id."""


class UnreachableError(ConnectionError):
    """Neither an exporter nor workflow storage could be read."""


def workflow_tasks(
    workflow_id: str,
    *,
    storage: Optional[str] = None,
    address: Optional[str] = None,
    url: Optional[str] = None,
) -> dict[str, dict[str, Any]]:
    """Return {task_id: metadata} of one run, the metadata as in the API's `.../tasks`.

    With `url` a running exporter is asked. Otherwise workflow storage and the cluster's memory
    are read; a process that is connected to Ray knows both by itself. Raises
    WorkflowNotFoundError, UnreachableError or SettingsError.
    """
    reader: Reader
    if url is not None:
        reader = HttpReader(url)
    else:
        if storage is None and address is None:
            storage, address = _own_cluster()
        flags = {"storage": storage, "address": address}
        reader = DirectReader(Settings.load(None, os.environ, flags))
    try:
        return reader.tasks(workflow_id)
    finally:
        reader.close()


class RefusedActionError(RuntimeError):
    """The exporter or Ray will not do what was asked for."""


class Reader(Protocol):
    """A way to runs and tasks; what it returns has the shape of the API."""

    def refresh(self) -> None:
        """Look again."""

    def runs(self, statuses: Collection[str] = (), workflow: Optional[str] = None) -> list[Any]:
        """Return all runs, live ones first, then the newest."""

    def run(self, workflow_id: str) -> Any:
        """Return one run with its stages. Raises WorkflowNotFoundError."""

    def tasks(self, workflow_id: str) -> dict[str, Any]:
        """Return {task_id: metadata}. Raises WorkflowNotFoundError."""

    def order(self, verb: Verb, workflow_id: Optional[str], options: Mapping[str, Any]) -> Any:
        """Order an action, and return it. Raises RefusedActionError or WorkflowNotFoundError."""

    def action(self, action_id: str) -> Any:
        """Return an action and what became of it."""

    def close(self) -> None:
        """Let go of connections and processes."""


def open_reader(
    settings: Settings,
    url: Optional[str] = None,
    *,
    direct: bool = False,
    token: Optional[str] = None,
) -> Reader:
    """Return a reader of `url`; else of the exporter that runs on this machine, if one does and
    not `direct`; else one that reads storage and cluster itself."""
    if url is not None:
        return HttpReader(url, token)
    if not direct:
        reader = HttpReader(_local_url(settings), token)
        if reader.answers():
            return reader
        reader.close()
    return DirectReader(settings)


class DirectReader:
    """Reads storage and cluster in this process."""

    def __init__(self, settings: Settings) -> None:
        self._responses = Responses(error_messages=settings.expose_error_messages)
        self._exporter = Exporter(settings)
        try:
            self._exporter.load()
            problem = self._exporter.status["storage_error"]
            if problem is not None:
                raise UnreachableError(problem)
        except BaseException:
            self._exporter.close()
            raise

    def refresh(self) -> None:
        """Poll once."""
        self._exporter.poll_once()

    def runs(self, statuses: Collection[str] = (), workflow: Optional[str] = None) -> list[Any]:
        """Return all runs, live ones first, then the newest."""
        return [
            self._responses.run_summary(view)
            for view in self._exporter.runs()
            if (not statuses or view.run.status.value in statuses)
            and (workflow is None or view.run.workflow == workflow)
        ]

    def run(self, workflow_id: str) -> Any:
        """Return one run with its stages."""
        return self._responses.run(self._view(workflow_id))

    def tasks(self, workflow_id: str) -> dict[str, Any]:
        """Return {task_id: metadata}."""
        return self._responses.tasks(self._view(workflow_id))

    def order(self, verb: Verb, workflow_id: Optional[str], options: Mapping[str, Any]) -> Any:
        """Act through a link to Ray of this process's own, in the name of its user."""
        order = Order(verb, workflow_id, f"{getpass.getuser()} on the command line", **options)
        try:
            return action_metadata(self._exporter.actions.order(order))
        except RefusedError as error:
            if error.refusal is Refusal.UNKNOWN and workflow_id is not None:
                ids = (it.run.workflow_id for it in self._exporter.runs())
                raise _not_found(workflow_id, ids) from None
            raise RefusedActionError(str(error)) from None

    def action(self, action_id: str) -> Any:
        """Return an action and what became of it."""
        action = self._exporter.actions.get(action_id)
        assert action is not None
        return action_metadata(action)

    def close(self) -> None:
        """End the exporter's processes."""
        self._exporter.close()

    def _view(self, workflow_id: str) -> RunView:
        try:
            view = self._exporter.run(workflow_id)
        except (StorageError, TimeoutError) as error:
            raise UnreachableError(str(error)) from None
        if view is None:
            raise _not_found(workflow_id, (it.run.workflow_id for it in self._exporter.runs()))
        return view


class HttpReader:
    """Asks a running exporter."""

    def __init__(self, url: str, token: Optional[str] = None) -> None:
        parts = urlsplit(url)
        self._url = url.rstrip("/")
        self._shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without a password
        self._session = requests.Session()
        if token is not None:
            self._session.auth = lambda request: _with_token(request, token)
        # No proxy stands between a machine and itself.
        self._session.trust_env = parts.hostname not in ("127.0.0.1", "::1", "localhost")

    def answers(self) -> bool:
        """Whether an exporter is there and ready."""
        try:
            answer = self._session.get(f"{self._url}/-/ready", timeout=_PROBE_TIMEOUT)
        except requests.RequestException:
            return False
        return answer.ok and answer.headers.get("Server") == SERVER_NAME

    def refresh(self) -> None:
        """Do nothing: each answer is new."""

    def runs(self, statuses: Collection[str] = (), workflow: Optional[str] = None) -> list[Any]:
        """Return all runs, live ones first, then the newest."""
        query: dict[str, Any] = {"status": list(statuses), "workflow": workflow, "limit": _PAGE}
        runs: list[Any] = []
        while True:
            page = self._get("", {**query, "offset": len(runs)})
            runs += page["items"]
            if not page["items"] or len(runs) >= page["total"]:
                return runs

    def run(self, workflow_id: str) -> Any:
        """Return one run with its stages."""
        return self._get_of(workflow_id, "")

    def tasks(self, workflow_id: str) -> dict[str, Any]:
        """Return {task_id: metadata}."""
        tasks: dict[str, Any] = self._get_of(workflow_id, "/tasks")
        return tasks

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def order(self, verb: Verb, workflow_id: Optional[str], options: Mapping[str, Any]) -> Any:
        """Order an action, and return it."""
        if workflow_id is None:
            answer = self._ask("POST", f"/{verb.value}", json=options)
        else:
            path = f"/workflows/{quote(workflow_id, safe='')}"
            if verb is Verb.DELETE:
                query = {key: str(value).lower() for key, value in options.items()}
                answer = self._ask("DELETE", path, params=query)
            else:
                answer = self._ask("POST", f"{path}/{verb.value}", json=options)
            if answer is None:
                raise _not_found(workflow_id, (run["workflow_id"] for run in self.runs()))
        return answer

    def action(self, action_id: str) -> Any:
        """Return an action and what became of it."""
        answer = self._ask("GET", f"/actions/{action_id}")
        if answer is None:
            raise UnreachableError(f"The exporter at {self._shown} began anew: it forgot actions.")
        return answer

    def _get_of(self, workflow_id: str, rest: str) -> Any:
        answer = self._get(f"/{quote(workflow_id, safe='')}{rest}")
        if answer is None:
            raise _not_found(workflow_id, (run["workflow_id"] for run in self.runs()))
        return answer

    def _get(self, path: str, query: Optional[dict[str, Any]] = None) -> Any:
        return self._ask("GET", f"/workflows{path}", params=query)

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        """Return an answer of the API, None for 404."""
        try:
            answer = self._session.request(
                method,
                f"{self._url}/api/v1{path}",
                timeout=_TIMEOUT,
                allow_redirects=False,  # an exporter sends none, and the token is for it alone
                **content,
            )
            found = answer.json()
        except requests.Timeout:
            raise UnreachableError(
                f"The exporter at {self._shown} did not answer in time."
            ) from None
        except requests.ConnectionError:
            raise UnreachableError(f"No exporter answers at {self._shown}.") from None
        except (requests.RequestException, ValueError):
            raise UnreachableError(f"What answers at {self._shown} is no exporter.") from None
        if answer.status_code == 404:
            return None
        if not answer.ok:
            refused = answer.status_code < 500 and answer.status_code != 400
            kind = RefusedActionError if refused else UnreachableError
            raise kind(f"{self._shown} answered: {found.get('detail')}")
        return found


def _with_token(request: requests.PreparedRequest, token: str) -> requests.PreparedRequest:
    # As `auth`, so that no netrc takes its place.
    request.headers["Authorization"] = f"Bearer {token}"
    return request


def _not_found(workflow_id: str, known: Iterable[str]) -> WorkflowNotFoundError:
    near = difflib.get_close_matches(workflow_id, known)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return WorkflowNotFoundError(f"There is no workflow {workflow_id!r}{hint}")


def _local_url(settings: Settings) -> str:
    host, port = parse_listen(settings.listen)
    return f"http://{join_address(local_host(host), port)}"


def _own_cluster() -> tuple[Optional[str], Optional[str]]:
    """Return storage and address of the cluster that this process is connected to, if it is."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None, None
    try:
        from ray._private.storage import _get_storage_uri
    except ImportError:  # gone with Ray 2.48, as workflows are
        return None, ray.get_runtime_context().gcs_address
    return _get_storage_uri(), ray.get_runtime_context().gcs_address
