"""Nouns of renewal: another key for a name, the rule of an account, and requests that an authority elsewhere answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.server.provisioning.model import OVERLAP_DAYS_DEFAULT, OVERLAP_DAYS_MAX, Renewal

REASON_OF_REFUSAL_LENGTH_MAX: Final = 200
RETRY_AFTER_S_DEFAULT: Final = 3_600
RETRY_AFTER_S_MIN: Final = 1
RETRY_AFTER_S_MAX: Final = 604_800


class AnotherKey(StrEnum):
    """What a key that nobody has seen is, when it comes under a name that is known."""

    RENEWAL = "renewal"
    APPROVAL = "approval"
    """Perhaps a renewal: a person must say yes."""
    ALARM = "alarm"
    """A cloned name, a device made anew, or a theft."""


def judge_another_key(*, is_proved: bool, is_in_time: bool, renewal: Renewal) -> AnotherKey:
    """The one rule about it.

    Args:
        is_proved: Its holder showed the present certificate, and so its key, on the connection that the new key came on.
        is_in_time: The authority of the present certificate vouches for the new one too, near the present one's end.
        renewal: What the authority's rule says of that.
    """
    if is_proved or (is_in_time and renewal is Renewal.ALLOW):
        return AnotherKey.RENEWAL
    return AnotherKey.APPROVAL if is_in_time and renewal is Renewal.APPROVE else AnotherKey.ALARM


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRule:
    """How devices of an account renew their certificates."""

    overlap_days: int = OVERLAP_DAYS_DEFAULT
    """How long the old certificate stays good beside the new one; longer while the new one wasn't used."""
    relay: bool = False
    """Whether requests that this server issues nothing for wait for an authority of the operator's own."""
    retry_after_s: int = RETRY_AFTER_S_DEFAULT
    """When a device whose request waits is to ask again."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_days <= OVERLAP_DAYS_MAX:
            raise InvalidRequest(f"The overlap of a renewal is 0 to {OVERLAP_DAYS_MAX} days.", subject="renewal-overlap")
        if not RETRY_AFTER_S_MIN <= self.retry_after_s <= RETRY_AFTER_S_MAX:
            raise InvalidRequest(
                f"Devices ask again after {RETRY_AFTER_S_MIN} to {RETRY_AFTER_S_MAX} seconds.", subject="renewal-retry"
            )


class RenewalRequestState(StrEnum):
    """What became of a request that an authority elsewhere must answer."""

    WAITING = "waiting"
    ANSWERED = "answered"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRequest:
    """A device's PKCS #10 on its way to an authority elsewhere, and the answer. One for each thing: another one replaces it."""

    account: AccountId
    thing: ThingName
    certificate_id: CertificateId
    """What the device showed with it: the one to be replaced."""
    request_pem: str
    key_sha256: str
    """Of the key in it: the same request again is known by that."""
    state: RenewalRequestState
    requested_at: Instant
    answered_at: Instant | None = None
    answered_by: str = ""
    chain_pem: str = ""
    """The new certificate, then what belongs to it."""
    reason: str = ""
    """Of a refusal; told to the device."""
