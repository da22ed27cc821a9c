"""What holds for every file of the package; who may import whom is in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

import ray_workflow_exporter

PACKAGE = Path(ray_workflow_exporter.__file__).parent


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_only_the_link_and_the_probe_touch_ray() -> None:
    touching = {
        module
        for module, path in modules().items()
        if re.search(r"^\s*(import ray\b|from ray\b)", path.read_text(), re.MULTILINE)
    }
    assert touching == {
        *("sources.manager.connection", "sources.manager.driver", "sources.manager.probe"),
        *("sources.manager.remote_actions", "sources.manager.state_api"),
        *("client.client", "inside_ray", "inside_ray.modules"),
    }


def test_nothing_is_ever_unpickled_but_our_own_probe() -> None:
    users = {
        module
        for module, path in modules().items()
        if re.search(r"pickle\.loads?\b|Unpickler", path.read_text())
    }
    assert users == {"sources.manager.driver"}


def test_no_file_is_longer_than_a_head_holds() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
