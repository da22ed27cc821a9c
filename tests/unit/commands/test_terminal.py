from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, Optional

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from ray_workflow_exporter.commands import terminal
from ray_workflow_exporter.display import (
    STATE_COLOURS,
    STATUS_COLOURS,
    ago,
    moment,
    printable,
    size,
    span,
)
from ray_workflow_exporter.model import Run, RunStatus, Task, TaskState
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
    (status,) = terminal.runs_table(as_list(failed_run()), 200.0).columns[2].cells
    assert isinstance(status, Text)
    assert status.style == STATUS_COLOURS[RunStatus.FAILED].hex


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


def narrow(what: RenderableType, width: int) -> list[str]:
    """Return what a terminal of this width is sent."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False, highlight=False).print(what, crop=False)
    return [line.rstrip() for line in out.getvalue().splitlines()]


IDS = ["train-7", "nightly-etl-2025-06-01T02:00:00-retry-of-the-first", "x" * 70, "y" * 130]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_an_id_is_whole_on_every_terminal_and_columns_are_left_out(width: int) -> None:
    runs = as_list(*(failed_run(it) for it in IDS))
    header, *lines = narrow(terminal.runs_table(runs, 200.0, width=width), width)
    for workflow_id, line in zip(IDS, lines):
        assert line.split()[0] == workflow_id
        assert "FAILED" in line.split()
    assert header.split()[:2] == ["WORKFLOW", "ID"]
    assert "STATUS" in header
    for one in (IDS[:1], IDS[:2]):
        fitting = narrow(
            terminal.runs_table(as_list(*map(failed_run, one)), 200.0, width=width), width
        )
        room = max(width, len(one[-1]) + 2 + len("FAILED"))
        assert max(map(len, fitting)) <= room


def test_the_wider_the_terminal_the_more_columns() -> None:
    def columns(width: int) -> list[str]:
        table = terminal.runs_table(as_list(running_run(), failed_run()), 200.0, width=width)
        return [str(column.header) for column in table.columns]

    shown = [columns(width) for width in range(20, 160)]
    assert shown[0] == ["WORKFLOW ID", "STATUS"]
    assert shown[-1] == [
        *("WORKFLOW ID", "WORKFLOW", "STATUS", "TASKS", "STARTED (UTC)", "AGE", "DURATION"),
        "FAILURE",
    ]
    assert [len(it) for it in shown] == sorted(len(it) for it in shown)


def test_a_report_keeps_ids_whole_too() -> None:
    run = failed_run("r" * 90)
    shown = view(run)
    lines = narrow(terminal.run_report(TO.run(shown), TO.tasks(shown), 200.0, width=40), 40)
    assert any(line.endswith("r" * 90) for line in lines)
    assert any(line.split()[:2] == ["check", "FAILED"] for line in lines)


def test_times_name_their_zone_and_their_distance() -> None:
    text = printed(report(failed_run()))
    assert "started        1970-01-01 00:01:40 UTC (1m 40s ago)" in text
    table = printed(terminal.runs_table(as_list(failed_run()), 7400.0))
    assert "STARTED (UTC)" in table
    assert "1970-01-01 00:01:40" in table
    assert "2h 01m ago" in table
    details = TO.run(view(running_run()))
    line = terminal.news(details, 200.0).plain
    assert line.startswith("1970-01-01 00:03:20 UTC  train-7")
    later = {**details, "deadline": 500.0}
    assert "deadline       1970-01-01 00:08:20 UTC (in 5m 00s)" in printed(
        terminal.watched(later, 200.0)
    )


def large_run(count: int) -> Run:
    states = {0: TaskState.RUNNING, count - 1: TaskState.FAILED}
    tasks = [Task(f"map_{n}", "map", states.get(n, TaskState.SUCCESSFUL)) for n in range(count)]
    return replace(running_run("large"), tasks={task.task_id: task for task in tasks})


def test_a_large_run_is_shown_by_stage_with_what_failed_and_runs_first() -> None:
    run = large_run(20_000)
    details, tasks = (
        TO.run(view(run)),
        TO.tasks(view(run)),
    )
    assert terminal.is_large(details)
    text = printed(terminal.run_report(details, terminal.first_tasks(tasks), 200.0))
    rows = text.split("\nTasks: failed, running and pending ones first\n")[1].splitlines()
    assert [row.split()[0] for row in rows[1:3]] == ["map_19999", "map_0"]
    assert rows[-1] == "… and 19980 more: --tasks"
    assert len(text.splitlines()) < 50
    assert not terminal.is_large(TO.run(view(large_run(20))))


def test_a_resumable_run_that_may_be_live_is_marked() -> None:
    run = replace(running_run(), status=RunStatus.RESUMABLE)
    assert " RESUMABLE? " in printed(terminal.runs_table(as_list(run), 200.0, unsure=True))
    assert "RESUMABLE?" not in printed(terminal.runs_table(as_list(run), 200.0))
    failed = printed(terminal.runs_table(as_list(failed_run()), 200.0, unsure=True))
    assert "FAILED?" not in failed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (100.0, "0ms ago"), (40.0, "1m 00s ago"), (220.0, "in 2m 00s")],
)
def test_distances_read_well(seconds: Optional[float], text: str) -> None:
    assert ago(seconds, 100.0) == text
