"""Which credentials and region an S3 storage uses, in the order in which pyarrow finds them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Optional
from urllib.parse import parse_qs, urlsplit

from .filesystem import StorageError

_METADATA_SERVICE = ("169.254.169.254", 80)  # of EC2: credentials of the machine's role
_SECONDS = 1.0
_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def advice(uri: str) -> str:
    """Name the bucket, the region and the credentials in use, and where they come from."""
    parts = urlsplit(uri)
    bucket = parts.netloc.rpartition("@")[2]
    region = _region(uri) or "none given: S3 is asked for it"
    source = _credentials(uri) or "from the role of this machine, if it has one"
    return (
        f"Check the bucket {bucket!r}, its region ({region}) and the credentials ({source}): they "
        "must allow to list the bucket and to read its objects."
    )


def check_credentials(uri: str) -> None:
    """Raise StorageError if there are no credentials; pyarrow would take long to find that out."""
    parts = urlsplit(uri)
    if "endpoint_override" in parse_qs(parts.query) or os.environ.get("AWS_ENDPOINT_URL"):
        return  # perhaps a server that asks for none
    if _credentials(uri) is not None or _has_metadata_service():
        return
    bucket = parts.netloc.rpartition("@")[2]
    raise StorageError(
        f"There are no credentials for the S3 bucket {bucket!r} of the workflow storage. Set "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with a profile in "
        f"{_file('AWS_SHARED_CREDENTIALS_FILE', 'credentials')}, or give the machine or pod a role "
        f"that may list the bucket and read its objects. Region: {_region(uri) or 'none given'}."
    )


def _credentials(uri: str) -> Optional[str]:
    if "@" in urlsplit(uri).netloc:
        return "from the URI"
    for name in _VARIABLES:
        if os.environ.get(name):
            return f"from {name}"
    for variable, name in (
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        ("AWS_CONFIG_FILE", "config"),
    ):
        path = _file(variable, name)
        if path.is_file():
            return f"from {path}, profile {os.environ.get('AWS_PROFILE', 'default')!r}"
    return None


def _region(uri: str) -> Optional[str]:
    for value in parse_qs(urlsplit(uri).query).get("region", []):
        return f"{value}, from the URI"
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if os.environ.get(name):
            return f"{os.environ[name]}, from {name}"
    return None


def _file(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / ".aws" / name)


def _has_metadata_service() -> bool:
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        return True
    try:
        socket.create_connection(_METADATA_SERVICE, _SECONDS).close()
    except OSError:
        return False
    return True
