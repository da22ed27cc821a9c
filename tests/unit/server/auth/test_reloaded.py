"""Files that are read again: each change is seen, whenever it comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_workflow_exporter.server.auth import reloaded
from ray_workflow_exporter.server.auth.reloaded import Reloaded


@pytest.fixture(autouse=True)
def _check_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloaded, "_CHECK_SECONDS", 0.0)


def test_a_file_that_is_named_and_arrives_later_is_read(tmp_path: Path) -> None:
    config, named = tmp_path / "config", tmp_path / "named"
    config.write_text("first")

    def load() -> str:
        text = config.read_text()
        return text if text == "first" else text + named.read_text()

    file = Reloaded(config, load, lambda text: (config, *([named] if text != "first" else ())))
    assert file.changed()
    config.write_text("second ")
    with pytest.raises(FileNotFoundError):
        file.changed()
    assert not file.changed()  # said once
    assert file.value == "first"
    named.write_text("arrived")
    assert file.changed()
    assert file.value == "second arrived"
    named.write_text("changed")
    assert file.changed()
    assert file.value == "second changed"
    assert not file.changed()


def test_a_change_while_the_file_is_read_is_seen(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("valid token")

    def load() -> str:
        text = config.read_text()
        if text == "valid token":
            config.write_text("revoked")  # after the read, before anything else
        return text

    file = Reloaded(config, load)
    assert file.changed()
    assert file.value == "valid token"
    assert file.changed()
    assert file.value == "revoked"


def test_a_named_file_that_changes_while_it_is_read_is_seen(tmp_path: Path) -> None:
    config, named = tmp_path / "config", tmp_path / "named"
    config.write_text("x")
    named.write_text("old")

    def load() -> str:
        text = named.read_text()
        if text == "old":
            named.write_text("renewed")
        return text

    file = Reloaded(config, load, lambda _: (config, named))
    while file.changed():
        pass
    assert file.value == "renewed"
