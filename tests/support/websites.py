"""The exporter's server over a fake source, on a real socket."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from pathlib import Path
from typing import Any, Optional

import requests
import yaml

from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.server.auth.gate import Gate
from ray_workflow_exporter.server.listening import Listener
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run
from support.ports import free_port


def write_tokens(file: Path, tokens: dict[str, tuple[str, str]]) -> None:
    entries = [
        {"name": name, "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()}
        for name, (role, token) in tokens.items()
    ]
    file.write_text(yaml.safe_dump({"tokens": entries}))
    file.chmod(0o600)


class Site:
    """A listener in a thread of its own."""

    def __init__(self, settings: Settings, source: Optional[FakeSource] = None) -> None:
        self.port = free_port()
        self.source = source or FakeSource(running_run(), failed_run(), failed_run(HOSTILE))
        self.settings = settings
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> Site:
        self.thread.start()
        try:
            self._do(self._enter())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._do(self.listener.__aexit__())
        self._end()

    async def _enter(self) -> None:
        gate = Gate(self.settings)
        self.app = create_app(self.source, self.settings, gate)
        self.listener = Listener(self.app, gate, f"127.0.0.1:{self.port}")
        await self.listener.__aenter__()

    def _do(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    async def _cut(self) -> None:
        # What is in the middle of a TLS handshake belongs to nobody yet.
        for transport in list(self.loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        for _ in range(5):  # each tells the next one that it is lost
            await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self) -> None:
        self._do(self._cut())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)
        self.loop.close()

    def get(self, path: str = "/metrics", scheme: str = "http", **more: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{scheme}://127.0.0.1:{self.port}{path}", timeout=20, **more)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)
