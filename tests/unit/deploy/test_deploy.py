"""The files in `deploy/` and docs/inside-ray.md agree with the code."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ray_workflow_exporter.cli import main
from ray_workflow_exporter.inside_ray import forward, supervisor
from ray_workflow_exporter.inside_ray.install import find_place
from ray_workflow_exporter.inside_ray.node import Node
from ray_workflow_exporter.settings.addresses import parse_listen
from ray_workflow_exporter.settings.settings import SETTINGS, Settings, variable
from ray_workflow_exporter.sources.manager import versions as rays

ROOT = Path(__file__).parents[3]
KUBERAY = ROOT / "deploy" / "kuberay"


@pytest.fixture
def cluster() -> Any:
    return yaml.safe_load((KUBERAY / "raycluster.yaml").read_text())["spec"]


@pytest.fixture
def head(cluster: Any) -> Any:
    (container,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    return container


def test_the_head_container_uses_existing_settings(head: Any) -> None:
    environ = {entry["name"]: entry["value"] for entry in head["env"]}
    assert environ.keys() <= {variable(key) for key in SETTINGS}
    assert Settings.load(None, environ, {})


def test_the_head_container_exposes_the_exporters_port(head: Any) -> None:
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    assert ports["workflows"] == parse_listen(Settings.load(None, {}, {}).listen)[1]


def test_the_state_folder_is_on_a_volume(head: Any, cluster: Any) -> None:
    environ = {entry["name"]: entry["value"] for entry in head["env"]}
    (mount,) = head["volumeMounts"]
    assert mount["mountPath"] == environ[variable("state_dir")]
    volumes = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert [volume["name"] for volume in volumes] == [mount["name"]]


def test_image_and_cluster_use_the_same_supported_ray(cluster: Any) -> None:
    recipe = (KUBERAY / "Dockerfile").read_text()
    (version,) = re.findall(r"^ARG RAY_IMAGE=rayproject/ray:([0-9.]+)-py", recipe, re.MULTILINE)
    assert version == cluster["rayVersion"]
    assert rays.supported(version)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert len(images) == 1
    assert images.pop().endswith(f":{version}")


def test_the_image_recipe_copies_existing_files() -> None:
    recipe = (KUBERAY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY --chown=\S+ (.*) \S+$", recipe, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert {"pyproject.toml", "exporter", "grafana", "prometheus"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("recipe", ["compose", "kuberay"])
def test_an_image_recipe_copies_what_the_package_links_to(recipe: str) -> None:
    text = (ROOT / "deploy" / recipe / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?:--\S+ )?(.*) \S+$", text, re.MULTILINE)
    sources = [ROOT / source for line in copied for source in line.split()]
    links = [it for it in (ROOT / "exporter").rglob("*") if it.is_symlink()]
    assert links
    assert {ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"} <= set(sources)
    for link in links:
        target = link.resolve()
        assert any(it == target or it in target.parents for it in sources), link.name


def test_the_systemd_unit_uses_existing_flags_and_settings() -> None:
    # Strict: systemd merges duplicate keys, this parser would take the last one.
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(ROOT / "deploy" / "systemd" / "ray-workflow-exporter.service")
    service = unit["Service"]
    program, name, *arguments = service["ExecStart"].split()
    assert Path(program).name == "ray-workflow-exporter"
    assert name == "serve"
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None, name
    command.make_context(name, arguments, parent=context)
    key, _, value = service["Environment"].partition("=")
    assert key == variable("state_dir")
    assert value == f"%S/{service['StateDirectory']}"
    # Ray's sockets and the address of its cluster are there.
    assert service["ReadWritePaths"] == "/tmp"
    assert "PrivateTmp" not in service


def test_the_page_has_the_file_names_and_numbers_of_the_code() -> None:
    page = (ROOT / "docs" / "inside-ray.md").read_text()
    node = Node("", "", "", "", "", "/tmp/ray", "")
    shim = find_place().file
    assert "/".join(shim.parts[shim.parts.index("ray") :][-5:]) in page
    assert node.log_file.name in page
    assert node.discovery_file.name in page
    assert f"{forward.LARGEST_BODY >> 20} MiB" in page
    assert f"up to {supervisor.LONGEST_DELAY:.0f} s" in page
