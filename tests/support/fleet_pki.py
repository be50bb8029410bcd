"""A fleet owner's own PKI: a root, intermediates below it, devices' certificates (Uptane reference §12.1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.aktualizr.credentials import OwnPki

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key(kind: str = "P-256") -> PrivateKey:
    if kind == "P-256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def pem_of(key: PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@dataclass(frozen=True, slots=True)
class IssuedDevice:
    """A device's certificate, with the intermediates below the root that it needs, and its key."""

    chain_pem: bytes
    key_pem: bytes

    def files(self, folder: Path, server_ca: Path | str) -> OwnPki:
        """As ``import.tls_*_path`` names them; written over what stands there, as a renewal does."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "client.pem").write_bytes(self.chain_pem)
        (folder / "pkey.pem").write_bytes(self.key_pem)
        (folder / "root.crt").write_bytes(Path(server_ca).read_bytes())
        return OwnPki(folder / "root.crt", folder / "client.pem", folder / "pkey.pem")


class FleetAuthority:
    """A CA, self-signed or below another; its key never leaves this object."""

    def __init__(
        self, common_name: str = "fleet root", *, above: FleetAuthority | None = None, now: datetime | None = None
    ) -> None:
        """``now``: where a test's clock isn't the wall's."""
        self._key = new_key()
        self._above = above
        now = now or datetime.now(UTC)
        issuer = above or self
        self._subject = _name(common_name)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self._subject)
            .issuer_name(issuer._subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(issuer._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def intermediate(self, common_name: str = "fleet intermediate") -> FleetAuthority:
        return FleetAuthority(common_name, above=self)

    def device(
        self,
        common_name: str,
        *,
        days: int = 365,
        key: str = "P-256",
        private: PrivateKey | None = None,
        now: datetime | None = None,
    ) -> IssuedDevice:
        """A leaf for one device."""
        private = private or new_key(key)
        now = now or datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self._subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        chain = [certificate]
        above: FleetAuthority | None = self
        while above is not None and above._above is not None:
            chain.append(above.certificate)
            above = above._above
        return IssuedDevice(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain), pem_of(private))
