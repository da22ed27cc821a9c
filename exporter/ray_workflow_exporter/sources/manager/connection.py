"""Connect to Ray as a driver, or say in a sentence why that is not possible."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from ..records import LinkCause, LinkState, NoManagerError
from . import versions

# Ray hides the jobs of such a namespace from its job list.
OUR_NAMESPACE = "_ray_internal_workflow_exporter"


def connect(address: str) -> Any:
    """Connect to the Ray at host:port or "auto", and return its module. Raises NoManagerError."""
    ray = _supported_ray()
    address = _address(address)
    try:
        ray.init(
            address,
            namespace=OUR_NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:
        raise _refused(address, error) from error
    return ray


def _supported_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise NoManagerError(
            LinkState.UNSUPPORTED,
            LinkCause.NOT_INSTALLED,
            f"Ray is not installed beside the exporter ({error}): install the extra `ray`, "
            "or read storage alone with --address none --storage URI.",
            final=True,
        ) from None
    if not versions.supported(ray.__version__):
        raise NoManagerError(
            LinkState.UNSUPPORTED,
            LinkCause.RAY_VERSION,
            f"Ray {ray.__version__} is installed beside the exporter; running workflows can be "
            f"read from Ray {versions.SUPPORTED}. A storage given by --storage is read all the "
            "same.",
            final=True,
        )
    return ray


def _address(wanted: str) -> str:
    """Return the host:port of a Ray. Raises NoManagerError when none answers there.

    `ray.init` itself waits for ever if nothing listens at the address, and starts a Ray when
    RAY_ADDRESS is "local" (seen with 2.47.1).
    """
    address = (os.environ.get("RAY_ADDRESS") or "auto") if wanted == "auto" else wanted
    if address == "auto":
        address = _local_address()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        raise NoManagerError(
            LinkState.UNSUPPORTED,
            LinkCause.NOT_RAY,
            f"{address!r} is not the address of a Ray: give the host:port of its head, or auto.",
            final=True,
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_grpc(connection):
                raise NoManagerError(
                    LinkState.UNREACHABLE,
                    LinkCause.NOT_RAY,
                    f"What listens at {address} is not a Ray: give the host:port of Ray's head, "
                    "by default port 6379, not that of its dashboard.",
                )
    except OSError as error:
        raise NoManagerError(
            LinkState.UNREACHABLE, LinkCause.NO_ANSWER, f"No Ray answers at {address}: {error}."
        ) from None
    return address


def _local_address() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address("auto") or "auto"
    except ConnectionError:
        raise NoManagerError(
            LinkState.UNREACHABLE,
            LinkCause.NO_RAY,
            "No Ray runs on this machine: give the address of one with --address HOST:PORT, or "
            "read storage alone with --address none --storage URI.",
        ) from None


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether the other side begins as an HTTP/2 server does: with a SETTINGS frame."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    try:
        return connection.recv(9)[3:4] == b"\4"
    except OSError:
        return False


def _refused(address: str, error: Exception) -> NoManagerError:
    """Return why `ray.init` failed."""
    if "ersion mismatch" in str(error):
        state, cause = LinkState.UNSUPPORTED, LinkCause.RAY_VERSION
        reason = f"Ray at {address} refused the connection: {describe(error)}"
    elif isinstance(error, PermissionError):
        state, cause = LinkState.UNREACHABLE, LinkCause.OTHER_USER
        reason = (
            f"Ray at {address} belongs to another Unix user: run the exporter as that user "
            f"({describe(error)})."
        )
    else:
        state, cause = LinkState.UNREACHABLE, LinkCause.LOST
        reason = f"Ray at {address} refused the connection: {describe(error)}"
    return NoManagerError(state, cause, reason)


def listens(path: str) -> bool:
    """Return whether a process of this machine listens on a Unix socket; False if not visible."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as sockets:
            return any(line.rstrip("\n").endswith(path) for line in sockets)
    except OSError:  # not Linux
        return False


def describe(error: BaseException) -> str:
    """Return type and text of an error on one line, cut to a readable length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else f"{type(error).__name__}."
