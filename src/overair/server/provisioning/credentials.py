"""Shared provisioning credentials: made, shown, revoked, recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509 as pyca
from cryptography.x509.oid import NameOID

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, CertificateId, IdSource
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.model import AuthorityPurpose
from overair.server.certificates.service import AuthoritiesService
from overair.server.devices.blocks import BlockKind, BlocksService
from overair.server.provisioning.enrolment import Belongings, Enrolment
from overair.server.provisioning.levels import Levels
from overair.server.provisioning.model import (
    CERTIFICATE_DAYS_MAX,
    CREDENTIAL_DAYS_MAX,
    CREDENTIAL_USES_MAX,
    DAY_MS,
    DEVICES_PER_MINUTE_MAX,
    NAME_LENGTH_MAX,
    CredentialId,
    CredentialPlan,
    ProvisionedDevice,
    SharedCredential,
)
from overair.server.provisioning.ports import CredentialStore, DeviceStore

MARK: Final = "Overair shared provisioning credential"
"""The organisation in a credential's subject, for people who meet one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCredential:
    """A new credential with its certificate; whoever made the key puts the two together."""

    credential: SharedCredential
    certificate: pyca.Certificate
    server_authority_pem: str


class Credentials:
    """Shared credentials of one account at a time.

    Raises, everywhere: ``NotFound(subject="provisioning-credential")``, ``Conflict(subject="shared-provisioning-off")``,
    ``InvalidRequest``.
    """

    def __init__(
        self,
        *,
        store: CredentialStore,
        provisioned: DeviceStore,
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
        self._provisioned = provisioned
        self._authorities = authorities
        self._levels = levels
        self._enrolment = enrolment
        self._blocks = blocks
        self._server_account = server_account
        self._clock = clock
        self._ids = ids

    def create(self, tx: Tx, place: Place, plan: CredentialPlan, public_key: x509.PublicKey, *, by: str) -> IssuedCredential:
        """Issue a credential for a key that was made outside the transaction and is kept nowhere."""
        _check(plan)
        self._levels.require_on(tx, place.account)
        self._enrolment.check(tx, place, Belongings(policy=plan.policy))
        now = self._clock.now()
        identity = CredentialId(self._ids.uuid())
        expires_at = Instant(now + plan.expires_days * DAY_MS)
        certificate = x509.issue_device(
            self._authorities.provisioning_issuer(tx, place.account, AuthorityPurpose.CREDENTIAL_AUTHORITY),
            pyca.Name(
                [
                    pyca.NameAttribute(NameOID.ORGANIZATION_NAME, MARK),
                    pyca.NameAttribute(NameOID.COMMON_NAME, identity),
                ]
            ),
            public_key,
            now=now,
            until=expires_at,
            serial=self._ids.secret_bytes(x509.SERIAL_NUMBER_SIZE_BYTES),
        )
        credential = SharedCredential(
            account=place.account,
            id=identity,
            certificate_id=x509.fingerprint(certificate),
            name=plan.name,
            created_at=now,
            created_by=by,
            # As the certificate says it, in whole seconds: TLS and records agree on the end.
            expires_at=x509.not_after(certificate),
            uses_max=plan.uses_max,
            uses=0,
            revoked_at=None,
            key_type=plan.key_type,
            certificate_days_max=plan.certificate_days_max,
            devices_per_minute=plan.devices_per_minute,
            policy=plan.policy,
        )
        self._store.insert_credential(tx, credential)
        return IssuedCredential(
            credential=credential,
            certificate=certificate,
            server_authority_pem=self._authorities.server_authority_pem(tx, self._server_account),
        )

    def find(self, tx: Tx, account: AccountId, credential: CredentialId) -> SharedCredential:
        """One credential by its id."""
        found = self._store.find_credential(tx, account, credential)
        if found is None:
            raise NotFound(f"There is no provisioning credential {credential!r:.80}.", subject="provisioning-credential")
        return found

    def recognise(self, tx: Tx, certificate: CertificateId) -> SharedCredential | None:
        """The credential that a peer's certificate is, whatever the account; None for every other certificate."""
        return self._store.find_credential_by_certificate(tx, certificate)

    def may_be_used(self, tx: Tx, account: AccountId) -> bool:
        """Whether shared provisioning is on in the account."""
        return self._levels.is_on(tx, account)

    def page(self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int) -> Sequence[SharedCredential]:
        """Newest first."""
        return self._store.page_credentials(tx, account, after=after, limit=limit)

    def revoke(self, tx: Tx, place: Place, credential: CredentialId, *, block_devices: bool, by: str) -> SharedCredential:
        """End a credential; again is fine. Devices that it brought go on, unless they are blocked with it."""
        found = self.find(tx, place.account, credential)
        self._store.revoke_credential(tx, place.account, credential, self._clock.now())
        if block_devices:
            self._blocks.block(
                tx,
                place.account,
                BlockKind.ORIGIN,
                found.origin,
                reason="blocked with the shared credential that it came from",
                by=by,
            )
        return self.find(tx, place.account, credential)

    def unblock_devices(self, tx: Tx, place: Place, credential: CredentialId) -> bool:
        """Let the devices of a revoked credential in again; whether they were blocked."""
        found = self.find(tx, place.account, credential)
        return self._blocks.unblock(tx, place.account, BlockKind.ORIGIN, found.origin)

    def are_devices_blocked(self, tx: Tx, credential: SharedCredential) -> bool:
        """Whether the devices of a credential were blocked with it."""
        return self._blocks.find(tx, credential.account, BlockKind.ORIGIN, credential.origin) is not None

    def devices(
        self, tx: Tx, account: AccountId, credential: CredentialId, *, after: str | None, limit: int
    ) -> Sequence[ProvisionedDevice]:
        """Which devices came from a credential, by thing."""
        return self._provisioned.page_devices(tx, account, self.find(tx, account, credential).origin, after=after, limit=limit)


def _check(plan: CredentialPlan) -> None:
    if len(plan.name) > NAME_LENGTH_MAX or not plan.name.isprintable():
        raise InvalidRequest(f"A name has at most {NAME_LENGTH_MAX} printable characters.", subject="name")
    for word, value, most in (
        ("expiresDays", plan.expires_days, CREDENTIAL_DAYS_MAX),
        ("usesMax", 1 if plan.uses_max is None else plan.uses_max, CREDENTIAL_USES_MAX),
        ("certificateDaysMax", plan.certificate_days_max, CERTIFICATE_DAYS_MAX),
        ("devicesPerMinute", plan.devices_per_minute, DEVICES_PER_MINUTE_MAX),
    ):
        if not 1 <= value <= most:
            raise InvalidRequest(f"{word} must be 1 to {most}.", subject="credential-plan", details={"field": word})
