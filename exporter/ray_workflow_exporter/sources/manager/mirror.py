"""A copy of what the WorkflowManagementActor holds, kept up to date by the probe's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...model import RunStatus
from ..records import EndedLife, LinkCause, LinkState, LiveRun, LiveTask, ManagerView


@dataclass
class _Draft:
    """A run while the answers of one poll are applied; what it replaces stays as it is."""

    run: LiveRun
    tasks: dict[str, LiveTask]
    before: Mapping[str, LiveTask]
    retries: Mapping[str, LiveTask]  # an earlier copy of this life, for numbers Ray has dropped
    touched: set[str] = field(default_factory=set)
    named: list[str] = field(default_factory=list)

    def change(self, task_id: str, **values: Any) -> None:
        self.tasks[task_id] = self.tasks.get(task_id, _BY_NAME_ONLY)._replace(**values)
        self.touched.add(task_id)

    def finish(self) -> LiveRun:
        for task_id in self.named:
            if task_id not in self.tasks:
                self.change(task_id)
        changed = [task for task in self.touched if self.tasks[task] != self.before.get(task)]
        return replace(self.run, tasks=self.tasks, changed=frozenset(changed))


_BY_NAME_ONLY = LiveTask()


class Mirror:
    """Turns replies of `ManagerClient.poll` into views. `seq` names the last answer applied."""

    def __init__(self) -> None:
        self.seq = 0
        self._runs: dict[str, LiveRun] = {}
        self._lives: dict[str, int] = {}
        self._ended: dict[str, EndedLife] = {}  # since the last view with runs
        self._unseen = False  # since then
        self._limits: Sequence[int] = (-1, -1)
        self._ray = ManagerView(LinkState.UNREACHABLE)  # what is known of Ray, without runs
        self._continues = False  # whether the last view showed the runs, so `changed` builds on it

    def read(self, reply: Mapping[str, Any]) -> ManagerView:
        """Apply one reply: its state, its reason, and answers of `probe` as lists or tuples."""
        self._ray = replace(self._ray, **reply["ray"])
        # Whatever the state is, answers that came must not be lost: the WMA sends them once.
        self._apply(reply["answers"])
        state = LinkState(reply["state"])
        if state is not LinkState.UP:
            if state is LinkState.ABSENT:
                self._forget()
            return self.without_runs(state, LinkCause(reply["cause"]), reply["reason"])
        if not self._continues:
            self._runs = {
                workflow_id: replace(run, changed=frozenset(run.tasks))
                for workflow_id, run in self._runs.items()
            }
        self._continues = True
        running_limit, pending_limit = self._limits
        ended, self._ended = self._ended, {}
        unseen, self._unseen = self._unseen, False
        return replace(
            self._ray,
            state=state,
            ended=ended,
            unseen=unseen,
            runs=dict(self._runs),
            running_limit=running_limit if running_limit >= 0 else None,
            # Ray makes a `queue.Queue` of this size: one of 0 takes any number.
            pending_limit=pending_limit if pending_limit > 0 else None,
        )

    def without_runs(self, state: LinkState, cause: LinkCause, reason: str) -> ManagerView:
        """Return a view that knows no runs; in the next one that does, all counts as changed."""
        self._continues = False
        return replace(self._ray, state=state, cause=cause, reason=reason)

    def _forget(self) -> None:
        self.seq = 0
        self._runs.clear()
        self._lives.clear()

    def _apply(self, answers: Sequence[Sequence[Any]]) -> None:
        earlier, earlier_lives = dict(self._runs), dict(self._lives)
        for workflow_id, run in self._runs.items():
            if run.changed:
                self._runs[workflow_id] = replace(run, changed=frozenset())
        drafts: dict[str, _Draft] = {}
        for base, seq, _more, limits, ended, unseen, runs in answers:
            if base == 0:
                drafts.clear()
                self._forget()
            elif base != self.seq:
                # An answer went missing: seq 0 makes the next poll start over.
                self.seq = 0
                break
            self.seq, self._limits = seq, limits
            self._unseen = self._unseen or base == 0 or unseen > 0
            for workflow_id, succeeded, end_time in ended:
                status = RunStatus.SUCCESSFUL if succeeded else RunStatus.FAILED
                self._ended[workflow_id] = EndedLife(status, end_time if succeeded else None)
                self._runs.pop(workflow_id, None)
                self._lives.pop(workflow_id, None)
                drafts.pop(workflow_id, None)
            for workflow_id, first, queued, about, *news in runs:
                if first:
                    output_task_id, resumed, life = about
                    same_life = earlier_lives.get(workflow_id) == life
                    self._lives[workflow_id] = life
                    run = LiveRun(workflow_id, queued, output_task_id, resumed, life=life)
                    retries = earlier[workflow_id].tasks if same_life else {}
                    drafts[workflow_id] = _Draft(run, {}, {}, retries)
                elif workflow_id not in drafts:
                    run = self._runs[workflow_id]
                    drafts[workflow_id] = _Draft(run, dict(run.tasks), run.tasks, {})
                draft = drafts[workflow_id]
                draft.run = replace(draft.run, queued=queued)
                _add(draft, *news)
        for workflow_id, draft in drafts.items():
            self._runs[workflow_id] = draft.finish()


def _add(
    draft: _Draft,
    tasks: Sequence[Any],
    rows: Sequence[Any],
    continuations: Sequence[Any],
    retries: Sequence[Any],
    ray_task_ids: Sequence[Any],
    sizes: Sequence[Any],
) -> None:
    for task_id, upstream, max_retries, checkpoint, catch_exceptions in tasks:
        draft.change(
            task_id,
            upstream=tuple(upstream),
            max_retries=max_retries,
            checkpoint=checkpoint,
            catch_exceptions=catch_exceptions,
        )
        draft.named.extend(upstream)
        if task_id in draft.retries:
            draft.change(task_id, retries=draft.retries[task_id].retries)
    for task_id, submit_time, finish_time, running, done in zip(*rows):
        draft.change(
            task_id, submit_time=submit_time, finish_time=finish_time, running=running, done=done
        )
    for task_id, continuation in continuations:
        draft.change(task_id, continuation=continuation)
        draft.named.append(continuation)
    for task_id, count in retries:
        # Ray drops the number when the task succeeds: the highest one seen stays true.
        known = draft.tasks.get(task_id, _BY_NAME_ONLY).retries
        draft.change(task_id, retries=max(known, count))
    for tail, task_ids, numbers in ray_task_ids:
        for task_id, number in zip(task_ids, numbers):
            draft.change(task_id, ray_task_id=f"{number:016x}{tail}")
    for task_id, size in sizes:
        draft.change(task_id, output_bytes=size)
