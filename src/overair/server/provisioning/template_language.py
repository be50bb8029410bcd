"""The language of provisioning templates (wire reference §9.2): read once, then worked out for one device's parameters.

A template has parameters, mappings, resources (one thing, one certificate, policies) and a device configuration. Values are
text, ``Ref`` or one of ``Fn::Join``, ``Fn::Select``, ``Fn::FindInMap``, ``Fn::Split`` and ``Fn::Sub``. There are no loops and
every intermediate value is bounded, so a template costs little whatever stands in it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.server.provisioning.template_functions import Scope, Value, check_expression, refused
from overair.server.provisioning.template_plans import (
    CertificatePlan,
    Override,
    Plan,
    PolicyPlan,
    Resource,
    ThingPlan,
    certificate_plan,
    policy_plan,
    thing_plan,
)
from overair.wire import strict_json

BODY_SIZE_BYTES_MAX: Final = 10_240
DEPTH_MAX: Final = 16
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template that was found well-formed."""

    defaults: Mapping[str, str | None]
    """Every declared parameter; None: it has no default."""
    mappings: Mapping[str, Mapping[str, Mapping[str, Value]]]
    resources: tuple[Resource, ...]
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
            raise refused(f"The template body can't be read. {broken}") from None
        _only(document, "template", {"Parameters", "Mappings", "Resources", "DeviceConfiguration"})
        defaults = _parameters(_map(document.get("Parameters", {}), "Parameters"))
        mappings = _mappings(_map(document.get("Mappings", {}), "Mappings"))
        resources = tuple(
            _resource(name, _map(given, f"Resources.{name}"))
            for name, given in _map(document.get("Resources", {}), "Resources").items()
        )
        if not resources:
            raise refused("The template has no Resources. Give a thing, a certificate or a policy.")
        for kind, most in ((_THING, 1), (_CERTIFICATE, 1), (_POLICY, POLICIES_MAX)):
            if sum(resource.kind == kind for resource in resources) > most:
                raise refused(f"A template has at most {most} resource{'s' * (most > 1)} of type {kind}.")
        configuration = _map(document.get("DeviceConfiguration", {}), "DeviceConfiguration")
        template = cls(defaults=defaults, mappings=mappings, resources=resources, device_configuration=configuration)
        known = template.defaults.keys() | PSEUDO_PARAMETERS
        for resource in resources:
            check_expression(resource.properties, f"Resources.{resource.logical_name}", known)
        check_expression(configuration, "DeviceConfiguration", known)
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
        scope = Scope(values, self.mappings)
        thing: ThingPlan | None = None
        certificate: CertificatePlan | None = None
        policies: list[PolicyPlan] = []
        for resource in self.resources:
            if resource.kind == _THING:
                thing = thing_plan(resource, scope)
            elif resource.kind == _CERTIFICATE:
                certificate = certificate_plan(resource, scope)
            else:
                policies.append(policy_plan(resource, scope))
        configuration = {
            key: scope.text(value, f"DeviceConfiguration.{key}") for key, value in self.device_configuration.items()
        }
        return Plan(thing=thing, certificate=certificate, policies=tuple(policies), device_configuration=configuration)


# Reading --------------------------------------------------------------------------------------------------------------------


def _map(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise refused(f"{where} in the template must be a JSON object.")
    return value


def _only(given: Mapping[str, object], where: str, allowed: set[str]) -> None:
    unknown = sorted(given.keys() - allowed)
    if unknown:
        raise refused(f"{where} has the unknown member {unknown[0][:100]!r}. Known are {', '.join(sorted(allowed))}.")


def _parameters(given: Mapping[str, object]) -> dict[str, str | None]:
    if len(given) > PARAMETERS_MAX:
        raise refused(f"A template has at most {PARAMETERS_MAX} parameters.")
    defaults: dict[str, str | None] = {}
    for name, declared in given.items():
        declaration = _map(declared, f"Parameters.{name}")
        _only(declaration, f"Parameters.{name}", {"Type", "Default"})
        default = declaration.get("Default")
        if declaration.get("Type") != "String" or not isinstance(default, str | None):
            raise refused(f'Parameters.{name} must have "Type": "String", and its Default, if it has one, must be text.')
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
                    raise refused(f"Mappings.{name}.{first}.{second} must be text or a list of texts.")
    return read


_PROPERTIES: Final[Mapping[str, set[str]]] = {
    _THING: {"ThingName", "AttributePayload", "ThingTypeName", "ThingGroups", "ThingPrincipalType"},
    _CERTIFICATE: {"CertificateId", "CertificateSigningRequest", "CertificatePem", "CACertificatePem", "Status"},
    _POLICY: {"PolicyName", "PolicyDocument"},
}
_PLAIN: Final = {Override.DO_NOTHING, Override.REPLACE, Override.FAIL}
_OVERRIDES: Final[Mapping[str, Mapping[str, set[Override]]]] = {
    _THING: {"AttributePayload": set(Override), "ThingTypeName": _PLAIN, "ThingGroups": set(Override)},
    _CERTIFICATE: {"Status": _PLAIN},
    _POLICY: {},
}


def _resource(name: str, given: Mapping[str, object]) -> Resource:
    where = f"Resources.{name}"
    _only(given, where, {"Type", "Properties", "OverrideSettings"})
    kind = given.get("Type")
    if not isinstance(kind, str) or kind not in _PROPERTIES:
        raise refused(f"{where} has the type {kind!r:.100}. Known are {', '.join(_PROPERTIES)}.")
    properties = _map(given.get("Properties", {}), f"{where}.Properties")
    if kind == _THING and "BillingGroup" in properties:
        raise refused(f"{where} names a BillingGroup. Overair has no billing groups: take it out of the template.")
    _only(properties, f"{where}.Properties", _PROPERTIES[kind])
    if kind == _THING and "ThingName" not in properties:
        raise refused(f"{where}.Properties has no ThingName.")
    if kind == _CERTIFICATE:
        ways = properties.keys() & {"CertificateId", "CertificateSigningRequest", "CertificatePem"}
        if len(ways) != 1:
            raise refused(f"{where}.Properties must have one of CertificateId, CertificateSigningRequest and CertificatePem.")
        if "CACertificatePem" in properties and "CertificatePem" not in properties:
            raise refused(f"{where}.Properties has a CACertificatePem, which stands beside a CertificatePem only.")
    if kind == _POLICY and not properties:
        raise refused(f"{where}.Properties has neither PolicyName nor PolicyDocument.")
    overrides: dict[str, Override] = {}
    for key, value in _map(given.get("OverrideSettings", {}), f"{where}.OverrideSettings").items():
        allowed = _OVERRIDES[kind].get(key, set())
        if not isinstance(value, str) or value not in {each.value for each in allowed}:
            known = ", ".join(sorted(each.value for each in allowed)) or "nothing"
            raise refused(f"{where}.OverrideSettings.{key} is {value!r:.60}; {known} may stand there.")
        overrides[key] = Override(value)
    return Resource(name, kind, properties, overrides)
