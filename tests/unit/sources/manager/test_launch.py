from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ray_workflow_exporter.sources.manager import launch

pytestmark = pytest.mark.process


@pytest.mark.parametrize("module", ["inside_ray.child", "sources.manager.driver", "__main__"])
def test_what_lies_in_the_folder_that_it_is_started_in_is_not_run(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("open('was_run', 'w')")
    subprocess.run(
        launch.command(f"ray_workflow_exporter.{module}", "none", "test", "1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["json.py"]


def test_a_module_runs_as_a_program_with_its_arguments() -> None:
    told = subprocess.check_output(
        launch.command("json.tool", "--json-lines", "-"), input="[1]\n[2]", text=True, timeout=60
    )
    assert told.count("[") == 2
