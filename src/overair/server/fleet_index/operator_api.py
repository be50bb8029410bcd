"""The operator's door to the fleet index (service ``iot``): configuration, searches, aggregates, dynamic groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from overair.basics.errors import InvalidRequest
from overair.basics.ids import GroupName
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import cut, page_token, read_page_token
from overair.server.devices.thing_groups import KIND, GroupSettings, ThingGroupsService
from overair.server.fleet_index.dynamic_groups import checked_version
from overair.server.fleet_index.fields import ATTRIBUTES, PACKAGE_SHADOW, Index, index_named, package_of
from overair.server.fleet_index.model import Found, Phase, Statistics
from overair.server.fleet_index.service import FleetIndexService, Question
from overair.server.fleet_index.settings_messages import described, read_configuration

RESULTS_DEFAULT: Final = 100
RESULTS_MAX: Final = 500
BUCKETS_DEFAULT: Final = 10
SCHEMA: Final = "REGISTRY"
_STATUS: Final = {
    Phase.EMPTYING: "BUILDING",
    Phase.BUILDING: "BUILDING",
    Phase.REBUILDING: "REBUILDING",
    Phase.ACTIVE: "ACTIVE",
}


class FleetIndexOperatorApi:
    """Searches over the fleet, and groups that follow them."""

    def __init__(self, *, work: Work, fleet: FleetIndexService, groups: ThingGroupsService) -> None:
        self.work = work
        self.fleet = fleet
        self.groups = groups

    # Configuration --------------------------------------------------------------------------------------------------------

    @operation("iot", "UpdateIndexingConfiguration")
    async def update_indexing_configuration(self, caller: Caller, request: Request) -> Members:
        configurations = self.fleet.configurations
        await self.work.run(
            lambda tx: configurations.change(
                tx, caller.account, read_configuration(request, configurations.of(tx, caller.account))
            )
        )
        return {}

    @operation("iot", "GetIndexingConfiguration")
    async def get_indexing_configuration(self, caller: Caller, request: Request) -> Members:
        configuration = await self.work.read(lambda tx: self.fleet.configurations.of(tx, caller.account))
        return described(configuration)

    @operation("iot", "ListIndices")
    async def list_indices(self, caller: Caller, request: Request) -> Members:
        position = read_page_token(request.get("nextToken"), tuple[str])
        indices = await self.work.read(lambda tx: self.fleet.configurations.indices(tx, caller.account))
        names = sorted(index.value for index in indices if position is None or index.value > position[0])
        page, token = cut(names, request.get("maxResults", RESULTS_DEFAULT), lambda name: (name,))
        return {"indexNames": list(page), "nextToken": token}

    @operation("iot", "DescribeIndex")
    async def describe_index(self, caller: Caller, request: Request) -> Members:
        index = index_named(request["indexName"])
        configurations = self.fleet.configurations
        state, configuration = await self.work.read(
            lambda tx: (configurations.state(tx, caller.account, index), configurations.of(tx, caller.account))
        )
        connected = index is Index.THINGS and configuration.connectivity
        schema = "THING_GROUPS" if index is Index.GROUPS else f"{SCHEMA}_AND_CONNECTIVITY_STATUS" if connected else SCHEMA
        if index is Index.THINGS and configuration.packages:
            schema = "MULTI_INDEXING_MODE"
        return {"indexName": index.value, "indexStatus": _STATUS[state.phase], "schema": schema}

    # Searches -------------------------------------------------------------------------------------------------------------

    @operation("iot", "SearchIndex")
    async def search_index(self, caller: Caller, request: Request) -> Members:
        question = _question(caller, request)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after, limit = "" if position is None else position[0], min(request.get("maxResults", RESULTS_DEFAULT), RESULTS_MAX)

        found, has_more = await self.work.read(lambda tx: self.fleet.searches.search(tx, question, after=after, limit=limit))
        token = page_token((found[-1].name,)) if has_more else None
        if question.index is Index.THINGS:
            return {"things": [_thing(each) for each in found], "nextToken": token}
        # The index holds a description's words; the text is the registry's.
        described = await self.work.read(
            lambda tx: {
                each.name: self.groups.find(tx, caller.account, GroupName(each.name)).description
                for each in found
                if self.groups.has(tx, caller.account, GroupName(each.name))
            }
        )
        return {"thingGroups": [_group(each, described.get(each.name)) for each in found], "nextToken": token}

    @operation("iot", "GetStatistics")
    async def get_statistics(self, caller: Caller, request: Request) -> Members:
        question, field = _question(caller, request), request.get("aggregationField")
        found = await self.work.read(lambda tx: self.fleet.searches.statistics(tx, question, field))
        return {"statistics": _statistics(found)}

    @operation("iot", "GetCardinality")
    async def get_cardinality(self, caller: Caller, request: Request) -> Members:
        question, field = _question(caller, request), request.get("aggregationField")
        return {"cardinality": await self.work.read(lambda tx: self.fleet.searches.cardinality(tx, question, field))}

    @operation("iot", "GetPercentiles")
    async def get_percentiles(self, caller: Caller, request: Request) -> Members:
        question, field, percents = _question(caller, request), request.get("aggregationField"), request.get("percents")
        found = await self.work.read(lambda tx: self.fleet.searches.percentiles(tx, question, field, percents))
        return {"percentiles": [{"percent": percent, "value": value} for percent, value in found]}

    @operation("iot", "GetBucketsAggregation")
    async def get_buckets_aggregation(self, caller: Caller, request: Request) -> Members:
        question, field = _question(caller, request), request["aggregationField"]
        terms = request["bucketsAggregationType"].get("termsAggregation")
        if terms is None:
            raise InvalidRequest("bucketsAggregationType needs termsAggregation.", subject="aggregation")
        limit = terms.get("maxBuckets", BUCKETS_DEFAULT)
        total, buckets = await self.work.read(lambda tx: self.fleet.searches.buckets(tx, question, field, limit=limit))
        return {"totalCount": total, "buckets": [{"keyValue": value, "count": count} for value, count in buckets]}

    # Dynamic groups -------------------------------------------------------------------------------------------------------

    @operation("iot", "CreateDynamicThingGroup")
    async def create_dynamic_thing_group(self, caller: Caller, request: Request) -> Members:
        name, settings = GroupName(request["thingGroupName"]), _settings(request)
        tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())}
        made = await self.work.run(
            lambda tx: self.fleet.dynamic.create(
                tx,
                caller.place,
                name,
                query=request["queryString"],
                index_name=request.get("indexName"),
                version=request.get("queryVersion"),
                settings=settings,
                tags=tags,
            )
        )
        assert made.dynamic is not None
        return {
            "thingGroupName": made.name,
            "thingGroupArn": caller.place.iot(KIND, made.name),
            "thingGroupId": made.id,
            "indexName": made.dynamic.index_name,
            "queryString": made.dynamic.text,
            "queryVersion": made.dynamic.version,
        }

    @operation("iot", "UpdateDynamicThingGroup")
    async def update_dynamic_thing_group(self, caller: Caller, request: Request) -> Members:
        name, settings = GroupName(request["thingGroupName"]), _settings(request)
        changed = await self.work.run(
            lambda tx: self.fleet.dynamic.update(
                tx,
                caller.account,
                name,
                settings=settings,
                query=request.get("queryString"),
                index_name=request.get("indexName"),
                version=request.get("queryVersion"),
                expected_version=request.get("expectedVersion"),
            )
        )
        return {"version": changed.version}

    @operation("iot", "DeleteDynamicThingGroup")
    async def delete_dynamic_thing_group(self, caller: Caller, request: Request) -> Members:
        name, expected = GroupName(request["thingGroupName"]), request.get("expectedVersion")
        await self.work.run(lambda tx: self.fleet.dynamic.delete(tx, caller.place, name, expected_version=expected))
        return {}


def _question(caller: Caller, request: Request) -> Question:
    checked_version(request.get("queryVersion"))
    return Question(account=caller.account, index=index_named(request.get("indexName")), text=request["queryString"])


def _settings(request: Request) -> GroupSettings:
    properties: Mapping[str, Any] = request.get("thingGroupProperties", {})
    payload: Mapping[str, Any] = properties.get("attributePayload", {})
    return GroupSettings(
        description=properties.get("thingGroupDescription"),
        attributes=payload.get("attributes"),
        merge=payload.get("merge", False),
    )


def _thing(found: Found) -> dict[str, Any]:
    thing: dict[str, Any] = {
        "thingName": found.name,
        "thingId": found.value("thingId"),
        "thingTypeName": found.value("thingTypeName"),
        "thingGroupNames": found.values("thingGroupNames") or None,
        "attributes": found.below(ATTRIBUTES) or None,
    }
    if (connected := found.value("connectivity.connected")) is not None:
        connectivity: dict[str, Any] = {"connected": connected == "true"}
        if (timestamp := found.value("connectivity.timestamp")) is not None:
            connectivity["timestamp"] = int(timestamp)
        if (reason := found.value("connectivity.disconnectReason")) is not None:
            connectivity["disconnectReason"] = reason
        thing["connectivity"] = connectivity
    versions = {package: {"version": shown} for name, shown in found.entries if (package := package_of(name)) is not None}
    if versions:
        shadow = {"name": {PACKAGE_SHADOW: {"reported": versions, "hasDelta": False}}}
        thing["shadow"] = msgspec.json.encode(shadow).decode()
    return {name: value for name, value in thing.items() if value is not None}


def _group(found: Found, description: str | None) -> dict[str, Any]:
    group = {
        "thingGroupName": found.name,
        "thingGroupId": found.value("thingGroupId"),
        "thingGroupDescription": description or None,
        "attributes": found.below(ATTRIBUTES) or None,
        "parentGroupNames": found.values("parentGroupNames") or None,
    }
    return {name: value for name, value in group.items() if value is not None}


def _statistics(found: Statistics) -> dict[str, Any]:
    members = {
        "count": found.count,
        "average": found.average,
        "sum": found.total,
        "minimum": found.minimum,
        "maximum": found.maximum,
        "sumOfSquares": found.sum_of_squares,
        "variance": found.variance,
        "stdDeviation": None if found.variance is None else math.sqrt(found.variance),
    }
    return {name: value for name, value in members.items() if value is not None}
