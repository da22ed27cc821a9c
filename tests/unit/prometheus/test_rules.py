"""The files for Prometheus and Alertmanager match their tables and name what exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from prometheus.alerts import ALERTS, Alert
from prometheus.generate import ROOT, dashboard_url, exporter_url, files
from prometheus.recording import GROUPS
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import Kind
from support.monitoring import FILES, Promtool, program, promtools

NAMES = {alert.name for alert in ALERTS}
RULES = sorted((FILES / "rules").glob("*.yml"))
TESTS = sorted((FILES / "tests").glob("*.yml"))
# What looks back over hours and days takes long; the rest in two halves, for two processors.
LONG = [
    path
    for path in TESTS
    if path.stem
    in {
        *("RayWorkflowBudgetBurn", "RayWorkflowNoRecentSuccess", "RayWorkflowOutputUnusual"),
        *("RayWorkflowRetryStorm", "long_windows", "recording"),
    }
]
BY_SIZE = sorted(set(TESTS) - set(LONG), key=lambda path: path.stat().st_size)


each_promtool = pytest.mark.parametrize("promtool", promtools(), ids=lambda it: it.version)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    recorded = [record.expr for group in GROUPS for record in group.records]
    return [*recorded, *(alert.expr for alert in ALERTS)]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_no_generated_file_is_stale(path: Path) -> None:
    assert path.read_text() == files()[path], "run `make rules`"


@pytest.mark.prometheus
@each_promtool
def test_prometheus_accepts_rules_and_configuration(promtool: Promtool) -> None:
    run(promtool.path, "check", "rules", *map(str, RULES))
    run(promtool.path, "check", "config", str(FILES / "prometheus.yml"))


@pytest.mark.prometheus
def test_alertmanager_accepts_its_configuration() -> None:
    run(program("amtool"), "check-config", str(FILES / "alertmanager.yml"))


@pytest.mark.prometheus
@pytest.mark.timeout(660)
@each_promtool
@pytest.mark.parametrize(
    "files",
    [
        pytest.param(BY_SIZE[::2], id="half"),
        pytest.param(BY_SIZE[1::2], id="other half"),
        pytest.param(LONG, id="long", marks=pytest.mark.slow),
    ],
)
def test_the_rules_pass_their_tests(promtool: Promtool, files: list[Path]) -> None:
    run(promtool.path, "test", "rules", *map(str, files))


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_alert_has_a_test_that_fires_one_that_stays_silent_and_one_whose_series_end(
    name: str,
) -> None:
    tests = yaml.safe_load((FILES / "tests" / f"{name}.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    wanted = [case.get("exp_alerts") for case in cases if case["alertname"] == name]
    assert any(wanted), "no test has it fire"
    assert not all(wanted), "no test has it silent"
    for alert in filter(None, wanted):
        for instance in alert:
            assert {
                "summary",
                "description",
                "runbook_url",
                "dashboard_url",
                "exporter_url",
            } <= set(instance["exp_annotations"])
    values = " ".join(series["values"] for test in tests for series in test["input_series"])
    assert "stale" in values or "_" in values, "no test lets its series end"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda it: it.name)
def test_links_hold_labels_in_the_query_because_proxies_decode_paths(alert: Alert) -> None:
    for link in (dashboard_url(alert, "http://g"), exporter_url(alert, "http://e")):
        assert "$labels" not in link.partition("?")[0]


def test_every_metric_and_label_of_a_rule_exists() -> None:
    known: set[str] = {"up", "process_start_time_seconds", "ray_workflow:threshold"}
    known |= {record.record for group in GROUPS for record in group.records}
    for family in FAMILIES:
        histogram = family.kind is Kind.HISTOGRAM
        known |= (
            {family.name + suffix for suffix in ("_bucket", "_sum", "_count")}
            if histogram
            else {family.name}
        )
    named = {
        name
        for expression in expressions()
        for name in re.findall(r"\b(?:\w+:)?(?:ray_workflow|process)[\w:]*", expression)
    }
    assert named <= known


def test_every_threshold_is_used_and_every_one_that_is_used_exists() -> None:
    rules = yaml.safe_load((FILES / "rules" / "thresholds.yml").read_text())["groups"][0]["rules"]
    used = re.findall(r'threshold\{name="(\w+)"', "".join(expressions()))
    assert {rule["labels"]["name"] for rule in rules} == set(used)


def test_no_rule_keeps_the_session_of_ray() -> None:
    # It changes when Ray restarts: a rule that keeps it starts again.
    for expression in expressions():
        for dropped in re.findall(r"\b(?:max|min|sum|group) without \(([^)]*)\)", expression):
            if "instance" in dropped:
                outer = rf"sum without \([^)]*SessionName[^)]*\) \((?:max) without \({dropped}\)"
                assert "SessionName" in dropped or re.search(outer, expression), expression


def inhibitions() -> list[dict[str, Any]]:
    rules = yaml.safe_load((FILES / "alertmanager.yml").read_text())["inhibit_rules"]
    return list(rules)


def test_inhibition_names_alerts_that_exist() -> None:
    for rule in inhibitions():
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            if matcher.startswith(("shard=", "long=")):
                continue
            pattern = re.fullmatch(r'alertname(?:=~|!~|=)"(.+)"', matcher)
            assert pattern, matcher
            for name in _alternatives(pattern[1]):
                assert any(re.fullmatch(name, known) for known in NAMES), name


def _alternatives(pattern: str) -> list[str]:
    match = re.fullmatch(r"(\w*)\(([\w|]+)\)", pattern)
    return [match[1] + it for it in match[2].split("|")] if match else [pattern]
