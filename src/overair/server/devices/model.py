"""Nouns of the registry: things, types, groups, policies and how they hang together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from overair.basics.arn import Place, parse_arn
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, CertificateId, GroupName, PolicyName, ThingName, ThingTypeName

TYPE_REST_BEFORE_DELETION_MS: Final = 5 * 60 * 1000
"""A thing type is deleted at the earliest this long after it was deprecated (wire reference §10.5)."""

POLICY_VERSIONS_MAX: Final = 5
"""The sixth version of a policy is refused (wire reference §10.5)."""

TAGS_MAX: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLimits:
    """What an account may have of each (wire reference §11)."""

    attributes_without_type_max: int
    attributes_with_type_max: int
    searchable_attributes_max: int
    groups_of_thing_max: int
    child_groups_max: int
    group_depth_max: int
    group_attributes_max: int
    policies_of_target_max: int
    dynamic_groups_max: int


GENEROUS: Final = RegistryLimits(
    attributes_without_type_max=50,
    attributes_with_type_max=50,
    searchable_attributes_max=50,
    groups_of_thing_max=100,
    child_groups_max=10_000,
    group_depth_max=20,
    group_attributes_max=50,
    policies_of_target_max=50,
    dynamic_groups_max=500,
)
"""The default: bounds memory and the length of a plan, nothing else."""

AWS: Final = RegistryLimits(
    attributes_without_type_max=3,
    attributes_with_type_max=50,
    searchable_attributes_max=3,
    groups_of_thing_max=10,
    child_groups_max=100,
    group_depth_max=7,
    group_attributes_max=50,
    policies_of_target_max=10,
    dynamic_groups_max=100,
)
"""The quotas that AWS documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A device as the registry knows it."""

    account: AccountId
    name: ThingName
    id: str
    """A UUID that stays while the thing is there."""
    type_name: ThingTypeName | None
    attributes: Mapping[str, str]
    version: int
    """1 at creation; each update adds 1."""
    created_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingQuery:
    """Which things a list shows; None means any."""

    attribute_name: str | None = None
    attribute_value: str | None = None
    value_is_prefix: bool = False
    type_name: ThingTypeName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingType:
    """A kind of thing."""

    account: AccountId
    name: ThingTypeName
    id: str
    description: str
    searchable_attributes: tuple[str, ...]
    propagating_attributes: tuple[Mapping[str, str], ...]
    """MQTT 5 user properties made of attributes (``mqtt5Configuration``): kept and shown."""
    created_at: Instant
    deprecated_at: Instant | None = None

    def same_settings(self, other: ThingType) -> bool:
        """Whether a repeated creation asks for exactly this."""
        return (self.description, self.searchable_attributes, self.propagating_attributes) == (
            other.description,
            other.searchable_attributes,
            other.propagating_attributes,
        )


class DynamicStatus(Enum):
    """How far the members of a dynamic group have been found (iot model, ``DynamicGroupStatus``)."""

    BUILDING = "BUILDING"
    REBUILDING = "REBUILDING"
    """After its query changed: who doesn't belong any more may still be there."""
    ACTIVE = "ACTIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicQuery:
    """What makes a group dynamic: the things that an index finds by a query are its members."""

    index_name: str
    text: str
    version: str
    status: DynamicStatus = DynamicStatus.BUILDING


SIGNING_RULE_ATTRIBUTE: Final = "overair:image-signing"
OFFLINE_SIGNED: Final = "offline"
"""The one rule there is: images for the group's things, and for those of the groups below it, are signed by a key that the
server doesn't hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingGroup:
    """A group. Its parent is given at creation and never changes; a dynamic one has none."""

    account: AccountId
    name: GroupName
    id: str
    parent: GroupName | None
    description: str
    attributes: Mapping[str, str]
    version: int
    created_at: Instant
    dynamic: DynamicQuery | None = None
    """None of a static group, whose members are named one by one."""

    @property
    def signing_rule(self) -> str | None:
        """Which images it takes; None: any."""
        return self.attributes.get(SIGNING_RULE_ATTRIBUTE)

    def same_settings(self, other: ThingGroup) -> bool:
        """Whether a repeated creation asks for exactly this."""
        return self._settings() == other._settings()

    def _settings(self) -> tuple[object, ...]:
        query = self.dynamic and (self.dynamic.index_name, self.dynamic.text, self.dynamic.version)
        return self.parent, self.description, dict(self.attributes), query


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupQuery:
    """Which groups a list shows."""

    parent: GroupName | None = None
    name_prefix: str = ""
    recursive: bool | None = None
    """With a parent: all below it, not only its children. Without: False shows the top level only."""


class ThingPrincipalType(Enum):
    """How a certificate belongs to a thing (iot model, ``ThingPrincipalType``)."""

    EXCLUSIVE_THING = "EXCLUSIVE_THING"
    """To this thing alone: the connection speaks for it whatever its client id."""
    NON_EXCLUSIVE_THING = "NON_EXCLUSIVE_THING"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingPrincipal:
    """One attachment of a certificate to a thing."""

    thing: ThingName
    certificate: CertificateId
    type: ThingPrincipalType


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One version of a device policy: a document that never changes."""

    policy: PolicyName
    version: int
    document: str
    created_at: Instant
    is_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePolicyRecord:
    """A named device policy with its operative document."""

    account: AccountId
    name: PolicyName
    default_version: int
    last_version: int
    """The highest number ever given; numbers are not given twice."""
    document: str
    created_at: Instant
    modified_at: Instant
    generation_id: str


class TargetKind(Enum):
    """What a policy can be attached to. The value is the ARN's resource kind."""

    CERTIFICATE = "cert"
    GROUP = "thinggroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTarget:
    """A certificate or a group, as the target of a policy."""

    kind: TargetKind
    name: str
    """A certificate id, or a group's name."""

    def arn(self, place: Place) -> str:
        """As the wire writes it."""
        return place.iot(self.kind.value, self.name)


def job_target(arn: str) -> tuple[str, str]:
    """(``thing`` or ``thinggroup``, name) of a job's target, whatever its region and account.

    Raises:
        InvalidRequest: the ARN names neither. Subject ``target``.
    """
    read = parse_arn(arn)
    if read.service != "iot" or read.kind not in ("thing", "thinggroup") or not read.name or not read.name.isprintable():
        raise InvalidRequest(f"{arn[:200]!r} names neither a thing nor a group.", subject="target")
    return read.kind, read.name


def policy_target(place: Place, arn: str) -> PolicyTarget:
    """Read the target of a policy.

    Raises:
        InvalidRequest: not a certificate's or a group's ARN of this region and account. Subject ``target``.
    """
    kind, name = own_resource(place, arn, "target", ("cert", "thinggroup"))
    return PolicyTarget(kind=TargetKind(kind), name=name)


def principal_certificate(place: Place, arn: str) -> CertificateId:
    """Read the principal of a thing: a certificate's ARN.

    Raises:
        InvalidRequest: anything else. Subject ``principal``.
    """
    return CertificateId(own_resource(place, arn, "principal", ("cert",))[1])


def own_resource(place: Place, arn: str, word: str, kinds: tuple[str, ...]) -> tuple[str, str]:
    """(kind, name) of an iot resource of this region and account.

    The name is taken as it stands: the operator's permission was asked for exactly this text, so nothing is put into another
    form afterwards (a certificate id in capitals names nothing).

    Raises:
        InvalidRequest: anything else; subject as given by ``word``.
    """
    try:
        read = parse_arn(arn)
    except InvalidRequest as broken:
        raise InvalidRequest(f"Invalid {word}: {broken.message}", subject=word) from None
    # A control character is in no name, and not every database would take it in a question.
    if read.service != "iot" or read.kind not in kinds or not read.name or not read.name.isprintable():
        raise InvalidRequest(
            f"{arn[:200]!r} can't be a {word}. Expected {' or '.join(place.iot(kind, '…') for kind in kinds)}.", subject=word
        )
    if read.region != place.region or read.account != place.account:
        raise InvalidRequest(
            f"{arn[:200]!r} belongs to region {read.region!r}, account {read.account!r}; this request is about "
            f"{place.region}, {place.account}.",
            subject=word,
        )
    return read.kind, read.name
