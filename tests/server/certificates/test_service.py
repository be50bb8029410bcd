"""The registry of device certificates, on both databases."""

from __future__ import annotations

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.arn import Place
from overair.basics.clock import SettableClock, as_datetime
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, CertificateId
from overair.server.certificates import x509
from overair.server.certificates.model import OPERATOR_MAY_SET, CertificateMode, CertificateStatus
from overair.server.certificates.service import IssuedCertificate
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

KEY = ec.generate_private_key(ec.SECP256R1())
ACTIVE, INACTIVE, REVOKED = CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED
ELSEWHERE = Place("us-east-1", AccountId("999999999999"))


def issue(registry: Registry, work: SqlWork, place: Place, *, active: bool = False) -> IssuedCertificate:
    return work.run_blocking(lambda tx: registry.certificates.issue(tx, place, public_key=KEY.public_key(), active=active))


def own_leaf(clock: SettableClock, *, years: int = 5) -> pyca.Certificate:
    now = as_datetime(clock.now())
    return (
        pyca.CertificateBuilder()
        .subject_name(x509.common_name("own"))
        .issuer_name(x509.common_name("own"))
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(now.replace(year=now.year - 10))
        .not_valid_after(now.replace(year=now.year + years))
        .sign(KEY, hashes.SHA256())
    )


def test_an_issued_certificate_is_signed_by_the_accounts_device_authority(
    registry: Registry, work: SqlWork, place: Place
) -> None:
    issued = issue(registry, work, place)
    leaf = x509.certificate_from_pem(issued.pem.encode())
    authority = x509.certificate_from_pem(
        work.run_blocking(lambda tx: registry.authorities.device_authority_pem(tx, place.account)).encode()
    )
    assert x509.directly_issued(leaf, authority)
    assert issued.id == x509.fingerprint(leaf)
    assert issued.arn == f"arn:aws:iot:us-east-1:123456789012:cert/{issued.id}"
    found = work.read_blocking(lambda tx: registry.certificates.find(tx, place, issued.id))
    assert (found.status, found.mode, found.version, found.pem) == (INACTIVE, CertificateMode.DEFAULT, 1, issued.pem)
    assert found.not_after == x509.DEVICE_CERTIFICATE_NOT_AFTER


def test_each_account_has_an_authority_of_its_own(registry: Registry, work: SqlWork, place: Place) -> None:
    here, there = issue(registry, work, place), issue(registry, work, ELSEWHERE)
    pems = [
        work.run_blocking(lambda tx, account=account: registry.authorities.device_authority_pem(tx, account))
        for account in (place.account, ELSEWHERE.account)
    ]
    authorities = [x509.certificate_from_pem(pem.encode()) for pem in pems]
    leaves = [x509.certificate_from_pem(issued.pem.encode()) for issued in (here, there)]
    assert [[x509.directly_issued(leaf, authority) for authority in authorities] for leaf in leaves] == [
        [True, False],
        [False, True],
    ]


def test_an_authority_whose_unit_failed_leaves_nothing_behind(registry: Registry, work: SqlWork, place: Place) -> None:
    class Stop(Exception):
        pass

    def fail(tx: object) -> None:
        registry.certificates.issue(tx, place, public_key=KEY.public_key(), active=True)  # type: ignore[arg-type]
        raise Stop

    with pytest.raises(Stop):
        work.run_blocking(fail)
    issued = issue(registry, work, place)
    authority = work.run_blocking(lambda tx: registry.authorities.device_authority_pem(tx, place.account))
    assert x509.directly_issued(x509.certificate_from_pem(issued.pem.encode()), x509.certificate_from_pem(authority.encode()))


def test_the_same_request_twice_gives_two_certificates(registry: Registry, work: SqlWork, place: Place) -> None:
    request = pyca.CertificateSigningRequestBuilder().subject_name(x509.common_name("dev-1")).sign(KEY, hashes.SHA256())
    read = x509.signing_request_from_pem(request.public_bytes(serialization.Encoding.PEM).decode())
    first, second = (
        work.run_blocking(lambda tx: registry.certificates.issue_for_request(tx, place, read, active=True)) for _ in range(2)
    )
    assert first.id != second.id
    leaf = x509.certificate_from_pem(first.pem.encode())
    assert leaf.subject == x509.common_name("dev-1")
    assert leaf.public_key() == KEY.public_key()


def test_the_same_certificate_twice_is_refused_and_named(
    registry: Registry, work: SqlWork, place: Place, clock: SettableClock
) -> None:
    leaf = own_leaf(clock)
    issued = work.run_blocking(lambda tx: registry.certificates.register_without_authority(tx, place, leaf, status=ACTIVE))
    assert work.read_blocking(lambda tx: registry.certificates.find(tx, place, issued.id)).mode is CertificateMode.SNI_ONLY
    with pytest.raises(AlreadyExists) as refused:
        work.run_blocking(lambda tx: registry.certificates.register_without_authority(tx, place, leaf, status=ACTIVE))
    assert refused.value.details == {"resourceId": issued.id, "resourceArn": issued.arn}
    with pytest.raises(AlreadyExists) as refused:
        work.run_blocking(lambda tx: registry.certificates.register_without_authority(tx, ELSEWHERE, leaf, status=ACTIVE))
    assert refused.value.details == {"resourceId": issued.id}  # whose it is stays untold


def test_an_expired_certificate_is_not_registered(
    registry: Registry, work: SqlWork, place: Place, clock: SettableClock
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        work.run_blocking(
            lambda tx: registry.certificates.register_without_authority(tx, place, own_leaf(clock, years=-1), status=ACTIVE)
        )
    assert refused.value.subject == "certificate-validation"


def test_a_certificate_of_another_account_is_not_found(registry: Registry, work: SqlWork, place: Place) -> None:
    issued = issue(registry, work, ELSEWHERE)
    for call in (
        lambda tx: registry.certificates.find(tx, place, issued.id),
        lambda tx: registry.certificates.set_status(tx, place, issued.id, ACTIVE),
        lambda tx: registry.certificates.delete(tx, place, issued.id, force=True),
    ):
        with pytest.raises(NotFound):
            work.run_blocking(call)
    found = work.read_blocking(lambda tx: registry.certificates.find_anywhere(tx, issued.id))
    assert found is not None
    assert found.account == ELSEWHERE.account


@pytest.mark.parametrize("start", [ACTIVE, INACTIVE, REVOKED])
@pytest.mark.parametrize("goal", list(CertificateStatus))
def test_a_status_changes_as_the_table_says(
    registry: Registry, work: SqlWork, place: Place, start: CertificateStatus, goal: CertificateStatus
) -> None:
    issued = issue(registry, work, place, active=True)
    work.run_blocking(lambda tx: registry.certificates.set_status(tx, place, issued.id, start))
    before = work.read_blocking(lambda tx: registry.certificates.find(tx, place, issued.id))

    def change() -> None:
        work.run_blocking(lambda tx: registry.certificates.set_status(tx, place, issued.id, goal))

    if goal in OPERATOR_MAY_SET[start]:
        change()
    elif goal in (ACTIVE, INACTIVE, REVOKED):
        with pytest.raises(Conflict) as refused:
            change()
        assert refused.value.subject == "certificate-state"
    else:
        with pytest.raises(InvalidRequest):
            change()
    after = work.read_blocking(lambda tx: registry.certificates.find(tx, place, issued.id))
    changed = goal in OPERATOR_MAY_SET[start] and goal is not start
    assert after.status is (goal if changed else start)
    assert after.version == before.version + changed


def test_an_active_certificate_is_not_deleted(registry: Registry, work: SqlWork, place: Place) -> None:
    issued = issue(registry, work, place, active=True)
    with pytest.raises(Conflict) as refused:
        work.run_blocking(lambda tx: registry.certificates.delete(tx, place, issued.id, force=True))
    assert refused.value.subject == "certificate-state"
    work.run_blocking(lambda tx: registry.certificates.set_status(tx, place, issued.id, INACTIVE))
    work.run_blocking(lambda tx: registry.certificates.delete(tx, place, issued.id, force=False))
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: registry.certificates.delete(tx, place, issued.id, force=False))


def test_pages_go_by_creation_time_in_either_order(
    registry: Registry, work: SqlWork, place: Place, clock: SettableClock
) -> None:
    made: list[CertificateId] = []
    for number in range(5):
        made.append(issue(registry, work, place).id)
        clock.advance(milliseconds=number % 2)  # some in the same millisecond
    issue(registry, work, ELSEWHERE)

    def walk(ascending: bool) -> list[CertificateId]:
        seen: list[CertificateId] = []
        after: tuple[int, str] | None = None
        while page := work.read_blocking(
            lambda tx, after=after: registry.certificates.page(tx, place.account, after=after, limit=2, ascending=ascending)
        ):
            seen += [row.id for row in page]
            after = (page[-1].created_at, page[-1].id)
        return seen

    upwards = walk(True)
    assert sorted(upwards) == sorted(made)
    assert walk(False) == upwards[::-1]
    assert upwards.index(made[0]) < 2
    assert upwards[-1] == made[-1]


def test_the_server_certificate_is_issued_again_when_its_hosts_change(
    registry: Registry, work: SqlWork, place: Place, clock: SettableClock
) -> None:
    def identity(hosts: list[str]) -> tuple[str, str]:
        made = work.run_blocking(lambda tx: registry.authorities.server_identity(tx, place.account, hosts))
        leaf = x509.certificate_from_pem(made.certificate_pem.encode())
        key = serialization.load_pem_private_key(made.key_pem.reveal(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.public_key() == leaf.public_key()
        assert x509.directly_issued(leaf, x509.certificate_from_pem(made.authority_pem.encode()))
        names = leaf.extensions.get_extension_for_class(pyca.SubjectAlternativeName).value
        assert [str(name.value) for name in names] == hosts
        return made.certificate_pem, made.authority_pem

    first, authority = identity(["localhost", "127.0.0.1"])
    assert identity(["localhost", "127.0.0.1"]) == (first, authority)
    second, still = identity(["localhost", "127.0.0.1", "ota.example.com"])
    assert second != first
    assert still == authority
    keys = work.read_blocking(lambda tx: registry.keyring.list(tx, place.account))
    assert len(keys) == 2  # the authority's and the present one's: the old key is forgotten
    clock.advance(milliseconds=338 * 86_400_000)
    third, still = identity(["localhost", "127.0.0.1", "ota.example.com"])
    assert third != second
    assert still == authority


def test_a_host_that_is_no_name_makes_no_certificate(registry: Registry, work: SqlWork, place: Place) -> None:
    for hosts in ([], ["https://x"], ["h"] * 101):
        with pytest.raises(InvalidRequest) as refused:
            work.run_blocking(lambda tx, hosts=hosts: registry.authorities.server_identity(tx, place.account, hosts))
        assert refused.value.subject == "host"


def test_statuses_that_nobody_may_name_are_not_registered(
    registry: Registry, work: SqlWork, place: Place, clock: SettableClock
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        work.run_blocking(
            lambda tx: registry.certificates.register_without_authority(
                tx, place, own_leaf(clock), status=CertificateStatus.PENDING_ACTIVATION
            )
        )
    assert refused.value.subject == "certificate-status"
