"""Run the benchmarks: `python -m benchmarks [NAME…]`, all of them by default.

Prints one table at the end, and writes it to docs/performance.md when all were run. A goal that
was missed is told as such and is no error; a benchmark that fails is.
"""

from __future__ import annotations

import sys
import time
import traceback

from .harness import HEADS, Result, in_fresh_process, markdown, measure
from .report import DOCUMENT, document

# In this order in the table. Each is a module with a function `measure`.
BENCHMARKS = (
    "scrape", "update", "manager", "wall_time", "freshness", "cold_scan", "object_store_scan",
    "polls", "dashboard_queries", "memory", "growth",
)  # fmt: skip


def main(names: list[str]) -> int:
    """Run the benchmarks of these names; return the exit code."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"There is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}.")
        return 2
    whole, failed = Result(), False
    began = time.monotonic()
    for name in names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            # In a process of its own, so that none runs in the heap of those before it.
            result = in_fresh_process(measure, name)
        except Exception:
            traceback.print_exc()
            failed = True
            continue
        whole.rows += result.rows
        whole.tables += result.tables
        whole.notes += result.notes
        lines = [" | ".join(row.cells()) for row in result.rows]
        print(*lines, f"{time.monotonic() - began:.0f} s so far", sep="\n", file=sys.stderr)
    if whole.rows:
        print(markdown(HEADS, [row.cells() for row in whole.rows]))
    for table in whole.tables:
        print(f"\n{table.title}\n\n{markdown(table.heads, table.lines)}")
    for note in whole.notes:
        print(f"\n{note}")
    if not names and not failed:
        DOCUMENT.write_text(document(whole), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
