"""A scrape: ready bytes against rendering all samples anew."""

from __future__ import annotations

import gzip
from collections import deque

from prometheus_client import generate_latest

from ray_workflow_exporter.metrics.exposition import Exposition, Renderer, page
from ray_workflow_exporter.metrics.own import SelfMetrics
from ray_workflow_exporter.server.metrics import chunks

from .harness import Result, Row, at_least, at_most, duration, faster, in_turns, size, times
from .peer import registry_of
from .population import filled, snapshot

SIZES = (100_000, 1_000_000)


class Scraped:
    """An exposition and the exporter's own metrics, as the web server answers from them."""

    def __init__(self, exposition: Exposition) -> None:
        self.exposition = exposition
        self._own = SelfMetrics("1.0.0")
        self._own.prepare()  # as each poll does

    def answer(self, *, gzip: bool) -> None:
        """Make each chunk that the web server would write, and let it go as a socket does."""
        deque(chunks(page(self.exposition, self._own, gzip=gzip)), maxlen=0)

    def body(self, *, gzip: bool) -> bytes:
        """Return the whole answer."""
        return b"".join(page(self.exposition, self._own, gzip=gzip))


def count_lines(body: bytes) -> int:
    """Count the samples of a body."""
    return sum(not line.startswith(b"#") for line in body.splitlines())


def measure() -> Result:
    result = Result()
    for series in SIZES:
        _measure(series, result)
    result.notes.append(
        "A scrape is timed from the question to the last chunk that is handed to the socket, the "
        "exporter's own metrics included. The peer holds the same samples as gauges, and "
        "compresses at its default level, 9."
    )
    return result


def _measure(series: int, result: Result) -> None:
    scraped = Scraped(Renderer().render(snapshot(filled(series))))
    body, zipped = scraped.body(gzip=False), scraped.body(gzip=True)
    count = count_lines(body)
    registry = registry_of(body.splitlines())
    # Pieces of the same number as those that the exporter joins.
    pieces = page(scraped.exposition, SelfMetrics("1.0.0"))

    text = generate_latest(registry)
    ours, joined, rendered, ours_zipped, compressed = in_turns(
        lambda: scraped.answer(gzip=False),
        lambda: b"".join(pieces),
        lambda: generate_latest(registry),
        lambda: scraped.answer(gzip=True),
        lambda: gzip.compress(text),
    )
    rendered_zipped = rendered + compressed
    name = f"scrape of {count:,} series"
    result.rows += [
        Row(
            f"{name}, plain ({size(len(body))})",
            duration(ours),
            f"generate_latest: {duration(rendered)}",
            faster(ours, rendered),
            [at_least(rendered / ours, 300, times)],
        ),
        Row(
            f"{name}, plain",
            duration(ours),
            f"one b''.join: {duration(joined)}",
            f"{times(ours / joined)} its time",
            [at_most(ours / joined, 2, times)],
        ),
        Row(
            f"{name}, gzip ({size(len(zipped))})",
            duration(ours_zipped),
            f"generate_latest, gzip.compress: {duration(rendered_zipped)}",
            faster(ours_zipped, rendered_zipped),
            [at_least(rendered_zipped / ours_zipped, 150, times)],
        ),
    ]
