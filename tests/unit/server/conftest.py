"""A server on a real socket, with a web config and certificates."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_workflow_exporter.settings.settings import Settings
from support.certificates import Authority
from support.websites import Site


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server")
    return authority


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Start a server with a web config."""
    with contextlib.ExitStack() as sites:

        def start(web_config: str = "", **settings: Any) -> Site:
            if web_config:
                (tmp_path / "web.yml").write_text(web_config)
                settings["web_config_file"] = tmp_path / "web.yml"
            return sites.enter_context(Site(Settings.load(None, {}, settings)))

        yield start
