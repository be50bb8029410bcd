"""A device directory, its signer, and images signed for it."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.device_directory import DeviceDirectory, DeviceSettings, create_device_directory
from overair.agent.image_builder import build_image
from overair.wire.job_document import DocumentFile, FileSignature, HashAlgorithm, SignatureAlgorithm

HARDWARE = "posix-test"


@cache
def cached_image(version: str, self_test: Any = "pass", allow_downgrade: bool = False, size_bytes: int = 0) -> bytes:
    """Images are deterministic, and building one reads the whole library: each is built once."""
    return build_image(
        "demo", version, HARDWARE, self_test=self_test, allow_downgrade=allow_downgrade, payload=b"\xa5" * size_bytes
    )


@cache
def image_of_size(version: str, size_bytes: int) -> bytes:
    """A whole image of exactly so many bytes, without the library in it: nobody runs it."""
    manifest = {"name": "small", "version": version, "hardware_id": HARDWARE}

    def packed(weight: int) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(zipfile.ZipInfo("image.json"), json.dumps(manifest))
            archive.writestr(zipfile.ZipInfo("__main__.py"), "import sys\n")
            archive.writestr(zipfile.ZipInfo("payload.bin"), b"\xa5" * weight)
        return stream.getvalue()

    image = packed(size_bytes - len(packed(0)))
    assert len(image) == size_bytes
    return image


def certificate_for(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A self-signed certificate of a signing key, PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2050, 1, 1, tzinfo=UTC))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class Signer:
    """Signs images as an operator would."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def certificate_pem(self) -> bytes:
        return certificate_for(self.key)

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def file(self, data: bytes, *, signed: bytes | None = None, **changes: Any) -> DocumentFile:
        """The job document's entry for ``data``; ``signed`` signs other bytes than those."""
        members: dict[str, Any] = {
            "path": "firmware",
            "size_bytes": len(data),
            "file_id": 0,
            "certificate_path": "/certificates/signer",
            "file_type": 0,
            "signature": FileSignature(
                hash_algorithm=HashAlgorithm.SHA256,
                signature_algorithm=SignatureAlgorithm.ECDSA,
                value=self.sign(data if signed is None else signed),
            ),
        }
        return DocumentFile(**(members | changes))


def make_device(root: Path, signer: Signer, **changes: Any) -> tuple[DeviceDirectory, DeviceSettings]:
    """A device that has never been flashed, with one trust anchor called ``signer``."""
    members: dict[str, Any] = {
        "thing_name": "dev-1",
        "hardware_id": HARDWARE,
        "mqtt_host": "127.0.0.1",
        "mqtt_port": 1,
        "block_size_bytes": 1024,
    }
    settings = DeviceSettings(**(members | changes))
    key = ec.generate_private_key(ec.SECP256R1())
    key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    directory = create_device_directory(
        root,
        settings,
        certificate_pem=certificate_for(key),
        private_key_pem=key_pem,
        ca_pem=certificate_for(key),
        anchors={"signer": signer.certificate_pem},
    )
    return directory, settings
