"""The Helm chart as Helm renders it; `make helm` builds Helm and kubeconform."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from ray_workflow_exporter.cli import main
from ray_workflow_exporter.server.auth.tokens import read_tokens
from ray_workflow_exporter.server.auth.web_config import read_web_config
from ray_workflow_exporter.settings.settings import Settings
from support.kubernetes import CHART, KUBERAY, ROOT, objects, tool, write_schemas
from support.monitoring import Promtool, promtools

sys.path.insert(0, str(ROOT / "deploy"))
try:
    import manifests
finally:
    sys.path.pop(0)

if not (tool("helm") and tool("kubeconform")):
    pytest.skip(
        "no Helm and kubeconform in .tools: run `make helm`, which needs Go",
        allow_module_level=True,
    )

pytestmark = pytest.mark.process

BUCKET = {"mode": "storage", "storage": {"uri": "s3://bucket/ray"}}
HASH = "9b2f6b1d4b9a6d7f0c3f9c1e0d2a4b6c8e0f1a3b5c7d9e1f2a4b6c8d0e2f4a6b"
TOKENS = {"tokens": [{"name": "on-call", "role": "act", "sha256": HASH}]}
WEB_CONFIG = {"basic_auth_users": {"prometheus": "$2b$04$" + "a" * 53}}
KINDS = {
    "inside-ray": {"ConfigMap", "PodMonitor", "PrometheusRule"},
    "storage": {
        *("ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "PrometheusRule"),
        *("Service", "ServiceAccount", "ServiceMonitor"),
    },
}

# Values, and the kinds of objects that are there besides, or not there, because of them.
SETS: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    "defaults": ({}, set(), set()),
    "inside-ray-in-full": (
        {
            "storage": {"uri": "gs://bucket/ray"},
            "settings": {"finished_retention": "6h", "max_finished_runs": 2000000},
            "env": [{"name": "AWS_REGION", "value": "eu-central-1"}],
            "envFrom": [{"secretRef": {"name": "bucket"}}],
            "state": {"existingClaim": "workflow-state"},
            "tokens": {"content": TOKENS},
            "insideRay": {
                "image": {"repository": "registry.example/ray", "tag": "2.44.1-py312"},
                "package": "ray-workflow-exporter==0.1.0",
                "env": [{"name": "PIP_INDEX_URL", "value": "https://pypi.example/simple"}],
            },
            "monitor": {"namespaces": ["team-a", "team-b"]},
        },
        {"Secret"},
        set(),
    ),
    "existing-secrets": (
        {
            "tokens": {"existingSecret": "tokens"},
            "webConfig": {"existingSecret": "web", "tls": True},
            "monitor": {"tlsConfig": {"ca": {"secret": {"name": "ca", "key": "ca.crt"}}}},
        },
        set(),
        set(),
    ),
    "rules-only": (
        {"monitor": {"enabled": False}, "dashboards": {"enabled": False}},
        set(),
        {"PodMonitor"},
    ),
    "thresholds-and-links": (
        {
            "prometheusRelease": "",
            "prometheusRule": {
                "labels": {"team": "ml"},
                "thresholds": {"slow_factor": 5, "output_bytes": 5000000, "queue_share": 0.25},
                "grafanaUrl": "https://grafana.example/",
                "exporterUrl": "https://exporter.example",
            },
        },
        set(),
        set(),
    ),
    "storage": (BUCKET, set(), set()),
    "storage-in-full": (
        {
            **BUCKET,
            "fullnameOverride": "history",
            "settings": {
                "detail": "run",
                "objective": 0.95,
                "public_reading": False,
                "metadata_labels": ["team", "owner"],
                "workflows": {"nightly": {"expected_interval": "1d"}},
            },
            "tokens": {"content": TOKENS},
            "webConfig": {"content": WEB_CONFIG},
            "image": {"digest": "sha256:" + "0" * 64},
            "imagePullSecrets": [{"name": "registry"}],
            "serviceAccount": {
                "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}
            },
            "podLabels": {"team": "ml"},
            "podAnnotations": {"note": "1"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "monitoring",
            "networkPolicy": {
                "from": [{"namespaceSelector": {}}],
                "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
            },
            "podDisruptionBudget": {"enabled": True},
            "monitor": {
                "cluster": "archive",
                "basicAuth": {
                    "username": {"name": "login", "key": "user"},
                    "password": {"name": "login", "key": "password"},
                },
            },
        },
        {"PodDisruptionBudget", "Secret"},
        set(),
    ),
    "storage-on-a-claim": (
        {
            "mode": "storage",
            "storage": {"existingClaim": "ray-storage"},
            "state": {"persistence": {"enabled": False}},
            "serviceAccount": {"create": False},
            "networkPolicy": {"enabled": False},
        },
        set(),
        {"NetworkPolicy", "PersistentVolumeClaim", "ServiceAccount"},
    ),
    "storage-with-tls": (
        {
            **BUCKET,
            "webConfig": {"content": {"tls_server_config": {"cert_file": "a", "key_file": "b"}}},
            "state": {"existingClaim": "workflow-state"},
            "monitor": {"authorization": {"credentials": {"name": "token", "key": "token"}}},
        },
        {"Secret"},
        {"PersistentVolumeClaim"},
    ),
}

each_set = pytest.mark.parametrize("name", SETS)


def helm(
    *arguments: str, values: Mapping[str, Any], chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    command = [tool("helm") or "", *arguments, str(chart), "--values=-"]
    return subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True)


@cache
def template(name: str) -> str:
    done = helm("template", "release", values=SETS[name][0])
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(name: str) -> list[dict[str, Any]]:
    return list(objects(template(name)))


def one(found: list[dict[str, Any]], kind: str, suffix: str = "") -> Any:
    (it,) = (it for it in found if it["kind"] == kind and it["metadata"]["name"].endswith(suffix))
    return it


@each_set
def test_helm_finds_no_fault(name: str) -> None:
    done = helm("lint", values=SETS[name][0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@each_set
def test_the_objects_are_those_that_the_values_ask_for(name: str) -> None:
    values, more, less = SETS[name]
    found = rendered(name)
    assert {it["kind"] for it in found} == (KINDS[values.get("mode", "inside-ray")] | more) - less
    names = [(it["kind"], it["metadata"]["name"]) for it in found]
    assert len(names) == len(set(names))


@each_set
def test_kubeconform_finds_no_unknown_field(tmp_path: Path, name: str) -> None:
    schemas = write_schemas(tmp_path)
    checked = subprocess.run(
        [tool("kubeconform") or "", "-strict", "-summary", "-schema-location", schemas, "-"],
        input=template(name), capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
    assert "Skipped: 0" in checked.stdout


@pytest.mark.prometheus
@each_set
@pytest.mark.parametrize("promtool", promtools(), ids=lambda it: it.version)
def test_prometheus_accepts_the_rules(tmp_path: Path, name: str, promtool: Promtool) -> None:
    rule = one(rendered(name), "PrometheusRule")
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    done = subprocess.run(
        [promtool.path, "check", "rules", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_set
def test_the_exporter_accepts_its_environment(name: str) -> None:
    values = SETS[name][0]
    found = rendered(name)
    if values.get("mode") == "storage":
        (container,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
        env = container["env"]
    else:
        kuberay = yaml.safe_load(one(found, "ConfigMap", "-kuberay")["data"]["values.yaml"])
        jsonschema.validate(kuberay, KUBERAY)
        env = kuberay["head"]["containerEnv"]
    settings = Settings.load(None, {it["name"]: it["value"] for it in env}, {})
    for key, value in values.get("settings", {}).items():
        assert getattr(Settings.load(None, {}, {key: value}), key) == getattr(settings, key)


@each_set
def test_dashboards_arrive_as_they_are(name: str) -> None:
    found = rendered(name)
    maps = [it for it in found if "grafana_dashboard" in it["metadata"]["labels"]]
    enabled = SETS[name][0].get("dashboards", {}).get("enabled", True)
    files = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
    expected = {it.name: json.loads(it.read_text()) for it in files} if enabled else {}
    assert {key: json.loads(it["data"][key]) for it in maps for key in it["data"]} == expected


def test_thresholds_and_links_are_as_the_command_writes_them(tmp_path: Path) -> None:
    rule = one(rendered("thresholds-and-links"), "PrometheusRule")
    assert rule["metadata"]["labels"]["team"] == "ml"
    assert "release" not in rule["metadata"]["labels"]
    options = ["slow_factor=5", "output_bytes=5000000", "queue_share=0.25"]
    exported = [
        *("kubernetes", "export", str(tmp_path / "k"), "--what", "rules"),
        *("--grafana-url", "https://grafana.example", "--exporter-url", "https://exporter.example"),
        *(word for it in options for word in ("--threshold", it)),
    ]
    assert CliRunner().invoke(main, exported).exit_code == 0
    (written,) = objects((tmp_path / "k" / "rules.yaml").read_text())
    assert rule["spec"] == written["spec"]


@pytest.mark.parametrize("mode", ["inside-ray", "storage"])
def test_the_command_writes_the_objects_of_the_chart(tmp_path: Path, mode: str) -> None:
    uri = "s3://bucket/ray"
    values = {"mode": mode, "storage": {"uri": uri}}
    done = helm("template", "ray-workflow-exporter", values=values)
    assert done.returncode == 0, done.stderr
    chart = list(objects(manifests.without_release(done.stdout)))
    arguments = ("kubernetes", "export", str(tmp_path), "--mode", mode)
    storage = ("--storage", uri)
    assert CliRunner().invoke(main, [*arguments, *storage]).exit_code == 0
    exported = [it for file in tmp_path.iterdir() for it in objects(file.read_text())]
    if mode == "inside-ray":
        kuberay = one(chart, "ConfigMap", "-kuberay")
        chart.remove(kuberay)
        printed = CliRunner().invoke(main, ["kubernetes", "kuberay-values", *storage]).output
        assert printed.endswith(kuberay["data"]["values.yaml"])

    def key(it: dict[str, Any]) -> tuple[str, str]:
        return it["kind"], it["metadata"]["name"]

    assert sorted(exported, key=key) == sorted(chart, key=key)


def test_no_plain_object_is_stale() -> None:
    for path, text in manifests.files().items():
        assert path.read_text() == text, "run `make manifests`"


def test_secrets_hold_files_that_the_exporter_reads(tmp_path: Path) -> None:
    found = rendered("storage-in-full")
    for suffix, read in (("-tokens", read_tokens), ("-web-config", read_web_config)):
        ((name, text),) = one(found, "Secret", suffix)["stringData"].items()
        file = tmp_path / name
        file.write_text(text)
        file.chmod(0o600)
        assert read(file)
    pod = one(found, "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"].endswith("@sha256:" + "0" * 64)


def test_probes_and_scrapes_use_tls_if_the_exporter_does() -> None:
    found = rendered("storage-with-tls")
    (container,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    assert one(found, "ServiceMonitor")["spec"]["endpoints"][0]["scheme"] == "https"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"mode": "storage"}, "needs the workflow storage"),
        ({"storage": {"existingClaim": "c"}}, "storage.existingClaim is for mode: storage"),
        ({"setings": {}}, "'setings' not allowed"),
        ({"prometheusRule": {"thresholds": {"slow": 1}}}, "value must be one of 'stale_seconds'"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], sentence: str) -> None:
    done = helm("template", "release", values=values)
    assert done.returncode != 0
    assert sentence in done.stderr


# Helm prints notes when it installs, which needs a cluster; a template of a copy includes them.
NOTES = 'notes: {{ include (print .Template.BasePath "/NOTES.txt") . | quote }}'


@pytest.mark.parametrize("mode", ["inside-ray", "storage"])
def test_the_notes_say_what_to_do_next(tmp_path: Path, mode: str) -> None:
    copy = shutil.copytree(CHART, tmp_path / "chart")
    (copy / "templates" / "notes.yaml").write_text(NOTES)
    shown = "--show-only=templates/notes.yaml"
    values = {"mode": mode, "storage": {"uri": "s3://bucket/ray"}}
    done = helm("template", "release", shown, values=values, chart=copy)
    assert done.returncode == 0, done.stderr
    notes = yaml.safe_load(done.stdout)["notes"]
    assert "release: kube-prometheus-stack" in notes
    if mode == "storage":
        assert "kubectl port-forward service/release-ray-workflow-exporter" in notes
    else:
        assert "helm install raycluster kuberay/ray-cluster" in notes
        assert "storage.uri is empty" not in notes
        assert 'go-template={{index .data "values.yaml"}}' in notes
