"""Files of ours in folders that every user of the machine may write into, as Ray's are.

Where one is expected there may lie a link, a pipe, or what somebody else wrote.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any


def open_own(path: str, flags: int) -> int:
    """Open a file as `os.open` does, for `open(…, opener=open_own)`; only a plain one of ours.

    Raises OSError, and never waits.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise PermissionError(f"{path} is not a plain file of this user: remove it.")


def read_json(file: Path) -> Any:
    """Return the JSON of a file that is ours, None without one."""
    try:
        with open(file, "rb", opener=open_own) as stream:
            return json.loads(stream.read())
    except (OSError, ValueError):
        return None


def write_json(file: Path, content: Any) -> None:
    """Let a file hold this, for all to read, unless it does already. Raises OSError."""
    if read_json(file) == content:
        return
    # A name that nobody can guess, and lay a link under.
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.", suffix=".part")
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
            os.fchmod(descriptor, 0o644)  # whatever the umask: Prometheus is another user
        os.replace(part, file)
    except BaseException:
        os.unlink(part)
        raise
