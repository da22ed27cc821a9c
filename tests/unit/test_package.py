"""What pyproject.toml says of the package agrees with the changelog and with itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

tomllib = pytest.importorskip("tomllib", reason="it came with Python 3.11")


@pytest.fixture
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def test_the_newest_release_of_the_changelog_is_the_version(project: dict[str, Any]) -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    releases = [(version, date) for version, date in headings if version != "Unreleased"]
    assert releases[0][0] == project["version"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in releases)


def test_each_python_that_is_allowed_is_a_classifier(project: dict[str, Any]) -> None:
    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    named = re.findall(r":: 3\.(\d+)'", str(project["classifiers"]))
    assert [int(it) for it in named] == list(range(int(low), int(high)))


def test_the_licence_file_names_the_licence_of_the_metadata(project: dict[str, Any]) -> None:
    assert project["license"] in (ROOT / "LICENSE").read_text()
