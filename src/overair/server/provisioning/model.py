"""Nouns of provisioning: shared credentials, fleet authorities with their rules, how devices came in, and levels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

from overair.basics.clock import Instant, as_datetime
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, CertificateId, GroupName, PolicyName, ThingName, ThingTypeName
from overair.server.certificates.model import CREDENTIAL_ORIGIN, FLEET_ORIGIN

CredentialId = NewType("CredentialId", str)
"""Of a shared provisioning credential: a UUID."""
AuthorityId = NewType("AuthorityId", str)
"""Of a fleet authority: SHA-256 of its public key (SubjectPublicKeyInfo), 64 lower-case hexadecimal digits. An authority is its
key; a certificate that is issued anew for the same key is the same authority."""

THING_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
DAY_MS: Final = 86_400_000

DEVICE_POLICY: Final = PolicyName("overair-uptane-device")
"""What every device gets that comes in here, unless its credential or its authority's rule names another policy."""

CERTIFICATE_DAYS_DEFAULT: Final = 3_650
"""How long a device's certificate lasts at most where its credential says nothing else. The usual client asks for 36,000 days
and can't renew: so this cuts, and is long."""
CERTIFICATE_DAYS_MAX: Final = 36_500
CREDENTIAL_DAYS_DEFAULT: Final = 90
CREDENTIAL_DAYS_MAX: Final = 3_650
CREDENTIAL_USES_MAX: Final = 10_000_000
DEVICES_PER_MINUTE_DEFAULT: Final = 600
DEVICES_PER_MINUTE_MAX: Final = 60_000
NAME_LENGTH_MAX: Final = 128
TTL_DIGITS_MAX: Final = 9

OVERLAP_DAYS_DEFAULT: Final = 30
OVERLAP_DAYS_MAX: Final = 3_650
AUTHORITIES_MAX: Final = 100
AUTHORITIES_AT_ONCE_MAX: Final = 20
ALARMS_NAMED_MAX: Final = 5
ANOMALIES_MAX: Final = 1_000
"""Of one account; the ones that were seen longest ago make room."""
GROUPS_OF_RULE_MAX: Final = 10

_PATTERN: Final = re.compile(r"[a-zA-Z0-9:_*?-]{1,128}")


def read_device_id(text: object) -> ThingName:
    """A device id: the name of a thing.

    Raises:
        InvalidRequest: subject ``device-id``; the message has the rule.
    """
    if not isinstance(text, str) or not THING_NAME.fullmatch(text):
        raise InvalidRequest(
            "The device id must have 1 to 128 characters out of a-z, A-Z, 0-9, colon, underscore and hyphen.",
            subject="device-id",
            details={"field": "deviceId", "hint": "Leave out slashes, dots, spaces and wildcards."},
        )
    return ThingName(text)


def read_ttl_days(given: object) -> int | None:
    """How many days a device wants its certificate to last: a number, or the same as text (Uptane reference §3.2). None where
    it says nothing.

    Raises:
        InvalidRequest: subject ``ttl``.
    """
    if given is None:
        return None
    days = given
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= TTL_DIGITS_MAX:
        days = int(given)
    if not isinstance(days, int) or isinstance(days, bool) or days < 1:
        raise InvalidRequest(
            "ttl must be a whole number of days, 1 or more, as a number or as text.",
            subject="ttl",
            details={"field": "ttl", "hint": "Too many are cut to what the server allows; leave it out for that."},
        )
    return days


# Shared credentials ---------------------------------------------------------------------------------------------------------


class DeviceKeyType(StrEnum):
    """The key that a device is given. Both are accepted by every known client (Uptane reference §3.1)."""

    EC_P256 = "EC_P256"
    RSA_2048 = "RSA_2048"


class CredentialState(StrEnum):
    """What keeps a credential from being used; the first that holds, in this order."""

    USABLE = "usable"
    REVOKED = "revoked"
    EXPIRED = "expired"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialPlan:
    """What an operator asks of a new credential."""

    name: str = ""
    expires_days: int = CREDENTIAL_DAYS_DEFAULT
    uses_max: int | None = None
    key_type: DeviceKeyType = DeviceKeyType.EC_P256
    certificate_days_max: int = CERTIFICATE_DAYS_DEFAULT
    devices_per_minute: int = DEVICES_PER_MINUTE_DEFAULT
    policy: PolicyName = DEVICE_POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCredential:
    """A client certificate that may do one thing: ask for devices' certificates. Its private key is kept nowhere here."""

    account: AccountId
    id: CredentialId
    certificate_id: CertificateId
    """Unique on the server: by it the credential is recognised."""
    name: str
    created_at: Instant
    created_by: str
    expires_at: Instant
    uses_max: int | None
    uses: int
    """Device ids that were given a certificate; the same id again, before it registered, is no further use."""
    revoked_at: Instant | None
    key_type: DeviceKeyType
    certificate_days_max: int
    devices_per_minute: int
    policy: PolicyName

    @property
    def origin(self) -> str:
        """What the certificates that it gives are marked with."""
        return CREDENTIAL_ORIGIN + self.id

    def state(self, now: Instant) -> CredentialState:
        """Whether it may be used now, and else why not."""
        if self.revoked_at is not None:
            return CredentialState.REVOKED
        if now > self.expires_at:
            return CredentialState.EXPIRED
        if self.uses_max is not None and self.uses >= self.uses_max:
            return CredentialState.EXHAUSTED
        return CredentialState.USABLE


# Fleet authorities ----------------------------------------------------------------------------------------------------------


class FirstContact(StrEnum):
    """What happens to a device that nobody has seen, with a good certificate of this authority."""

    ALLOW = "allow"
    DENY = "deny"


class Renewal(StrEnum):
    """What happens when a known device comes with another key, certified by the same authority, near the end of its old
    certificate."""

    ALLOW = "allow"
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRule:
    """What one authority's word is worth."""

    first_contact: FirstContact = FirstContact.ALLOW
    device_id_pattern: str = "*"
    """Which device ids may come in by first contact: ``*`` and ``?`` as in a shell."""
    thing_type: ThingTypeName | None = None
    groups: tuple[GroupName, ...] = ()
    policy: PolicyName = DEVICE_POLICY
    renewal: Renewal = Renewal.ALLOW
    renewal_overlap_days: int = OVERLAP_DAYS_DEFAULT
    """How long before the end of the old certificate a new key is believed; so long both are good at most."""

    def __post_init__(self) -> None:
        if not _PATTERN.fullmatch(self.device_id_pattern):
            raise InvalidRequest(
                "A device id pattern has 1 to 128 characters: those of a device id, * and ?.", subject="device-id-pattern"
            )
        if not 0 <= self.renewal_overlap_days <= OVERLAP_DAYS_MAX:
            raise InvalidRequest(f"The overlap of a renewal is 0 to {OVERLAP_DAYS_MAX} days.", subject="renewal-overlap")
        if len(self.groups) > GROUPS_OF_RULE_MAX:
            raise InvalidRequest(f"A rule names at most {GROUPS_OF_RULE_MAX} groups.", subject="groups")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRegistration:
    """What makes a fleet authority a CA certificate as AWS's clients know it (RegisterCACertificate)."""

    is_active: bool
    registers_newcomers: bool
    """Whether a certificate that nobody knows is registered at its first connection."""
    is_verified: bool
    """Whether its owner has shown, by a verification certificate, that he has its key (mode DEFAULT); else SNI_ONLY."""
    template_name: str | None
    template_body: str | None
    """What newcomers are provisioned by; with neither, an operator activates them."""
    role_arn: str | None
    version: int
    generation_id: str
    modified_at: Instant

    @property
    def takes_newcomers(self) -> bool:
        """Both switches are on."""
        return self.is_active and self.registers_newcomers


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAuthority:
    """A certificate authority of the operator's own, whose devices may come in. Its key was never here."""

    account: AccountId
    id: AuthorityId
    pem: str
    fingerprint: CertificateId
    subject: str
    subject_sha256: str
    """Of the subject's DER: how a chain finds it."""
    name: str
    not_before: Instant
    not_after: Instant
    rule: FleetRule
    created_at: Instant
    created_by: str
    registration: CaRegistration | None = None
    """None: AWS's clients don't know it."""

    @property
    def origin(self) -> str:
        """What the certificates that it vouches for are marked with."""
        return FLEET_ORIGIN + self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingList:
    """The revocation list of an issuer that is kept, but for its serial numbers."""

    account: AccountId
    issuer: AuthorityId
    """The key that signed it."""
    authority: AuthorityId
    """The fleet authority that it was handed in for: the issuer's own, or one above."""
    issuer_pem: str
    number: int
    this_update: Instant
    next_update: Instant
    entries: int
    sha256: str
    refuse_when_stale: bool
    """Whether devices that nobody has seen stay out once the next list is overdue."""
    put_at: Instant
    put_by: str


# Devices that came in -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionedDevice:
    """How a thing came in."""

    account: AccountId
    thing: ThingName
    origin: str
    """``CREDENTIAL_ORIGIN`` or ``FLEET_ORIGIN`` with an id; ``OPERATOR_ORIGIN``."""
    certificate_id: CertificateId
    """The newest one that it was given or showed."""
    created_at: Instant
    source_ip: str
    registered_at: Instant | None = None
    """When its ECUs were first registered. Until then the same credential may issue for the same id again."""
    reissues: int = 0
    template: str | None = None
    """The provisioning template that it came by, where one has a name; its origin may be a CA certificate."""
    claim: str | None = None
    """The certificate (or the operator) over whose connection it was provisioned; None of any other way in."""


OPERATOR_ORIGIN: Final = "operator"
"""Registered by an operator with the device's public certificate."""


class AnomalyKind(StrEnum):
    """What was odd about a certificate that came with a good chain."""

    UNREGISTERED = "unregistered"
    """A device that no rule lets in by itself."""
    REUSED_ID = "reused-id"
    """A device that a template would give the name of another one that is in."""
    RENEWAL = "renewal"
    """Another key for a known device, near the end of its old certificate, where a person must say yes."""
    KEY_MISMATCH = "key-mismatch"
    """Another key for a known device, out of turn: a cloned name, a device made anew, or a theft."""
    SUPERSEDED = "superseded"
    """A certificate whose successor was used has asked for a further one: a copy of the device, or a theft."""


ALARMS: Final = frozenset({AnomalyKind.KEY_MISMATCH, AnomalyKind.REUSED_ID, AnomalyKind.SUPERSEDED})
"""What somebody should look at at once: written into the audit too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """A certificate that was refused although its chain is good, kept until an operator says what to do."""

    account: AccountId
    certificate_id: CertificateId
    thing: ThingName
    kind: AnomalyKind
    authority: AuthorityId
    pem: str
    first_seen_at: Instant
    last_seen_at: Instant
    times_seen: int
    """Counted at most once a minute."""
    source_ip: str


# Renewal --------------------------------------------------------------------------------------------------------------------


# Levels ---------------------------------------------------------------------------------------------------------------------


class Level(StrEnum):
    """Who can make devices (Uptane reference §12.3)."""

    DEFAULT = "default"
    """This server: its fleet authority signs for whoever shows a shared credential."""
    PRODUCTION = "production"
    """The operator's own authorities alone: who takes the server can make none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedProvisioning:
    """Whether shared provisioning is on, and since when."""

    account: AccountId
    is_on: bool
    changed_at: Instant | None
    """None: never changed."""
    changed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyedKey:
    """A key that is gone here and still lies in every copy of the records that was made while it was there."""

    account: AccountId
    key_id: str
    purpose: str
    created_at: Instant
    destroyed_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningStatus:
    """What ``overair status`` tells."""

    level: Level
    shared: SharedProvisioning
    fleet_authority_since: Instant | None
    """When the server's own fleet authority was made; None where there is none."""
    credentials_usable: int
    fleet_authorities: int
    destroyed_keys: tuple[DestroyedKey, ...]
    alarms: tuple[ThingName, ...] = ()
    """Devices under whose names keys came out of turn, and nobody has dismissed it; the last first."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a thief of this server, or of an old copy of its records, could still do about devices."""
        found = [_still_held(key) for key in self.destroyed_keys]
        if self.shared.is_on and self.fleet_authorities:
            found.insert(0, MIXED_LEVELS)
        if self.alarms:
            found.insert(0, _key_alarm(self.alarms))
        return tuple(found)


MIXED_LEVELS: Final = (
    "Shared provisioning is on although fleet authorities of your own are trusted: who takes this server can still make "
    "devices. Switch it off once no device needs it."
)


def _key_alarm(things: tuple[ThingName, ...]) -> str:
    named = ", ".join(things[:ALARMS_NAMED_MAX]) + (", …" if len(things) > ALARMS_NAMED_MAX else "")
    return (
        f"ALARM: keys came out of turn under the names of {len(things)} devices, and were refused: {named}. `overair why` "
        "and `overair fleet-ca anomalies` tell more; `overair fleet-ca approve` and `dismiss` settle each."
    )


def _still_held(key: DestroyedKey) -> str:
    made, gone = (as_datetime(moment).isoformat(timespec="seconds") for moment in (key.created_at, key.destroyed_at))
    return (
        f"The key of the {key.purpose} was destroyed at {gone}. Backups of the records made between {made} and then still hold "
        "it: who has one with the wrapping key has the key, and a server that is restored from one makes devices again. "
        "Destroy those backups."
    )
