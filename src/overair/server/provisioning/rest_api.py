"""Operators' routes of devices' certificates: what OTA Connect's device registry takes and shows of them.

Uptane reference §3.3, §11 ("credentials").
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.certificates import x509
from overair.server.devices.service import DevicesService
from overair.server.provisioning.certificate_paths import refuse_private_keys
from overair.server.provisioning.model import read_device_id
from overair.server.provisioning.service import ProvisioningService
from overair.server.rest.operations import RestAnswer, RestRequest, route

REGISTER: Final = "overair:RegisterUptaneDevice"
READ: Final = "overair:DescribeUptaneDeviceCertificate"
DEVICE_TYPES: Final = ("Other", "Vehicle")
NAME_LENGTH_MAX: Final = 200


class CallerRights(Protocol):
    """What this door asks of the callers' policies (``access.service.AccessService``)."""

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None: ...


class DeviceRecords(Protocol):
    """Who keeps an operator's words about a device. Implemented above, by the Director."""

    def expect(self, tx: Tx, account: AccountId, thing: ThingName, *, name: str, device_type: str) -> Any:
        """Note that the device is known; one that is noted already keeps its record."""
        ...


class DeviceCertificatesRestApi:
    """``PUT /api/v1/devices``, and the certificate read back. ``work`` is the audited one."""

    def __init__(
        self,
        *,
        work: Work,
        provisioning: ProvisioningService,
        devices: DevicesService,
        records: DeviceRecords,
        rights: CallerRights,
    ) -> None:
        self._work = work
        self._provisioning = provisioning
        self._devices = devices
        self._records = records
        self._rights = rights

    @route("PUT", "/api/v1/devices", operation="RegisterUptaneDevice", body_size_bytes_max=128 * 1024)
    async def register(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """A device by its public certificate: ``credentials`` is the PEM, whose one common name is the device's id.

        ``deviceId`` or ``deviceUuid``, if given, must say the same; ``deviceName`` and ``deviceType`` are kept.
        """
        body = request.json_object()
        pem = _text(body, "credentials", required=True)
        refuse_private_keys(pem.encode("utf-8", "replace"), field="credentials")
        certificate = x509.certificate_from_pem(pem.encode("utf-8", "replace"))
        name, device_type = _text(body, "deviceName"), _text(body, "deviceType") or "Other"
        if device_type not in DEVICE_TYPES or len(name) > NAME_LENGTH_MAX or (name and not name.isprintable()):
            raise InvalidRequest(
                f"deviceType is {' or '.join(DEVICE_TYPES)}; deviceName has at most {NAME_LENGTH_MAX} printable characters.",
                subject="member",
                details={"field": "deviceType" if device_type not in DEVICE_TYPES else "deviceName"},
            )
        said = {_text(body, field) for field in ("deviceId", "deviceUuid")} - {""}
        # Where both are given and differ, the certificate says which of them is the device's name.
        wanted = self._provisioning.name_in(certificate)
        device = wanted if wanted in said or not said else read_device_id(sorted(said)[0])

        def unit(tx: Tx) -> str:
            self._rights.require(tx, caller, REGISTER, caller.place.iot("thing", wanted))
            thing = self._provisioning.register_device(tx, caller.place, certificate, device=device, source_ip=caller.source_ip)
            self._records.expect(tx, caller.account, thing, name=name, device_type=device_type)
            return self._devices.find(tx, caller.account, thing).id

        return RestAnswer(json=await self._work.run(unit))

    @route("GET", "/api/v1/devices/{device}/public_credentials", operation="DescribeUptaneDeviceCertificate")
    async def public_credentials(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The certificate that a device last came with, by its name or UUID; and which of its certificates are good now: none
        where it is kept out."""
        said = request.labels["device"]

        def query(tx: Tx) -> dict[str, object]:
            thing = self._devices.name_of(tx, caller.account, said)
            if thing != said:
                self._rights.require(tx, caller, READ, caller.place.iot("thing", thing))
            pem = self._provisioning.public_certificate(tx, caller.account, thing)
            if pem is None:
                raise NotFound(f"No certificate of {thing} is known.", subject="certificate")
            found = self._devices.find(tx, caller.account, thing)
            usable = self._provisioning.usable_certificates(tx, caller.account, thing)
            return {
                "uuid": found.id,
                "deviceId": thing,
                "credentialsType": "PEM",
                "credentials": pem,
                "usableCredentials": list(usable),
            }

        return RestAnswer(json=await self._work.read(query))


def _text(body: dict[str, object], name: str, *, required: bool = False) -> str:
    value = body.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be text.", subject="member", details={"field": name})
    return value
