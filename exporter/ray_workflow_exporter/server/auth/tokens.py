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
import os
import re
import secrets
import stat
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, NamedTuple, Optional

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from ...settings.settings import SettingsError
from .reloaded import Reloaded

_log = logging.getLogger(__name__)


class Role(str, Enum):
    """What a caller must be allowed to do."""

    READ = "read"
    ACT = "act"


class Entry(BaseModel):
    """One token of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[Entry, ...]


class Caller(NamedTuple):
    """Who asks, and what they may do."""

    name: str
    role: Role


class Tokens:
    """The tokens of a file. As long as the file cannot be read or is wrong, none is valid."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError: who starts the exporter shall see at once that it is wrong."""
        self._path = path
        self._file = Reloaded(lambda: read_tokens(path), lambda _: (path,))
        self._file.changed()
        self._broken = False

    def find(self, token: str) -> Optional[Caller]:
        """Return who holds a token, None if nobody does."""
        try:
            if self._file.changed():
                self._broken = False
                _log.info("The tokens of %s were read again.", self._path)
        except SettingsError as error:
            self._broken = True
            _log.error("%s No token is valid until that is mended.", error)
        return None if self._broken else match(self._file.value, token)


def match(entries: Sequence[Entry], token: str) -> Optional[Caller]:
    """Return who holds a token; how long it takes tells nothing about which comes close."""
    digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    found = None
    for entry in entries:  # all of them, whether or not one matched already
        if hmac.compare_digest(entry.sha256, digest):
            found = Caller(entry.name, entry.role)
    return found


def read_tokens(path: Path) -> tuple[Entry, ...]:
    """Return the entries of a file of tokens. Raises SettingsError, which quotes no secret."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = yaml.safe_load(file.read())
    except OSError as error:
        raise SettingsError(f"The tokens file {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"The tokens file {path} is not valid YAML{place}.") from None
    try:
        entries = _File.model_validate(content).tokens
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"[{it}]" if isinstance(it, int) else f".{it}" for it in first["loc"])
        problem = _PROBLEMS.get(where.rpartition(".")[2], "is not as it should be")
        if first["type"] == "extra_forbidden":
            problem = "is unknown"
        raise SettingsError(
            f"The tokens file {path} is wrong: {where.lstrip('.') or 'the file'} {problem}."
        ) from None
    for field in ("name", "sha256"):
        if len({getattr(entry, field) for entry in entries}) < len(entries):
            raise SettingsError(f"The tokens file {path} is wrong: a {field} stands there twice.")
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        _log.warning(
            "The tokens file %s may be %s by others than its owner: chmod 600 it.",
            path,
            "changed" if mode & (stat.S_IWGRP | stat.S_IWOTH) else "read",
        )
    return entries


_PROBLEMS = {
    "tokens": "must be a list",
    "name": "must be a name of letters, digits and _.@-, at most 64 of them",
    "role": "must be read or act",
    "sha256": "must be the SHA-256 of the token, as 64 hexadecimal digits in lower case",
}


def new_token() -> tuple[str, str]:
    """Draw a token; return it and the hash for the file."""
    token = f"rwe_{secrets.token_urlsafe(32)}"
    return token, hashlib.sha256(token.encode()).hexdigest()


def bearer(authorization: str) -> Optional[str]:
    """Return the token of an `Authorization` header, None if it holds none (RFC 6750)."""
    found = re.fullmatch(r"[Bb]earer +([A-Za-z0-9._~+/=-]{1,512})", authorization)
    return found[1] if found else None
