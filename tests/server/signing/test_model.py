from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, InvalidStateTransition
from overair.basics.ids import AccountId, SigningJobId, SigningProfileName
from overair.server.signing.model import (
    JOB_MAY_BECOME,
    PROFILE_MAY_BECOME,
    Algorithm,
    Encryption,
    Hash,
    ImageFormat,
    JobStatus,
    Profile,
    ProfilePlan,
    ProfileStatus,
    SignedBy,
    SigningJob,
    Validity,
    algorithm_of,
    expiry,
)
from overair.server.signing.platforms import PLATFORMS, choose_algorithm

ALGORITHMS = st.builds(Algorithm, encryption=st.sampled_from(Encryption), hash=st.sampled_from(Hash))
PLAN = ProfilePlan(platform_id="AmazonFreeRTOS-Default", certificate_arn="arn", parameters={})
PROFILE = Profile(
    name=SigningProfileName("signer"),
    version="a" * 10,
    plan=PLAN,
    status=ProfileStatus.ACTIVE,
    status_reason=None,
    created_at=Instant(0),
    testing_only=False,
    tags={},
)
JOB = SigningJob(
    account=AccountId("123456789012"),
    region="us-east-1",
    id=SigningJobId("j"),
    plan=None,
    profile=PROFILE.name,
    profile_version=PROFILE.version,
    platform_id=PLAN.platform_id,
    certificate_arn="arn",
    parameters={},
    algorithm=Algorithm(encryption=Encryption.ECDSA, hash=Hash.SHA256),
    image_format=ImageFormat.JSON,
    requested_by="arn",
    invoker=AccountId("123456789012"),
    status=JobStatus.IN_PROGRESS,
    status_reason=None,
    created_at=Instant(0),
)


def test_the_tables_name_every_status() -> None:
    assert set(JOB_MAY_BECOME) == set(JobStatus)
    assert set(PROFILE_MAY_BECOME) == set(ProfileStatus)


@given(start=st.sampled_from(ProfileStatus), end=st.sampled_from(ProfileStatus))
def test_a_profile_moves_as_its_table_says_and_never_back_to_active(start: ProfileStatus, end: ProfileStatus) -> None:
    profile = replace(PROFILE, status=start)
    if end in PROFILE_MAY_BECOME[start]:
        assert profile.become(end, reason="r").status is end
        assert end is not ProfileStatus.ACTIVE
    else:
        with pytest.raises(InvalidStateTransition):
            profile.become(end, reason="r")


@given(start=st.sampled_from(JobStatus))
def test_a_job_ends_once(start: JobStatus) -> None:
    job = replace(JOB, status=start)
    by = SignedBy(sha256="aa" * 32, not_after=Instant(9))
    for end in (lambda: job.succeeded(None, certificate=by, now=Instant(1)), lambda: job.failed("why", now=Instant(1))):
        if start is JobStatus.IN_PROGRESS:
            assert end().completed_at == 1
        else:
            with pytest.raises(InvalidStateTransition):
                end()


@given(algorithm=ALGORITHMS)
def test_an_algorithms_name_is_read_back(algorithm: Algorithm) -> None:
    assert algorithm_of(algorithm.signer_name) == algorithm


@given(
    platform=st.sampled_from(list(PLATFORMS.values())),
    key=st.sampled_from(Encryption),
    encryption=st.none() | st.sampled_from(Encryption),
    hash_name=st.none() | st.sampled_from(Hash),
)
def test_what_is_chosen_is_always_of_the_key_and_of_the_platform(
    platform: object, key: Encryption, encryption: Encryption | None, hash_name: Hash | None
) -> None:
    try:
        chosen = choose_algorithm(platform, key, encryption=encryption, hash=hash_name)  # type: ignore[arg-type]
    except InvalidRequest:
        return
    assert chosen.encryption is key
    assert encryption in (None, key)
    assert hash_name in (None, chosen.hash)
    assert chosen.encryption in platform.encryptions  # type: ignore[attr-defined]
    assert chosen.hash in platform.hashes  # type: ignore[attr-defined]


@pytest.mark.parametrize(("unit", "days"), [("DAYS", 3), ("MONTHS", 90), ("YEARS", 1095)])
def test_a_signature_counts_for_its_profiles_period(unit: str, days: int) -> None:
    assert expiry(Instant(5), Validity(value=3, unit=unit)) == 5 + days * 86_400_000
