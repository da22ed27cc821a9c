"""A Python process of a user: what it wrote to its standard error stands in each failure."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Driver(subprocess.Popen[str]):
    """A process that is asked by lines and answers by lines."""

    def __init__(self, command: Sequence[str], errors: Path, env: Mapping[str, str]) -> None:
        self._errors, self._unread = errors, ""
        pipe = subprocess.PIPE
        with errors.open("w") as stderr:
            super().__init__(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, env=env)

    def stderr_text(self) -> str:
        """Return the end of what it wrote to its standard error."""
        return self._errors.read_text(errors="replace")[-5_000:]

    def ask(self, line: str = "", *, timeout: float = 120.0) -> str:
        """Send a line and return the line that answers it."""
        assert self.stdin
        try:
            print(line, file=self.stdin, flush=True)
        except BrokenPipeError:
            pass  # it has ended: its errors say more
        return self.next_line(timeout=timeout)

    def next_line(self, *, timeout: float = 120.0) -> str:
        """Wait for the next line that it prints, and return it without its end."""
        assert self.stdout
        deadline = time.monotonic() + timeout
        while "\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.stdout], [], [], left)[0]:
                raise AssertionError(f"no line came within {timeout:g} s:\n{self.stderr_text()}")
            data = os.read(self.stdout.fileno(), 1 << 16)
            if not data:
                raise AssertionError(f"it ended with {self.wait(30)}:\n{self.stderr_text()}")
            self._unread += data.decode()
        line, _, self._unread = self._unread.partition("\n")
        return line

    def finish(self, *, timeout: float = 120.0) -> str:
        """Close its input, wait for its good end, and return what else it printed."""
        try:
            output, _ = self.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"it did not end in {timeout:g} s:\n{self.stderr_text()}"
            ) from None
        assert self.returncode == 0, f"it ended with {self.returncode}:\n{self.stderr_text()}"
        return self._unread + output
