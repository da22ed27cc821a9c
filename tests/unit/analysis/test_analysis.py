from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.analysis.analysis import (
    Analyst,
    History,
    RootCause,
    Stage,
    places_of_tasks,
)
from ray_workflow_exporter.model import Edge, EdgeKind, Run, RunStatus, TaskState, changed_tasks
from support.analysis import analyse
from support.runs import (
    CONTINUATION,
    DATA,
    ERROR,
    FAILED,
    NOT_RUN,
    RUNNING,
    SUCCESSFUL,
    WAITING,
    any_runs,
    past_run,
    run,
    task,
)


def task_edges(it: Run) -> tuple[Edge, ...]:
    return analyse(it).task_edges


def stage_edges(it: Run) -> tuple[Edge, ...]:
    return analyse(it).stage_edges


def stages(it: Run) -> tuple[Stage, ...]:
    return analyse(it).stages


def progress(it: Run) -> float:
    return analyse(it).progress


def critical_path(it: Run) -> tuple[tuple[str, ...], Optional[float]]:
    analysis = analyse(it)
    return analysis.critical_path, analysis.critical_seconds


def root_cause(it: Run) -> Optional[RootCause]:
    return analyse(it).root_cause


def pairs(edges: Iterable[Edge], kind: EdgeKind) -> list[tuple[str, str]]:
    return [(edge.source, edge.target) for edge in edges if edge.kind is kind]


def known_upstream(it: Run, task_id: str) -> set[str]:
    return {up for up in it.tasks[task_id].upstream if up in it.tasks} - {task_id}


@given(any_runs())
def test_edges_are_unique_have_both_ends_and_never_loop(it):
    edges = task_edges(it)
    assert len(set(edges)) == len(edges)
    for edge in edges:
        assert edge.source in it.tasks
        assert edge.target in it.tasks
        assert edge.source != edge.target


@given(any_runs())
def test_every_known_argument_is_a_data_edge_and_nothing_else_is(it):
    expected = {(up, task_id) for task_id in it.tasks for up in known_upstream(it, task_id)}
    assert set(pairs(task_edges(it), DATA)) == expected


@given(any_runs())
def test_every_known_continuation_is_reached_by_an_edge(it):
    expected = {
        task_id
        for task_id, one in it.tasks.items()
        if one.continuation in it.tasks and one.continuation != task_id
    }
    assert {source for source, _ in pairs(task_edges(it), CONTINUATION)} == expected


@given(any_runs())
def test_stage_edges_are_the_task_edges_between_different_stages(it):
    edges = stage_edges(it)
    stage = {task_id: one.stage for task_id, one in it.tasks.items()}
    expected = {
        Edge(stage[edge.source], stage[edge.target], edge.kind)
        for edge in task_edges(it)
        if stage[edge.source] != stage[edge.target]
    }
    assert set(edges) == expected
    assert len(edges) == len(expected)


def test_a_single_task_continuation_hangs_on_the_task_that_returned_it():
    it = run(task("p", continuation="c"), task("c"))
    assert task_edges(it) == (Edge("p", "c", CONTINUATION),)


def test_a_returned_workflow_is_entered_where_it_depends_on_nothing():
    it = run(
        task("a"),
        task("p", "a", continuation="out"),
        task("x"),
        task("y"),
        task("z", "x", "x"),
        task("out", "y", "z"),
        task("after", "p"),
    )
    assert pairs(task_edges(it), CONTINUATION) == [("p", "x"), ("p", "y")]
    assert pairs(task_edges(it), DATA) == [
        ("a", "p"), ("x", "z"), ("y", "out"), ("z", "out"), ("p", "after"),
    ]  # fmt: skip


def test_nested_continuations_each_hang_on_their_own_task():
    it = run(
        task("p", continuation="c"),
        task("x", continuation="d"),
        task("c", "x", continuation="e"),
        task("d"),
        task("e"),
    )
    assert pairs(task_edges(it), CONTINUATION) == [("p", "x"), ("x", "d"), ("c", "e")]


def test_a_continuation_that_leads_back_to_its_own_task_does_not_take_it_in():
    it = run(task("a"), task("p", "a", continuation="c"), task("c", "p"))
    assert pairs(task_edges(it), CONTINUATION) == [("p", "c")]


def test_a_stage_that_continues_into_itself_has_no_edge():
    it = run(task("f", continuation="f1"), task("f1", continuation="f2"), task("f2"))
    assert len(task_edges(it)) == 2
    assert stage_edges(it) == ()


@given(any_runs())
def test_stages_share_out_all_tasks_and_bytes(it):
    analysis = analyse(it)
    for state in TaskState:
        count = sum(one.state is state for one in it.tasks.values())
        assert analysis.tasks[state] == count
        assert sum(stage.tasks[state] for stage in analysis.stages) == count
    sizes = [one.output_bytes for one in it.tasks.values() if one.output_bytes is not None]
    assert analysis.output_bytes == (sum(sizes) if sizes else None)
    assert {stage.name for stage in analysis.stages} == {one.stage for one in it.tasks.values()}


def test_a_stage_spans_from_its_first_start_to_its_last_end():
    (stage,) = stages(
        run(task("f1", span=(3, 9), output_bytes=2), task("f2", span=(1, 4), output_bytes=0))
    )
    assert (stage.start_time, stage.end_time, stage.output_bytes) == (1, 9, 2)


@pytest.mark.parametrize("state", [WAITING, TaskState.PENDING, RUNNING])
def test_a_stage_has_no_end_while_a_task_of_it_may_still_run(state):
    (stage,) = stages(run(task("f1", span=(1, 4)), task("f2", state=state)))
    assert stage.start_time == 1
    assert stage.end_time is None


def test_what_nobody_knows_of_a_stage_stays_unknown():
    (stage,) = stages(run(task("f", state=NOT_RUN)))
    assert (stage.start_time, stage.end_time, stage.output_bytes) == (None, None, None)


@given(any_runs())
def test_progress_is_full_exactly_when_all_is_done(it):
    done = [one.state is SUCCESSFUL for one in it.tasks.values()]
    assert 0.0 <= progress(it) <= 1.0
    full = it.status is RunStatus.SUCCESSFUL or (all(done) and bool(done))
    assert (progress(it) == 1.0) == full


@given(any_runs(), st.data())
def test_progress_never_falls_when_a_task_succeeds(it, data):
    if it.tasks:
        task_id = data.draw(st.sampled_from(sorted(it.tasks)))
        succeeded = replace(it.tasks[task_id], state=SUCCESSFUL)
        assert progress(replace(it, tasks={**it.tasks, task_id: succeeded})) >= progress(it)


def continuations(it: Run, task_id: str) -> set[str]:
    found = set()
    while task_id in it.tasks and task_id not in found:
        found.add(task_id)
        task_id = it.tasks[task_id].continuation or ""
    return found


@given(any_runs())
def test_a_critical_path_is_a_chain_of_dependencies(it):
    path, seconds = critical_path(it)
    edges = {(edge.source, edge.target) for edge in task_edges(it)}
    assert len(set(path)) == len(path)
    for source, target in zip(path, path[1:]):
        upstream = known_upstream(it, target)
        ended_by = {end for up in upstream for end in continuations(it, up)}
        assert (source, target) in edges or source in ended_by
    known = [it.tasks[task_id].duration for task_id in path]
    spent = [duration for duration in known if duration is not None]
    assert seconds == (sum(spent) if spent else None)


def test_the_critical_path_follows_what_ended_last():
    it = run(
        task("a", span=(0, 1)),
        task("fast", "a", span=(1, 2)),
        task("slow", "a", span=(1, 7)),
        task("out", "fast", "slow", span=(7.5, 8)),
        status=RunStatus.SUCCESSFUL,
        output_task_id="out",
    )
    assert critical_path(it) == (("a", "slow", "out"), 7.5)


def test_a_consumer_waits_for_the_end_of_the_last_continuation():
    it = run(
        task("p", span=(0, 1), continuation="c"),
        task("q", span=(0, 6)),
        task("x", span=(1, 2)),
        task("y", span=(1, 3)),
        task("c", "x", "y", span=(3, 4), continuation="d"),
        task("d", span=(4, 9)),
        task("out", "p", "q", span=(9, 10)),
        status=RunStatus.SUCCESSFUL,
        output_task_id="out",
    )
    assert critical_path(it) == (("p", "y", "c", "d", "out"), 10.0)


def test_a_run_ends_with_the_continuation_of_its_output_task():
    it = run(
        task("p", span=(0, 1), continuation="c"),
        task("c", span=(1, 5)),
        status=RunStatus.SUCCESSFUL,
        output_task_id="p",
    )
    assert critical_path(it) == (("p", "c"), 5.0)


def test_nobody_waits_for_a_continuation_whose_failure_was_caught():
    it = run(
        task("p", span=(0, 1), continuation="c", catch_exceptions=True),
        task("x", span=(1, 2), state=FAILED, failure=ERROR),
        task("c", "x", state=NOT_RUN),
        task("out", "p", span=(3, 4)),
        status=RunStatus.SUCCESSFUL,
        output_task_id="out",
    )
    assert critical_path(it) == (("p", "out"), 2.0)


def test_the_critical_path_of_a_failed_run_ends_at_its_root_cause():
    it = run(
        task("a", span=(0, 1)),
        task("bad", "a", span=(1, 3), state=FAILED, failure=ERROR),
        task("left over", "a", span=(1, 30)),
        status=RunStatus.FAILED,
    )
    assert critical_path(it) == (("a", "bad"), 3.0)


def test_the_critical_path_of_a_cancelled_run_ends_at_what_ran_longest_to_the_end():
    it = run(
        task("a", span=(0, 1)),
        task("b", "a", span=(1, 9), state=TaskState.CANCELED),
        status=RunStatus.CANCELED,
    )
    assert critical_path(it) == (("a", "b"), 9.0)


def test_the_critical_path_of_a_live_run_ends_at_the_task_that_started_first_and_does_not_tick():
    it = run(
        task("a", span=(0, 2)),
        task("b", span=(0, 4)),
        task("late", "b", span=(5, None), state=RUNNING),
        task("early", "a", "b", span=(4, None), state=RUNNING),
        task("out", "early", "late", state=WAITING),
    )
    assert critical_path(it) == (("b", "early"), 4.0)


def test_without_a_running_task_the_critical_path_leads_to_the_last_end():
    it = run(task("a", span=(0, 2)), task("b", "a", state=TaskState.PENDING))
    assert critical_path(it) == (("a",), 2.0)


def test_a_run_of_which_no_time_is_known_has_no_critical_path():
    assert critical_path(run(task("a"), task("b", "a", state=WAITING))) == ((), None)


MANY = 50_000


SHAPES: Mapping[str, Any] = {
    "chain": lambda n: task(f"t{n}", f"t{n - 1}", span=(n, n + 1)),
    "ring": lambda n: task(f"t{n}", f"t{(n - 1) % MANY}", stage=f"s{n % 1000}", span=(n, n + 1)),
    "recursion": lambda n: task(f"t{n}", continuation=f"t{n + 1}", span=(n, n + 1)),
    "overlapping continuations": lambda n: task(
        f"t{n}", f"t{n - 1}", continuation=f"t{n * 7919 % MANY}", span=(n, n + 1)
    ),
    "continuations at every step": lambda n: task(
        f"t{n}", f"t{n - 1}", "t0", continuation=f"t{n + 1}", span=(n, n + 1)
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.FAILED])
def test_a_huge_run_of_any_shape_takes_no_recursion_and_no_square_of_its_size(shape, status):
    tasks = [SHAPES[shape](n) for n in range(MANY)]
    if status is RunStatus.FAILED:
        tasks[0] = replace(tasks[0], state=FAILED, failure=ERROR)
        tasks[1:] = [replace(it, state=NOT_RUN) for it in tasks[1:]]
    history = History()
    history.add(past_run(1, task("t", span=(0, 1))))
    analysis = analyse(run(*tasks, status=status), history)
    assert len(analysis.task_edges) >= MANY - 1
    assert analysis.critical_path
    assert (analysis.root_cause is not None) == (status is RunStatus.FAILED)


def test_places_are_found_again_only_when_the_dag_has_grown() -> None:
    tasks = [task("a", span=(0, 1)), task("b", "a", state=RUNNING, span=(1, None))]
    before = run(*tasks)
    analyst = Analyst()
    first = analyst.update(before)
    assert first.task_places == {"a": (0, 0), "b": (1, 0)}
    ended = run(tasks[0], task("b", "a", span=(1, 2)))
    second = analyst.update(ended, changed_tasks(before.tasks, ended.tasks))
    assert second.task_places is first.task_places
    assert second.stage_places is first.stage_places
    grown = run(*ended.tasks.values(), task("c", "a", state=WAITING))
    third = analyst.update(grown, changed_tasks(ended.tasks, grown.tasks))
    assert third.task_places == {"a": (0, 0.5), "b": (1, 0), "c": (1, 1)}


def test_tasks_are_placed_in_the_order_of_their_numbers() -> None:
    names = ["f", *(f"f_{number}" for number in (10, 11, 2, 1))]
    places = analyse(run(*map(task, names))).task_places
    assert sorted(names, key=lambda it: places[it].row) == ["f", "f_1", "f_2", "f_10", "f_11"]


def test_a_run_with_too_many_tasks_to_draw_has_places_by_stage() -> None:
    found = analyse(run(*(task(f"f_{number}") for number in range(201))))
    assert found.task_places == {}
    assert found.stage_places == {"f_": (0, 0)}
    places = places_of_tasks(found, (task(f"f_{number}") for number in (2, 0, 1)))
    assert places == {"f_0": (0, 0), "f_1": (1, 0.5), "f_2": (2, 0)}


def test_tasks_with_more_edges_than_can_be_told_apart_are_only_arranged() -> None:
    names = [f"f_{number}" for number in range(100)]
    tasks = [task(name, *names[:number]) for number, name in enumerate(names)]
    assert set(analyse(run(*tasks)).task_places.values()) == {
        (number % 16, number // 16 + number % 2 / 2) for number in range(100)
    }
