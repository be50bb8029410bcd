"""Certificates that change hands between two accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, CertificateId, PolicyName, ThingName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus, CertificateTransfer, DeviceCertificate
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

KEY = ec.generate_private_key(ec.SECP256R1())
ELSEWHERE = Place("us-east-1", AccountId("999999999999"))
THIRD = Place("us-east-1", AccountId("888888888888"))
ANYTHING = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


class Hands:
    """Two accounts, and a certificate in the first."""

    def __init__(self, registry: Registry, work: SqlWork, place: Place) -> None:
        self.registry, self.transfers, self.work, self.place = registry, registry.transfers, work, place
        registry.known_accounts = {place.account, ELSEWHERE.account, THIRD.account}
        self.id = self.issue()

    def issue(self, *, active: bool = False) -> CertificateId:
        return self.run(
            lambda tx: self.registry.certificates.issue(tx, self.place, public_key=KEY.public_key(), active=active)
        ).id

    def run(self, unit: Callable[[Tx], Any]) -> Any:
        return self.work.run_blocking(unit)

    def start(self, message: str | None = "for you") -> None:
        self.run(lambda tx: self.transfers.start(tx, self.place, self.id, ELSEWHERE.account, message=message))

    def shown(self, place: Place) -> tuple[DeviceCertificate, CertificateTransfer | None]:
        return self.work.read_blocking(lambda tx: self.transfers.shown(tx, place, self.id))

    def listed(self, place: Place) -> list[CertificateStatus]:
        page = self.work.read_blocking(
            lambda tx: self.registry.certificates.page(tx, place.account, after=None, limit=9, ascending=True)
        )
        return [row.status for row in page]

    def outgoing(self) -> list[CertificateId]:
        rows = self.work.read_blocking(
            lambda tx: self.transfers.outgoing(tx, self.place.account, after=None, limit=9, ascending=True)
        )
        return [transfer.certificate_id for transfer, _ in rows]


@pytest.fixture
def hands(registry: Registry, work: SqlWork, place: Place) -> Hands:
    return Hands(registry, work, place)


def test_a_certificate_is_offered_accepted_and_then_the_others_own(hands: Hands, clock: SettableClock) -> None:
    hands.start()
    assert hands.shown(hands.place)[0].status is hands.shown(ELSEWHERE)[0].status is CertificateStatus.PENDING_TRANSFER
    assert hands.listed(ELSEWHERE) == hands.listed(hands.place) == [CertificateStatus.PENDING_TRANSFER]
    assert (hands.outgoing(), hands.listed(THIRD)) == ([hands.id], [])
    with pytest.raises(NotFound):
        hands.shown(THIRD)
    clock.advance(milliseconds=5)
    hands.run(lambda tx: hands.transfers.accept(tx, ELSEWHERE, hands.id, active=True))
    found, transfer = hands.shown(ELSEWHERE)
    assert transfer is not None
    assert (found.account, found.status, found.version) == (ELSEWHERE.account, CertificateStatus.ACTIVE, 3)
    assert (transfer.source, transfer.message, transfer.accepted_at) == (hands.place.account, "for you", clock.now())
    assert (hands.listed(hands.place), hands.listed(ELSEWHERE), hands.outgoing()) == ([], [CertificateStatus.ACTIVE], [])
    with pytest.raises(NotFound):
        hands.shown(hands.place)
    # It is theirs to use, to give back, and to delete.
    hands.run(lambda tx: hands.registry.certificates.set_status(tx, ELSEWHERE, hands.id, CertificateStatus.INACTIVE))
    hands.run(lambda tx: hands.transfers.start(tx, ELSEWHERE, hands.id, hands.place.account, message=None))
    hands.run(lambda tx: hands.transfers.accept(tx, hands.place, hands.id, active=False))
    hands.run(lambda tx: hands.registry.certificates.delete(tx, hands.place, hands.id, force=False))
    assert hands.run(lambda tx: hands.registry.certificates.find_anywhere(tx, hands.id)) is None


def test_an_offer_is_rejected_with_a_reason_or_taken_back(hands: Hands) -> None:
    hands.start()
    hands.run(lambda tx: hands.transfers.reject(tx, ELSEWHERE, hands.id, reason="not mine"))
    found, transfer = hands.shown(hands.place)
    assert transfer is not None
    assert (found.status, transfer.reject_reason, transfer.rejected_at is not None) == (
        CertificateStatus.INACTIVE,
        "not mine",
        True,
    )
    assert hands.listed(ELSEWHERE) == []
    hands.start(None)
    hands.run(lambda tx: hands.transfers.cancel(tx, hands.place, hands.id))
    assert hands.shown(hands.place) == (hands.shown(hands.place)[0], None)
    assert hands.shown(hands.place)[0].status is CertificateStatus.INACTIVE


@pytest.mark.parametrize("status", [CertificateStatus.ACTIVE, CertificateStatus.REVOKED])
def test_only_an_inactive_certificate_is_offered(hands: Hands, status: CertificateStatus) -> None:
    hands.run(lambda tx: hands.registry.certificates.set_status(tx, hands.place, hands.id, status))
    with pytest.raises(Conflict) as refused:
        hands.start()
    assert refused.value.subject == "certificate-state"


def test_nothing_may_hang_on_a_certificate_that_is_offered(hands: Hands) -> None:
    registry, place, arn = hands.registry, hands.place, hands.place.iot("cert", hands.id)
    hands.run(lambda tx: registry.devices.create(tx, place, ThingName("dev-1")))
    hands.run(lambda tx: registry.policies.create(tx, place, PolicyName("p"), ANYTHING))
    attach: list[Callable[[Tx], None]] = [
        lambda tx: registry.devices.attach(tx, place, ThingName("dev-1"), arn),
        lambda tx: registry.policies.attach(tx, place, PolicyName("p"), arn),
    ]
    detach: list[Callable[[Tx], None]] = [
        lambda tx: registry.devices.detach(tx, place, ThingName("dev-1"), arn),
        lambda tx: registry.policies.detach(tx, place, PolicyName("p"), arn),
    ]
    for hang, take in zip(attach, detach, strict=True):
        hands.run(hang)
        with pytest.raises(Conflict) as refused:
            hands.start()
        assert refused.value.subject == "transfer"
        hands.run(take)
    hands.start()
    for hang in attach:
        with pytest.raises(Conflict, match="being transferred"):
            hands.run(hang)


def test_while_it_is_offered_its_status_is_nobodys_to_change(hands: Hands) -> None:
    hands.start()
    for status in (CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED):
        with pytest.raises(Conflict, match="Cancel its transfer"):
            hands.run(lambda tx, status=status: hands.registry.certificates.set_status(tx, hands.place, hands.id, status))
    with pytest.raises(NotFound):
        hands.run(lambda tx: hands.registry.certificates.set_status(tx, ELSEWHERE, hands.id, CertificateStatus.ACTIVE))
    with pytest.raises(Conflict):
        hands.run(lambda tx: hands.registry.certificates.delete(tx, hands.place, hands.id, force=True))
    with pytest.raises(Conflict):
        hands.start()


def test_nobody_but_the_two_has_a_say_and_each_only_his_own(hands: Hands) -> None:
    hands.start()
    strangers: list[Callable[[Tx], None]] = [
        lambda tx: hands.transfers.accept(tx, THIRD, hands.id, active=True),
        lambda tx: hands.transfers.accept(tx, hands.place, hands.id, active=True),
        lambda tx: hands.transfers.reject(tx, hands.place, hands.id, reason=None),
        lambda tx: hands.transfers.cancel(tx, ELSEWHERE, hands.id),
        lambda tx: hands.transfers.cancel(tx, THIRD, hands.id),
        lambda tx: hands.transfers.start(tx, ELSEWHERE, hands.id, THIRD.account, message=None),
    ]
    for call in strangers:
        with pytest.raises(NotFound):
            hands.run(call)
    hands.run(lambda tx: hands.transfers.accept(tx, ELSEWHERE, hands.id, active=False))
    for call in (
        lambda tx: hands.transfers.accept(tx, ELSEWHERE, hands.id, active=False),
        lambda tx: hands.transfers.reject(tx, ELSEWHERE, hands.id, reason=None),
        lambda tx: hands.transfers.cancel(tx, hands.place, hands.id),
    ):
        with pytest.raises(Conflict) as refused:
            hands.run(call)
        assert refused.value.subject == "transfer-completed"


def test_an_offer_goes_to_another_account_that_there_is(hands: Hands) -> None:
    for target in (hands.place.account, AccountId("777777777777")):
        with pytest.raises(InvalidRequest) as refused:
            hands.run(lambda tx, target=target: hands.transfers.start(tx, hands.place, hands.id, target, message=None))
        assert refused.value.subject == "transfer"
