"""A real Ray, an exporter that watches it, and a driver that makes things happen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Callable, Optional

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.model import Run
from ray_workflow_exporter.settings.settings import Settings
from support.cluster import Cluster
from support.waiting import wait_until

SCENARIOS = Path(__file__).with_name("scenarios.py").read_text()


class Lab:
    """A cluster, an exporter that watches it, and a driver that does what it is told."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.driver = cluster.start_driver(SCENARIOS, str(folder))
        self.exporter = Exporter(Settings(address=cluster.address, interval=0.25))
        self.exporter.start()

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Let the driver do something; return what Ray said."""
        return json.loads(self.driver.ask(json.dumps([operation, *arguments])))

    def release(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def run(self, name: str) -> Optional[Run]:
        view = self.exporter.run(name)
        return view.run if view else None

    def until(self, name: str, condition: Callable[[Run], bool], timeout: float = 60.0) -> Run:
        def seen() -> Optional[Run]:
            run = self.run(name)
            return run if run is not None and condition(run) else None

        try:
            run = wait_until(seen, timeout=timeout)
        except AssertionError:
            raise AssertionError(f"not in {timeout:g} s; last seen: {self.run(name)}") from None
        assert run is not None
        return run

    def ended(self, name: str, status: str) -> Run:
        return self.until(name, lambda run: run.status.value == status)

    def close(self) -> None:
        self.exporter.close()
        try:
            self.driver.communicate(timeout=20)  # it leaves when its stdin ends
        except subprocess.TimeoutExpired:
            self.driver.kill()
            self.driver.communicate()
