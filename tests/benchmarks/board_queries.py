"""The queries of the Fleet board, asked as Grafana asks them, of a Prometheus full of series."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from boards import Query, filled, queries
from monitoring import HTTP, Monitoring
from ray_workflow_exporter.metrics.exposition import Renderer, page
from ray_workflow_exporter.metrics.selfmetrics import SelfMetrics
from waiting import wait_until

from . import population
from .harness import RUNS, Result, Row, Table, at_most, duration, seconds

SERIES = 200_000
HISTORY = 300.0  # seconds of scrapes before the first question
RANGE, STEP = 3600, 15  # seconds: what the board shows, and a point of it
VALUES = {
    "cluster": ".*", "SessionName": ".*", "workflow": ".*",
    "__range": "1h", "__range_s": "3600", "__interval": "15s", "__rate_interval": "1m",
}  # fmt: skip


def measure() -> Result:
    population.NOW = time.time()  # or no run would have ended within the board's range
    catalog = population.filled(SERIES)
    body = bytes(page(Renderer().render(population.snapshot(catalog)), SelfMetrics("1.0.0")))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = {f"127.0.0.1:{server.server_port}": {"cluster": "production"}}
    with (
        tempfile.TemporaryDirectory() as folder,
        Monitoring(Path(folder), target, scrape="5s", evaluate="15s") as monitoring,
    ):
        wait_until(
            lambda: monitoring.query("count(up == 1)"), timeout=60, message="nothing is scraped"
        )
        time.sleep(HISTORY)
        held = int(monitoring.query('count({__name__=~"ray_workflow_.*"})')[0]["value"][1])
        fleet = [query for query in queries() if query.board == "ray-workflow-fleet"]
        times = {
            query: [seconds(lambda: ask(monitoring, query)) for _ in range(RUNS)]  # noqa: B023
            for query in fleet
        }
    server.shutdown()
    server.server_close()
    medians = {query: statistics.median(found) for query, found in times.items()}
    slowest = max(medians, key=lambda query: medians[query])
    return Result(
        [
            Row(
                f"slowest query of the Fleet board ({slowest.panel}), {held:,} series held",
                duration(medians[slowest]),
                goals=[at_most(medians[slowest], 0.3, duration)],
            )
        ],
        [
            Table(
                f"Queries of the Fleet board, {held:,} series held",
                ("panel", "query", "median", "first"),
                [
                    [query.panel, query.ref, duration(median), duration(times[query][0])]
                    for query, median in sorted(medians.items(), key=lambda item: -item[1])
                ],
            )
        ],
        [
            f"Queries of the Fleet board were asked over one hour at steps of {STEP} s, with all "
            f"rules loaded, of a Prometheus that had scraped for {HISTORY / 60:.0f} minutes each "
            "5 s: what looks back for longer found no more than that."
        ],
    )


def ask(monitoring: Monitoring, query: Query) -> None:
    """Ask one query as Grafana asks it."""
    now = time.time()
    asked = {"query": filled(query.expr, VALUES)}
    if query.instant:
        path, asked = "query", {**asked, "time": str(now)}
    else:
        path = "query_range"
        asked |= {"start": str(now - RANGE), "end": str(now), "step": str(STEP)}
    answer = HTTP.post(f"{monitoring.prometheus}/api/v1/{path}", data=asked, timeout=60)
    assert answer.json()["status"] == "success", answer.text
