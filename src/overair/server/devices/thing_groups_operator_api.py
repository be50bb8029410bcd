"""The operator's door to thing groups (service ``iot``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overair.basics.errors import InvalidRequest
from overair.basics.ids import GroupName, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.devices.model import GroupQuery, own_resource
from overair.server.devices.thing_groups import KIND, GroupSettings, ThingGroupsService


class ThingGroupsOperatorApi:
    """Static groups and who is in them."""

    def __init__(self, *, work: Work, groups: ThingGroupsService) -> None:
        self.work = work
        self.groups = groups

    @operation("iot", "CreateThingGroup")
    async def create_thing_group(self, caller: Caller, request: Request) -> Members:
        name, parent, settings = GroupName(request["thingGroupName"]), request.get("parentGroupName"), _settings(request)
        tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())}
        made = await self.work.run(
            lambda tx: self.groups.create(tx, caller.place, name, parent=parent, settings=settings, tags=tags)
        )
        return {
            "thingGroupName": made.name,
            "thingGroupArn": caller.place.iot(KIND, made.name),
            "thingGroupId": made.id,
        }

    @operation("iot", "DescribeThingGroup")
    async def describe_thing_group(self, caller: Caller, request: Request) -> Members:
        name = GroupName(request["thingGroupName"])
        group, line = await self.work.read(
            lambda tx: (self.groups.find(tx, caller.account, name), self.groups.ancestors(tx, caller.account, name))
        )
        metadata: dict[str, Any] = {"creationDate": group.created_at}
        if group.parent is not None:
            metadata["parentGroupName"] = group.parent
            metadata["rootToParentThingGroups"] = [_name_and_arn(caller, ancestor) for ancestor in line]
        properties: dict[str, Any] = {"attributePayload": {"attributes": dict(group.attributes)}}
        if group.description:
            properties["thingGroupDescription"] = group.description
        described: dict[str, Any] = {
            "thingGroupName": group.name,
            "thingGroupId": group.id,
            "thingGroupArn": caller.place.iot(KIND, group.name),
            "version": group.version,
            "thingGroupProperties": properties,
            "thingGroupMetadata": metadata,
        }
        if group.dynamic is not None:
            described |= {
                "indexName": group.dynamic.index_name,
                "queryString": group.dynamic.text,
                "queryVersion": group.dynamic.version,
                "status": group.dynamic.status.value,
            }
        return described

    @operation("iot", "UpdateThingGroup")
    async def update_thing_group(self, caller: Caller, request: Request) -> Members:
        name, settings, expected = GroupName(request["thingGroupName"]), _settings(request), request.get("expectedVersion")
        changed = await self.work.run(
            lambda tx: self.groups.update(tx, caller.account, name, settings, expected_version=expected)
        )
        return {"version": changed.version}

    @operation("iot", "DeleteThingGroup")
    async def delete_thing_group(self, caller: Caller, request: Request) -> Members:
        name, expected = GroupName(request["thingGroupName"]), request.get("expectedVersion")
        await self.work.run(lambda tx: self.groups.delete(tx, caller.place, name, expected_version=expected))
        return {}

    @operation("iot", "ListThingGroups")
    async def list_thing_groups(self, caller: Caller, request: Request) -> Members:
        query = GroupQuery(
            parent=request.get("parentGroup"),
            name_prefix=request.get("namePrefixFilter", ""),
            recursive=request.get("recursive"),
        )
        after, limit = _after(request)
        rows = await self.work.read(lambda tx: self.groups.page(tx, caller.account, query, after=after, limit=limit + 1))
        page, token = cut(rows, limit, lambda name: (name,))
        return {"thingGroups": [_name_and_arn(caller, name) for name in page], "nextToken": token}

    @operation("iot", "AddThingToThingGroup")
    async def add_thing_to_thing_group(self, caller: Caller, request: Request) -> Members:
        group, thing = _group_and_thing(caller, request)
        await self.work.run(lambda tx: self.groups.add(tx, caller.account, group, thing, guarded=True))
        return {}

    @operation("iot", "RemoveThingFromThingGroup")
    async def remove_thing_from_thing_group(self, caller: Caller, request: Request) -> Members:
        group, thing = _group_and_thing(caller, request)
        await self.work.run(lambda tx: self.groups.remove(tx, caller.account, group, thing))
        return {}

    @operation("iot", "UpdateThingGroupsForThing")
    async def update_thing_groups_for_thing(self, caller: Caller, request: Request) -> Members:
        if "thingName" not in request:
            raise InvalidRequest("thingName is required.", subject="thing")
        thing = ThingName(request["thingName"])
        add, remove = request.get("thingGroupsToAdd", []), request.get("thingGroupsToRemove", [])
        await self.work.run(lambda tx: self.groups.regroup(tx, caller.account, thing, add=add, remove=remove))
        return {}

    @operation("iot", "ListThingsInThingGroup")
    async def list_things_in_thing_group(self, caller: Caller, request: Request) -> Members:
        name, nested = GroupName(request["thingGroupName"]), request.get("recursive", False)
        after, limit = _after(request)

        def members(tx: Tx) -> Any:
            self.groups.find(tx, caller.account, name)
            return self.groups.members(tx, caller.account, name, nested=nested, after=after, limit=limit + 1)

        page, token = cut(await self.work.read(members), limit, lambda thing: (thing,))
        return {"things": list(page), "nextToken": token}

    @operation("iot", "ListThingGroupsForThing")
    async def list_thing_groups_for_thing(self, caller: Caller, request: Request) -> Members:
        thing = ThingName(request["thingName"])
        after, limit = _after(request)
        rows = await self.work.read(lambda tx: self.groups.groups_of(tx, caller.account, thing, after=after, limit=limit + 1))
        page, token = cut(rows, limit, lambda name: (name,))
        return {"thingGroups": [_name_and_arn(caller, name) for name in page], "nextToken": token}


def _after(request: Request) -> tuple[str | None, int]:
    position = read_page_token(request.get("nextToken"), tuple[str])
    return None if position is None else position[0], request.get("maxResults", PAGE_SIZE_DEFAULT)


def _settings(request: Request) -> GroupSettings:
    properties: Mapping[str, Any] = request.get("thingGroupProperties", {})
    payload: Mapping[str, Any] = properties.get("attributePayload", {})
    return GroupSettings(
        description=properties.get("thingGroupDescription"),
        attributes=payload.get("attributes"),
        merge=payload.get("merge", False),
    )


def _name_and_arn(caller: Caller, name: GroupName) -> dict[str, str]:
    return {"groupName": name, "groupArn": caller.place.iot(KIND, name)}


def _group_and_thing(caller: Caller, request: Request) -> tuple[GroupName, ThingName]:
    """Both may come by name, by ARN, or by both where they agree."""
    return (
        GroupName(_named(caller, request, "thingGroupName", "thingGroupArn", KIND)),
        ThingName(_named(caller, request, "thingName", "thingArn", "thing")),
    )


def _named(caller: Caller, request: Request, name_member: str, arn_member: str, kind: str) -> str:
    name, arn = request.get(name_member), request.get(arn_member)
    if arn is not None:
        _, from_arn = own_resource(caller.place, arn, "target", (kind,))
        if name is not None and name != from_arn:
            raise InvalidRequest(f"{name_member} and {arn_member} name different resources.", subject="target")
        return from_arn
    if name is None:
        raise InvalidRequest(f"Give {name_member} or {arn_member}.", subject="target")
    return str(name)
