"""The command line as a whole: help, settings, versions, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ray_workflow_exporter
from docs.reference.command_line import render_docs
from ray_workflow_exporter.commands import COMMANDS
from ray_workflow_exporter.settings.settings import SETTINGS, flag
from support import command_line
from support.command_line import FakeExporter, output, run

pytestmark = pytest.mark.usefixtures("made", "quiet_machine")

# Fixtures.
made, quiet_machine = command_line.made, command_line.quiet_machine
source, url = command_line.source, command_line.url


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


def test_version_names_what_runs() -> None:
    versions = output("version", "-o", "json")
    assert versions["version"] == ray_workflow_exporter.__version__
    assert versions["python"] == sys.version.split()[0]
    assert run("version").stdout.startswith(f"ray-workflow-exporter {versions['version']} (Python")


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
    # Under `make coverage` its own modules are there too.
    imported = {it for it in modules.split() if not it.lstrip("$").startswith("coverage")}
    foreign = {it.partition(".")[0] for it in imported}
    assert foreign.isdisjoint(
        {"aiohttp", "bcrypt", "jinja2", "prometheus_client", "pyarrow", "pydantic", "ray", "yaml"}
    )
    ours = {it for it in imported if it.startswith("ray_workflow_exporter.")}
    assert not {it for it in ours if it.split(".")[1] in ("exporter", "server", "poll", "catalog")}
    assert ("rich" in foreign) is (command == ["list"])
    assert "rich.live" not in imported
    assert len(imported) < 300, "it was 760 when each command imported the whole exporter"
