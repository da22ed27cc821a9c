"""Count the functions between a task in storage and its line in /metrics.

    PYTHONPATH=tests python -m benchmarks.way_of_a_task

One storage-only poll and scrape of a FAILED run with two tasks. Prints our functions in the order
of their first call, room by room. "The way of the task" are those whose arguments or result hold
data of the task. The samplers, one or more for each family, count apart, and so do functions of
which only a part runs there: comprehensions and generator expressions. `model.py` is the
vocabulary of all rooms and none of them: what runs there counts, but is not listed as a room.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import tempfile
import threading
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray_workflow_exporter
from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.settings.settings import Settings
from support.trees import StorageTree

PACKAGE = Path(ray_workflow_exporter.__file__).parent
TASK = "needle"  # a word that stands in all data of the task, and nowhere else
T0 = 1_700_000_000.0
_DEPTH = 6  # of containers within containers that are searched for it


class Function(NamedTuple):
    """One function of ours, by its file below the package and its qualified name."""

    file: str
    name: str

    @property
    def room(self) -> str:
        """The folder of the package, or the file itself where it stands in none."""
        path = Path(self.file)
        return str(path.parent) if len(path.parts) > 1 else path.stem

    @property
    def is_sampler(self) -> bool:
        """Whether it belongs to the rows of families."""
        return self.file.startswith(("metrics/families/", "metrics/samplers.py"))


class Trace:
    """The functions that ran, and those that held the task, in the order of their first call."""

    def __init__(self) -> None:
        self.on = False
        self.all: dict[Function, None] = {}
        self.held: dict[Function, None] = {}

    def on_event(self, frame: types.FrameType, event: str, result: Any) -> None:
        """Take one event of `sys.setprofile`."""
        code = frame.f_code
        ours = self.on and code.co_filename.startswith(str(PACKAGE))
        if not ours or event not in ("call", "return"):
            return
        if code.co_name in ("<module>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"):
            return  # parts of the function in which they stand
        # A name with its class, from Python 3.11 on; the families have a lambda each.
        name = getattr(code, "co_qualname", code.co_name)
        if name.endswith("<lambda>"):
            name += f" in line {code.co_firstlineno}"
        if name == code.co_name and "self" in frame.f_locals:
            name = f"{type(frame.f_locals['self']).__name__}.{name}"
        function = Function(str(Path(code.co_filename).relative_to(PACKAGE)), name)
        if event == "call":
            self.all.setdefault(function)
        if function not in self.held:
            starred = (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS)
            variable = len([it for it in starred if code.co_flags & it])
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + variable]
            values = [frame.f_locals.get(it) for it in names if it in frame.f_locals]
            if holds_task([*values, result]):
                self.held[function] = None


def holds_task(value: Any, depth: int = _DEPTH) -> bool:
    """Whether data of the task stands in a value: in text, a container or a dataclass."""
    if isinstance(value, str):
        return TASK in value
    if isinstance(value, (bytes, bytearray)):
        return TASK.encode() in value
    if depth == 0:
        return False
    if isinstance(value, Mapping):
        return any(holds_task(it, depth - 1) for pair in list(value.items()) for it in pair)
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(holds_task(it, depth - 1) for it in list(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = (getattr(value, it.name, None) for it in dataclasses.fields(value))
        return any(holds_task(it, depth - 1) for it in values)
    return False


def trace() -> Trace:
    """Trace one poll and one scrape."""
    with tempfile.TemporaryDirectory() as folder:
        tree = StorageTree(folder)
        run = tree.run("run", {"workflow": "etl"}).status("RUNNING", T0)
        run.task("first").task(TASK, "first").entry(TASK)
        run.succeed("first", T0, T0 + 1).start(TASK, T0 + 1).fail(TASK, ValueError("no"))
        run.status("FAILED", T0 + 2)
        found = Trace()
        threading.setprofile(found.on_event)  # first: storage is read in a thread of its own
        exporter = Exporter(
            Settings(address="none", storage=folder, finished_retention=50 * 365 * 86_400.0)
        )
        sys.setprofile(found.on_event)
        found.on = True
        try:
            exporter.poll_once()
            body = b"".join(exporter.metrics())
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
            exporter.close()
    assert f'task_failure_info{{workflow_id="run",task_id="{TASK}"'.encode() in body
    return found


def rooms(functions: Iterable[Function]) -> list[str]:
    """List the rooms in order; one that is entered again stands there again."""
    order: list[str] = []
    for function in functions:
        if function.room not in ("model", *order[-1:]):
            order.append(function.room)
    return order


def main() -> None:
    """Print the functions and the counts."""
    found = trace()
    room = ""
    for function in found.all:
        if function.room != room:
            room = function.room
            print(room)
        mark = "*" if function in found.held else " "
        print(f"  {mark} {function.file}: {function.name}")
    named = [it for it in found.all if not it.is_sampler]
    way = [it for it in named if it in found.held]
    print(f"\nAll functions: {len(named)}, and {len(found.all) - len(named)} samplers")
    print(f"On the way of the task (*): {len(way)}")
    print(f"Rooms in order: {' -> '.join(rooms(way))}")
    for name in dict.fromkeys(it.room for it in found.all):
        whole = sum(it.room == name for it in named)
        print(f"  {name}: {whole}, of which {sum(it.room == name for it in way)} on the way")


if __name__ == "__main__":
    main()
