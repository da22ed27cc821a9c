"""What all benchmarks share: how to measure, what a row says, how a table looks."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple, TypeVar

T = TypeVar("T")

RUNS = 5


class Goal(NamedTuple):
    """A figure to reach, and by how much it was missed ("" if it was not)."""

    text: str
    missed_by: str


def at_most(value: float, limit: float, show: Callable[[float], str]) -> Goal:
    """Return the goal that `value` does not exceed `limit`."""
    over = f"{show(value)} is {value / limit - 1:.0%} above" if value > limit else ""
    return Goal(f"≤ {show(limit)}", over)


def at_least(value: float, limit: float, show: Callable[[float], str]) -> Goal:
    """Return the goal that `value` reaches `limit`."""
    under = f"{show(value)} is {1 - value / limit:.0%} below" if value < limit else ""
    return Goal(f"≥ {show(limit)}", under)


@dataclass(frozen=True)
class Row:
    """One line of the table: a measure, our figure, the peer's, their ratio, the goals."""

    measure: str
    ours: str
    peer: str = ""
    ratio: str = ""
    goals: Sequence[Goal] = ()

    def cells(self) -> tuple[str, ...]:
        """Return the row's cells."""
        missed = [f"missed: {it.text}, {it.missed_by}" for it in self.goals if it.missed_by]
        verdict = "; ".join(missed) or ("met" if self.goals else "")
        goals = ", ".join(goal.text for goal in self.goals)
        return self.measure, self.ours, self.peer, self.ratio, goals, verdict


@dataclass(frozen=True)
class Table:
    """How figures grow: a table of its own."""

    title: str
    heads: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass
class Result:
    """What one benchmark found; `notes` are sentences on how it measured."""

    rows: list[Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


HEADS = ("measure", "exporter", "peer", "ratio", "to reach", "")


def seconds(work: Callable[[], object], *, collect: bool = False) -> float:
    """Time one call. As in timeit, the garbage collector rests meanwhile, unless `collect`."""
    gc.collect()
    if not collect:
        gc.disable()
    try:
        began = time.perf_counter()
        result = work()
        taken = time.perf_counter() - began
        del result  # not part of the work: a body of 100 MB takes a while to be given back
    finally:
        gc.enable()
    return taken


def in_a_row(
    work: Callable[[], object], prepare: Callable[[], object], runs: int = RUNS
) -> list[float]:
    """Time calls of microseconds, each prepared anew, without a collection between two of them.

    A collection sweeps through the caches of the processor, and the next call would pay for it.
    """
    gc.collect()
    gc.disable()
    times = []
    try:
        for _ in range(runs):
            prepare()
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    finally:
        gc.enable()
    return times


def median_seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median time of `runs` calls."""
    return statistics.median(seconds(work) for _ in range(runs))


def in_turns(*works: Callable[[], object], runs: int = RUNS) -> list[float]:
    """Return the median time of each, called in turns, so that a busy machine is fair to all."""
    rounds = [[seconds(work) for work in works] for _ in range(runs)]
    return [statistics.median(times) for times in zip(*rounds)]


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function of a module in a new Python, which ends with it."""
    # Spawned: a fork would share our heap, and Ray's threads do not survive one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def measure(name: str) -> Result:
    """Run the benchmark of a module."""
    result: Result = importlib.import_module(f"{__package__}.{name}").measure()
    return result


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def duration(value: float) -> str:
    """Show seconds with three digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1 or unit == "µs":
            return f"{_three_digits(value * factor)} {unit}"
    raise AssertionError


def size(value: float) -> str:
    """Show bytes with three digits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{_three_digits(value / factor)} {unit}"
    return f"{value:.0f} bytes"


def times(value: float) -> str:
    """Show a ratio."""
    return f"{_three_digits(value)} ×"


def faster(ours: float, peer: float) -> str:
    """Say how much faster we are than the peer."""
    return f"{times(peer / ours)} faster" if peer >= ours else f"{times(ours / peer)} slower"


def percent(value: float) -> str:
    """Show a share."""
    return f"{value:.1%}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}" if value else "0"


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table that reads well as text too."""
    widths = [max(len(line[at]) for line in [heads, *lines]) for at in range(len(heads))]

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([row(heads), rule, *map(row, lines)])
