"""The workflows of GitHub run what the Makefile has, with few rights and pinned actions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# By `true`, which is what YAML 1.1 makes of the key `on`.
WORKFLOWS: dict[str, Any] = {it.stem: yaml.safe_load(it.read_text()) for it in FILES}
MAKEFILE = (ROOT / "Makefile").read_text()

each_job = pytest.mark.parametrize(
    ("workflow", "job"), [(name, job) for name, it in WORKFLOWS.items() for job in it["jobs"]]
)


@pytest.mark.parametrize("path", FILES, ids=lambda it: it.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for it in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", it)


def test_an_action_has_the_same_commit_everywhere() -> None:
    used = {it for path in FILES for it in re.findall(r"uses: (.*)", path.read_text())}
    assert len({it.partition("@")[0] for it in used}) == len(used)


@each_job
def test_a_job_has_only_the_rights_that_it_names(workflow: str, job: str) -> None:
    assert WORKFLOWS[workflow]["permissions"] == {}
    it = WORKFLOWS[workflow]["jobs"][job]
    assert it["permissions"]
    assert it["timeout-minutes"]
    assert {right for right, value in it["permissions"].items() if value == "write"} <= (
        {"attestations", "contents", "id-token", "packages"} if workflow == "release" else set()
    )


@each_job
def test_a_job_runs_nothing_that_others_wrote(workflow: str, job: str) -> None:
    assert "pull_request_target" not in WORKFLOWS[workflow][True]
    for step in WORKFLOWS[workflow]["jobs"][job]["steps"]:
        # Titles, branches and the like would be read by the shell.
        assert set(re.findall(r"\$\{\{ *([\w.-]+)", step.get("run", ""))) <= {"matrix.ray"}
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


@each_job
def test_targets_and_files_exist(workflow: str, job: str) -> None:
    for step in WORKFLOWS[workflow]["jobs"][job]["steps"]:
        for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
        for path in re.findall(r"\bdeploy/[\w./-]+", step.get("run", "")):
            assert (ROOT / path).exists(), path


def test_each_python_and_each_ray_is_tested() -> None:
    jobs = WORKFLOWS["test"]["jobs"]
    project = (ROOT / "pyproject.toml").read_text()
    pythons = re.findall(r":: (3\.\d+)\"", project)
    assert jobs["test"]["strategy"]["matrix"]["python"] == pythons
    (rays,) = re.findall(r"^OLDER_RAYS := (.*)$", MAKEFILE, re.MULTILINE)
    assert jobs["older-ray"]["strategy"]["matrix"]["ray"] == rays.split()


def test_the_package_goes_to_pypi_without_a_stored_secret() -> None:
    job = WORKFLOWS["release"]["jobs"]["pypi"]
    assert job["permissions"] == {"id-token": "write"}
    assert job["environment"] == "pypi"
    assert "secrets." not in str(job)
