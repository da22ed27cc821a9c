"""What the connection to Ray says where there is none that it can use."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ray_workflow_exporter.sources.manager.driver import ManagerClient
from ray_workflow_exporter.sources.manager.link import RayLink
from ray_workflow_exporter.sources.records import (
    LinkCause,
    LinkState,
)
from support.links import seen
from support.ports import free_port

LinkTo = Callable[[str], RayLink]


def test_an_address_where_nobody_listens_is_a_sentence(link_to: LinkTo) -> None:
    port = free_port()
    view = seen(link_to(f"127.0.0.1:{port}"), lambda view: view.cause is not LinkCause.STARTING)
    assert (view.state, view.cause) == (LinkState.UNREACHABLE, LinkCause.NO_ANSWER)
    assert view.reason.startswith(f"No Ray answers at 127.0.0.1:{port}: ")


def test_what_listens_and_is_no_ray_is_said_to_be_none(link_to: LinkTo) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        view = seen(
            link_to(f"127.0.0.1:{server.server_address[1]}"),
            lambda view: view.cause is not LinkCause.STARTING,
        )
        server.shutdown()
    assert (view.state, view.cause) == (LinkState.UNREACHABLE, LinkCause.NOT_RAY)
    assert "is not a Ray" in view.reason


@pytest.mark.parametrize("address", ["local", "ray://127.0.0.1:10001", "127.0.0.1", ":", "x:y"])
def test_what_is_no_address_of_a_ray_to_watch_is_refused(address: str) -> None:
    reply = ManagerClient(address).poll(0)
    assert (reply["state"], reply["cause"]) == ("unsupported", "not_ray")
    assert address in reply["reason"]


@pytest.mark.parametrize(
    "version", ["2.48.0", "2.9.3", "2.19.0", "3.0.0.dev0", "1.13.0", "strange"]
)
def test_an_unsupported_ray_is_refused_before_anything_of_it_is_used(
    version: str, link_to: LinkTo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = tmp_path / "used"
    package = tmp_path / "ray"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"__version__ = {version!r}\n"
        "def __getattr__(name):\n"
        f"    print(name, file=open({str(used)!r}, 'a'))\n"
        "    raise AttributeError(name)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    link = link_to("127.0.0.1:1")
    for _ in range(2):
        view = seen(link, lambda view: view.cause is not LinkCause.STARTING)
        assert (view.state, view.cause) == (LinkState.UNSUPPORTED, LinkCause.RAY_VERSION)
        assert version in view.reason
    assert not used.exists(), used.read_text()


def test_a_missing_ray_is_a_sentence(
    link_to: LinkTo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\")")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    view = seen(link_to("auto"), lambda view: view.cause is not LinkCause.STARTING)
    assert (view.state, view.cause) == (LinkState.UNSUPPORTED, LinkCause.NOT_INSTALLED)
    assert view.reason.startswith("Ray is not installed")
