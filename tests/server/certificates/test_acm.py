"""Imported certificates: what is accepted, what is refused, what is told about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import Conflict, InvalidRequest, LimitExceeded, NotFound, OverairError
from overair.basics.ids import AccountId
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.certificates.acm import AcmImport, AcmQuery
from overair.server.certificates.model import AcmCertificate
from overair.server.storage.work import SqlWork
from tests.support.code_signing import BORN, Credential, credential, version_1_certificate_pem
from tests.support.registry import Registry

EC, EC_OTHER, RSA = credential(name="One"), credential(name="Two"), credential(kind="rsa-2048", name="Three")
ROOT = credential(name="Root", authority=True)
MIDDLE = credential(name="Middle", authority=True, issuer=ROOT)
LEAF = credential(name="Leaf", issuer=MIDDLE)


def read(given: Credential, *, chain: bytes = b"", arn: str | None = None, tags: dict[str, str] | None = None) -> AcmImport:
    return AcmImport.read(
        certificate_pem=given.certificate_pem,
        private_key_pem=Redacted(given.key_pem),
        chain_pem=chain,
        arn=arn,
        tags=tags,
    )


def take_in(registry: Registry, work: SqlWork, place: Place, given: AcmImport) -> AcmCertificate:
    return work.run_blocking(lambda tx: registry.acm.import_certificate(tx, place, given))


@pytest.mark.parametrize(
    ("given", "algorithm", "signature"),
    [
        (EC, "EC_prime256v1", "SHA256WITHECDSA"),
        (RSA, "RSA_2048", "SHA256WITHRSA"),
        (credential(kind="ec-p384"), "EC_secp384r1", "SHA256WITHECDSA"),
    ],
    ids=["p-256", "rsa-2048", "p-384"],
)
def test_a_self_signed_certificate_is_taken_in_and_described(
    registry: Registry, work: SqlWork, place: Place, given: Credential, algorithm: str, signature: str
) -> None:
    imported = take_in(registry, work, place, read(given, tags={"team": "a"}))
    found = work.read_blocking(lambda tx: registry.acm.describe(tx, place, imported.arn))
    assert found == imported
    assert found.arn == place.acm(found.id)
    assert (found.facts.version, found.facts.key_algorithm, found.signature_algorithm) == (3, algorithm, signature)
    assert found.facts.key_usages == ("DIGITAL_SIGNATURE",)
    assert found.facts.extended_key_usages == (("CODE_SIGNING", "1.3.6.1.5.5.7.3.3"),)
    assert found.testing_only
    assert found.tags == {"team": "a"}

    def told(arn: str) -> Mapping[str, str]:
        return work.read_blocking(lambda tx: registry.acm.tags_of(tx, place.account, arn))

    assert (told(found.arn), told(found.arn.replace(place.region, "elsewhere")), told("*")) == ({"team": "a"}, {}, {})
    held = work.read_blocking(lambda tx: registry.keyring.public_key(tx, place.account, found.key_id))
    assert held == given.key.public_key()


def test_a_leaf_with_its_chain_is_taken_in_and_is_not_for_testing_only(registry: Registry, work: SqlWork, place: Place) -> None:
    chain = MIDDLE.certificate_pem + ROOT.certificate_pem
    imported = take_in(registry, work, place, read(LEAF, chain=chain))
    assert imported.chain_pem.encode() == chain
    assert not imported.testing_only
    assert imported.facts.shortcomings == ()
    assert (imported.subject, imported.issuer, imported.domain_name) == ("CN=Leaf", "CN=Middle", "Leaf")


@pytest.mark.parametrize(
    "chain",
    [ROOT.certificate_pem, ROOT.certificate_pem + MIDDLE.certificate_pem, EC.certificate_pem, b"nonsense"],
)
def test_a_chain_that_does_not_lead_upwards_is_refused(chain: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(LEAF, chain=chain)


def test_a_chain_of_more_than_five_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 5"):
        read(LEAF, chain=MIDDLE.certificate_pem * 6)


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (credential(digital_signature=None), "digitalSignature"),
        (credential(digital_signature=False), "digitalSignature"),
        (credential(purposes=None), "codeSigning"),
        (credential(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), "codeSigning"),
        (credential(kind="ec-p384"), "ECDSA P-256"),
    ],
    ids=["no key usage", "other key usage", "no purpose", "other purpose", "p-384"],
)
def test_a_certificate_unfit_for_code_is_taken_in_and_its_shortcoming_told(
    registry: Registry, work: SqlWork, place: Place, made: Credential, fault: str
) -> None:
    imported = take_in(registry, work, place, read(made))
    [shortcoming] = imported.facts.shortcomings
    assert fault in shortcoming


def test_a_version_1_certificate_is_taken_in_and_told_as_such(registry: Registry, work: SqlWork, place: Place) -> None:
    given = AcmImport.read(certificate_pem=version_1_certificate_pem(EC), private_key_pem=Redacted(EC.key_pem), chain_pem=b"")
    imported = take_in(registry, work, place, given)
    assert imported.facts.version == 1
    assert "version 1" in imported.facts.shortcomings[0]


def test_a_key_that_does_not_match_is_refused() -> None:
    for key in (EC_OTHER.key_pem, RSA.key_pem):
        with pytest.raises(InvalidRequest, match="doesn't match") as refused:
            AcmImport.read(certificate_pem=EC.certificate_pem, private_key_pem=Redacted(key))
        assert refused.value.subject == "private-key"


def test_an_encrypted_an_unreadable_and_an_oversized_key_are_refused_without_being_shown() -> None:
    encrypted = EC.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    for key, word in (
        (encrypted, "encrypted"),
        (EC.key_pem[:-60], "can't be read"),
        (EC.key_pem + b"#" * 5_000, "at most 5120"),
    ):
        with pytest.raises(InvalidRequest, match=word) as refused:
            AcmImport.read(certificate_pem=EC.certificate_pem, private_key_pem=Redacted(key))
        assert EC.key_pem.splitlines()[1].decode() not in str(refused.value)


def test_a_certificate_of_another_family_than_its_issuer_is_refused() -> None:
    mixed = credential(issuer=credential(kind="rsa-2048", authority=True))
    with pytest.raises(InvalidRequest, match="Both must be RSA"):
        read(mixed)


def test_a_certificate_out_of_its_dates_is_refused(registry: Registry, work: SqlWork, place: Place) -> None:
    for made in (credential(born=BORN - timedelta(days=30), days=20), credential(born=BORN + timedelta(days=1))):
        with pytest.raises(InvalidRequest, match="not valid now"):
            take_in(registry, work, place, read(made))
    assert work.read_blocking(lambda tx: registry.keyring.list(tx, place.account)) == []


def test_an_import_over_an_arn_keeps_it_and_its_tags_and_forgets_the_old_key(
    registry: Registry, work: SqlWork, place: Place, clock: SettableClock
) -> None:
    first = take_in(registry, work, place, read(EC, tags={"k": "v"}))
    clock.advance(milliseconds=5)
    second = take_in(registry, work, place, read(EC_OTHER, arn=first.arn))
    assert (second.arn, second.tags, second.created_at) == (first.arn, {"k": "v"}, first.created_at)
    assert second.imported_at == first.imported_at + 5
    assert work.read_blocking(lambda tx: registry.acm.describe(tx, place, first.arn)) == second
    keys = work.read_blocking(lambda tx: registry.keyring.list(tx, place.account))
    assert [key.key_id for key in keys] == [second.key_id]
    with pytest.raises(InvalidRequest) as refused:
        take_in(registry, work, place, read(EC, arn=first.arn, tags={"k": "w"}))
    assert refused.value.subject == "tags"
    with pytest.raises(NotFound):
        take_in(registry, work, place, read(EC, arn=place.acm("absent")))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (RSA, "kind and size of the key stay"),
        (credential(name="One", purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,)), "it isn't for CODE_SIGNING"),
        (credential(name="One", digital_signature=None), "it isn't for DIGITAL_SIGNATURE"),
    ],
    ids=["other key", "other purpose", "fewer usages"],
)
def test_an_import_over_an_arn_is_for_no_less_than_before(
    registry: Registry, work: SqlWork, place: Place, other: Credential, words: str
) -> None:
    first = take_in(registry, work, place, read(EC))
    with pytest.raises(InvalidRequest, match=words) as refused:
        take_in(registry, work, place, read(other, arn=first.arn))
    assert refused.value.subject == "certificate"
    assert work.read_blocking(lambda tx: registry.acm.describe(tx, place, first.arn)) == first
    keys = work.read_blocking(lambda tx: registry.keyring.list(tx, place.account))
    assert [key.key_id for key in keys] == [first.key_id]


@pytest.mark.parametrize(
    ("arn", "kind"),
    [
        ("nonsense", InvalidRequest),
        ("arn:aws:acm:us-east-1:123456789012:certificate/", InvalidRequest),
        ("arn:aws:iot:us-east-1:123456789012:cert/x", InvalidRequest),
        ("arn:aws:acm:us-east-1:123456789012:certificate/absent", NotFound),
        ("arn:aws:acm:eu-west-1:123456789012:certificate/absent", NotFound),
        ("arn:aws:acm:us-east-1:999999999999:certificate/absent", NotFound),
    ],
)
def test_an_arn_of_nothing_here(registry: Registry, work: SqlWork, place: Place, arn: str, kind: type[OverairError]) -> None:
    with pytest.raises(kind):
        work.read_blocking(lambda tx: registry.acm.describe(tx, place, arn))


def test_a_certificate_of_another_account_is_not_seen(registry: Registry, work: SqlWork, place: Place) -> None:
    imported = take_in(registry, work, place, read(EC))
    other = Place("us-east-1", AccountId("999999999999"))
    with pytest.raises(NotFound):
        work.read_blocking(lambda tx: registry.acm.describe(tx, other, other.acm(imported.id)))


class Profiles:
    """Signing, as far as certificates know it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def users_of_certificate(self, tx: Tx, place: Place, certificate_arn: str) -> Sequence[str]:
        return [place.signer(f"/signing-profiles/{name}") for name in self.names]


def test_a_certificate_in_use_is_not_deleted(registry: Registry, work: SqlWork, place: Place) -> None:
    profiles = Profiles()
    registry.acm.used_by(profiles)
    imported = take_in(registry, work, place, read(EC))
    profiles.names = ["firmware"]
    with pytest.raises(Conflict, match="signing-profiles/firmware") as refused:
        work.run_blocking(lambda tx: registry.acm.delete(tx, place, imported.arn))
    assert refused.value.subject == "in-use"
    profiles.names = []
    work.run_blocking(lambda tx: registry.acm.delete(tx, place, imported.arn))
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: registry.acm.delete(tx, place, imported.arn))
    assert work.read_blocking(lambda tx: registry.keyring.list(tx, place.account)) == []


def test_lists_filter_by_status_key_and_usages_and_page_newest_first(
    registry: Registry, work: SqlWork, place: Place, clock: SettableClock
) -> None:
    made = []
    for given in (EC, RSA, credential(days=2), credential(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))):
        made.append(take_in(registry, work, place, read(given)).arn)
        clock.advance(milliseconds=1)
    newest_first = made[::-1]
    clock.advance(milliseconds=3 * 86_400_000)

    def arns(query: AcmQuery, after: tuple[int, str] | None = None, limit: int = 10) -> list[str]:
        page = work.read_blocking(lambda tx: registry.acm.page(tx, place.account, query, after=after, limit=limit))
        return [row.arn for row in page]

    everything = AcmQuery()
    assert arns(everything) == newest_first
    assert arns(replace(everything, ascending=True)) == made
    assert arns(AcmQuery(statuses=frozenset({"EXPIRED"}))) == [made[2]]
    assert arns(AcmQuery(statuses=frozenset({"ISSUED", "FAILED"}))) == [made[3], made[1], made[0]]
    assert arns(AcmQuery(statuses=frozenset({"REVOKED"}))) == []
    assert arns(AcmQuery(key_algorithms=frozenset({"RSA_2048"}))) == [made[1]]
    assert arns(AcmQuery(extended_key_usages=frozenset({"CODE_SIGNING"}))) == [made[2], made[1], made[0]]
    assert arns(AcmQuery(key_usages=frozenset({"DATA_ENCIPHERMENT"}))) == []
    first = work.read_blocking(lambda tx: registry.acm.page(tx, place.account, everything, after=None, limit=2))
    rest = arns(everything, after=(first[-1].created_at, first[-1].id))
    assert [row.arn for row in first] + rest == newest_first


def test_a_certificate_shows_as_expired_once_it_is(registry: Registry, work: SqlWork, place: Place) -> None:
    imported = take_in(registry, work, place, read(EC))
    assert imported.status(imported.not_after) == "ISSUED"
    assert imported.status(type(imported.not_after)(imported.not_after + 1)) == "EXPIRED"


def test_tags_are_added_and_removed(registry: Registry, work: SqlWork, place: Place) -> None:
    arn = take_in(registry, work, place, read(EC)).arn

    def tags() -> dict[str, str]:
        return dict(work.read_blocking(lambda tx: registry.acm.describe(tx, place, arn)).tags)

    work.run_blocking(lambda tx: registry.acm.add_tags(tx, place, arn, {"a": "1", "b": "2"}))
    work.run_blocking(lambda tx: registry.acm.add_tags(tx, place, arn, {"b": "3", "c": ""}))
    assert tags() == {"a": "1", "b": "3", "c": ""}
    work.run_blocking(lambda tx: registry.acm.remove_tags(tx, place, arn, {"a": "other", "b": "3", "c": None}))
    assert tags() == {"a": "1"}
    with pytest.raises(LimitExceeded):
        work.run_blocking(lambda tx: registry.acm.add_tags(tx, place, arn, {f"k{n}": "" for n in range(50)}))
    with pytest.raises(InvalidRequest):
        work.run_blocking(lambda tx: registry.acm.add_tags(tx, place, arn, {"aws:k": ""}))


def test_our_own_first_signer_is_fit_for_code(registry: Registry, work: SqlWork, place: Place) -> None:
    made = work.run_blocking(lambda tx: registry.acm.create_own_signer(tx, place, "Overair code signing"))
    assert made.facts.shortcomings == ()
    assert made.facts.key_algorithm == "EC_prime256v1"
    assert made.testing_only
    assert work.read_blocking(lambda tx: registry.acm.describe(tx, place, made.arn)) == made
    public_key = work.read_blocking(lambda tx: registry.keyring.public_key(tx, place.account, made.key_id))
    signature = work.run_blocking(
        lambda tx: registry.keyring.sign(tx, place.account, made.key_id, b"image", algorithm="ecdsa-sha256")
    )
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(signature, b"image", ec.ECDSA(hashes.SHA256()))
