"""One certificate follows another: the new one is its thing's as the old one was, and the old one goes when its time has come.

Both are good meanwhile. The old one is retired once its overlap is over and the new one has let its device in: whoever lost
the answer, or was switched off, is never locked out by a renewal. Retired means INACTIVE: its sessions are cut, it is known
and refused, and an operator may make it ACTIVE again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
from cryptography import x509 as pyca

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.basics.work import Tx, Work
from overair.server.certificates.model import CREDENTIAL_ORIGIN, CertificateStatus, DeviceCertificate
from overair.server.certificates.service import CertificatesService
from overair.server.provisioning.enrolment import Enrolment
from overair.server.provisioning.model import DAY_MS
from overair.server.provisioning.ports import Store
from overair.server.provisioning.renewal_model import RenewalRule

BATCH: Final = 100

logger = structlog.get_logger("overair.provisioning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """One certificate that follows another, as operators see it."""

    things: tuple[ThingName, ...]
    old: DeviceCertificate | None
    """None: forgotten since."""
    new: DeviceCertificate


class Renewals:
    """Whatever brings a new certificate for a known device ends here: EST, an operator's authority, an operator's answer."""

    def __init__(
        self, *, store: Store, certificates: CertificatesService, enrolment: Enrolment, clock: Clock, region: str
    ) -> None:
        self._store = store
        self._certificates = certificates
        self._enrolment = enrolment
        self._clock = clock
        self._region = region

    def rule(self, tx: Tx, account: AccountId) -> RenewalRule:
        """The account's; the default until somebody sets one."""
        return self._store.find_renewal_rule(tx, account) or RenewalRule()

    def set_rule(self, tx: Tx, account: AccountId, rule: RenewalRule) -> None:
        """From now on. Moments that are set stay."""
        self._store.put_renewal_rule(tx, account, rule)

    def follow(
        self,
        tx: Tx,
        place: Place,
        thing: ThingName,
        *,
        old: CertificateId,
        leaf: pyca.Certificate,
        origin: str,
        source_ip: str,
    ) -> CertificateId:
        """Make ``leaf`` what ``old`` is: attached to the same things in the same way, with the same policies.

        There are two of a device at most: what ``old`` itself had replaced is retired now, and what was issued to replace it
        before and never used is forgotten.

        Raises:
            AlreadyExists: it is registered. Subject ``certificate``.
        """
        earlier = self._enrolment.certificates_of(tx, place.account, thing)
        new = self._enrolment.follow(tx, place, thing, leaf, of=old, origin=origin, source_ip=source_ip)
        self.note(tx, place, old=old, new=new)
        present = self._certificates.find(tx, place, old)
        for each in earlier:
            if each.replaces == old and each.awaits_first_use:
                self._enrolment.forget(tx, place, thing, each.id)
            elif each.id == present.replaces:
                self._leave(tx, place, thing, each)
        provisioned = self._store.find_device(tx, place.account, thing)
        if provisioned is not None:
            self._store.put_device(tx, replace(provisioned, certificate_id=new))
        return new

    def note(self, tx: Tx, place: Place, *, old: CertificateId, new: CertificateId, overlap_days: int | None = None) -> None:
        """``new``, which is registered and attached, replaces ``old``."""
        days = self.rule(tx, place.account).overlap_days if overlap_days is None else overlap_days
        moment = Instant(self._clock.now() + days * DAY_MS)
        self._certificates.succeed(tx, place, old=old, new=new, retires_at=moment)

    def has_due(self, tx: Tx) -> bool:
        """Whether any certificate is to be retired now."""
        return bool(self._certificates.due_to_retire(tx, limit=1))

    def retire_due(self, tx: Tx) -> int:
        """One batch; how many."""
        due = self._certificates.due_to_retire(tx, limit=BATCH)
        for each in due:
            self._certificates.retire(tx, Place(self._region, each.account), each.id)
            logger.info("certificate retired: another one has followed", account=each.account, certificate=each.id)
        return len(due)

    def page(self, tx: Tx, place: Place, *, after: str | None, limit: int) -> Sequence[Succession]:
        """By the new certificate's id."""
        return [
            Succession(
                things=self._enrolment.things_of(tx, place, new.id),
                old=None if new.replaces is None else self._certificates.find_anywhere(tx, new.replaces),
                new=new,
            )
            for new in self._certificates.successors(tx, place.account, after=after, limit=limit)
        ]

    def _leave(self, tx: Tx, place: Place, thing: ThingName, certificate: DeviceCertificate) -> None:
        """The certificate before the one that a device renews: it has shown that it needs it no more."""
        if certificate.origin.startswith(CREDENTIAL_ORIGIN):
            self._enrolment.forget(tx, place, thing, certificate.id)
            return
        # One of another authority must stay known, lest its chain lets it in again.
        if certificate.retired_at is None:
            self._certificates.retire(tx, place, certificate.id)
        self._enrolment.detach(tx, place, thing, certificate.id)


def is_older(certificate: DeviceCertificate, *, than: Instant) -> bool:
    """Whether a retired certificate of a key says nothing against one that was issued for the same key later."""
    return (
        certificate.status is CertificateStatus.INACTIVE
        and certificate.retired_at is not None
        and certificate.not_before < than
    )


class Retirements:
    """A worker (``workers.loop.Worker``): retires certificates whose overlap is over."""

    name = "certificate-retirements"

    def __init__(self, *, work: Work, renewals: Renewals) -> None:
        self._work = work
        self._renewals = renewals

    async def run_once(self) -> bool:
        """One batch. It looks before it writes: there is rarely anything."""
        if not await self._work.read(self._renewals.has_due):
            return False
        return await self._work.run(self._renewals.retire_due) > 0
