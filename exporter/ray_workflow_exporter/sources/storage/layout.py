"""How Ray lays runs out in a storage: names, paths, and what each small file says of its run.

Source: ray/workflow/workflow_storage.py, the same from Ray 2.3 to 2.47. Everything in the files
is untrusted: a value of a wrong type counts as absent.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Generator, Mapping
from functools import lru_cache, partial
from typing import Any, Callable, NamedTuple, Optional, Union

from ...model import NO_RESOURCES, RunStatus
from ..records import StoredRun
from .exceptions import read_exception
from .filesystem import Files, StorageError, is_text

VALID = "_valid"  # Ray writes it into the root of each storage (ray/_private/storage.py)
RUNS = "workflows"
MARKS = f"{RUNS}/__status__"
DIRTY = "dirty"
META = "workflow_meta.json"
TASKS = "tasks"
COUNTERS = "duplicate_name_counter"
OBJECTS = "objects"
ENTRY = f"{TASKS}/outputs.json"
INPUTS = "inputs.json"
STARTED = "pre_task_metadata.json"
RUN_STARTED = "pre_run_metadata.json"
OUTPUT = "output.pkl"
EXCEPTION = "exception.pkl"

JSON_LIMIT = 4 << 20  # bytes; inputs.json of a task with 50,000 arguments stays below
EXCEPTION_LIMIT = (1 << 20) + 1  # one byte more than `read_exception` looks at

# Characters of JSON that are kept of what users write about a run, about a task, and about a run
# in outline: any number of runs is kept in outline.
RUN_METADATA, TASK_METADATA, OUTLINE_METADATA = 16 << 10, 2 << 10, 1 << 10
TRUNCATED = "(truncated)"

# The decoder goes deeper than Python's stack allows to those who use what it returns.
_MAX_DEPTH = 200
# Of the resources of one task, and of the characters of a name.
_MAX_RESOURCES = 8
_MAX_NAME = 100
_RESOURCE_OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}

Fields = dict[str, Any]
File = tuple[str, str]  # the folder below tasks/ ("": the run's own), and the file's name
Read = Union[Fields, StorageError, None]  # what `read_file` returned, or its failure
Call = tuple[Any, ...]  # (function, *arguments)
Steps = Generator[list[Call], list[Any], Optional[StoredRun]]  # receives what the calls returned


class Content(NamedTuple):
    """What one file of a run or a task is good for.

    `parse` turns its JSON document, or a pickle's bytes, into the `fields` of the record.
    """

    parse: Callable[[Any], Fields]
    fields: tuple[str, ...]
    limit: int = JSON_LIMIT
    pickled: bool = False


def read_file(files: Files, path: str, content: Content) -> Optional[Fields]:
    """Return the fields that a file holds: none if it is not there, None if it is half written.

    Ray writes in place, so that a reader sees empty and cut files.
    """
    data = files.read(path, content.limit)
    if data is None:
        return {}
    if content.pickled:
        # Every pickle ends with the opcode STOP, a dot.
        whole = data.endswith(b".") or len(data) == content.limit
        return content.parse(data) if whole else None
    try:
        text = data.decode().strip()
        document, end = _DECODER.raw_decode(text)
        if end != len(text):
            raise ValueError("more than one document")
        if "\\u" in text and ("\\ud" in text or "\\uD" in text):
            # Half of a surrogate pair is legal in JSON, but no text that could be served.
            document = json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        if len(data) < content.limit:
            return None
        cause = f"the file is larger than {content.limit >> 20} MiB"
        raise StorageError(f"Cannot read {path} in the workflow storage: {cause}.", cause) from None
    nested = data.count(b"{") + data.count(b"[") > _MAX_DEPTH
    if not isinstance(document, dict) or (nested and _too_deep(document)):
        document = {}
    return content.parse(document)


def truncated(metadata: Mapping[str, Any], limit: int) -> Mapping[str, Any]:
    """Keep the smallest entries of what users write, and say how much is left out.

    Small entries are those that name a workflow, an owner or a deadline.
    """
    sizes = {key: len(key) + len(json.dumps(value)) for key, value in metadata.items()}
    total = sum(sizes.values())
    if total <= limit:
        return metadata
    kept, used = set(), 0
    for key in sorted(sizes, key=lambda key: sizes[key]):
        used += sizes[key]
        if used > limit:
            break
        kept.add(key)
    left_out = len(metadata) - len(kept)
    text = (
        f"{left_out} of {len(metadata)} entries are left out: of {total} characters of metadata, "
        f"the exporter keeps at most {limit}."
    )
    return {**{key: value for key, value in metadata.items() if key in kept}, TRUNCATED: text}


def clean(identifier: str, backslash_divides: bool) -> Optional[str]:
    """Return the path that Ray makes of a run's or task's id, None if it would lead elsewhere."""
    parts = (identifier.replace("\\", "/") if backslash_divides else identifier).split("/")
    if identifier.startswith("/") or "\0" in identifier or ".." in parts or not is_text(identifier):
        return None
    return "/".join(part for part in parts if part not in ("", ".")) or None


def is_counted(path: str, base_names: Collection[str]) -> bool:
    """Tell whether Ray gave out this task id: `f` or `f_2`, with the base name `f`."""
    base, _, number = path.rpartition("_")
    return path in base_names or (number.isdecimal() and base in base_names)


def could_be_a_file_of_a_run(mark: str) -> bool:
    """Tell whether a file among the marks is perhaps a file of a run called `__status__/FAILED`."""
    return not _NAMES_IN_A_RUN.isdisjoint(mark.split("/"))


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for it in level
            for child in (it.values() if isinstance(it, dict) else it)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _nothing(_constant: str) -> None:
    return None  # NaN and infinities


def _finite(text: str) -> Optional[float]:
    return value if math.isfinite(value := float(text)) else None


def _reasonable(text: str) -> Optional[int]:
    return int(text) if len(text) <= 20 else None


_DECODER = json.JSONDecoder(
    parse_constant=_nothing, parse_float=_finite, parse_int=_reasonable
)  # json.loads would make one for each call


def _status(document: Mapping[str, Any]) -> Fields:
    try:
        return {"status": RunStatus(document.get("status"))}
    except ValueError:
        return {"status": None}


def _time(key: str, document: Mapping[str, Any]) -> Fields:
    value = document.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e11:
        return {key: float(value)}
    return {key: None}


def _metadata(document: Mapping[str, Any]) -> Fields:
    return {"user_metadata": truncated(document, RUN_METADATA)}


def _inputs(document: Mapping[str, Any]) -> Fields:
    task_id, refs = document.get("task_id"), document.get("workflow_refs")
    options, metadata = document.get("task_options"), document.get("user_metadata")
    options = options if isinstance(options, dict) else {}
    retries, checkpoint = options.get("max_retries"), options.get("checkpoint")
    catches = options.get("catch_exceptions")
    upstream = None
    if isinstance(refs, list):  # an argument used twice is listed twice
        upstream = tuple(dict.fromkeys([it for it in refs if it and isinstance(it, str)]))
    return {
        "task_id": task_id if task_id and isinstance(task_id, str) else None,
        "upstream": upstream,
        "max_retries": retries if type(retries) is int and abs(retries) < 1 << 31 else None,
        "checkpoint": checkpoint if isinstance(checkpoint, bool) else None,
        "catch_exceptions": catches if isinstance(catches, bool) else None,
        "resources": _resources(options.get("ray_options")),
        "user_metadata": truncated(metadata, TASK_METADATA) if isinstance(metadata, dict) else {},
    }


def _resources(options: Any) -> Mapping[str, float]:
    """Return what a task asks Ray for; empty if its options cannot be read."""
    if not isinstance(options, dict):
        return NO_RESOURCES
    custom = options.get("resources")
    asked = {name: options.get(option) for name, option in _RESOURCE_OPTIONS.items()}
    if asked["CPU"] is None:
        asked["CPU"] = 1  # Ray's own default
    if isinstance(custom, dict):
        asked.update(custom)
    found = [
        (sys.intern(name), float(amount))
        for name, amount in asked.items()
        if isinstance(amount, (int, float)) and 0 < amount < 1e18 and _is_resource(name)
    ]
    return _shared(tuple(found[:_MAX_RESOURCES]))


def _is_resource(name: str) -> bool:
    # One that begins with "node:" chooses a node, and there may be as many as there are nodes.
    return is_text(name) and 0 < len(name) <= _MAX_NAME and not name.startswith("node:")


@lru_cache(maxsize=256)
def _shared(resources: tuple[tuple[str, float], ...]) -> Mapping[str, float]:
    return dict(resources)  # tasks of a stage ask for the same


def _output(field: str, document: Mapping[str, Any]) -> Fields:
    # Ray writes only the dynamic id when the returning task skipped its checkpoint.
    for key in ("output_task_id", "dynamic_output_task_id"):
        task_id = document.get(key)
        if task_id and isinstance(task_id, str):
            return {field: task_id}
    return {field: None}


RUN_FILES: Mapping[str, Content] = {
    META: Content(_status, ("status",)),
    RUN_STARTED: Content(partial(_time, "start_time"), ("start_time", "start_file_time")),
    "post_run_metadata.json": Content(partial(_time, "end_time"), ("end_time",)),
    "user_run_metadata.json": Content(_metadata, ("user_metadata",)),
    ENTRY: Content(partial(_output, "output_task_id"), ("output_task_id",)),
}

# user_task_metadata.json says again what inputs.json says; func_body.pkl and args.pkl are never
# opened, and of output.pkl only the size counts.
TASK_FILES: Mapping[str, Content] = {
    INPUTS: Content(
        _inputs,
        (
            *("task_id", "upstream", "max_retries", "checkpoint", "catch_exceptions"),
            *("resources", "user_metadata"),
        ),
    ),
    STARTED: Content(partial(_time, "start_time"), ("start_time", "start_file_time")),
    "post_task_metadata.json": Content(partial(_time, "end_time"), ("end_time",)),
    "outputs.json": Content(partial(_output, "continuation"), ("continuation",)),
    EXCEPTION: Content(
        lambda data: {"exception": read_exception(data)},
        ("exception", "exception_time"),
        limit=EXCEPTION_LIMIT,
        pickled=True,
    ),
}

_NAMES_IN_A_RUN = frozenset((TASKS, COUNTERS, OBJECTS, *RUN_FILES))
