"""What provisioning asks of its records and of the rooms below."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.basics.work import Tx
from overair.server.provisioning.model import (
    Anomaly,
    AuthorityId,
    CredentialId,
    DestroyedKey,
    FleetAuthority,
    ProvisionedDevice,
    SharedCredential,
    SharedProvisioning,
    StandingList,
)
from overair.server.provisioning.renewal_model import RenewalRequest, RenewalRequestState, RenewalRule


class CredentialStore(Protocol):
    """Rows of shared credentials."""

    def find_credential(self, tx: Tx, account: AccountId, credential: CredentialId) -> SharedCredential | None: ...

    def find_credential_by_certificate(self, tx: Tx, certificate: CertificateId) -> SharedCredential | None:
        """Whatever the account: a fingerprint is unique on the server."""
        ...

    def insert_credential(self, tx: Tx, credential: SharedCredential) -> None: ...

    def count_use(self, tx: Tx, account: AccountId, credential: CredentialId) -> bool:
        """Add a use if one is left; whether one was."""
        ...

    def revoke_credential(self, tx: Tx, account: AccountId, credential: CredentialId, now: Instant) -> None: ...

    def revoke_all_credentials(self, tx: Tx, account: AccountId, now: Instant) -> int:
        """Those that aren't revoked yet; how many."""
        ...

    def count_usable(self, tx: Tx, account: AccountId, now: Instant) -> int: ...

    def page_credentials(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[SharedCredential]:
        """Newest first, by (creation time, id)."""
        ...


class AuthorityStore(Protocol):
    """Rows of operators' own fleet authorities."""

    def find_authority(self, tx: Tx, account: AccountId, authority: AuthorityId) -> FleetAuthority | None: ...

    def find_authority_anywhere(self, tx: Tx, authority: AuthorityId) -> FleetAuthority | None:
        """Whatever the account: an authority belongs to one on the server."""
        ...

    def authorities_named(self, tx: Tx, subject_hashes: Collection[str]) -> Sequence[FleetAuthority]:
        """Those whose subject is one of these, of every account."""
        ...

    def put_authority(self, tx: Tx, authority: FleetAuthority) -> None:
        """Insert, or replace the one with the same id."""
        ...

    def delete_authority(self, tx: Tx, account: AccountId, authority: AuthorityId) -> None: ...

    def authorities(self, tx: Tx, account: AccountId) -> Sequence[FleetAuthority]:
        """All of an account, the oldest first."""
        ...

    def find_registration_code(self, tx: Tx, account: AccountId) -> str | None: ...

    def insert_registration_code(self, tx: Tx, account: AccountId, code: str) -> None: ...

    def delete_registration_code(self, tx: Tx, account: AccountId) -> bool:
        """Whether there was one."""
        ...


class RevocationStore(Protocol):
    """Rows of revocation lists and of the serial numbers on them."""

    def find_list(self, tx: Tx, account: AccountId, issuer: AuthorityId) -> StandingList | None: ...

    def put_list(self, tx: Tx, standing: StandingList, serial_numbers: Collection[int]) -> None:
        """Insert, or replace the one of the same issuer, with every serial number on it."""
        ...

    def lists(self, tx: Tx, account: AccountId, authority: AuthorityId | None) -> Sequence[StandingList]:
        """Of one fleet authority or of all, by issuer."""
        ...

    def is_listed(self, tx: Tx, account: AccountId, issuer: AuthorityId, serial_number: int) -> bool: ...


class DeviceStore(Protocol):
    """Rows of how things came in."""

    def find_device(self, tx: Tx, account: AccountId, thing: ThingName) -> ProvisionedDevice | None: ...

    def put_device(self, tx: Tx, device: ProvisionedDevice) -> None:
        """Insert, or replace the one of the same thing."""
        ...

    def set_registered(self, tx: Tx, account: AccountId, thing: ThingName, now: Instant) -> None:
        """Where it isn't set yet."""
        ...

    def delete_device(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...

    def count_devices(self, tx: Tx, account: AccountId, origin: str) -> int: ...

    def page_devices(
        self, tx: Tx, account: AccountId, origin: str, *, after: str | None, limit: int
    ) -> Sequence[ProvisionedDevice]:
        """Of one origin, by thing."""
        ...

    def page_came_in(
        self,
        tx: Tx,
        account: AccountId,
        *,
        origin: str | None,
        template: str | None,
        claim: str | None,
        after: str | None,
        limit: int,
    ) -> Sequence[ProvisionedDevice]:
        """Those that fit all that is named, by thing."""
        ...


class AnomalyStore(Protocol):
    """Rows of what was odd."""

    def find_anomaly(self, tx: Tx, account: AccountId, certificate: CertificateId) -> Anomaly | None: ...

    def put_anomaly(self, tx: Tx, anomaly: Anomaly, *, keep_max: int) -> None:
        """Insert or replace; beyond ``keep_max`` those that were seen longest ago go."""
        ...

    def delete_anomaly(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None: ...

    def anomalies_of(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> Sequence[Anomaly]:
        """Of one thing, the ones seen last first."""
        ...

    def page_anomalies(self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int) -> Sequence[Anomaly]:
        """Newest first, by (last seen, certificate)."""
        ...


class LevelStore(Protocol):
    """Rows of levels."""

    def find_shared_provisioning(self, tx: Tx, account: AccountId) -> SharedProvisioning | None: ...

    def put_shared_provisioning(self, tx: Tx, state: SharedProvisioning) -> None: ...

    def add_destroyed_key(self, tx: Tx, key: DestroyedKey) -> None: ...

    def destroyed_keys(self, tx: Tx, account: AccountId) -> Sequence[DestroyedKey]:
        """The newest first."""
        ...


class RenewalStore(Protocol):
    """Rows of renewals."""

    def find_renewal_rule(self, tx: Tx, account: AccountId) -> RenewalRule | None: ...

    def put_renewal_rule(self, tx: Tx, account: AccountId, rule: RenewalRule) -> None: ...

    def find_request(self, tx: Tx, account: AccountId, thing: ThingName) -> RenewalRequest | None: ...

    def put_request(self, tx: Tx, request: RenewalRequest) -> None:
        """Insert, or replace the one of the same thing."""
        ...

    def delete_request(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...

    def page_requests(
        self, tx: Tx, account: AccountId, *, state: RenewalRequestState | None, after: str | None, limit: int
    ) -> Sequence[RenewalRequest]:
        """By thing."""
        ...


class Store(CredentialStore, AuthorityStore, RevocationStore, DeviceStore, AnomalyStore, LevelStore, RenewalStore, Protocol):
    """All of them."""


class Scrubber(Protocol):
    """Takes what was deleted out of the files of the database, after the commit that deleted it."""

    async def __call__(self) -> None:
        """Raises Unavailable where something still keeps it; asking again is right then."""
        ...
