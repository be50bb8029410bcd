"""Who is told that a thing isn't the device that it was."""

from __future__ import annotations

from overair.basics.arn import Place
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import new_device_key
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

DEV_1 = ThingName("dev-1")


class Told:
    def __init__(self) -> None:
        self.things: list[ThingName] = []

    def provisioned_again(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        self.things.append(thing)


def test_a_first_valid_certificate_is_told_and_one_beside_it_is_not(registry: Registry, work: SqlWork, place: Place) -> None:
    told = Told()
    registry.devices.provisioning_watched_by(told)
    work.run_blocking(lambda tx: registry.devices.create(tx, place, DEV_1))

    def attach_new() -> str:
        def unit(tx: Tx) -> str:
            issued = registry.certificates.issue(tx, place, public_key=new_device_key().public_key(), active=True)
            registry.devices.attach(tx, place, DEV_1, issued.arn)
            return issued.arn

        return work.run_blocking(unit)

    first = attach_new()
    assert told.things == [DEV_1]
    work.run_blocking(lambda tx: registry.devices.attach(tx, place, DEV_1, first))
    second = attach_new()
    # Beside a valid one it is a renewal, and its own repeat is nothing at all.
    assert told.things == [DEV_1]
    work.run_blocking(lambda tx: registry.devices.detach(tx, place, DEV_1, first))
    assert told.things == [DEV_1]
    identity = CertificateId(second.rpartition("/")[2])
    work.run_blocking(lambda tx: registry.certificates.set_status(tx, place, identity, CertificateStatus.REVOKED))
    work.run_blocking(lambda tx: registry.devices.attach(tx, place, DEV_1, second))
    assert told.things == [DEV_1]
    attach_new()
    assert told.things == [DEV_1, DEV_1]
