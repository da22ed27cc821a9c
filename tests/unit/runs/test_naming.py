import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.runs.naming import (
    MAX_LENGTH,
    OTHER,
    UNNAMED,
    WorkflowNames,
    stage_name,
    workflow_name,
)

words = st.sampled_from(["etl", "nightly_v2", "train-resnet50", "größe", "a.b", "dbt__run", "x y"])
tails = st.one_of(
    st.uuids().map(str),
    st.uuids().map(lambda it: it.hex),
    st.integers(0, 10**19).map(str),
    st.datetimes().map(lambda it: it.isoformat()),
    st.dates().map(lambda it: f"{it:%Y%m%d}"),
    st.dates().map(lambda it: f"{it:%Y_%m_%d}"),
    st.datetimes().map(lambda it: f"{it:%Y%m%dT%H%M%SZ}"),
    st.floats(1e9, 2e9).map(lambda it: f"{it:.9f}"),
    st.text("0123456789abcdef", min_size=7, max_size=64).map(lambda it: f"1{it}"),
)


@pytest.mark.parametrize(
    ("workflow_id", "expected"),
    [
        ("etl", "etl"),
        ("etl-2024-05-01", "etl"),
        ("etl_20240501T120000Z", "etl"),
        ("etl-2024-05-01T12:00:00.5+02:00", "etl"),
        ("etl 2024-05-01 12:30", "etl"),
        ("etl20240501", "etl"),
        ("etl.1714560000.123", "etl"),
        ("etl-8f14e45fceea", "etl"),
        ("etl-8F14E45F-CEEA-467F-A8DA-1B2C3D4E5F60", "etl"),
        ("etl-01HV5K3QZ9A8B7C6D5E4F3G2H1", "etl"),
        ("etl\n3", "etl"),
        ("train/2024/05/01/run-17", "train/run"),
        ("8f14e45f-ceea-467f-a8da-1b2c3d4e5f60/etl", "etl"),
        ("2024-05-01-etl", "etl"),
        ("etl-2024-05-01-full", "etl-full"),
        ("etl:2024-05-01T12:00:00Z:retry", "etl:retry"),
        ("scheduled__2024-05-01T00:00:00+00:00", "scheduled"),
        ("run-17", "run"),
        ("12345", UNNAMED),
        ("", UNNAMED),
        ("..", UNNAMED),
        ("8f14e45fceea467fa8da1b2c3d4e5f60", UNNAMED),
    ],
)
def test_the_workflow_is_the_id_without_what_changes_from_run_to_run(workflow_id, expected):
    assert workflow_name(workflow_id, {}) == expected


@pytest.mark.parametrize(
    "workflow_id",
    ["nightly_v2", "resnet50", "sha256", "deadbeef", "model-7-train", "__main__.f", "tä/sk", "f()"],
)
def test_an_id_that_holds_no_tail_is_its_own_workflow(workflow_id):
    assert workflow_name(workflow_id, {}) == workflow_id


def test_an_id_that_ray_made_up_is_unnamed():
    assert workflow_name(f"{uuid.uuid4()}.{time.time():.9f}", {}) == UNNAMED


def test_user_metadata_names_the_workflow_before_the_id_does():
    assert workflow_name("etl-7", {"workflow": " billing-2024 "}) == "billing-2024"


def test_the_metadata_key_can_be_chosen():
    assert workflow_name("etl-7", {"workflow": "no", "pipeline": "yes"}, key="pipeline") == "yes"


@pytest.mark.parametrize("value", ["", "  \n", None, 7, ["etl"], {"name": "etl"}])
def test_metadata_that_is_no_text_names_nothing(value):
    assert workflow_name("etl-7", {"workflow": value}) == "etl"


@given(words, st.sampled_from(["-", "_", ".", ":", "/", " ", "__"]), tails, tails)
def test_any_tail_is_stripped_and_the_word_before_it_stays(word, separator, first, second):
    assert workflow_name(f"{word}{separator}{first}", {}) == word
    assert workflow_name(f"{word}{separator}{first}{separator}{second}", {}) == word


@given(st.text(max_size=600), st.dictionaries(st.just("workflow"), st.text(max_size=600)))
def test_every_id_has_a_workflow_of_bounded_length(workflow_id, metadata):
    name = workflow_name(workflow_id, metadata)
    assert 0 < len(name) <= MAX_LENGTH


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["-", "a", "1", "2024-05-", "2024-05-01T", "8f14e45f-ceea-", "-1", "1a", "_1x", "/2"]
)
def test_a_hostile_id_takes_linear_time(piece):
    assert len(workflow_name(piece * 200_000, {})) <= MAX_LENGTH


@pytest.mark.parametrize(
    ("task_id", "base_names", "stage"),
    [
        ("f", {"f"}, "f"),
        ("f_2", {"f"}, "f"),
        ("f_10", {"f"}, "f"),
        ("f_2", {"f", "f_2"}, "f_2"),
        ("f_2_1", {"f", "f_2"}, "f_2"),
        ("f_2", set(), "f_2"),
        ("f_2", {"g"}, "f_2"),
        ("f_0", {"f"}, "f_0"),
        ("f_02", {"f"}, "f_02"),
        ("f_", {"f"}, "f_"),
        ("f_²", {"f"}, "f_²"),
        ("f_x", {"f"}, "f_x"),
        ("_1", {""}, ""),
        ("tä/sk_3", {"tä/sk"}, "tä/sk"),
    ],
)
def test_a_stage_is_the_task_id_without_the_suffix_of_a_known_name(task_id, base_names, stage):
    assert stage_name(task_id, base_names) == stage


@given(st.lists(st.sampled_from(["f", "g", "f_g", "mod.f", "x_"]), max_size=30))
def test_every_id_that_ray_generates_leads_back_to_its_name(names):
    counters = {}
    for name in names:
        count = counters[name] = counters.get(name, -1) + 1
        task_id = name if count == 0 else f"{name}_{count}"  # Ray's gen_task_id
        assert stage_name(task_id, counters) == name


@given(st.integers(0, 5), st.lists(st.sampled_from("abcdefgh")))
def test_workflows_are_served_in_order_up_to_the_limit_and_the_rest_is_other(limit, workflows):
    names = WorkflowNames(limit)
    served = list(dict.fromkeys(workflows))[:limit]
    for workflow in workflows:
        assert names.name(workflow) == (workflow if workflow in served else OTHER)
    assert names.folded == len(set(workflows)) - len(served)


def test_counting_folded_workflows_needs_bounded_memory():
    names = WorkflowNames(0)
    for number in range(12_000):
        names.name(f"workflow {number}")
    assert names.folded == 10_000
