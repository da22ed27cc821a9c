"""The queries of the Fleet dashboard, asked as Grafana asks them, of a full Prometheus."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ray_workflow_exporter.metrics.exposition import Renderer, page
from ray_workflow_exporter.metrics.own import SelfMetrics
from support.dashboards import ALL, Query, filled, queries
from support.monitoring import HTTP, Monitoring, program
from support.waiting import wait_until

from . import population
from .harness import RUNS, Result, Row, Table, at_most, duration, seconds

SERIES = 200_000
RANGE, STEP = 6 * 3600, 30  # seconds: what the dashboard shows, and a point of it on a wide screen
SCRAPE = 5  # seconds, as in prometheus.yml
FLEET = [query for query in queries() if query.dashboard == "ray-workflow-fleet"]


def asked(query: Query) -> dict[str, str]:
    """Return what Grafana sends."""
    now = time.time()
    step = max(STEP, {"": 0, "30s": 30, "2m": 120}[query.interval])
    values = {
        "cluster": ALL, "SessionName": ALL, "workflow": ALL,
        "__range": f"{RANGE}s", "__range_s": str(RANGE), "__interval": f"{step}s",
        "__rate_interval": f"{max(step + SCRAPE, 4 * SCRAPE)}s",
    }  # fmt: skip
    at = {"start": now - RANGE, "end": now, "step": step}
    if query.instant:
        at = {"time": now}
    return {"query": filled(query.expr, values), **{name: str(it) for name, it in at.items()}}


_SELECTOR = r"((?:\w+:)?ray_workflow_[\w:]+)\{[^}]*\}"
# What Prometheus has to look up for the whole range; of all else, it takes what is there now.
LOOKED_BACK = {
    name
    for query in FLEET
    for name in re.findall(_SELECTOR + (r"\[" if query.instant else ""), asked(query)["query"])
}
COUNTERS = ("_total", "_bucket", "_sum", "_count")


def measure() -> Result:
    population.NOW = time.time()  # or no run would have ended within the dashboard's range
    with _exporter() as port, tempfile.TemporaryDirectory() as folder:
        target = {f"127.0.0.1:{port}": {"cluster": "production"}}
        known, full = Path(folder, "known"), Path(folder, "full")
        for it in (known, full):
            it.mkdir()
        with _monitoring(known, target) as monitoring:
            series = _looked_back(monitoring)
        samples = Path(folder, "samples")
        with samples.open("w") as file:
            file.writelines(_history(series, time.time()))
        command = ("tsdb", "create-blocks-from", "openmetrics", samples, full / "tsdb")
        subprocess.run([program("promtool"), *command], check=True, stdout=subprocess.DEVNULL)
        with _monitoring(full, target) as monitoring:
            samples_each = f"min(count_over_time(ray_workflow_runs[{RANGE}s]))"
            assert monitoring.query(f"{samples_each} > {0.9 * RANGE / SCRAPE}"), "no history"
            held = int(monitoring.query('count({__name__=~"ray_workflow_.*"})')[0]["value"][1])
            times = {
                query: [seconds(lambda: ask(monitoring, query)) for _ in range(RUNS)]  # noqa: B023
                for query in FLEET
            }
    medians = {query: statistics.median(found) for query, found in times.items()}
    slowest = max(medians, key=lambda query: medians[query])
    return Result(
        [
            Row(
                f"slowest Fleet query over {RANGE // 3600} h ({slowest.panel}), "
                f"{held:,} series held",
                duration(medians[slowest]),
                goals=[at_most(medians[slowest], 0.3, duration)],
            )
        ],
        [
            Table(
                f"Queries of the Fleet dashboard over {RANGE // 3600} h, {held:,} series held",
                ("panel", "query", "median", "first"),
                [
                    [query.panel, query.ref, duration(median), duration(times[query][0])]
                    for query, median in sorted(medians.items(), key=lambda item: -item[1])
                ],
            )
        ],
        [
            f"Queries of the Fleet dashboard were asked over {RANGE // 3600} hours, its own "
            f"range, at steps of {STEP} s or what the panel asks for, with all rules loaded. Of "
            f"the {len(series):,} series that they look back at, Prometheus held {RANGE // 3600} "
            f"hours of samples, one each {SCRAPE} s as `prometheus.yml` scrapes; all others come "
            "from live scrapes alone, because the dashboard asks what they are now."
        ],
    )


@contextmanager
def _exporter() -> Iterator[int]:
    catalog = population.filled(SERIES)
    exposition = Renderer().render(population.snapshot(catalog))
    body = b"".join(page(exposition, SelfMetrics("1.0.0")))

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
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _monitoring(folder: Path, target: dict[str, dict[str, str]]) -> Iterator[Monitoring]:
    """Start Prometheus, and wait until it has scraped and evaluated some times."""
    scraped = "sum_over_time(up[5m]) > 2"
    evaluated = "min(count_over_time(ray_workflow:threshold[5m])) > 2"
    with Monitoring(folder, target, scrape=f"{SCRAPE}s", evaluate="15s") as it:
        wait_until(
            lambda: it.query(f"{scraped} and on () {evaluated}"),
            timeout=120,
            message="Prometheus does not scrape and evaluate",
        )
        yield it


def _looked_back(monitoring: Monitoring) -> dict[str, float]:
    """Return each series that is looked back at, with its value."""
    found = []
    for name in sorted(LOOKED_BACK):
        result = monitoring.query(name)
        if not result:  # of what did not increase yet, nothing is recorded
            assert name.startswith("workflow:"), name
            result = monitoring.query("max by (cluster, job, workflow) (ray_workflow_runs)")
        found += [({**it["metric"], "__name__": name}, float(it["value"][1])) for it in result]
    return {_text(labels): value for labels, value in found}


def _text(labels: dict[str, str]) -> str:
    name = labels.pop("__name__")
    return f"{name}{{{','.join(f'{label}={json.dumps(it)}' for label, it in labels.items())}}}"


def _history(series: Mapping[str, float], until: float) -> Iterator[str]:
    """Write samples up to now, in which counters have grown to what they are."""
    steps = RANGE // SCRAPE
    for text, value in series.items():
        grows = text.partition("{")[0].endswith(COUNTERS)
        for step in range(steps):
            was = int(value * step / steps) if grows else value
            yield f"{text} {was} {until - (steps - step) * SCRAPE:.3f}\n"
    yield "# EOF\n"


def ask(monitoring: Monitoring, query: Query) -> None:
    """Ask one query as Grafana asks it."""
    path = "query" if query.instant else "query_range"
    answer = HTTP.post(f"{monitoring.prometheus}/api/v1/{path}", data=asked(query), timeout=60)
    assert answer.json()["status"] == "success", answer.text
