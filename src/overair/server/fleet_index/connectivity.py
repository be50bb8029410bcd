"""Who is connected: noted in memory when a gateway tells it, and written into the index some at a time.

Connecting waits for no record. What a process noted and didn't write is lost with it, and so is its every connection: the
things that it held are found by its name, which no later process has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from overair.basics.clock import Clock
from overair.basics.ids import AccountId, ClientId
from overair.basics.work import Tx, Work
from overair.server.fleet_index.indexing import Indexer
from overair.server.fleet_index.model import ConnectionNote
from overair.server.fleet_index.ports import Connections, DocumentStore, SettingsStore

NOTES_AT_ONCE_MAX: Final = 200
NODE_ALPHABET: Final = "0123456789abcdef"
LOST_WITH_SERVER: Final = "SERVER_INITIATED_DISCONNECT"

_Key = tuple[AccountId, ClientId]


class Connectivity:
    """``broker.ports.PresenceWatcher``, and the worker (``workers.loop.Worker``) that writes what was noted.

    Everything but the units runs on the event loop.
    """

    name = "fleet-connectivity"

    def __init__(
        self,
        *,
        work: Work,
        settings: SettingsStore,
        documents: DocumentStore,
        indexer: Indexer,
        connections: Connections,
        clock: Clock,
        node: str,
        living: Callable[[Tx], Collection[str]] | None = None,
    ) -> None:
        """
        Args:
            node: This process, by a name that no other one has or will have.
            living: The processes that may hold connections now. Without it this one is alone.
        """
        self._work = work
        self._settings = settings
        self._documents = documents
        self._indexer = indexer
        self._connections = connections
        self._clock = clock
        self._node = node
        self._living = living or (lambda _: (node,))
        self._watched: dict[AccountId, int] = {}
        """The accounts whose connections are indexed, and when their index was built last."""
        self._noted: dict[_Key, ConnectionNote] = {}

    # What gateways tell ---------------------------------------------------------------------------------------------------

    def connected(self, account: AccountId, client_id: ClientId) -> None:
        if account in self._watched:
            self._noted[account, client_id] = ConnectionNote(connected=True, at=self._clock.now())

    def disconnected(self, account: AccountId, client_id: ClientId, reason: str) -> None:
        if account in self._watched:
            self._noted[account, client_id] = ConnectionNote(connected=False, at=self._clock.now(), reason=reason)

    def look(self, account: AccountId, client_id: ClientId) -> None:
        """A thing of that name is new: it may be connected already."""
        if self._connections.is_connected(account, client_id):
            self.connected(account, client_id)

    # What is written ------------------------------------------------------------------------------------------------------

    async def run_once(self) -> bool:
        self._watch(dict(await self._work.read(self._settings.with_connectivity)))
        lost = await self._work.read(self._lost)
        if lost:
            await self._work.run(lambda tx: self._write_lost(tx, lost))
            return True
        batch = dict(list(self._noted.items())[:NOTES_AT_ONCE_MAX])
        if not batch:
            return False
        await self._work.run(lambda tx: self._write(tx, batch))
        for key, note in batch.items():
            if self._noted.get(key) is note:
                del self._noted[key]
        return bool(self._noted)

    def _watch(self, accounts: dict[AccountId, int]) -> None:
        """Note everybody who is connected, where an index was built anew: nobody noted them for it."""
        before, self._watched = self._watched, accounts
        for account, built_at in accounts.items():
            if before.get(account) != built_at:
                for client_id in self._connections.connected_clients(account):
                    if (account, client_id) not in self._noted:
                        self.connected(account, client_id)
        if before.keys() - accounts.keys():
            self._noted = {key: note for key, note in self._noted.items() if key[0] in accounts}

    def _write(self, tx: Tx, batch: dict[_Key, ConnectionNote]) -> None:
        for (account, client_id), note in sorted(batch.items()):
            self._indexer.connection(tx, account, client_id, note, node=self._node)

    def _lost(self, tx: Tx) -> list[tuple[AccountId, str]]:
        living = self._living(tx)
        found: list[tuple[AccountId, str]] = []
        for account in self._watched:
            left = NOTES_AT_ONCE_MAX - len(found)
            found += [(account, name) for name in self._documents.connected_elsewhere(tx, account, living=living, limit=left)]
        return found

    def _write_lost(self, tx: Tx, lost: Collection[tuple[AccountId, str]]) -> None:
        # Read again: a process may have taken one of them over since.
        living, now = self._living(tx), self._clock.now()
        for account, name in sorted(lost):
            self._indexer.lost(tx, account, name, living=living, at=now, reason=LOST_WITH_SERVER)
