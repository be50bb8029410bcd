"""The indexing configuration as the wire has it. What of AWS's index isn't here is refused by name. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from overair.basics.errors import InvalidRequest
from overair.server.fleet_index.fields import (
    ATTRIBUTES,
    EVERY_JOB,
    FIELD_LENGTH_MAX,
    JOBS,
    PACKAGE_SHADOW,
    Field,
    FieldType,
    Index,
    package_field,
    package_of,
)
from overair.server.fleet_index.model import CUSTOM_FIELDS_MAX, Configuration


def read_configuration(request: Mapping[str, Any], standing: Configuration) -> Configuration:
    """The configuration that an UpdateIndexingConfiguration asks for; of what it doesn't speak stays as it is.

    Raises:
        InvalidRequest: it asks for what isn't here, or contradicts itself. Subject ``index``.
    """
    wanted = standing
    if (things := request.get("thingIndexingConfiguration")) is not None:
        wanted = _things(things, wanted)
    if (groups := request.get("thingGroupIndexingConfiguration")) is not None:
        is_on = groups["thingGroupIndexingMode"] == "ON"
        fields = _custom(groups.get("customFields", ()), Index.GROUPS)
        if fields and not is_on:
            raise _refused("customFields of groups need thingGroupIndexingMode ON.")
        wanted = replace(wanted, groups=is_on, group_fields=fields)
    return wanted


def described(configuration: Configuration) -> dict[str, Any]:
    """The answer to GetIndexingConfiguration."""
    things: dict[str, Any] = {
        "thingIndexingMode": "REGISTRY" if configuration.things else "OFF",
        "thingConnectivityIndexingMode": "STATUS" if configuration.connectivity else "OFF",
        "deviceDefenderIndexingMode": "OFF",
        "namedShadowIndexingMode": "ON" if configuration.packages else "OFF",
    }
    if configuration.packages:
        things["filter"] = {"namedShadowNames": [PACKAGE_SHADOW]}
    groups: dict[str, Any] = {"thingGroupIndexingMode": "ON" if configuration.groups else "OFF"}
    for members, index in ((things, Index.THINGS), (groups, Index.GROUPS)):
        if configuration.has(index):
            members["managedFields"] = _shown(configuration.managed(index))
            members["customFields"] = _shown(configuration.custom(index))
    return {"thingIndexingConfiguration": things, "thingGroupIndexingConfiguration": groups}


def _things(members: Mapping[str, Any], standing: Configuration) -> Configuration:
    mode = members["thingIndexingMode"]
    for member, value, reason in (
        ("thingIndexingMode", "REGISTRY_AND_SHADOW", "there are no device shadows here; REGISTRY indexes all there is"),
        ("deviceDefenderIndexingMode", "VIOLATIONS", "there is no Device Defender here"),
    ):
        if members.get(member) == value:
            raise _refused(f"{member} {value} isn't supported: {reason}.")
    for member, reason in (
        ("geoLocations", "places aren't indexed"),
        ("connectivity", "sockets aren't described here"),
    ):
        if members.get("filter", {}).get(member):
            raise _refused(f"filter.{member} isn't supported: {reason}.")
    packages = members.get("namedShadowIndexingMode") == "ON"
    if (members.get("filter", {}).get("namedShadowNames") or []) != ([PACKAGE_SHADOW] if packages else []):
        raise _refused(
            f"There are no device shadows here but {PACKAGE_SHADOW}, what jobs have put on a thing: namedShadowIndexingMode ON "
            f"takes filter.namedShadowNames with {PACKAGE_SHADOW} alone, and the filter takes the mode."
        )
    connectivity = members.get("thingConnectivityIndexingMode") == "STATUS"
    fields = _custom(members.get("customFields", ()), Index.THINGS)
    if mode == "OFF" and (connectivity or fields or packages):
        raise _refused(
            "thingConnectivityIndexingMode STATUS, namedShadowIndexingMode ON and customFields need thingIndexingMode REGISTRY."
        )
    if not packages and (named := next((field.name for field in fields if package_of(field.name) is not None), None)):
        raise _refused(f"The custom field {named[:64]} needs namedShadowIndexingMode ON.")
    return replace(standing, things=mode != "OFF", connectivity=connectivity, packages=packages, fields=fields)


def _custom(members: Sequence[Mapping[str, Any]], index: Index) -> tuple[Field, ...]:
    if len(members) > CUSTOM_FIELDS_MAX:
        raise _refused(f"At most {CUSTOM_FIELDS_MAX} custom fields are indexed.")
    fields: list[Field] = []
    for member in members:
        name, kind = member.get("name", ""), member.get("type")
        if kind is None or not name:
            raise _refused("A custom field has a name and a type.")
        if len(name) > FIELD_LENGTH_MAX or "\0" in name:
            raise _refused(f"The custom field {name[:64]!r} has a name that no field has.")
        is_attribute = name.startswith(ATTRIBUTES) and name != ATTRIBUTES
        is_job = index is Index.THINGS and name.startswith(JOBS) and name != JOBS
        is_package = index is Index.THINGS and package_of(name) is not None
        if not is_attribute and not is_job and not is_package:
            versions = package_field("NAME")
            allowed = (
                f"attributes.NAME, jobs.JOB_ID, {EVERY_JOB} and {versions}" if index is Index.THINGS else "attributes.NAME"
            )
            raise _refused(f"{name[:64]} can't be a custom field: these are {allowed}.")
        if is_job and kind != FieldType.STRING.value:
            raise _refused(f"{name[:64]} is of type String: it holds a job execution's status.")
        if is_package and kind != FieldType.STRING.value:
            raise _refused(f"{name[:64]} is of type String: it holds a version's name.")
        if any(field.name == name for field in fields):
            raise _refused(f"The custom field {name[:64]} is given twice.")
        fields.append(Field(name, FieldType(kind)))
    return tuple(fields)


def _shown(fields: Sequence[Field]) -> list[dict[str, str]]:
    return [{"name": field.name, "type": field.type.value} for field in fields]


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, subject="index")
