"""What devices and operators may ask for, before any record is looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, CertificateId
from overair.server.provisioning.model import (
    THING_NAME,
    CredentialId,
    CredentialState,
    DeviceKeyType,
    FleetRule,
    SharedCredential,
    read_device_id,
    read_ttl_days,
)
from overair.server.provisioning.token_buckets import TokenBuckets

ACCOUNT = AccountId("123456789012")
CREDENTIAL = SharedCredential(
    account=ACCOUNT,
    id=CredentialId("c"),
    certificate_id=CertificateId("f"),
    name="",
    created_at=Instant(0),
    created_by="",
    expires_at=Instant(1_000),
    uses_max=2,
    uses=0,
    revoked_at=None,
    key_type=DeviceKeyType.EC_P256,
    certificate_days_max=1,
    devices_per_minute=1,
    policy="p",  # type: ignore[arg-type]
)


@pytest.mark.parametrize("name", ["vin-1", "a", "A:b_c-9", "x" * 128])
def test_a_device_id_is_a_things_name(name: str) -> None:
    assert read_device_id(name) == name


@given(st.one_of(st.text(), st.none(), st.integers(), st.lists(st.text()), st.binary()))
def test_whatever_else_is_no_device_id_and_the_rule_is_told(given_id: Any) -> None:
    if isinstance(given_id, str) and THING_NAME.fullmatch(given_id):
        return
    with pytest.raises(InvalidRequest) as caught:
        read_device_id(given_id)
    assert "1 to 128 characters" in caught.value.message
    assert caught.value.details["field"] == "deviceId"


@pytest.mark.parametrize(("given_ttl", "days"), [("36000", 36000), (36000, 36000), ("1", 1), (1, 1), (None, None), ("007", 7)])
def test_a_ttl_is_a_number_of_days_or_the_same_as_text(given_ttl: Any, days: int | None) -> None:
    assert read_ttl_days(given_ttl) == days


@pytest.mark.parametrize("given_ttl", [0, -1, "0", "-1", "", " 1", "1.5", 1.5, True, [], {}, "1e3", "9" * 10, "٣", "一"])
def test_other_ttls_are_refused_with_the_rule(given_ttl: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_ttl_days(given_ttl)
    assert caught.value.details["field"] == "ttl"


def test_a_credential_is_what_first_keeps_it_from_use() -> None:
    early, late = Instant(1_000), Instant(1_001)
    assert CREDENTIAL.state(early) is CredentialState.USABLE
    assert CREDENTIAL.state(late) is CredentialState.EXPIRED
    assert replace(CREDENTIAL, uses=2).state(early) is CredentialState.EXHAUSTED
    assert replace(CREDENTIAL, uses=2).state(late) is CredentialState.EXPIRED
    assert replace(CREDENTIAL, uses=2, revoked_at=Instant(5)).state(late) is CredentialState.REVOKED
    assert replace(CREDENTIAL, uses=9, uses_max=None).state(early) is CredentialState.USABLE


@pytest.mark.parametrize(
    "rule", [{"device_id_pattern": ""}, {"device_id_pattern": "[a-z]"}, {"renewal_overlap_days": -1}, {"groups": ("g",) * 11}]
)
def test_a_rule_that_is_none_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        FleetRule(**rule)


def test_a_bucket_holds_what_a_minute_allows_and_fills_steadily(clock: SettableClock) -> None:
    buckets = TokenBuckets(clock)

    def take() -> bool:
        return buckets.take(ACCOUNT, "c", per_minute=2)

    assert [take(), take(), take()] == [True, True, False]
    assert buckets.take(ACCOUNT, "other", per_minute=2)
    clock.advance(milliseconds=29_999)
    assert not take()
    clock.advance(milliseconds=1)
    assert [take(), take()] == [True, False]
    clock.advance(milliseconds=3_600_000)
    assert [take(), take(), take()] == [True, True, False]


def test_a_clock_that_goes_back_fills_no_bucket(clock: SettableClock) -> None:
    buckets = TokenBuckets(clock)
    assert buckets.take(ACCOUNT, "c", per_minute=1)
    clock.set(Instant(clock.now() - 3_600_000))
    assert not buckets.take(ACCOUNT, "c", per_minute=1)
    clock.advance(milliseconds=60_000)
    assert buckets.take(ACCOUNT, "c", per_minute=1)
