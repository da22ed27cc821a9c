"""Run the whole suite again and again in random order, every second time on a busy machine.

    python -m support.flakes [RUNS] [PYTEST ARGUMENTS]

Prints one row for each run and ends with 1 if a test failed in any. The output of each run is
kept in build/flakes.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.guard import Guard

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "flakes"
BUSY = 8  # processes beside every second run


class Outcome(NamedTuple):
    """What came of one run of the suite."""

    good: bool
    summary: str
    wall: float
    cpu: float  # of all its processes that were waited for; seconds, as `wall`
    failures: list[str]


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep the processors busy meanwhile."""
    spinning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    guards = [Guard(process.pid) for process in spinning]
    try:
        yield
    finally:
        for process, guard in zip(spinning, guards):
            guard.dismiss()
            process.kill()
            process.wait()


def run(log: Path, seed: int, arguments: list[str]) -> Outcome:
    """Run the suite once in the order of a seed, in two steps as `make test` does."""
    began = time.monotonic()
    codes, cpu = [], 0.0
    where = arguments or ["tests/integration", "tests/e2e"]
    with log.open("w") as output:
        for step in (
            ["-n", "2", "-m", "not (slow or ray)", *arguments],
            ["-m", "ray and not slow", *where],
        ):
            suite = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pytest", *step),
                    *(f"--randomly-seed={seed}", "--color=no"),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            _, status, usage = os.wait4(suite.pid, 0)
            suite.returncode = os.waitstatus_to_exitcode(status)
            codes.append(suite.returncode)
            cpu += usage.ru_utime + usage.ru_stime
    text = log.read_text(errors="replace")
    return Outcome(
        # 5: the arguments chose no test of that step.
        set(codes) <= ({0, 5} if arguments else {0}) and codes != [5, 5],
        "; ".join(re.findall(r"^=+ (.* in [\d.]+s.*?) =+$", text, re.MULTILINE)),
        time.monotonic() - began,
        cpu,
        re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE),
    )


def main(runs: int, *arguments: str) -> int:
    LOGS.mkdir(parents=True, exist_ok=True)
    bad = 0
    print(
        f"{'run':>3}  {'seed':>10}  {'busy':>4}  {'wall s':>6}  {'CPU s':>6}  outcome", flush=True
    )
    for number in range(1, runs + 1):
        seed, others = random.randrange(1 << 32), BUSY if number % 2 == 0 else 0
        with busy(others):
            outcome = run(LOGS / f"{number:02}.log", seed, list(arguments))
        bad += not outcome.good
        print(
            f"{number:>3}  {seed:>10}  {others:>4}  {outcome.wall:>6.0f}  {outcome.cpu:>6.0f}"
            f"  {outcome.summary}",
            *outcome.failures,
            sep="\n     ",
            flush=True,
        )
    print(f"{bad} of {runs} runs failed; their output is in {LOGS}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int((sys.argv[1:] or ["10"])[0]), *sys.argv[2:]))
