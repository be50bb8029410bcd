"""A whole server in this process with devices that are aktualizr, operators, and a signer of its own: for tests in which time
passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from overair.basics.clock import Instant, as_datetime
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Body, Role, RoleKeys, Root, TargetFile, Targets
from overair.wire.uptane.metadata_reading import read_document, read_root, read_targets
from overair.wire.uptane.metadata_writing import expires_text, payload, sign_payload
from tests.support.aktualizr.configuration import Configuration
from tests.support.aktualizr.curl import Call
from tests.support.aktualizr.device import Aktualizr
from tests.support.aktualizr.errors import MetadataFetchFailure
from tests.support.aktualizr.repositories import DirectorRepository, ImageRepository
from tests.support.aktualizr.secondary import VirtualSecondary
from tests.support.aktualizr.storage import Repository
from tests.support.fleet_pki import FleetAuthority
from tests.support.image_room import OfflineKey
from tests.support.operator_rest import RestReply
from tests.support.whole_server import DEVICE_URL, InProcessHttp, WholeServer

DAY_MS = 24 * 3600 * 1000
HARDWARE_ID = "gw-imx8"
SECOND_HARDWARE_ID = "cluster-s32"
USER_REPO = "/api/v1/user_repo"
DIRECTOR = "/api/v1/director"

Documents = Mapping[str, tuple[Body, Sequence[OfflineKey]]]
"""What is pushed, by kind, and who signs it."""
Publication = Mapping[str, Mapping[str, Any]]


class UptaneWorld:
    """Its clock stands still unless ``pass_time`` moves it."""

    def __init__(self, server: WholeServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.authority = FleetAuthority(now=as_datetime(server.clock.now()))
        body = {"certificatePem": self.authority.pem.decode(), "rule": {"firstContact": "allow"}}
        reply = server.call("overair", "POST", "/overair/fleet-authorities", body)
        assert reply.status == 200, reply.body
        self.root_key, self.targets_key = OfflineKey(), OfflineKey()
        self.is_offline = False
        self._images = 0

    # Time and operators ---------------------------------------------------------------------------------------------------

    def now(self) -> str:
        """As devices see it: whole seconds."""
        return expires_text(self.server.clock.now())

    def pass_time(self, **duration: float) -> None:
        """Let time pass, and workers do what is due then."""
        self.server.clock.advance(milliseconds=int(timedelta(**duration).total_seconds() * 1000))
        self.server.work_off()

    def ask(self, method: str, path: str, **options: Any) -> RestReply:
        reply = self.server.operator(method, path, **options)
        assert reply.status < 500, (method, path, reply.body)
        return reply

    def expect(self, status: int | tuple[int, ...], method: str, path: str, **options: Any) -> RestReply:
        reply = self.ask(method, path, **options)
        assert reply.status in ((status,) if isinstance(status, int) else status), (method, path, reply.status, reply.body)
        return reply

    def upload(self, *hardware_ids: str) -> tuple[str, bytes]:
        """An image that nobody has: name and bytes. With offline keys it waits for a push."""
        self._images += 1
        name = f"image-{self._images}"
        data = f"{name} ".encode() * 50
        query = {
            "name": "image",
            "version": str(self._images),
            "hardwareIds": ",".join(hardware_ids or (HARDWARE_ID,)),
            "targetFormat": "BINARY",
        }
        reply = self.ask("PUT", f"{USER_REPO}/targets/{quote(name)}", body=data, query=query)
        assert reply.status in ((412,) if self.is_offline else (200, 204)), reply.body
        return name, data

    def assign(self, images: dict[str, tuple[str, bytes]], *devices: str) -> RestReply:
        """A multi-target update of these images by hardware id, and its assignment; what came of the last call."""
        targets = {
            hardware_id: {
                "from": None,
                "to": {
                    "target": name,
                    "checksum": {"method": "sha256", "hash": hashlib.sha256(data).hexdigest()},
                    "targetLength": len(data),
                },
                "targetFormat": "BINARY",
            }
            for hardware_id, (name, data) in images.items()
        }
        made = self.ask("POST", f"{DIRECTOR}/multi_target_updates", json_body={"targets": targets})
        if made.status != 201:
            return made
        update = made.json
        reply = self.ask("POST", f"{DIRECTOR}/assignments", json_body={"devices": list(devices), "mtuId": update})
        self.server.work_off()
        return reply

    def cancel(self, device: Aktualizr, *, force: bool = True) -> RestReply:
        headers = {"x-trx-force": "true"} if force else {}
        reply = self.ask("PATCH", f"{DIRECTOR}/assignments/{device.device_id}", headers=headers)
        self.server.work_off()
        return reply

    # Signing elsewhere ----------------------------------------------------------------------------------------------------

    def root(self) -> Root:
        return read_root(read_document(self.expect(200, "GET", f"{USER_REPO}/root.json").body, Role.ROOT))

    def targets(self) -> tuple[Targets, str]:
        """With the checksum that a push must name."""
        reply = self.expect(200, "GET", f"{USER_REPO}/targets.json")
        return read_targets(read_document(reply.body, Role.TARGETS)), reply.headers["x-ats-role-checksum"]

    def take_offline(self) -> None:
        """Root and targets of the Image repository; the old root key signs too, as long as the server has it."""
        standing, checksum = self.targets()
        root = self._root_with({Role.ROOT: [self.root_key], Role.TARGETS: [self.targets_key]})
        targets = replace(standing, version=standing.version + 1, expires=self._in_days(60))
        self._publish({"root": (root, [self.root_key]), "targets": (targets, [self.targets_key])}, checksum)
        self.is_offline = True

    def rotate_offline_keys(self) -> None:
        """New keys for both, the old root key vouching for them."""
        old = self.root_key
        self.root_key, self.targets_key = OfflineKey(), OfflineKey()
        standing, checksum = self.targets()
        root = self._root_with({Role.ROOT: [self.root_key], Role.TARGETS: [self.targets_key]})
        targets = replace(standing, version=standing.version + 1, expires=self._in_days(60))
        self._publish({"root": (root, [old, self.root_key]), "targets": (targets, [self.targets_key])}, checksum)

    def push(self, *images: tuple[str, bytes], days: float = 60, without: Sequence[str] = ()) -> RestReply:
        """The targets that stand, with these images more and some fewer, signed anew."""
        standing, checksum = self.targets()
        return self.push_signed(self.signed_targets(standing, *images, days=days, without=without), checksum)

    def signed_targets(
        self, standing: Targets, *images: tuple[str, bytes], days: float = 60, without: Sequence[str] = ()
    ) -> Publication:
        """What follows these targets, in both flavours."""
        files = {name: each for name, each in standing.targets.items() if name not in without}
        for name, data in images:
            files[name] = self._file(name, data)
        targets = replace(standing, version=standing.version + 1, expires=self._in_days(days), targets=files)
        return _in_both_flavours({"targets": (targets, [self.targets_key])})

    def push_signed(self, publication: Publication, checksum: str | None) -> RestReply:
        headers = {"x-ats-role-checksum": checksum} if checksum else {}
        return self.ask("PUT", f"{USER_REPO}/publication?coSign=true", json_body=publication, headers=headers)

    def renew_root(self) -> None:
        """A next root with the same keys."""
        root = replace(self.root(), version=self.root().version + 1, expires=self._in_days(365))
        self._publish({"root": (root, [self.root_key])}, None)

    def _root_with(self, keys: dict[Role, list[OfflineKey]]) -> Root:
        standing = self.root()
        known, roles = dict(standing.keys), dict(standing.roles)
        for role, held in keys.items():
            known |= {key.public_key.id: key.public_key for key in held}
            roles[role.value] = RoleKeys(key_ids=tuple(key.public_key.id for key in held), threshold=1)
        named = {key_id for each in roles.values() for key_id in each.key_ids}
        return replace(
            standing,
            version=standing.version + 1,
            expires=self._in_days(365),
            keys={key_id: key for key_id, key in known.items() if key_id in named},
            roles=roles,
        )

    def _publish(self, documents: Documents, checksum: str | None) -> None:
        reply = self.push_signed(_in_both_flavours(documents), checksum)
        assert reply.status == 200, reply.body
        self.server.work_off()

    def _file(self, name: str, data: bytes) -> TargetFile:
        now = self.now()
        return TargetFile(
            name=name,
            length=len(data),
            hashes={"sha256": hashlib.sha256(data).hexdigest()},
            custom={
                "name": "image",
                "version": name.rpartition("-")[2],
                "hardwareIds": [HARDWARE_ID, SECOND_HARDWARE_ID],
                "targetFormat": "BINARY",
                "createdAt": now,
                "updatedAt": now,
            },
        )

    def _in_days(self, days: float) -> Instant:
        return Instant((self.server.clock.now() + int(days * DAY_MS)) // 1000 * 1000)

    # Devices --------------------------------------------------------------------------------------------------------------

    def device(self, name: str, *, with_secondary: bool = False) -> Aktualizr:
        """Registered at its first cycle."""
        secondaries = [VirtualSecondary(f"{name}-dash", SECOND_HARDWARE_ID, self.now)] if with_secondary else []
        issued = self.authority.device(name, now=as_datetime(self.server.clock.now()), days=3000)
        calls: list[Call] = []
        server_ca = self.folder / "ca.pem"
        server_ca.write_bytes(self.authority.pem)  # nobody looks at it: there is no TLS here
        device = Aktualizr(
            Configuration(
                server_url=DEVICE_URL,
                credentials=issued.files(self.folder / name, server_ca),
                hardware_id=HARDWARE_ID,
                key_type="ED25519",
                retry_pause_s=0.0,
            ),
            secondaries,
            now=self.now,
            connect=lambda tls: InProcessHttp(self.server, tls, calls),
        )
        device.calls = calls
        return device

    def check_what_is_served(self, device: Aktualizr) -> dict[tuple[str, str], tuple[int, bytes]]:
        """Everything as a new client sees it, verified as a whole from root 1; version and bytes by repository and role.

        Raises:
            UptaneError: a client would refuse it.
        """
        found: dict[tuple[str, str], tuple[int, bytes]] = {}
        http = InProcessHttp(self.server, device.storage.tls, [])  # type: ignore[arg-type]

        class From:
            def __init__(self, prefix: str) -> None:
                self.prefix = prefix

            def fetch(self, file_name: str, *, size_bytes_max: int) -> bytes:
                response = http.get(f"{DEVICE_URL}/{self.prefix}/{file_name}", size_bytes_max=size_bytes_max)
                if response.status != 200:
                    assert response.status == 404, response
                    raise MetadataFetchFailure(f"{file_name}: {response.status}")
                return response.body

        ImageRepository(Repository(), self.now).update(From("repo"))
        DirectorRepository(Repository(), self.now).update(From("director"))
        for prefix in ("repo", "tuf", "director"):
            for role in ("root", "timestamp", "snapshot", "targets"):
                data = From(prefix).fetch(f"{role}.json", size_bytes_max=8 * 1024 * 1024)
                found[prefix, role] = (int(json.loads(data)["signed"]["version"]), data)
        return found


def _in_both_flavours(documents: Documents) -> Publication:
    return {
        flavour.value: {
            kind: json.loads(sign_payload(payload(body, flavour), keys, flavour)) for kind, (body, keys) in documents.items()
        }
        for flavour in Flavour
    }
