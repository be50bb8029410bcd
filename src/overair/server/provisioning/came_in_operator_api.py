"""The operator's door to the list of devices that came in (service ``overair``)."""

from __future__ import annotations

from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.provisioning.came_in import CameInBy, ProvisionedDevices
from overair.server.provisioning.model import ProvisionedDevice
from overair.server.provisioning.operator_api import provisioned_device
from overair.server.provisioning.service import ProvisioningService


class ProvisionedDeviceOperations:
    """Which devices came by what."""

    def __init__(self, *, work: Work, devices: ProvisionedDevices, provisioning: ProvisioningService) -> None:
        self._work = work
        self._devices = devices
        self._provisioning = provisioning

    @operation("overair", "ListProvisionedDevices")
    async def list_devices(self, caller: Caller, request: Request) -> Members:
        asked = CameInBy(
            origin=request.get("origin"),
            template=request.get("templateName"),
            authority=request.get("authorityId"),
            credential=request.get("credentialId"),
        )
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = None if position is None else position[0]

        def read(tx: Tx) -> list[tuple[ProvisionedDevice, bool]]:
            found = self._devices.page(tx, caller.account, asked, after=after, limit=limit + 1)
            return [(each, self._provisioning.is_blocked(tx, caller.account, each.thing)) for each in found]

        page, token = cut(await self._work.read(read), limit, lambda row: (row[0].thing,))
        return {"devices": [provisioned_device(each, is_blocked=is_blocked) for each, is_blocked in page], "nextToken": token}
