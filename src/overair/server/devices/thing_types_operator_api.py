"""The operator's door to thing types (service ``iot``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from overair.basics.ids import ThingTypeName
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.devices.model import ThingType
from overair.server.devices.thing_types import KIND, ThingTypesService, TypeSettings


class ThingTypesOperatorApi:
    """CreateThingType, Describe, Update, Deprecate, Delete, List."""

    def __init__(self, *, work: Work, types: ThingTypesService) -> None:
        self.work = work
        self.types = types

    @operation("iot", "CreateThingType")
    async def create_thing_type(self, caller: Caller, request: Request) -> Members:
        name, settings = ThingTypeName(request["thingTypeName"]), _settings(request)
        tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())}
        made = await self.work.run(lambda tx: self.types.create(tx, caller.place, name, settings, tags))
        return {
            "thingTypeName": made.name,
            "thingTypeArn": caller.place.iot(KIND, made.name),
            "thingTypeId": made.id,
        }

    @operation("iot", "DescribeThingType")
    async def describe_thing_type(self, caller: Caller, request: Request) -> Members:
        name = ThingTypeName(request["thingTypeName"])
        found = await self.work.read(lambda tx: self.types.find(tx, caller.account, name))
        return {"thingTypeId": found.id, **_definition(caller, found)}

    @operation("iot", "UpdateThingType")
    async def update_thing_type(self, caller: Caller, request: Request) -> Members:
        name, settings = ThingTypeName(request["thingTypeName"]), _settings(request)
        await self.work.run(lambda tx: self.types.update(tx, caller.account, name, settings))
        return {}

    @operation("iot", "DeprecateThingType")
    async def deprecate_thing_type(self, caller: Caller, request: Request) -> Members:
        name, undo = ThingTypeName(request["thingTypeName"]), request.get("undoDeprecate", False)
        await self.work.run(lambda tx: self.types.deprecate(tx, caller.account, name, undo=undo))
        return {}

    @operation("iot", "DeleteThingType")
    async def delete_thing_type(self, caller: Caller, request: Request) -> Members:
        name = ThingTypeName(request["thingTypeName"])
        await self.work.run(lambda tx: self.types.delete(tx, caller.place, name))
        return {}

    @operation("iot", "ListThingTypes")
    async def list_thing_types(self, caller: Caller, request: Request) -> Members:
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = None if position is None else position[0]
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        name = request.get("thingTypeName")
        rows = await self.work.read(lambda tx: self.types.page(tx, caller.account, name=name, after=after, limit=limit + 1))
        page, token = cut(rows, limit, lambda row: (row.name,))
        return {"thingTypes": [_definition(caller, row) for row in page], "nextToken": token}


def _settings(request: Request) -> TypeSettings:
    properties: Mapping[str, Any] = request.get("thingTypeProperties", {})
    searchable: Sequence[str] | None = properties.get("searchableAttributes")
    configuration: Mapping[str, Any] = properties.get("mqtt5Configuration", {})
    propagating: Sequence[Mapping[str, str]] | None = configuration.get("propagatingAttributes")
    return TypeSettings(
        description=properties.get("thingTypeDescription"),
        searchable_attributes=None if searchable is None else tuple(searchable),
        propagating_attributes=None if propagating is None else tuple(dict(item) for item in propagating),
    )


def _definition(caller: Caller, thing_type: ThingType) -> dict[str, Any]:
    properties: dict[str, Any] = {"searchableAttributes": list(thing_type.searchable_attributes)}
    if thing_type.description:
        properties["thingTypeDescription"] = thing_type.description
    if thing_type.propagating_attributes:
        properties["mqtt5Configuration"] = {"propagatingAttributes": [dict(i) for i in thing_type.propagating_attributes]}
    return {
        "thingTypeName": thing_type.name,
        "thingTypeArn": caller.place.iot(KIND, thing_type.name),
        "thingTypeProperties": properties,
        "thingTypeMetadata": {
            "deprecated": thing_type.deprecated_at is not None,
            "deprecationDate": thing_type.deprecated_at,
            "creationDate": thing_type.created_at,
        },
    }
