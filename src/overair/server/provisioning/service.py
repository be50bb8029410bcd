"""How devices come in, and are kept out. What other rooms may call:

``ProvisioningService`` (joined in ``composition`` as ``provisioning``):

- ``completed(tx, account, thing)``: the Director calls it in the unit that registers a thing's ECUs. From then on the id is
  taken, for the shared credential that made it too. Again is fine, and so is a thing that came in another way.
- ``origin_of(tx, account, thing)``: how a thing came in (``ProvisionedDevice``: credential or authority, when, from where).
- ``register_device(tx, place, certificate, ...)``: a device by its public certificate (``PUT /api/v1/devices``).
- ``retire(tx, place, thing, by=...)``: before a device is deleted, take its certificates away and keep its name out;
  ``block``/``unblock``, ``is_blocked``.
- ``status(tx, account)``: level, own fleet key, authorities, and which backups still hold a destroyed key.

The device door's ``DeviceAuthenticator`` is ``authenticator.ProvisioningAuthenticator``; the same road serves MQTT, through
``devices.authority.RegistryAuthority`` and ``first_contact.Introductions``.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509 as pyca

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict, InvalidRequest
from overair.basics.ids import AccountId, CertificateId, GroupName, ThingName
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.model import CertificateStatus
from overair.server.devices.blocks import REASON_LENGTH_MAX, Block, BlockKind, BlocksService
from overair.server.provisioning.certificate_paths import PathRefused, device_name
from overair.server.provisioning.credentials import Credentials
from overair.server.provisioning.enrolment import Belongings, Enrolment
from overair.server.provisioning.first_contact import ANOMALIES_OF_THING_MAX, FirstContacts, Introductions
from overair.server.provisioning.fleet_authorities import FleetAuthorities
from overair.server.provisioning.levels import Levels
from overair.server.provisioning.minting import Minting
from overair.server.provisioning.model import OPERATOR_ORIGIN, Anomaly, ProvisionedDevice, ProvisioningStatus
from overair.server.provisioning.ports import Scrubber, Store
from overair.server.provisioning.reenrolment import Reenrolment
from overair.server.provisioning.renewal_model import RenewalRequest
from overair.server.provisioning.renewals import Renewals
from overair.server.provisioning.revocations import Revocations

__all__ = [
    "Credentials",
    "Enrolment",
    "FirstContacts",
    "FleetAuthorities",
    "Introductions",
    "Levels",
    "Minting",
    "ProvisioningService",
    "Reenrolment",
    "Renewals",
    "Revocations",
    "Scrubber",
    "Store",
]


class ProvisioningService:
    """What the rooms above and the operators' doors ask about devices that came in."""

    def __init__(self, *, store: Store, enrolment: Enrolment, levels: Levels, blocks: BlocksService, clock: Clock) -> None:
        self._store = store
        self._enrolment = enrolment
        self._levels = levels
        self._blocks = blocks
        self._clock = clock

    def completed(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """A thing's ECUs were registered: nobody is given its id any more. Again is fine."""
        self._store.set_registered(tx, account, thing, self._clock.now())

    def origin_of(self, tx: Tx, account: AccountId, thing: ThingName) -> ProvisionedDevice | None:
        """How a thing came in; None for one that an operator made in the registry."""
        return self._store.find_device(tx, account, thing)

    def anomalies_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Anomaly]:
        """What was odd about certificates that came under a thing's name, the last first."""
        return self._store.anomalies_of(tx, account, thing, limit=ANOMALIES_OF_THING_MAX)

    def renewal_request_of(self, tx: Tx, account: AccountId, thing: ThingName) -> RenewalRequest | None:
        """What a device has asked an authority elsewhere for, if it has."""
        return self._store.find_request(tx, account, thing)

    def status(self, tx: Tx, account: AccountId) -> ProvisioningStatus:
        """The account's level."""
        return self._levels.status(tx, account)

    def register_device(
        self, tx: Tx, place: Place, certificate: pyca.Certificate, *, device: ThingName | None, source_ip: str
    ) -> ThingName:
        """Make a device known by its public certificate. Its name is the certificate's one common name; ``device``, where it is
        given, must be the same.

        A device that is known gets this one beside those that it has: an operator's word is enough for a new key.

        Raises:
            InvalidRequest: the certificate names no device, or another. Subject ``device-id``.
            AlreadyExists: the certificate is registered. Subject ``certificate``.
            Conflict: the certificate's end has passed, or the name is blocked. Subjects ``certificate``, ``device-blocked``.
        """
        named = self.name_in(certificate)
        if device is not None and device != named:
            raise InvalidRequest(
                f"The certificate's common name is {named}, not {device}. A device is known by the name in its certificate.",
                subject="device-id",
                details={"field": "deviceId"},
            )
        now = self._clock.now()
        if now > x509.not_after(certificate):
            raise Conflict("The certificate has expired: it could never connect.", subject="certificate")
        if self.is_blocked(tx, place.account, named):
            raise Conflict(f"{named} is blocked: unblock it first (UnblockDevice).", subject="device-blocked")
        identity = self._enrolment.enrol(
            tx, place, named, certificate, origin=OPERATOR_ORIGIN, belongings=Belongings(), source_ip=source_ip
        )
        standing = self._store.find_device(tx, place.account, named)
        self._store.put_device(
            tx,
            ProvisionedDevice(
                account=place.account,
                thing=named,
                origin=OPERATOR_ORIGIN,
                certificate_id=identity,
                created_at=now,
                source_ip=source_ip,
                registered_at=None if standing is None else standing.registered_at,
            ),
        )
        return named

    @staticmethod
    def name_in(certificate: pyca.Certificate) -> ThingName:
        """The device that a certificate names.

        Raises:
            InvalidRequest: none. Subject ``device-id``.
        """
        try:
            return device_name(certificate)
        except PathRefused as refused:
            raise InvalidRequest(
                f"The certificate names no device: {refused.message}. Its one common name must be the device's id, 1 to 128 "
                "characters out of a-z, A-Z, 0-9, colon, underscore and hyphen.",
                subject="device-id",
                details={"field": "credentials"},
            ) from None

    def public_certificate(self, tx: Tx, account: AccountId, thing: ThingName) -> str | None:
        """The PEM of the certificate that a device last came with; None where nobody knows one."""
        attached = self._enrolment.certificates_of(tx, account, thing)
        provisioned = self._store.find_device(tx, account, thing)
        newest = None if provisioned is None else provisioned.certificate_id
        return next((each.pem for each in attached if each.id == newest), attached[-1].pem if attached else None)

    def usable_certificates(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[str]:
        """PEM of those of a thing's certificates that nobody has taken anything away from; none of a thing that is kept out."""
        if self.is_blocked(tx, account, thing):
            return ()
        return [
            each.pem
            for each in self._enrolment.certificates_of(tx, account, thing)
            if each.status is CertificateStatus.ACTIVE
            and self._blocks.find(tx, account, BlockKind.CERTIFICATE, each.id) is None
            and (not each.origin or self._blocks.find(tx, account, BlockKind.ORIGIN, each.origin) is None)
        ]

    # Keeping out ------------------------------------------------------------------------------------------------------------

    def block(self, tx: Tx, account: AccountId, thing: ThingName, *, reason: str, by: str) -> Block:
        """Keep a device out, whatever its certificates: at once, and until it is unblocked. A name that is no thing yet is kept
        from becoming one."""
        return self._blocks.block(tx, account, BlockKind.THING, thing, reason=_reason(reason), by=by)

    def unblock(self, tx: Tx, account: AccountId, thing: ThingName) -> bool:
        """Let a device in again; whether it was blocked. One whose credential or authority is blocked stays out."""
        return self._blocks.unblock(tx, account, BlockKind.THING, thing)

    def is_blocked(self, tx: Tx, account: AccountId, thing: ThingName) -> bool:
        """Whether the thing itself is blocked."""
        return self._blocks.find(tx, account, BlockKind.THING, thing) is not None

    def block_certificate(self, tx: Tx, account: AccountId, certificate: CertificateId, *, reason: str, by: str) -> Block:
        """Keep one certificate out; its device may come with another."""
        return self._blocks.block(tx, account, BlockKind.CERTIFICATE, certificate, reason=_reason(reason), by=by)

    def unblock_certificate(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        """Let a certificate in again; whether it was blocked."""
        return self._blocks.unblock(tx, account, BlockKind.CERTIFICATE, certificate)

    def blocks(self, tx: Tx, account: AccountId, *, after: tuple[str, str] | None, limit: int) -> Sequence[Block]:
        """Who is kept out, by kind and name."""
        return self._blocks.page(tx, account, after=after, limit=limit)

    def retire(self, tx: Tx, place: Place, thing: ThingName, *, by: str) -> None:
        """A device is about to be deleted: its certificates are taken from it, and its name is kept out until somebody unblocks
        it, so that it doesn't come back by its authority's rule."""
        self.block(tx, place.account, thing, reason="the device was deleted", by=by)
        self._enrolment.release(tx, place, thing)

    # ``devices.ports.MembershipChanged``: what was known of a thing goes with it, lest another of its name inherit it --------

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """Nothing hangs on groups."""

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """Nothing hangs on groups."""

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """How it came in is forgotten, and what it had asked for; a block of its name stays."""
        self._store.delete_device(tx, account, thing)
        self._store.delete_request(tx, account, thing)


def _reason(reason: str) -> str:
    if len(reason) > REASON_LENGTH_MAX or not reason.isprintable():
        raise InvalidRequest(f"A reason has at most {REASON_LENGTH_MAX} printable characters.", subject="reason")
    return reason
