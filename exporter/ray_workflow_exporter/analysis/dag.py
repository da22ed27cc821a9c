"""The shape of a run: what depends on what, across arguments and continuations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from ..model import Edge, EdgeKind, Task


def layers(nodes: Collection[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the depth of each node: one more than that of the deepest node that leads to it.

    Nodes without a source have depth 0. A cycle is cut where it leads back to the node at which it
    was entered, the first of `nodes` if nothing else leads into it; only such edges do not go
    from a lower to a higher depth. `nodes` holds both ends of every edge.
    """
    targets: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in edges:
        if source != target:
            targets[source].append(target)
    order: list[str] = []  # each node after all that it leads to
    seen: set[str] = set()
    for root in nodes:
        stack = [] if root in seen else [(root, iter(targets[root]))]
        seen.add(root)
        while stack:
            node, following = stack[-1]
            unseen = next((it for it in following if it not in seen), None)
            if unseen is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(unseen)
                stack.append((unseen, iter(targets[unseen])))
    depths = dict.fromkeys(nodes, 0)
    placed: set[str] = set()
    for node in reversed(order):
        placed.add(node)
        for target in targets[node]:
            if target not in placed:
                depths[target] = max(depths[target], depths[node] + 1)
    return depths


class Dag:
    """The dependencies among the known tasks of one run.

    Made in linear time and without recursion, at the cost of what is new in the run. Nothing relies
    on the absence of cycles: half-read or overwritten storage can hold any.
    """

    def __init__(self) -> None:
        self.upstream: dict[str, tuple[str, ...]] = {}  # of every task: known, distinct, not itself
        self.entries: dict[str, tuple[str, ...]] = {}  # of a continuation: where its sub-DAG begins
        self.creators: dict[str, str] = {}  # task -> the task that returned the sub-DAG it is in
        # Every dependency once. A data edge goes from each upstream task to its consumer, a
        # continuation edge from the task that returned a workflow to each task of it that depends
        # on nothing. Those of tasks are in the order of the tasks, those of stages in none.
        self.task_edges: tuple[Edge, ...] = ()
        self.stage_edges: dict[tuple[str, str, EdgeKind], Edge] = {}
        self._edges: dict[str, tuple[Edge, ...]] = {}
        self._unknown: set[str] = set()  # ids that tasks name and that are no known task

    def grow(
        self, before: Mapping[str, Task], tasks: Mapping[str, Task], changed: Collection[str]
    ) -> bool:
        """Take in what changed since `before`: new tasks at the end, and new continuations.

        Returns whether that was possible; if not, the Dag is of no more use. An empty Dag takes in
        all tasks (`before` is empty, `changed` are all).
        """
        new, continued = [], []
        for task_id in changed:
            task, was = tasks[task_id], before.get(task_id)
            if was is None:
                if task_id in self._unknown:
                    return False
                new.append(task_id)
            elif task.upstream != was.upstream or task.stage != was.stage:
                return False
            elif task.continuation != was.continuation:
                if was.continuation is not None:
                    return False
                continued.append(task_id)
        for task_id in new:
            named = tasks[task_id].upstream
            known = tuple([up for up in dict.fromkeys(named) if up in tasks and up != task_id])
            if len(known) < len(named):
                self._unknown.update(up for up in named if up not in tasks)
            self.upstream[task_id] = known if known != named else named
        continued += [task_id for task_id in new if tasks[task_id].continuation is not None]
        alone = [self._enter(tasks, it, tasks[it].continuation or "") for it in continued]
        if before and not all(alone):
            return False  # which sub-DAG comes first depends on the order of all tasks
        found = False
        for task_id in dict.fromkeys([*new, *continued]):  # in the order of the tasks
            edges = [Edge(source, task_id, EdgeKind.DATA) for source in self.upstream[task_id]]
            for entry in self.entries.get(task_id, ()):
                edges.append(Edge(task_id, entry, EdgeKind.CONTINUATION))
            for edge in edges:
                ends = (tasks[edge.source].stage, tasks[edge.target].stage, edge.kind)
                if ends not in self.stage_edges and ends[0] != ends[1]:
                    self.stage_edges[ends] = Edge(*ends)
            found = found or bool(edges)
            self._edges[task_id] = tuple(edges)
        if found:
            self.task_edges = tuple(chain.from_iterable(self._edges.values()))
        return True

    def _enter(self, tasks: Mapping[str, Task], task_id: str, output: str) -> bool:
        """Find the sub-DAG that a task returned; return whether no other one holds a part of it."""
        if output not in tasks:
            self._unknown.add(output)
            return True
        if output == task_id:
            return True
        alone = True
        first = []
        reached = [output]
        while reached:
            current = reached.pop()
            # A task belongs to the first sub-DAG that reaches it: in Ray no other one does
            # (arguments of a continuation are values by then), and so no task is visited twice.
            creator = self.creators.get(current)
            alone = alone and creator in (None, task_id)
            if current == task_id or creator is not None:
                continue
            self.creators[current] = task_id
            if self.upstream[current]:
                reached.extend(self.upstream[current])
            else:
                first.append(current)
        self.entries[task_id] = tuple(first) or (output,)
        return alone
