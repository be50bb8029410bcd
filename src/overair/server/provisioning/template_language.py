"""The language of provisioning templates (wire reference §9.2): read once, then worked out for one device's parameters.

A template has parameters, mappings, resources (one thing, one certificate, policies) and a device configuration. Values are
text, ``Ref`` or one of ``Fn::Join``, ``Fn::Select``, ``Fn::FindInMap``, ``Fn::Split`` and ``Fn::Sub``. There are no loops and
every intermediate value is bounded, so a template costs little whatever stands in it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import msgspec

from overair.basics.errors import InvalidRequest
from overair.wire import strict_json

BODY_SIZE_BYTES_MAX: Final = 10_240
DEPTH_MAX: Final = 16
TEXT_LENGTH_MAX: Final = 65_536
"""Of any value that comes about while a template is worked out: a certificate's PEM may be one."""
PARAMETERS_MAX: Final = 100
POLICIES_MAX: Final = 10

CERTIFICATE_ID: Final = "AWS::IoT::Certificate::Id"
SUBJECT_PARAMETERS: Final = tuple(
    f"AWS::IoT::Certificate::{name}"
    for name in (
        "Country",
        "Organization",
        "OrganizationalUnit",
        "DistinguishedNameQualifier",
        "StateName",
        "CommonName",
        "SerialNumber",
    )
)
PSEUDO_PARAMETERS: Final = frozenset({CERTIFICATE_ID, *SUBJECT_PARAMETERS})
"""Given by the server alone: a device's own parameters of these names count for nothing."""

_THING: Final = "AWS::IoT::Thing"
_CERTIFICATE: Final = "AWS::IoT::Certificate"
_POLICY: Final = "AWS::IoT::Policy"
_SUBSTITUTION: Final = re.compile(r"\$\{(!?)([^}]*)\}")

Value = str | list["Value"] | dict[str, "Value"]


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
class _Resource:
    logical_name: str
    kind: str
    properties: Mapping[str, object]
    overrides: Mapping[str, Override]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template that was found well-formed."""

    defaults: Mapping[str, str | None]
    """Every declared parameter; None: it has no default."""
    mappings: Mapping[str, Mapping[str, Mapping[str, Value]]]
    resources: tuple[_Resource, ...]
    device_configuration: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls, body: str) -> Template:
        """Read a template's body and check everything that doesn't depend on a device.

        Raises:
            InvalidRequest: subject ``template``; the message names the place and the rule.
        """
        try:
            document = strict_json.decode_object(
                body.encode("utf-8", "replace"), size_bytes_max=BODY_SIZE_BYTES_MAX, depth_max=DEPTH_MAX
            )
        except strict_json.MalformedJson as broken:
            raise _refused(f"The template body can't be read. {broken}") from None
        _only(document, "template", {"Parameters", "Mappings", "Resources", "DeviceConfiguration"})
        defaults = _parameters(_map(document.get("Parameters", {}), "Parameters"))
        mappings = _mappings(_map(document.get("Mappings", {}), "Mappings"))
        resources = tuple(
            _resource(name, _map(given, f"Resources.{name}"))
            for name, given in _map(document.get("Resources", {}), "Resources").items()
        )
        if not resources:
            raise _refused("The template has no Resources. Give a thing, a certificate or a policy.")
        for kind, most in ((_THING, 1), (_CERTIFICATE, 1), (_POLICY, POLICIES_MAX)):
            if sum(resource.kind == kind for resource in resources) > most:
                raise _refused(f"A template has at most {most} resource{'s' * (most > 1)} of type {kind}.")
        configuration = _map(document.get("DeviceConfiguration", {}), "DeviceConfiguration")
        template = cls(defaults=defaults, mappings=mappings, resources=resources, device_configuration=configuration)
        known = template.defaults.keys() | PSEUDO_PARAMETERS
        for resource in resources:
            _check(resource.properties, f"Resources.{resource.logical_name}", known)
        _check(configuration, "DeviceConfiguration", known)
        return template

    @property
    def names_only_its_own_certificate(self) -> bool:
        """Whether its certificate is the one that the server gave, by ``{"Ref": "AWS::IoT::Certificate::Id"}``: what fleet and
        just-in-time provisioning demand, lest a device name somebody else's."""
        return any(
            resource.kind == _CERTIFICATE
            and resource.properties.get("CertificateId") == {"Ref": CERTIFICATE_ID}
            and not resource.properties.keys() & {"CertificateSigningRequest", "CertificatePem", "CACertificatePem"}
            for resource in self.resources
        )

    @property
    def makes_a_thing(self) -> bool:
        """Whether there is a thing in it."""
        return any(resource.kind == _THING for resource in self.resources)

    def resolve(self, parameters: Mapping[str, str]) -> Plan:
        """Work the template out.

        Raises:
            InvalidRequest: a parameter is missing, or a value can't be worked out. Subject ``parameters``.
        """
        values = {name: default for name, default in self.defaults.items() if default is not None}
        values |= {name: value for name, value in parameters.items() if name in self.defaults or name in PSEUDO_PARAMETERS}
        missing = sorted(self.defaults.keys() - values.keys())
        if missing:
            raise InvalidRequest(f"Missing required parameters: {', '.join(missing)[:500]}.", subject="parameters")
        scope = _Scope(values, self.mappings)
        thing: ThingPlan | None = None
        certificate: CertificatePlan | None = None
        policies: list[PolicyPlan] = []
        for resource in self.resources:
            if resource.kind == _THING:
                thing = _thing(resource, scope)
            elif resource.kind == _CERTIFICATE:
                certificate = _certificate(resource, scope)
            else:
                policies.append(_policy(resource, scope))
        configuration = {
            key: scope.text(value, f"DeviceConfiguration.{key}") for key, value in self.device_configuration.items()
        }
        return Plan(thing=thing, certificate=certificate, policies=tuple(policies), device_configuration=configuration)


# Reading --------------------------------------------------------------------------------------------------------------------


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, subject="template")


def _unresolved(message: str) -> InvalidRequest:
    return InvalidRequest(message, subject="parameters")


def _map(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _refused(f"{where} in the template must be a JSON object.")
    return value


def _only(given: Mapping[str, object], where: str, allowed: set[str]) -> None:
    unknown = sorted(given.keys() - allowed)
    if unknown:
        raise _refused(f"{where} has the unknown member {unknown[0][:100]!r}. Known are {', '.join(sorted(allowed))}.")


def _parameters(given: Mapping[str, object]) -> dict[str, str | None]:
    if len(given) > PARAMETERS_MAX:
        raise _refused(f"A template has at most {PARAMETERS_MAX} parameters.")
    defaults: dict[str, str | None] = {}
    for name, declared in given.items():
        declaration = _map(declared, f"Parameters.{name}")
        _only(declaration, f"Parameters.{name}", {"Type", "Default"})
        default = declaration.get("Default")
        if declaration.get("Type") != "String" or not isinstance(default, str | None):
            raise _refused(f'Parameters.{name} must have "Type": "String", and its Default, if it has one, must be text.')
        # What the certificate says is no device's to choose, and has no default.
        defaults[name] = None if name in PSEUDO_PARAMETERS else default
    return defaults


def _mappings(given: Mapping[str, object]) -> dict[str, dict[str, dict[str, Value]]]:
    read: dict[str, dict[str, dict[str, Value]]] = {}
    for name, mapping in given.items():
        read[name] = {}
        for first, inner in _map(mapping, f"Mappings.{name}").items():
            read[name][first] = {}
            for second, value in _map(inner, f"Mappings.{name}.{first}").items():
                if isinstance(value, str):
                    read[name][first][second] = value
                elif isinstance(value, list) and all(isinstance(each, str) for each in value):
                    read[name][first][second] = list(value)
                else:
                    raise _refused(f"Mappings.{name}.{first}.{second} must be text or a list of texts.")
    return read


_PROPERTIES: Final[Mapping[str, set[str]]] = {
    _THING: {"ThingName", "AttributePayload", "ThingTypeName", "ThingGroups"},
    _CERTIFICATE: {"CertificateId", "CertificateSigningRequest", "CertificatePem", "CACertificatePem", "Status"},
    _POLICY: {"PolicyName", "PolicyDocument"},
}
_PLAIN: Final = {Override.DO_NOTHING, Override.REPLACE, Override.FAIL}
_OVERRIDES: Final[Mapping[str, Mapping[str, set[Override]]]] = {
    _THING: {"AttributePayload": set(Override), "ThingTypeName": _PLAIN, "ThingGroups": set(Override)},
    _CERTIFICATE: {"Status": _PLAIN},
    _POLICY: {},
}


def _resource(name: str, given: Mapping[str, object]) -> _Resource:
    where = f"Resources.{name}"
    _only(given, where, {"Type", "Properties", "OverrideSettings"})
    kind = given.get("Type")
    if not isinstance(kind, str) or kind not in _PROPERTIES:
        raise _refused(f"{where} has the type {kind!r:.100}. Known are {', '.join(_PROPERTIES)}.")
    properties = _map(given.get("Properties", {}), f"{where}.Properties")
    if kind == _THING and "BillingGroup" in properties:
        raise _refused(f"{where} names a BillingGroup. Overair has no billing groups: take it out of the template.")
    _only(properties, f"{where}.Properties", _PROPERTIES[kind])
    if kind == _THING and "ThingName" not in properties:
        raise _refused(f"{where}.Properties has no ThingName.")
    if kind == _CERTIFICATE:
        ways = properties.keys() & {"CertificateId", "CertificateSigningRequest", "CertificatePem"}
        if len(ways) != 1:
            raise _refused(f"{where}.Properties must have one of CertificateId, CertificateSigningRequest and CertificatePem.")
        if "CACertificatePem" in properties and "CertificatePem" not in properties:
            raise _refused(f"{where}.Properties has a CACertificatePem, which stands beside a CertificatePem only.")
    if kind == _POLICY and not properties:
        raise _refused(f"{where}.Properties has neither PolicyName nor PolicyDocument.")
    overrides: dict[str, Override] = {}
    for key, value in _map(given.get("OverrideSettings", {}), f"{where}.OverrideSettings").items():
        allowed = _OVERRIDES[kind].get(key, set())
        if not isinstance(value, str) or value not in {each.value for each in allowed}:
            known = ", ".join(sorted(each.value for each in allowed)) or "nothing"
            raise _refused(f"{where}.OverrideSettings.{key} is {value!r:.60}; {known} may stand there.")
        overrides[key] = Override(value)
    return _Resource(name, kind, properties, overrides)


def _check(value: object, where: str, known: set[str]) -> None:
    """Every function is one that we know, in its form, and every Ref names a parameter."""
    if isinstance(value, list):
        for item in value:
            _check(item, where, known)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref" and len(value) == 1:
                if not isinstance(inner, str) or inner not in known:
                    raise _refused(f"{where} refers to {inner!r:.100}, which is no parameter of this template.")
                continue
            if key.startswith("Fn::"):
                if len(value) != 1 or key not in _FUNCTIONS:
                    raise _refused(
                        f"{where} has {key[:60]!r}. Functions are {', '.join(_FUNCTIONS)}, each alone in its object."
                    )
                _check_form(key, inner, where, known)
            _check(inner, where, known)
    elif not isinstance(value, str | bool | int | float | None):
        raise _refused(f"{where} holds a value that can't be read.")


def _check_form(name: str, argument: object, where: str, known: set[str]) -> None:
    sizes = {"Fn::Join": 2, "Fn::Select": 2, "Fn::FindInMap": 3, "Fn::Split": 2}
    if name in sizes and (not isinstance(argument, list) or len(argument) != sizes[name]):
        raise _refused(f"{where}: {name} takes a list of {sizes[name]} values.")
    if name == "Fn::Sub":
        pattern, local = argument, {}
        if isinstance(argument, list):
            if len(argument) != 2 or not isinstance(argument[1], dict):
                raise _refused(f"{where}: Fn::Sub takes a text, or a list of a text and an object.")
            pattern, local = argument
        if not isinstance(pattern, str):
            raise _refused(f"{where}: the first value of Fn::Sub must be text.")
        for literal, variable in _SUBSTITUTION.findall(pattern):
            if not literal and variable not in known and variable not in local:
                raise _refused(
                    f"{where}: Fn::Sub names ${{{variable[:100]}}}, which is no parameter. Write ${{!…}} for the text."
                )


# Working out ----------------------------------------------------------------------------------------------------------------


class _Scope:
    """What a template's names stand for."""

    def __init__(self, values: Mapping[str, str], mappings: Mapping[str, Mapping[str, Mapping[str, Value]]]) -> None:
        self.values = values
        self.mappings = mappings

    def name(self, name: str) -> str:
        try:
            return self.values[name]
        except KeyError:
            raise _unresolved(f"The template needs {name[:100]}, which this certificate or request doesn't have.") from None

    def evaluate(self, value: object) -> Value:
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return [self.evaluate(each) for each in value]
        if isinstance(value, dict):
            if len(value) == 1:
                [(key, inner)] = value.items()
                if key == "Ref" and isinstance(inner, str):
                    return self.name(inner)
                if key in _FUNCTIONS:
                    return _bounded(_FUNCTIONS[key](self, inner))
            return {key: self.evaluate(inner) for key, inner in value.items()}
        return msgspec.json.encode(value).decode()

    def text(self, value: object, where: str) -> str:
        found = self.evaluate(value)
        if not isinstance(found, str):
            raise _unresolved(f"{where} must come to a text.")
        return found

    def texts(self, value: object, where: str) -> list[str]:
        found = self.evaluate(value)
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise _unresolved(f"{where} must come to a list of texts.")
        return [each for each in found if isinstance(each, str)]


def _bounded(value: Value) -> Value:
    size = len(value) if isinstance(value, str) else sum(len(each) for each in value)
    if size > TEXT_LENGTH_MAX:
        raise _unresolved(f"A value of the template comes to more than {TEXT_LENGTH_MAX} characters.")
    return value


def _join(scope: _Scope, argument: object) -> Value:
    delimiter, parts = _arguments(argument)
    return scope.text(delimiter, "The delimiter of Fn::Join").join(scope.texts(parts, "The values of Fn::Join"))


def _select(scope: _Scope, argument: object) -> Value:
    position, choices = _arguments(argument)
    index, found = scope.evaluate(position), scope.texts(choices, "The choices of Fn::Select")
    if not isinstance(index, str) or not index.isascii() or not index.isdigit() or len(index) > 6 or int(index) >= len(found):
        raise _unresolved(f"Number {index!r:.20} of {len(found)} values was asked of Fn::Select; they are counted from 0.")
    return found[int(index)]


def _find_in_map(scope: _Scope, argument: object) -> Value:
    name, first, second = (scope.text(each, "A key of Fn::FindInMap") for each in _arguments(argument))
    try:
        return scope.mappings[name][first][second]
    except KeyError:
        raise _unresolved(f"Fn::FindInMap finds nothing under {name[:60]}, {first[:60]}, {second[:60]}.") from None


def _split(scope: _Scope, argument: object) -> Value:
    delimiter, source = (scope.text(each, "A value of Fn::Split") for each in _arguments(argument))
    if not delimiter:
        raise _unresolved("The delimiter of Fn::Split is empty.")
    return list(scope.text(source, "The source of Fn::Split").split(delimiter))


def _substitute(scope: _Scope, argument: object) -> Value:
    pattern: object = argument
    local: dict[str, str] = {}
    if isinstance(argument, list):
        pattern, given = argument
        local = {name: scope.text(value, f"{name} of Fn::Sub") for name, value in given.items()}
    assert isinstance(pattern, str)  # looked at when the template was read

    length = len(pattern)

    def put(found: re.Match[str]) -> str:
        nonlocal length
        literal, name = found.groups()
        if literal:
            return f"${{{name}}}"
        value = local[name] if name in local else scope.name(name)
        length += len(value)
        if length > TEXT_LENGTH_MAX:
            raise _unresolved(f"Fn::Sub comes to more than {TEXT_LENGTH_MAX} characters.")
        return value

    return _SUBSTITUTION.sub(put, pattern)


def _arguments(argument: object) -> Sequence[object]:
    assert isinstance(argument, list)  # looked at when the template was read
    return argument


_FUNCTIONS: Final[Mapping[str, Callable[[_Scope, object], Value]]] = {
    "Fn::Join": _join,
    "Fn::Select": _select,
    "Fn::FindInMap": _find_in_map,
    "Fn::Split": _split,
    "Fn::Sub": _substitute,
}


# Resources ------------------------------------------------------------------------------------------------------------------

_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_ATTRIBUTE: Final = re.compile(r"[a-zA-Z0-9_.,@/:#-]{1,128}")
_ATTRIBUTE_VALUE: Final = re.compile(r"[a-zA-Z0-9_.,@/:#=\[\]-]{0,800}")
_POLICY_NAME: Final = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
_CERTIFICATE_ID: Final = re.compile(r"[a-f0-9]{64}")


def _held_to(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise _unresolved(f"{value[:140]!r} can't be {what}: it must match {pattern.pattern}.")
    return value


def _thing(resource: _Resource, scope: _Scope) -> ThingPlan:
    given, where = resource.properties, resource.logical_name
    attributes: dict[str, str] | None = None
    if "AttributePayload" in given:
        payload = scope.evaluate(given["AttributePayload"])
        if isinstance(payload, dict) and payload.keys() == {"attributes"} and isinstance(payload["attributes"], dict):
            payload = payload["attributes"]
        if not isinstance(payload, dict):
            raise _unresolved(f"{where}.AttributePayload must come to an object.")
        attributes = {}
        for key, value in payload.items():
            if not isinstance(value, str):
                raise _unresolved(f"{where}.AttributePayload.{key[:100]} must come to a text.")
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
        overrides=resource.overrides,
    )


def _certificate(resource: _Resource, scope: _Scope) -> CertificatePlan:
    given, where = resource.properties, resource.logical_name

    def text(name: str) -> str | None:
        return scope.text(given[name], f"{where}.{name}") if name in given else None

    status = (text("Status") or "ACTIVE").upper()
    if status not in ("ACTIVE", "INACTIVE"):
        raise _unresolved(f"{where}.Status is {status[:40]!r}; ACTIVE and INACTIVE may stand there.")
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


def _policy(resource: _Resource, scope: _Scope) -> PolicyPlan:
    given, where = resource.properties, resource.logical_name
    document: str | None = None
    if "PolicyDocument" in given:
        value = scope.evaluate(given["PolicyDocument"])
        document = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    name = None
    if "PolicyName" in given:
        name = _held_to(_POLICY_NAME, scope.text(given["PolicyName"], f"{where}.PolicyName"), "a policy's name")
    return PolicyPlan(logical_name=where, name=name, document=document)
