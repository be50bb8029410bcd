"""Revocation lists of fleets' own authorities: handed in by operators, kept, and acted on at once.

A device that is in is registered, so what a list says of it becomes its certificate's status, which cuts its sessions and is
final. A device that nobody has seen is asked about at its first contact. Reference: RFC 5280 §5, §6.3.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509 as pyca

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant, as_datetime
from overair.basics.errors import Conflict, NotFound
from overair.basics.ids import AccountId, CertificateId
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.model import OPERATOR_MAY_SET, CertificateStatus
from overair.server.certificates.service import CertificatesService
from overair.server.gateway.authority import RefusalCode
from overair.server.provisioning.certificate_paths import Link
from overair.server.provisioning.model import AuthorityId, FleetAuthority, StandingList
from overair.server.provisioning.ports import RevocationStore
from overair.server.provisioning.revocation_lists import SUBJECT, RevocationList

SEARCHED_AT_ONCE_MAX: Final = 1_000
SEARCHED_AGAIN_MS: Final = 60_000
"""What was registered while a list was being compared is compared in the transaction that keeps it; clocks may step back."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A list that is kept now."""

    standing: StandingList
    revoked: tuple[CertificateId, ...]
    """The registered certificates that it made REVOKED."""


class Revocations:
    """Lists of one account at a time.

    Raises, everywhere: ``Conflict(subject="revocation-list")``.
    """

    def __init__(self, *, store: RevocationStore, certificates: CertificatesService, clock: Clock) -> None:
        self._store = store
        self._certificates = certificates
        self._clock = clock

    def lists(self, tx: Tx, account: AccountId, authority: AuthorityId) -> Sequence[StandingList]:
        """Those that were handed in for a fleet authority, by issuer."""
        return self._store.lists(tx, account, authority)

    def named(self, tx: Tx, account: AccountId, listed: RevocationList, *, since: Instant | None) -> list[CertificateId]:
        """Which registered certificates a list names. Reads each of them once: for a reader, not for the writer's thread,
        unless ``since`` leaves few."""
        issuer = x509.certificate_from_pem(listed.issuer_pem.encode("ascii"))
        found = []
        after = None if since is None else (int(since), "")
        while listed.serial_numbers:
            page = self._certificates.whole_page(tx, account, after=after, limit=SEARCHED_AT_ONCE_MAX)
            for each in page:
                certificate = x509.certificate_from_pem(each.pem.encode("ascii"))
                if certificate.serial_number in listed.serial_numbers and x509.directly_issued(certificate, issuer):
                    found.append(each.id)
            if len(page) < SEARCHED_AT_ONCE_MAX:
                break
            after = (page[-1].created_at, page[-1].id)
        return found

    def put(
        self,
        tx: Tx,
        place: Place,
        authority: FleetAuthority,
        listed: RevocationList,
        *,
        named: Collection[CertificateId],
        searched_at: Instant,
        refuse_when_stale: bool,
        by: str,
    ) -> Taken:
        """Keep a list in place of its issuer's older one, and revoke the registered certificates that it names."""
        before = self._store.find_list(tx, place.account, listed.issuer)
        if before is not None and before.sha256 != listed.sha256 and listed.number <= before.number:
            raise Conflict(
                f"The list has number {listed.number}, and number {before.number} of this issuer is kept: only a newer one is "
                "taken. Nothing was changed.",
                subject=SUBJECT,
                details={"resourceId": listed.issuer},
            )
        standing = StandingList(
            account=place.account,
            issuer=listed.issuer,
            authority=authority.id,
            issuer_pem=listed.issuer_pem,
            number=listed.number,
            this_update=listed.this_update,
            next_update=listed.next_update,
            entries=len(listed.serial_numbers),
            sha256=listed.sha256,
            refuse_when_stale=refuse_when_stale,
            put_at=self._clock.now(),
            put_by=by,
        )
        self._store.put_list(tx, standing, listed.serial_numbers)
        since = Instant(searched_at - SEARCHED_AGAIN_MS)
        late = self.named(tx, place.account, listed, since=since)
        return Taken(standing, tuple(each for each in sorted({*named, *late}) if self._revoke(tx, place, each)))

    def refusal(self, tx: Tx, account: AccountId, links: Sequence[Link]) -> tuple[RefusalCode, str] | None:
        """Why a path of these certificates isn't believed, the device's own first; None where no list speaks against it."""
        for position, link in enumerate(links):
            standing = self._store.find_list(tx, account, link.issuer)
            if standing is None:
                continue
            if self._store.is_listed(tx, account, link.issuer, link.serial_number):
                number = f"revocation list {standing.number} of its issuer"
                if position == 0:
                    return RefusalCode.REVOKED, f"{number} names it"
                return RefusalCode.AUTHORITY_WITHDRAWN, f"an authority above it is revoked: {number} names that"
            if standing.refuse_when_stale and standing.next_update < self._clock.now():
                due = as_datetime(standing.next_update).isoformat()
                return RefusalCode.UNAVAILABLE, f"the next revocation list of {link.issuer} was due at {due}"
        return None

    def links_of(self, tx: Tx, account: AccountId, leaf: pyca.Certificate) -> list[Link]:
        """A certificate's place on the lists that are kept, where its path isn't known any more."""
        return [
            Link(each.issuer, leaf.serial_number)
            for each in self._store.lists(tx, account, None)
            if x509.directly_issued(leaf, x509.certificate_from_pem(each.issuer_pem.encode("ascii")))
        ]

    def _revoke(self, tx: Tx, place: Place, certificate: CertificateId) -> bool:
        """Whether it wasn't revoked before."""
        try:
            found = self._certificates.find(tx, place, certificate)
        except NotFound:
            return False  # it was deleted since it was found
        if found.status is CertificateStatus.PENDING_TRANSFER:
            self._certificates.become(tx, found, CertificateStatus.REVOKED)  # and nobody can accept it any more
            return True
        if found.status is CertificateStatus.REVOKED or CertificateStatus.REVOKED not in OPERATOR_MAY_SET.get(found.status, ()):
            return False
        self._certificates.set_status(tx, place, certificate, CertificateStatus.REVOKED)
        return True
