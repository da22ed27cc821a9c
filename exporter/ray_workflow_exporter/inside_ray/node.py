"""The Ray node of the exporter, and the discovery files with the exporter's address."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ..settings.addresses import is_wildcard, join_address, local_host
from .files import read_json, write_json

_LOG_FILE, _OUTPUT_FILE = "workflow_exporter.log", "workflow_exporter.err"
_ADDRESS_FILE = "workflow_exporter.json"
# Beside Ray's own prom_metrics_service_discovery.json: prom_*_service_discovery.json means both.
_DISCOVERY_FILE = "prom_workflow_service_discovery.json"
_JOB = "ray-workflow"


@dataclass(frozen=True)
class Listening:
    """Where the exporter listens, and what its clients need."""

    addresses: Sequence[tuple[str, int]]
    fingerprint: Optional[str] = None  # SHA-256 of its TLS certificate, in hex; None: no TLS
    asks_certificate: bool = False


@dataclass(frozen=True)
class Address:
    """Where Ray's dashboard reaches the exporter; the rest as in `Listening`."""

    url: str
    fingerprint: Optional[str] = None
    asks_certificate: bool = False


@dataclass(frozen=True)
class Node:
    """The head node of a Ray, as its dashboard agent knows it."""

    gcs_address: str
    node_id: str
    ip: str
    session_name: str
    session_dir: str
    temp_dir: str
    log_dir: str
    storage: Optional[str] = None

    @classmethod
    def from_json(cls, text: str) -> Node:
        """Return the node from the output of `to_json`."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    @property
    def log_file(self) -> Path:
        """The exporter's log; Ray's log viewer lists this folder."""
        return Path(self.log_dir, _LOG_FILE)

    @property
    def output_file(self) -> Path:
        """Other output of its process, for example from Ray's own code."""
        return Path(self.log_dir, _OUTPUT_FILE)

    @property
    def discovery_file(self) -> Path:
        """What Prometheus reads (file_sd_configs)."""
        return Path(self.temp_dir, _DISCOVERY_FILE)

    @property
    def address_file(self) -> Path:
        """What Ray's dashboard reads, to forward requests."""
        return address_file(self.session_dir)

    def announce(self, listening: Listening, cluster: Optional[str] = None) -> None:
        """Write both files if their content differs; one even if the other fails.

        `cluster` is the name of the cluster, if it has one. Raises OSError.
        """
        host, port = min(listening.addresses, key=lambda it: it[0] != "0.0.0.0")  # noqa: S104
        outside = self.ip if is_wildcard(host) else host
        labels = {"job": _JOB, "SessionName": self.session_name}
        if cluster:
            # As KubeRay labels Ray's own metrics, and as our alerts tell clusters apart.
            labels["ray_io_cluster"] = labels["cluster"] = cluster
        scheme = "http"
        if listening.fingerprint is not None:
            scheme = labels["__scheme__"] = "https"
        address = Address(
            f"{scheme}://{join_address(local_host(host), port)}",
            listening.fingerprint,
            listening.asks_certificate,
        )
        groups = [{"targets": [join_address(outside, port)], "labels": labels}]
        try:
            write_json(self.address_file, asdict(address))
        finally:
            write_json(self.discovery_file, groups)

    def withdraw(self) -> None:
        """Remove both files, unless another session's exporter wrote them. Raises OSError.

        One is removed even if the other cannot be.
        """
        try:
            self.address_file.unlink(missing_ok=True)
        finally:
            if _session_of(read_json(self.discovery_file)) == self.session_name:
                self.discovery_file.unlink(missing_ok=True)


def address_file(session_dir: str) -> Path:
    """Return the file with the address of the exporter of a session."""
    return Path(session_dir, _ADDRESS_FILE)


def read_address(file: Path) -> Optional[Address]:
    """Return the address of the exporter, None if it is not running."""
    try:
        return Address(**read_json(file))
    except TypeError:
        return None


def _session_of(groups: Any) -> Any:
    try:
        return groups[0]["labels"]["SessionName"]
    except (TypeError, LookupError):
        return None
