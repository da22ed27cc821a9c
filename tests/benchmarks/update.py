"""One percent of the runs changes: from the catalog to bodies that are ready."""

from __future__ import annotations

import statistics

from ray_workflow_exporter.metrics.exposition import Renderer
from ray_workflow_exporter.model import RunStatus

from .harness import (
    Result,
    Row,
    at_least,
    at_most,
    duration,
    faster,
    median_seconds,
    seconds,
    times,
)
from .population import filled, snapshot, stepped

SERIES = 100_000
RUNS = 15


class Changing:
    """A catalog of which one percent of the runs changes with each step."""

    def __init__(self, series: int) -> None:
        self.catalog = filled(series)
        self.renderer = Renderer()
        self.renderer.render(snapshot(self.catalog))
        runs = filter(None, map(self.catalog.get, self.catalog.ids()))
        at_work = [run for run in runs if run.status is RunStatus.RUNNING]
        self.changing = at_work[: max(1, round(len(self.catalog.ids()) / 100))]
        self._step = 0

    def step(self) -> float:
        """Change the runs, and time how long it takes until the bodies are ready."""
        self._step += 1
        changed = [stepped(run, self._step) for run in self.changing]

        def update() -> None:
            for run in changed:
                self.catalog.put(run)
            self.renderer.render(snapshot(self.catalog))

        return seconds(update)

    def render_all(self) -> float:
        """Time how long it takes to render everything anew."""
        shown = snapshot(self.catalog)
        return median_seconds(lambda: Renderer().render(shown))


def measure() -> Result:
    changing = Changing(SERIES)
    full = changing.render_all()
    ours = statistics.median(changing.step() for _ in range(RUNS))
    return Result(
        [
            Row(
                f"update, {len(changing.changing)} of {len(changing.catalog.ids())} runs changed "
                f"at {SERIES:,} series",
                duration(ours),
                f"all rendered anew: {duration(full)}",
                faster(ours, full),
                [at_most(ours, 0.020, duration), at_least(full / ours, 40, times)],
            )
        ]
    )
