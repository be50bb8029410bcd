"""Who this device is to the gateway: its certificate and key, whom it trusts, and how one identity follows another.

A new certificate, renewed or imported, lies in ``identity/next.pem`` (key and chain in one file, so that no power cut can part
them) until one call under it has succeeded; until then the old pair stays, and is used where the new one isn't taken. Then the
pair is replaced, and ``next.pem`` goes last: a cut in between finds it still there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PublicKeyTypes

from overair.agent.device_directory import DeviceDirectory
from overair.agent.durable import Disk
from overair.basics.clock import Instant, from_datetime

LOG = logging.getLogger("overair.uptane")

PEM_SIZE_BYTES_MAX: Final = 256 * 1024
RENEW_AFTER: Final = 2 / 3
"""Of a certificate's life."""
NAME_LENGTH_MAX: Final = 200
UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What the library says of certificates and keys that it can't read, some of it only when it looks inside."""


class BadIdentity(Exception):
    """A certificate or key that can't be used; the message says why and what to do."""


class NoIdentity(Exception):
    """There is nothing to show to the gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A request that waits for its certificate, with its key."""

    private_key_pem: bytes
    request_der: bytes
    public_key: PublicKeyTypes


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate with its key, in files that TLS reads."""

    certificate: x509.Certificate
    certificate_file: Path
    private_key_file: Path | None
    """None: in the certificate's file."""

    @property
    def name(self) -> str:
        """The device's id: the certificate's one common name."""
        return common_name(self.certificate)

    @property
    def issued_at(self) -> Instant:
        return from_datetime(self.certificate.not_valid_before_utc)

    @property
    def expires_at(self) -> Instant:
        return from_datetime(self.certificate.not_valid_after_utc)

    def due_for_renewal(self, now: Instant, spread: float = 0.0) -> bool:
        """Two thirds of its life are over, and ``spread`` of it."""
        return now >= self.issued_at + (self.expires_at - self.issued_at) * (RENEW_AFTER + spread)


class IdentityStore:
    """The files below ``identity/``."""

    def __init__(self, directory: DeviceDirectory, disk: Disk) -> None:
        self._certificate = directory.certificate_file
        self._private_key = directory.private_key_file
        self._next = directory.certificate_file.with_name("next.pem")
        self._pending = directory.certificate_file.with_name("pending.pem")
        self._gateway = directory.gateway_file
        self.ca_file = directory.certificate_file.with_name("ca.pem")
        self._disk = disk

    # --- reading ---

    def current(self) -> Identity | None:
        """The identity that has worked, or None before provisioning and where a change was cut (then there is a ``next``).

        Raises:
            BadIdentity: the files can't be used and nothing else is there.
        """
        certificate, key = _content(self._certificate), _content(self._private_key)
        if certificate is None or key is None:
            return None
        try:
            found = check_pair(certificate, key)
        except BadIdentity:
            if self._next.exists():
                return None
            raise
        return Identity(certificate=found, certificate_file=self._certificate, private_key_file=self._private_key)

    def next(self) -> Identity | None:
        """The identity that has yet to prove itself."""
        pem = _content(self._next)
        if pem is None:
            return None
        try:
            return Identity(certificate=check_pair(pem, pem), certificate_file=self._next, private_key_file=None)
        except BadIdentity as error:
            LOG.warning("identity/next.pem is dropped: %s", error)
            self.drop_next()
            return None

    def pending(self) -> Pending | None:
        """The request that waits for its certificate."""
        pem = _content(self._pending)
        if pem is None:
            return None
        try:
            key_pem = private_key_in(pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
            request = x509.load_pem_x509_csr(pem[pem.index(b"-----BEGIN CERTIFICATE REQUEST") :])
            if request.public_key() != key.public_key():
                raise BadIdentity("its key isn't the request's")
        except (BadIdentity, *UNREADABLE) as error:
            LOG.warning("identity/pending.pem is dropped: %s", error)
            self.drop_pending()
            return None
        der = request.public_bytes(serialization.Encoding.DER)
        return Pending(private_key_pem=key_pem, request_der=der, public_key=key.public_key())

    @property
    def gateway(self) -> str | None:
        """The base address that came with the shared credential."""
        text = _content(self._gateway)
        return None if text is None else text.decode("utf-8", "replace").strip()

    # --- changing ---

    def provision(self, *, private_key_pem: bytes, chain_pem: bytes, ca_pem: bytes, gateway: str | None) -> None:
        """The first identity. The certificate comes last: where it lies, everything else does.

        Raises:
            BadIdentity
        """
        check_pair(chain_pem, private_key_pem)
        self.trust(ca_pem)
        if gateway is not None:
            self._disk.write_whole(self._gateway, gateway.encode() + b"\n", mode=0o644)
        self._disk.write_whole(self._private_key, private_key_pem)
        self._disk.write_whole(self._certificate, chain_pem, mode=0o644)

    def trust(self, ca_pem: bytes) -> None:
        """Replace whom the gateway's certificate must come from.

        Raises:
            BadIdentity
        """
        certificates_in(ca_pem)
        self._disk.write_whole(self.ca_file, ca_pem, mode=0o644)

    def propose(self, *, private_key_pem: bytes, chain_pem: bytes, name: str) -> None:
        """Lay the next identity beside the present one.

        Raises:
            BadIdentity: the pair doesn't fit, or it is another device's.
        """
        found = check_pair(chain_pem, private_key_pem)
        if common_name(found) != name:
            raise BadIdentity(f"The new certificate is for {common_name(found)!r}; this device is {name!r}.")
        self._disk.write_whole(self._next, private_key_pem.rstrip() + b"\n" + chain_pem)

    def keep_pending(self, pending: Pending) -> None:
        """Remember a request that was put off, lest a power cut leave its certificate without a key."""
        request = x509.load_der_x509_csr(pending.request_der).public_bytes(serialization.Encoding.PEM)
        content = pending.private_key_pem.rstrip() + b"\n" + request
        if _content(self._pending) != content:
            self._disk.write_whole(self._pending, content)

    def drop_pending(self) -> None:
        """The request was answered, one way or the other. Its key lives on in ``next.pem`` if it was granted."""
        self._disk.remove(self._pending)
        self._disk.sync_directory(self._pending.parent)

    def confirm_next(self) -> None:
        """A call under the next identity has succeeded: it is the present one now."""
        pem = _content(self._next)
        if pem is None:
            return
        self._disk.write_whole(self._private_key, private_key_in(pem))
        self._disk.write_whole(self._certificate, b"".join(_pem(each) for each in certificates_in(pem)), mode=0o644)
        self.drop_next()

    def drop_next(self) -> None:
        """The next identity isn't taken: forget it."""
        self._disk.remove(self._next)
        self._disk.sync_directory(self._next.parent)


def new_private_key() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A key for TLS, and its PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key, pem


def signing_request(
    name: str, key: ec.EllipticCurvePrivateKey, encoding: serialization.Encoding = serialization.Encoding.DER
) -> bytes:
    """A PKCS #10 request: the common name and nothing else."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(encoding)


def check_pair(chain_pem: bytes, private_key_pem: bytes) -> x509.Certificate:
    """The first certificate, if the key is its.

    Raises:
        BadIdentity
    """
    (certificate, *_) = certificates_in(chain_pem)
    common_name(certificate)
    try:
        key = serialization.load_pem_private_key(private_key_in(private_key_pem), password=None)
        fits = key.public_key() == certificate.public_key()
    except UNREADABLE as error:
        raise BadIdentity(f"The private key, or the certificate's, can't be read: {error}") from None
    if not fits:
        raise BadIdentity("The private key isn't the certificate's.")
    return certificate


def certificates_in(pem: bytes) -> Sequence[x509.Certificate]:
    """At least one certificate.

    Raises:
        BadIdentity
    """
    if len(pem) > PEM_SIZE_BYTES_MAX:
        raise BadIdentity(f"A file of certificates has at most {PEM_SIZE_BYTES_MAX} bytes.")
    try:
        return x509.load_pem_x509_certificates(pem)
    except UNREADABLE as error:
        raise BadIdentity(f"There is no certificate that can be read: {error}") from None


def private_key_in(pem: bytes) -> bytes:
    """The one private key's PEM out of a file that may hold certificates too.

    Raises:
        BadIdentity
    """
    lines = pem.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.startswith(b"-----BEGIN") and b"PRIVATE KEY-----" in line]
    ends = [number for number, line in enumerate(lines) if line.startswith(b"-----END") and b"PRIVATE KEY-----" in line]
    if len(begins) != 1 or len(ends) != 1:
        raise BadIdentity("There must be exactly one private key, in PEM.")
    return b"".join(lines[begins[0] : ends[0] + 1]).rstrip() + b"\n"


def common_name(certificate: x509.Certificate) -> str:
    """The device's id.

    Raises:
        BadIdentity: none, several, or one that can't be an id.
    """
    try:
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except UNREADABLE as error:
        raise BadIdentity(f"The certificate's subject can't be read: {error}") from None
    name = str(names[0].value) if len(names) == 1 else ""
    if not 1 <= len(name) <= NAME_LENGTH_MAX or "/" in name or not name.isprintable():
        raise BadIdentity("A device's certificate has exactly one common name, of 1 to 200 printable characters without /.")
    return name


def key_to_pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """Unencrypted PKCS #8, as TLS reads it."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def chain_to_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """PEM, one after the other."""
    return b"".join(_pem(each) for each in certificates)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _content(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(PEM_SIZE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
