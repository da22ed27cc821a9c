"""Names that stay the same from run to run: the workflow of a run, the stage of a task."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

UNNAMED = "unnamed"
OTHER = "other"

MAX_LENGTH = 256  # characters; metadata has no limit of its own
_MAX_FOLDED = 10_000  # hashes kept, about 1 MB

# Ids are user input, so every pattern here either has a bounded length or is tried at one place
# only: the time stays linear in the id.
_SEPARATORS = "-_.:+@#=~,; \t\r\n"
_TOKEN = re.compile(f"[^{re.escape(_SEPARATORS)}]+")
# What is never part of a workflow, wherever it stands, with the separator before it.
_UUID = re.compile(
    r"[-_.: ]?(?<![0-9a-z])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-z])", re.IGNORECASE
)
_DATE = re.compile(
    r"[-_.: ]?(?<![0-9a-z])(?:19|20)[0-9]{2}([-_./])[0-9]{2}\1[0-9]{2}"
    r"(?:[t _-][0-9]{2}([:_.-]?)[0-9]{2}(?:\2[0-9]{2}(?:[.,][0-9]{1,9})?)?)?"
    r"(?:z|[+-][0-9]{2}:?[0-9]{2})?(?![0-9a-z])",
    re.IGNORECASE,
)
# What is no part of a workflow at the end of an id: numbers and times, hashes, ULIDs. A hash has a
# digit and at least the seven characters of a short git hash, so that words are left alone.
_VOLATILE = re.compile(
    r"[0-9]+(?:t[0-9]+)?z?|(?=[a-f]*[0-9])[0-9a-f]{7,}|[0-7][0-9a-hjkmnp-tv-z]{25}", re.IGNORECASE
)
_GLUED_DIGITS = 6  # `etl20240501` loses its date, `resnet50` and `sha256` keep their numbers


def workflow_name(workflow_id: str, user_metadata: Mapping[str, Any], key: str = "workflow") -> str:
    """Name what runs again and again.

    That is the text under `key` in the user metadata, else the id without what changes from run
    to run, else `unnamed`: Ray's own ids are a UUID and a time (`ray/workflow/api.py`). Each part
    of an id with slashes loses its own tail. At most MAX_LENGTH characters.
    """
    named = user_metadata.get(key)
    if isinstance(named, str) and named.strip():
        return named.strip()[:MAX_LENGTH]
    rest = _DATE.sub("", _UUID.sub("", workflow_id))
    parts = rest.split("/")
    if rest != workflow_id:  # something was cut out: its separators are left over
        parts = [part.lstrip(_SEPARATORS) for part in parts]
    return "/".join(filter(None, map(_without_tail, parts)))[:MAX_LENGTH] or UNNAMED


def stage_name(task_id: str, base_names: Container[str]) -> str:
    """Name the stage of a task: its id without the `_N` by which Ray numbers equal names.

    `base_names` are the names in `duplicate_name_counter/`; the first task of a name has no
    suffix (`gen_task_id` in `ray/workflow/workflow_access.py`). An id that is itself such a name
    stays whole, and so does one whose base is not known.
    """
    if task_id in base_names:
        return task_id
    base, _, suffix = task_id.rpartition("_")
    is_count = suffix.isascii() and suffix.isdigit() and not suffix.startswith("0")
    return base if is_count and base in base_names else task_id


class WorkflowNames:
    """Hold the number of workflows down: first come first served, the rest is `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: set[str] = set()
        self._folded: set[int] = set()

    def name(self, workflow: str) -> str:
        """Return `workflow` itself as long as it is among the first `limit` workflows."""
        if workflow in self._names:
            return workflow
        if len(self._names) < self._limit:
            self._names.add(workflow)
            return workflow
        # Hashes, and not for ever: ids that name a workflow each must not fill the memory.
        if len(self._folded) < _MAX_FOLDED:
            self._folded.add(hash(workflow))
        return OTHER

    def release(self, workflow: str) -> None:
        """Give the place of a workflow to the next one; those folded until then may be it."""
        self._names.discard(workflow)
        self._folded.clear()

    @property
    def folded(self) -> int:
        """How many distinct workflows became `other`; stops counting at ten thousand."""
        return len(self._folded)


def _without_tail(part: str) -> str:
    for token in reversed(list(_TOKEN.finditer(part))):
        word = token.group()
        if _VOLATILE.fullmatch(word):
            continue
        stem = word.rstrip("0123456789")
        kept = stem if len(word) - len(stem) >= _GLUED_DIGITS else word
        return part[: token.start() + len(kept)]
    return ""
