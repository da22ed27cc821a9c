"""The files that the package brings for Grafana and Prometheus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from prometheus.generate import GRAFANA, RUNBOOKS
from ray_workflow_exporter.cli import main

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_dashboards_are_written_as_they_are_in_the_repository(tmp_path: Path) -> None:
    result = run("grafana", "export", str(tmp_path / "new" / "folder"))
    assert result.exit_code == 0, result.output
    written = {it.name: it.read_text() for it in (tmp_path / "new" / "folder").iterdir()}
    assert written == {
        it.name: it.read_text() for it in (ROOT / "grafana" / "dashboards").glob("*.json")
    }
    assert all(json.loads(text)["uid"].startswith("ray-workflow-") for text in written.values())


def test_dashboards_go_beside_those_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_METRICS_OUTPUT_ROOT", str(tmp_path))
    result = run("grafana", "export", "--ray")
    assert result.exit_code == 1
    assert "start the head node first" in result.output
    folder = tmp_path / "grafana" / "dashboards"
    folder.mkdir(parents=True)
    (folder / "default_grafana_dashboard.json").write_text("{}")
    assert run("grafana", "export", "--ray").exit_code == 0
    names = {it.name for it in folder.iterdir()}
    assert {"default_grafana_dashboard.json", "ray-workflow-exporter.json"} <= names
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR", str(elsewhere))
    assert run("grafana", "export", "--ray").exit_code == 0
    assert (elsewhere / "ray-workflow-exporter.json").is_file()


def test_one_place_has_to_be_named(tmp_path: Path) -> None:
    for arguments in ((), (str(tmp_path), "--ray")):
        result = run("grafana", "export", *arguments)
        assert result.exit_code == 2
        assert "one of the two" in result.output
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("prometheus", "export", str(tmp_path / "file" / "below"))
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "cannot be written: Not a directory." in result.output


def test_rules_get_the_links_one_asks_for_and_leave_ones_thresholds_alone(tmp_path: Path) -> None:
    links = ("--grafana", "https://dashboards.example/", "--runbooks", "https://wiki.example/r")
    assert run("prometheus", "export", str(tmp_path), *links).exit_code == 0
    text = (tmp_path / "alerts.yml").read_text()
    assert (
        text.replace("https://dashboards.example", GRAFANA).replace(
            "https://wiki.example/r", RUNBOOKS
        )
        == (ROOT / "prometheus" / "rules" / "alerts.yml").read_text()
    )
    assert GRAFANA not in text
    assert RUNBOOKS not in text
    assert yaml.safe_load(text)["groups"]
    (tmp_path / "thresholds.yml").write_text("mine")
    assert run("prometheus", "export", str(tmp_path)).exit_code == 0
    assert (tmp_path / "thresholds.yml").read_text() == "mine"
