from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs.reference.settings import format_duration, render_docs
from ray_workflow_exporter.settings.addresses import parse_listen
from ray_workflow_exporter.settings.settings import (
    SETTINGS,
    Settings,
    SettingsError,
    WorkflowSettings,
)
from ray_workflow_exporter.settings.values import parse_duration

DOCS = Path(__file__).parents[3] / "docs" / "settings.md"


def problem(file: Optional[Path] = None, environ: Any = None, **flags: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(file, environ or {}, flags)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "exporter.yml"


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    file.write_text("interval: 5\ndetail: run\nmax_workflows: 7\n")
    environ = {"RAY_WORKFLOW_EXPORTER_INTERVAL": "250ms", "RAY_WORKFLOW_EXPORTER_DETAIL": "stage"}
    settings = Settings.load(file, environ, {"detail": "workflow", "listen": None})
    assert (settings.interval, settings.detail, settings.max_workflows) == (0.25, "workflow", 7)
    assert settings.listen == ":20729"


def test_an_empty_file_and_an_empty_variable_set_nothing(file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert Settings.load(file, {"RAY_WORKFLOW_EXPORTER_STORAGE": ""}, {}) == Settings()


def test_lists_and_mappings_are_read_from_text_and_from_yaml(file: Path) -> None:
    file.write_text("metadata_labels: [team, region]\nworkflows: {etl: {deadline: 2h}}\n")
    from_file = Settings.load(file, {}, {})
    from_flags = Settings.load(
        None, {}, {"metadata_labels": "team, region", "workflows": '{"etl": {"deadline": "2h"}}'}
    )
    assert from_file == from_flags
    assert from_file.metadata_labels == ("team", "region")
    assert from_file.workflows == {"etl": WorkflowSettings(deadline=7200.0)}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().interval = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "intervall: 3",
            "The file {file} has the unknown key 'intervall'; did you mean 'interval'?",
        ),
        ("storage: [", "The file {file} is not valid YAML at line 1, column 11."),
        ("storage", "The file {file} must hold `key: value` lines, one for a setting."),
        (
            "detail: tsak",
            "'detail' in the file {file} must be 'workflow', 'run', 'stage' or 'task'; "
            "did you mean 'task'?",
        ),
        ("interval: 0.01", "'interval' in the file {file} must be at least 0.1."),
        ("max_workflows: yes", "'max_workflows' in the file {file} must be a whole number."),
        ("objective: 1", "'objective' in the file {file} must be less than 1.0."),
        ("objective: yes", "'objective' in the file {file} must be less than 1.0."),
        ("max_workflows: -1", "'max_workflows' in the file {file} must be at least 0."),
        ("workflow_key: ''", "'workflow_key' in the file {file} must not be empty."),
        ("metadata_labels: 7", "'metadata_labels' in the file {file} must be a list of texts."),
        (
            "expose_error_messages: 7",
            "'expose_error_messages' in the file {file} must be true or false.",
        ),
        ("state_dir: 7", "'state_dir' in the file {file} must be a path."),
        ("workflows: {etl: 7}", "'workflows' in the file {file}, at etl, must be a mapping."),
        (
            "workflows: {etl: {dedline: 1h}}",
            "'workflows' in the file {file}, at etl, has the unknown key 'dedline'; "
            "did you mean 'deadline'?",
        ),
        (
            "workflows: {etl: {deadline: -1}}",
            "'workflows' in the file {file}, at etl.deadline, must be a duration: seconds, or a "
            "text such as 30s, 1h30m or 250ms.",
        ),
    ],
)
def test_one_sentence_says_what_is_wrong_in_the_file(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    assert problem(file) == sentence.format(file=file)


def test_a_file_that_cannot_be_read_is_named(file: Path) -> None:
    assert problem(file) == f"The file {file} cannot be read: No such file or directory."


def test_a_wrong_value_in_a_variable_or_flag_is_put_down_to_it() -> None:
    environ = {"RAY_WORKFLOW_EXPORTER_MAX_WORKFLOWS": "many"}
    assert (
        problem(environ=environ)
        == "The variable RAY_WORKFLOW_EXPORTER_MAX_WORKFLOWS must be a whole number."
    )
    assert problem(max_workflows="many") == "The flag --max-workflows must be a whole number."


def test_an_unknown_variable_of_ours_is_an_error() -> None:
    assert problem(environ={"RAY_WORKFLOW_EXPORTER_INTERVALL": "3"}) == (
        "The variable RAY_WORKFLOW_EXPORTER_INTERVALL names no setting; "
        "did you mean 'RAY_WORKFLOW_EXPORTER_INTERVAL'?"
    )


def test_variables_that_kubernetes_sets_for_a_service_of_our_name_are_ignored() -> None:
    prefix = "RAY_WORKFLOW_EXPORTER_"
    tails = (
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_20729_TCP",
        "PORT_20729_TCP_PROTO",
        "HEADLESS_SERVICE_HOST",
        "HEADLESS_PORT_20729_TCP_ADDR",
    )
    assert Settings.load(None, {prefix + tail: "x" for tail in tails}, {}) == Settings()


@pytest.mark.parametrize("key", SETTINGS)
def test_no_value_ever_stands_in_an_error(key: str, file: Path) -> None:
    secret = "[hunter2: AKIAIOSFODNN7EXAMPLE"
    for text in (f"{key}: {secret}", f"{key}: *hunter2", f"{key}: !hunter2 x", f"{key}:hunter2"):
        file.write_text(text)
        assert "hunter2" not in problem(file)
    any_text = ("storage", "address", "workflow_key", "metadata_labels")
    if key not in (*any_text, "state_dir", "tokens_file", "web_config_file"):
        for given_problem in (
            problem(environ={f"RAY_WORKFLOW_EXPORTER_{key.upper()}": secret}),
            problem(None, None, **{key: secret}),
        ):
            assert "hunter2" not in given_problem
            assert "AKIA" not in given_problem


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (5, 5.0),
        (0.5, 0.5),
        ("0", 0.0),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("1h30m", 5400.0),
        ("1d12h", 129_600.0),
        ("1w", 604_800.0),
        (" 2m5s ", 125.0),
    ],
)
def test_durations_are_seconds_or_prometheus_notation(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "5 s", "30m1h", "1h1h", "1.5h", "-1", "-1s", "nan", "inf", True, None, [1]]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["101y", "9" * 400 + "s", "1e30", 10**400, float("inf")])
def test_a_duration_beyond_what_timers_can_hold_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration of at most 100y"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_duration_survives_being_written_and_read(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert parse_duration(text) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":20729", (None, 20729)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:80", ("localhost", 80)),
        ("[::1]:20729", ("::1", 20729)),
        ("[::]:65535", ("::", 65535)),
    ],
)
def test_listen_addresses(text: str, address: tuple[Optional[str], int]) -> None:
    assert parse_listen(text) == address
    assert Settings(listen=text).listen == text


@pytest.mark.parametrize("text", ["", "20729", "::1:80", "host", "host:", ":65536", "a b:1", ":x"])
def test_what_is_no_listen_address_is_refused(text: str) -> None:
    assert "must be host:port" in problem(listen=text)


def test_the_state_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Settings().state_path == tmp_path / "ray-workflow-exporter"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert Settings().state_path == Path("/home/ada/.local/state/ray-workflow-exporter")
    assert Settings(state_dir=Path("~/x")).state_path == Path("/home/ada/x")


def test_the_documentation_is_up_to_date() -> None:
    assert DOCS.read_text() == render_docs(), "run `python -m docs.reference.settings`"


def test_every_setting_explains_itself() -> None:
    assert all(field.description for field in SETTINGS.values())


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "1/0", "0/", "a/b", "1/3/5", "0x1/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="must be i/n with 0 <= i < n"):
        Settings.load(None, {}, {"shard": text})


def test_each_run_belongs_to_one_shard_of_any_number() -> None:
    ids = [f"run-{number}" for number in range(300)] + ["", "ü", "\ud800"]
    assert all(Settings().holds(workflow_id) for workflow_id in ids)
    for count in (2, 3, 7):
        shards = [Settings(shard=f"{index}/{count}") for index in range(count)]
        owners = [[it.holds(workflow_id) for it in shards] for workflow_id in ids]
        assert all(sum(held) == 1 for held in owners)
        parts = [sum(held[index] for held in owners) for index in range(count)]
        assert min(parts) > 0.5 * len(ids) / count


def test_a_run_belongs_to_the_same_shard_in_every_process() -> None:
    owners = {"etl-1": 0, "etl-2": 1, "etl-3": 0, "ü": 0, "a/b": 2, "": 0}
    for index in range(3):
        shard = Settings(shard=f"{index}/3")
        assert [key for key in owners if shard.holds(key)] == [
            key for key, owner in owners.items() if owner == index
        ]


def test_the_web_config_is_named_in_the_file_as_well(file: Path) -> None:
    file.write_text("web_config_file: /etc/web.yml\n")
    assert Settings.load(file, {}, {}).web_config_file == Path("/etc/web.yml")
    flags = {"web_config_file": "/etc/other.yml"}
    assert Settings.load(file, {}, flags).web_config_file == Path("/etc/other.yml")
