"""The command line without a real exporter: fakes, fixtures and calls for tests of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from inspect import signature
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from ray_workflow_exporter.cli import main
from ray_workflow_exporter.client import direct_reader
from ray_workflow_exporter.commands import serve as serve_module
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run

# click 8.1, the last one for Python 3.9, mixes stderr into stdout unless told otherwise.
APART: Any = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


class FakeExporter(FakeSource):
    """Stands in for `Exporter`; notes what is asked of it."""

    made: list[FakeExporter] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, settings: Settings, *, keep: bool = False) -> None:
        super().__init__(running_run(), failed_run("etl/direct"))
        self.settings = settings
        self.keep = keep
        self.calls: list[str] = []
        self.status = {"storage_error": None}
        self.made.append(self)

    def load(self) -> None:
        self.calls.append("load")

    def poll_once(self) -> None:
        self.calls.append("poll")

    def start(self) -> None:
        self.calls.append("start")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeExporter]:
    """Exporters that were made, in place of real ones."""
    monkeypatch.setattr(direct_reader, "Exporter", FakeExporter)
    monkeypatch.setattr(serve_module, "Exporter", FakeExporter)
    monkeypatch.setattr(FakeExporter, "made", [])
    return FakeExporter.made


@pytest.fixture
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings in the environment, no exporter on this machine, logging as it was."""
    for name in list(os.environ):
        if name.startswith("RAY_WORKFLOW_EXPORTER_") or name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_LISTEN", f":{port}")
        root = logging.getLogger()
        handlers, level = root.handlers, root.level
        yield  # the port stays bound, and nobody listens on it
        root.handlers = handlers
        root.setLevel(level)


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(running_run(), failed_run(), failed_run(HOSTILE))


@pytest.fixture
def url(source: FakeSource) -> Iterator[str]:
    """A web server over `source`, in a thread of its own."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(create_app(source, Settings()))

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        return port

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(start(), loop).result(10)}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def run(*arguments: str, code: int = 0) -> Result:
    """Run the command line; return its result, whose exit code is checked."""
    result = CliRunner(**APART).invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def output(*arguments: str) -> Any:
    """Run the command line; return its output, read as JSON."""
    return json.loads(run(*arguments).stdout)
