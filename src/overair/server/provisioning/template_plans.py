"""What a provisioning template comes to for one device: a thing, a certificate, policies. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

from overair.server.provisioning.template_functions import Scope, unresolved


class Override(Enum):
    """What becomes of something that is there already."""

    DO_NOTHING = "DO_NOTHING"
    REPLACE = "REPLACE"
    FAIL = "FAIL"
    MERGE = "MERGE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingPlan:
    """The thing that a template wants for one device."""

    logical_name: str
    name: str
    type_name: str | None
    attributes: Mapping[str, str] | None
    groups: tuple[str, ...] | None
    principal_type: str
    """How the certificate is attached to it: ``EXCLUSIVE_THING`` or ``NON_EXCLUSIVE_THING``."""
    overrides: Mapping[str, Override]
    """By property; empty where the template doesn't say what happens to a thing that is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePlan:
    """The certificate: named, asked for, or shown. Exactly one of the three is there."""

    logical_name: str
    certificate_id: str | None
    signing_request: str | None
    pem: str | None
    authority_pem: str | None
    status: str
    status_override: Override


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPlan:
    """A policy that the certificate gets: by name, or by a document that makes one."""

    logical_name: str
    name: str | None
    document: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A template, worked out."""

    thing: ThingPlan | None
    certificate: CertificatePlan | None
    policies: tuple[PolicyPlan, ...]
    device_configuration: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a template, its values not yet worked out."""

    logical_name: str
    kind: str
    properties: Mapping[str, object]
    overrides: Mapping[str, Override]


_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_ATTRIBUTE: Final = re.compile(r"[a-zA-Z0-9_.,@/:#-]{1,128}")
_ATTRIBUTE_VALUE: Final = re.compile(r"[a-zA-Z0-9_.,@/:#=\[\]-]{0,800}")
_POLICY_NAME: Final = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
_PRINCIPAL_TYPE: Final = re.compile(r"(NON_)?EXCLUSIVE_THING")
_CERTIFICATE_ID: Final = re.compile(r"[a-f0-9]{64}")


def _held_to(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise unresolved(f"{value[:140]!r} can't be {what}: it must match {pattern.pattern}.")
    return value


def thing_plan(resource: Resource, scope: Scope) -> ThingPlan:
    given, where = resource.properties, resource.logical_name
    attributes: dict[str, str] | None = None
    if "AttributePayload" in given:
        payload = scope.evaluate(given["AttributePayload"])
        if isinstance(payload, dict) and payload.keys() == {"attributes"} and isinstance(payload["attributes"], dict):
            payload = payload["attributes"]
        if not isinstance(payload, dict):
            raise unresolved(f"{where}.AttributePayload must come to an object.")
        attributes = {}
        for key, value in payload.items():
            if not isinstance(value, str):
                raise unresolved(f"{where}.AttributePayload.{key[:100]} must come to a text.")
            attributes[_held_to(_ATTRIBUTE, key, "an attribute's name")] = _held_to(
                _ATTRIBUTE_VALUE, value, "an attribute's value"
            )
    type_name, groups = given.get("ThingTypeName"), given.get("ThingGroups")
    return ThingPlan(
        logical_name=where,
        name=_held_to(_NAME, scope.text(given["ThingName"], f"{where}.ThingName"), "a thing's name"),
        type_name=None
        if type_name is None
        else _held_to(_NAME, scope.text(type_name, f"{where}.ThingTypeName"), "a thing type's name"),
        attributes=attributes,
        groups=None
        if groups is None
        else tuple(_held_to(_NAME, each, "a group's name") for each in scope.texts(groups, f"{where}.ThingGroups")),
        principal_type=_held_to(
            _PRINCIPAL_TYPE,
            scope.text(given.get("ThingPrincipalType", "NON_EXCLUSIVE_THING"), f"{where}.ThingPrincipalType"),
            "a thing principal's type",
        ),
        overrides=resource.overrides,
    )


def certificate_plan(resource: Resource, scope: Scope) -> CertificatePlan:
    given, where = resource.properties, resource.logical_name

    def text(name: str) -> str | None:
        return scope.text(given[name], f"{where}.{name}") if name in given else None

    status = (text("Status") or "ACTIVE").upper()
    if status not in ("ACTIVE", "INACTIVE"):
        raise unresolved(f"{where}.Status is {status[:40]!r}; ACTIVE and INACTIVE may stand there.")
    identity = text("CertificateId")
    return CertificatePlan(
        logical_name=where,
        certificate_id=None if identity is None else _held_to(_CERTIFICATE_ID, identity, "a certificate id"),
        signing_request=text("CertificateSigningRequest"),
        pem=text("CertificatePem"),
        authority_pem=text("CACertificatePem"),
        status=status,
        status_override=resource.overrides.get("Status", Override.DO_NOTHING),
    )


def policy_plan(resource: Resource, scope: Scope) -> PolicyPlan:
    given, where = resource.properties, resource.logical_name
    document: str | None = None
    if "PolicyDocument" in given:
        value = scope.evaluate(given["PolicyDocument"])
        document = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    name = None
    if "PolicyName" in given:
        name = _held_to(_POLICY_NAME, scope.text(given["PolicyName"], f"{where}.PolicyName"), "a policy's name")
    return PolicyPlan(logical_name=where, name=name, document=document)
