"""Every file, function and table that docs/architecture.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "exporter" / "ray_workflow_exporter"
PAGE = (ROOT / "docs" / "architecture.md").read_text()

FILES = sorted(set(re.findall(r"`((?:[\w-]+/)+|[\w/-]+\.(?:py|md|yml|toml))(?::[\w.]+)?`", PAGE)))
NAMES = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)))
ANSWERS = PAGE.partition("## Ten questions")[2]
QUESTIONS = re.findall(r"^\*\*(.+\?)\*\*\n((?:.+\n?)+)", ANSWERS, re.MULTILINE)


def located(name: str) -> Path:
    in_package = PACKAGE / name
    return in_package if in_package.exists() else ROOT / name


def defined(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Return the functions, classes and variables that a module or class defines."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update({it.id: node for it in targets if isinstance(it, ast.Name)})
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_the_page_names_exists(name: str) -> None:
    assert located(name).exists(), f"docs/architecture.md names {name}: correct the page"


@pytest.mark.parametrize(("file", "name"), NAMES, ids=":".join)
def test_a_name_that_the_page_gives_is_defined_in_its_file(file: str, name: str) -> None:
    body = ast.parse(located(file).read_text()).body
    for part in name.split("."):
        names = defined(body)
        assert part in names, f"docs/architecture.md names {file}:{name}: correct the page"
        body = getattr(names[part], "body", [])


def test_the_page_answers_ten_questions_with_a_file_each() -> None:
    assert len(QUESTIONS) == 10
    for question, answer in QUESTIONS:
        assert re.search(r"`[\w/]+\.py(:[\w.]+)?`", answer), question


def test_the_map_has_every_folder_and_file_of_the_package() -> None:
    parts = {it.name + "/" for it in PACKAGE.iterdir() if (it / "__init__.py").exists()}
    parts |= {it.name for it in PACKAGE.glob("*.py") if not it.name.startswith("__")}
    parts -= {"agent.py", "logs.py", "display.py"}  # an alias and two small helpers
    assert parts <= set(FILES)
