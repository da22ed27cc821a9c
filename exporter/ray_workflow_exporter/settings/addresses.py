"""`host:port`, read and written. Needs nothing else: Ray's dashboard agent imports it too."""

from __future__ import annotations

import re
from typing import Optional

_LOOPBACK = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared


def parse_listen(value: str) -> tuple[Optional[str], int]:
    """Return (host, port) of `host:port`; a missing host, None, means all interfaces."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:/\s]*)):([0-9]{1,5})", value)
    if match is None or int(match[3]) > 65535:
        raise ValueError("must be host:port, such as :20729, 127.0.0.1:20729 or [::1]:20729")
    return match[1] or match[2] or None, int(match[3])


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: Optional[str]) -> bool:
    """Return whether a server on `host` listens on all interfaces."""
    return host in _LOOPBACK


def local_host(host: Optional[str]) -> str:
    """Return where this machine reaches a server that listens on `host`."""
    return _LOOPBACK.get(host, host or "")
