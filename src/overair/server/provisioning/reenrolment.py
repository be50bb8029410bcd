"""A device asks for the certificate after its present one, and shows the present one while it asks (RFC 7030 §4.2.2).

At the default level this server issues again what it has issued. What it may not issue, because the level is production or the
present certificate comes from elsewhere, waits for an authority of the operator's own where his rule says so: the request lies
here until somebody answers it, and the device asks again meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509 as pyca
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AccessDenied, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, CertificateId, IdSource, ThingName
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.model import CREDENTIAL_ORIGIN, AuthorityPurpose, DeviceCertificate
from overair.server.certificates.service import AuthoritiesService, CertificatesService
from overair.server.provisioning.certificate_paths import Anchor, PathRefused, PresentedChain, verify_path
from overair.server.provisioning.first_contact import FirstContacts
from overair.server.provisioning.levels import Levels
from overair.server.provisioning.minting import Minting
from overair.server.provisioning.model import OPERATOR_ORIGIN, Renewal
from overair.server.provisioning.ports import Store
from overair.server.provisioning.renewal_model import (
    REASON_OF_REFUSAL_LENGTH_MAX,
    AnotherKey,
    RenewalRequest,
    RenewalRequestState,
    judge_another_key,
)
from overair.server.provisioning.renewals import Renewals

CHAIN_SIZE_BYTES_MAX: Final = 64 * 1024
CHAIN_CERTIFICATES_MAX: Final = 6
_CLIENT_PURPOSES: Final = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Nobody has answered yet: ask again with the same request."""

    retry_after_s: int


Answer = tuple[pyca.Certificate, ...] | Waits
"""The new certificate first, then what an authority elsewhere sent with it."""


class Reenrolment:
    """Decides who issues, and keeps what waits."""

    def __init__(
        self,
        *,
        store: Store,
        levels: Levels,
        minting: Minting,
        renewals: Renewals,
        contacts: FirstContacts,
        authorities: AuthoritiesService,
        certificates: CertificatesService,
        server_account: AccountId,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._store = store
        self._levels = levels
        self._minting = minting
        self._renewals = renewals
        self._contacts = contacts
        self._authorities = authorities
        self._certificates = certificates
        self._server_account = server_account
        self._clock = clock
        self._ids = ids

    def standing_answer(
        self, tx: Tx, place: Place, device: ThingName, current: CertificateId, request: x509.SigningRequest
    ) -> Answer | None:
        """What became of the same request, where it waits or was answered; None where it is a new one. Changes nothing: a
        device that asks every minute costs no commit.

        Raises:
            AccessDenied: it was refused. Subject ``renewal-refused``.
        """
        standing = self._store.find_request(tx, place.account, device)
        if standing is None or standing.certificate_id != current or standing.key_sha256 != x509.key_fingerprint(request):
            return None
        if standing.state is RenewalRequestState.REFUSED:
            raise AccessDenied(
                f"The renewal was refused: {standing.reason or 'no reason was given'}.", subject="renewal-refused"
            )
        if standing.state is RenewalRequestState.ANSWERED:
            return tuple(x509.anchors_from_pem(standing.chain_pem))
        return Waits(retry_after_s=self._renewals.rule(tx, place.account).retry_after_s)

    def ask(
        self,
        tx: Tx,
        place: Place,
        device: ThingName,
        current: CertificateId,
        request: x509.SigningRequest,
        *,
        source_ip: str,
    ) -> Answer:
        """Issue the next certificate of a device that has shown ``current``, or have the request wait.

        Raises:
            NotFound: nobody issues for this device here. Subject ``renewal``.
            InvalidRequest: the request is for another name than the present certificate's. Subject
                ``certificate-signing-request``.
            AccessDenied: it was refused. Subject ``renewal-refused``.
        """
        answered = self.standing_answer(tx, place, device, current, request)
        if answered is not None:
            return answered
        standing = self._certificates.find(tx, place, current)
        _check_subject(request, standing)
        key = x509.accepted_public_key(request, field="certificate signing request")
        # The connection proves the certificate's key; it is the present one's unless its successor was used already.
        is_present = not self._is_superseded(tx, standing)
        if judge_another_key(is_proved=is_present, is_in_time=False, renewal=Renewal.DENY) is not AnotherKey.RENEWAL:
            raise AccessDenied(
                "Another certificate has followed this one and was used: only that one is renewed. If this is the same device, "
                "restored from a copy, give it a new certificate.",
                subject="renewal-superseded",
            )
        leaf = self._issue(tx, place, device, standing, key) if self._levels.is_on(tx, place.account) else None
        if leaf is not None:
            self._renewals.follow(tx, place, device, old=current, leaf=leaf, origin=standing.origin, source_ip=source_ip)
            return (leaf,)
        rule = self._renewals.rule(tx, place.account)
        if not rule.relay:
            raise NotFound(
                "This server issues no certificates for this device. Renew it where its certificate comes from.",
                subject="renewal",
            )
        self._store.put_request(
            tx,
            RenewalRequest(
                account=place.account,
                thing=device,
                certificate_id=current,
                request_pem=request.public_bytes(Encoding.PEM).decode("ascii"),
                key_sha256=x509.key_fingerprint(request),
                state=RenewalRequestState.WAITING,
                requested_at=self._clock.now(),
            ),
        )
        return Waits(retry_after_s=rule.retry_after_s)

    def alarm(self, tx: Tx, place: Place, device: ThingName, current: CertificateId, *, source_ip: str) -> None:
        """Write down that the holder of a replaced certificate has asked for a further one."""
        standing = self._certificates.find(tx, place, current)
        self._contacts.note_superseded(tx, place, device, standing, source_ip=source_ip)

    def authorities_for(self, tx: Tx, place: Place, current: CertificateId) -> tuple[pyca.Certificate, ...]:
        """What RFC 7030 calls the CA certificates: who vouches for this server, newest first, then who issued the present
        certificate, where that was this server."""
        own = self._own_issuer(tx, place, self._certificates.find(tx, place, current))
        return (*self.server_authorities(tx), *(() if own is None else (own,)))

    def server_authorities(self, tx: Tx) -> tuple[pyca.Certificate, ...]:
        """Who vouches for this server, newest first."""
        return tuple(x509.anchors_from_pem(self._authorities.server_authority_pem(tx, self._server_account)))

    def is_trusted_by(self, tx: Tx, certificate: CertificateId, authority: CertificateId) -> bool:
        """Whether a certificate's device is known to have stored this server authority."""
        return self._certificates.trusts(tx, certificate) == authority

    def note_trust(self, tx: Tx, certificate: CertificateId, authority: CertificateId) -> None:
        """It has said so."""
        self._certificates.note_trust(tx, certificate, authority)

    # What operators say to it -----------------------------------------------------------------------------------------------

    def page(
        self, tx: Tx, account: AccountId, *, state: RenewalRequestState | None, after: str | None, limit: int
    ) -> Sequence[RenewalRequest]:
        """Requests that an authority elsewhere answers, by thing."""
        return self._store.page_requests(tx, account, state=state, after=after, limit=limit)

    def find(self, tx: Tx, account: AccountId, thing: ThingName) -> RenewalRequest:
        """The request of one thing.

        Raises:
            NotFound: there is none. Subject ``renewal-request``.
        """
        found = self._store.find_request(tx, account, thing)
        if found is None:
            raise NotFound(f"{thing} has asked for no renewal that an authority elsewhere answers.", subject="renewal-request")
        return found

    def answer(self, tx: Tx, place: Place, thing: ThingName, chain: list[pyca.Certificate], *, by: str) -> CertificateId:
        """Give a device the certificate that an authority elsewhere has issued for its request.

        Raises:
            NotFound: there is no request. Subject ``renewal-request``.
            Conflict: it was answered already. Subject ``renewal-request``.
            InvalidRequest: the certificate isn't for this request. Subject ``certificate``.
            AlreadyExists: it is registered. Subject ``certificate``.
        """
        request = self._waiting(tx, place.account, thing)
        leaf = chain[0]
        self._check_answer(leaf, request)
        identity = self._renewals.follow(
            tx,
            place,
            thing,
            old=request.certificate_id,
            leaf=leaf,
            origin=self._origin(tx, place, chain),
            source_ip="",  # the device asked some time ago; who has answered stands in a row of his own
        )
        self._store.put_request(
            tx,
            _answered(
                request,
                RenewalRequestState.ANSWERED,
                chain_pem="".join(x509.pem_of(each) for each in chain),
                by=by,
                clock=self._clock,
            ),
        )
        return identity

    def refuse(self, tx: Tx, place: Place, thing: ThingName, *, reason: str, by: str) -> None:
        """Have a device hear that it gets none; a request with another key is a new one.

        Raises:
            NotFound, Conflict: as of ``answer``.
            InvalidRequest: the reason is too long. Subject ``reason``.
        """
        if len(reason) > REASON_OF_REFUSAL_LENGTH_MAX or not reason.isprintable():
            raise InvalidRequest(f"A reason has at most {REASON_OF_REFUSAL_LENGTH_MAX} printable characters.", subject="reason")
        request = self._waiting(tx, place.account, thing)
        self._store.put_request(tx, _answered(request, RenewalRequestState.REFUSED, reason=reason, by=by, clock=self._clock))

    # ----------------------------------------------------------------------------------------------------------------------

    def _issue(
        self, tx: Tx, place: Place, device: ThingName, standing: DeviceCertificate, key: x509.PublicKey
    ) -> pyca.Certificate | None:
        """The next one by whichever of our own authorities issued the standing one; None where none did."""
        if standing.origin.startswith(CREDENTIAL_ORIGIN):
            return self._minting.issue_again(tx, place, device, standing, key)
        if self._own_issuer(tx, place, standing) is None:
            return None
        present = x509.certificate_from_pem(standing.pem.encode("ascii"))
        now = self._clock.now()
        return x509.issue_device(
            self._authorities.device_issuer(tx, place.account),
            present.subject,
            key,
            now=now,
            serial=self._ids.secret_bytes(x509.SERIAL_NUMBER_SIZE_BYTES),
            until=Instant(min(now + standing.not_after - standing.not_before, x509.DEVICE_CERTIFICATE_NOT_AFTER)),
        )

    def _is_superseded(self, tx: Tx, standing: DeviceCertificate) -> bool:
        successor = None if standing.replaced_by is None else self._certificates.find_anywhere(tx, standing.replaced_by)
        return successor is not None and successor.first_used_at is not None

    def _own_issuer(self, tx: Tx, place: Place, standing: DeviceCertificate) -> pyca.Certificate | None:
        leaf = x509.certificate_from_pem(standing.pem.encode("ascii"))
        fleet = self._authorities.find_provisioning_authority(tx, place.account, AuthorityPurpose.FLEET_AUTHORITY)
        for pem in (None if fleet is None else fleet.pem, self._authorities.find_device_authority_pem(tx, place.account)):
            if pem is None:
                continue
            issuer = x509.certificate_from_pem(pem.encode("ascii"))
            if x509.directly_issued(leaf, issuer):
                return issuer
        return None

    def _waiting(self, tx: Tx, account: AccountId, thing: ThingName) -> RenewalRequest:
        found = self.find(tx, account, thing)
        if found.state is not RenewalRequestState.WAITING:
            raise Conflict(f"The renewal of {thing} is {found.state.value} already.", subject="renewal-request")
        return found

    def _check_answer(self, leaf: pyca.Certificate, request: RenewalRequest) -> None:
        asked = x509.signing_request_from_pem(request.request_pem)
        if x509.key_fingerprint(leaf) != request.key_sha256:
            raise _no_answer(f"its key isn't the one that {request.thing} has asked for")
        if _names(leaf.subject) != _names(asked.subject):
            raise _no_answer("its common name isn't the one of the request")
        if not x509.not_before(leaf) <= self._clock.now() <= x509.not_after(leaf):
            raise _no_answer("it doesn't hold now")
        try:
            purposes = set(leaf.extensions.get_extension_for_class(pyca.ExtendedKeyUsage).value)
        except pyca.ExtensionNotFound:
            purposes = set()
        if purposes and _CLIENT_PURPOSES.isdisjoint(purposes):
            raise _no_answer("its extended key usage doesn't contain clientAuth")

    def _origin(self, tx: Tx, place: Place, chain: list[pyca.Certificate]) -> str:
        """The fleet authority that stands behind it, so that it goes with it when that is withdrawn; else the operator."""
        anchors = [
            Anchor(each.id, x509.certificate_from_pem(each.pem.encode("ascii")))
            for each in self._store.authorities(tx, place.account)
        ]
        ders = [x509.der_of(each) for each in chain]
        try:
            path = verify_path(PresentedChain.read(ders[0], ders[1:]), anchors, now=self._clock.now())
        except PathRefused:
            return OPERATOR_ORIGIN
        found = self._store.find_authority(tx, place.account, path.authority)
        return OPERATOR_ORIGIN if found is None else found.origin


def read_answer(pem: str) -> list[pyca.Certificate]:
    """What an operator brings from his authority: the new certificate, then what goes with it.

    Raises:
        InvalidRequest: subject ``certificate``.
    """
    return x509.certificates_from_pem(
        pem.encode("utf-8", "replace"), size_bytes_max=CHAIN_SIZE_BYTES_MAX, count_max=CHAIN_CERTIFICATES_MAX
    )


def _answered(
    request: RenewalRequest,
    state: RenewalRequestState,
    *,
    chain_pem: str = "",
    reason: str = "",
    by: str,
    clock: Clock,
) -> RenewalRequest:
    return RenewalRequest(
        account=request.account,
        thing=request.thing,
        certificate_id=request.certificate_id,
        request_pem=request.request_pem,
        key_sha256=request.key_sha256,
        state=state,
        requested_at=request.requested_at,
        answered_at=clock.now(),
        answered_by=by,
        chain_pem=chain_pem,
        reason=reason,
    )


def _check_subject(request: x509.SigningRequest, standing: DeviceCertificate) -> None:
    present = x509.certificate_from_pem(standing.pem.encode("ascii")).subject
    if not _names(present) or _names(request.subject) != _names(present):
        raise InvalidRequest(
            f"The certificate signing request must have the common name of the present certificate, "
            f"{', '.join(_names(present)) or 'which has none'}, and no other: a certificate is renewed for the same name only.",
            subject="certificate-signing-request",
            details={"field": "subject"},
        )


def _names(subject: pyca.Name) -> list[str]:
    return [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _no_answer(why: str) -> InvalidRequest:
    return InvalidRequest(f"The certificate doesn't answer the request: {why}.", subject="certificate")
