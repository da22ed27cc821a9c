"""`cancel`, `resume`, `delete` and `token`, over a running exporter and directly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ray_workflow_exporter import logs
from ray_workflow_exporter.cli import main
from ray_workflow_exporter.client import direct_reader
from ray_workflow_exporter.commands import act
from ray_workflow_exporter.server.auth.tokens import Tokens
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import FakeSource, failed_run, running_run
from support.websites import Site, write_tokens

_APART: Any = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


class FakeExporter(FakeSource):
    """Stands in for `Exporter` where a command works directly."""

    made: list[FakeExporter] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, settings: Settings) -> None:
        super().__init__(running_run(), failed_run("etl/direct"))
        self.status = {"storage_error": None}
        self.made.append(self)

    def load(self) -> None:
        """Have all there is."""

    def poll_once(self) -> None:
        self.actions.retry_waiting()

    def close(self) -> None:
        """Have nothing to let go of."""


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeExporter]:
    monkeypatch.setattr(direct_reader, "Exporter", FakeExporter)
    monkeypatch.setattr(FakeExporter, "made", [])
    monkeypatch.setattr(logs, "configure", lambda settings: None)
    return FakeExporter.made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    write_tokens(tmp_path / "tokens", {"ops": ("act", "act-token"), "eyes": ("read", "read-token")})
    (tmp_path / "act").write_text("act-token\n")
    (tmp_path / "read").write_text("read-token\n")
    with Site(Settings(tokens_file=tmp_path / "tokens")) as site:
        yield site


def run(*arguments: str, code: int = 0, **more: Any) -> Result:
    result = CliRunner(**_APART).invoke(main, arguments, **more)
    assert result.exit_code == code, result.output + result.stderr
    return result


def at(site: Site, tmp_path: Path, token: str = "act") -> tuple[str, ...]:
    return ("--url", f"http://127.0.0.1:{site.port}", "--token-file", str(tmp_path / token))


@pytest.mark.parametrize(
    ("command", "acted"),
    [
        (["cancel", "train-7"], ("cancel", "train-7")),
        (["resume", "etl/2025-06-01"], ("resume", "etl/2025-06-01")),
        (["delete", "etl/2025-06-01"], ("delete", "etl/2025-06-01")),
    ],
)
def test_an_action_goes_through_the_exporter(
    site: Site, tmp_path: Path, made: list[FakeExporter], command: list[str], acted: Any
) -> None:
    said = run(*command, "--yes", "--wait", *at(site, tmp_path)).stdout
    assert said == "SUCCEEDED: It is done.\n"
    assert site.source.acted == [acted]
    assert made == []


def test_without_waiting_the_id_of_the_action_is_told(site: Site, tmp_path: Path) -> None:
    told = run("cancel", "train-7", "--yes", "-o", "json", *at(site, tmp_path)).stdout
    action = json.loads(told)
    assert (action["action"], action["requested_by"]) == ("cancel", "ops")


def test_an_action_that_did_not_succeed_is_code_1(site: Site, tmp_path: Path) -> None:
    site.source.outcome = ("REFUSED", "It ended as SUCCESSFUL before it could be cancelled.")
    result = run("cancel", "train-7", "--yes", "--wait", *at(site, tmp_path), code=1)
    assert result.stdout.startswith("REFUSED: It ended as SUCCESSFUL before")


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        (["cancel", "etl/2025-06-01", "--yes"], "act", "It is FAILED already"),
        (["cancel", "train-8", "--yes"], "act", "did you mean 'train-7'?"),
        (["cancel", "train-7", "--yes"], "read", "This token may only read."),
    ],
)
def test_what_is_refused_is_one_sentence(
    site: Site, tmp_path: Path, arguments: list[str], token: str, said: str
) -> None:
    result = run(*arguments, *at(site, tmp_path, token), code=1)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert "token" not in result.stderr.replace("This token", "")
    assert site.source.acted == []


def test_without_a_token_nothing_is_done(site: Site) -> None:
    url = f"http://127.0.0.1:{site.port}"
    result = run("delete", "etl/2025-06-01", "--yes", "--url", url, code=1)
    assert "a bearer token" in result.stderr
    assert site.source.acted == []


def test_a_command_asks_before_it_acts(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run("cancel", "train-7", *at(site, tmp_path), code=2)
    assert "add --yes" in refused.stderr

    monkeypatch.setattr(act, "_is_a_terminal", lambda: True)
    asked = run("cancel", "train-7", *at(site, tmp_path), input="n\n", code=1)
    assert "Cancel train-7 (RUNNING, 33% done)? [y/N]" in asked.stderr
    assert site.source.acted == []
    run("cancel", "train-7", "--wait", *at(site, tmp_path), input="y\n")
    assert site.source.acted == [("cancel", "train-7")]


def test_with_an_address_the_command_acts_by_itself(made: list[FakeExporter]) -> None:
    said = run("resume", "etl/direct", "--yes", "--address", "127.0.0.1:6379").stdout
    assert said == "SUCCEEDED: It is done.\n"
    (exporter,) = made
    assert exporter.acted == [("resume", "etl/direct")]
    (action,) = exporter.actions.newest()
    assert action.order.by.endswith(" on the command line")
    unknown = run("delete", "etl/dir", "--yes", "--address", "127.0.0.1:6379", code=1)
    assert "did you mean 'etl/direct'?" in unknown.stderr


def test_all_that_are_resumable_are_resumed(site: Site, tmp_path: Path) -> None:
    said = run("resume", "--all", "--yes", "--wait", *at(site, tmp_path)).stdout
    assert said == "SUCCEEDED: 0 resumed, 0 not.\n"
    for wrong in ([], ["train-7", "--all"]):
        assert "Give the id of a run, or --all" in run("resume", *wrong, "--yes", code=2).stderr


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run("list", "--token-file", str(tmp_path / "missing"), code=2)
    assert "missing cannot be read: No such file or directory" in result.stderr
    (tmp_path / "two").write_text("one token\nand another\n")
    result = run("list", "--token-file", str(tmp_path / "two"), code=2)
    assert "two must hold one token and nothing else" in result.stderr
    assert "another" not in result.stderr


def test_commands_that_look_send_the_token_too(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", {"eyes": ("read", "read-token")})
    (tmp_path / "read").write_text("read-token")
    closed = Settings(tokens_file=tmp_path / "tokens", public_reading=False)
    with Site(closed) as site:
        run("list", *at(site, tmp_path, "read"))
        url = f"http://127.0.0.1:{site.port}"
        assert "a bearer token" in run("list", "--url", url, code=1).stderr


def test_a_token_is_drawn_with_its_entry_for_the_file(tmp_path: Path) -> None:
    drawn = run("token", "on-call", "--role", "read")
    file = tmp_path / "tokens"
    file.write_text("tokens:\n" + drawn.stderr)
    file.chmod(0o600)
    assert Tokens(file).find(drawn.stdout.strip()) == ("on-call", "read")
    assert run("token", "on-call").stdout != drawn.stdout


def test_the_web_config_has_its_usual_flag(made: list[FakeExporter], tmp_path: Path) -> None:
    run("list", "--web.config.file", str(tmp_path / "web.yml"), "--storage", "/nowhere")
