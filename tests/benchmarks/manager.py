"""The probe inside the management actor, over Ray's own state classes, against a full copy."""

from __future__ import annotations

import pickle
import statistics
import time
import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any

from ray_workflow_exporter.sources.manager.probe import probe

from .harness import Result, Row, at_most, duration, faster, in_a_row, size, times

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray says that its workflows are deprecated
    from ray.workflow.workflow_state import Task, TaskExecutionMetadata, WorkflowExecutionState

RUNS = 15


class Manager:
    """The fields of the WorkflowManagementActor that the probe reads, with one run.

    The run maps half of its tasks and lets each mapped one be followed by another; Ray submits
    all that are ready at once, so the running frontier is as wide as the map.
    """

    def __init__(self, tasks: int) -> None:
        self._running_workflows = {"orders"}
        self._executed_workflows: set[str] = set()
        self._max_running_workflows = self._max_pending_workflows = -1
        self.maps = [f"__main__.transform_{n}" for n in range(tasks // 2)]
        self.writes = [f"__main__.write_{n}" for n in range(tasks // 2)]
        self.state = WorkflowExecutionState(output_task_id=self.writes[-1])
        self._futures: dict[str, Any] = {}
        self._done = 0
        options = SimpleNamespace(max_retries=3, checkpoint=True, catch_exceptions=False)
        for task_id in (*self.maps, *self.writes):
            self.state.tasks[task_id] = Task(task_id, options, {}, None)
        for before, after in zip(self.maps, self.writes):
            self.state.add_dependencies(before, [])
            self.state.add_dependencies(after, [before])
        for task_id in self.maps:
            self._submit(task_id)
        self._workflow_executors = {"orders": SimpleNamespace(_state=self.state)}

    def step(self, changes: int) -> None:
        """Let tasks finish and as many others be submitted, as Ray's executor does."""
        for _ in range(changes // 2):
            done, begun = self.maps[self._done], self.writes[self._done]
            self._done += 1
            self.state.pop_running_frontier(self._futures.pop(done))
            self.state.task_execution_metadata[done].finish_time = time.time()
            self.state.done_tasks.add(done)
            self._submit(begun)

    def _submit(self, task_id: str) -> None:
        number = f"{hash(task_id) & (1 << 64) - 1:016x}{'ff' * 12}01000000"  # as Ray builds them
        ref = SimpleNamespace(task_id=lambda: SimpleNamespace(hex=lambda: number))
        future = self._futures[task_id] = object()
        self.state.insert_running_frontier(future, SimpleNamespace(task_id=task_id, ref=ref))
        self.state.task_execution_metadata[task_id] = TaskExecutionMetadata(time.time())


def full_copy(manager: Manager) -> list[Any]:
    """Return the same facts of every task: what a client without a cursor has to ask for."""
    state = manager.state
    rows = []
    for task_id, task in list(state.tasks.items()):
        known = state.task_execution_metadata.get(task_id)
        rows.append(
            (
                task_id,
                list(state.upstream_dependencies.get(task_id, ())),
                task.options.max_retries,
                task.options.checkpoint,
                task.options.catch_exceptions,
                known.submit_time if known else None,
                known.finish_time if known else None,
                task_id in state.running_frontier_set,
                task_id in state.done_tasks,
            )
        )
    return rows


class Watched:
    """A client that has seen all of a run, and polls it after each step."""

    def __init__(self, tasks: int) -> None:
        self.manager = Manager(tasks)
        self.seq = 0
        self.answers: list[tuple[Any, ...]] = []
        more = True
        while more:
            self.poll()
            more = self.answers[-1][3]

    def poll(self) -> None:
        answer = probe(self.manager, "benchmark", self.seq)
        assert answer[0] == "ok", answer
        self.answers.append(answer)
        self.seq = answer[2]


def measure() -> Result:
    result = Result()
    for tasks, changes, limit, most in (
        (100_000, 200, 0.008, 12_000),
        (100_000, 0, None, None),
        (1_000, 20, 0.0001, None),
        (1_000, 200, None, None),
        (1_000, 0, None, None),
    ):
        watched = Watched(tasks)
        watched.answers.clear()
        runs = RUNS if changes < tasks // 10 else 4
        ours = in_a_row(watched.poll, partial(watched.manager.step, changes), runs)
        full = in_a_row(partial(full_copy, watched.manager), lambda: None, RUNS)
        sizes = [len(pickle.dumps(answer, 5)) for answer in watched.answers]
        for answer in watched.answers:
            assert sum(len(run[5][0]) for run in answer[6]) == changes
        copied = len(pickle.dumps(full_copy(watched.manager), 5))
        name = f"probe in the actor, {tasks:,} tasks, {tasks // 2:,} submitted, {changes} changed"
        mine, peer = statistics.median(ours), statistics.median(full)
        sent = statistics.median(sizes)
        goals = [at_most(mine, limit, duration)] if limit else []
        result.rows.append(
            Row(name, duration(mine), f"full copy: {duration(peer)}", faster(mine, peer), goals)
        )
        if changes == 200 and most:
            result.rows.append(
                Row(
                    f"its answer, {changes} changed",
                    size(sent),
                    f"full copy: {size(copied)}",
                    f"{times(copied / sent)} less",
                    [at_most(sent, most, size)],
                )
            )
    result.notes.append(
        "The probe runs over Ray's own state classes, filled by hand; answers are measured as "
        "pickles. A full copy holds the same facts of every task."
    )
    return result
