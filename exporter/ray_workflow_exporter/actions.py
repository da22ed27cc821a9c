"""Cancel, resume and delete runs: what is possible in which state, and with what outcome."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from typing import Callable, Optional

from .model import Run, RunStatus, TaskState
from .sources.records import LinkCause, LinkState, ManagerView
from .sources.storage.layout import MARKS, clean

KEPT = 1000  # actions, and their idempotency keys
_THREADS = 2

# Written at any log level.
audit = logging.getLogger("ray_workflow_exporter.audit")
audit.setLevel(logging.INFO)


class Verb(str, Enum):
    """What can be done to a run, or to all."""

    CANCEL = "cancel"
    RESUME = "resume"
    DELETE = "delete"
    RESUME_ALL = "resume-all"


class ActionState(str, Enum):
    """The state of an action."""

    RUNNING = "RUNNING"
    WAITING = "WAITING"  # for a queued run to start
    SUCCEEDED = "SUCCEEDED"
    REFUSED = "REFUSED"  # not possible in the state that Ray reported: nothing was done
    FAILED = "FAILED"

    @property
    def finished(self) -> bool:
        """Whether its outcome is known."""
        return self in FINISHED


FINISHED = (ActionState.SUCCEEDED, ActionState.REFUSED, ActionState.FAILED)


@dataclass(frozen=True)
class Order:
    """A requested action; `workflow_id` is None for RESUME_ALL."""

    verb: Verb
    workflow_id: Optional[str]
    by: str
    when_started: bool = False  # cancel a queued run as soon as it starts
    start_manager: bool = False  # if Ray has no management actor
    max_running_workflows: Optional[int] = None  # of a newly started management actor


@dataclass(frozen=True)
class Outcome:
    """The outcome of an action for one run."""

    workflow_id: str
    state: ActionState
    detail: str


@dataclass(frozen=True)
class Action:
    """An order and its outcome. Times are Unix seconds."""

    id: str
    order: Order
    requested_at: float
    state: ActionState = ActionState.RUNNING
    detail: Optional[str] = None
    finished_at: Optional[float] = None
    outcomes: tuple[Outcome, ...] = ()  # of RESUME_ALL, one for each run


class Refusal(str, Enum):
    """Why an order is refused."""

    UNKNOWN = "unknown"  # there is no such run
    STATE = "state"  # it makes no sense in the run's state
    BUSY = "busy"  # another action on the run is under way
    KEY = "key"  # the key stands for another order
    UNAVAILABLE = "unavailable"  # Ray cannot be asked


class RefusedError(Exception):
    """Says in a sentence why an order is refused."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal


def objection(order: Order, run: Run) -> Optional[str]:
    """Return why an order is not possible for a run as it is now, None if it is."""
    status, live = run.status, run.status in (RunStatus.RUNNING, RunStatus.PENDING)
    if order.verb is Verb.CANCEL and status.finished:
        return f"It is {status.value} already: there is nothing to cancel."
    if order.verb is Verb.CANCEL and status is RunStatus.PENDING and not order.when_started:
        return (
            "The run is queued, and Ray cannot cancel a queued run. Use `when_started: true` to "
            "cancel it as soon as it starts."
        )
    if order.verb is Verb.RESUME and live:
        return f"It is {status.value}: there is nothing to resume."
    if order.verb is Verb.RESUME and status is RunStatus.SUCCESSFUL:
        return "It is SUCCESSFUL: a resume would only overwrite its times."
    if order.verb is Verb.DELETE and live:
        return f"It is {status.value}: cancel it first."
    if order.verb is Verb.DELETE and any(
        task.state is TaskState.RUNNING for task in run.tasks.values()
    ):
        return "Tasks of the run still write into its folder: delete it when they have ended."
    return None


def applicable(run: Run) -> list[Verb]:
    """List the actions that are possible for a run as it is now."""
    orders = (Order(verb, run.workflow_id, "", when_started=True) for verb in SINGLE)
    return [order.verb for order in orders if objection(order, run) is None]


SINGLE = (Verb.CANCEL, Verb.RESUME, Verb.DELETE)


_START_MANAGER = (
    "Call `ray.workflow.init` in a program of yours, which sets the actor's limits, or let this "
    "action start one: add `--start-manager` to the command, or `start_manager: true` to the "
    "request."
)


def _folder_objection(order: Order, ids: Collection[str]) -> Optional[str]:
    """Return why a run's folder must not be touched: Ray uses any id as a path, unchecked."""
    workflow_id = order.workflow_id or ""
    reserved = MARKS.rpartition("/")[2]
    if clean(workflow_id, backslash_divides=False) != workflow_id or (
        workflow_id.split("/")[0] == reserved
    ):
        return "The id is not a plain name: Ray would use the folder of other runs for it."
    inside = [other for other in ids if other.startswith(workflow_id + "/")]
    if order.verb is Verb.DELETE and inside:
        return f"{len(inside)} other runs are in its folder, as {inside[0]!r}: delete them first."
    return None


class Actions:
    """Takes orders, carries them out in threads, and keeps the newest.

    `act` is `RayLink.act`; `find` and `ids` read the catalog; `count` counts an action's result;
    `manager` returns the state of Ray's management actor. All methods may be called from any
    thread.
    """

    def __init__(
        self,
        act: Callable[..., tuple[str, str]],
        find: Callable[[str], Optional[Run]],
        ids: Callable[[], Sequence[str]],
        count: Callable[[str, str], None],
        manager: Callable[[], ManagerView],
    ) -> None:
        self._act, self._find, self._ids = act, find, ids
        self._count, self._manager = count, manager
        self._lock = threading.Lock()
        self._actions: dict[str, Action] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._busy: dict[str, str] = {}  # run -> action
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="action")

    def order(self, order: Order, key: Optional[str] = None) -> Action:
        """Take an order. The same order with the same key returns the first one's action.

        Raises RefusedError.
        """
        with self._lock:
            known = self._keys.get((order.by, key)) if key is not None else None
            if known is not None and known in self._actions:
                action = self._actions[known]
                if action.order != order:
                    raise RefusedError(
                        Refusal.KEY, "This `Idempotency-Key` was used before, for another request."
                    )
                return action
            try:
                self._check(order)
            except RefusedError as error:
                self._log(order, f"refused: {error}")
                self._count_result(order.verb, "refused")
                raise
            action = Action(secrets.token_hex(8), order, time.time())
            self._remember(action, key)
        self._log(order, f"accepted as {action.id}")
        self._pool.submit(self._carry_out, action)
        return action

    @property
    def lacks_manager(self) -> bool:
        """Whether Ray has no management actor, so that an order must start one."""
        manager = self._manager()
        return manager.state is LinkState.ABSENT and manager.cause is not LinkCause.NO_STORAGE

    @property
    def obstacle(self) -> Optional[str]:
        """Return why Ray cannot carry out any action now, None if it can."""
        manager = self._manager()
        if manager.cause is LinkCause.NO_STORAGE:
            return manager.reason
        if manager.state in (LinkState.UP, LinkState.ABSENT):
            return None
        return f"Ray cannot be reached. {manager.reason}"

    def deny(self, verb: Verb) -> None:
        """Count an order whose caller is not allowed to give it."""
        self._count_result(verb, "denied")

    def get(self, action_id: str) -> Optional[Action]:
        """Return an action by its id."""
        return self._actions.get(action_id)

    def newest(self) -> list[Action]:
        """Return all actions that are kept, newest first."""
        with self._lock:
            return list(reversed(self._actions.values()))

    def retry_waiting(self) -> None:
        """Ask for the outcome of actions whose queued run has started. Called after each poll."""
        with self._lock:
            waiting = [it for it in self._actions.values() if it.state is ActionState.WAITING]
            ready = []
            for action in waiting:
                run = self._find(action.order.workflow_id or "")
                if run is None or run.status is not RunStatus.PENDING:
                    ready.append(action)
                    self._actions[action.id] = replace(action, state=ActionState.RUNNING)
        for action in ready:
            self._pool.submit(self._carry_out, action)

    def close(self) -> None:
        """Take no more orders. Those in progress continue in Ray."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, order: Order) -> None:
        if self.lacks_manager and not order.start_manager:
            raise RefusedError(Refusal.STATE, f"{self._manager().reason} {_START_MANAGER}")
        obstacle = self.obstacle
        if obstacle is not None:
            raise RefusedError(Refusal.UNAVAILABLE, obstacle)
        if order.workflow_id is None:
            return
        run = self._find(order.workflow_id)
        if run is None:
            raise RefusedError(Refusal.UNKNOWN, "There is no workflow with this id.")
        if order.workflow_id in self._busy:
            raise RefusedError(
                Refusal.BUSY,
                f"Another action on this run is in progress: {self._busy[order.workflow_id]}.",
            )
        reason = objection(order, run) or _folder_objection(order, self._ids())
        if reason is not None:
            raise RefusedError(Refusal.STATE, reason)

    def _remember(self, action: Action, key: Optional[str]) -> None:
        ended = [it.id for it in self._actions.values() if it.state.finished]
        for action_id in ended[: max(0, len(self._actions) + 1 - KEPT)]:
            del self._actions[action_id]
        self._actions[action.id] = action
        if len(self._keys) >= 2 * KEPT:
            self._keys = {it: of for it, of in self._keys.items() if of in self._actions}
        if key is not None:
            self._keys[action.order.by, key] = action.id
        if action.order.workflow_id is not None:
            self._busy[action.order.workflow_id] = action.id

    def _carry_out(self, action: Action) -> None:
        order = action.order
        try:
            of_all = order.verb is Verb.RESUME_ALL
            state, detail = self._resume_all(action) if of_all else self._do(order, action.id)
        except Exception:
            # A fault of ours: the log has its traceback, and the run must not stay busy.
            logging.getLogger(__name__).exception("Action %s failed.", action.id)
            state, detail = ActionState.FAILED, "The exporter failed; its log says why."
        # Logged first: an action that has finished is in the log.
        self._log(order, f"{action.id} {state.value}: {detail}")
        finished_at = time.time() if state.finished else None
        with self._lock:
            known = self._actions.get(action.id, action)
            self._actions[action.id] = replace(
                known, state=state, detail=detail, finished_at=finished_at
            )
            if state.finished and order.workflow_id is not None:
                self._busy.pop(order.workflow_id, None)

    def _do(self, order: Order, action_id: str) -> tuple[ActionState, str]:
        state, detail = self._act(
            action_id,
            order.verb.value,
            order.workflow_id,
            when_started=order.when_started,
            start_manager=order.start_manager,
            max_running_workflows=order.max_running_workflows,
        )
        if ActionState(state).finished:
            self._count_result(order.verb, state.lower())
        return ActionState(state), detail

    def _resume_all(self, action: Action) -> tuple[ActionState, str]:
        for number, workflow_id in enumerate(self._ids()):
            run = self._find(workflow_id)
            if run is None or run.status is not RunStatus.RESUMABLE:
                continue
            order = replace(action.order, verb=Verb.RESUME, workflow_id=workflow_id)
            state, detail = self._one_of_all(order, workflow_id, f"{action.id}-{number}")
            self._log(order, f"{action.id} {state.value}: {detail}")
            outcome = Outcome(workflow_id, state, detail)
            action = replace(action, outcomes=(*action.outcomes, outcome))
            with self._lock:
                self._actions[action.id] = action
        good = sum(it.state is ActionState.SUCCEEDED for it in action.outcomes)
        bad = len(action.outcomes) - good
        state = ActionState.FAILED if bad else ActionState.SUCCEEDED
        return state, f"{good} resumed, {bad} not."

    def _one_of_all(
        self, order: Order, workflow_id: str, action_id: str
    ) -> tuple[ActionState, str]:
        try:
            with self._lock:
                self._check(order)
                self._busy[workflow_id] = action_id
        except RefusedError as error:
            self._count_result(order.verb, "refused")
            return ActionState.REFUSED, str(error)
        try:
            return self._do(order, action_id)
        finally:
            with self._lock:
                del self._busy[workflow_id]

    def _count_result(self, verb: Verb, result: str) -> None:
        self._count("resume" if verb is Verb.RESUME_ALL else verb.value, result)

    @staticmethod
    def _log(order: Order, result: str) -> None:
        what = "" if order.workflow_id is None else f" {order.workflow_id!r}"
        audit.info("%s: %s%s: %s", order.by, order.verb.value, what, result)
