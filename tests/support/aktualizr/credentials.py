"""How a device comes to its certificate: a credentials.zip that many share, or files of its owner's own PKI."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.support.aktualizr.curl import TlsCredentials

P12_ENTRY = "autoprov_credentials.p12"
URL_ENTRY = "autoprov.url"


class Malformed(Exception):
    """Credentials that can't be used."""


def read_p12(data: bytes, password: str = "") -> TlsCredentials:
    """Every extra certificate becomes an anchor for the server, and a part of the client's chain."""
    container = None
    for candidate in (password.encode(), None):
        try:
            container = pkcs12.load_pkcs12(data, candidate)
            break
        except ValueError:
            continue
    if container is None or container.key is None or container.cert is None:
        raise Malformed("Received malformed device credentials from the server")
    extra = "".join(_pem(each.certificate) for each in container.additional_certs)
    if not extra:
        raise Malformed("without any extra certificate the client never counts as provisioned")
    key = container.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return TlsCredentials(extra, _pem(container.cert.certificate) + extra, key.decode("ascii"))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def common_name_of(certificate_pem: str) -> str:
    """The first CN of the first certificate."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode("ascii"))
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


@dataclass(frozen=True, slots=True)
class SharedCredentials:
    """``provision.provision_path``: the archive, which loses its key once the device has a certificate."""

    archive: Path
    password: str = ""
    is_reused: bool = False
    """``SharedCredReuse``: the archive stays whole."""

    @property
    def server_url(self) -> str:
        return _entry(self.archive, URL_ENTRY).decode("ascii").strip()

    def tls(self) -> TlsCredentials:
        return read_p12(_entry(self.archive, P12_ENTRY), self.password)

    def strip(self) -> None:
        if self.is_reused:
            return
        with zipfile.ZipFile(self.archive) as archive:
            kept = {name: archive.read(name) for name in archive.namelist() if name not in (P12_ENTRY, "treehub.json")}
        with zipfile.ZipFile(self.archive, "w") as archive:
            for name, data in kept.items():
                archive.writestr(name, data)


def _entry(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        try:
            return archive.read(name)
        except KeyError:
            raise Malformed("Unable to parse bootstrap (shared) credentials") from None


@dataclass(frozen=True, slots=True)
class OwnPki:
    """``import.tls_*_path``: read at every start; what has changed takes the place of what is stored."""

    anchors: Path
    certificate: Path
    private_key: Path

    def tls(self) -> TlsCredentials:
        return TlsCredentials(self.anchors.read_text(), self.certificate.read_text(), self.private_key.read_text())
