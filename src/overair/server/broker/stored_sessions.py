"""Units of work on persistent sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, ClientId
from overair.basics.work import Tx
from overair.server.broker.ports import Records
from overair.server.broker.sessions import SessionRecord


class StoredSessions:
    """Each method gives a unit for ``Work.run``."""

    def __init__(self, store: Records) -> None:
        self._store = store

    def take_up(
        self, account: AccountId, client_id: ClientId, *, forget: bool, keep: bool, expiry_ms: int
    ) -> Callable[[Tx], None]:
        """A client has connected: forget what was stored under its id, and keep a connected session, as asked."""

        def unit(tx: Tx) -> None:
            if forget:
                self._store.delete_session(tx, account, client_id)
            if keep:
                self._store.keep_session(tx, account, client_id, None, expiry_ms)

        return unit

    def keep(self, record: SessionRecord) -> Callable[[Tx], None]:
        """Store when a session expires."""

        def unit(tx: Tx) -> None:
            # As it is when this runs: the client may have come back meanwhile, or begun a clean session, here or elsewhere.
            if not record.dropped and self._store.owns(tx, record.account, record.client_id):
                self._store.keep_session(tx, record.account, record.client_id, record.expires, record.expiry_ms)

        return unit

    def expire_connected(self, now: Instant, expiry_ms: Mapping[AccountId, int]) -> Callable[[Tx], None]:
        """After a restart, let the time of sessions that were connected run from now, account by account."""

        def unit(tx: Tx) -> None:
            for account, duration_ms in expiry_ms.items():
                self._store.expire_connected(tx, account, now, duration_ms)

        return unit

    def subscribe(self, record: SessionRecord, filters: tuple[tuple[str, int], ...]) -> Callable[[Tx], None]:
        """Keep subscriptions, unless the session was forgotten meanwhile."""

        def unit(tx: Tx) -> None:
            if not record.dropped and self._store.owns(tx, record.account, record.client_id):
                self._store.subscribe(tx, record.account, record.client_id, filters)

        return unit

    def unsubscribe(self, record: SessionRecord, filters: tuple[str, ...]) -> Callable[[Tx], None]:
        """Forget subscriptions."""

        def unit(tx: Tx) -> None:
            if not record.dropped and self._store.owns(tx, record.account, record.client_id):
                self._store.unsubscribe(tx, record.account, record.client_id, filters)

        return unit

    def delete(self, record: SessionRecord) -> Callable[[Tx], None]:
        """Forget a session with all that it is owed, unless another gateway holds it by now."""

        def unit(tx: Tx) -> None:
            if self._store.owns(tx, record.account, record.client_id):
                self._store.delete_session(tx, record.account, record.client_id)

        return unit
