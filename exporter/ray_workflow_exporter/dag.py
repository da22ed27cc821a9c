"""The shape of a run: what depends on what, across arguments and continuations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .model import Edge, EdgeKind, Run, Task


@dataclass(frozen=True)
class Dag:
    """The dependencies among the known tasks of one run; all ids are keys of `run.tasks`.

    Made in linear time and without recursion. Nothing relies on the absence of cycles: half-read
    or overwritten storage can hold any.
    """

    upstream: Mapping[str, tuple[str, ...]]  # of every task: known, distinct, never itself
    entries: Mapping[str, tuple[str, ...]]  # of a task's continuation: where its sub-DAG begins
    creators: Mapping[str, str]  # task -> the task that returned the sub-DAG which holds it

    @classmethod
    def of(cls, run: Run) -> Dag:
        """Read the dependencies of a run."""
        tasks = run.tasks
        upstream = {
            task_id: tuple(
                dict.fromkeys(up for up in task.upstream if up in tasks and up != task_id)
            )
            for task_id, task in tasks.items()
        }
        entries: dict[str, tuple[str, ...]] = {}
        creators: dict[str, str] = {}
        for task_id, task in tasks.items():
            output = task.continuation
            if output is None or output not in tasks or output == task_id:
                continue
            # A task belongs to the first sub-DAG that reaches it: in Ray no other one does
            # (arguments of a continuation are values by then), and so no task is visited twice.
            first = []
            reached = [output]
            while reached:
                current = reached.pop()
                if current == task_id or current in creators:
                    continue
                creators[current] = task_id
                if upstream[current]:
                    reached.extend(upstream[current])
                else:
                    first.append(current)
            entries[task_id] = tuple(first) or (output,)
        return cls(upstream, entries, creators)

    def edges(self) -> tuple[Edge, ...]:
        """List every dependency once, in the order of the tasks."""
        edges = []
        for task_id, sources in self.upstream.items():
            edges += [Edge(source, task_id, EdgeKind.DATA) for source in sources]
            edges += [
                Edge(task_id, entry, EdgeKind.CONTINUATION)
                for entry in self.entries.get(task_id, ())
            ]
        return tuple(edges)


def continuation_ends(tasks: Mapping[str, Task]) -> dict[str, str]:
    """Map each task with a continuation to the task whose end was its end.

    A consumer of a task waits for the last continuation of its continuations. One that did not
    finish is not waited for: its exception was caught (`catch_exceptions`).
    """
    ends: dict[str, str] = {}
    for task_id, task in tasks.items():
        if task.continuation is None:
            continue
        chain = []
        current = task_id
        while current not in ends:
            ends[current] = current  # also stops a cycle
            chain.append(current)
            following = tasks[current].continuation
            if following is None or following not in tasks or not tasks[following].state.finished:
                break
            current = following
        end = ends[current]
        ends.update(dict.fromkeys(chain, end))
    return ends
