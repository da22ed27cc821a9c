"""Log lines, as text and as JSON."""

from __future__ import annotations

import json
import logging

import pytest

from ray_workflow_exporter import logs
from ray_workflow_exporter.settings.settings import Settings
from support import command_line

pytestmark = pytest.mark.usefixtures("quiet_machine")

quiet_machine = command_line.quiet_machine  # a fixture: it puts the log back as it was


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
