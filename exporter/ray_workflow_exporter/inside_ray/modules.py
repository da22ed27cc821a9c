"""The modules that Ray's dashboard loads: one for each node's agent, one for the dashboard.

An exception in a module's constructor ends the node; one in `run` leaves an agent that does not
answer, and ends the dashboard (all seen with 2.47.1). So no exception may leave them, and all work
is done in a thread of ours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from ray.dashboard.optional_utils import DashboardHeadRouteTable
from ray.dashboard.utils import DashboardAgentModule, DashboardHeadModule

from ..sources.manager import launch
from .node import Node, address_file
from .supervisor import supervise

_HEAD_RESOURCE = "node:__internal_head__"  # ray/_private/resource_spec.py
_ASK_AGAIN_SECONDS = 2.0

_log = logging.getLogger(__name__)


@contextmanager
def _harmless(doing: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _log.exception("The workflow exporter failed %s; Ray is not affected.", doing)


class WorkflowObservability(DashboardAgentModule):  # type: ignore[misc]
    """Runs the exporter as a child of the head node's agent."""

    def __init__(self, dashboard_agent: Any) -> None:
        with _harmless("to be set up in the agent"):
            super().__init__(dashboard_agent)
            self._thread = threading.Thread(
                target=_supervise, args=(dashboard_agent,), name="workflow-exporter", daemon=True
            )

    async def run(self, server: Any) -> None:
        """Start supervising the exporter, in a thread."""
        with _harmless("to start in the agent"):
            self._thread.start()

    @staticmethod
    def is_minimal_module() -> bool:
        """Return False: a Ray without a dashboard does not load this module."""
        return False


def _supervise(agent: Any) -> None:
    with _harmless("to supervise its process"):
        is_head, storage = _ask_gcs(agent.gcs_address, agent.node_id)
        if not is_head:
            _log.info("Not the head node: the workflow exporter is not started here.")
            return
        node = Node(
            gcs_address=agent.gcs_address,
            node_id=agent.node_id,
            ip=agent.ip,
            session_name=agent.session_name,
            session_dir=agent.session_dir,
            temp_dir=agent.temp_dir,
            log_dir=agent.log_dir,
            storage=storage,
        )
        _log.info("Starting the workflow exporter; its log is %s.", node.log_file)
        command = launch.command(f"{__package__}.child")
        supervise(command, node.to_json(), node.output_file, node.withdraw)


def _ask_gcs(address: str, node_id: str) -> tuple[bool, Optional[str]]:
    """Return whether the node is the head, and the URI of the cluster's workflow storage."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    logged = False
    while True:
        try:
            gcs = GcsClient(address=address)
            for known, info in gcs.get_all_node_info().items():
                if known.hex() == node_id:
                    # A dictionary until Ray 2.20, then a protobuf message.
                    has = info["resources"] if isinstance(info, dict) else info.resources_total
                    storage = gcs.internal_kv_get(b"storage", b"session")
                    return _HEAD_RESOURCE in has, storage and storage.decode()
        except Exception as error:
            if not logged:
                logged = True
                _log.warning(
                    "The workflow exporter cannot reach the GCS yet and tries again: %r", error
                )
        time.sleep(_ASK_AGAIN_SECONDS)


class WorkflowRoutes(DashboardHeadModule):  # type: ignore[misc]
    """Serves the exporter's API on the dashboard's own port."""

    # Ray reads every attribute of a module to find routes; the inherited ones open connections.
    gcs_client = gcs_aio_client = aiogrpc_gcs_channel = http_session = None

    def __init__(self, config: Any) -> None:
        with _harmless("to be set up in the dashboard"):
            super().__init__(config)
            from .forward import Forwarder

            self._forwarder = Forwarder(address_file(config.session_dir))

    async def run(self, *_: Any) -> None:
        """Do nothing: this module has only routes."""

    # Not `.*`: an id may hold a newline.
    @DashboardHeadRouteTable.view(r"/api/workflows{rest:(?:/[\s\S]*)?}")  # type: ignore[untyped-decorator]
    async def forward(self, request: Any) -> Any:
        """Forward a request to the exporter's API."""
        return await self._forwarder.forward(request)

    @staticmethod
    def is_minimal_module() -> bool:
        """Return False: a Ray without a dashboard does not load this module."""
        return False
