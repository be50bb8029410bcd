"""A real server and whatever calls it on the way of an Uptane update: operators over REST, devices as aktualizr."""

from __future__ import annotations

import hashlib
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.aktualizr.configuration import Configuration
from tests.support.aktualizr.credentials import OwnPki, SharedCredentials
from tests.support.aktualizr.device import Aktualizr, wall_clock_now
from tests.support.aktualizr.secondary import VirtualSecondary
from tests.support.fleet_pki import FleetAuthority
from tests.support.operator_rest import OperatorRest, RestReply
from tests.support.server_process import ServerProcess

HARDWARE_ID = "gw-imx8"
USER_REPO = "/api/v1/user_repo"
DIRECTOR = "/api/v1/director"


class UptaneRoad:
    """Names are this object's own where several share a server: ``name("car")`` never comes twice."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server, self.folder = server, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.operator: Any = server.client("overair")
        key = server.root_key()
        self.rest = OperatorRest(
            server.endpoints["operator_url"],
            server.endpoints["ca_file"],
            client_id=key["access_key_id"],
            client_secret=key["secret_access_key"],
        )
        self._count = 0

    def name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    @property
    def device_url(self) -> str:
        return str(self.server.endpoints["device_url"])

    # Operators.

    def upload(
        self,
        name: str,
        content: bytes,
        *hardware_ids: str,
        display_name: str = "",
        version: str = "1.0",
        release_counter: int | None = None,
    ) -> None:
        """An image into the Image repository, signed at once where its keys are the server's."""
        query = {
            "name": display_name or name,
            "version": version,
            "hardwareIds": ",".join(hardware_ids or (HARDWARE_ID,)),
            "targetFormat": "BINARY",
            **({} if release_counter is None else {"releaseCounter": str(release_counter)}),
        }
        self.rest.expect((200, 204), "PUT", f"{USER_REPO}/targets/{quote(name)}", body=content, query=query)

    def new_image(self, *hardware_ids: str, content: bytes | None = None) -> tuple[str, bytes]:
        """An image that nobody has, uploaded: its name and its bytes."""
        name = self.name("image")
        data = content if content is not None else f"firmware {name} ".encode() * 200
        self.upload(name, data, *hardware_ids)
        return name, data

    def multi_target_update(self, images: Mapping[str, tuple[str, bytes]], *, uri: str | None = None) -> str:
        """By hardware id, the image that it is to get; the update's id."""
        targets = {
            hardware_id: {
                "from": None,
                "to": {
                    "target": name,
                    "checksum": {"method": "sha256", "hash": hashlib.sha256(data).hexdigest()},
                    "targetLength": len(data),
                    "uri": uri,
                },
                "targetFormat": "BINARY",
                "generateDiff": False,
            }
            for hardware_id, (name, data) in images.items()
        }
        return str(self.rest.expect(201, "POST", f"{DIRECTOR}/multi_target_updates", json_body={"targets": targets}).json)

    def assign(self, update: str, *devices: str) -> str:
        """To every one of these devices; the correlation id."""
        correlation_id = f"urn:here-ota:mtu:{uuid.uuid4()}"
        body = {"correlationId": correlation_id, "devices": list(devices), "mtuId": update, "dryRun": False}
        answer = self.rest.expect(201, "POST", f"{DIRECTOR}/assignments", json_body=body).json
        assert sorted(answer["affected"]) == sorted(devices), answer
        return correlation_id

    def send(self, device: Aktualizr, *hardware_ids: str) -> tuple[str, bytes]:
        """A new image for these hardware ids, assigned to one device: name and bytes."""
        hardware_ids = hardware_ids or (HARDWARE_ID,)
        image = self.new_image(*hardware_ids)
        self.assign(self.multi_target_update(dict.fromkeys(hardware_ids, image)), device.device_id)
        return image

    def cancel(self, device: Aktualizr, *, force: bool = False) -> RestReply:
        headers = {"x-trx-force": "true"} if force else {}
        return self.rest.ask("PATCH", f"{DIRECTOR}/assignments/{device.device_id}", headers=headers)

    def assignments(self, device: Aktualizr) -> list[Any]:
        """What has not ended."""
        return list(self.rest.expect(200, "GET", f"{DIRECTOR}/assignments/{device.device_id}").json)

    def execution(self, device: Aktualizr, correlation_id: str) -> dict[str, Any]:
        """Of the job that an assignment is, as ``describe-job-execution`` tells it."""
        iot = self.server.client("iot")
        for summary in iot.list_job_executions_for_thing(thingName=device.device_id)["executionSummaries"]:
            execution = iot.describe_job_execution(jobId=summary["jobId"], thingName=device.device_id)["execution"]
            if execution.get("statusDetails", {}).get("detailsMap", {}).get("correlationId") == correlation_id:
                return dict(execution)
        raise AssertionError(f"no execution of {device.device_id} has {correlation_id}")

    # Devices.

    def credentials_zip(self, **options: Any) -> Path:
        """As ``overair credentials device`` makes it, of the answer to the same call."""
        made = self.operator.create_provisioning_credential(**options)
        path = self.folder / f"{self.name('credentials')}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("autoprov.url", made["deviceUrl"])
            archive.writestr("autoprov_credentials.p12", made["pkcs12"])
            archive.writestr("server_ca.pem", made["serverCaPem"])
        return path

    def shared_device(
        self,
        archive: Path,
        *,
        device_id: str = "",
        secondaries: Sequence[VirtualSecondary] = (),
        key_type: str = "ED25519",
        hardware_id: str = HARDWARE_ID,
    ) -> Aktualizr:
        """A device with a credentials.zip; not provisioned yet."""
        credentials = SharedCredentials(archive)
        return Aktualizr(
            Configuration(
                server_url=credentials.server_url,
                credentials=credentials,
                hardware_id=hardware_id,
                device_id=device_id,
                key_type=key_type,
            ),
            secondaries,
        )

    def fleet(self, **rule: Any) -> FleetAuthority:
        """An authority of the operator's own, whose devices are let in at their first contact."""
        authority = FleetAuthority(self.name("fleet root"))
        self.operator.register_fleet_certificate_authority(
            certificatePem=authority.pem.decode(), rule={"firstContact": "allow", **rule}
        )
        return authority

    def own_pki_device(
        self,
        authority: FleetAuthority,
        device_id: str,
        *,
        secondaries: Sequence[VirtualSecondary] = (),
        key_type: str = "ED25519",
        hardware_id: str = HARDWARE_ID,
        certificate_key: str = "P-256",
        primary_serial: str = "",
        days: int = 365,
    ) -> Aktualizr:
        """A device whose certificate its owner made; nobody has told the server of it."""
        issued = authority.device(device_id, key=certificate_key, days=days)
        return Aktualizr(
            Configuration(
                server_url=self.device_url,
                credentials=self.import_files(device_id, issued),
                hardware_id=hardware_id,
                key_type=key_type,
                primary_serial=primary_serial,
            ),
            secondaries,
        )

    def moved(self, device: Aktualizr) -> Aktualizr:
        """The device's next process, told where the server listens now."""
        return device.restart(configuration=replace(device.configuration, server_url=self.device_url))

    def import_files(self, device_id: str, issued: Any) -> OwnPki:
        """``import.base_path`` of one device, written over."""
        files: OwnPki = issued.files(self.folder / device_id, self.server.endpoints["ca_file"])
        return files

    @staticmethod
    def secondary(serial: str, hardware_id: str) -> VirtualSecondary:
        return VirtualSecondary(serial, hardware_id, wall_clock_now)
