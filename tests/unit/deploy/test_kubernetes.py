"""The Helm chart and what `kubernetes export` writes, as far as Helm is not needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from prometheus.alerts import JOB
from ray_workflow_exporter.cli import main
from ray_workflow_exporter.commands.kubernetes import MODES, WHAT
from ray_workflow_exporter.settings.addresses import parse_listen
from ray_workflow_exporter.settings.settings import SETTINGS, Settings, variable
from ray_workflow_exporter.sources.manager import versions
from support.kubernetes import CHART, KUBERAY, ROOT, SCHEMAS, objects

# Settings that the chart sets by other values.
OF_THE_CHART = {
    *("storage", "address", "listen", "state_dir", "tokens_file", "web_config_file"),
}
PORT = parse_listen(Settings.load(None, {}, {}).listen)[1]
LARGEST_ANNOTATION = 256 << 10  # in which `kubectl apply` keeps a copy of an object
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
RULES = ROOT / "prometheus" / "rules"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["kubernetes", *arguments])
    assert result.exit_code == 0, result.output
    return result


def export(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    run("export", str(folder), *arguments)
    return [it for file in sorted(folder.iterdir()) for it in objects(file.read_text())]


def of_kind(exported: list[dict[str, Any]], kind: str) -> Any:
    (found,) = (it for it in exported if it["kind"] == kind)
    return found


def groups(*names: str) -> Iterator[Any]:
    for name in names:
        yield from yaml.safe_load((RULES / f"{name}.yml").read_text())["groups"]


STORAGE = ("--mode", "storage", "--storage", "s3://bucket/ray")


@pytest.mark.parametrize("arguments", [(), STORAGE])
def test_objects_have_only_fields_that_kubernetes_knows(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    exported = export(tmp_path, *arguments)
    assert {it.stem for it in tmp_path.iterdir()} == set(
        MODES["storage" if arguments else "inside-ray"]
    )
    for it in exported:
        jsonschema.validate(it, SCHEMAS[it["kind"]])
        assert len(json.dumps(it)) < LARGEST_ANNOTATION
        assert '"STORAGE"' not in json.dumps(it)
    names = [(it["kind"], it["metadata"]["name"]) for it in exported]
    assert len(names) == len(set(names))


def test_rules_are_those_of_the_package(tmp_path: Path) -> None:
    rule = of_kind(export(tmp_path, "--what", "rules"), "PrometheusRule")
    assert rule["spec"]["groups"] == list(groups("recording", "alerts", "thresholds"))


def test_rules_get_links_and_thresholds_as_those_of_prometheus_export(tmp_path: Path) -> None:
    options = ("--grafana-url", "https://g.example", "--threshold", "slow_factor=5")
    rule = of_kind(export(tmp_path / "k", "--what", "rules", *options), "PrometheusRule")
    result = CliRunner().invoke(main, ["prometheus", "export", str(tmp_path / "p"), *options])
    assert result.exit_code == 0, result.output
    texts = [
        (tmp_path / "p" / f"{it}.yml").read_text() for it in ("recording", "alerts", "thresholds")
    ]
    assert rule["spec"]["groups"] == [it for text in texts for it in yaml.safe_load(text)["groups"]]


def test_dashboards_are_those_of_the_package(tmp_path: Path) -> None:
    maps = export(tmp_path, "--what", "dashboards")
    found = {name: json.loads(text) for it in maps for name, text in it["data"].items()}
    files = (ROOT / "grafana" / "dashboards").glob("*.json")
    assert found == {it.name: json.loads(it.read_text()) for it in files}
    for it in maps:
        assert it["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert it["metadata"]["annotations"]["grafana_folder"]


@pytest.mark.parametrize(
    ("arguments", "kind", "endpoints"),
    [((), "PodMonitor", "podMetricsEndpoints"), (STORAGE, "ServiceMonitor", "endpoints")],
)
def test_a_target_gets_the_labels_that_the_alerts_expect(
    tmp_path: Path, arguments: tuple[str, ...], kind: str, endpoints: str
) -> None:
    monitor = of_kind(export(tmp_path, *arguments), kind)
    (endpoint,) = monitor["spec"][endpoints]
    relabelings = {it["targetLabel"]: it for it in endpoint["relabelings"]}
    assert relabelings.keys() == {"job", "namespace", "cluster", "ray_io_cluster"}
    assert relabelings["job"]["replacement"] == JOB
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_what_is_asked_for_is_filled_in(tmp_path: Path) -> None:
    strange = 's3://bucket/a"b: #c'
    exported = export(
        *(tmp_path, "--mode", "storage", "--storage", strange, "--cluster", "archive"),
        *("--prometheus-release", ""),
    )
    (container,) = of_kind(exported, "Deployment")["spec"]["template"]["spec"]["containers"]
    environ = {it["name"]: it["value"] for it in container["env"]}
    assert Settings.load(None, environ, {}).storage == strange
    assert environ[variable("address")] == "none"
    monitor = of_kind(exported, "ServiceMonitor")
    assert "release" not in monitor["metadata"]["labels"]
    assert "archive" in json.dumps(monitor["spec"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--mode", "storage"), "needs --storage"),
        (("--what", "rules,boats"), "'boats' is not one of rules, dashboards"),
        (("--threshold", "slow=1"), "There is no threshold 'slow'"),
    ],
)
def test_a_wrong_option_writes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = CliRunner().invoke(main, ["kubernetes", "export", str(tmp_path), *arguments])
    assert result.exit_code == 2
    assert sentence in result.output
    assert not list(tmp_path.iterdir())


def test_the_pod_is_restricted(tmp_path: Path) -> None:
    exported = export(tmp_path, *STORAGE)
    pod = of_kind(exported, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["ports"] == [{"name": "metrics", "containerPort": PORT}]
    assert container["livenessProbe"]["httpGet"]["path"] == "/-/healthy"
    assert container["resources"]["limits"].keys() == {"memory"}  # a CPU limit would stall polls
    assert {it["name"] for it in container["volumeMounts"]} == {it["name"] for it in pod["volumes"]}
    (rule,) = of_kind(exported, "NetworkPolicy")["spec"]["ingress"]
    assert rule == {"ports": [{"port": "metrics", "protocol": "TCP"}]}


def head(*arguments: str) -> Any:
    values = yaml.safe_load(run("kuberay-values", *arguments).output)
    jsonschema.validate(values, KUBERAY)
    return values["head"]


def test_kuberay_starts_the_exporter_in_the_head_pod() -> None:
    pod = head("--storage", "s3://bucket/ray")
    assert pod["rayStartParams"] == {"storage": "s3://bucket/ray"}
    assert "rayStartParams" not in head()
    ports = {it["name"]: it["containerPort"] for it in pod["ports"]}
    assert ports == {
        "gcs-server": 6379,
        "dashboard": 8265,
        "client": 10001,
        "serve": 8000,
        "workflows": PORT,
    }
    environ = {it["name"]: it["value"] for it in pod["containerEnv"]}
    assert Settings.load(None, environ, {})
    mounts = {it["mountPath"]: it["name"] for it in pod["volumeMounts"]}
    assert mounts[environ[variable("state_dir")]]
    assert set(mounts.values()) == {it["name"] for it in pod["volumes"]}


def test_ray_starts_even_if_the_exporter_could_not_be_installed() -> None:
    pod = head()
    # KubeRay joins the words and puts `&& ulimit …; ray start …` behind them.
    (command,) = pod["command"]
    assert command.endswith("|| true")
    (container,) = pod["initContainers"]
    script = container["command"][2]
    assert script.splitlines()[-1].lstrip().startswith("echo ")
    assert script == (CHART / "scripts" / "install.sh").read_text().rstrip("\n") + "\n"


def test_the_init_container_has_the_image_of_the_head() -> None:
    values = yaml.safe_load(run("kuberay-values").output)
    (container,) = values["head"]["initContainers"]
    assert container["image"] == f"{values['image']['repository']}:{values['image']['tag']}"
    assert versions.supported(values["image"]["tag"].partition("-")[0])
    # With a user that has a name only, kubelet cannot tell, and the head would not start.
    assert "runAsNonRoot" not in container["securityContext"]


def test_chart_and_objects_have_the_version_of_the_package(tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', text, re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    for it in export(tmp_path, *STORAGE):
        assert it["metadata"]["labels"]["app.kubernetes.io/version"] == version
    assert f"ray-workflow-exporter=={version}" in run("kuberay-values").output


def test_the_default_values_fit_their_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)
    assert SCHEMA["properties"].keys() == {*VALUES, "global"}


def sections(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in ("labels", "annotations"):
            yield from sections(value, (*path, key))


@pytest.mark.parametrize("path", list(sections(VALUES)), ids=".".join)
def test_an_unknown_value_is_refused(path: tuple[str, ...]) -> None:
    values = json.loads(json.dumps(VALUES))
    section = values
    for key in path:
        section = section[key]
    if path[-1:] in [("requests",), ("limits",)]:
        return  # Kubernetes knows these
    section["unheardOf"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_settings_and_thresholds_are_those_that_exist() -> None:
    settings = SCHEMA["properties"]["settings"]["propertyNames"]["enum"]
    assert set(settings) == SETTINGS.keys() - OF_THE_CHART
    names = SCHEMA["properties"]["prometheusRule"]["properties"]["thresholds"]["propertyNames"]
    (group,) = groups("thresholds")
    assert names["enum"] == [rule["labels"]["name"] for rule in group["rules"]]


def test_every_object_of_the_help_text_can_be_exported() -> None:
    folder = ROOT / "deploy" / "kubernetes"
    assert {it.stem for it in folder.iterdir()} == {*WHAT, "kuberay-values"}
