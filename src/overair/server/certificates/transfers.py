"""Certificates that change hands between two accounts of a server (TransferCertificate and its kin).

Until the target has accepted, the source has the certificate, PENDING_TRANSFER: it connects nowhere, and nothing can be hung on
it. It is told apart from a certificate that the target has anywhere but in what the target is shown of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId, CertificateId
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus, CertificateTransfer, DeviceCertificate
from overair.server.certificates.service import CertificatesService

PENDING_MAX: Final = 10_000
"""Of one account, on their way out."""


class TransferStore(Protocol):
    """Rows of transfers."""

    def find_transfer(self, tx: Tx, certificate: CertificateId) -> CertificateTransfer | None:
        """Whatever the account: a fingerprint is unique on the server."""
        ...

    def put_transfer(self, tx: Tx, transfer: CertificateTransfer) -> None:
        """Insert, or replace the one of the same certificate."""
        ...

    def delete_transfer(self, tx: Tx, certificate: CertificateId) -> None: ...

    def count_outgoing(self, tx: Tx, account: AccountId) -> int: ...

    def outgoing(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int, ascending: bool
    ) -> Sequence[tuple[CertificateTransfer, int]]:
        """Those that are pending, by (creation of the certificate, id); with that creation."""
        ...


class KnownAccounts(Protocol):
    """Which accounts there are. *access* has it."""

    def is_known(self, tx: Tx, account: AccountId) -> bool: ...


class CertificateTransfers:
    """Transfers, of one account at a time.

    Raises, everywhere: ``NotFound(subject="certificate")``, ``Conflict`` (subjects ``certificate-state``, ``transfer``,
    ``transfer-completed``), ``InvalidRequest(subject="transfer")``, ``LimitExceeded(subject="transfers")``.
    """

    def __init__(
        self, *, store: TransferStore, certificates: CertificatesService, accounts: KnownAccounts, clock: Clock
    ) -> None:
        self._store = store
        self._certificates = certificates
        self._accounts = accounts
        self._clock = clock

    def start(self, tx: Tx, place: Place, certificate: CertificateId, target: AccountId, *, message: str | None) -> None:
        """Offer an INACTIVE certificate that nothing hangs on to another account of this server."""
        found = self._certificates.find(tx, place, certificate)
        if target == place.account:
            raise InvalidRequest("A certificate can't be transferred into the account that has it.", subject="transfer")
        if found.status is not CertificateStatus.INACTIVE:
            raise Conflict(
                f"The certificate {certificate} is {found.status.value}; only an INACTIVE one can be transferred. A revocation "
                "is final, in another account too.",
                subject="certificate-state",
                details={"resourceId": certificate},
            )
        self._require_bare(tx, place, found)
        if not self._accounts.is_known(tx, target):
            raise InvalidRequest(f"This server has no account {target}.", subject="transfer")
        if self._store.count_outgoing(tx, place.account) >= PENDING_MAX:
            raise LimitExceeded(f"{PENDING_MAX} certificates of this account wait to be accepted.", subject="transfers")
        self._store.put_transfer(
            tx,
            CertificateTransfer(
                account=place.account,
                certificate_id=certificate,
                source=place.account,
                target=target,
                message=message,
                transferred_at=self._clock.now(),
            ),
        )
        self._certificates.become(tx, found, CertificateStatus.PENDING_TRANSFER)

    def accept(self, tx: Tx, place: Place, certificate: CertificateId, *, active: bool) -> None:
        """Take a certificate that was offered to this account. Who vouched for it in its old account vouches no more."""
        transfer, found = self._pending(tx, certificate, target=place.account)
        self._require_bare(tx, Place(place.region, transfer.source), found)
        status = CertificateStatus.ACTIVE if active else CertificateStatus.INACTIVE
        self._certificates.hand_over(tx, found, place.account, status)
        self._store.put_transfer(tx, replace(transfer, account=place.account, accepted_at=self._clock.now()))

    def reject(self, tx: Tx, place: Place, certificate: CertificateId, *, reason: str | None) -> None:
        """Give a certificate back that was offered to this account: its source has it INACTIVE again."""
        transfer, found = self._pending(tx, certificate, target=place.account)
        self._certificates.become(tx, found, CertificateStatus.INACTIVE)
        self._store.put_transfer(tx, replace(transfer, rejected_at=self._clock.now(), reject_reason=reason))

    def cancel(self, tx: Tx, place: Place, certificate: CertificateId) -> None:
        """Take an offer of this account back: the certificate is INACTIVE again."""
        _, found = self._pending(tx, certificate, source=place.account)
        self._certificates.become(tx, found, CertificateStatus.INACTIVE)
        self._store.delete_transfer(tx, certificate)

    def outgoing(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int, ascending: bool
    ) -> Sequence[tuple[CertificateTransfer, int]]:
        """Pending ones of this account, each with the moment when its certificate was made."""
        return self._store.outgoing(tx, account, after=after, limit=limit, ascending=ascending)

    def shown(self, tx: Tx, place: Place, certificate: CertificateId) -> tuple[DeviceCertificate, CertificateTransfer | None]:
        """A certificate of this account, or one that is offered to it, with what is known of its transfer."""
        found, transfer = self._certificates.find_anywhere(tx, certificate), self._store.find_transfer(tx, certificate)
        is_offered = transfer is not None and transfer.is_pending and transfer.target == place.account
        if found is None or not (found.account == place.account or is_offered):
            return self._certificates.find(tx, place, certificate), None  # which says that there is none
        return found, transfer

    def _pending(
        self, tx: Tx, certificate: CertificateId, *, source: AccountId | None = None, target: AccountId | None = None
    ) -> tuple[CertificateTransfer, DeviceCertificate]:
        transfer, found = self._store.find_transfer(tx, certificate), self._certificates.find_anywhere(tx, certificate)
        is_own = transfer is not None and (transfer.source == source if target is None else transfer.target == target)
        if transfer is None or found is None or not is_own:
            raise NotFound(f"No transfer of a certificate {certificate} is under way for this account.", subject="certificate")
        if not transfer.is_pending:
            raise Conflict(
                f"The transfer of the certificate {certificate} has come to its end: it was "
                f"{'rejected' if transfer.accepted_at is None else 'accepted'}.",
                subject="transfer-completed",
            )
        return transfer, found

    def _require_bare(self, tx: Tx, place: Place, certificate: DeviceCertificate) -> None:
        if self._certificates.has_uses(tx, place.account, certificate.id):
            raise Conflict(
                f"Things or policies are still attached to {place.iot('cert', certificate.id)}. Detach them before the "
                "certificate is transferred.",
                subject="transfer",
            )
