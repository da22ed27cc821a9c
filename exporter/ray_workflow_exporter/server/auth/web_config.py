"""`--web.config.file`: TLS, headers and users, in the format of Prometheus's exporter-toolkit.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md; what Python's
TLS cannot do is an error. Relative paths are relative to the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import bcrypt

from ...settings import values
from ...settings.problems import SettingsError, read_yaml
from .rate import Rate

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENT_AUTH = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert")
# What Go calls them, and OpenSSL. Those of TLS 1.3 cannot be chosen, in Go as in Python.
_CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
}
_HEADERS = (
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
)
_USER = "must be a user's name and a bcrypt hash, as `htpasswd -nB` makes it"
_KEPT = 1000  # right passwords, so that each is hashed only once


_TLS_VERSION = values.choice("TLS10", "TLS11", "TLS12", "TLS13")


@dataclass(frozen=True)
class _Tls:
    cert_file: str = values.ANY_TEXT("")
    key_file: str = values.ANY_TEXT("")
    client_ca_file: str = values.ANY_TEXT("")
    cert: str = values.ANY_TEXT("")  # the three of them inline, as PEM
    key: str = values.ANY_TEXT("")
    client_ca: str = values.ANY_TEXT("")
    client_auth_type: str = values.ANY_TEXT("NoClientCert")
    client_allowed_sans: tuple[str, ...] = values.list_of(values.ANY_TEXT)(())
    min_version: str = _TLS_VERSION("TLS12")
    max_version: str = _TLS_VERSION("TLS13")
    cipher_suites: tuple[str, ...] = values.list_of(values.ANY_TEXT)(())
    prefer_server_cipher_suites: bool = values.FLAG(True)
    curve_preferences: tuple[str, ...] = values.list_of(values.ANY_TEXT)(())


@dataclass(frozen=True)
class _Http:
    http2: bool = values.FLAG(True)  # for the sake of the format: aiohttp serves HTTP/1.1 alone
    headers: Mapping[str, str] = values.mapping_of(
        values.choice(*_HEADERS), values.matching(r"[ -~]*", "must be one line of ASCII text")
    )({})


@dataclass(frozen=True)
class _RateLimit:
    interval: float = values.DURATION(0.0)  # 0: no limit
    burst: int = values.COUNT(0)


@dataclass(frozen=True)
class _Config:
    rate_limit: _RateLimit = values.section(_RateLimit)(_RateLimit())
    tls_server_config: Optional[_Tls] = values.section(_Tls)(None)
    http_server_config: _Http = values.section(_Http)(_Http())
    basic_auth_users: Mapping[str, str] = values.mapping_of(
        values.matching(r"[^:\x00-\x1f]{1,256}", _USER),
        values.matching(r"\$2[aby]?\$(0[4-9]|1[0-9])\$[./A-Za-z0-9]{53}", _USER),
    )({})


@dataclass(frozen=True)
class WebConfig:
    """What a web-config file asks for; `files` are all that it was made of.

    `fingerprint` is the SHA-256 of the TLS certificate, in hex.
    """

    files: tuple[Path, ...] = ()
    tls: Optional[ssl.SSLContext] = None
    fingerprint: Optional[str] = None
    allowed_sans: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    users: Optional[Users] = None
    rate: Optional[Rate] = None  # of all requests together

    @property
    def asks_certificate(self) -> bool:
        """Whether every client must present a certificate."""
        return self.tls is not None and self.tls.verify_mode is ssl.CERT_REQUIRED


def read_web_config(path: Path) -> WebConfig:
    """Read a web-config file and the certificates it names. Raises SettingsError."""
    name = f"The web config {path}"
    content = read_yaml(path, name)
    try:
        config = values.read_into(_Config, content or {})
    except ValueError as error:
        place, problem = values.problem_of(error)
        raise SettingsError(f"{name} is wrong: {place or 'the file'} {problem}") from None
    files, tls, fingerprint = [path], None, None
    section, limit = config.tls_server_config, config.rate_limit
    if section is not None:
        names = (section.cert_file, section.key_file, section.client_ca_file)
        files += [path.parent / it for it in names if it]
        try:
            pem = _read_pem(section, path.parent)
            tls, fingerprint = _context(section, pem), _fingerprint(pem["cert"])
        except ValueError as error:
            raise SettingsError(f"{name} is wrong: {error}") from None
    headers = config.http_server_config.headers.items()
    return WebConfig(
        files=tuple(files),
        tls=tls,
        fingerprint=fingerprint,
        allowed_sans=tuple(map(normal_san, section.client_allowed_sans)) if section else (),
        headers=tuple((header, value) for header, value in headers if value.strip()),
        users=Users(config.basic_auth_users) if config.basic_auth_users else None,
        rate=Rate(max(1, limit.burst), limit.interval) if limit.interval else None,
    )


def normal_san(name: str) -> str:
    """Return a subject alternative name in one form: OpenSSL writes out all of an IPv6 address."""
    try:
        return ipaddress.ip_address(name).compressed
    except ValueError:
        return name


def _read_pem(section: _Tls, folder: Path) -> dict[str, str]:
    """Return the certificates and the key, from files or inline. Raises ValueError."""
    pem = {}
    for part in ("cert", "key", "client_ca"):
        inline, file = getattr(section, part), getattr(section, f"{part}_file")
        if inline and file:
            raise ValueError(f"tls_server_config has both {part} and {part}_file.")
        if not inline and not file and part != "client_ca":
            raise ValueError("tls_server_config needs cert_file and key_file, or cert and key.")
        try:
            pem[part] = (folder / file).read_text("latin-1") if file else inline
        except OSError as error:
            raise ValueError(f"{folder / file} cannot be read: {error.strerror}.") from None
    return pem


@contextmanager
def _as_file(content: str) -> Iterator[str]:
    """Give a content a path, because OpenSSL loads from files alone. It stays in memory."""
    with open(os.memfd_create("pem"), "wb") as file:
        file.write(content.encode("latin-1", "replace"))
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _context(section: _Tls, pem: Mapping[str, str]) -> ssl.SSLContext:
    """Return the TLS context of a section. Raises ValueError with a sentence."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    low, high = _VERSIONS[section.min_version], _VERSIONS[section.max_version]
    if low > high:
        raise ValueError("min_version is above max_version.")
    context.minimum_version, context.maximum_version = low, high
    if not section.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if section.curve_preferences:
        raise ValueError("curve_preferences cannot be chosen with Python's TLS; leave them out.")
    unknown = [it for it in section.cipher_suites if it not in _CIPHERS and "_WITH_" in it]
    if unknown:
        raise ValueError(f"the cipher suite {unknown[0]!r} is not known or not secure.")
    chosen = [_CIPHERS[it] for it in section.cipher_suites if it in _CIPHERS]
    if chosen:
        context.set_ciphers(":".join(chosen))
    try:
        with _as_file(pem["cert"]) as cert, _as_file(pem["key"]) as key:
            # Without one, OpenSSL would ask the terminal for the password of an encrypted key.
            context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("the certificate and the key do not belong together.") from None
        raise ValueError("there is no certificate, or no unencrypted key, in PEM.") from None
    _verify_clients(context, section, pem)
    return context


def _fingerprint(cert: str) -> str:
    # The first is the server's own; the others are its issuers.
    first = re.search("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", cert, re.S)
    if first is None:
        raise ValueError("there is no certificate in PEM.")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0])).hexdigest()


def _verify_clients(context: ssl.SSLContext, section: _Tls, pem: Mapping[str, str]) -> None:
    kind = section.client_auth_type
    if kind in _UNVERIFIED:
        raise ValueError(f"client_auth_type {kind} is not possible with Python's TLS.")
    if kind not in _CLIENT_AUTH:
        known = ", ".join(name for name in _CLIENT_AUTH if name)
        raise ValueError(f"client_auth_type must be one of {known}.")
    context.verify_mode = _CLIENT_AUTH[kind]
    verifies = context.verify_mode is not ssl.CERT_NONE
    if verifies and not pem["client_ca"]:
        raise ValueError(f"client_auth_type {kind} needs client_ca_file or client_ca.")
    if pem["client_ca"] and not verifies:
        raise ValueError("a client CA has no effect without a client_auth_type that verifies.")
    if section.client_allowed_sans and context.verify_mode is not ssl.CERT_REQUIRED:
        raise ValueError("client_allowed_sans needs client_auth_type RequireAndVerifyClientCert.")
    if verifies:
        try:
            with _as_file(pem["client_ca"]) as file:
                context.load_verify_locations(file)
        except ssl.SSLError:
            raise ValueError("the client CA is no certificate in PEM.") from None


class Users:
    """Names and bcrypt hashes."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = hashes
        self._secret = secrets.token_bytes(32)
        self._right: dict[bytes, str] = {}
        # An unknown name must take as long as a wrong password.
        self._nobody = next(iter(hashes.values()))

    def recall(self, authorization: str) -> Optional[str]:
        """Return the user of credentials that were right before."""
        return self._right.get(self._digest(authorization))

    def check(self, authorization: str) -> Optional[str]:
        """Return the user of an `Authorization` header, None if it is wrong. Slow by design."""
        credentials = _basic(authorization)
        if credentials is None:
            return None
        name, password = credentials
        # bcrypt itself looks at no more, and Python's refuses more.
        right = bcrypt.checkpw(password[:72], self._hashes.get(name, self._nobody).encode())
        if not right or name not in self._hashes:
            return None
        if len(self._right) >= _KEPT:
            self._right.clear()
        self._right[self._digest(authorization)] = name
        return name

    def _digest(self, authorization: str) -> bytes:
        text = authorization.encode("utf-8", "surrogateescape")
        return hmac.digest(self._secret, text, hashlib.sha256)


def user_named_in(authorization: str) -> Optional[str]:
    """Return the user that an `Authorization` header names, None if it is not basic auth."""
    credentials = _basic(authorization)
    return credentials[0] if credentials else None


def _basic(authorization: str) -> Optional[tuple[str, bytes]]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon and b"\0" not in password else None
    except (binascii.Error, ValueError):
        return None
