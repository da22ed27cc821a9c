"""`list`, `show` and `watch`: over a running exporter and directly."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from ray_workflow_exporter.cli import main
from ray_workflow_exporter.client import http_reader
from ray_workflow_exporter.client.connection import Connection
from ray_workflow_exporter.model import RunStatus, Task, TaskState
from support import command_line
from support.command_line import APART, FakeExporter, output, run
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run

pytestmark = pytest.mark.usefixtures("made", "quiet_machine")

# Fixtures.
made, quiet_machine = command_line.made, command_line.quiet_machine
source, url = command_line.source, command_line.url


def test_list_asks_the_exporter_at_a_url(url: str, made: list[FakeExporter]) -> None:
    lines = run("list", "--url", url).stdout.splitlines()
    assert len(lines) == 4
    assert lines[1].split()[:3] == ["train-7", "train", "RUNNING"]
    assert made == []


def test_list_as_json_has_the_shape_of_the_api(url: str) -> None:
    page = output("list", "--url", url, "-o", "json")
    direct = output("list", "--storage", "/somewhere", "-o", "json")
    assert page.keys() == direct.keys() == {"total", "limit", "offset", "items"}
    assert page["total"] == 3
    assert page["items"][0] == direct["items"][0]
    assert page["items"][0]["workflow_id"] == "train-7"


@pytest.mark.parametrize("direct", [False, True])
def test_list_filters(url: str, direct: bool) -> None:
    where = ("--storage", "/somewhere") if direct else ("--url", url)

    def found(*filters: str) -> set[str]:
        items = output("list", *where, "-o", "json", *filters)["items"]
        return {item["status"] for item in items}

    assert found("--status", "running") == {"RUNNING"}
    assert found("--status", "RUNNING", "--status", "FAILED") == {"RUNNING", "FAILED"}
    assert found("--workflow", "etl") == {"FAILED"}
    assert found("--workflow", "train", "--status", "FAILED") == set()


def test_list_reads_all_pages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_reader, "_PAGE", 2)
    assert len(output("list", "--url", url, "-o", "json")["items"]) == 3


def test_an_empty_list_says_so(url: str, source: FakeSource) -> None:
    source.held = {}
    result = run("list", "--url", url)
    assert (result.stdout, result.stderr) == ("", "No runs.\n")


def test_an_exporter_that_has_read_nothing_yet_has_no_empty_list(
    url: str, source: FakeSource
) -> None:
    source.held, source.ready = {}, False
    for flags in ((), ("--limit", "5")):
        result = run("list", "--url", url, *flags, code=1)
        assert "has not read workflow storage yet" in result.stderr


def test_show_explains_a_run(url: str) -> None:
    text = run("show", "etl/2025-06-01", "--url", url).stdout
    for part in ("FAILED", "DAG, by stages", "check: ValueError: no row password=***"):
        assert part in text


def test_show_as_json_is_the_run_with_its_tasks(url: str) -> None:
    shown = output("show", HOSTILE, "--url", url, "-o", "json")
    assert shown["workflow_id"] == HOSTILE
    assert shown["stages"][0]["stage"] == "load"
    assert shown["tasks"]["check"]["failure"]["exception"] == "ValueError"


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("command", ["show", "watch"])
def test_an_unknown_id_is_one_sentence_with_near_ones(url: str, direct: bool, command: str) -> None:
    where = ("--storage", "/somewhere") if direct else ("--url", url)
    result = run(command, "train-8", *where, code=1)
    assert result.stdout == ""
    assert result.stderr == "Error: There is no workflow 'train-8'; did you mean 'train-7'?\n"
    result = run(command, "\x1b[31m", *where, code=1)
    assert result.stderr == "Error: There is no workflow '\\x1b[31m'.\n"


def test_the_exporter_on_this_machine_is_asked_if_it_runs(
    url: str, made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_LISTEN", f":{url.rpartition(':')[2]}")
    assert output("list", "-o", "json")["total"] == 3
    assert made == []


@pytest.mark.parametrize("named", [["--storage", "/somewhere"], ["--address", "auto"]])
def test_who_names_a_cluster_is_not_told_of_another_one(
    url: str, made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_LISTEN", f":{url.rpartition(':')[2]}")
    assert output("list", "-o", "json", *named)["total"] == 2
    assert made[0].calls == ["load", "close"]


def test_who_names_no_ray_and_no_storage_means_the_exporter(
    url: str, made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_LISTEN", f":{url.rpartition(':')[2]}")
    assert output("list", "-o", "json", "--address", "none")["total"] == 3
    assert made == []


def test_without_an_exporter_the_command_reads_by_itself(made: list[FakeExporter]) -> None:
    assert output("list", "-o", "json")["total"] == 2
    (exporter,) = made
    assert exporter.calls == ["load", "close"]
    assert not exporter.keep


def test_storage_that_cannot_be_read_is_one_sentence(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: FakeExporter) -> None:
        self.status = {"storage_error": "The storage /x is not there."}

    monkeypatch.setattr(FakeExporter, "load", load)
    assert run("list", code=1).stderr == "Error: The storage /x is not there.\n"
    assert made[0].calls == ["close"]


def test_a_url_without_an_exporter_is_one_sentence_without_the_password() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{bound.getsockname()[1]}"
        result = run("list", "--url", f"http://user:hunter2@{host}", code=1)
    assert result.stderr == f"Error: No exporter answers at http://{host}.\n"
    assert run("list", "--url", "nonsense", code=1).stderr.startswith("Error: ")


def test_watch_ends_with_its_run(url: str) -> None:
    (line,) = run("watch", "etl/2025-06-01", "--url", url, code=1).stdout.splitlines()
    assert line.endswith("etl/2025-06-01  FAILED  1/3 1 failed  ValueError: no row password=***")


def test_a_log_gets_a_line_for_each_run_that_changed(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def poll_once(self: FakeExporter) -> None:
        self.calls.append("poll")
        if self.calls.count("poll") == 2:
            self.held = FakeSource(failed_run("train-7")).held
        if self.calls.count("poll") == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(FakeExporter, "poll_once", poll_once)
    lines = run("watch", "--refresh", "1ms").stdout.splitlines()
    seen = [line.split("  ")[1:3] for line in lines]
    assert seen == [["etl/direct", "FAILED"], ["train-7", "RUNNING"], ["train-7", "FAILED"]]


def test_watch_prints_each_change_and_nothing_twice(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def poll_once(self: FakeExporter) -> None:
        self.calls.append("poll")
        if self.calls.count("poll") == 3:
            self.held = FakeSource(failed_run("train-7")).held

    monkeypatch.setattr(FakeExporter, "poll_once", poll_once)
    lines = run("watch", "train-7", "--refresh", "1ms", "-o", "json", code=1).stdout.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["RUNNING", "FAILED"]
    assert made[0].calls == ["load", "poll", "poll", "poll", "close"]


def test_watch_stops_after_its_duration(made: list[FakeExporter]) -> None:
    text = run("watch", "--duration", "0", "-o", "json").stdout
    assert [item["workflow_id"] for item in json.loads(text)["items"]] == ["train-7", "etl/direct"]
    assert made[0].calls == ["load", "close"]


def test_ctrl_c_ends_watching_cleanly(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: FakeExporter) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeExporter, "poll_once", interrupt)
    result = run("watch", "--refresh", "1ms")
    assert result.stderr == ""
    assert "train-7" in result.stdout
    assert made[0].calls == ["load", "close"]


def test_a_terminal_is_redrawn_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def poll_once(self: FakeExporter) -> None:
        self.held = FakeSource(failed_run("train-7")).held

    monkeypatch.setattr(FakeExporter, "poll_once", poll_once)
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = run("watch", "train-7", "--refresh", "1ms", code=1).stdout
    assert "RUNNING" in text
    assert "FAILED" in text.split("\x1b[2K")[-1] + text.split("\x1b[1A")[-1]
    assert "\x1b[1A" in text  # the cursor goes up again


def test_list_sorts_and_limits(url: str, source: FakeSource) -> None:
    for number in range(5):
        source.held.update(FakeSource(failed_run(f"old-{number}")).held)

    def found(*flags: str) -> list[str]:
        items = output("list", "--url", url, "-o", "json", *flags)["items"]
        return [item["workflow_id"] for item in items]

    assert found("--limit", "1") == ["train-7"]
    assert (
        found("--sort", "id", "--limit", "3", "--workflow", "etl")
        == sorted(it for it in found("--workflow", "etl"))[:3]
    )
    assert found("--since", "1h") == ["train-7"]
    assert len(found("--since", "100y")) == 8
    longest = output("list", "--url", url, "-o", "json", "--sort", "duration", "--limit", "1")
    assert longest["items"][0]["duration"] == 6.0


def test_a_limited_list_asks_for_one_page_only(
    url: str, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    request = Connection.request
    monkeypatch.setattr(
        Connection,
        "request",
        lambda self, *given, **named: asked.append(given) or request(self, *given, **named),
    )
    monkeypatch.setattr(http_reader, "_PAGE", 2)
    run("list", "--url", url, "--limit", "2")
    assert len(asked) == 1
    run("list", "--url", url, "--limit", "3")
    assert len(asked) == 3


def test_a_large_run_is_shown_in_short_unless_all_tasks_are_asked_for(
    url: str, source: FakeSource
) -> None:
    tasks = [Task(f"map_{n}", "map", TaskState.SUCCESSFUL) for n in range(500)]
    tasks.append(Task("map_500", "map", TaskState.FAILED))
    large = replace(failed_run("large"), tasks={task.task_id: task for task in tasks})
    source.held.update(FakeSource(large).held)
    text = run("show", "large", "--url", url).stdout
    assert "… and 500 more: --tasks" in text
    assert "map_500" in text
    assert len(text.splitlines()) < 30
    assert len(run("show", "large", "--url", url, "--tasks").stdout.splitlines()) > 500
    assert len(output("show", "large", "--url", url, "-o", "json")["tasks"]) == 501


def test_a_reading_without_ray_says_what_it_cannot_tell(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "No Ray answers at 10.0.0.1:6379: timed out."

    def load(self: FakeExporter) -> None:
        self.held = FakeSource(replace(running_run(), status=RunStatus.RESUMABLE)).held
        self.status = {
            "storage": "/x",
            "storage_error": None,
            "manager": state,
            "manager_reason": reason,
        }

    monkeypatch.setattr(FakeExporter, "load", load)
    for state in ("unreachable", "unsupported", "off"):
        listed = run("list", "--storage", "/x")
        assert "RESUMABLE?" in listed.stdout
        expected = "Ray was not asked (--address none)." if state == "off" else reason
        assert listed.stderr == (
            f"Note: {expected} Live runs cannot be told from interrupted ones: `RESUMABLE?` stands "
            "for both.\n"
        )
        (note,) = output("list", "--storage", "/x", "-o", "json")["notes"]
        assert note.startswith(expected)
        shown = run("show", "train-7", "--storage", "/x")
        assert "RESUMABLE?" in shown.stdout
        assert shown.stderr == listed.stderr
        assert run("watch", "--storage", "/x", "--duration", "0").stderr == listed.stderr
    state = "absent"
    listed = run("list", "--storage", "/x")
    assert "RESUMABLE?" not in listed.stdout
    assert listed.stderr == ""


def test_a_cluster_without_storage_has_no_runs_and_says_why(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "Ray was started without --storage, so that no workflow can run on it."

    def load(self: FakeExporter) -> None:
        self.held = {}
        self.status = {
            "storage": None,
            "storage_error": None,
            "manager": "absent",
            "manager_reason": reason,
        }

    monkeypatch.setattr(FakeExporter, "load", load)
    assert run("list").stderr == f"Note: {reason}\nNo runs.\n"


def test_a_storage_in_doubt_is_a_warning_of_each_command(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    warning = "The storage /x has no file '_valid'."

    def load(self: FakeExporter) -> None:
        self.status = {"storage": "/x", "storage_error": None, "storage_warning": warning}

    monkeypatch.setattr(FakeExporter, "load", load)
    for command in (["list"], ["show", "train-7"], ["watch", "--duration", "0"]):
        assert run(*command, "--storage", "/x").stderr == f"Warning: {warning}\n"
    assert output("list", "--storage", "/x", "-o", "json")["warnings"] == [warning]


def test_an_exporter_that_reads_a_storage_in_doubt_says_so_in_its_list(
    url: str, source: FakeSource
) -> None:
    assert "warnings" not in output("list", "--url", url, "-o", "json")
    source.status = {**source.status, "storage_warning": "It may be a copy."}
    for command in (["list"], ["show", "train-7"], ["watch", "--duration", "0"]):
        assert run(*command, "--url", url).stderr == "Warning: It may be a copy.\n"
    assert output("list", "--url", url, "-o", "json")["warnings"] == ["It may be a copy."]


def complete(words: str, *, cword: int) -> list[str]:
    done = CliRunner(**APART).invoke(
        main,
        prog_name="ray-workflow-exporter",
        env={
            "_RAY_WORKFLOW_EXPORTER_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(cword),
        },
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_the_shell_completes_ids_of_the_exporter_that_runs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_LISTEN", f":{url.rpartition(':')[2]}")
    assert complete("ray-workflow-exporter show tr", cword=2) == ["train-7"]
    assert complete("ray-workflow-exporter cancel etl", cword=2) == ["etl/2025-06-01"]
    assert "watch" in complete("ray-workflow-exporter w", cword=1)


def test_without_an_exporter_nothing_is_completed(made: list[FakeExporter]) -> None:
    assert complete("ray-workflow-exporter show tr", cword=2) == []
    assert complete("ray-workflow-exporter show --interval soon tr", cword=4) == []
    assert made == []
