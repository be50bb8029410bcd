"""``why THING`` says which certificate follows which, and which keys came out of turn."""

from __future__ import annotations

import pytest

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.server.certificates.model import CertificateMode, CertificateStatus, DeviceCertificate
from overair.server.explain.certificates import _ODD, standing
from overair.server.provisioning.model import Anomaly, AnomalyKind, AuthorityId
from overair.server.provisioning.renewal_model import RenewalRequest, RenewalRequestState

ACCOUNT = AccountId("123456789012")
OLD, NEW = CertificateId("a" * 64), CertificateId("b" * 64)


def certificate(identity: CertificateId, **more: object) -> DeviceCertificate:
    given: dict[str, object] = {"status": CertificateStatus.ACTIVE} | more
    return DeviceCertificate(
        account=ACCOUNT,
        id=identity,
        pem="",
        mode=CertificateMode.DEFAULT,
        not_before=Instant(0),
        not_after=Instant(9),
        created_at=Instant(0),
        modified_at=Instant(0),
        version=1,
        generation_id="",
        **given,  # type: ignore[arg-type]
    )


def test_an_overlap_is_told_until_the_older_one_has_gone() -> None:
    old = certificate(OLD, replaced_by=NEW, retires_at=Instant(86_400_000))
    (line,) = standing([old, certificate(NEW, replaces=OLD)], [], None)
    assert line == (
        "Certificate bbbbbbbbbbbbbbbb… is to replace aaaaaaaaaaaaaaaa…, and nobody has come with it yet: both are good."
    )
    used = certificate(NEW, replaces=OLD, first_used_at=Instant(5))
    (line,) = standing([old, used], [], None)
    assert line.endswith("has replaced aaaaaaaaaaaaaaaa…, which retires from 1970-01-02 00:00:00 UTC on.")
    assert standing([certificate(OLD, status=CertificateStatus.INACTIVE), used], [], None) == []
    assert standing([used], [], None) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (AnomalyKind.KEY_MISMATCH, "ALARM: another key"),
        (AnomalyKind.SUPERSEDED, "ALARM: a certificate that another one has replaced"),
        (AnomalyKind.RENEWAL, "an operator has yet to approve"),
        (AnomalyKind.UNREGISTERED, "no rule lets it in"),
        (AnomalyKind.REUSED_ID, "by a template"),
    ],
)
def test_a_key_that_came_out_of_turn_is_told_with_where_from_and_how_often(kind: AnomalyKind, words: str) -> None:
    anomaly = Anomaly(
        account=ACCOUNT,
        certificate_id=NEW,
        thing=ThingName("vin-1"),
        kind=kind,
        authority=AuthorityId(""),
        pem="",
        first_seen_at=Instant(0),
        last_seen_at=Instant(1_000),
        times_seen=3,
        source_ip="192.0.2.7",
    )
    (line,) = standing([], [anomaly], None)
    assert words in line
    assert line.endswith("(certificate bbbbbbbbbbbbbbbb… from 192.0.2.7, last at 1970-01-01 00:00:01 UTC, 3 times).")


def test_every_kind_has_its_words() -> None:
    assert set(_ODD) == set(AnomalyKind)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (RenewalRequestState.WAITING, ["an authority of yours must issue"]),
        (RenewalRequestState.REFUSED, ["was refused: scrapped"]),
        (RenewalRequestState.ANSWERED, []),
    ],
)
def test_a_renewal_that_waits_for_an_authority_elsewhere_is_told(state: RenewalRequestState, words: list[str]) -> None:
    request = RenewalRequest(
        account=ACCOUNT,
        thing=ThingName("vin-1"),
        certificate_id=OLD,
        request_pem="",
        key_sha256="",
        state=state,
        requested_at=Instant(0),
        reason="scrapped",
    )
    lines = standing([], [], request)
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert word in line
