"""A management actor without Ray: Ray's own state classes, driven as its executor drives them."""

from __future__ import annotations

import json
import time
import warnings
from types import SimpleNamespace
from typing import Any, Optional

from ray_workflow_exporter.sources.manager import probe
from ray_workflow_exporter.sources.manager.mirror import Mirror
from ray_workflow_exporter.sources.records import ManagerView

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray says that its workflows are deprecated
    from ray.workflow.workflow_state import (
        Task,
        TaskExecutionMetadata,
        WorkflowExecutionState,
    )


def ray_task_id(number: int) -> str:
    """Return an id as Ray makes them: what tells the task, an actor that is none, the job."""
    return f"{number:016x}{'ff' * 12}01000000"


class FakeManager:
    """The fields of the WorkflowManagementActor that the probe reads."""

    def __init__(self) -> None:
        self._workflow_executors: dict[str, Any] = {}
        self._running_workflows: set[str] = set()
        self._executed_workflows: set[str] = set()
        self._max_running_workflows = self._max_pending_workflows = -1


class Script:
    """One run; each method does to its state what one step of Ray's executor does."""

    def __init__(self, manager: FakeManager, workflow_id: str, dag: dict[str, list[str]]) -> None:
        self.state = WorkflowExecutionState(output_task_id=next(reversed(dag)))
        self.attempts = 0
        self.add(dag)
        manager._running_workflows.add(workflow_id)
        manager._workflow_executors[workflow_id] = SimpleNamespace(_state=self.state)

    def add(self, dag: dict[str, list[str]], name: Optional[str] = None) -> None:
        for task_id, upstream in dag.items():
            options = SimpleNamespace(max_retries=3, checkpoint=True, catch_exceptions=False)
            task = Task(task_id if name is None else name, options, {}, None)
            self.state.tasks[task_id] = task
            self.state.add_dependencies(task_id, upstream)

    def submit(self, task_id: str) -> None:
        self.attempts += 1
        number = ray_task_id(self.attempts)
        ref = SimpleNamespace(task_id=lambda: SimpleNamespace(hex=lambda: number))
        output = SimpleNamespace(task_id=task_id, ref=ref)
        self.state.insert_running_frontier(object(), output)
        self.state.task_execution_metadata[task_id] = TaskExecutionMetadata(float(self.attempts))

    def pop(self, task_id: str) -> None:
        future = next(f for f, o in self.state.running_frontier.items() if o.task_id == task_id)
        self.state.pop_running_frontier(future)

    def fail(self, task_id: str) -> None:
        self.pop(task_id)
        self.state.task_retries[task_id] += 1

    def finish(self, task_id: str) -> None:
        self.pop(task_id)
        self.state.task_execution_metadata[task_id].finish_time = time.time()
        self.state.task_retries.pop(task_id, None)
        self.state.done_tasks.add(self.state.continuation_root.get(task_id, task_id))

    def catch(self, task_id: str) -> None:
        self.pop(task_id)
        self.state.done_tasks.add(self.state.continuation_root.get(task_id, task_id))

    def continue_as(self, task_id: str, dag: dict[str, list[str]]) -> None:
        self.pop(task_id)
        self.state.task_execution_metadata[task_id].finish_time = time.time()
        self.add(dag)
        self.state.append_continuation(task_id, next(reversed(dag)))


class Client:
    """A client of the fake WMA: a mirror fed as the link feeds it, through JSON."""

    def __init__(self, manager: FakeManager, client_id: str) -> None:
        self.manager, self.client_id, self.mirror = manager, client_id, Mirror()
        self.answers: list[Any] = []

    def poll(self) -> ManagerView:
        self.answers, seq, more = [], self.mirror.seq, True
        while more:
            word, *answer = probe.probe(self.manager, self.client_id, seq)
            assert word == "ok", answer
            self.answers.append(answer)
            _, seq, more, *_ = answer
        reply = {"state": "up", "reason": "", "answers": self.answers, "ray": {}}
        return self.mirror.read(json.loads(json.dumps(reply)))


def items(run: Any) -> int:
    """Return how many tasks and rows an answer tells of a run."""
    tasks, rows = run[4:6]
    return len(tasks) + (len(rows[0]) if rows else 0)
