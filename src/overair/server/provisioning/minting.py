"""Devices that this server makes: a certificate for whoever shows a shared credential, and its renewal.

Uptane reference §3.2 (``POST /devices``), §12.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509 as pyca
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AccessDenied, AlreadyExists
from overair.basics.ids import AccountId, IdSource, ThingName
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.model import AuthorityPurpose, DeviceCertificate
from overair.server.certificates.service import AuthoritiesService, CertificatesService
from overair.server.devices.blocks import BlockKind, BlocksService
from overair.server.provisioning.enrolment import Belongings, Enrolment
from overair.server.provisioning.levels import Levels
from overair.server.provisioning.model import (
    CERTIFICATE_DAYS_DEFAULT,
    DAY_MS,
    CredentialId,
    CredentialState,
    DeviceKeyType,
    ProvisionedDevice,
    SharedCredential,
)
from overair.server.provisioning.ports import Store

DeviceKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_REFUSED: Final = {
    CredentialState.REVOKED: "This shared credential was revoked. Ask the operator for a new one.",
    CredentialState.EXPIRED: "This shared credential has expired. Ask the operator for a new one.",
    CredentialState.EXHAUSTED: "This shared credential has made as many devices as it may. Ask the operator for a new one.",
}


def new_key(kind: DeviceKeyType) -> DeviceKey:
    """A device's private key. RSA takes a tenth of a second: on a thread, never inside a transaction."""
    if kind is DeviceKeyType.RSA_2048:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedDevice:
    """A device's new certificate, and the authorities that go with it."""

    certificate: pyca.Certificate
    fleet_authority: pyca.Certificate
    server_authorities: tuple[pyca.Certificate, ...]
    """Who vouches for what this server shows, and for what it will show: a client trusts what comes beside its
    certificate (Uptane reference §3.2)."""
    is_reissue: bool


class Minting:
    """Issues device certificates by the account's fleet authority.

    Raises, everywhere: ``Conflict(subject="shared-provisioning-off")``, ``AccessDenied`` (subjects ``credential-revoked``,
    ``credential-expired``, ``credential-exhausted``, ``device-blocked``), ``AlreadyExists(subject="device")``.
    """

    def __init__(
        self,
        *,
        store: Store,
        certificates: CertificatesService,
        authorities: AuthoritiesService,
        levels: Levels,
        enrolment: Enrolment,
        blocks: BlocksService,
        server_account: AccountId,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """``server_account`` is the account whose authority vouches for this server's certificate."""
        self._store = store
        self._certificates = certificates
        self._authorities = authorities
        self._levels = levels
        self._enrolment = enrolment
        self._blocks = blocks
        self._server_account = server_account
        self._clock = clock
        self._ids = ids

    def check(self, tx: Tx, place: Place, credential: CredentialId, device: ThingName) -> SharedCredential:
        """See whether a credential may have a certificate for this id, before a key is made for it."""
        self._levels.require_on(tx, place.account)
        found = self._store.find_credential(tx, place.account, credential)
        state = CredentialState.REVOKED if found is None else found.state(self._clock.now())
        if found is None or state in (CredentialState.REVOKED, CredentialState.EXPIRED):
            raise _refused(state)
        if self._blocks.find(tx, place.account, BlockKind.THING, device) is not None:
            raise AccessDenied("This device id is blocked.", subject="device-blocked", details={"field": "deviceId"})
        unfinished = self._unfinished(tx, found, device)
        if unfinished is None:
            if self._enrolment.has_thing(tx, place.account, device):
                raise AlreadyExists(
                    f"A device with the id {device} is registered already.",
                    subject="device",
                    details={
                        "field": "deviceId",
                        "hint": "Choose another id. If this is the same device made anew, delete the old one first.",
                    },
                )
            # The same id again, before it registered its ECUs, is no further use: it may come although none is left.
            if state is not CredentialState.USABLE:
                raise _refused(state)
        return found

    def mint(
        self,
        tx: Tx,
        place: Place,
        credential: CredentialId,
        device: ThingName,
        public_key: x509.PublicKey,
        *,
        ttl_days: int | None,
        source_ip: str,
    ) -> MintedDevice:
        """Make a device: its thing, and a certificate with its id as the one common name.

        ``ttl_days`` is what the device asks for, cut to what its credential allows. For an id that the same credential made and
        that never registered its ECUs, the earlier certificate is forgotten: a device that lost the answer comes again.
        """
        found = self.check(tx, place, credential, device)
        unfinished = self._unfinished(tx, found, device)
        if unfinished is not None:
            self._enrolment.forget(tx, place, device, unfinished.certificate_id)
        elif not self._store.count_use(tx, place.account, credential):
            raise _refused(CredentialState.EXHAUSTED)
        now = self._clock.now()
        days = min(ttl_days or CERTIFICATE_DAYS_DEFAULT, found.certificate_days_max)
        issuer = self._authorities.provisioning_issuer(tx, place.account, AuthorityPurpose.FLEET_AUTHORITY)
        leaf = self._issue(issuer, device, public_key, now=now, until=Instant(now + days * DAY_MS))
        identity = self._enrolment.enrol(
            tx,
            place,
            device,
            leaf,
            origin=found.origin,
            belongings=Belongings(policy=found.policy),
            source_ip=source_ip,
        )
        self._store.put_device(
            tx,
            ProvisionedDevice(
                account=place.account,
                thing=device,
                origin=found.origin,
                certificate_id=identity,
                created_at=now if unfinished is None else unfinished.created_at,
                source_ip=source_ip,
                reissues=0 if unfinished is None else unfinished.reissues + 1,
            ),
        )
        assert issuer.certificate is not None
        return MintedDevice(
            certificate=leaf,
            fleet_authority=issuer.certificate,
            server_authorities=tuple(x509.anchors_from_pem(self._authorities.server_authority_pem(tx, self._server_account))),
            is_reissue=unfinished is not None,
        )

    def issue_again(
        self, tx: Tx, place: Place, device: ThingName, standing: DeviceCertificate, key: x509.PublicKey
    ) -> pyca.Certificate:
        """A further certificate by the fleet authority, for as long as the standing one was given for. Not registered yet."""
        now = self._clock.now()
        issuer = self._authorities.provisioning_issuer(tx, place.account, AuthorityPurpose.FLEET_AUTHORITY)
        return self._issue(issuer, device, key, now=now, until=Instant(now + standing.not_after - standing.not_before))

    def _unfinished(self, tx: Tx, credential: SharedCredential, device: ThingName) -> ProvisionedDevice | None:
        """The device of this id, if this credential made it and it never registered its ECUs."""
        found = self._store.find_device(tx, credential.account, device)
        if found is None or found.origin != credential.origin or found.registered_at is not None:
            return None
        # A thing that an operator deleted meanwhile leaves its id free.
        return found if self._enrolment.has_thing(tx, credential.account, device) else None

    def _issue(
        self, issuer: x509.Issuer, device: ThingName, public_key: x509.PublicKey, *, now: Instant, until: Instant
    ) -> pyca.Certificate:
        return x509.issue_device(
            issuer,
            device_subject(device),
            public_key,
            now=now,
            until=Instant(min(until, x509.DEVICE_CERTIFICATE_NOT_AFTER)),
            serial=self._ids.secret_bytes(x509.SERIAL_NUMBER_SIZE_BYTES),
        )


def device_subject(device: ThingName) -> pyca.Name:
    """A subject whose one common name is the device's id. X.520 would end it at 64 characters, a thing's name has up to 128:
    every TLS library reads them."""
    return pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, device, _validate=False)])


def _refused(state: CredentialState) -> AccessDenied:
    return AccessDenied(_REFUSED[state], subject=f"credential-{state.value}")
