"""The operator's door to things and what is attached to them (service ``iot``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from overair.basics.errors import InvalidRequest, NotFound, Unsupported
from overair.basics.ids import ThingName, ThingTypeName
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.devices.model import Thing, ThingPrincipal, ThingPrincipalType, ThingQuery
from overair.server.devices.service import DevicesService, ThingUpdate

JOBS: Final = "iot:Jobs"
ENDPOINT_TYPES: Final = frozenset({"iot:Data", "iot:Data-ATS", "iot:Data-Beta", JOBS})
ENDPOINT_TYPES_ABSENT: Final = frozenset({"iot:CredentialProvider", "iot:DeviceAdvisor"})
"""Real endpoints of AWS behind which Overair has nothing."""


class DevicesOperatorApi:
    """Things, their certificates, and DescribeEndpoint."""

    def __init__(
        self, *, work: Work, devices: DevicesService, endpoint_host: str, jobs_address: Callable[[], str] | None = None
    ) -> None:
        self.work = work
        self.devices = devices
        self.endpoint_host = endpoint_host
        """A bare host name: no scheme, no port (wire reference §10.1)."""
        self._jobs_address = jobs_address or (lambda: endpoint_host)
        """Of the jobs' data plane: clients put ``https://`` before it and know no port of their own, so it has one."""

    @operation("iot", "DescribeEndpoint")
    async def describe_endpoint(self, caller: Caller, request: Request) -> Members:
        endpoint_type = request.get("endpointType", "iot:Data")
        if endpoint_type in ENDPOINT_TYPES_ABSENT:
            raise Unsupported(f"Overair has no endpoint of type {endpoint_type}.", subject="operation")
        if endpoint_type not in ENDPOINT_TYPES:
            raise InvalidRequest(
                f"The endpoint type {endpoint_type[:100]!r} is not known. Use one of {', '.join(sorted(ENDPOINT_TYPES))}.",
                subject="endpoint",
            )
        return {"endpointAddress": self._jobs_address() if endpoint_type == JOBS else self.endpoint_host}

    @operation("iot", "CreateThing")
    async def create_thing(self, caller: Caller, request: Request) -> Members:
        _refuse_billing_group(request)
        type_name = request.get("thingTypeName")
        attributes = _attributes(request)
        thing = await self.work.run(
            lambda tx: self.devices.create(
                tx, caller.place, ThingName(request["thingName"]), type_name=type_name, attributes=attributes
            )
        )
        return {"thingName": thing.name, "thingArn": caller.place.iot("thing", thing.name), "thingId": thing.id}

    @operation("iot", "DescribeThing")
    async def describe_thing(self, caller: Caller, request: Request) -> Members:
        name = ThingName(request["thingName"])
        thing = await self.work.read(lambda tx: self.devices.find(tx, caller.account, name))
        return {"defaultClientId": thing.name, "thingId": thing.id, **_thing(caller, thing)}

    @operation("iot", "UpdateThing")
    async def update_thing(self, caller: Caller, request: Request) -> Members:
        payload: Mapping[str, Any] = request.get("attributePayload", {})
        type_name = request.get("thingTypeName")
        change = ThingUpdate(
            type_name=None if type_name is None else ThingTypeName(type_name),
            remove_type=request.get("removeThingType", False),
            attributes=payload.get("attributes"),
            merge=payload.get("merge", False),
            expected_version=request.get("expectedVersion"),
        )
        name = ThingName(request["thingName"])
        await self.work.run(lambda tx: self.devices.update(tx, caller.account, name, change))
        return {}

    @operation("iot", "DeleteThing")
    async def delete_thing(self, caller: Caller, request: Request) -> Members:
        name, expected = ThingName(request["thingName"]), request.get("expectedVersion")
        await self.work.run(lambda tx: self.devices.delete(tx, caller.account, name, expected_version=expected))
        return {}

    @operation("iot", "ListThings")
    async def list_things(self, caller: Caller, request: Request) -> Members:
        query = ThingQuery(
            attribute_name=request.get("attributeName"),
            attribute_value=request.get("attributeValue"),
            value_is_prefix=request.get("usePrefixAttributeValue", False),
            type_name=request.get("thingTypeName"),
        )
        if query.attribute_value is not None and query.attribute_name is None:
            raise InvalidRequest("attributeValue needs an attributeName beside it.", subject="attributes")
        after, limit = _after(request)
        rows = await self.work.read(lambda tx: self.devices.page(tx, caller.account, query, after=after, limit=limit + 1))
        page, token = cut(rows, limit, lambda row: (row.name,))
        return {"things": [_thing(caller, thing) for thing in page], "nextToken": token}

    @operation("iot", "AttachThingPrincipal")
    async def attach_thing_principal(self, caller: Caller, request: Request) -> Members:
        name, principal = ThingName(request["thingName"]), request["principal"]
        type = ThingPrincipalType(request.get("thingPrincipalType", ThingPrincipalType.NON_EXCLUSIVE_THING.value))
        await self.work.run(lambda tx: self.devices.attach(tx, caller.place, name, principal, type))
        return {}

    @operation("iot", "DetachThingPrincipal")
    async def detach_thing_principal(self, caller: Caller, request: Request) -> Members:
        name, principal = ThingName(request["thingName"]), request["principal"]
        await self.work.run(lambda tx: self.devices.detach(tx, caller.place, name, principal))
        return {}

    @operation("iot", "ListThingPrincipals")
    async def list_thing_principals(self, caller: Caller, request: Request) -> Members:
        page, token = await self._principals(caller, request)
        return {"principals": [caller.place.iot("cert", row.certificate) for row in page], "nextToken": token}

    @operation("iot", "ListThingPrincipalsV2")
    async def list_thing_principals_v2(self, caller: Caller, request: Request) -> Members:
        page, token = await self._principals(caller, request)
        objects = [
            {"principal": caller.place.iot("cert", row.certificate), "thingPrincipalType": row.type.value} for row in page
        ]
        return {"thingPrincipalObjects": objects, "nextToken": token}

    @operation("iot", "ListPrincipalThings")
    async def list_principal_things(self, caller: Caller, request: Request) -> Members:
        page, token = await self._things_of_principal(caller, request)
        return {"things": [row.thing for row in page], "nextToken": token}

    @operation("iot", "ListPrincipalThingsV2")
    async def list_principal_things_v2(self, caller: Caller, request: Request) -> Members:
        page, token = await self._things_of_principal(caller, request)
        objects = [{"thingName": row.thing, "thingPrincipalType": row.type.value} for row in page]
        return {"principalThingObjects": objects, "nextToken": token}

    async def _principals(self, caller: Caller, request: Request) -> tuple[Sequence[ThingPrincipal], str | None]:
        name, wanted = ThingName(request["thingName"]), _principal_type(request)
        after, limit = _after(request)
        rows = await self.work.read(
            lambda tx: self.devices.principals(tx, caller.account, name, type=wanted, after=after, limit=limit + 1)
        )
        return cut(rows, limit, lambda row: (row.certificate,))

    async def _things_of_principal(self, caller: Caller, request: Request) -> tuple[Sequence[ThingPrincipal], str | None]:
        principal, wanted = request["principal"], _principal_type(request)
        after, limit = _after(request)
        rows = await self.work.read(
            lambda tx: self.devices.things_of_principal(tx, caller.place, principal, type=wanted, after=after, limit=limit + 1)
        )
        return cut(rows, limit, lambda row: (row.thing,))


def _after(request: Request) -> tuple[str | None, int]:
    """(name after which the page begins, its size) of the lists that go by ``nextToken`` and ``maxResults``."""
    position = read_page_token(request.get("nextToken"), tuple[str])
    return None if position is None else position[0], request.get("maxResults", PAGE_SIZE_DEFAULT)


def _principal_type(request: Request) -> ThingPrincipalType | None:
    wanted = request.get("thingPrincipalType")
    return None if wanted is None else ThingPrincipalType(wanted)


def _attributes(request: Request) -> Mapping[str, str]:
    payload: Mapping[str, Any] = request.get("attributePayload", {})
    attributes: Mapping[str, str] = payload.get("attributes", {})
    return attributes


def _refuse_billing_group(request: Request) -> None:
    if "billingGroupName" in request:
        raise NotFound(
            f"Billing group {request['billingGroupName']} not found: Overair has no billing groups. Leave it out.",
            subject="billing-group",
        )


def _thing(caller: Caller, thing: Thing) -> dict[str, Any]:
    return {
        "thingName": thing.name,
        "thingArn": caller.place.iot("thing", thing.name),
        "thingTypeName": thing.type_name,
        "attributes": dict(thing.attributes),
        "version": thing.version,
    }
