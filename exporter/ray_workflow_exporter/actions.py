"""Cancel, resume and delete runs: what makes sense in which state, once, and with what outcome."""

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
from .sources.records import LinkState, ManagerView
from .sources.storage.layout import MARKS, clean

KEPT = 1000  # actions, and the keys under which they were ordered
_THREADS = 2

# Whatever the level of the log is: who did what is never left out.
audit = logging.getLogger("ray_workflow_exporter.audit")
audit.setLevel(logging.INFO)


class Verb(str, Enum):
    """What may be done."""

    CANCEL = "cancel"
    RESUME = "resume"
    DELETE = "delete"
    RESUME_ALL = "resume-all"


class ActionState(str, Enum):
    """How far an action is."""

    RUNNING = "RUNNING"
    WAITING = "WAITING"  # for a queued run to start
    SUCCEEDED = "SUCCEEDED"
    REFUSED = "REFUSED"  # by Ray's state: nothing was done
    FAILED = "FAILED"

    @property
    def finished(self) -> bool:
        """Whether its outcome is known."""
        return self in FINISHED


FINISHED = (ActionState.SUCCEEDED, ActionState.REFUSED, ActionState.FAILED)


@dataclass(frozen=True)
class Order:
    """What somebody wants done; `workflow_id` is None for RESUME_ALL."""

    verb: Verb
    workflow_id: Optional[str]
    by: str
    when_started: bool = False  # cancel a queued run as soon as it starts
    start_manager: bool = False  # where Ray has no management actor
    max_running_workflows: Optional[int] = None  # of a management actor that is started


@dataclass(frozen=True)
class Outcome:
    """What came of an action for one run."""

    workflow_id: str
    state: ActionState
    detail: str


@dataclass(frozen=True)
class Action:
    """An order and what became of it. Times are Unix seconds."""

    id: str
    order: Order
    requested_at: float
    state: ActionState = ActionState.RUNNING
    detail: Optional[str] = None
    finished_at: Optional[float] = None
    outcomes: tuple[Outcome, ...] = ()  # of RESUME_ALL, one for each run


class Refusal(str, Enum):
    """Why an order is not taken."""

    UNKNOWN = "unknown"  # there is no such run
    STATE = "state"  # it makes no sense in the run's state
    BUSY = "busy"  # another action on the run is under way
    KEY = "key"  # the key stands for another order
    UNAVAILABLE = "unavailable"  # Ray cannot be asked


class RefusedError(Exception):
    """Say in a sentence why an order is not taken."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal


def objection(order: Order, run: Run) -> Optional[str]:
    """Say why an order makes no sense for a run as it is now, None if it does."""
    status, live = run.status, run.status in (RunStatus.RUNNING, RunStatus.PENDING)
    if order.verb is Verb.CANCEL and status.finished:
        return f"It is {status.value} already: there is nothing to cancel."
    if order.verb is Verb.CANCEL and status is RunStatus.PENDING and not order.when_started:
        return (
            "It waits in Ray's queue, where Ray cannot cancel it. Ask with `when_started: true`, "
            "and it is cancelled as soon as it starts."
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
        return "Tasks of it still run and write into its folder: delete it when they have ended."
    return None


def applicable(run: Run) -> list[Verb]:
    """List what can be done to a run as it is now."""
    orders = (Order(verb, run.workflow_id, "", when_started=True) for verb in SINGLE)
    return [order.verb for order in orders if objection(order, run) is None]


SINGLE = (Verb.CANCEL, Verb.RESUME, Verb.DELETE)


_NO_MANAGER = (
    "Ray has no workflow management actor: no workflow has run since it began. Its limits are "
    "those of who starts it, so let a program of yours call `ray.workflow.init`, or ask with "
    "`start_manager: true`."
)


def _folder_objection(order: Order, ids: Collection[str]) -> Optional[str]:
    """Say why a run's folder must not be touched: Ray makes a path of an id without a look."""
    workflow_id = order.workflow_id or ""
    reserved = MARKS.rpartition("/")[2]
    if clean(workflow_id, backslash_divides=False) != workflow_id or (
        workflow_id.split("/")[0] == reserved
    ):
        return "Its id is no plain name: Ray would take the folder of others for its own."
    inside = [other for other in ids if other.startswith(workflow_id + "/")]
    if order.verb is Verb.DELETE and inside:
        return f"{len(inside)} other runs lie in its folder, as {inside[0]!r}: delete them first."
    return None


class Actions:
    """Takes orders, carries them out beside each other, and remembers the newest.

    `act` is `RayLink.act`; `find` and `ids` ask the catalog; `count` counts an action's result;
    `manager` says how Ray's management actor stands. All methods are for any thread.
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
        """Take an order; one with the same key and content is answered by the first's action.

        Raises RefusedError.
        """
        with self._lock:
            known = self._keys.get((order.by, key)) if key is not None else None
            if known is not None and known in self._actions:
                action = self._actions[known]
                if action.order != order:
                    raise RefusedError(
                        Refusal.KEY, "This `Idempotency-Key` was used before, for another order."
                    )
                return action
            try:
                self._check(order)
            except RefusedError as error:
                self._note(order, f"refused: {error}")
                self._count_result(order.verb, "refused")
                raise
            action = Action(secrets.token_hex(8), order, time.time())
            self._remember(action, key)
        self._note(order, f"accepted as {action.id}")
        self._pool.submit(self._carry_out, action)
        return action

    @property
    def lacks_manager(self) -> bool:
        """Whether Ray has no management actor, so that an order must ask for one."""
        return self._manager().state is LinkState.ABSENT

    @property
    def obstacle(self) -> Optional[str]:
        """Say why Ray cannot be asked for anything now, None if it can."""
        manager = self._manager()
        if manager.state in (LinkState.UP, LinkState.ABSENT):
            return None
        return f"Ray cannot be asked. {manager.reason}"

    def deny(self, verb: Verb) -> None:
        """Count an order of somebody who may not give it."""
        self._count_result(verb, "denied")

    def get(self, action_id: str) -> Optional[Action]:
        """Return an action by its id."""
        return self._actions.get(action_id)

    def newest(self) -> list[Action]:
        """Return all actions that are remembered, newest first."""
        with self._lock:
            return list(reversed(self._actions.values()))

    def look(self) -> None:
        """Ask for the outcome of those that wait for a run that has started; after each poll."""
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
        """Take no more orders; what is under way goes on in Ray."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, order: Order) -> None:
        if self.lacks_manager and not order.start_manager:
            raise RefusedError(Refusal.STATE, _NO_MANAGER)
        obstacle = self.obstacle
        if obstacle is not None:
            raise RefusedError(Refusal.UNAVAILABLE, obstacle)
        if order.workflow_id is None:
            return
        run = self._find(order.workflow_id)
        if run is None:
            raise RefusedError(Refusal.UNKNOWN, "There is no workflow of this id.")
        if order.workflow_id in self._busy:
            raise RefusedError(
                Refusal.BUSY,
                f"The action {self._busy[order.workflow_id]} on it is under way.",
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
        try:
            if action.order.verb is Verb.RESUME_ALL:
                self._resume_all(action)
                return
            assert action.order.workflow_id is not None
            state, detail = self._do(action.order, action.order.workflow_id, action.id)
            self._update(action, state, detail)
        except Exception:
            # A fault of ours: the log has its trace, and the run must not stay busy for ever.
            logging.getLogger(__name__).exception("The action %s failed.", action.id)
            self._update(action, ActionState.FAILED, "The exporter failed; its log says why.")

    def _do(self, order: Order, workflow_id: str, action_id: str) -> tuple[ActionState, str]:
        state, detail = self._act(
            action_id,
            order.verb.value,
            workflow_id,
            when_started=order.when_started,
            start_manager=order.start_manager,
            max_running_workflows=order.max_running_workflows,
        )
        if ActionState(state).finished:
            self._count_result(order.verb, state.lower())
        return ActionState(state), detail

    def _resume_all(self, action: Action) -> None:
        for number, workflow_id in enumerate(self._ids()):
            run = self._find(workflow_id)
            if run is None or run.status is not RunStatus.RESUMABLE:
                continue
            order = replace(action.order, verb=Verb.RESUME, workflow_id=workflow_id)
            state, detail = self._one_of_all(order, workflow_id, f"{action.id}-{number}")
            self._note(order, f"{action.id} {state.value}: {detail}")
            outcome = Outcome(workflow_id, state, detail)
            action = replace(action, outcomes=(*action.outcomes, outcome))
            with self._lock:
                self._actions[action.id] = action
        good = sum(it.state is ActionState.SUCCEEDED for it in action.outcomes)
        bad = len(action.outcomes) - good
        state = ActionState.FAILED if bad else ActionState.SUCCEEDED
        self._update(action, state, f"{good} resumed, {bad} not.")

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
            return self._do(order, workflow_id, action_id)
        finally:
            with self._lock:
                del self._busy[workflow_id]

    def _count_result(self, verb: Verb, result: str) -> None:
        self._count("resume" if verb is Verb.RESUME_ALL else verb.value, result)

    def _update(self, action: Action, state: ActionState, detail: str) -> None:
        # Noted first: what has ended stands in the log.
        self._note(action.order, f"{action.id} {state.value}: {detail}")
        finished_at = time.time() if state.finished else None
        with self._lock:
            self._actions[action.id] = replace(
                self._actions.get(action.id, action),
                state=state,
                detail=detail,
                finished_at=finished_at,
            )
            if state.finished and action.order.workflow_id is not None:
                self._busy.pop(action.order.workflow_id, None)

    @staticmethod
    def _note(order: Order, result: str) -> None:
        what = "" if order.workflow_id is None else f" {order.workflow_id!r}"
        audit.info("%s: %s%s: %s", order.by, order.verb.value, what, result)
