"""A dashboard with our route, for all that is sent through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ray_workflow_exporter.inside_ray.forward import Forwarder
from support.forwarding import Client


@pytest.fixture
async def dashboard(tmp_path: Path) -> AsyncIterator[Client]:
    """A web server that forwards, as Ray's dashboard does with our module."""
    forwarder = Forwarder(tmp_path / "address.json")
    app = web.Application(client_max_size=100 << 20)
    app.router.add_route("*", r"/api/workflows{rest:(?:/[\s\S]*)?}", forwarder.forward)
    async with TestClient(TestServer(app)) as client:
        yield client
    if forwarder._session is not None:
        await forwarder._session.close()  # the dashboard itself keeps it until its process ends
