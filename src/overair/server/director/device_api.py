"""Vehicles' paths of the Director, and of what they tell beside it (Uptane reference §3.4 to §3.6, §6)."""

from __future__ import annotations

import re
from typing import Final

import structlog

from overair.basics.errors import InvalidRequest, NotFound, OverairError
from overair.basics.work import Work
from overair.server.director.model import DirectorView
from overair.server.director.served_roots import ServedRoots
from overair.server.director.service import AwaitingApproval, DirectorService
from overair.server.rest.operations import DeviceCaller, RestAnswer, RestRequest, device_route
from overair.server.roots.probes import RootProbes
from overair.wire.uptane.canonical import VERSION_MAX
from overair.wire.uptane.ecus import REGISTRATION_SIZE_BYTES_MAX, read_registration
from overair.wire.uptane.events import EVENTS_SIZE_BYTES_MAX, read_events
from overair.wire.uptane.manifest import MANIFEST_SIZE_BYTES_MAX, read_manifest
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.refusals import MetadataRefused, Reason

logger = structlog.get_logger("overair.director")

METADATA: Final = "overair:DirectorGetMetadata"
SYSTEM_INFO: Final = "overair:DevicePutSystemInfo"
DATA_SIZE_BYTES_MAX: Final = 1024 * 1024
CONFIG_SIZE_BYTES_MAX: Final = 64 * 1024
_DOCUMENT: Final = re.compile(r"(?:(\d{1,10})\.)?(root|targets|snapshot|timestamp)\.json", re.ASCII)
_NO_CONTENT: Final = RestAnswer(status=204)


class DirectorDeviceApi:
    """What a vehicle posts, puts and gets. ``work`` is not the audited one: devices write no audit rows."""

    def __init__(self, *, work: Work, director: DirectorService, roots: ServedRoots, probes: RootProbes) -> None:
        self._work = work
        self._director = director
        self._roots = roots
        self._probes = probes

    # The Director ---------------------------------------------------------------------------------------------------------

    @device_route(
        "POST",
        "/director/ecus",
        action="overair:DirectorRegisterEcus",
        body_size_bytes_max=REGISTRATION_SIZE_BYTES_MAX,
    )
    async def register_ecus(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """201 for a vehicle that had none, 200 for one that had."""
        try:
            asked = read_registration(request.body)
        except MetadataRefused as error:
            raise _refused(error) from None
        registrations = self._director.registrations
        outcome = await self._work.run(lambda tx: registrations.register(tx, device.place, device.thing, asked))
        if outcome.refusal is not None:
            _tell("registration of ECUs refused", device, outcome.refusal)
            raise outcome.refusal
        return RestAnswer(status=201 if outcome.is_new else 200, json={})

    @device_route(
        "PUT", "/director/manifest", action="overair:DirectorPutManifest", body_size_bytes_max=MANIFEST_SIZE_BYTES_MAX
    )
    async def put_manifest(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """Signatures are checked on a reader's thread; the writer takes what was found."""
        try:
            manifest = read_manifest(request.body)
        except MetadataRefused as error:
            raise _refused(error) from None
        manifests = self._director.manifests
        judged = await self._work.read(lambda tx: manifests.judge(tx, device.account, device.thing, manifest))
        refusal = await self._work.run(lambda tx: manifests.take(tx, device.place, device.thing, judged))
        if refusal is not None:
            _tell("manifest refused", device, refusal)
            raise refusal
        return RestAnswer(json={})

    @device_route("GET", "/director/{document}", action=METADATA)
    async def document(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """``root.json``, ``7.root.json``, and the vehicle's own ``targets.json``, ``snapshot.json``, ``timestamp.json``, each
        also behind its version."""
        found = _DOCUMENT.fullmatch(request.labels["document"])
        if found is None:
            raise NotFound("The Director's documents are root, targets, snapshot and timestamp.json.", subject="role")
        version = None if found[1] is None else int(found[1])
        if found[2] == "root":
            return RestAnswer(body=await self._root(device, version))
        view = await self._view(device)
        if version is not None and version != view.version:
            raise NotFound(f"The Director's documents for this vehicle are of version {view.version}.", subject="role")
        documents = {"targets": view.targets, "snapshot": view.snapshot, "timestamp": view.timestamp}
        return RestAnswer(body=documents[found[2]])

    async def _root(self, device: DeviceCaller, version: int | None) -> bytes:
        if version is not None and version <= VERSION_MAX:
            newest = await self._roots.newest(device.account)
            await self._probes.note(device.account, Repository.DIRECTOR, device.thing, version, newest_version=newest)
        return await self._roots.document(device.account, version)

    async def _view(self, device: DeviceCaller) -> DirectorView:
        metadata = self._director.metadata
        view = await self._work.read(lambda tx: metadata.current(tx, device.account, device.thing))
        if view is not None:
            return view
        return await self._work.run(lambda tx: metadata.refresh(tx, device.place, device.thing))

    # What a vehicle tells of itself ---------------------------------------------------------------------------------------

    @device_route("PUT", "/core/installed", action="overair:DevicePutInstalled", body_size_bytes_max=DATA_SIZE_BYTES_MAX)
    async def put_packages(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        value = request.json()
        records = self._director.records
        await self._work.run(lambda tx: records.put_packages(tx, device.account, device.thing, value))
        return _NO_CONTENT

    @device_route("PUT", "/system_info", action=SYSTEM_INFO, body_size_bytes_max=DATA_SIZE_BYTES_MAX)
    @device_route("PUT", "/core/system_info", action=SYSTEM_INFO, body_size_bytes_max=DATA_SIZE_BYTES_MAX)
    async def put_system(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        value = request.json()
        records = self._director.records
        await self._work.run(lambda tx: records.put_system(tx, device.account, device.thing, value))
        return _NO_CONTENT

    @device_route("PUT", "/system_info/network", action=SYSTEM_INFO)
    @device_route("PUT", "/core/system_info/network", action=SYSTEM_INFO)
    async def put_network(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        value = request.json()
        records = self._director.records
        await self._work.run(lambda tx: records.put_network(tx, device.account, device.thing, value))
        return _NO_CONTENT

    @device_route("POST", "/system_info/config", action=SYSTEM_INFO, body_size_bytes_max=CONFIG_SIZE_BYTES_MAX)
    @device_route("PUT", "/system_info/config", action=SYSTEM_INFO, body_size_bytes_max=CONFIG_SIZE_BYTES_MAX)
    async def put_config(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """TOML, whatever the content type says."""
        records = self._director.records
        await self._work.run(lambda tx: records.put_config(tx, device.account, device.thing, request.body))
        return _NO_CONTENT

    @device_route("POST", "/events", action="overair:DevicePostEvents", body_size_bytes_max=EVENTS_SIZE_BYTES_MAX)
    async def post_events(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """413 makes a client send half of them next."""
        try:
            batch = read_events(request.body)
        except MetadataRefused as error:
            raise _refused(error) from None
        if batch.events:
            records = self._director.records
            await self._work.run(lambda tx: records.take_events(tx, device.place, device.thing, batch.events))
        return _NO_CONTENT

    @device_route("GET", "/campaigner/campaigns", action="overair:DeviceGetCampaigns")
    async def campaigns(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """Those that wait for the driver's word."""
        approvals = self._director.campaigns.approvals
        waiting = await self._work.read(lambda tx: approvals.awaiting(tx, device.account, device.thing))
        return RestAnswer(json={"campaigns": [_campaign(each) for each in waiting]})


def _tell(event: str, device: DeviceCaller, refusal: OverairError) -> None:
    """A key that nobody approved, a signature that doesn't hold, a replay: whoever watches the log should see these."""
    logger.warning(event, thing=device.thing, why=refusal.subject, request_id=device.request_id)


def _campaign(waiting: AwaitingApproval) -> dict[str, object]:
    campaign = waiting.campaign
    return {
        "id": campaign.id,
        "name": campaign.name,
        "size": waiting.size_bytes,
        "autoAccept": False,
        "metadata": [{"type": kind.value, "value": value} for kind, value in campaign.metadata.items()],
    }


def _refused(error: MetadataRefused) -> OverairError:
    """What a body that can't be read is called at this door."""
    details = {"field": error.field} if error.field else {}
    if error.reason is Reason.OVERSIZED:
        return InvalidRequest(error.message, subject="too-large", details=details)
    if error.reason is Reason.UNSUPPORTED_METHOD:
        return InvalidRequest(error.message, subject="ecu-key-type", details=details)
    if error.reason is Reason.BAD_ECU_ID and error.field == "primary_ecu_serial":
        return InvalidRequest(error.message, subject="primary-not-listed", details=details)
    return InvalidRequest(error.message, subject="malformed-body", details=details)
