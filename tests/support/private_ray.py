"""A Python of its own with a Ray of its own, for tests that write into the installed Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import ray_workflow_exporter

# Where tests run with a PYTHONPATH, it must not lead past what was broken or taken away.
NO_OTHER_PACKAGES = {"PYTHONPATH": ""}
PACKAGE = Path(ray_workflow_exporter.__file__).parent


class PrivateRay:
    """A virtual environment below `folder` that other tests do not see.

    Ray is a tree of links to the files of the Ray that is installed here, so that a file written
    into it is seen by this Python alone; only its patience with a busy machine is another. The
    exporter is a copy of ours, to be broken or taken away. All other packages are those of this
    Python.
    """

    def __init__(self, folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True
        )
        self.python = folder / "bin" / "python"
        ours = sysconfig.get_path("purelib", vars={"base": str(folder)})
        theirs = sysconfig.get_path("purelib")
        self.ray = Path(ours, "ray")
        self.modules = self.ray / "dashboard" / "modules"
        shutil.copytree(Path(theirs, "ray"), self.ray, copy_function=_link)
        self._give_the_dashboard_time()
        # A plain line: the files that make the checkout importable are not followed from here.
        Path(ours, "others.pth").write_text(theirs + "\n")
        self.package = Path(ours, "ray_workflow_exporter")
        self.install_exporter()

    def install_exporter(self) -> None:
        """Make the exporter importable, as it is in the checkout."""
        self.uninstall_exporter()
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        # A minute between two starts is right for users, and long for those who wait here.
        _change(self.package / "inside_ray" / "supervisor.py", "1.0, 60.0", "0.5, 2.0")

    def uninstall_exporter(self) -> None:
        """Take the exporter away, as `pip uninstall` does; what it wrote into Ray stays."""
        shutil.rmtree(self.package, ignore_errors=True)

    def _give_the_dashboard_time(self) -> None:
        # `ray start` waits for its dashboard for 20 s, which a busy machine misses.
        services = self.ray / "_private" / "services.py"
        _change(services, "in range(200):", "in range(800):")

    def dashboard(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run `ray-workflow-exporter ray-dashboard COMMAND`."""
        return subprocess.run(
            [str(self.python), "-m", "ray_workflow_exporter", "ray-dashboard", command],
            env={**os.environ, **NO_OTHER_PACKAGES},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def files(self) -> set[Path]:
        """List what Ray's dashboard looks through for modules, without what Python compiled."""
        return {path for path in self.modules.rglob("*") if "__pycache__" not in path.parts}


def _change(file: Path, old: str, new: str) -> None:
    code = file.read_text()
    assert code.count(old) == 1, f"{file} does not hold {old!r} once"
    file.unlink()  # not written in place: it may be shared with the Ray of all others
    file.write_text(code.replace(old, new))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
