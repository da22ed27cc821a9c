"""The built wheel, installed into an environment of its own, brings every part of the product."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from support.cluster import environment
from support.private_ray import NO_OTHER_PACKAGES
from support.served import Served
from support.trees import StorageTree
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PARTS = ["alertmanager.yml", "dashboards", "kubernetes", "rules", "runbooks", "systemd"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build wheel and sdist as `make dist` does."""
    sys.path.insert(0, str(ROOT / "deploy"))
    try:
        import dist
    finally:
        sys.path.pop(0)
    return dist.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def program(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel beside the dependencies that are here, and return its command."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # A plain line: the files that make the checkout importable are not followed from here.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", str(built[0])], check=True
    )
    return folder / "bin" / "ray-workflow-exporter"


def run(program: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(program), *arguments],
        env={**environment(), **NO_OTHER_PACKAGES},
        cwd=program.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_two_builds_are_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    import dist

    for one, other in zip(built, dist.build(tmp_path)):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_the_sdist_holds_tests_and_docs(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [
        "LICENSE",
        "Makefile",
        "docs/metrics.md",
        "tests/conftest.py",
        "tests/golden/metrics.txt",
    ]
    assert set(wanted) <= held


def test_the_wheel_holds_every_file_that_users_copy(program: Path) -> None:
    (package,) = program.parents[1].glob("lib/*/site-packages/ray_workflow_exporter")
    for part in PARTS:
        ours = ROOT / "exporter" / "ray_workflow_exporter" / part
        there = package / part
        if ours.is_dir():
            assert names(there) == names(ours)
        else:
            assert there.read_bytes() == ours.read_bytes()


def test_dashboards_and_rules_are_exported(program: Path, tmp_path: Path) -> None:
    run(program, "grafana", "export", str(tmp_path / "dashboards"))
    run(program, "prometheus", "export", str(tmp_path / "rules"))
    run(program, "kubernetes", "export", str(tmp_path / "objects"))
    assert names(tmp_path / "dashboards") == names(ROOT / "grafana" / "dashboards")
    assert names(tmp_path / "rules") == names(ROOT / "prometheus" / "rules")
    assert names(tmp_path / "objects") == {"dashboards.yaml", "podmonitor.yaml", "rules.yaml"}


def test_it_lists_the_runs_of_a_storage(program: Path, tmp_path: Path) -> None:
    tree = StorageTree(str(tmp_path / "storage"))
    tree.run("nightly").task("f").entry("f").succeed("f", 10.0, 20.0).status("SUCCESSFUL", 20.0)
    listed = run(program, "list", "--address", "none", "--storage", tree.uri, "-o", "json")
    assert "nightly" in listed
    assert json.loads(listed)


@pytest.fixture
def served(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("support.served.PROGRAM", program)
    monkeypatch.setenv("PYTHONPATH", "")
    tree = StorageTree(str(tmp_path / "storage"))
    served = Served(tmp_path, "--address", "none", "--storage", tree.uri).start()
    yield served
    served.stop()


def test_it_serves_metrics_pages_and_api(served: Served) -> None:
    wait_until(lambda: served.value("ray_workflow_storage_up") == 1)
    for path in ("/", "/static/page.js", "/api/v1/openapi.json"):
        assert requests.get(served.url + path, timeout=60).ok, path
