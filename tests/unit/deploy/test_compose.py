"""The Docker Compose files are consistent; checked without running containers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_workflow_exporter.settings.addresses import parse_listen
from ray_workflow_exporter.settings.settings import SETTINGS, Settings, variable
from support.monitoring import FILES

FOLDER = Path(__file__).parents[3] / "deploy" / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yml").read_text())
VERSION = yaml.safe_load((FOLDER / "../helm/ray-workflow-exporter/Chart.yaml").read_text())[
    "version"
]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_a_pinned_image_a_health_check_and_local_ports(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        build = service["build"]
        recipe = (FOLDER / build["context"] / build["dockerfile"]).read_text()
        assert re.search(r"^HEALTHCHECK ", recipe, re.MULTILINE)
    else:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
        assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["cap_drop"] == ["ALL"]


def test_the_image_of_the_exporter_is_the_one_that_the_chart_runs() -> None:
    recipe = (FOLDER / "Dockerfile").read_text()
    user = re.findall(r"^USER (.+)$", recipe, re.MULTILINE)
    assert user == ["20729:20729"]  # as in the chart's Deployment; by name, it would not start
    assert f"ARG VERSION={VERSION}" in recipe
    assert len(re.findall(r"^FROM \$\{PYTHON\}", recipe, re.MULTILINE)) == 2
    named = re.findall(r"RAY_WORKFLOW_EXPORTER_\w+", recipe)
    assert set(named) <= {variable(key) for key in SETTINGS}
    assert f"localhost:{parse_listen(Settings.load(None, {}, {}).listen)[1]}/-/healthy" in recipe


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_and_volumes_exist(name: str) -> None:
    for volume in SERVICES[name]["volumes"]:
        source = re.match(r"(\$\{[^}]*\}|[^:]*):", volume)
        assert source, volume
        if source[1].startswith("."):
            assert (FOLDER / source[1]).exists(), volume
        elif not source[1].startswith("$"):
            assert source[1] in COMPOSE["volumes"]


def test_services_depend_on_existing_services() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_prometheus_is_configured_as_in_the_file_that_users_copy() -> None:
    ours = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    copied = yaml.safe_load((FILES / "prometheus.yml").read_text())
    assert ours["global"] == copied["global"]
    assert ours["rule_files"] == copied["rule_files"]
    assert [job["job_name"] for job in ours["scrape_configs"]] == ["ray-workflow"]
    targets = yaml.safe_load((FOLDER / "targets" / "exporter.yml").read_text())
    for target in (
        targets[0]["targets"] + ours["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    ):
        host, _, port = target.partition(":")
        assert any(published.endswith(f":{port}") for published in SERVICES[host]["ports"])


def test_grafana_has_every_variable_used_in_its_provisioning() -> None:
    texts = [it.read_text() for it in (FOLDER / "../../grafana/provisioning").rglob("*.yml")]
    named = {name for text in texts for name in re.findall(r"\$(\w+)", text)}
    assert named
    assert named <= set(SERVICES["grafana"]["environment"])


def test_grafana_has_the_dashboards_mounted_where_it_reads_them() -> None:
    file = FOLDER / "../../grafana/provisioning/dashboards/ray-workflow.yml"
    path = yaml.safe_load(file.read_text())["providers"][0]["options"]["path"]
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert path in mounts
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(path)
