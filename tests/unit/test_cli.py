from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

import ray_workflow_exporter
from docs.reference.command_line import render_docs
from ray_workflow_exporter import logs
from ray_workflow_exporter.cli import main
from ray_workflow_exporter.client import direct_reader, http_reader
from ray_workflow_exporter.client.client import local_url
from ray_workflow_exporter.client.connection import Connection
from ray_workflow_exporter.commands import COMMANDS
from ray_workflow_exporter.commands import serve as serve_module
from ray_workflow_exporter.model import RunStatus, Task, TaskState
from ray_workflow_exporter.server.app import create_app
from ray_workflow_exporter.settings.settings import SETTINGS, Settings, flag
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run


class FakeExporter(FakeSource):
    """Stands in for `Exporter`; notes what is asked of it."""

    made: list[FakeExporter] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, settings: Settings, *, keep: bool = False) -> None:
        super().__init__(running_run(), failed_run("etl/direct"))
        self.settings = settings
        self.keep = keep
        self.calls: list[str] = []
        self.status = {"storage_error": None}
        self.made.append(self)

    def load(self) -> None:
        self.calls.append("load")

    def poll_once(self) -> None:
        self.calls.append("poll")

    def start(self) -> None:
        self.calls.append("start")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeExporter]:
    """Exporters that were made, in place of real ones."""
    monkeypatch.setattr(direct_reader, "Exporter", FakeExporter)
    monkeypatch.setattr(serve_module, "Exporter", FakeExporter)
    monkeypatch.setattr(FakeExporter, "made", [])
    return FakeExporter.made


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings in the environment, no exporter on this machine, logging as it was."""
    for name in list(os.environ):
        if name.startswith("RAY_WORKFLOW_EXPORTER_") or name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_LISTEN", f":{port}")
        root = logging.getLogger()
        handlers, level = root.handlers, root.level
        yield  # the port stays bound, and nobody listens on it
        root.handlers = handlers
        root.setLevel(level)


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(running_run(), failed_run(), failed_run(HOSTILE))


@pytest.fixture
def url(source: FakeSource) -> Iterator[str]:
    """A web server over `source`, in a thread of its own."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(create_app(source, Settings()))

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        return port

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(start(), loop).result(10)}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


# click 8.1, the last one for Python 3.9, mixes stderr into stdout unless told otherwise.
_APART: Any = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner(**_APART).invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def output(*arguments: str) -> Any:
    return json.loads(run(*arguments).stdout)


def test_help_has_a_flag_for_every_setting() -> None:
    text = run("--help").stdout
    for key in SETTINGS:
        assert flag(key) in text
    assert "--no-expose-error-messages" in text


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    text = run(command, "--help").stdout
    assert ("--max-workflows" in text) is (command == "serve")
    assert f"  ray-workflow-exporter {command}" in text
    assert text.split("\n\n")[1].strip().startswith(COMMANDS[command].summary)


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "command-line.md"
    assert page.read_text() == render_docs(), (
        "run `python -m docs.reference.command_line > docs/command-line.md`"
    )


def test_the_reference_has_every_command_and_flag() -> None:
    page = render_docs()
    for name in COMMANDS:
        assert f"\n## {name}\n" in page
    for name in ("grafana export", "prometheus export", "ray-dashboard install"):
        assert f"\n### {name}\n" in page
    for flag_name in ("--when-started", "--max-running", "--token-file", "--refresh", "--role"):
        assert f"| `{flag_name}`" in page


def test_settings_stand_before_or_after_the_command_and_the_later_win(
    made: list[FakeExporter], tmp_path: Path
) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("interval: 7\nmax_workflows: 3\n")
    run("--storage", "/a", "--interval", "2s", "--config", str(file), "list", "--storage", "/b")
    settings = made[0].settings
    assert (settings.storage, settings.interval, settings.max_workflows) == ("/b", 2.0, 3)


def test_the_settings_file_may_be_named_by_a_variable(
    made: list[FakeExporter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.yml").write_text("max_workflows: 3\n")
    monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_CONFIG", str(tmp_path / "settings.yml"))
    run("list", "--no-expose-error-messages")
    assert made[0].settings.max_workflows == 3
    assert not made[0].settings.expose_error_messages


@pytest.mark.parametrize("command", [["serve"], ["list"], ["show", "x"], ["watch"]])
def test_wrong_settings_are_one_sentence_and_code_2(command: list[str]) -> None:
    result = run(*command, "--interval", "soon", code=2)
    assert result.stdout == ""
    assert result.stderr == (
        "Error: The flag --interval must be a duration: seconds, or a text such as 30s, 1h30m or "
        "250ms.\n"
    )


def test_serve_polls_in_the_background_and_cleans_up(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(exporter: FakeExporter, settings: Settings, listening: Callable[..., object]) -> None:
        assert settings is exporter.settings
        exporter.calls.append("listen")
        listening(None)

    monkeypatch.setattr(serve_module, "run_server", serve)
    run("serve", "--address", "none")
    (exporter,) = made
    assert exporter.keep
    assert exporter.calls == ["listen", "start", "close"]


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


@pytest.mark.parametrize("named", [["--storage", "/somewhere"], ["--address", "none"]])
def test_who_names_a_cluster_is_not_told_of_another_one(
    url: str, made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_LISTEN", f":{url.rpartition(':')[2]}")
    assert output("list", "-o", "json", *named)["total"] == 2
    assert made[0].calls == ["load", "close"]


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


def test_version_names_what_runs() -> None:
    versions = output("version", "-o", "json")
    assert versions["version"] == ray_workflow_exporter.__version__
    assert versions["python"] == sys.version.split()[0]
    assert run("version").stdout.startswith(f"ray-workflow-exporter {versions['version']} (Python")


def test_python_callers_get_the_tasks_of_a_run(url: str, made: list[FakeExporter]) -> None:
    tasks = ray_workflow_exporter.workflow_tasks("etl/2025-06-01", url=url)
    assert {task_id: task["state"] for task_id, task in tasks.items()} == {
        "load": "SUCCESSFUL",
        "check": "FAILED",
        "report": "NOT_RUN",
    }
    direct = ray_workflow_exporter.workflow_tasks("etl/direct", storage="/somewhere")
    assert direct == tasks
    assert made[0].settings.storage == "/somewhere"
    assert made[0].calls == ["load", "close"]


def test_python_callers_learn_that_a_run_is_unknown(url: str, made: list[FakeExporter]) -> None:
    for where in ({"url": url}, {"storage": "/somewhere"}):
        with pytest.raises(ray_workflow_exporter.WorkflowNotFoundError, match="'train-9'; did"):
            ray_workflow_exporter.workflow_tasks("train-9", **where)
    assert issubclass(ray_workflow_exporter.WorkflowNotFoundError, LookupError)
    assert made[0].calls == ["load", "close"]


def test_a_process_connected_to_ray_knows_its_own_cluster(
    made: list[FakeExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, private, storage = ModuleType("ray"), ModuleType("ray._private"), ModuleType("storage")
    ray.is_initialized = lambda: True  # type: ignore[attr-defined]
    ray.get_runtime_context = lambda: SimpleNamespace(  # type: ignore[attr-defined]
        gcs_address="10.0.0.1:6379"
    )
    storage._get_storage_uri = lambda: "s3://bucket/own"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray._private", private)
    monkeypatch.setitem(sys.modules, "ray._private.storage", storage)
    ray_workflow_exporter.workflow_tasks("train-7")
    ray_workflow_exporter.workflow_tasks("train-7", storage="/other")
    used = [(exporter.settings.storage, exporter.settings.address) for exporter in made]
    assert used == [("s3://bucket/own", "10.0.0.1:6379"), ("/other", "auto")]


def test_a_log_line_of_text_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_level="warning"))
    logging.getLogger("test").info("not shown")
    logging.getLogger("test").warning("cannot read %s", "evil\n\x1b[31m2025 ERROR forged")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"WARNING test: cannot read evil\n\x1b[31m2025 ERROR forged")


def test_a_log_line_of_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_format="json"))
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("test").exception("poll %d failed\n", 7)
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == (
        "error",
        "test",
        "poll 7 failed\n",
    )
    assert entry["exception"].endswith("ValueError: broken")
    assert entry["time"].endswith("Z")


@pytest.mark.process
@pytest.mark.parametrize(
    "command", [["--help"], ["version"], ["--version"], ["list"], ["list", "-o", "json"]]
)
def test_a_command_that_only_asks_imports_nothing_of_the_exporter(
    url: str, command: list[str]
) -> None:
    """What a command imports is most of what it costs; its CPU time differs between machines."""
    code = (
        "import sys; from ray_workflow_exporter.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False); print('|', *sorted(sys.modules))"
    )
    listen = f":{url.rpartition(':')[2]}"
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "RAY_WORKFLOW_EXPORTER_LISTEN": listen},
    )
    printed, _, modules = done.stdout.rpartition("|")
    assert {"list": "train-7", "--help": "resume"}.get(command[0], "Python") in printed
    imported = set(modules.split())
    foreign = {it.partition(".")[0] for it in imported}
    assert foreign.isdisjoint(
        {"aiohttp", "bcrypt", "jinja2", "prometheus_client", "pyarrow", "pydantic", "ray", "yaml"}
    )
    ours = {it for it in imported if it.startswith("ray_workflow_exporter.")}
    assert not {it for it in ours if it.split(".")[1] in ("exporter", "server", "poll", "catalog")}
    assert ("rich" in foreign) is (command == ["list"])
    assert "rich.live" not in imported
    assert len(imported) < 300, "it was 760 when each command imported the whole exporter"


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


def complete(words: str, *, cword: int) -> list[str]:
    done = CliRunner(**_APART).invoke(
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
            f"Note: {expected} A live run cannot be told from an interrupted one: both are shown "
            "as RESUMABLE?.\n"
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


def test_workflow_tasks_reads_the_settings_file_of_the_environment(
    made: list[FakeExporter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.yml").write_text("storage: /of/the/file\nexpose_error_messages: false\n")
    monkeypatch.setenv("RAY_WORKFLOW_EXPORTER_CONFIG", str(tmp_path / "settings.yml"))
    tasks = ray_workflow_exporter.workflow_tasks("etl/direct")
    assert made[0].settings.storage == "/of/the/file"
    assert tasks["check"]["failure"]["message"] is None


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        (":7", "http://127.0.0.1:7"),
        ("0.0.0.0:7", "http://127.0.0.1:7"),
        ("[::]:7", "http://[::1]:7"),
        ("[::1]:7", "http://[::1]:7"),
        ("host:7", "http://host:7"),
    ],
)
def test_a_command_asks_where_the_exporter_of_this_machine_listens(listen: str, asked: str) -> None:
    assert local_url(Settings(listen=listen)) == asked
