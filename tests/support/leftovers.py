"""What a test leaves running: it would write to the log, or end, in the middle of another test."""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path

PATIENCE = 15.0  # seconds
# The S3 server of a module starts with its first test. Threads of storage may be waiting for an
# answer that never comes: they are daemons, and hold nothing that another test uses.
_SHARED = re.compile("_server_entry|storage$")
_WAITING = {"_worker", "_make_calls"}  # of concurrent.futures, and of our storage
_TASKS = Path("/proc/self/task")

State = tuple[frozenset[threading.Thread], frozenset[str]]


def running() -> State:
    """Return the threads and the child processes of this process."""
    return frozenset(threading.enumerate()), children()


def children() -> frozenset[str]:
    """Return the ids of our child processes; one that nobody has waited for counts."""
    found: set[str] = set()
    for task in _TASKS.iterdir():
        try:
            found.update((task / "children").read_text().split())
        except OSError:
            continue  # the thread has ended meanwhile
    return frozenset(found)


def left_since(before: State) -> str:
    """Wait for the end of all that has begun since `before`, and say what does not end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        threads, pids = running()
        left = [it.name for it in threads - before[0] if not _idle(it)]
        left += [_named(pid) for pid in pids - before[1]]
        if not left or time.monotonic() > deadline:
            return ", ".join(sorted(left))
        time.sleep(0.01)


def _idle(thread: threading.Thread) -> bool:
    """Whether a thread has ended, or waits in a pool for something to do."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is None or frame.f_code.co_name in _WAITING or bool(_SHARED.search(thread.name))


def _named(pid: str) -> str:
    try:
        return f"process {pid}: {Path('/proc', pid, 'cmdline').read_text()[:200]!r}"
    except OSError:
        return f"process {pid}"
