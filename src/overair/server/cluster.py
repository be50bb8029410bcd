"""This process among the others of its server: who it is, what it runs, and what it hears of them.

A server that is one process has nobody to hear; then nothing here costs anything. ADR 0017 says what each choice costs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId, IdSource
from overair.basics.work import News, Tx
from overair.server.broker.neighbours import (
    CONNECTED,
    GONE,
    HELD,
    PASSING,
    RETAINED,
    WHO_IS_THERE,
    Neighbours,
)
from overair.server.broker.service import Broker
from overair.server.broker.store import BrokerStore
from overair.server.config import Settings
from overair.server.nodes.model import Role
from overair.server.nodes.ports import Bus, NobodyElse
from overair.server.nodes.postgresql_bus import PostgresqlBus
from overair.server.nodes.service import Membership, NodeWatch, SharedOutbox, UnheardOutbox, lock_key_of, new_name
from overair.server.nodes.store import SqlNodeStore
from overair.server.nodes.switchboard import Heard, Switchboard
from overair.server.storage.outbox import OutboxRelay
from overair.server.storage.work import SqlWork
from overair.server.workers.loop import Worker, WorkerLoop

AT_THE_DOORS: Final = frozenset({"server-certificate"})
"""Workers of every process that shows a certificate."""
EVERYWHERE: Final = frozenset({"key-uses", "audit"})
"""Workers of every process that may be asked by an operator's key or by a role's link, or use a key of the keyring."""
AT_THE_GATEWAY: Final = frozenset({"outbox", "session-expiry", "fleet-connectivity", "odd-downloads"})
"""Workers of every process that holds devices' sessions. All others run where the role is ``workers``."""


class Cluster:
    """The processes of one server, seen from one of them. ``role`` None: it is the only one, and has every part."""

    def __init__(
        self,
        settings: Settings,
        account: AccountId,
        work: SqlWork,
        closing: AsyncExitStack,
        *,
        role: Role | None,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """Join the others. Blocks; ``closing`` lets go.

        Raises:
            StorageRefused: the database can't be reached.
        """
        self.role = role
        self._work = work
        self._clock = clock
        self._ids = ids
        self._store = SqlNodeStore(account)
        self._bus: Bus = NobodyElse()
        self._neighbours: Neighbours | None = None
        self._membership: Membership | None = None
        self._life_began = clock.now()
        self.name = ""
        if role is None:
            if settings.database is not None:
                work.run_blocking(self._take_all)
        else:
            assert settings.database is not None, "the command has refused it"
            self.name = new_name(ids)
            self._bus = PostgresqlBus(settings.database, name=self.name, lock_key=lock_key_of(self.name))
            closing.callback(self._bus.close)
            work.announce_through(self._bus.announce)
            self._membership = Membership(store=self._store, name=self.name, role=role, clock=clock)
            work.run_blocking(self._membership.join)
            self._life_began = self._membership.life_began
        self._switchboard = Switchboard(self.name)
        self._session_expiry_ms = 0
        self._others_changed: Callable[[], None] = lambda: None

    @property
    def life_began(self) -> Instant:
        """Since when the server has lived without a gap, whichever process began it."""
        return self._life_began

    @property
    def broker_store(self) -> BrokerStore:
        """What sessions are, as this gateway holds them."""
        return BrokerStore(self.name)

    def living(self, tx: Tx) -> Collection[str]:
        """The processes of the server that may hold connections now."""
        return [node.name for node in self._store.all(tx)]

    def has(self, role: Role) -> bool:
        """Whether this process holds a part."""
        return self.role in (None, role)

    def connects(self, broker: Broker, *, session_expiry_ms: int) -> None:
        """Make the broker one of several, if it is."""
        self._session_expiry_ms = session_expiry_ms
        if self._membership is None:
            return
        neighbours = self._neighbours = Neighbours(
            name=self.name,
            work=self._work,
            records=self.broker_store,
            shelf=self._store,
            rejoin=self._membership.rejoin,
            clock=self._clock,
            ids=self._ids,
        )
        broker.among(neighbours)
        switchboard = self._switchboard
        switchboard.on_every(CONNECTED, neighbours.heard_connected)
        switchboard.on_every(GONE, neighbours.heard_gone)
        switchboard.on_every(HELD, neighbours.heard_held)
        switchboard.on(WHO_IS_THERE, neighbours.heard_who_is_there)
        switchboard.on(PASSING, neighbours.heard_passing)
        switchboard.on(RETAINED, neighbours.heard_retained)

    def hears(self, kind: str, heard: Heard) -> None:
        """Register who acts on what another process says of its commits."""
        self._switchboard.on(kind, heard)

    def workers_here(self, workers: Iterable[Worker], broker: Broker, connected: Callable[[], int]) -> Sequence[Worker]:
        """Those of all workers that this process runs, and those that only a server with several has."""
        if self._membership is None:
            return list(workers)
        mine = [worker for worker in workers if self._runs(worker.name)]
        if self.role is Role.GATEWAY:
            mine = [self._shared_outbox(broker) if worker.name == OutboxRelay.name else worker for worker in mine]
        else:
            mine.append(self._unheard_outbox(self._membership))
        return [*mine, self._watch(connected)]

    def wakes(self, workers: WorkerLoop, name: str) -> None:
        """There may be work for a worker, here or in whatever process runs it."""
        workers.wake(name)
        if self._neighbours is not None:
            self._neighbours.tell(News("wake", (name,)))

    def tell(self, news: News) -> None:
        """Say to the other processes, if there are any, what no harm is done by losing."""
        if self._neighbours is not None:
            self._neighbours.tell(news)

    async def begin(self) -> None:
        """Hear from now on. A gateway holds what a server with one process has left."""
        if self._neighbours is not None and self.role is Role.GATEWAY:
            await self._neighbours.take_over("", expiry_ms=self._session_expiry_ms)
        self._bus.listen(self._switchboard.hear, self._switchboard.missed)

    def connected_elsewhere(self) -> int:
        """Devices at the other gateways, as of their last word."""
        return 0 if self._membership is None else sum(node.connected for node in self._membership.others)

    def when_others_change(self, changed: Callable[[], None]) -> None:
        """Register, before the start, who hears that a process has come or gone."""
        self._others_changed = changed

    def _take_all(self, tx: Tx) -> None:
        """One process has the records to itself: whatever several have left is its own."""
        self._store.remove_all(tx)
        self.broker_store.take_everything(tx)

    def _runs(self, name: str) -> bool:
        if name in EVERYWHERE:
            return True
        if name in AT_THE_DOORS:
            return self.role in (Role.OPERATOR, Role.GATEWAY)
        return (self.role is Role.GATEWAY) == (name in AT_THE_GATEWAY) and self.role is not Role.OPERATOR

    def _shared_outbox(self, broker: Broker) -> SharedOutbox:
        assert self._membership is not None
        assert self._neighbours is not None
        relay = SharedOutbox(
            work=self._work,
            store=self._store,
            membership=self._membership,
            deliver=broker.deliver,
            alone=self._neighbours.gate.alone,
        )
        self._neighbours.position = lambda: relay.position
        return relay

    def _unheard_outbox(self, membership: Membership) -> UnheardOutbox:
        expiry_ms = self._session_expiry_ms
        return UnheardOutbox(
            work=self._work, store=self._store, membership=membership, session_expiry_ms=expiry_ms, clock=self._clock
        )

    def _watch(self, connected: Callable[[], int]) -> NodeWatch:
        assert self._membership is not None
        assert self._neighbours is not None
        neighbours = self._neighbours
        known: list[Collection[str]] = [()]

        def seen(names: Sequence[str]) -> None:
            neighbours.living(names)
            if known[0] != names:
                known[0] = names
                self._others_changed()

        async def take_over(name: str) -> None:
            await neighbours.take_over(name, expiry_ms=self._session_expiry_ms)

        return NodeWatch(
            work=self._work,
            store=self._store,
            membership=self._membership,
            connected=connected,
            take_over=take_over,
            seen=seen,
            clock=self._clock,
        )
