"""Real Prometheus and Alertmanager servers with the shipped files, and a webhook receiver."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Optional

import requests
import yaml

from support.guard import Guard
from support.ports import free_port
from support.waiting import wait_until

FILES = Path(__file__).parents[2] / "prometheus"
TOOLS = Path(__file__).parents[2] / ".tools"  # see `make prometheus3`
HTTP = requests.Session()
HTTP.trust_env = False  # no proxy for requests to this machine


class Promtool(NamedTuple):
    """A promtool with its version."""

    path: str
    version: str


def promtools() -> list[Promtool]:
    """Return the installed promtool, and that of `make prometheus3` if it was built."""
    built = shutil.which("promtool", path=str(TOOLS))
    return [Promtool("promtool", "installed"), *([Promtool(built, "3")] if built else [])]


def program(name: str) -> str:
    """Return the path of a program from a Debian package."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: run `make system`, or install its package by hand"
    return found


class Receiver:
    """A webhook that records Alertmanager's notifications: (path, alert), in order of arrival."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.extend((self.path, alert) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def find(self, path: str, status: str, **labels: str) -> list[dict[str, Any]]:
        """Return the alerts received at this path with this status and these labels."""
        return [
            alert
            for at, alert in list(self.received)
            if at == path
            and alert["status"] == status
            and labels.items() <= alert["labels"].items()
        ]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Monitoring:
    """Prometheus and Alertmanager with the shipped configuration and short intervals.

    `after`, if given, replaces the `for` of every alert; gaps are then bridged for ten seconds, not
    for five minutes. Nothing else in the rules is changed.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Mapping[str, str]],
        *,
        after: Optional[str] = None,
        scrape: str = "1s",
        evaluate: str = "1s",
    ) -> None:
        self._folder = folder
        self._targets = targets
        self._after = after
        self._scrape, self._evaluate = scrape, evaluate
        self._stack = ExitStack()
        self.receiver = Receiver()
        self._stack.callback(self.receiver.close)
        self.prometheus = f"http://127.0.0.1:{free_port()}"
        self.alertmanager = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Monitoring:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        routes = self._folder / "alertmanager.yml"
        routes.write_text(yaml.safe_dump(self._routes()))
        self._run(
            self.alertmanager,
            *("prometheus-alertmanager", f"--config.file={routes}", "--cluster.listen-address="),
            *(f"--storage.path={self._folder / 'alertmanager'}",),
        )
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()))
        self._run(
            self.prometheus,
            *("prometheus", f"--config.file={config}"),
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
        )

    def _config(self) -> dict[str, Any]:
        config = yaml.safe_load((FILES / "prometheus.yml").read_text())
        config["global"] = {
            "scrape_interval": self._scrape,
            "evaluation_interval": self._evaluate,
        }
        job = config["scrape_configs"][0]
        del job["file_sd_configs"]
        job["static_configs"] = [
            {"targets": [target], "labels": dict(labels)}
            for target, labels in self._targets.items()
        ]
        alertmanager = self.alertmanager.removeprefix("http://")
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
        config["rule_files"] = [str(self._rules(path)) for path in (FILES / "rules").glob("*.yml")]
        return dict(config)

    def _rules(self, path: Path) -> Path:
        rules = yaml.safe_load(path.read_text())
        for group in rules["groups"]:
            if "interval" in group:
                group["interval"] = self._evaluate
            for rule in group["rules"]:
                if self._after and "alert" in rule:
                    rule["for"] = self._after
                if self._after:
                    rule["expr"] = re.sub(
                        r"(last_over_time\([^()]*)\[5m\]", r"\1[10s]", rule["expr"]
                    )
        copy = self._folder / path.name
        copy.write_text(yaml.safe_dump(rules))
        return copy

    def _routes(self) -> dict[str, Any]:
        routes = yaml.safe_load((FILES / "alertmanager.yml").read_text())
        for route in (routes["route"], *routes["route"]["routes"]):
            route.update(group_wait="1s", group_interval="1s")
        for receiver in routes["receivers"]:
            receiver["webhook_configs"][0]["url"] = f"{self.receiver.url}/{receiver['name']}"
        return dict(routes)

    def _run(self, url: str, name: str, *arguments: str) -> None:
        address = url.removeprefix("http://")
        command = [program(name), *arguments, f"--web.listen-address={address}"]
        self._stack.enter_context(_running(command, self._folder / f"{name}.log"))
        wait_until(lambda: _answers(f"{url}/-/ready"), timeout=60, message=f"{name} is not ready")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        answer = HTTP.get(
            f"{self.prometheus}/api/v1/query", params={"query": expression}, timeout=60
        ).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def rule_faults(self) -> dict[str, str]:
        """Return the last error of each rule that has one."""
        groups = HTTP.get(f"{self.prometheus}/api/v1/rules", timeout=60).json()["data"]["groups"]
        return {
            rule["name"]: rule["lastError"]
            for group in groups
            for rule in group["rules"]
            if rule.get("lastError")
        }

    def alerts(self, state: str) -> set[str]:
        """Return the names of the alerts that are `pending` or `firing` in Prometheus."""
        alerts = HTTP.get(f"{self.prometheus}/api/v1/alerts", timeout=60).json()["data"]["alerts"]
        return {it["labels"]["alertname"] for it in alerts if it["state"] == state}

    def known(self, *, inhibited: bool) -> set[str]:
        """Return the names of the alerts that Alertmanager inhibits, or does not."""
        alerts = HTTP.get(f"{self.alertmanager}/api/v2/alerts", timeout=60).json()
        return {
            it["labels"]["alertname"]
            for it in alerts
            if bool(it["status"]["inhibitedBy"]) is inhibited
        }


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    guard = Guard(process.pid)
    try:
        yield
    finally:
        guard.dismiss()
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return HTTP.get(url, timeout=30).ok
    except requests.RequestException:
        return False
