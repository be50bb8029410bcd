"""A server with vehicles that may load it: an own authority, images, an update that waits for everybody."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import urllib.parse
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.processes import Overair
from bench.vehicles import HARDWARE_IDS, IN_FLIGHT, Connection, DevicePort, Vehicle, each_of

IMAGE = "bench-image-1.0"
IMAGE_SIZE_BYTES = 8 * 1024 * 1024
MODELS = Path(__file__).parents[1] / "src" / "overair" / "server" / "aws_protocol" / "models"
DEVICES_AT_ONCE = 500
_UPLOADS = "/api/v1/user_repo"
_DIRECTOR = "/api/v1/director"


class OwnAuthority:
    """The fleet owner's CA, which issues certificates without a request."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench fleet root")])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, name: str, folder: Path) -> tuple[Path, Path]:
        """Certificate and key of one vehicle, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return paths

    def _builder(self, subject: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        return builder.not_valid_after(now + timedelta(days=365))


class UptaneFleet:
    """Vehicles of one server. Their certificates come from their owner's authority; each registers itself."""

    def __init__(self, overair: Overair, work: Path) -> None:
        self.overair, self._work = overair, work
        at = overair.endpoints
        parts = urlsplit(at["device_url"])
        assert parts.hostname is not None
        assert parts.port is not None
        self.port = DevicePort(host=parts.hostname, port=parts.port, ca=Path(at["ca_file"]))
        self._target = overair.target(tls=True)
        self._tls = ssl.create_default_context(cafile=at["ca_file"])
        self._authority = OwnAuthority()
        client: Any = self._target.client("overair", models=MODELS)
        client.register_fleet_certificate_authority(certificatePem=self._authority.pem, rule={"firstContact": "allow"})
        self.vehicles: list[Vehicle] = []

    async def enrol(self, count: int) -> Sequence[Vehicle]:
        """``count`` vehicles, each with three ECUs registered."""
        for number in range(len(self.vehicles), count):
            name = f"bench-vehicle-{number}"
            self.vehicles.append(Vehicle(name, self.port.context(*self._authority.issue(name, self._work))))
        await each_of(self.vehicles, self._register, at_once=IN_FLIGHT)
        return self.vehicles

    async def _register(self, vehicle: Vehicle) -> None:
        connection = await Connection.open(self.port, vehicle.context)
        body = vehicle.registration()
        await connection.ask(self.port.request("POST", "/director/ecus", body, expect=(200, 201)))
        connection.close()

    def upload_image(self) -> str:
        """One image for every ECU; its path on the device port."""
        self._upload(IMAGE, os.urandom(IMAGE_SIZE_BYTES))
        return f"/repo/targets/{IMAGE}"

    def offer_update(self, image: str, vehicles: Sequence[str]) -> tuple[bytes, str]:
        """A new image for every ECU of these vehicles: uploaded, in a multi-target update, assigned. Its bytes, and the
        correlation id that reports must name."""
        content = f"{image} ".encode() * 64
        self._upload(image, content)
        to = {
            "target": image,
            "checksum": {"method": "sha256", "hash": hashlib.sha256(content).hexdigest()},
            "targetLength": len(content),
        }
        targets = {hardware_id: {"from": None, "to": to, "targetFormat": "BINARY"} for hardware_id in HARDWARE_IDS}
        update = json.loads(self._post(f"{_DIRECTOR}/multi_target_updates", {"targets": targets}))
        correlation_id = f"urn:here-ota:mtu:{image}"
        for first in range(0, len(vehicles), DEVICES_AT_ONCE):
            devices = list(vehicles[first : first + DEVICES_AT_ONCE])
            body = {"correlationId": f"{correlation_id}", "devices": devices, "mtuId": update}
            self._post(f"{_DIRECTOR}/assignments", body)
        return content, correlation_id

    def _post(self, path: str, body: object) -> bytes:
        answer, _ = self.rest("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return answer

    def _upload(self, name: str, content: bytes) -> None:
        query = {"name": name, "version": "1.0", "hardwareIds": ",".join(HARDWARE_IDS), "targetFormat": "BINARY"}
        self.rest("PUT", f"{_UPLOADS}/targets/{name}?{urllib.parse.urlencode(query)}", content)

    def rest(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[bytes, Any]:
        """One call of the operator's; body and headers of its answer."""
        told = {"Authorization": f"Bearer {self._token()}", **(headers or {})}
        return self._send(method, path, body, told)

    def _token(self) -> str:
        if not hasattr(self, "_bearer"):
            form = urllib.parse.urlencode(
                {
                    "grant_type": "client_credentials",
                    "client_id": self._target.key_id,
                    "client_secret": self._target.secret,
                }
            )
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer, _ = self._send("POST", "/oauth2/token", form.encode(), headers)
            self._bearer = str(json.loads(answer)["access_token"])
        return self._bearer

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, Any]:
        request = urllib.request.Request(self._target.url + path, data=body or None, headers=headers, method=method)
        with urllib.request.urlopen(request, context=self._tls, timeout=60) as answer:
            return answer.read(), answer.headers
