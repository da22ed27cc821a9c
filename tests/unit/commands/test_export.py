"""The files that the package brings for Grafana, Prometheus, Alertmanager and systemd."""

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


@pytest.mark.parametrize(
    ("command", "source"),
    [
        ("alertmanager", "prometheus/alertmanager.yml"),
        ("systemd", "deploy/systemd/ray-workflow-exporter.service"),
    ],
)
def test_what_others_need_is_written_as_it_is_in_the_repository(
    tmp_path: Path, command: str, source: str
) -> None:
    result = run(command, "export", str(tmp_path))
    assert result.exit_code == 0, result.output
    (written,) = tmp_path.iterdir()
    assert written.name == Path(source).name
    assert written.read_text() == (ROOT / source).read_text()


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


def thresholds(folder: Path) -> dict[str, str]:
    (group,) = yaml.safe_load((folder / "thresholds.yml").read_text())["groups"]
    return {it["labels"]["name"]: it["expr"] for it in group["rules"]}


def test_the_page_of_the_exporter_has_the_runbooks_unless_another_place_is_given(
    tmp_path: Path,
) -> None:
    assert (
        run("prometheus", "export", str(tmp_path), "--exporter-url", "https://x.y/p/").exit_code
        == 0
    )
    text = (tmp_path / "alerts.yml").read_text()
    assert "exporter_url: https://x.y/p/" in text
    assert "runbook_url: https://x.y/p/runbooks/RayWorkflow" in text
    assert "localhost:20729" not in text
    assert "dashboard_url: http://localhost:3000" in text
    run(
        *("prometheus", "export", str(tmp_path), "--exporter-url", "https://x.y"),
        "--runbook-url",
        "https://w/r",
    )
    assert "runbook_url: https://w/r/RayWorkflow" in (tmp_path / "alerts.yml").read_text()
    for wrong in ("x.y", "ftp://x", "http://", "http://x y"):
        assert run("prometheus", "export", str(tmp_path), "--grafana-url", wrong).exit_code == 2


def test_thresholds_are_changed_without_a_checkout(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text("retry_ratio: 0.35\nslow_factor: 4\n")
    folder = tmp_path / "rules"
    flags = ("--thresholds", str(file), "--threshold", "slow_factor=5.5")
    assert run("prometheus", "export", str(folder)).exit_code == 0
    before = thresholds(folder)
    result = run("prometheus", "export", str(folder), *flags)
    assert result.exit_code == 0, result.output
    changed = {key: value for key, value in thresholds(folder).items() if value != before[key]}
    assert changed == {"retry_ratio": "vector(0.35)", "slow_factor": "vector(5.5)"}
    # A later export keeps them, and changes only what is given.
    assert run("prometheus", "export", str(folder), "--threshold", "retries=7").exit_code == 0
    later = thresholds(folder)
    assert {key for key in later if later[key] != before[key]} == {*changed, "retries"}
    assert "# retry_ratio: " in (folder / "thresholds.yml").read_text()


def test_a_later_version_adds_its_thresholds_and_keeps_all_else(tmp_path: Path) -> None:
    run("prometheus", "export", str(tmp_path), "--threshold", "retries=7")
    file = tmp_path / "thresholds.yml"
    whole = thresholds(tmp_path)
    # As of a version that knew fewer, with words of one's own.
    lines = file.read_text().splitlines(keepends=True)
    older = [line for line in lines if "name: slow_runs}" not in line and "burn" not in line]
    file.write_text("# ours\n" + "".join(older))
    assert thresholds(tmp_path) != whole
    result = run("prometheus", "export", str(tmp_path))
    assert "thresholds.yml" in result.output
    assert thresholds(tmp_path) == whole
    text = file.read_text()
    assert text.startswith("# ours\n")
    assert "# burn_failures: failed runs" in text
    assert "thresholds.yml" not in run("prometheus", "export", str(tmp_path)).output
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("slow_factr=5", "There is no threshold 'slow_factr'; did you mean 'slow_factor'?"),
        ("slow_factor", "The threshold slow_factor must be a number"),
        ("slow_factor=many", "The threshold slow_factor must be a number"),
        ("slow_factor=nan", "The threshold slow_factor must be a number"),
        ("slow_factor=-1", "The threshold slow_factor must be a number"),
        ("slow_factor=1) or vector(2", "The threshold slow_factor must be a number"),
    ],
)
def test_a_wrong_threshold_is_one_sentence_and_writes_nothing(
    tmp_path: Path, flag: str, sentence: str
) -> None:
    result = run("prometheus", "export", str(tmp_path / "rules"), "--threshold", flag)
    assert result.exit_code == 2
    assert f"Error: {sentence}" in result.output
    assert not (tmp_path / "rules").exists()


def test_a_wrong_thresholds_file_is_one_sentence(tmp_path: Path) -> None:
    for content, sentence in (("[1", "is not valid YAML"), ("- a", "must hold `name: number`")):
        (tmp_path / "mine.yml").write_text(content)
        flags = ("--thresholds", str(tmp_path / "mine.yml"))
        result = run("prometheus", "export", str(tmp_path / "rules"), *flags)
        assert result.exit_code == 2
        assert sentence in result.output


def test_dashboards_link_to_the_addresses_that_are_given(tmp_path: Path) -> None:
    given = ("--exporter-url", "https://exporter.example/ray/", "--ray-url", 'http://r"ay:8265')
    assert run("grafana", "export", str(tmp_path), *given).exit_code == 0
    written = json.loads((tmp_path / "ray-workflow-run.json").read_text())
    values = {it["name"]: it["query"] for it in written["templating"]["list"]}
    assert values["exporter"] == "https://exporter.example/ray"
    assert values["ray"] == 'http://r"ay:8265'
