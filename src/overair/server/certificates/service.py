"""The registry of device certificates: what an operator may do with them, and who a fingerprint belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cryptography import x509

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, CertificateId, IdSource
from overair.basics.work import Tx
from overair.server.certificates import x509 as certificates_x509
from overair.server.certificates.acm import AcmImport, AcmQuery, AcmService, InUse
from overair.server.certificates.authorities import AuthoritiesService, ServerAuthorities, ServerIdentity
from overair.server.certificates.model import (
    MAY_BE_DELETED,
    OPERATOR_MAY_NAME,
    OPERATOR_MAY_SET,
    CertificateMode,
    CertificateStatus,
    CertificateSummary,
    DeviceCertificate,
)

__all__ = [
    "AcmImport",
    "AcmQuery",
    "AcmService",
    "AuthoritiesService",
    "CertificateStore",
    "CertificateUses",
    "CertificatesService",
    "InUse",
    "IssuedCertificate",
    "ServerAuthorities",
    "ServerIdentity",
]

DEVICE_SUBJECT = "AWS IoT Certificate"
"""The common name of every certificate that CreateKeysAndCertificate makes (wire reference §9.4)."""


class CertificateStore(Protocol):
    """The registry's rows."""

    def find(self, tx: Tx, certificate: CertificateId) -> DeviceCertificate | None:
        """By fingerprint, whatever the account: fingerprints are unique on the server."""
        ...

    def insert(self, tx: Tx, certificate: DeviceCertificate) -> None: ...

    def of_key(self, tx: Tx, account: AccountId, key_sha256: str, *, limit: int) -> Sequence[DeviceCertificate]: ...

    def set_status(self, tx: Tx, certificate: DeviceCertificate) -> None:
        """Write status, version and modification time."""
        ...

    def set_succession(self, tx: Tx, certificate: DeviceCertificate) -> None:
        """Write which one it replaces and which one replaces it, when it was first used, may retire and was retired, and
        which server authority its device trusts."""
        ...

    def due_to_retire(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[DeviceCertificate]:
        """Of every account: those whose moment has come and whose successor was used, the longest due first."""
        ...

    def page_without_trust(
        self, tx: Tx, authority: CertificateId, now: Instant, *, after: str | None, limit: int
    ) -> Sequence[tuple[AccountId, CertificateId]]:
        """Of every account: ACTIVE ones that hold now, that nothing has replaced, and whose devices aren't known to trust the
        authority; by id."""
        ...

    def successors(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[DeviceCertificate]:
        """Those that replace another, by id."""
        ...

    def move(self, tx: Tx, certificate: DeviceCertificate, source: AccountId) -> None:
        """Write account, origin, status, version, modification time and renewals of one that ``source`` has had."""
        ...

    def drop_transfer(self, tx: Tx, certificate: CertificateId) -> None:
        """Forget that it was on its way into another account."""
        ...

    def delete(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        """With what is known of its transfer."""
        ...

    def page(
        self,
        tx: Tx,
        account: AccountId,
        *,
        after: tuple[int, str] | None,
        limit: int,
        ascending: bool,
        origin: str | None = None,
    ) -> Sequence[CertificateSummary]:
        """By (creation time, id), from just after a position; of one origin, where it is named."""
        ...

    def whole_page(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[DeviceCertificate]:
        """The same with everything, oldest first."""
        ...


class CertificateUses(Protocol):
    """What hangs on a registered certificate: things and policies. Implemented above, by devices."""

    def has_things(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        """Whether a thing is attached."""
        ...

    def has_policies(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        """Whether a policy is attached."""
        ...

    def detach_policies(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        """Take away every policy (DeleteCertificate with forceDelete)."""
        ...

    def changed(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        """The certificate's status changed or it is gone: live sessions are judged again after the commit."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A new registration as the operator hears of it."""

    arn: str
    id: CertificateId
    pem: str


class CertificatesService:
    """Registers, describes, changes and removes device certificates.

    Raises, everywhere: ``NotFound(subject="certificate")``, ``AlreadyExists(subject="certificate")``,
    ``Conflict(subject="certificate-state")``, ``Conflict(subject="delete")``, ``InvalidRequest``.
    """

    def __init__(self, *, store: CertificateStore, clock: Clock, ids: IdSource, authorities: AuthoritiesService) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._authorities = authorities
        self._uses: list[CertificateUses] = []

    def used_by(self, uses: CertificateUses) -> None:
        """Register, at composition, a room above that attaches things to certificates."""
        self._uses.append(uses)

    def issue(
        self,
        tx: Tx,
        place: Place,
        *,
        public_key: certificates_x509.PublicKey,
        active: bool,
        subject: x509.Name | None = None,
        status: CertificateStatus | None = None,
        until: Instant = certificates_x509.DEVICE_CERTIFICATE_NOT_AFTER,
    ) -> IssuedCertificate:
        """A new certificate by the account's device authority, for a key that was made elsewhere.

        ``status``, where it is given, beats ``active``.
        """
        now = self._clock.now()
        leaf = certificates_x509.issue_device(
            self._authorities.device_issuer(tx, place.account),
            subject or certificates_x509.common_name(DEVICE_SUBJECT),
            public_key,
            now=now,
            serial=self._ids.secret_bytes(certificates_x509.SERIAL_NUMBER_SIZE_BYTES),
            until=until,
        )
        return self._register(
            tx,
            place,
            leaf,
            status=status or (CertificateStatus.ACTIVE if active else CertificateStatus.INACTIVE),
            mode=CertificateMode.DEFAULT,
            now=now,
        )

    def issue_for_request(
        self, tx: Tx, place: Place, request: x509.CertificateSigningRequest, *, active: bool
    ) -> IssuedCertificate:
        """A new certificate for a checked signing request; the same request again gives another certificate."""
        key = certificates_x509.accepted_public_key(request, field="certificate signing request")
        return self.issue(tx, place, public_key=key, active=active, subject=request.subject if list(request.subject) else None)

    def register_without_authority(
        self, tx: Tx, place: Place, certificate: x509.Certificate, *, status: CertificateStatus
    ) -> IssuedCertificate:
        """Register a certificate from anyone's issuer (RegisterCertificateWithoutCA, mode SNI_ONLY)."""
        if status not in OPERATOR_MAY_NAME:
            raise InvalidRequest(
                f"A certificate can't be registered as {status.value}. Use ACTIVE, INACTIVE or REVOKED.",
                subject="certificate-status",
            )
        certificates_x509.accepted_public_key(certificate, field="certificate")
        certificates_x509.refuse_broken_hash(certificate)
        now = self._clock.now()
        if now > certificates_x509.not_after(certificate):
            raise InvalidRequest(
                f"The certificate expired at {certificate.not_valid_after_utc.isoformat()}; it could never connect.",
                subject="certificate-validation",
            )
        return self._register(tx, place, certificate, status=status, mode=CertificateMode.SNI_ONLY, now=now)

    def register(
        self, tx: Tx, place: Place, certificate: x509.Certificate, *, origin: str, status: CertificateStatus
    ) -> IssuedCertificate:
        """Register a certificate whose issuer was already found good: by provisioning, which says in ``origin`` why."""
        certificates_x509.accepted_public_key(certificate, field="certificate")
        certificates_x509.refuse_broken_hash(certificate)
        return self._register(
            tx, place, certificate, status=status, mode=CertificateMode.DEFAULT, now=self._clock.now(), origin=origin
        )

    def find(self, tx: Tx, place: Place, certificate: CertificateId) -> DeviceCertificate:
        """A registration of this account."""
        found = self._store.find(tx, certificate)
        if found is None or found.account != place.account:
            raise NotFound(
                f"No certificate {certificate} is registered in account {place.account}.",
                subject="certificate",
            )
        return found

    def find_anywhere(self, tx: Tx, certificate: CertificateId) -> DeviceCertificate | None:
        """By fingerprint alone: how a connecting device names its account."""
        return self._store.find(tx, certificate)

    def of_key(self, tx: Tx, account: AccountId, key_sha256: str, *, limit: int) -> Sequence[DeviceCertificate]:
        """Registrations of one public key, whatever their status."""
        return self._store.of_key(tx, account, key_sha256, limit=limit)

    def page(
        self,
        tx: Tx,
        account: AccountId,
        *,
        after: tuple[int, str] | None,
        limit: int,
        ascending: bool,
        origin: str | None = None,
    ) -> Sequence[CertificateSummary]:
        """Registrations by creation time, newest first unless ``ascending``."""
        return self._store.page(tx, account, after=after, limit=limit, ascending=ascending, origin=origin)

    def has_things(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        """Whether a thing is attached to it."""
        return any(uses.has_things(tx, account, certificate) for uses in self._uses)

    def whole_page(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[DeviceCertificate]:
        """Registrations with their certificates, oldest first."""
        return self._store.whole_page(tx, account, after=after, limit=limit)

    def set_status(self, tx: Tx, place: Place, certificate: CertificateId, status: CertificateStatus) -> None:
        """Change the status as the table of the model allows; live sessions of a certificate no longer ACTIVE are cut."""
        if status not in OPERATOR_MAY_NAME:
            raise InvalidRequest(
                f"{status.value} can't be set by an operator. Use ACTIVE, INACTIVE or REVOKED.", subject="certificate-status"
            )
        found = self.find(tx, place, certificate)
        if status not in OPERATOR_MAY_SET.get(found.status, frozenset()):
            is_leaving = found.status is CertificateStatus.PENDING_TRANSFER
            way_out = "Cancel its transfer" if is_leaving else "A revocation is final: give the device a new certificate"
            raise Conflict(
                f"The certificate {certificate} is {found.status.value} and can't become {status.value}. {way_out}.",
                subject="certificate-state",
                details={"resourceId": certificate},
            )
        if status is found.status:
            return
        self.become(tx, found, status)

    # One that follows another --------------------------------------------------------------------------------------------

    def succeed(self, tx: Tx, place: Place, *, old: CertificateId, new: CertificateId, retires_at: Instant) -> None:
        """The new one replaces the old one; both are good until the old one's moment has come and the new one was used."""
        successor, present = self.find(tx, place, new), self.find(tx, place, old)
        self._store.set_succession(tx, replace(successor, replaces=old, trusts=successor.trusts or present.trusts))
        self._store.set_succession(tx, replace(present, replaced_by=new, retires_at=retires_at))

    def mark_used(self, tx: Tx, certificate: CertificateId) -> None:
        """One that replaces another has let its device in. Again is fine."""
        found = self._store.find(tx, certificate)
        if found is not None and found.awaits_first_use:
            self._store.set_succession(tx, replace(found, first_used_at=self._clock.now()))

    def trusts(self, tx: Tx, certificate: CertificateId) -> CertificateId | None:
        """The newest server authority that the certificate's device is known to have stored."""
        found = self._store.find(tx, certificate)
        return None if found is None else found.trusts

    def note_trust(self, tx: Tx, certificate: CertificateId, authority: CertificateId) -> None:
        """The certificate's device has stored this server authority."""
        found = self._store.find(tx, certificate)
        if found is not None:
            self._store.set_succession(tx, replace(found, trusts=authority))

    def page_without_trust(
        self, tx: Tx, authority: CertificateId, *, after: str | None, limit: int
    ) -> Sequence[tuple[AccountId, CertificateId]]:
        """Of every account: certificates that open something, and whose devices aren't known to have stored this server
        authority; by id."""
        return self._store.page_without_trust(tx, authority, self._clock.now(), after=after, limit=limit)

    def due_to_retire(self, tx: Tx, *, limit: int) -> Sequence[DeviceCertificate]:
        """Of every account: the ones to retire now."""
        return self._store.due_to_retire(tx, self._clock.now(), limit=limit)

    def retire(self, tx: Tx, place: Place, certificate: CertificateId) -> None:
        """Another one has followed: this one opens nothing any more, and its live sessions are cut. An operator who set it to
        something else meanwhile is obeyed."""
        found = self.find(tx, place, certificate)
        self._store.set_succession(tx, replace(found, retired_at=self._clock.now()))
        if found.status is CertificateStatus.ACTIVE:
            self.set_status(tx, place, certificate, CertificateStatus.INACTIVE)

    def successors(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[DeviceCertificate]:
        """Certificates that replace another, by id."""
        return self._store.successors(tx, account, after=after, limit=limit)

    def become(self, tx: Tx, certificate: DeviceCertificate, status: CertificateStatus) -> None:
        """Change the status for a process of the server's own: whoever calls knows that it may follow."""
        now = self._clock.now()
        self._store.set_status(tx, replace(certificate, status=status, version=certificate.version + 1, modified_at=now))
        if status is CertificateStatus.REVOKED:
            self._store.drop_transfer(tx, certificate.id)
        self._tell_changed(tx, certificate.account, certificate.id)

    def hand_over(self, tx: Tx, certificate: DeviceCertificate, account: AccountId, status: CertificateStatus) -> None:
        """Make it another account's own. Nobody of that account has vouched for it, and no renewal in the old one has a say."""
        moved = replace(
            certificate,
            account=account,
            origin="",
            status=status,
            version=certificate.version + 1,
            modified_at=self._clock.now(),
            replaces=None,
            replaced_by=None,
            first_used_at=None,
            retires_at=None,
            retired_at=None,
            trusts=None,
        )
        self._store.move(tx, moved, certificate.account)
        for each in (certificate.account, account):
            self._tell_changed(tx, each, certificate.id)

    def require_attachable(self, tx: Tx, place: Place, certificate: CertificateId) -> None:
        """Return if things and policies can be attached to it: it is there, and not on its way out."""
        if self.find(tx, place, certificate).status is CertificateStatus.PENDING_TRANSFER:
            raise Conflict(
                f"The certificate {certificate} is being transferred into another account: nothing can be attached to it.",
                subject="certificate-state",
                details={"resourceId": certificate},
            )

    def has_uses(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        """Whether a thing or a policy is attached to it."""
        return any(
            uses.has_things(tx, account, certificate) or uses.has_policies(tx, account, certificate) for uses in self._uses
        )

    def delete(self, tx: Tx, place: Place, certificate: CertificateId, *, force: bool) -> None:
        """Remove a registration (DeleteCertificate, wire reference §9.4): not while ACTIVE, nor with things attached, nor
        with policies attached unless ``force``."""
        found = self.find(tx, place, certificate)
        if found.status not in MAY_BE_DELETED:
            raise Conflict(
                f"The certificate {certificate} is {found.status.value}. Set it INACTIVE or REVOKED before deleting it.",
                subject="certificate-state",
                details={"resourceId": certificate},
            )
        if any(uses.has_things(tx, place.account, certificate) for uses in self._uses):
            raise Conflict(
                f"Things must be detached before deletion (arn: {place.iot('cert', certificate)}).", subject="delete"
            )
        if not force and any(uses.has_policies(tx, place.account, certificate) for uses in self._uses):
            raise Conflict(
                f"Certificate policies must be detached before deletion (arn: {place.iot('cert', certificate)}), "
                "or use forceDelete.",
                subject="delete",
            )
        for uses in self._uses:
            uses.detach_policies(tx, place.account, certificate)
        self._store.delete(tx, place.account, certificate)
        self._tell_changed(tx, place.account, certificate)

    def _register(
        self,
        tx: Tx,
        place: Place,
        certificate: x509.Certificate,
        *,
        status: CertificateStatus,
        mode: CertificateMode,
        now: Instant,
        origin: str = "",
    ) -> IssuedCertificate:
        identity = certificates_x509.fingerprint(certificate)
        standing = self._store.find(tx, identity)
        if standing is not None:
            details: dict[str, object] = {"resourceId": identity}
            if standing.account == place.account:
                details["resourceArn"] = place.iot("cert", identity)
            raise AlreadyExists(
                f"The certificate is already registered. ID: {identity}.", subject="certificate", details=details
            )
        row = DeviceCertificate(
            account=place.account,
            id=identity,
            pem=certificates_x509.pem_of(certificate),
            status=status,
            mode=mode,
            not_before=certificates_x509.not_before(certificate),
            not_after=certificates_x509.not_after(certificate),
            created_at=now,
            modified_at=now,
            version=1,
            generation_id=self._ids.uuid(),
            origin=origin,
            key_sha256=certificates_x509.key_fingerprint(certificate),
        )
        self._store.insert(tx, row)
        return IssuedCertificate(arn=place.iot("cert", identity), id=identity, pem=row.pem)

    def _tell_changed(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        for uses in self._uses:
            uses.changed(tx, account, certificate)
