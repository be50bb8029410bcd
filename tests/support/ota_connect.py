"""OTA Connect's operator side over real HTTPS, read only: what `overair migrate export` meets (Uptane reference §9.3, §11)."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from overair.wire.uptane.keys import PublicKey
from tests.support.authority import Authority
from tests.support.old_server import OldServer
from tests.support.scripted_https import Answer, Received, ScriptedHttps

CLIENT_ID, CLIENT_SECRET, TOKEN = "operator", "the operator's secret", "a-token"
USER_REPO, DEVICES = "/api/v1/user_repo/", "/api/v1/devices"


@dataclass(kw_only=True)
class OldDevice:
    """A device as the registry and the Director of the old server have it."""

    uuid: str
    device_id: str
    certificate: str = ""
    ecus: Mapping[str, tuple[str, PublicKey]] = field(default_factory=dict)
    """Serial → hardware id and key; the first is the Primary."""
    installed: Mapping[str, dict[str, Any]] = field(default_factory=dict)


class OtaConnect:
    """``url`` once it is entered. ``intervene`` may answer in its place."""

    def __init__(
        self, old: OldServer, authority: Authority, *, by_certificate: bool = False, director: str = "/director"
    ) -> None:
        self.old, self.authority = old, authority
        self.devices: list[OldDevice] = []
        self.by_certificate = by_certificate
        self.director = f"/api/v1{director}"
        self.no_such_root = 404
        self.intervene: Callable[[str, Received], Answer | None] = lambda path, request: None
        self.asked: list[str] = []
        """Paths, with their queries."""
        self._https = ScriptedHttps(authority, self._answer, asks_certificate=by_certificate)

    def __enter__(self) -> OtaConnect:
        self._https.__enter__()
        return self

    def __exit__(self, *told: Any) -> None:
        self._https.__exit__(*told)

    @property
    def url(self) -> str:
        return self._https.url

    # What an operator is given.

    def bundle(self, path: Path, **entries: bytes) -> Path:
        """A ``credentials.zip``; ``root__json=…`` for ``root.json``."""
        oauth2 = {"server": f"{self.url}/oauth2", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "scope": "none"}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tufrepo.url", self.url + "\n")
            archive.writestr("api_gateway.url", self.url)
            archive.writestr("treehub.json", json.dumps({"oauth2": oauth2, "ostree": {"server": self.url}, "no_auth": False}))
            if not self.by_certificate:
                archive.writestr("server_ca.pem", self.authority.pem)
            for name, data in entries.items():
                archive.writestr(name.replace("__", "."), data)
        return path

    def client_p12(self, password: bytes = b"") -> bytes:
        """``client_auth.p12``."""
        certificate, key = self.authority.issue("operator")
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        private = serialization.load_pem_private_key(key, None)
        return pkcs12.serialize_key_and_certificates(
            b"operator",
            private,  # type: ignore[arg-type]
            x509.load_pem_x509_certificate(certificate),
            None,
            encryption,
        )

    def server_p12(self) -> bytes:
        """``server.p12``: whom to trust there."""
        return pkcs12.serialize_key_and_certificates(
            b"server", None, None, [self.authority.certificate], serialization.NoEncryption()
        )

    # What it answers.

    def _answer(self, request: Received) -> Answer:
        answer = self._meant(request)
        return Answer(
            answer.status, answer.body, {"Connection": "close", **answer.headers}, cut_after_bytes=answer.cut_after_bytes
        )

    def _meant(self, request: Received) -> Answer:
        parts = urlsplit(request.path)
        path = unquote(parts.path)
        self.asked.append(request.path)
        if path == "/oauth2/token":
            expected = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
            if request.headers.get("authorization") != expected:
                return Answer(401, b"{}")
            return _json({"access_token": TOKEN, "token_type": "bearer", "expires_in": 3600})
        instead = self.intervene(path, request)
        if instead is not None:
            return instead
        if not self.by_certificate and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, b'{"code":"invalid_token","description":"No such token."}')
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if path.startswith(USER_REPO):
            return self._image(path.removeprefix(USER_REPO), request)
        if path.startswith(f"{self.director}/admin/repo/"):
            return self._document(self.old.director.files, path.rpartition("/")[2])
        return self._device(path, query)

    def _image(self, path: str, request: Received) -> Answer:
        if path.startswith("targets/"):
            content = self.old.contents.get(path.removeprefix("targets/"))
            if content is None:
                return _missing()
            begin = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if begin:
                return Answer(206, content[begin:], {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"})
            return Answer(200, content)
        return self._document(self.old.image.files, path)

    def _document(self, files: Mapping[str, bytes], name: str) -> Answer:
        """Its flavour isn't asked: there is one."""
        data = files.get(name)
        if data is None:
            return Answer(self.no_such_root, b'{"code":"root_role_not_found"}') if "root.json" in name else _missing()
        return Answer(200, data)

    def _device(self, path: str, query: Mapping[str, str]) -> Answer:
        if path == DEVICES:
            offset, limit = int(query["offset"]), int(query["limit"])
            values = [self._row(each) for each in self.devices[offset : offset + limit]]
            return _json({"values": values, "total": len(self.devices), "offset": offset, "limit": limit})
        by_uuid = {each.uuid: each for each in self.devices}
        words = path.split("/")
        for device in (by_uuid[word] for word in words if word in by_uuid):
            if path == f"{DEVICES}/{device.uuid}/public_credentials" and device.certificate:
                return _json({"uuid": device.uuid, "credentialsType": "PEM", "credentials": device.certificate})
            if path == f"{self.director}/admin/devices/{device.uuid}" and device.ecus:
                return _json([self._ecu(device, serial) for serial in device.ecus])
            if words[-1] == "public_key" and words[-2] in device.ecus:
                return _json(device.ecus[words[-2]][1].to_json())
        return _missing()

    @staticmethod
    def _row(device: OldDevice) -> dict[str, Any]:
        return {
            "namespace": "default",
            "uuid": device.uuid,
            "deviceId": device.device_id,
            "deviceName": f"Car {device.device_id}",
            "deviceType": "Vehicle",
            "deviceStatus": "UpToDate",
            "createdAt": "2025-05-01T10:00:00Z",
        }

    @staticmethod
    def _ecu(device: OldDevice, serial: str) -> dict[str, Any]:
        return {
            "id": serial,
            "hardwareId": device.ecus[serial][0],
            "primary": serial == next(iter(device.ecus)),
            "image": device.installed.get(serial),
        }


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _missing() -> Answer:
    return Answer(404, b'{"code":"missing_entity","description":"Not here."}')
