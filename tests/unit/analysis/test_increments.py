"""A run looked at step by step: what is made from the changes is what is made from all of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.analysis.analysis import Analyst, History
from ray_workflow_exporter.analysis.dag import Dag
from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState, changed_tasks
from support.analysis import analyse
from support.runs import (
    IDS,
    RUNNING,
    WAITING,
    any_id,
    any_runs,
    moments,
    past_run,
    run,
    task,
)

FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(TaskState),
        "start_time": moments,
        "end_time": moments,
        "output_bytes": st.none() | st.integers(0, 9),
        "continuation": st.none() | any_id,
        "upstream": st.lists(any_id, max_size=2).map(tuple),
        "stage": st.sampled_from("abc"),
    },
)


@st.composite
def next_runs(draw: st.DrawFn, it: Run) -> Run:
    """Draw what may come of a run: tasks changed, tasks added, now and then another status."""
    tasks = dict(it.tasks)
    for task_id in draw(st.lists(st.sampled_from(IDS), max_size=3, unique=True)):
        known = tasks.get(task_id) or Task(task_id, "a", WAITING)
        fields = draw(FIELDS)
        if draw(st.booleans()):  # as it is in Ray: the shape of what is there stays
            fields = {
                key: value for key, value in fields.items() if key not in ("stage", "upstream")
            }
        tasks[task_id] = replace(known, **fields)
    return replace(it, tasks=tasks, status=draw(st.just(it.status) | st.sampled_from(RunStatus)))


@given(any_runs(), st.lists(any_runs(), max_size=2), st.data())
def test_an_analysis_of_the_changes_is_an_analysis_of_the_run(it, past, data):
    history = History()
    for number, earlier in enumerate(past):
        history.add(replace(earlier, workflow_id=str(number), status=RunStatus.SUCCESSFUL))
    analyst = Analyst(history)
    assert analyst.update(it) == analyse(it, history)
    for _ in range(data.draw(st.integers(0, 4))):
        before, it = it, data.draw(next_runs(it))
        looked = analyst.update(it, changed_tasks(before.tasks, it.tasks))
        full = analyse(it, history)
        assert looked == full
        assert [*looked.stages] == [*full.stages]


def growing_run() -> Run:
    return run(
        task("a", span=(0, 1)),
        task("f1", "a", state=RUNNING, span=(1, None)),
        task("f2", "a", state=RUNNING, span=(2, None)),
        task("out", "f1", "f2", state=WAITING),
    )


def with_tasks(it: Run, *tasks: Task) -> Run:
    return replace(it, tasks={**it.tasks, **{one.task_id: one for one in tasks}})


def dag_of(it: Run) -> Dag:
    dag = Dag()
    dag.grow({}, it.tasks, it.tasks)
    return dag


def follows(before: Run, *tasks: Task) -> bool:
    """Whether a Dag can follow the change, and then is the one made of the whole run."""
    dag = dag_of(before)
    after = with_tasks(before, *tasks)
    grown = dag.grow(before.tasks, after.tasks, [one.task_id for one in tasks])
    if grown:
        whole = dag_of(after)
        assert dag.task_edges == whole.task_edges
        assert (dag.upstream, dag.entries, dag.creators) == (
            whole.upstream,
            whole.entries,
            whole.creators,
        )
        assert {*dag.stage_edges.values()} == {*whole.stage_edges.values()}
    return grown


def test_a_dag_follows_tasks_that_go_on_and_runs_that_unfold():
    before = growing_run()
    assert follows(before, task("f1", "a", span=(1, 3)))
    assert follows(before, task("new", "f1", state=WAITING))
    returned = task("f1", "a", span=(1, 3), continuation="g2")
    assert follows(before, returned, task("g1", state=WAITING), task("g2", "g1", state=WAITING))
    assert follows(before, task("f1", "a", continuation="not yet known"))


def test_a_dag_that_is_bent_is_made_anew():
    before = with_tasks(growing_run(), task("late", "ghost", state=WAITING))
    assert not follows(before, task("ghost"))
    assert not follows(before, task("f1", "a", "f2"))
    assert not follows(before, task("f1", "a", stage="other"))
    bent = with_tasks(before, task("f1", "a", continuation="f2"))
    assert not follows(bent, task("f1", "a", continuation="out"))
    assert not follows(bent, task("a", continuation="out")), "two sub-DAGs hold f2"


def test_stages_without_a_change_are_the_same_objects():
    before = growing_run()
    analyst = Analyst()
    first = analyst.update(before)
    after = with_tasks(before, task("f1", "a", span=(1, 3)))
    second = analyst.update(after, ["f1"])
    assert [one is two for one, two in zip(first.stages, second.stages)] == [True, False, True]
    assert second.task_edges is first.task_edges
    assert second.stage_edges is first.stage_edges


def test_what_changed_is_told_by_identity():
    before = growing_run()
    assert changed_tasks(before.tasks, before.tasks) == []
    after = with_tasks(before, task("f2", "a"), task("new"))
    assert changed_tasks(before.tasks, after.tasks) == ["f2", "new"]
    assert changed_tasks({}, after.tasks) == list(after.tasks)
    assert changed_tasks(after.tasks, before.tasks) is None, "a task is gone"
    turned = dict(reversed(list(before.tasks.items())))
    assert changed_tasks(before.tasks, turned) is None, "the order is another one"


def test_an_estimate_follows_the_history_of_the_workflow():
    history = History()
    analyst = Analyst(history)
    before = growing_run()
    assert analyst.update(before).expected_end is None
    history.add(past_run(1, task("a", span=(0, 10)), end=100.0))
    assert analyst.update(before, []).expected_end == 100.0
