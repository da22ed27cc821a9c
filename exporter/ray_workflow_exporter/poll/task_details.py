"""What only Ray knows: the node of a task, why its worker died, why a run stopped."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional

from ..model import Run, RunStatus, Task, TaskState, changed_tasks
from ..runs.failures import NO_RECORD, SUSPECT
from ..sources.manager.link import RayLink
from ..sources.records import LinkState, RayTaskDetail

logger = logging.getLogger(__name__)

_BATCH = 100  # tasks asked for at once
_PAUSE = 2.0  # seconds between two questions: the state API is not made for many
_TRIES = 5  # Ray reports the end of a task a second or more after it
_LONG_RUNNING = 2.0  # seconds: shorter tasks are gone before anyone asks where they run


class Details:
    """Asks the state API beside the polls, seldom, and keeps the answers by run."""

    def __init__(self, link: RayLink) -> None:
        self._link = link
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ray-state-api")
        self._asked: Optional[Future[Mapping[str, RayTaskDetail]]] = None
        self._owners: dict[str, tuple[str, str]] = {}  # Ray task id -> (run, task) asked for
        self._runs: dict[str, _Asked] = {}
        self._news: dict[str, set[str]] = {}
        self._next = 0.0
        self._stopped: dict[str, Optional[float]] = {}  # start of runs whose stop is unexplained
        self._explained: dict[str, int] = {}  # questions asked about each of these
        self._next_explaining = 0.0
        self._explaining: Optional[Future[Mapping[str, str]]] = None

    def explain_stop(self, workflow_id: str, start: Optional[float]) -> None:
        """Ask why a run that began at `start` is marked as running and is not held by Ray."""
        self._stopped[workflow_id] = start
        self._explained[workflow_id] = 0

    def stop_reasons(self, state: LinkState, now: float) -> Mapping[str, str]:
        """Return the reasons that came since the last call, and ask for those still unknown."""
        errors: Mapping[str, str] = {}
        if self._explaining is not None and self._explaining.done():
            errors, self._explaining = self._explaining.result(), None
        for workflow_id in list(self._stopped):
            if errors.get(workflow_id) or self._explained[workflow_id] >= _TRIES:
                del self._stopped[workflow_id], self._explained[workflow_id]
        idle = self._explaining is None and now >= self._next_explaining
        if idle and self._stopped and state is LinkState.UP:
            self._next_explaining = now + _PAUSE
            self._explained = {it: count + 1 for it, count in self._explained.items()}
            self._explaining = self._pool.submit(self._link.executor_errors, dict(self._stopped))
        return {workflow_id: _left_by_executor(error) for workflow_id, error in errors.items()}

    def of(self, workflow_id: str) -> Mapping[str, RayTaskDetail]:
        """Return what is known of a run's tasks, by Ray task id."""
        return self._runs[workflow_id].known if workflow_id in self._runs else {}

    def news(self, workflow_id: str) -> set[str]:
        """Return the tasks of a run that the last update learned something about."""
        return self._news.get(workflow_id, set())

    def update(self, runs: Iterable[Run], state: LinkState, now: float) -> Iterable[str]:
        """Take an answer that came, ask the next question; return the runs with news."""
        news = self._collect()
        if state is LinkState.UP and self._asked is None and now >= self._next:
            self._ask(runs, now)
        return news

    def close(self) -> None:
        """Ask nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _collect(self) -> Iterable[str]:
        if self._asked is None or not self._asked.done():
            return ()
        asked, self._asked = self._asked, None
        try:
            answer = asked.result()
        except Exception:
            # The state API is a help that workflows do without: no poll may fail with it.
            logger.debug("Ray's state API could not be asked.", exc_info=True)
            return ()
        news: defaultdict[str, set[str]] = defaultdict(set)
        for ray_task_id, detail in answer.items():
            workflow_id, task_id = self._owners[ray_task_id]
            run = self._runs.get(workflow_id)
            if run is not None and run.known.get(ray_task_id) != detail:
                run.known[ray_task_id] = detail
                news[workflow_id].add(task_id)
        self._news = dict(news)
        return list(news)

    def _ask(self, runs: Iterable[Run], now: float) -> None:
        owners: dict[str, tuple[str, str]] = {}
        held: dict[str, _Asked] = {}
        for run in runs:
            it = held[run.workflow_id] = self._runs.get(run.workflow_id) or _Asked()
            if run.status not in (RunStatus.RUNNING, RunStatus.FAILED):
                continue
            it.see(run)
            for task in it.open.values():
                if len(owners) >= _BATCH:
                    break
                ray_task_id = task.ray_task_id
                if ray_task_id and _is_due(task, now) and it.tries[ray_task_id] < _TRIES:
                    owners[ray_task_id] = (run.workflow_id, task.task_id)
                    it.tries[ray_task_id] += 1
        self._runs = held
        self._next = now + _PAUSE
        if owners:
            self._owners = owners
            self._asked = self._pool.submit(self._link.task_details, list(owners))


def _left_by_executor(error: str) -> str:
    cause = f": {error}" if error else "; the log of the management actor has the error."
    return f"Ray's workflow executor failed and left the run{cause}"


class _Asked:
    """What was asked and learned of one run. In `open` are tasks to be asked about."""

    def __init__(self) -> None:
        self.open: dict[str, Task] = {}
        self.tries: Counter[str] = Counter()  # questions, by Ray task id
        self.known: dict[str, RayTaskDetail] = {}
        self._seen: Mapping[str, Task] = {}

    def see(self, run: Run) -> None:
        """Take the run as it is now, at the cost of what changed."""
        if run.tasks is self._seen:
            return
        changed = changed_tasks(self._seen, run.tasks)
        if changed is None:
            self.open, changed = {}, list(run.tasks)
        for task_id in changed:
            task = run.tasks[task_id]
            if _left_no_record(task) or (task.state is TaskState.RUNNING and task.node_id is None):
                self.open[task_id] = task
            else:
                self.open.pop(task_id, None)
        self._seen = run.tasks


def _left_no_record(task: Task) -> bool:
    return task.failure is not None and task.failure.exception in (NO_RECORD, SUSPECT)


def _is_due(task: Task, now: float) -> bool:
    return _left_no_record(task) or (
        task.start_time is not None and now - task.start_time > _LONG_RUNNING
    )
