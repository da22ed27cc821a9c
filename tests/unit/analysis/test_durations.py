from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.analysis.analysis import History
from ray_workflow_exporter.model import Run, RunStatus, TaskState
from support.analysis import analyse
from support.runs import RUNNING, WAITING, any_runs, past_run, run, task


def test_a_history_holds_the_medians_of_runs_and_of_the_spans_of_their_stages():
    history = History()
    for number, seconds in enumerate([10.0, 30.0, 20.0]):
        middle = seconds / 2
        it = past_run(
            number,
            task("f1", span=(0, middle)),
            task("f2", span=(1, middle + 1)),
            task("g", span=(middle, seconds)),
            end=seconds,
        )
        assert history.add(it)
    assert history.usual("etl").seconds == 20.0
    assert history.usual("etl").stages.get("f") == 11.0
    assert history.usual("etl").stages.get("g") == 10.0
    assert history.usual("etl").expected == {"f", "g"}


def test_a_history_knows_nothing_of_other_workflows_and_stages():
    history = History()
    history.add(past_run(1, task("f", span=(0, 1))))
    assert history.usual("other").seconds is None
    assert history.usual("other").stages.get("f") is None
    assert history.usual("etl").stages.get("g") is None


def test_the_same_run_counts_once():
    history = History()
    assert history.add(past_run(1, end=10.0))
    assert not history.add(past_run(1, end=10.0))
    assert history.usual("etl").seconds == 10.0
    assert history.add(past_run(2, end=40.0))
    assert history.usual("etl").seconds == 25.0


@pytest.mark.parametrize("status", [it for it in RunStatus if it is not RunStatus.SUCCESSFUL])
def test_only_successful_runs_are_learned_from(status):
    history = History()
    assert not history.add(run(status=status, end_time=10.0))
    assert history.usual("etl").seconds is None


def test_a_run_that_was_resumed_is_not_learned_from():
    history = History()
    assert not history.add(past_run(1, task("f", span=(0, 5)), start=100.0, end=100.01))
    assert history.usual("etl").seconds is None


def test_only_the_newest_fifty_runs_count_whatever_their_order():
    history = History()
    ends = [float(end) for end in range(1, 121)]
    for end in ends[60:]:
        assert history.add(past_run(0, end=end))
    for end in ends[:60]:
        assert not history.add(past_run(0, end=end))
    assert history.usual("etl").seconds == 95.5  # median of 71..120


def test_a_history_keeps_a_bounded_number_of_stages():
    history = History()
    history.add(past_run(1, *(task(f"{n}x", stage=f"s{n}", span=(0, 1)) for n in range(500))))
    assert len(history.usual("etl").expected) == 100


def test_a_stage_that_few_runs_had_is_not_expected():
    history = History()
    history.add(past_run(1, task("f", span=(0, 1)), task("rare", span=(0, 1))))
    history.add(past_run(2, task("f", span=(0, 1))))
    assert history.usual("etl").expected == {"f"}
    assert history.usual("etl").stages.get("rare") == 1


# --- expected end


@pytest.fixture
def history() -> History:
    """Stage a takes 10, b 20, c 30, one after the other; the whole run 100."""
    history = History()
    history.add(
        past_run(1, task("a", span=(0, 10)), task("b", span=(10, 30)), task("c", span=(30, 60)))
    )
    return history


def live(a: Mapping[str, Any], b: Mapping[str, Any], c: Mapping[str, Any], now: float) -> Run:
    return run(
        task("a", **a),
        task("b", "a", **b),
        task("c", "b", **c),
        start_time=1000.0,
        last_transition=now,
    )


def expected_end(it, history):
    return analyse(it, history).expected_end


WAITS: Mapping[str, Any] = {"state": WAITING}


def test_the_expected_end_adds_up_the_stages_that_are_left(history):
    begun = {"state": RUNNING, "span": (1001.0, None)}
    assert expected_end(live(begun, WAITS, WAITS, now=1001.0), history) == 1061.0


def test_the_expected_end_counts_from_what_has_ended(history):
    it = live({"span": (1001.0, 1041.0)}, {"state": TaskState.PENDING}, WAITS, now=1041.0)
    assert expected_end(it, history) == 1091.0


def test_a_stage_that_takes_too_long_pushes_those_behind_it(history):
    it = live({"span": (1001.0, 1005.0)}, {"state": RUNNING, "span": (1005.0, None)}, WAITS, 1300.0)
    assert expected_end(it, history) == 1330.0


def test_the_expected_end_takes_the_longest_way(history):
    it = run(
        task("a", state=RUNNING, span=(1000.0, None)),
        task("b", state=RUNNING, span=(1000.0, None)),
        task("c", "a", "b", state=WAITING),
        start_time=1000.0,
        last_transition=1000.0,
    )
    assert expected_end(it, history) == 1050.0


def test_a_start_from_before_a_resume_does_not_count(history):
    it = live({"span": (1.0, 11.0)}, {"state": RUNNING, "span": (12.0, None)}, WAITS, now=1000.0)
    assert expected_end(it, history) == 1050.0


def test_a_run_that_has_yet_to_unfold_is_expected_to_take_as_long_as_usual(history):
    it = run(
        task("a", state=RUNNING, span=(1001.0, None)), start_time=1000.0, last_transition=1001.0
    )
    assert expected_end(it, history) == 1100.0


def test_a_run_with_an_unknown_stage_is_expected_to_take_as_long_as_usual(history):
    begun = {"state": RUNNING, "span": (1001.0, None)}
    it = live(begun, WAITS, WAITS, now=1001.0)
    it = replace(it, tasks={**it.tasks, "new": task("new", "c", state=WAITING)})
    assert expected_end(it, history) == 1100.0


def test_a_run_longer_than_usual_is_not_expected_to_have_ended(history):
    it = run(task("a", span=(1001.0, 1002.0)), start_time=1000.0, last_transition=1400.0)
    assert expected_end(it, history) == 1400.0


def test_the_expected_end_does_not_depend_on_the_order_of_the_tasks(history):
    it = live({"state": RUNNING, "span": (1001.0, None)}, WAITS, WAITS, now=1001.0)
    turned = replace(it, tasks=dict(reversed(list(it.tasks.items()))))
    assert expected_end(turned, history) == expected_end(it, history)


def test_stages_that_continue_into_one_another_count_once_each(history):
    it = run(
        task("c", span=(1000.0, 1005.0)),
        task("a1", "b1", state=WAITING),
        task("b1", "a2", state=WAITING),
        task("a2", state=WAITING),
        start_time=1000.0,
        last_transition=1005.0,
    )
    assert expected_end(it, history) == 1035.0


@given(any_runs(), st.lists(any_runs(), max_size=5))
def test_an_expected_end_is_for_running_runs_and_not_before_their_last_transition(it, past):
    history = History()
    for number, earlier in enumerate(past):
        history.add(replace(earlier, workflow_id=str(number), status=RunStatus.SUCCESSFUL))
    expected = expected_end(it, history)
    usual = history.usual("etl").seconds
    known = it.status is RunStatus.RUNNING and it.start_time is not None and usual is not None
    assert (expected is not None) == known
    if expected is not None:
        assert expected >= it.start_time
        assert it.last_transition is None or expected >= it.last_transition
