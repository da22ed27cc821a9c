"""The exporter as its users run it: `ray-workflow-exporter serve` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families

from support.cluster import environment
from support.guard import Guard
from support.ports import free_port
from support.waiting import wait_until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

PROGRAM = Path(sys.executable).with_name("ray-workflow-exporter")


class Served:
    """A running exporter; `start` after `kill` brings it back on the same port and state."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.arguments = arguments
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Optional[subprocess.Popen[bytes]] = None
        self._guard: Optional[Guard] = None

    def start(self) -> Served:
        command = [
            *(str(PROGRAM), "serve", "--listen", f"127.0.0.1:{self.port}"),
            *("--state-dir", str(self.folder / "state"), *self.arguments),
        ]
        with (self.folder / "exporter.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )
        self._guard = Guard(self.process.pid)
        wait_until(self._answers, message=f"{' '.join(command)} does not answer")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            return requests.get(f"{self.url}/-/healthy", timeout=30).ok
        except requests.RequestException:
            return False

    def log(self) -> str:
        return (self.folder / "exporter.log").read_text()

    def links(self) -> list[psutil.Process]:
        """List the processes that hold a Ray driver for this exporter."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    def samples(self) -> Samples:
        """Scrape once; return the value of each series, which must be there only once."""
        return samples_of(self.url)

    def value(self, name: str, **labels: str) -> Optional[float]:
        """Return the sum of the series of a metric that carry these labels, None without any."""
        wanted = labels.items()
        values = [
            value
            for (metric, have), value in self.samples().items()
            if metric == name and wanted <= have
        ]
        return sum(values) if values else None

    def status(self, workflow_id: str) -> Optional[str]:
        """Return the status of a run as the metrics tell it."""
        for (metric, labels), value in self.samples().items():
            have = dict(labels)
            if metric == "ray_workflow_run_status" and value and have["workflow_id"] == workflow_id:
                return have["status"]
        return None

    def kill(self) -> None:
        """End it without a warning."""
        assert self.process is not None
        self._dismiss_guard()
        self.process.kill()
        self.process.wait()

    def _dismiss_guard(self) -> None:
        if self._guard:
            self._guard.dismiss()
            self._guard = None

    def stop(self) -> None:
        """End it as a service manager does."""
        assert self.process is not None
        self._dismiss_guard()
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the exporter did not end on SIGTERM:\n{self.log()}") from None

    @contextmanager
    def scraped_throughout(self) -> Iterator[None]:
        """Scrape without a pause meanwhile; every answer must be a good one."""
        over = threading.Event()
        faults: list[str] = []

        def scrape() -> None:
            while not over.wait(0.05):
                try:
                    self.samples()
                except Exception as error:
                    faults.append(repr(error))

        scraper = threading.Thread(target=scrape)
        scraper.start()
        try:
            yield
        finally:
            over.set()
            scraper.join()
        assert faults == []


def samples_of(url: str) -> Samples:
    """Scrape an exporter once; return the value of each series, which must be there only once."""
    answer = requests.get(f"{url}/metrics", timeout=60)
    answer.raise_for_status()
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found
