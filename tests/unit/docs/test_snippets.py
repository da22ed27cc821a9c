"""Every command, file and program in README and docs is checked by the tool that would read it.

Runbooks have their own checks. A block in no language is a diagram, a formula or output.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
import pytest
import trustme
import yaml

from ray_workflow_exporter.cli import main
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.server.api.openapi import document
from ray_workflow_exporter.server.auth.tokens import read_tokens
from ray_workflow_exporter.server.auth.web_config import read_web_config
from ray_workflow_exporter.settings.settings import SETTINGS, Settings, variable
from support.monitoring import program

ROOT = Path(__file__).parents[3]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

# Programs that are not ours. They are not run: they would install, start or change something.
BCRYPT = "$2b$04$" + "a" * 53  # in place of the hash that a page abbreviates
NOT_RUN = {
    "docker",
    "helm",
    "kubectl",
    "pip",
    "prometheus",
    "promtool",
    "ray",
    "systemctl",
    "umask",
}


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def blocks(*languages: str) -> list[Any]:
    found = []
    for page in PAGES:
        content = page.read_text()
        for match in FENCE.finditer(content):
            text = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
            line = content[: match.start()].count("\n") + 1
            block = Block(page.name, line, match[2], text)
            if not languages or block.language in languages:
                found.append(pytest.param(block, id=f"{block.page}:{line}"))
    return found


def calls(text: str) -> list[list[str]]:
    """Return the words of each command of a `console` block, without variables, one a pipe part."""
    lines = re.findall(r"^\$ (.*)", text.replace("\\\n", " "), re.MULTILINE)
    found = []
    for line in lines:
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "|"]:
            if word in ("|", "&&"):
                found.append(words[: words.index(">")] if ">" in words else words)
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=.*", word):
                words.append(word)
    return [words for words in found if words]


def accept(words: list[str]) -> None:
    """Let click parse a command of ours, down to its subcommand."""
    command: click.Command = main
    context = click.Context(main)
    while words and isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    if not isinstance(command, click.Group):
        command.make_context(command.name, words, parent=context)


def test_languages_are_those_that_are_checked() -> None:
    checked = {"", "console", "json", "promql", "python", "yaml"}
    assert {it.values[0].language for it in blocks()} <= checked


@pytest.mark.parametrize("block", blocks("console"))
def test_commands_would_be_accepted(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"--token-file (\S+)", block.text):
        (tmp_path / name).write_text("0" * 43)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    paths = [re.sub(r"\{\w+\}", "[^/]+", it) for it in document()["paths"]]
    found = calls(block.text)
    assert found
    for name, *words in found:
        if name == "ray-workflow-exporter":
            accept(words)
        elif name == "make":
            assert words[0] in targets
        elif name == "curl":
            (path,) = [urlsplit(it).path for it in words if it.startswith("http")]
            assert path == "/metrics" or any(re.fullmatch(it, path) for it in paths)
        elif name == "amtool":
            assert words[0] in ("check-config", "config", "silence")
        else:
            assert name in NOT_RUN
        # Files of ours that a command names are there.
        for word in words:
            if word.startswith(("deploy/", "prometheus/", "grafana/")):
                assert (ROOT / word).exists(), word
    for name in re.findall(r"^\$ .*\b(RAY_WORKFLOW_EXPORTER_\w+)=", block.text, re.MULTILINE):
        assert name in {variable(key) for key in SETTINGS} | {variable("config")}


@pytest.mark.prometheus
@pytest.mark.parametrize("block", blocks("yaml"))
def test_files_would_be_read(block: Block, tmp_path: Path) -> None:
    content = yaml.safe_load(block.text)
    file = tmp_path / "file.yml"
    file.write_text(block.text)
    if content.keys() & {"scrape_configs", "rule_files"}:
        check = ["promtool", "check", "config", "--syntax-only"]
    elif "groups" in content:
        check = ["promtool", "check", "rules"]
    elif "route" in content:
        check = ["amtool", "check-config"]
    elif "tokens" in content:
        file.chmod(0o600)
        assert read_tokens(file)
        return
    elif "tls_server_config" in content:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "clients.crt"))
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / "server.crt"))
        issued.private_key_pem.write_to_path(str(tmp_path / "server.key"))
        file.write_text(block.text.replace("$2y$10$…", BCRYPT))
        assert read_web_config(file)
        return
    elif "apiVersion" in content:
        assert content.keys() == {"apiVersion", "kind", "metadata", "spec"}
        return
    else:
        Settings.load(file, {}, {})
        return
    done = subprocess.run(
        [program(check[0]), *check[1:], str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", blocks("json"))
def test_json_is_json(block: Block) -> None:
    assert json.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_names_what_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            assert all(find_spec(name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert find_spec(node.module)
            if node.module.startswith("ray_workflow_exporter"):
                module = importlib.import_module(node.module)
                assert [it.name for it in node.names if not hasattr(module, it.name)] == []


@pytest.mark.prometheus
def test_prometheus_understands_every_query_and_its_metrics_exist(tmp_path: Path) -> None:
    queries = [it.values[0].text for it in blocks("promql")]
    assert queries
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    known = {it.name for it in FAMILIES}
    for name in re.findall(r"\bray_workflow_\w+", " ".join(queries)):
        assert name in known or re.sub(r"_(bucket|sum|count)$", "", name) in known, name
