"""Queries, commands and links of the runbooks name what exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

import click
import pytest
import yaml

from prometheus.alerts import ALERTS, Dashboard
from prometheus.generate import ROOT
from prometheus.recording import GROUPS
from ray_workflow_exporter.cli import main
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import Kind
from support.monitoring import program

RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "Escalation", "Silence")
VARIABLES = {"cluster", "workflow", "run", "stage"}

KEYWORDS = {"and", "or", "unless", "on", "ignoring", "group_left", "offset", "bool"}

each_runbook = pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def commands(path: Path, name: str) -> list[list[str]]:
    """Return the words after `name` wherever it is called: in shell up to a pipe, and in words."""
    lines = "".join(blocks(path, "sh")).replace("\\\n", " ").splitlines()
    lines += re.findall(rf"`({name} [^`]+)`", path.read_text())
    calls = [shlex.split(line.partition(" | ")[0], comments=True) for line in lines]
    return [words[1:] for words in calls if words[:1] == [name]]


def known_metrics() -> set[str]:
    known = {"up", "ALERTS", "ray_workflow:threshold"}
    known |= {record.record for group in GROUPS for record in group.records}
    for family in FAMILIES:
        parts = ("_bucket", "_sum", "_count") if family.kind is Kind.HISTOGRAM else ("",)
        known |= {family.name + part for part in parts}
    return known


def named_metrics(expression: str) -> set[str]:
    """Return the names in an expression that are neither functions, labels nor keywords."""
    bare = re.sub(r"#.*", "", re.sub(r'"[^"]*"', "", expression))
    bare = re.sub(r"\b(by|without|on|ignoring|group_left)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    return set(re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*(?![\w:])(?!\s*\()", bare)) - KEYWORDS


@each_runbook
def test_a_runbook_has_all_its_sections_in_order(path: Path) -> None:
    headings = re.findall(r"^#+ .*", path.read_text(), re.MULTILINE)
    assert headings == [f"# {path.stem}", *(f"## {section}" for section in SECTIONS)]


@pytest.mark.prometheus
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    queries = [query for path in RUNBOOKS for query in blocks(path, "promql")]
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    command = [program("promtool"), "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@each_runbook
def test_every_query_names_metrics_that_exist(path: Path) -> None:
    queries = blocks(path, "promql")
    assert queries
    named = set().union(*map(named_metrics, queries))
    assert {name for name in named if not name.startswith("process_")} <= known_metrics()


CALLS = [(path, *call) for path in RUNBOOKS for call in commands(path, "ray-workflow-exporter")]
ACTIONS = [call for call in CALLS if call[1] in ("cancel", "resume", "delete")]
CODE = [(path, code) for path in RUNBOOKS for code in blocks(path, "python")]


def stems(found: Sequence[Sequence[Any]]) -> set[str]:
    return {path.stem.removeprefix("RayWorkflow") for path, *_ in found}


def test_runbooks_contain_commands_actions_and_code_where_they_should() -> None:
    every = {path.stem.removeprefix("RayWorkflow") for path in RUNBOOKS}
    assert every - stems(CALLS) == {"SnapshotStale"}
    # Those on the exporter itself, and on what only has to be waited for.
    assert every - stems(ACTIONS) == {
        "ExporterDown", "ExporterGone", "ExporterRestarting", "LinkRestarting", "ObjectsHidden",
        "Slow", "SnapshotStale", "StateUnusable", "StorageDoubtful", "StorageUnreadable",
        "ThresholdMissing",
    }  # fmt: skip
    assert stems(CODE) == {"ManagerDown", "Stalled"}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join([call[0].stem, *call[1:]]))
def test_every_command_of_ours_would_be_accepted(call: tuple[Any, ...]) -> None:
    _, name, *arguments = call
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None, name
    command.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("call", ACTIONS, ids=lambda call: " ".join([call[0].stem, *call[1:]]))
def test_an_action_needs_neither_a_confirmation_nor_a_token(call: tuple[Any, ...]) -> None:
    assert " ".join(call[1:]).endswith("--address auto --yes")


@pytest.mark.parametrize(("path", "code"), CODE, ids=[path.stem for path, _ in CODE])
def test_python_is_python(path: Path, code: str) -> None:
    compile(code, str(path), "exec")


@each_runbook
def test_the_silence_is_for_the_alert_itself_and_says_why_and_how_long(path: Path) -> None:
    silences = commands(path, "amtool")
    assert silences
    for words in silences:
        assert words[:3] == ["silence", "add", f"alertname={path.stem}"]
        assert {word.partition("=")[0] for word in words} >= {"--comment", "--duration"}


@each_runbook
def test_links_lead_to_dashboards_that_exist(path: Path) -> None:
    dashboards = set()
    for link in re.findall(r"`(/d/[^`]*)`", path.read_text()):
        parts = urlsplit(link)
        dashboards.add(parts.path.removeprefix("/d/ray-workflow-"))
        assert {name.removeprefix("var-") for name in parse_qs(parts.query)} <= VARIABLES
    assert dashboards <= set(get_args(Dashboard))
    own = {alert.dashboard for alert in ALERTS if alert.name == path.stem}
    assert own
    assert own <= dashboards


@each_runbook
def test_the_numbers_that_an_alert_compares_with_are_named(path: Path) -> None:
    text = path.read_text()
    expressions = "".join(alert.expr for alert in ALERTS if alert.name == path.stem)
    named = re.findall(r'threshold\{name="(\w+)"', expressions)
    assert all(f"`{name}`" in text for name in named)
    # Every runbook says what to change if the alert fires wrongly.
    assert named or "no threshold" in text
