"""Our files in folders that every user of the machine can write to, such as Ray's.

Instead of our file there may be a link, a pipe or a file of another user.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any


def open_own(path: str, flags: int) -> int:
    """Open a file like `os.open`, for `open(…, opener=open_own)`, if it is a plain file of ours.

    Raises OSError. Never blocks.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise PermissionError(f"{path} is not a plain file of this user: remove it.")


def read_json(file: Path) -> Any:
    """Return the JSON in a file of ours, None if there is none."""
    try:
        with open(file, "rb", opener=open_own) as stream:
            return json.loads(stream.read())
    except (OSError, ValueError):
        return None


def write_json(file: Path, content: Any) -> None:
    """Write a file that all users can read, if its content differs. Raises OSError."""
    if read_json(file) == content:
        return
    # An unpredictable name, so that nobody can place a link there.
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.", suffix=".part")
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
            os.fchmod(descriptor, 0o644)  # whatever the umask: Prometheus is another user
        os.replace(part, file)
    except BaseException:
        os.unlink(part)
        raise
