"""Who can make devices: this server, or the operator's own authorities alone. Going there destroys the server's keys."""

from __future__ import annotations

from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.certificates.model import AuthorityPurpose
from overair.server.certificates.service import AuthoritiesService
from overair.server.provisioning.model import ALARMS, ANOMALIES_MAX, DestroyedKey, Level, ProvisioningStatus, SharedProvisioning
from overair.server.provisioning.ports import Store

_AUTHORITIES: Final = (AuthorityPurpose.FLEET_AUTHORITY, AuthorityPurpose.CREDENTIAL_AUTHORITY)


class Levels:
    """Reads and changes the level of an account."""

    def __init__(self, *, store: Store, authorities: AuthoritiesService, clock: Clock) -> None:
        self._store = store
        self._authorities = authorities
        self._clock = clock

    def shared(self, tx: Tx, account: AccountId) -> SharedProvisioning:
        """Whether shared provisioning is on; it is until somebody switches it off."""
        found = self._store.find_shared_provisioning(tx, account)
        return found or SharedProvisioning(account=account, is_on=True, changed_at=None, changed_by="")

    def is_on(self, tx: Tx, account: AccountId) -> bool:
        """Whether this server may make devices."""
        return self.shared(tx, account).is_on

    def require_on(self, tx: Tx, account: AccountId) -> None:
        """Raises Conflict, subject ``shared-provisioning-off``."""
        if not self.is_on(tx, account):
            raise shared_provisioning_off()

    def switch_off(self, tx: Tx, place: Place, *, by: str) -> None:
        """Revoke every shared credential, and destroy the keys of the fleet authority and of the credentials' authority.
        Devices that are in go on: they are known by their certificates. Again is fine.

        The files of the database are clean only after ``SqlWork.scrub``, which the door calls once this has committed.
        """
        now = self._clock.now()
        if self.is_on(tx, place.account):
            self._store.put_shared_provisioning(
                tx, SharedProvisioning(account=place.account, is_on=False, changed_at=now, changed_by=by)
            )
        self._store.revoke_all_credentials(tx, place.account, now)
        for purpose in _AUTHORITIES:
            gone = self._authorities.destroy_provisioning_authority(tx, place.account, purpose)
            if gone is not None:
                self._store.add_destroyed_key(
                    tx,
                    DestroyedKey(
                        account=place.account,
                        key_id=gone.key_id,
                        purpose=purpose.value,
                        created_at=gone.created_at,
                        destroyed_at=now,
                    ),
                )

    def switch_on(self, tx: Tx, place: Place, *, by: str) -> None:
        """Let this server make devices again, with a new authority. Credentials that were revoked stay revoked."""
        if self.is_on(tx, place.account):
            return
        self._store.put_shared_provisioning(
            tx, SharedProvisioning(account=place.account, is_on=True, changed_at=self._clock.now(), changed_by=by)
        )
        self._authorities.provisioning_issuer(tx, place.account, AuthorityPurpose.FLEET_AUTHORITY)

    def status(self, tx: Tx, account: AccountId) -> ProvisioningStatus:
        """What an account's level is, and which copies of the records are still dangerous."""
        shared = self.shared(tx, account)
        fleet = self._authorities.find_provisioning_authority(tx, account, AuthorityPurpose.FLEET_AUTHORITY)
        return ProvisioningStatus(
            level=Level.DEFAULT if shared.is_on else Level.PRODUCTION,
            shared=shared,
            fleet_authority_since=None if fleet is None else fleet.created_at,
            credentials_usable=self._store.count_usable(tx, account, self._clock.now()) if shared.is_on else 0,
            fleet_authorities=len(self._store.authorities(tx, account)),
            destroyed_keys=tuple(self._store.destroyed_keys(tx, account)),
            alarms=tuple(
                dict.fromkeys(
                    each.thing
                    for each in self._store.page_anomalies(tx, account, after=None, limit=ANOMALIES_MAX)
                    if each.kind in ALARMS
                )
            ),
        )


def shared_provisioning_off() -> Conflict:
    """The refusal of everything that would need the server's own fleet key."""
    return Conflict(
        "Shared provisioning is off: this server holds no key to make devices with. Devices come with certificates of your own "
        "authority; or switch it on again with SetSharedProvisioning, which makes a new key.",
        subject="shared-provisioning-off",
    )
