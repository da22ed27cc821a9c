"""The scripts of the head pod, run without Kubernetes beside a Ray that is not started."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ray_workflow_exporter.cli import main
from support.private_ray import PrivateRay

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


class HeadPod:
    """What KubeRay's values say of the head, for a Python with Ray and pip but no exporter."""

    def __init__(self, folder: Path) -> None:
        image = PrivateRay(folder / "image")
        image.uninstall_exporter()
        # All packages but ours, which pip would find, although it cannot be imported.
        others = folder / "others"
        others.mkdir()
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if "ray_workflow_exporter" not in path.name and path.name != "ray":
                (others / path.name).symlink_to(path)
        self.site = image.ray.parent
        (self.site / "others.pth").write_text(f"{others}\n")
        self.modules = image.modules
        self.volume = folder / "volume"
        self.volume.mkdir()
        self._environ = {"PATH": f"{image.python.parent}:/usr/bin:/bin", "HOME": str(folder)}
        printed = CliRunner().invoke(main, ["kubernetes", "kuberay-values"]).output
        self._values: Any = yaml.safe_load(printed)["head"]

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**self._environ, **environ},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def init(self, package: str) -> subprocess.CompletedProcess[str]:
        """Run the init container."""
        (container,) = self._values["initContainers"]
        environ = {it["name"]: it["value"] for it in container["env"]}
        environ.update(FOLDER=str(self.volume), PACKAGE=package, PIP_NO_INDEX="1")
        return self.run(*container["command"], **environ)

    def start(self) -> subprocess.CompletedProcess[str]:
        """Run the head's command, and in place of `ray start` what KubeRay puts behind it."""
        (command,) = self._values["command"]
        command = command.replace("/opt/ray-workflow-exporter", str(self.volume))
        return self.run("/bin/bash", "-c", f"{command} && ulimit -n; echo Ray starts")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(ROOT / "deploy"))
    try:
        import dist
    finally:
        sys.path.pop(0)
    return dist.build(tmp_path_factory.mktemp("dist"))[0]


@pytest.fixture
def head(tmp_path: Path) -> HeadPod:
    return HeadPod(tmp_path)


def test_the_exporter_is_added_to_the_ray_of_the_image(head: HeadPod, wheel: Path) -> None:
    before = head.run("python", "-m", "pip", "list", "--format=freeze").stdout.splitlines()
    done = head.init(str(wheel))
    assert "Successfully installed ray-workflow-exporter" in done.stdout, done.stderr
    started = head.start()
    assert "the next `ray start --head` starts the exporter" in started.stdout, started.stderr
    assert started.stdout.endswith("Ray starts\n")
    # Ray's dashboard finds it, and no package of the image is another.
    loaded = head.run(
        "python", "-c", "import ray.dashboard.modules.workflow_exporter, sys; print(sys.path)"
    )
    assert loaded.stdout.rstrip().endswith(
        f"{head.volume}/python/lib/{head.site.parts[-2]}/site-packages']"
    )
    assert loaded.stderr == ""
    after = head.run("python", "-m", "pip", "list", "--format=freeze").stdout.splitlines()
    assert set(before) < set(after)
    assert [it.partition("==")[0] for it in set(after) - set(before)] == ["ray-workflow-exporter"]
    # A container that restarts does it all again.
    assert head.init(str(wheel)).returncode == 0
    assert "Already installed" in head.start().stdout


@pytest.mark.parametrize("package", ["no-such-package==1", "/nowhere/exporter.whl"])
def test_ray_starts_without_an_exporter_that_cannot_be_installed(
    head: HeadPod, package: str
) -> None:
    done = head.init(package)
    assert done.returncode == 0
    assert "The exporter was not installed (see above): Ray starts without it." in done.stderr
    assert head.start().stdout.endswith("Ray starts\n")
    assert not (head.modules / "workflow_exporter").exists()
    assert not (head.site / "ray-workflow-exporter.pth").exists()


def test_ray_starts_if_the_image_is_read_only(head: HeadPod, wheel: Path) -> None:
    head.init(str(wheel))
    (head.site / "ray-workflow-exporter.pth").mkdir()  # so that root cannot write it either
    started = head.start()
    assert started.stdout.endswith("Ray starts\n")
    assert not (head.modules / "workflow_exporter").exists()
