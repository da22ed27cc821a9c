from __future__ import annotations

import os
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from ray_workflow_exporter.cli import main
from ray_workflow_exporter.inside_ray import install as shim


class InstalledRay:
    """What pip leaves of a Ray of some version; nothing of it can be imported."""

    def __init__(self, site: Path, version: str) -> None:
        self.modules = site / "ray" / "dashboard" / "modules"
        self.modules.mkdir(parents=True)
        (site / "ray" / "__init__.py").write_text("raise AssertionError('it was imported')")
        self.folder = self.modules / "workflow_exporter"
        self._info = site / "ray-0.dist-info"
        self._info.mkdir()
        self.become(version)

    def become(self, version: str) -> None:
        """Exchange Ray for another release; what is not Ray's stays."""
        (self._info / "METADATA").write_text(f"Name: ray\nVersion: {version}\n")

    def left(self) -> list[Path]:
        return list(self.modules.iterdir())


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstalledRay:
    installed = InstalledRay(tmp_path / "site", "2.47.1")
    monkeypatch.syspath_prepend(tmp_path / "site")
    # Other tests of this process may have imported the real one.
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    return installed


def run(command: str) -> Result:
    return CliRunner().invoke(main, ["ray-dashboard", command])


def test_it_writes_one_file_and_says_where(ray: InstalledRay) -> None:
    done = run("install")
    assert done.exit_code == 0
    assert done.output == (
        f"Installed in Ray 2.47.1 ({ray.modules}): the next `ray start --head` starts the "
        "exporter.\n"
    )
    assert os.listdir(ray.folder) == ["__init__.py"]
    assert run("status").output == f"Installed in Ray 2.47.1 ({ray.modules}).\n"
    assert run("status").exit_code == 0


def test_a_second_time_changes_nothing(ray: InstalledRay) -> None:
    run("install")
    before = (ray.folder / "__init__.py").stat()
    done = run("install")
    assert (done.exit_code, done.output.split(" in ")[0]) == (0, "Already installed")
    after = (ray.folder / "__init__.py").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_removing_leaves_no_trace(ray: InstalledRay) -> None:
    run("install")
    (ray.folder / "__pycache__").mkdir()
    done = run("remove")
    assert (done.exit_code, done.output.split(" from ")[0]) == (0, "Removed")
    assert ray.left() == []


def test_removing_what_is_not_there_is_no_error(ray: InstalledRay) -> None:
    done = run("remove")
    assert (done.exit_code, done.output.split(" in ")[0]) == (0, "Not installed")


def test_the_status_is_an_exit_code_for_scripts(ray: InstalledRay) -> None:
    done = run("status")
    assert (done.exit_code, done.output) == (1, f"Not installed in Ray 2.47.1 ({ray.modules}).\n")


def test_every_user_can_read_it_whatever_the_umask(ray: InstalledRay) -> None:
    before = os.umask(0o077)
    try:
        run("install")
    finally:
        os.umask(before)
    # Ray dies of a module that it finds and cannot read.
    assert ray.folder.stat().st_mode & 0o777 == 0o755
    assert (ray.folder / "__init__.py").stat().st_mode & 0o777 == 0o644


def test_the_shim_of_another_version_is_renewed(ray: InstalledRay) -> None:
    run("install")
    with (ray.folder / "__init__.py").open("a") as file:
        file.write("# of another version\n")
    assert (run("status").exit_code, "another version" in run("status").output) == (1, True)
    assert run("install").output.startswith("Updated in Ray 2.47.1")
    assert run("status").exit_code == 0


@pytest.mark.parametrize("command", ["install", "remove"])
def test_a_file_that_is_not_ours_is_left_alone(ray: InstalledRay, command: str) -> None:
    ray.folder.mkdir()
    (ray.folder / "__init__.py").write_text("theirs = True\n")
    done = run(command)
    assert done.exit_code == 1
    assert "was not written by the exporter and is left unchanged." in done.output
    assert (ray.folder / "__init__.py").read_text() == "theirs = True\n"


@pytest.mark.parametrize("version", ["2.19.0", "2.48.0", "3.0.0.dev0", "unknown"])
def test_a_ray_that_we_do_not_work_in_is_refused(ray: InstalledRay, version: str) -> None:
    ray.become(version)
    done = run("install")
    assert done.exit_code == 1
    assert f"The exporter runs inside Ray 2.20 up to 2.47; this is Ray {version}" in done.output
    assert ray.left() == []


def test_after_an_upgrade_of_ray_it_says_that_it_stays_off_and_can_be_removed(
    ray: InstalledRay,
) -> None:
    run("install")
    ray.become("2.49.0")
    done = run("status")
    assert (done.exit_code, "but not started" in done.output) == (1, True)
    assert run("remove").exit_code == 0
    assert ray.left() == []


def test_a_ray_without_a_dashboard_is_refused(
    ray: InstalledRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shim, "_DASHBOARD_PACKAGE", "a_package_that_nobody_has")
    done = run("install")
    assert done.exit_code == 1
    assert "pip install 'ray[default]==2.47.1'" in done.output
    assert ray.left() == []


@pytest.mark.parametrize("command", ["install", "remove", "status"])
def test_without_any_ray_it_says_where_it_looked(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    done = run(command)
    assert done.exit_code == 1
    assert f"There is no Ray for {sys.executable}" in done.output


@pytest.mark.parametrize("command", ["install", "remove"])
def test_a_folder_that_cannot_be_written_is_named(
    ray: InstalledRay, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "remove":
        run("install")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Tests may run as root, whom no mode of a folder stops.
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(shutil, "rmtree", refuse)
    done = run(command)
    assert done.exit_code == 1
    assert f"{ray.folder} cannot be changed: Permission denied. Run this command as" in done.output


@pytest.mark.parametrize("fault", [ImportError, SyntaxError, SystemExit, KeyboardInterrupt])
def test_nothing_leaves_the_shim(
    fault: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise fault("of ours")

    monkeypatch.setattr("ray_workflow_exporter.inside_ray.load", fail)
    file = _shim_in(tmp_path)
    runpy.run_path(file)
    assert f"{file} met {fault.__name__}('of ours')" in caplog.text


def test_in_a_ray_that_we_do_not_know_nothing_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = ModuleType("ray")
    unknown.__version__ = "2.48.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", unknown)
    runpy.run_path(_shim_in(tmp_path))
    assert "not started: this is Ray 2.48.0; it supports Ray 2.20 up to 2.47." in caplog.text


def _shim_in(folder: Path) -> str:
    file = folder / "shim.py"
    file.write_text(shim.SHIM)
    return str(file)
