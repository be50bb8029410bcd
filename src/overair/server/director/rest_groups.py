"""Operators' routes of device groups: thing groups under OTA Connect's names (Uptane reference §11)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest, Unsupported
from overair.basics.ids import AccountId, GroupName, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.devices.model import GroupQuery, Thing, ThingGroup
from overair.server.director.rest_support import Labels, moment, page_of
from overair.server.rest.operations import RestAnswer, RestRequest, route

GROUP_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
GROUPS_MAX: Final = 10_000
MEMBERS_MAX: Final = 100_000
_GROUP: Final = "/api/v1/device_groups/{group}"
_NO_CONTENT: Final = RestAnswer(status=204)


class ThingGroups(Protocol):
    """Groups of the registry (``devices.service.ThingGroupsService``)."""

    def find(self, tx: Tx, account: AccountId, name: GroupName) -> ThingGroup: ...
    def create(self, tx: Tx, place: Place, name: GroupName) -> ThingGroup: ...
    def delete(self, tx: Tx, place: Place, name: GroupName) -> None: ...
    def page(self, tx: Tx, account: AccountId, query: GroupQuery, *, after: str | None, limit: int) -> Sequence[GroupName]: ...
    def add(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> None: ...
    def remove(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> None: ...
    def members(
        self, tx: Tx, account: AccountId, name: GroupName, *, nested: bool, after: str | None, limit: int
    ) -> Sequence[ThingName]: ...


class Things(Protocol):
    """Things of the registry (``devices.service.DevicesService``)."""

    def find(self, tx: Tx, account: AccountId, name: ThingName) -> Thing: ...


class DeviceGroupsRestApi:
    """Static groups by UUID or name. ``work`` is the audited one."""

    def __init__(self, *, work: Work, things: Things, groups: ThingGroups, labels: Labels) -> None:
        self._work = work
        self._things = things
        self._groups = groups
        self._labels = labels

    @route("POST", "/api/v1/device_groups", operation="CreateDeviceGroup")
    async def create(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """``groupName`` and ``groupType`` in the body, or ``groupName`` and ``type`` in the query, as older tools have it."""
        members = request.json_object() if request.body else {}
        said = members.get("name", request.query.get("groupName"))
        kind = members.get("groupType", request.query.get("type", "static"))
        if kind == "dynamic" or members.get("expression") is not None or "expression" in request.query:
            raise Unsupported(
                "Dynamic groups (an expression over devices) are not supported yet. Make a static group and add devices to it.",
                subject="dynamic-group",
                details={"field": "groupType"},
            )
        if kind != "static":
            raise InvalidRequest("groupType is static.", subject="member", details={"field": "groupType"})
        if not isinstance(said, str) or not GROUP_NAME.fullmatch(said):
            raise InvalidRequest(
                "A group's name is the name of a thing group: 1 to 128 of a-z, A-Z, 0-9, ':', '_' and '-'.",
                subject="member",
                details={"field": "name"},
            )

        def unit(tx: Tx) -> ThingGroup:
            self._labels.require(tx, caller, "iot:CreateThingGroup", caller.place.iot("thinggroup", said))
            return self._groups.create(tx, caller.place, GroupName(said))

        return RestAnswer(status=201, json=(await self._work.run(unit)).id)

    @route("GET", "/api/v1/device_groups", operation="ListDeviceGroups")
    async def list_groups(self, caller: Caller, request: RestRequest) -> RestAnswer:
        page = page_of(request)
        query = GroupQuery(name_prefix="")
        wanted = request.query.get("nameContains", "").lower()

        def unit(tx: Tx) -> dict[str, object]:
            names = self._groups.page(tx, caller.account, query, after=None, limit=GROUPS_MAX)
            named = [name for name in names if wanted in name.lower()]
            return page.cut(named, lambda name: _group(self._groups.find(tx, caller.account, name)))

        return RestAnswer(json=await self._work.read(unit))

    @route("GET", _GROUP, operation="DescribeDeviceGroup")
    async def describe(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def query(tx: Tx) -> dict[str, object]:
            return _group(self._groups.find(tx, caller.account, self._group(tx, caller, request, "iot:DescribeThingGroup")))

        return RestAnswer(json=await self._work.read(query))

    @route("DELETE", _GROUP, operation="DeleteDeviceGroup")
    async def delete(self, caller: Caller, request: RestRequest) -> RestAnswer:
        await self._work.run(
            lambda tx: self._groups.delete(tx, caller.place, self._group(tx, caller, request, "iot:DeleteThingGroup"))
        )
        return _NO_CONTENT

    @route("PUT", _GROUP + "/rename", operation="DescribeDeviceGroup")
    async def rename(self, caller: Caller, request: RestRequest) -> RestAnswer:
        raise Unsupported(
            "A group keeps its name: it stands in the ARNs of jobs and policies. Make another group and move the devices.",
            subject="group-rename",
        )

    @route("GET", _GROUP + "/devices", operation="ListDevicesInGroup")
    async def devices(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """UUIDs of the devices in it, and in the groups in it."""
        page = page_of(request)

        def query(tx: Tx) -> dict[str, object]:
            members = self._members(tx, caller, request)
            return page.cut(members, lambda thing: self._things.find(tx, caller.account, thing).id)

        return RestAnswer(json=await self._work.read(query))

    @route("GET", _GROUP + "/count", operation="ListDevicesInGroup")
    async def count(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return RestAnswer(json=await self._work.read(lambda tx: len(self._members(tx, caller, request))))

    @route("POST", _GROUP + "/devices/{device}", operation="AddDeviceToGroup")
    async def add(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def unit(tx: Tx) -> None:
            group = self._group(tx, caller, request, "iot:AddThingToThingGroup")
            thing = self._labels.thing(tx, caller, request.labels["device"], "iot:AddThingToThingGroup")
            self._groups.add(tx, caller.account, group, thing)

        await self._work.run(unit)
        return RestAnswer(json={})

    @route("DELETE", _GROUP + "/devices/{device}", operation="RemoveDeviceFromGroup")
    async def remove(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def unit(tx: Tx) -> None:
            group = self._group(tx, caller, request, "iot:RemoveThingFromThingGroup")
            thing = self._labels.thing(tx, caller, request.labels["device"], "iot:RemoveThingFromThingGroup")
            self._groups.remove(tx, caller.account, group, thing)

        await self._work.run(unit)
        return RestAnswer(json={})

    def _group(self, tx: Tx, caller: Caller, request: RestRequest, action: str) -> GroupName:
        return self._labels.group(tx, caller, request.labels["group"], action)

    def _members(self, tx: Tx, caller: Caller, request: RestRequest) -> Sequence[ThingName]:
        group = self._group(tx, caller, request, "iot:ListThingsInThingGroup")
        return self._groups.members(tx, caller.account, group, nested=True, after=None, limit=MEMBERS_MAX)


def _group(group: ThingGroup) -> dict[str, object]:
    return {
        "id": group.id,
        "groupName": group.name,
        "groupType": "static",
        "createdAt": moment(group.created_at),
        "expression": None,
    }
