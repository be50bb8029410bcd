"""The one rule for a device id that is taken: whoever comes with another key for it is not let in on his own word.

The name of a thing that has a certificate is taken, and whoever doesn't hold a key of it is refused and noted, whichever way he
comes. Where the server's setting ``reused_ids`` says ``queue`` an operator may approve the very certificate that was noted
(ApproveDeviceCertificate), and its next attempt goes through; where it says ``refuse`` nobody may, and the id comes free once
its device is deleted. An operator's word is more than somebody's own, and so are a template's OverrideSettings and a renewal
that an authority's rule allows. A shared credential brings no key that an approval could be bound to: there it is refused.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.provisioning.enrolment import Enrolment
from overair.server.provisioning.first_contact import ANOMALY_NOTED_AGAIN_MS, FirstContacts
from overair.server.provisioning.model import Anomaly, AnomalyKind, AuthorityId
from overair.server.provisioning.ports import AnomalyStore
from overair.server.provisioning.registration import TAKEN

ReusedIds = Literal["queue", "refuse"]
APPROVAL_LASTS_MS: Final = 7 * 86_400_000
REUSES: Final = frozenset({AnomalyKind.KEY_MISMATCH, AnomalyKind.REUSED_ID})


class ApprovalStore(Protocol):
    """Rows of certificates that an operator has approved and that haven't come again yet."""

    def approved_at(self, tx: Tx, account: AccountId, certificate: CertificateId) -> Instant | None: ...

    def put_approval(self, tx: Tx, account: AccountId, certificate: CertificateId, now: Instant) -> None: ...

    def delete_approval(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None: ...


class Reuses:
    """Attempts at ids that are taken, and what operators say to them."""

    def __init__(
        self,
        *,
        anomalies: AnomalyStore,
        approvals: ApprovalStore,
        contacts: FirstContacts,
        enrolment: Enrolment,
        clock: Clock,
        setting: ReusedIds,
    ) -> None:
        self._anomalies = anomalies
        self._approvals = approvals
        self._contacts = contacts
        self._enrolment = enrolment
        self._clock = clock
        self._setting = setting

    def is_approved(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        """Whether this certificate may take a name over."""
        approved_at = self._approvals.approved_at(tx, account, certificate)
        return approved_at is not None and self._clock.now() - approved_at <= APPROVAL_LASTS_MS

    def came_in(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        """It has: the approval is used up, and nothing is odd any more."""
        self._approvals.delete_approval(tx, account, certificate)
        self._anomalies.delete_anomaly(tx, account, certificate)

    def is_noted(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        """Whether the attempt was written down within the last minute."""
        standing = self._anomalies.find_anomaly(tx, account, certificate)
        return standing is not None and self._clock.now() - standing.last_seen_at < ANOMALY_NOTED_AGAIN_MS

    def note(
        self,
        tx: Tx,
        account: AccountId,
        certificate: CertificateId,
        pem: str,
        *,
        refused: Conflict,
        authority: AuthorityId,
        source_ip: str,
    ) -> None:
        """Write an attempt down, or that it goes on. ``authority``: the fleet authority it came by, if it is one."""
        self._contacts.note_certificate(
            tx,
            account,
            AnomalyKind.REUSED_ID,
            certificate_id=certificate,
            pem=pem,
            thing=ThingName(str(refused.details["resourceId"])),
            authority=authority,
            source_ip=source_ip,
        )

    def approve(self, tx: Tx, place: Place, certificate: CertificateId, *, deactivate_others: bool) -> Anomaly:
        """Let a noted certificate in: at once, or where a template must still be carried out, at its next attempt.

        Raises:
            NotFound: as ``FirstContacts.approve``.
            Conflict: the server's setting is ``refuse``, or as ``FirstContacts.approve``. Subject ``device-id-taken``.
        """
        noted = self._anomalies.find_anomaly(tx, place.account, certificate)
        if noted is not None and noted.kind in REUSES and self._setting == "refuse":
            raise Conflict(
                f"The id {noted.thing} is taken, and this server lets no other key have it (reused_ids is refuse). Delete its "
                "device first, or start the server with --reused-ids queue.",
                subject=TAKEN,
                details={"resourceId": noted.thing},
            )
        if noted is None or noted.kind is not AnomalyKind.REUSED_ID:
            return self._contacts.approve(tx, place, certificate, deactivate_others=deactivate_others)
        self._approvals.put_approval(tx, place.account, certificate, self._clock.now())
        self._anomalies.delete_anomaly(tx, place.account, certificate)
        if deactivate_others:
            for other in self._enrolment.certificates_of(tx, place.account, noted.thing):
                if other.id != certificate and other.status is CertificateStatus.ACTIVE:
                    self._enrolment.deactivate(tx, place, other.id)
        return noted
