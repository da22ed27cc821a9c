"""Certificates for tests: an authority, a server's, clients', good and expired."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


class Authority:
    """Writes certificates and keys into a folder; `ca.crt` is there from the start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "ca.crt"))

    def issue(self, name: str, *hosts: str, expired: bool = False) -> tuple[Path, Path]:
        """Write `name.crt` and `name.key`; a new pair takes the place of an old one."""
        made = self.authority.issue_cert(
            *(hosts or ("127.0.0.1", "localhost")), not_after=PAST if expired else None
        )
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        key.unlink(missing_ok=True)
        cert.unlink(missing_ok=True)
        made.private_key_pem.write_to_path(str(key))
        for number, part in enumerate(made.cert_chain_pems):
            part.write_to_path(str(cert), append=number > 0)
        return cert, key

    def encrypt(self, name: str, into: str) -> None:
        """Write the key of `name` once more, under a password."""
        key = serialization.load_pem_private_key((self.folder / f"{name}.key").read_bytes(), None)
        (self.folder / f"{into}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"hunter2"),
            )
        )

    def client(self, name: str = "") -> ssl.SSLContext:
        """Return what a client needs that trusts this authority, with a certificate if named."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if name:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context
