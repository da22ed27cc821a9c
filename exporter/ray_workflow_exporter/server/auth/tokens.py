"""Bearer tokens: a YAML file of names, roles and hashes, read again when it changes.

    tokens:
      - name: on-call
        role: act
        sha256: 5e884898da28…

The file holds hashes, so who reads it cannot act. A plain SHA-256 is enough for tokens that were
drawn at random, as `ray-workflow-exporter token` does; passwords of people's own choice are none.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Optional

from ...settings import values
from ...settings.problems import SettingsError, read_yaml
from .reloaded import Reloaded

_log = logging.getLogger(__name__)


class Role(str, Enum):
    """What a caller must be allowed to do."""

    READ = "read"
    ACT = "act"


_ROLES = values.choice(*(role.value for role in Role))


@dataclass(frozen=True)
class Entry:
    """One token of the file."""

    name: str = values.matching(
        r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}",
        "must be a name of letters, digits and _.@-, at most 64 of them",
    )(values.REQUIRED)
    role: Role = values.Kind("role", lambda value: Role(_ROLES.read(value)))(values.REQUIRED)
    sha256: str = values.matching(
        r"[0-9a-f]{64}", "must be the SHA-256 of the token, as 64 hexadecimal digits in lower case"
    )(values.REQUIRED)


@dataclass(frozen=True)
class _File:
    tokens: tuple[Entry, ...] = values.list_of(values.section(Entry))(values.REQUIRED)


class Caller(NamedTuple):
    """Who asks, and what they may do."""

    name: str
    role: Role


class Tokens:
    """The tokens of a file. As long as the file cannot be read or is wrong, none is valid."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError, so that a wrong file is seen at the start."""
        self._path = path
        self._file = Reloaded(path, lambda: read_tokens(path))
        self._file.changed()
        self.broken = False  # the file is missing or wrong now, so that no token is valid

    def find(self, token: str) -> Optional[Caller]:
        """Return the caller of a token, None if it is not valid."""
        try:
            if self._file.changed():
                self.broken = False
                _log.info("Reloaded the tokens file %s.", self._path)
        except SettingsError as error:
            self.broken = True
            _log.error("%s No token is valid until it is right again.", error)
        return None if self.broken else match(self._file.value, token)


def match(entries: Sequence[Entry], token: str) -> Optional[Caller]:
    """Return the caller of a token. The time it takes does not depend on how much matches."""
    digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    found = None
    for entry in entries:  # all of them, even after a match
        if hmac.compare_digest(entry.sha256, digest):
            found = Caller(entry.name, entry.role)
    return found


def read_tokens(path: Path) -> tuple[Entry, ...]:
    """Return the entries of a file of tokens. Raises SettingsError, which quotes no secret."""
    name = f"The tokens file {path}"
    content = read_yaml(path, name)
    if not isinstance(content, dict):
        raise SettingsError(f"{name} is wrong: it must hold `tokens:`, a list of entries.")
    try:
        entries = values.read_into(_File, content).tokens
    except ValueError as error:
        place, problem = values.problem_of(error)
        where = re.sub(r"\.(\d+)", r"[\1]", place) or "the file"
        raise SettingsError(f"{name} is wrong: {where} {problem}") from None
    for field in ("name", "sha256"):
        if len({getattr(entry, field) for entry in entries}) < len(entries):
            raise SettingsError(f"{name} is wrong: two entries have the same {field}.")
    _warn_if_open(path)
    return entries


def _warn_if_open(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # removed since it was read; the next look says so
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        _log.warning(
            "The tokens file %s may be %s by others than its owner: chmod 600 it.",
            path,
            "changed" if mode & (stat.S_IWGRP | stat.S_IWOTH) else "read",
        )


def new_token() -> tuple[str, str]:
    """Generate a token; return it and its hash for the tokens file."""
    token = f"rwe_{secrets.token_urlsafe(32)}"
    return token, hashlib.sha256(token.encode()).hexdigest()


def bearer(authorization: str) -> Optional[str]:
    """Return the token of an `Authorization` header, None if it holds none (RFC 6750)."""
    found = re.fullmatch(r"[Bb]earer +([A-Za-z0-9._~+/=-]{1,512})", authorization)
    return found[1] if found else None
