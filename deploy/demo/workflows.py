"""Run one workflow of each kind on a Ray cluster, again and again, until stdin ends.

Usage: workflows.py ADDRESS
"""

# mypy: disable-error-code="untyped-decorator"
# mypy skips Ray (see pyproject.toml), so its decorators have no types.

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import ray  # noqa: E402
from ray import workflow  # noqa: E402

PAUSE = 6.0  # seconds between two rounds of short workflows


@ray.remote
def extract(day: int) -> list[int]:
    time.sleep(1.0)
    return list(range(day, day + 50_000))


@ray.remote
def clean(rows: list[int]) -> list[int]:
    time.sleep(1.5)
    return [row for row in rows if row % 3]


@ray.remote
def enrich(rows: list[int]) -> list[tuple[int, str]]:
    time.sleep(2.0)
    return [(row, hex(row)) for row in rows[:20_000]]


@ray.remote
def load(clean_rows: list[int], enriched: list[tuple[int, str]]) -> int:
    time.sleep(1.0)
    return len(clean_rows) + len(enriched)


@ray.remote(num_cpus=0.2)
def score(shard: int) -> float:
    time.sleep(0.5)
    return shard / 100


@ray.remote
def summarise(*scores: float) -> float:
    return sum(scores)


@ray.remote
def halve(number: int) -> Any:
    time.sleep(0.7)
    # Returning a workflow is what Ray calls a continuation.
    return workflow.continuation(halve.bind(number // 2)) if number > 1 else number


@ray.remote
def flaky(counter: str) -> str:
    path = Path(counter)
    attempt = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(attempt))
    time.sleep(0.5)
    if attempt < 3:
        raise ConnectionError(f"upstream answered 503 (attempt {attempt})")
    return "at last"


@ray.remote
def check(rows: list[int]) -> list[int]:
    time.sleep(0.5)
    raise ValueError(f"42 of {len(rows)} rows have no customer id")


@ray.remote(max_retries=0)
def crash() -> None:
    time.sleep(1.0)
    os._exit(1)


@ray.remote(resources={"licence": 1})
def licensed(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@ray.remote
def epoch(number: int, before: int | None = None) -> int:
    time.sleep(8.0)
    return number


def submit(kind: str, number: int, dag: Any) -> None:
    workflow.run_async(dag, workflow_id=f"{kind}-{number:03d}", metadata={"workflow": kind})


def etl(number: int) -> Any:
    rows = extract.bind(number)
    return load.bind(clean.bind(rows), enrich.bind(rows))


def audit(number: int) -> Any:
    checked = check.bind(extract.bind(number))
    return load.bind(checked, enrich.bind(checked))


def train() -> Any:
    step = epoch.bind(0)
    for number in range(1, 12):
        step = epoch.bind(number, step)
    return step


def wait_for_stdin(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def main() -> None:
    address = sys.argv[1]
    stop = threading.Event()
    threading.Thread(target=wait_for_stdin, args=(stop,), daemon=True).start()
    ray.init(address, log_to_driver=False, configure_logging=False)
    # More runs than this wait in Ray's queue: PENDING.
    workflow.init(max_running_workflows=5)
    scratch = Path(os.environ["DEMO_SCRATCH"])

    submit("train", 1, train())
    submit("licence", 1, licensed.bind(20.0))
    submit("licence", 2, licensed.bind(20.0))
    submit("shards", 1, summarise.bind(*[score.bind(shard) for shard in range(100)]))
    for number in itertools.count(1):
        counter = str(scratch / f"flaky-{number}")
        submit("etl", number, etl(number))
        submit("halving", number, halve.bind(16))
        submit("flaky", number, flaky.options(max_retries=3, retry_exceptions=True).bind(counter))
        if number % 2:
            submit("audit", number, audit(number))
            submit("crash", number, crash.bind())
        if stop.wait(PAUSE):
            return


if __name__ == "__main__":
    main()
