from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, Optional

import pytest
from rich.console import Console, RenderableType

from ray_workflow_exporter.commands import terminal
from ray_workflow_exporter.display import (
    STATE_COLOURS,
    STATUS_COLOURS,
    moment,
    printable,
    size,
    span,
)
from ray_workflow_exporter.model import Run, RunStatus, TaskState
from ray_workflow_exporter.responses import Responses
from support.fake_source import HOSTILE, failed_run, running_run, view

TO = Responses(error_messages=True)


def as_list(*runs: Run) -> list[dict[str, Any]]:
    return [TO.run_summary(view(run)) for run in runs]


def report(run: Run) -> RenderableType:
    shown = view(run)
    details, tasks = TO.run(shown), TO.tasks(shown)
    return terminal.run_report(details, tasks, now=200.0)


def printed(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=1000, force_terminal=False, highlight=False).print(what)
    return out.getvalue()


def test_the_list_tells_what_each_run_does() -> None:
    text = printed(terminal.runs_table(as_list(running_run(), failed_run()), now=200.0))
    header, running, failed = text.splitlines()
    assert header.split()[:4] == ["WORKFLOW", "ID", "WORKFLOW", "STATUS"]
    assert running.split()[:3] == ["train-7", "train", "RUNNING"]
    assert running.split()[3:5] == ["1/3", "1970-01-01"]
    assert "3m 10s" in running  # from its start to now
    assert failed.split()[:3] == ["etl/2025-06-01", "etl", "FAILED"]
    assert "6.0s" in failed
    assert failed.rstrip().endswith("ValueError")


def test_only_a_running_run_goes_on() -> None:
    run = replace(running_run(), status=RunStatus.RESUMABLE)
    row = printed(terminal.runs_table(as_list(run, failed_run()), now=200.0)).splitlines()[1]
    assert row.split()[-1] == "–"


def test_the_report_explains_a_failure() -> None:
    text = printed(report(failed_run()))
    assert "check (application), which kept 1 task from running" in text
    assert "ValueError: no row password=***" in text
    assert "hunter2" not in text
    assert "team=data" in text
    load, check = (
        next(line.split() for line in text.split("\nTasks\n")[1].splitlines() if name in line)
        for name in ("load ", "check ")
    )
    assert load[:2] == ["load", "SUCCESSFUL"]
    assert "4.5s" in load
    assert check[:2] == ["check", "FAILED"]
    assert text.endswith("\nFailures\ncheck: ValueError: no row password=***\n")


def test_the_report_draws_the_dag_by_stages() -> None:
    text = printed(report(failed_run())).split("DAG, by stages")[1].split("\nTasks\n")[0]
    rows = [line.split() for line in text.splitlines() if line]
    assert rows == [
        ["1", "load", "1/1", "→", "check"],
        ["2", "check", "0/1", "1", "failed", "→", "report"],
        ["3", "report", "0/1"],
    ]


def test_watching_says_what_has_no_room() -> None:
    page = {"items": as_list(running_run(), *(failed_run(f"old-{n}") for n in range(9)))}
    lines = printed(terminal.watched(page, now=200.0, height=7)).splitlines()
    assert lines[1].startswith("train-7")
    assert lines[2].startswith("old-0")
    assert lines[-1] == "… and 7 more"
    assert len(printed(terminal.watched(page, now=200.0)).splitlines()) == 11


def test_watching_one_run_shows_its_stages() -> None:
    details = TO.run(view(running_run()))
    lines = printed(terminal.watched(details, now=200.0)).splitlines()
    stages = [line.split() for line in lines[lines.index("") + 2 :]]
    assert [row[0] for row in stages] == ["prepare", "fit"]
    assert "1 running 1 pending" in " ".join(stages[1])


def test_users_text_cannot_steer_the_terminal() -> None:
    run = failed_run(HOSTILE, message=f"{HOSTILE} [/red] :boom:")
    details = TO.run(view(run))
    table = terminal.runs_table(as_list(run), 200.0)
    for what in (report(run), table, terminal.watched(details, 200.0)):
        text = printed(what)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert r"evil\n\x1b[31m<script>alert(1)</script>[bold]/../\u202e{x}%2F" in text
    assert "[/red] :boom:" in printed(report(run))


def test_every_state_and_status_has_a_colour_of_its_own() -> None:
    assert len({colour.hex for colour in STATE_COLOURS.values()}) == len(TaskState)
    assert len({colour.hex for colour in STATUS_COLOURS.values()}) == len(RunStatus)


def test_a_status_is_shown_in_its_colour() -> None:
    # Not by the escape sequence: rich remembers the one it made first for a style.
    status = terminal.runs_table(as_list(failed_run()), 200.0).columns[2]
    assert [cell.style for cell in status.cells] == [STATUS_COLOURS[RunStatus.FAILED].hex]


def test_output_that_is_no_terminal_is_plain_and_nothing_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    long_id = "x" * 255
    terminal.console().print(terminal.runs_table(as_list(failed_run(long_id)), 200.0))
    out = capsys.readouterr().out
    assert f"{long_id} " in out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal.console().no_color


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢 …", "plain ä 漢 …"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("\udcff\x9b", r"\udcff\x9b"),
    ],
)
def test_what_is_not_plainly_visible_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0ms"),
        (0.0204, "20ms"),
        (0.9996, "1.0s"),
        (1.25, "1.2s"),
        (59.96, "1m 00s"),
        (125, "2m 05s"),
        (3599.9, "1h 00m"),
        (7320, "2h 02m"),
        (90_000, "1d 01h"),
    ],
)
def test_durations_read_well(seconds: Optional[float], text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (8_000_139, "7.6 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_sizes_read_well(count: Optional[int], text: str) -> None:
    assert size(count) == text


def test_moments_nobody_knows_are_a_dash() -> None:
    assert moment(None) == "–"
