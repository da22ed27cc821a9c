"""Keep one child process running, without a risk for the process that does so."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..backoff import Backoff
from .files import open_own

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
STEADY_SECONDS = 10.0  # a child that ran this long did not crash at its start
LARGEST_OUTPUT = 16 << 20

_log = logging.getLogger(__name__)


def supervise(
    command: Sequence[str], greeting: str, output: Path, after: Callable[[], None]
) -> None:
    """Run `command` and restart it whenever it ends, with growing pauses; never returns.

    The first line of the child's standard input is `greeting`; the input stays open until this
    process ends. What the child prints goes to `output`. `after` is called each time it has ended.
    """
    backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
    while True:
        began = time.monotonic()
        end = _run(command, greeting, output)
        try:
            after()
        except Exception:
            _log.exception("Could not clean up after the workflow exporter.")
        if time.monotonic() - began >= STEADY_SECONDS:
            backoff.reset()
        pause = backoff.pause()
        _log.warning(
            "The workflow exporter %s; restarting it in %.0f s. Its log and output are %s.*",
            *(end, pause, output.with_suffix("")),
        )
        time.sleep(pause)


def _run(command: Sequence[str], greeting: str, output: Path) -> str:
    """Run the child until it ends, and return how it ended."""
    try:
        with open(output, "ab", opener=open_own) as stream:
            if os.fstat(stream.fileno()).st_size > LARGEST_OUTPUT:
                stream.truncate(0)
            child = subprocess.Popen(
                command,
                bufsize=0,
                # A pipe of its own: the agent's standard input is how the raylet notices its end.
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        with child:
            assert child.stdin
            try:
                child.stdin.write(greeting.encode() + b"\n")
            except BrokenPipeError:
                pass  # it has ended already; its exit code is logged
            return _described(child.wait())
    except Exception as error:
        return f"could not be started ({error!r})"


def _described(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
