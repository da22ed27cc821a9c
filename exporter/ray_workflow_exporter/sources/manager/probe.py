"""What runs inside the WorkflowManagementActor (WMA): reads its memory, changes nothing of Ray's.

The function `probe` is shipped by value, so it may use the standard library and Ray, and nothing
that the WMA's node could lack. It runs on a thread of its own beside the actor's event loop, which
changes what we read. So a live container is only ever read by a single C call (`list(islice(d))`,
`set.difference`), during which no other thread runs; small inconsistencies between two such calls
are expected, and the next poll corrects them.

A client receives only what changed since its last poll. Its cursor lives in the WMA: what was
sent to it of each run, in sets of the run's own id strings. Numbers below are of Ray 2.47.1; the
executor's dataclasses are the same from 2.3 to 2.47 (`ray/workflow/workflow_state.py`).
"""

from __future__ import annotations

import time
import weakref
from itertools import islice
from types import SimpleNamespace
from typing import Any

# Under 100 kB an answer travels inline; above, Ray would put it into the users' object store.
ITEMS_PER_ANSWER = 1_000
CLIENTS = 32
CLIENT_SECONDS = 600.0
# Ray task ids are sent for the oldest of the running frontier only: they are the ones that run, the
# rest of a wide fan-out waits behind them, and each id costs about a microsecond.
NAMED_TASKS = 256


def probe(manager: Any, client_id: str, seq: int) -> tuple[Any, ...]:
    """Return what changed for `client_id` since the answer that it knows as `seq` (0: all).

    Returns ("ok", base, seq, more, limits, ended, unseen, runs) or ("error", type name). `base` is
    the `seq` that the answer builds on: 0 when it starts over. `more` says that the rest must be
    asked for. `limits` is (max running, max pending), -1 for none. `ended` lists lives of runs that
    have ended: (id, whether it succeeded, when). `unseen` is how many other runs began and ended,
    by the number of names that Ray keeps of those that ended: the names would cost all that ever
    ended. `runs` is what `_changes_of_run` returns of each
    run that changed. Never raises: a SystemExit would end the WMA and every running workflow.
    """
    try:
        clients = manager.__dict__.setdefault("_workflow_exporter", {})
        client = _client(clients, client_id, seq)
        base = client.seq
        # Until this answer is complete the client has no cursor: an error below starts over.
        del clients[client_id]
        # Copied in this order, by one C call each: what is not in `running` is queued, was just
        # submitted, or left the queue since. So there are never more runs at work than Ray allows.
        running = manager._running_workflows.copy()
        executed = len(manager._executed_workflows)  # before: a run leaves its place, then is named
        executors = list(manager._workflow_executors.items())
        ended = _drop_ended(client.runs, executors)
        lives = manager.__dict__.setdefault("_workflow_exporter_lives", {})
        for workflow_id in set(lives).difference([workflow_id for workflow_id, _ in executors]):
            del lives[workflow_id]
        budget = ITEMS_PER_ANSWER
        runs = []
        more = False
        for workflow_id, executor in executors:
            state = executor._state
            known = client.runs.get(workflow_id)
            first = known is None or known.state() is not state
            if first:
                # Also a resume or a second life of the same id: the state is another object.
                if known is not None:
                    ended.append((workflow_id, known))
                known = client.runs[workflow_id] = _unknown(state)
                known.life = _life(lives, workflow_id, state)
                known.new = workflow_id not in manager._executed_workflows
            queued = workflow_id not in running
            seen = _changes_of_run(known, state, queued, first, budget)
            if seen is not None:
                runs.append((workflow_id, *seen))
                budget -= _cost(seen[3]) + (len(seen[4][0]) if seen[4] else 0)
                budget = max(0, budget)
            more = more or not known.complete
        unseen = _unseen(client, executed, sum([known.new for _, known in ended]))
        client.seq += 1
        clients[client_id] = client
        limits = (manager._max_running_workflows, manager._max_pending_workflows)
        ends = [(workflow_id, *_end(known)) for workflow_id, known in ended]
        return ("ok", base, client.seq, more, limits, ends, unseen, runs)
    except BaseException as error:
        return ("error", type(error).__name__)


def _client(clients: dict[str, Any], client_id: str, seq: int) -> Any:
    now = time.monotonic()
    for other, client in list(clients.items()):
        if now - client.seen > CLIENT_SECONDS:
            del clients[other]
    if client_id not in clients or clients[client_id].seq != seq:
        clients.pop(client_id, None)
        if len(clients) >= CLIENTS:
            del clients[min(list(clients), key=lambda other: clients[other].seen)]
        clients[client_id] = SimpleNamespace(seq=0, runs={}, executed=None, owed=0)
    clients[client_id].seen = now
    return clients[client_id]


def _drop_ended(known: dict[str, Any], executors: list[Any]) -> list[tuple[str, Any]]:
    gone = set(known).difference([workflow_id for workflow_id, _ in executors])
    return [(workflow_id, known.pop(workflow_id)) for workflow_id in gone]


def _unseen(client: Any, executed: int, ended: int) -> int:
    """Return how many names among `executed` came or went that are not of runs that were seen."""
    grown = executed - (executed if client.executed is None else client.executed)
    # A run that just left its place may not be named yet: it is by the next poll.
    owed, client.owed = client.owed, max(0, ended - max(0, grown))
    client.executed = executed
    # After a deletion, the number does not tell whether another run ended.
    unseen: int = 1 if grown < 0 else max(0, grown - ended - owed)
    return unseen


def _end(known: Any) -> tuple[bool, Any]:
    """Return whether a life succeeded, and the newest moment at which a task of it finished.

    Storage may have no trace of it: its run may have been deleted and run again since.
    """
    newest = list(islice(reversed(known.times.values()), 100))
    finished = [it.finish_time for it in newest if it.finish_time is not None]
    return known.output in known.done, max(finished, default=None)


def _life(lives: dict[str, Any], workflow_id: str, state: Any) -> int:
    """Return a number of this execution of a run, the same for all clients."""
    known = lives.get(workflow_id)
    if known is None or known[0]() is not state:
        known = lives[workflow_id] = (weakref.ref(state), time.time_ns())
    return int(known[1])


def _unknown(state: Any) -> Any:
    small = len(state.tasks) <= ITEMS_PER_ANSWER  # what is kept of the others would cost memory
    return SimpleNamespace(
        # Not the state itself, which would keep outputs in the object store.
        done=state.done_tasks if small else (),
        times=state.task_execution_metadata if small else {},
        output=state.output_task_id,
        state=weakref.ref(state),  # an id() could be that of an object that took its place
        queued=None,
        signature=None,
        complete=False,
        new=False,  # whether its end will add a name to those that Ray keeps
        tasks=0,  # how many entries of these dicts were sent: they only ever grow, at their end
        submitted=0,
        continuations=0,
        retries={},
        running=set(),  # sent as running
        open=set(),  # sent as submitted, but neither running nor done
        unfinished=set(),  # those of `open` that were sent without a finish time
        changed=set(),  # found changed, still to be sent
        named=set(),  # oldest running tasks, sent with their Ray task id
    )


def _changes_of_run(known: Any, state: Any, queued: bool, first: bool, budget: int) -> Any:
    """Return what is new in one run, None for nothing; at most `budget` tasks and rows.

    (first, queued, about, tasks, rows, continuations, retries, ray_task_ids, sizes):
    `about` is (output_task_id, resumed, a number for this life); a task is (id, upstream,
    max_retries, checkpoint, catch_exceptions); rows come as columns, which are shorter: ids,
    submit times, finish times, running, done; Ray task ids as a tail, task ids, and the number of
    each before that tail; the rest are pairs.
    """
    retries = dict(state.task_retries)
    # All that happens to a task moves one of these, and they are read before what they stand for:
    # a change that comes in between is seen by the next poll.
    signature = (
        queued,
        retries,
        len(state.tasks),
        len(state.task_execution_metadata),
        len(state.running_frontier_set),
        len(state.done_tasks),
        len(state.next_continuation),
    )
    if known.complete and signature == known.signature:
        return None
    continuations = list(islice(state.next_continuation.items(), known.continuations, None))
    known.continuations += len(continuations)
    tasks = _new_tasks(known, state, budget)
    rows = _rows(known, state, retries, continuations, max(0, budget - _cost(tasks)))
    retried = [(task, count) for task, count in retries.items() if known.retries.get(task) != count]
    known.named.difference_update([task for task, _ in retried])  # an attempt has its own id
    known.retries, known.signature = retries, signature
    known.complete = (
        not known.changed
        and known.tasks >= len(state.tasks)
        and known.submitted >= len(state.task_execution_metadata)
    )
    return (
        first,
        queued,
        (*_about(state), known.life) if first else None,
        tasks,
        [list(column) for column in zip(*rows)],
        continuations,
        retried,
        _ray_task_ids(known, state),
        _sizes(state, rows),
    )


def _about(state: Any) -> tuple[Any, bool]:
    # A state made from storage has tasks without a name, or none at all when each is checkpointed
    # (ray/workflow/workflow_state_from_storage.py).
    oldest = list(islice(state.tasks.values(), 1))
    return state.output_task_id, not oldest or oldest[0].task_id == ""


def _new_tasks(known: Any, state: Any, budget: int) -> list[tuple[Any, ...]]:
    if known.tasks >= len(state.tasks):
        return []  # spares the walk over all that is known, half a millisecond for 100,000
    found = list(islice(state.tasks.items(), known.tasks, known.tasks + budget))
    upstream = state.upstream_dependencies
    tasks: list[tuple[Any, ...]] = []
    for task_id, task in found:
        above = list(upstream.get(task_id, ()))
        options = task.options
        tasks.append(
            (task_id, above, options.max_retries, options.checkpoint, options.catch_exceptions)
        )
        budget -= 1 + len(above)
        if budget <= 0:
            break
    known.tasks += len(tasks)
    return tasks


def _cost(tasks: list[tuple[Any, ...]]) -> int:
    # Every id takes its place: a shuffle has far more edges than tasks.
    return len(tasks) + sum([len(task[1]) for task in tasks])


def _rows(
    known: Any, state: Any, retries: dict[str, int], continuations: list[Any], budget: int
) -> list[tuple[Any, ...]]:
    metadata, running, done = (
        state.task_execution_metadata,
        state.running_frontier_set,
        state.done_tasks,
    )
    changed = known.changed
    submitted = list(islice(metadata, known.submitted, known.submitted + budget))
    known.submitted += len(submitted)
    changed.update(submitted)
    changed.update(known.running.difference(running))
    changed.update(known.open.intersection(done), known.open.intersection(running))
    changed.update(known.unfinished)
    changed.update(task for task, count in retries.items() if known.retries.get(task) != count)
    # A resumed run knows the root of an earlier continuation by this link only: follow it on.
    known.open.update(task for task, _ in continuations if task not in state.continuation_root)
    rows: list[tuple[Any, ...]] = []
    while changed and len(rows) < budget:
        task = changed.pop()
        times = metadata.get(task)
        submit_time, finish_time = (times.submit_time, times.finish_time) if times else (None, None)
        is_running, is_done = task in running, task in done
        rows.append((task, submit_time, finish_time, is_running, is_done))
        _remember(known, state, task, is_running, is_done, finish_time is not None)
    return rows


def _remember(
    known: Any, state: Any, task: str, is_running: bool, is_done: bool, finished: bool
) -> None:
    # Ray never counts an inner task of a continuation as done, only the root at the end of all.
    over = is_done or (finished and task in state.continuation_root)
    for sent, holds in (
        (known.running, is_running),
        (known.open, not is_running and not over),
        (known.unfinished, not is_running and not over and not finished),
    ):
        if holds:
            sent.add(task)
        else:
            sent.discard(task)


def _ray_task_ids(known: Any, state: Any) -> list[tuple[str, list[str], list[int]]]:
    outputs = list(islice(state.running_frontier.values(), NAMED_TASKS))
    oldest = {output.task_id: output.ref for output in outputs}
    by_tail: dict[str, tuple[str, list[str], list[int]]] = {}
    for task_id in oldest.keys() - known.named:
        number = oldest[task_id].task_id().hex()
        # Eight bytes differ between the tasks of a job, the rest is the same for all of them
        # (`TaskID` in src/ray/common/id.h): sent once, it makes the answer a quarter shorter.
        tail = number[16:]
        _, task_ids, numbers = by_tail.setdefault(tail, (tail, [], []))
        task_ids.append(task_id)
        numbers.append(int(number[:16], 16))
    known.named = set(oldest)
    return list(by_tail.values())


def _sizes(state: Any, rows: list[tuple[Any, ...]]) -> list[tuple[str, int]]:
    """Return sizes of outputs that storage does not hold; Ray drops them once all consumers run."""
    outputs: dict[Any, str] = {}
    for task, _, _, _, is_done in rows:
        output: Any = state.output_map.get(task) if is_done else None
        known_by_name_only = task not in state.tasks
        if output is None or output.ref is None or known_by_name_only:
            continue
        if not state.tasks[task].options.checkpoint:
            outputs[output.ref] = task
    if not outputs:
        return []
    try:
        # Since Ray 2.31; asks the WMA's own table, 3 µs each, without a remote call.
        from ray.experimental import get_local_object_locations
    except ImportError:
        return []
    located = get_local_object_locations(list(outputs))
    return [
        (task, located[ref]["object_size"])
        for ref, task in outputs.items()
        if ref in located and located[ref].get("object_size") is not None
    ]
