"""Ends what a test started when the test process is killed and cannot do so itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Optional

# Kills $1 (-$1 is a group) and removes the folder $2 as soon as nobody holds the other end of its
# input. No `--`: the shells that Debian and Alpine call sh would read "-" as the number.
SCRIPT = 'read nothing; kill -9 "$1"; [ -z "$2" ] || rm -rf "$2"'


class Guard:
    """Watches over a process, or over its group, for as long as this process lives.

    Dismiss it before the process is waited for: its number may be another's afterwards.
    """

    def __init__(self, pid: int, *, group: bool = False, folder: Optional[Path] = None) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", SCRIPT, "guard", f"-{pid}" if group else str(pid), str(folder or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Watch no more."""
        self._process.kill()
        self._process.communicate()
