"""Any snapshot at all makes a valid exposition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.analysis.analysis import Analysis, RootCause, Stage
from ray_workflow_exporter.catalog.snapshot import (
    Histogram,
    RunView,
    Snapshot,
    WorkflowTotals,
    WorkflowView,
)
from ray_workflow_exporter.metrics.family import DETAILS, Options, Tier
from ray_workflow_exporter.model import (
    Edge,
    EdgeKind,
    Failure,
    FailureKind,
    Run,
    RunStatus,
    Task,
    TaskState,
)
from support.expositions import check
from support.snapshots import START

ids = st.text(st.characters(), max_size=300) | st.sampled_from(["a", "b", "a\x01", "a\\x01"])
times = st.none() | st.floats(allow_nan=True, allow_infinity=True)
sizes = st.none() | st.integers(0, 2**63)
failures = st.builds(Failure, st.sampled_from(FailureKind), ids, ids)
tasks = st.builds(
    Task,
    task_id=ids,
    stage=ids,
    state=st.sampled_from(TaskState),
    submit_time=times,
    start_time=times,
    end_time=times,
    output_bytes=sizes,
    attempts=st.integers(0, 5),
    max_retries=st.none() | st.integers(-1, 5),
    checkpoint=st.none() | st.booleans(),
    failure=st.none() | failures,
    node_id=st.none() | ids,
)
counts = st.dictionaries(st.sampled_from(TaskState), st.integers(0, 9))


@st.composite
def views(draw: st.DrawFn, workflow_id: str) -> RunView:
    known = draw(st.lists(tasks, max_size=4, unique_by=lambda task: task.task_id))
    names = draw(st.lists(ids, max_size=3, unique=True))
    ends = st.sampled_from([*names, *(task.task_id for task in known), "nowhere"])
    edges = st.lists(
        st.builds(Edge, ends, ends, st.sampled_from(EdgeKind)), unique=True, max_size=6
    )
    stages = [Stage(name, draw(counts), draw(sizes), draw(times), draw(times)) for name in names]
    analysis = Analysis(
        tasks=draw(counts),
        progress=draw(st.floats(0, 1)),
        output_bytes=draw(sizes),
        stages=tuple(stages),
        stage_edges=tuple(draw(edges)),
        task_edges=tuple(draw(edges)),
        critical_path=tuple(task.task_id for task in known[:2]),
        critical_seconds=draw(times),
        expected_end=draw(times),
        root_cause=draw(st.none() | st.builds(RootCause, ids, ids, failures, st.just(0))),
    )
    run = Run(
        workflow_id,
        draw(ids),
        draw(st.sampled_from(RunStatus)),
        {task.task_id: task for task in known},
        start_time=draw(times),
        end_time=draw(times),
        deadline=draw(times),
        user_metadata=draw(st.dictionaries(st.sampled_from(["team", "cost-center"]), ids | sizes)),
    )
    return RunView(run, analysis, draw(st.booleans()), tuple(known[: draw(st.integers(0, 4))]))


amounts = st.floats(0, 1e18)


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    bounds = sorted(draw(st.sets(st.floats(0, 1e9), min_size=1, max_size=4)))
    size = len(bounds) + 1
    numbers = draw(st.lists(st.integers(0, 10**9), min_size=size, max_size=size))
    return Histogram(tuple(bounds), tuple(numbers), draw(st.floats(0, 1e12)))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    workflows = [
        WorkflowView(
            name,
            draw(st.dictionaries(st.sampled_from(RunStatus), st.integers(0, 9))),
            WorkflowTotals(
                run_durations={RunStatus.FAILED: draw(histograms())},
                stage_durations=draw(st.dictionaries(ids, histograms(), max_size=2)),
                resource_seconds={draw(ids): draw(st.dictionaries(ids, amounts, max_size=2))},
            ),
            last_success=draw(times),
        )
        for name in draw(st.lists(ids, max_size=2, unique=True))
    ]
    return Snapshot(
        START,
        draw(st.booleans()),
        draw(st.booleans()),
        tuple(draw(views(name)) for name in draw(st.lists(ids, max_size=3, unique=True))),
        tuple(workflows),
        hidden=draw(st.dictionaries(ids, st.integers(0, 9), max_size=2)),
    )


@given(snapshots(), st.sampled_from(DETAILS), st.booleans())
def test_any_snapshot_is_valid_in_both_formats(
    snapshot: Snapshot, detail: Tier, error_messages: bool
) -> None:
    check(snapshot, Options(detail, error_messages, ("team", "cost-center")))
