"""`serve`: its settings and its parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ray_workflow_exporter.commands import serve as serve_module
from ray_workflow_exporter.settings.settings import Settings
from support import command_line
from support.command_line import FakeExporter, run

pytestmark = pytest.mark.usefixtures("made", "quiet_machine")

made, quiet_machine = command_line.made, command_line.quiet_machine  # fixtures


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
