"""Policy documents, read strictly into values: identity, resource, trust and device policies.

Reference: IAM user guide, "Grammar of the IAM JSON policy language"; AWS IoT developer guide, "AWS IoT Core policies".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.server.policy_language.conditions import Condition, MalformedCondition, parse_conditions
from overair.server.policy_language.patterns import MalformedPattern, Pattern, Variable, parse_pattern, variables_of
from overair.wire import strict_json

DOCUMENT_SIZE_BYTES_MAX: Final = 64 * 1024
"""Of a raw document, white space included, before it is parsed."""
STATEMENTS_MAX: Final = 500
ELEMENTS_MAX: Final = 1000
"""Of one list inside a statement."""


class Kind(Enum):
    """What a document is attached to; (word for people, length without white space)."""

    MANAGED = ("managed policy", 6144)
    INLINE_USER = ("inline policy of a user", 2048)
    INLINE_ROLE = ("inline policy of a role", 10_240)
    INLINE_GROUP = ("inline policy of a group", 5120)
    SESSION = ("session policy", 2048)
    TRUST = ("trust policy", 4096)
    RESOURCE = ("resource policy", 20 * 1024)
    DEVICE = ("device policy", 2048)

    @property
    def word(self) -> str:
        return self.value[0]

    @property
    def length_max(self) -> int:
        """Characters, white space not counted."""
        return self.value[1]


class Effect(Enum):
    """What a statement says when it matches."""

    ALLOW = "Allow"
    DENY = "Deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principals:
    """Who a statement of a resource or trust policy is about."""

    everyone: bool = False
    aws: tuple[str, ...] = ()
    """ARNs or account numbers."""
    services: tuple[str, ...] = ()
    negated: bool = False
    """True for NotPrincipal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement. ``actions`` and ``resources`` are patterns; a negated list matches what none of its patterns matches."""

    sid: str
    effect: Effect
    actions: tuple[Pattern, ...]
    actions_negated: bool
    resources: tuple[Pattern, ...]
    resources_negated: bool
    conditions: tuple[Condition, ...]
    principals: Principals | None

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of the resources."""
        return variables_of(self.resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One document."""

    kind: Kind
    statements: tuple[Statement, ...]


_ACTION: Final = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_SID: Final = re.compile(r"[A-Za-z0-9 _.-]{0,128}")
_ACCOUNT: Final = re.compile(r"\d{12}")
_PRINCIPAL_ARN: Final = re.compile(r"arn:aws:(?:iam|sts)::\d{12}:\S{1,512}")
_SERVICE: Final = re.compile(r"[a-z0-9.-]{1,128}\.amazonaws\.com")
_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_WHITE_SPACE: Final = re.compile(r"[ \t\r\n]+")


class _Malformed(ValueError):
    pass


def length_of(text: str) -> int:
    """A document's length as quotas count it: white space isn't counted."""
    return len(_WHITE_SPACE.sub("", text))


def parse_policy(text: str, kind: Kind) -> Policy:
    """Read one document.

    Raises:
        InvalidRequest: subject ``policy``; the message names the element and the rule.
    """
    try:
        data = text.encode("utf-8")
        if len(data) > DOCUMENT_SIZE_BYTES_MAX:
            raise _Malformed(f"it has {len(data)} bytes, at most {DOCUMENT_SIZE_BYTES_MAX} are read")
        length = length_of(text)
        if length > kind.length_max:
            raise _Malformed(f"it has {length} characters without white space, a {kind.word} has at most {kind.length_max}")
        document = strict_json.decode_object(data, size_bytes_max=DOCUMENT_SIZE_BYTES_MAX, depth_max=10)
        return _policy(document, kind)
    except (strict_json.MalformedJson, MalformedPattern, MalformedCondition, _Malformed, UnicodeEncodeError) as error:
        raise InvalidRequest(f"The {kind.word} is malformed: {error}.".replace("..", "."), subject="policy") from None


def _policy(document: dict[str, object], kind: Kind) -> Policy:
    _only(document, {"Version", "Id", "Statement"}, "the document")
    version = document.get("Version")
    if version is None and kind is Kind.DEVICE:
        raise _Malformed('Version is missing; write "Version": "2012-10-17"')
    if version is not None and version not in _VERSIONS:
        raise _Malformed(f"Version must be one of {', '.join(_VERSIONS)}")
    if "Id" in document and not isinstance(document["Id"], str):
        raise _Malformed("Id must be a string")
    if "Statement" not in document:
        raise _Malformed("Statement is missing")
    given = document["Statement"]
    statements = given if isinstance(given, list) else [given]
    if len(statements) > STATEMENTS_MAX:
        raise _Malformed(f"it has {len(statements)} statements, at most {STATEMENTS_MAX} are read")
    # Before 2012-10-17, ${…} was plain text; devices' policies are always read by today's rule.
    variables = version == "2012-10-17" or kind is Kind.DEVICE
    parsed = tuple(_statement(statement, kind, variables) for statement in statements)
    sids = [statement.sid for statement in parsed if statement.sid]
    if len(set(sids)) != len(sids):
        raise _Malformed("each Sid may be used once")
    return Policy(kind=kind, statements=parsed)


def _statement(given: object, kind: Kind, variables: bool) -> Statement:
    if not isinstance(given, dict):
        raise _Malformed("each Statement must be an object")
    allowed = {"Sid", "Effect", "Action", "Condition"}
    if kind is not Kind.DEVICE:
        allowed |= {"NotAction"}
    if kind is not Kind.TRUST:
        allowed |= {"Resource"} | ({"NotResource"} if kind is not Kind.DEVICE else set())
    if kind in (Kind.TRUST, Kind.RESOURCE):
        allowed |= {"Principal", "NotPrincipal"}
    _only(given, allowed, f"a statement of a {kind.word}")
    sid = given.get("Sid", "")
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        raise _Malformed("Sid must be a string of letters and digits")
    effect = given.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise _Malformed('Effect must be "Allow" or "Deny"')
    actions, actions_negated = _one_of(given, "Action", "NotAction")
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise _Malformed(f"{action[:80]!r} is no action; an action reads service:Name, or *")
    if kind is Kind.TRUST:
        resources, resources_negated = ["*"], False
    else:
        resources, resources_negated = _one_of(given, "Resource", "NotResource")
    for resource in resources:
        if resource != "*" and (not resource.startswith("arn:") or (resource.count(":") < 5 and "*" not in resource)):
            raise _Malformed(f"{resource[:120]!r} is no resource; a resource is an ARN, or *")
    principals = _principals(given) if kind in (Kind.TRUST, Kind.RESOURCE) else None
    return Statement(
        sid=sid,
        effect=Effect(effect),
        actions=tuple(parse_pattern(action, variables=False) for action in actions),
        actions_negated=actions_negated,
        resources=tuple(parse_pattern(resource, variables=variables) for resource in resources),
        resources_negated=resources_negated,
        conditions=parse_conditions(given["Condition"], variables=variables) if "Condition" in given else (),
        principals=principals,
    )


def _only(given: dict[str, object], allowed: set[str], where: str) -> None:
    unknown = sorted(set(given) - allowed)
    if unknown:
        raise _Malformed(f"{unknown[0][:60]!r} doesn't belong into {where}")


def _strings(value: object, name: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not values or len(values) > ELEMENTS_MAX or not all(isinstance(item, str) and item for item in values):
        raise _Malformed(f"{name} must be a string or a list of 1 to {ELEMENTS_MAX} strings")
    return [item for item in values if isinstance(item, str)]


def _one_of(given: dict[str, object], name: str, negated: str) -> tuple[list[str], bool]:
    if (name in given) == (negated in given):
        raise _Malformed(f"a statement has exactly one of {name} and {negated}" if name in given else f"{name} is missing")
    return (_strings(given[name], name), False) if name in given else (_strings(given[negated], negated), True)


def _principals(given: dict[str, object]) -> Principals:
    if ("Principal" in given) == ("NotPrincipal" in given):
        raise _Malformed("a statement of this policy has exactly one of Principal and NotPrincipal")
    negated = "NotPrincipal" in given
    value = given["NotPrincipal" if negated else "Principal"]
    if value == "*":
        return Principals(everyone=True, negated=negated)
    if not isinstance(value, dict) or not value:
        raise _Malformed('Principal must be "*" or an object such as {"Service": "iot.amazonaws.com"}')
    _only(value, {"AWS", "Service", "Federated", "CanonicalUser"}, "Principal")
    aws = _strings(value["AWS"], "Principal.AWS") if "AWS" in value else []
    services = _strings(value["Service"], "Principal.Service") if "Service" in value else []
    for other in ("Federated", "CanonicalUser"):
        if other in value:
            _strings(value[other], f"Principal.{other}")
    for principal in aws:
        if principal != "*" and not _ACCOUNT.fullmatch(principal) and not _PRINCIPAL_ARN.fullmatch(principal):
            raise _Malformed(f"{principal[:120]!r} is no principal; write an account number or the ARN of a user or role")
    for service in services:
        if not _SERVICE.fullmatch(service):
            raise _Malformed(f"{service[:120]!r} is no service principal; one reads name.amazonaws.com")
    return Principals(everyone="*" in aws, aws=tuple(a for a in aws if a != "*"), services=tuple(services), negated=negated)
