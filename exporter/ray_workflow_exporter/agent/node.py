"""The Ray node that the exporter belongs to, and the files in which it tells where it listens."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

LOG_FILE = "workflow_exporter.log"
_ADDRESS_FILE = "workflow_exporter.json"
# Beside Ray's own prom_metrics_service_discovery.json: prom_*_service_discovery.json means both.
_DISCOVERY_FILE = "prom_workflow_service_discovery.json"
_JOB = "ray-workflow"
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on


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
        """Return the node that `to_json` wrote down."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    @property
    def log_file(self) -> Path:
        """Where the exporter's output goes; Ray's log viewer lists this folder."""
        return Path(self.log_dir, LOG_FILE)

    @property
    def discovery_file(self) -> Path:
        """What Prometheus reads (file_sd_configs)."""
        return Path(self.temp_dir, _DISCOVERY_FILE)

    @property
    def address_file(self) -> Path:
        """What Ray's dashboard reads, to forward requests."""
        return address_file(self.session_dir)

    def announce(self, addresses: Sequence[tuple[str, int]], cluster: Optional[str] = None) -> None:
        """Write both files, where they do not stand already; one even if the other fails.

        Raises OSError.
        `addresses` are those that the exporter listens on, `cluster` the name of the cluster, if
        it has one.
        """
        host, port = min(addresses, key=lambda it: it[0] != "0.0.0.0")  # noqa: S104
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        outside = self.ip if host in _WILDCARDS else host
        labels = {"job": _JOB, "SessionName": self.session_name}
        if cluster:
            # As KubeRay labels Ray's own metrics, and as our alerts tell clusters apart.
            labels["ray_io_cluster"] = labels["cluster"] = cluster
        groups = [{"targets": [_join(outside, port)], "labels": labels}]
        try:
            _write(self.address_file, {"url": f"http://{_join(local, port)}"})
        finally:
            _write(self.discovery_file, groups)

    def withdraw(self) -> None:
        """Remove both files, unless another session's exporter wrote them; raises OSError.

        One is removed even if the other cannot be.
        """
        try:
            self.address_file.unlink(missing_ok=True)
        finally:
            if _session_of(_read(self.discovery_file)) == self.session_name:
                self.discovery_file.unlink(missing_ok=True)


def address_file(session_dir: str) -> Path:
    """Return the file that says where the exporter of a session listens."""
    return Path(session_dir, _ADDRESS_FILE)


def read_address(file: Path) -> Optional[str]:
    """Return the URL of the exporter, None when it is away."""
    try:
        return str(_read(file)["url"])
    except (TypeError, LookupError):
        return None


def _session_of(groups: Any) -> Any:
    try:
        return groups[0]["labels"]["SessionName"]
    except (TypeError, LookupError):
        return None


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read(file: Path) -> Any:
    """Return the JSON of a file that is ours, None without one."""
    try:
        # Ray lets every user of the machine write into its folders: a link, a pipe, a lie.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
                return None
            return json.loads(stream.read())
    except (OSError, ValueError):
        return None


def _write(file: Path, content: Any) -> None:
    if _read(file) == content:
        return
    # A name that nobody can guess, and lay a link under.
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.", suffix=".part")
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
            os.fchmod(descriptor, 0o644)  # whatever the umask: Prometheus is another user
        os.replace(part, file)
    except BaseException:
        os.unlink(part)
        raise
