"""JSON schemas of the Kubernetes objects that the Helm chart makes, and where Helm is.

They are written for these tests and hold only fields that the chart uses, so that a field with a
wrong name or in a wrong place is found. All that test_helm.py renders was also decoded once,
strictly, into the Go types of Kubernetes 1.34 and of the Prometheus operator 0.84.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "ray-workflow-exporter"
TOOLS = ROOT / ".tools"  # see `make helm`

Schema = dict[str, Any]


def tool(name: str) -> str | None:
    """Return the path of a program that `make helm` built, None if it was not."""
    return shutil.which(name, path=str(TOOLS))


def objects(text: str) -> Iterator[Schema]:
    """Yield the objects in a text of YAML documents."""
    yield from filter(None, yaml.safe_load_all(text))


def write_schemas(folder: Path) -> str:
    """Write the schemas to a folder, and return their place as kubeconform wants it."""
    for kind, schema in SCHEMAS.items():
        (folder / f"{kind.lower()}.json").write_text(json.dumps(schema))
    return f"{folder}/{{{{.ResourceKind}}}}.json"


def _object(*required: str, **properties: Any) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {key.rstrip("_"): value for key, value in properties.items()},
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _one_of(*values: Any) -> Schema:
    return {"enum": list(values)}


def _text(pattern: str, longest: int = 253) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$", "maxLength": longest}


TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}  # passed on as the user wrote it
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
NAME = _text("[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
VOLUME_NAME = _text("[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63)
PORT: Schema = {"type": ["string", "integer"]}
DURATION = _text("([0-9]+(ms|[smhdw]))+")
QUANTITY = _text("[0-9.]+([EPTGMK]i?|m)?")
PATH = _text("/.*", 4096)
SELECTOR = _object("matchLabels", matchLabels=LABELS)
KEY = _object("name", name=TEXT, key=TEXT, optional=FLAG)
PROTOCOL = _one_of("TCP", "UDP")
SECCOMP = _object("type", type=_one_of("RuntimeDefault"))

_AMOUNTS: Schema = {"type": "object", "additionalProperties": QUANTITY}
_PROBE = _object(
    "httpGet",
    httpGet=_object("path", "port", path=PATH, port=PORT, scheme=_one_of("HTTP", "HTTPS")),
    periodSeconds=WHOLE, timeoutSeconds=WHOLE, failureThreshold=WHOLE,
)  # fmt: skip
_FROM = _object(secretKeyRef=KEY, configMapKeyRef=KEY, fieldRef=_object(fieldPath=TEXT))
_MOUNT = _object("name", "mountPath", name=VOLUME_NAME, mountPath=PATH, readOnly=FLAG)
_CONTAINER = _object(
    "name", "image",
    name=NAME, image=_text(r"[^@\s]+(:[\w.-]+|@sha256:[0-9a-f]{64})"),
    imagePullPolicy=_one_of("Always", "IfNotPresent", "Never"),
    command=_list(TEXT), args=_list(TEXT),
    env=_list(_object("name", name=_text("[A-Za-z_][A-Za-z0-9_]*"), value=TEXT, valueFrom=_FROM)),
    envFrom=_list(_object(secretRef=KEY, configMapRef=KEY)),
    ports=_list(_object("containerPort", name=_text("[a-z0-9-]+", 15), containerPort=WHOLE)),
    startupProbe=_PROBE, livenessProbe=_PROBE, readinessProbe=_PROBE,
    resources=_object(requests=_AMOUNTS, limits=_AMOUNTS),
    securityContext=_object(
        allowPrivilegeEscalation=FLAG, readOnlyRootFilesystem=FLAG,
        capabilities=_object(drop=_list(TEXT)), seccompProfile=SECCOMP,
    ),
    volumeMounts=_list(_MOUNT),
)  # fmt: skip
_VOLUME = {
    **_object(
        "name",
        name=VOLUME_NAME,
        emptyDir=_object(sizeLimit=QUANTITY),
        persistentVolumeClaim=_object("claimName", claimName=NAME, readOnly=FLAG),
        secret=_object("secretName", secretName=NAME, defaultMode=WHOLE),
    ),
    "minProperties": 2,
    "maxProperties": 2,
}
_POD = _object(
    "containers",
    serviceAccountName=NAME, automountServiceAccountToken=FLAG, enableServiceLinks=FLAG,
    imagePullSecrets=_list(_object("name", name=NAME)),
    securityContext=_object(
        runAsNonRoot=FLAG, runAsUser=WHOLE, runAsGroup=WHOLE, fsGroup=WHOLE,
        fsGroupChangePolicy=_one_of("OnRootMismatch"), seccompProfile=SECCOMP,
    ),
    containers=_list(_CONTAINER), volumes=_list(_VOLUME),
    nodeSelector=LABELS, tolerations=_list(ANY), affinity=ANY, priorityClassName=NAME,
)  # fmt: skip
_RELABELING = _object("targetLabel", sourceLabels=_list(TEXT), targetLabel=TEXT, replacement=TEXT)
_CERTIFICATE = _object(secret=KEY, configMap=KEY)
_ENDPOINT = _object(
    "port",
    port=TEXT, interval=DURATION, scheme=_one_of("https"), relabelings=_list(_RELABELING),
    basicAuth=_object("username", "password", username=KEY, password=KEY),
    authorization=_object("credentials", type=TEXT, credentials=KEY),
    tlsConfig=_object(
        ca=_CERTIFICATE, cert=_CERTIFICATE, keySecret=KEY, serverName=TEXT, insecureSkipVerify=FLAG
    ),
)  # fmt: skip
_RULE = {
    **_object("expr", alert=TEXT, record=TEXT, expr=TEXT, for_=DURATION,
              labels=LABELS, annotations=LABELS),
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
}  # fmt: skip
_POLICY_PORTS = _list(_object(port=PORT, protocol=PROTOCOL))


def _kind(version: str, kind: str, **properties: Any) -> Schema:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **_object(
            "apiVersion", "kind", "metadata", *properties,
            apiVersion=_one_of(version), kind=_one_of(kind),
            metadata=_object("name", "labels", name=NAME, labels=LABELS, annotations=LABELS),
            **properties,
        ),
    }  # fmt: skip


_OPERATOR = "monitoring.coreos.com/v1"
_KINDS = [
    _kind("v1", "ConfigMap", data=LABELS),
    _kind("v1", "Secret", type=_one_of("Opaque"), stringData=LABELS),
    _kind("v1", "ServiceAccount", automountServiceAccountToken=_one_of(False)),
    _kind("v1", "Service", spec=_object(
        "selector", "ports",
        type=_one_of("ClusterIP"), selector=LABELS,
        ports=_list(_object("port", name=NAME, port=WHOLE, targetPort=PORT)),
    )),
    _kind("v1", "PersistentVolumeClaim", spec=_object(
        "accessModes", "resources",
        accessModes=_list(TEXT), storageClassName=NAME,
        resources=_object("requests", requests=_object("storage", storage=QUANTITY)),
    )),
    _kind("apps/v1", "Deployment", spec=_object(
        "selector", "template",
        replicas=WHOLE, strategy=_object("type", type=_one_of("Recreate")), selector=SELECTOR,
        template=_object(
            "metadata", "spec", metadata=_object(labels=LABELS, annotations=LABELS), spec=_POD
        ),
    )),
    _kind("networking.k8s.io/v1", "NetworkPolicy", spec=_object(
        "podSelector", "policyTypes",
        podSelector=SELECTOR, policyTypes=_list(_one_of("Ingress", "Egress")),
        ingress=_list(_object(ports=_POLICY_PORTS, from_=_list(ANY))),
        egress=_list(_object(ports=_POLICY_PORTS, to=_list(ANY))),
    )),
    _kind("policy/v1", "PodDisruptionBudget", spec=_object(
        "selector", minAvailable=WHOLE, selector=SELECTOR
    )),
    _kind(_OPERATOR, "PodMonitor", spec=_object(
        "selector", "podMetricsEndpoints",
        selector=SELECTOR, podMetricsEndpoints=_list(_ENDPOINT),
        namespaceSelector=_object("matchNames", matchNames=_list(NAME)),
    )),
    _kind(_OPERATOR, "ServiceMonitor", spec=_object(
        "selector", "endpoints", selector=SELECTOR, endpoints=_list(_ENDPOINT)
    )),
    _kind(_OPERATOR, "PrometheusRule", spec=_object(
        "groups", groups=_list(_object("name", "rules", name=TEXT, interval=DURATION,
                                       rules=_list(_RULE)))
    )),
]  # fmt: skip
SCHEMAS = {schema["properties"]["kind"]["enum"][0]: schema for schema in _KINDS}

# Values of KubeRay's chart `ray-cluster` that ours sets, as they are in its values.yaml.
KUBERAY = _object(
    image=_object("repository", "tag", repository=TEXT, tag=TEXT, pullPolicy=TEXT),
    head=_object(
        rayStartParams=LABELS,
        initContainers=_list(_CONTAINER),
        podSecurityContext=_POD["properties"]["securityContext"],
        volumes=_list(_VOLUME),
        containerEnv=_CONTAINER["properties"]["env"],
        **{
            key: _CONTAINER["properties"][key]
            for key in ("command", "envFrom", "ports", "volumeMounts")
        },
    ),
)
