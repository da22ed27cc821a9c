from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from dataclasses import replace
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.catalog.snapshot import Snapshot
from ray_workflow_exporter.metrics import blocks, exposition
from ray_workflow_exporter.metrics.exposition import Renderer
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import DETAILS, Options, Tier
from ray_workflow_exporter.metrics.own import SelfMetrics
from ray_workflow_exporter.model import RunStatus, TaskState
from support.expositions import body, check, own_metrics, page, parsed, render, samples, series
from support.snapshots import (
    START,
    full_snapshot,
    make_run,
    make_snapshot,
    make_task,
    make_view,
    make_workflow,
)

OPTIONS = Options(meta_labels=("team", "cost-center"))


# --- both formats


def test_a_snapshot_reads_as_text(golden: Callable[[str, str], None]) -> None:
    golden("metrics.txt", render(full_snapshot(), options=OPTIONS).decode())


def test_a_snapshot_reads_as_openmetrics(golden: Callable[[str, str], None]) -> None:
    shown = render(full_snapshot(), options=OPTIONS, openmetrics=True).decode()
    golden("metrics.openmetrics.txt", shown)


def test_both_formats_share_their_sample_lines() -> None:
    def lines(openmetrics: bool) -> list[bytes]:
        body = render(full_snapshot(), openmetrics=openmetrics)
        return [line for line in body.split(b"\n") if not line.startswith(b"#")]

    assert lines(True) == lines(False)


def test_both_parsers_read_the_same_from_both_formats() -> None:
    assert len(check(full_snapshot(), OPTIONS)) == sum(it.samples is not None for it in FAMILIES)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_page_holds_every_family_of_the_table(openmetrics: bool) -> None:
    shown = page(Renderer().render(full_snapshot()), own_metrics(), openmetrics=openmetrics)
    assert shown.endswith(b"# EOF\n") == openmetrics
    names = [
        family.name + ("_total" if family.type == "counter" else "")
        for family in parsed(shown, openmetrics=openmetrics)
    ]
    assert sorted(names) == sorted(family.name for family in FAMILIES)


@pytest.mark.prometheus
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say() -> None:
    shown = page(Renderer(OPTIONS).render(full_snapshot()), own_metrics())
    done = subprocess.run(["promtool", "check", "metrics"], input=shown, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_cluster_without_runs_has_no_object_families() -> None:
    shown = render(Snapshot(START, storage_up=False, manager_up=False))
    assert samples(parsed(shown)) == [
        ("ray_workflow_storage_up", frozenset(), "0.0"),
        ("ray_workflow_manager_up", frozenset(), "0.0"),
    ]


# --- tiers and detail


def tiers_of(body: bytes) -> set[Tier]:
    by_name = {family.name: family.tier for family in FAMILIES}
    return {by_name[line.split()[2].decode()] for line in body.split(b"\n") if b"# TYPE" in line}


@pytest.mark.parametrize("detail", DETAILS)
def test_detail_names_the_last_tier_exposed(detail: Tier) -> None:
    expected = {Tier.CLUSTER, Tier.EXPORTER, *DETAILS[: DETAILS.index(detail) + 1]}
    assert tiers_of(render(full_snapshot(), options=Options(detail=detail))) == expected


def test_a_scrape_may_pick_tiers() -> None:
    exposed = Renderer().render(full_snapshot())
    own = own_metrics()
    assert tiers_of(page(exposed, own, tiers=["run", "cluster"])) == {Tier.RUN, Tier.CLUSTER}
    assert tiers_of(page(exposed, own, tiers=["exporter"])) == {Tier.EXPORTER}
    assert b"build_info" in page(exposed, own, tiers=["exporter"])
    assert page(exposed, own, tiers=[], openmetrics=True) == b"# EOF\n"


def test_a_run_without_stages_and_tasks_shows_no_edges() -> None:
    tasks = [make_task("a"), make_task("b", upstream=("a",))]
    view = make_view(make_run("r", tasks=tasks), stages=False, tasks=())
    assert tiers_of(render(make_snapshot(view))) == {Tier.CLUSTER, Tier.RUN}


def test_an_edge_is_shown_only_with_both_its_ends() -> None:
    tasks = [
        make_task("a", TaskState.FAILED),
        make_task("b", TaskState.FAILED, upstream=("a",)),
        make_task("c", upstream=("b",)),
    ]
    run = make_run("r", RunStatus.FAILED, tasks)
    shown = render(make_snapshot(make_view(run, tasks=tasks[:2])), tiers=["task"]).decode()
    edges = [line for line in shown.splitlines() if line.startswith("ray_workflow_task_edge")]
    (edge,) = edges
    assert 'source="a",target="b",kind="data"' in edge


# --- the cache


def test_an_unchanged_run_is_not_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_view(make_run("first")), make_view(make_run("second"))
    renderer = Renderer()
    renderer.render(make_snapshot(first, second, workflows=[make_workflow()]))

    rendered: set[str] = set()
    original = exposition.lines

    def spy(family: Any, subjects: Any, options: Options) -> bytes:
        subjects = list(subjects)
        rendered.update(
            subject.run.workflow_id for _, subject in subjects if family.scope.tier is Tier.RUN
        )
        rendered.update(
            subject.workflow for _, subject in subjects if family.scope.tier is Tier.WORKFLOW
        )
        return original(family, subjects, options)

    monkeypatch.setattr(exposition, "lines", spy)
    changed = make_view(replace(second.run, deadline=START))
    after = make_snapshot(first, changed, workflows=[make_workflow()])
    shown = body(renderer.render(after))
    assert rendered == {"second"}
    assert shown == render(after)


def test_a_run_that_is_gone_leaves_nothing_behind() -> None:
    renderer = Renderer()
    renderer.render(make_snapshot(make_view(make_run("gone")), workflows=[make_workflow("gone")]))
    assert b"gone" not in body(renderer.render(make_snapshot()))


def test_a_snapshot_that_was_rendered_does_not_change_with_the_next_one() -> None:
    renderer = Renderer()
    before = renderer.render(make_snapshot(make_view(make_run("r"))))
    shown = body(before)
    renderer.render(make_snapshot())
    assert body(before) == shown


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([f"run-{number}" for number in range(8)]),
            st.tuples(st.sampled_from(RunStatus), st.integers(0, 12)),
            max_size=8,
        ),
        min_size=1,
        max_size=6,
    ),
    st.sets(st.sampled_from(Tier)),
    st.booleans(),
)
def test_any_changes_show_what_a_fresh_rendering_shows(
    steps: list[dict[str, tuple[RunStatus, int]]], tiers: set[Tier], openmetrics: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BUCKET_BYTES", 20_000)  # a few runs
        renderer = Renderer()
        for step in steps:
            shown = make_snapshot(
                *(
                    make_view(
                        make_run(name, status, [make_task(f"map_{it}") for it in range(tasks)])
                    )
                    for name, (status, tasks) in step.items()
                ),
                workflows=[make_workflow(name) for name in step],
            )
            wanted: Any = {"openmetrics": openmetrics, "tiers": tiers or None}
            exposed = renderer.render(shown)
            found, fresh = body(exposed, **wanted), render(shown, **wanted)
            assert by_family(found) == by_family(fresh)
            assert series(exposed) == series(Renderer().render(shown))
            own = own_metrics()
            packed = page(exposed, own, gzip=True, **wanted)
            assert gzip.decompress(packed) == page(exposed, own, **wanted)


def by_family(body: bytes) -> list[tuple[bytes, list[bytes]]]:
    """Return the header and the sorted samples of each family."""
    header, *parts = re.split(rb"^(?=# HELP)", body, flags=re.MULTILINE)
    assert header == b""
    return [
        (
            b"".join(line for line in part.splitlines() if line.startswith(b"#")),
            sorted(line for line in part.splitlines() if not line.startswith(b"#")),
        )
        for part in parts
    ]


def test_a_rendering_that_failed_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer()
    kept, gone, new = (make_view(make_run(name)) for name in ("kept", "gone", "new"))
    renderer.render(make_snapshot(kept, gone))
    with monkeypatch.context() as patch:
        patch.setattr(exposition, "lines", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            renderer.render(make_snapshot(kept, new))
    after = make_snapshot(kept, new)
    assert body(renderer.render(after)) == render(after)


def test_messages_can_be_switched_off() -> None:
    shown = render(full_snapshot(), options=Options(error_messages=False)).decode()
    failures = [line for line in shown.splitlines() if "_failure_info{" in line]
    assert len(failures) == 2
    for line in failures:
        assert 'exception="sqlalchemy.exc.OperationalError",message=""}' in line


# --- the exporter's own metrics


def test_own_metrics_have_no_created_series_and_start_at_zero() -> None:
    shown = b"".join(SelfMetrics("1.2.3").block().plain).decode()
    assert "_created" not in shown
    for phase in ("list", "read", "manager", "render"):
        assert f'ray_workflow_exporter_poll_errors_total{{phase="{phase}"}} 0.0\n' in shown
    assert "ray_workflow_exporter_link_restarts_total 0.0\n" in shown
    for action in ("cancel", "resume", "delete"):
        assert f'_actions_total{{action="{action}",result="denied"}} 0.0\n' in shown


def test_own_metrics_say_what_happened() -> None:
    own = own_metrics()
    own.count("link_restarts_total")
    found = {
        (name, dict(labels).get("le", "")): value
        for name, labels, value in samples(parsed(b"".join(own.block().plain)))
    }
    prefix = "ray_workflow_exporter_"
    assert found[f"{prefix}link_restarts_total", ""] == "3.0"
    assert found[f"{prefix}last_poll_timestamp_seconds", ""] == repr(START)
    assert found[f"{prefix}poll_duration_seconds_bucket", "0.01"] == "0.0"
    assert found[f"{prefix}poll_duration_seconds_bucket", "0.025"] == "1.0"
    assert found[f"{prefix}change_latency_seconds_sum", ""] == "0.75"
    assert found[f"{prefix}probe_duration_seconds_count", ""] == "1.0"
    assert found[f"{prefix}actions_total", ""] == "1.0"
    assert found[f"{prefix}series", ""] == "1.0"


@pytest.mark.parametrize("openmetrics", [False, True])
def test_own_metrics_are_ready_until_something_happens(openmetrics: bool) -> None:
    own = own_metrics()
    own.prepare()
    ready = own.block(openmetrics=openmetrics)
    assert own.block(openmetrics=openmetrics) is ready
    own.count("actions_total", "cancel", "succeeded")
    changed = own.block(openmetrics=openmetrics)
    assert b'{action="cancel",result="succeeded"} 1.0\n' in changed.plain[0]
    own.prepare()
    assert own.block(openmetrics=openmetrics) == changed
