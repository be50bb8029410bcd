"""Who is here: joining, noticing who is gone, and since when the server has lived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, Protocol

import structlog

from overair.basics.clock import Clock, Instant
from overair.basics.ids import IdSource
from overair.basics.work import Notice, Tx, Work
from overair.server.nodes.model import Node, Role

LOOK_INTERVAL_MS: Final = 500
BATCH_NOTICES_MAX: Final = 500
UNHEARD_INTERVAL_MS: Final = 10_000
UNHEARD_MAX: Final = 500_000
"""Notices that wait while no gateway is there; beyond it the oldest go."""
FORGOTTEN_AT_ONCE_MAX: Final = 2_000
NAME_ALPHABET: Final = "0123456789abcdef"

logger = structlog.get_logger("overair.nodes")


class NodeStore(Protocol):
    """``store.SqlNodeStore``."""

    def all(self, tx: Tx) -> Sequence[Node]: ...
    def is_dead(self, tx: Tx, node: Node) -> bool: ...
    def add(self, tx: Tx, node: Node) -> None: ...
    def remove(self, tx: Tx, name: str) -> None: ...
    def set_connected(self, tx: Tx, name: str, count: int) -> None: ...
    def newest(self, tx: Tx) -> int: ...
    def notices(self, tx: Tx, *, after: int, to: int | None = None, limit: int) -> Sequence[tuple[int, Notice]]: ...
    def forget_unheard(self, tx: Tx, *, before: Instant, keep: int, limit: int) -> int: ...
    def heard(self, tx: Tx, name: str, position: int) -> None: ...


def new_name(ids: IdSource) -> str:
    """A node's name: never used again, and never an operator's concern."""
    return ids.token(16, NAME_ALPHABET)


def lock_key_of(name: str) -> int:
    """The advisory lock of a node: its name in 60 bits, which fit into PostgreSQL's 64 with a sign, and are no other lock's."""
    return int(name[:15], 16) | 1 << 61


class Membership:
    """This node among the others.

    It lives as long as the lock that its bus holds. Without a bus's connection the others may take it for dead; it then joins
    again and finds what they took over.
    """

    def __init__(self, *, store: NodeStore, name: str, role: Role, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.me = Node(
            name=name,
            role=role,
            lock_key=lock_key_of(name),
            began=clock.now(),
            life_began=clock.now(),
            heard_to=None,
            connected=0,
        )
        self.others: Sequence[Node] = ()
        """Those that lived at the last look."""

    @property
    def life_began(self) -> Instant:
        """Since when the server has lived without a gap."""
        return self.me.life_began

    def join(self, tx: Tx) -> None:
        """Be there from this commit on. A gateway hears what is announced from now on; the first one, everything that waits."""
        known = self._store.all(tx)
        living = [node for node in known if not self._store.is_dead(tx, node)]
        gateways = [node for node in known if node.role is Role.GATEWAY]
        heard_to = None
        if self.me.role is Role.GATEWAY:
            heard_to = self._store.newest(tx) if gateways else 0
        life_began = min((node.life_began for node in living), default=self.me.began)
        self.me = replace(self.me, life_began=life_began, heard_to=heard_to)
        self._store.add(tx, self.me)

    def rejoin(self, tx: Tx) -> bool:
        """The bus was away and is back: True where the others had taken this node for dead and its place is a new one."""
        if any(node.name == self.me.name for node in self._store.all(tx)):
            return False
        self._store.add(tx, self.me)
        return True

    def look(self, tx: Tx) -> tuple[Sequence[Node], Sequence[Node]]:
        """The other nodes: (those that live, those that are gone)."""
        others = [node for node in self._store.all(tx) if node.name != self.me.name]
        gone = [node for node in others if self._store.is_dead(tx, node)]
        return [node for node in others if node not in gone], gone


class NodeWatch:
    """A worker (``workers.loop.Worker``): sees who is gone, and has a gateway take over what a gone one held."""

    name: Final = "nodes"

    def __init__(
        self,
        *,
        work: Work,
        store: NodeStore,
        membership: Membership,
        connected: Callable[[], int],
        take_over: Callable[[str], Awaitable[None]],
        seen: Callable[[Sequence[str]], None],
        clock: Clock,
    ) -> None:
        """
        Args:
            take_over: What a gateway does for one that is gone, given its name. Struck off the list by it.
            seen: Told the names of those that live, after each look.
        """
        self._work = work
        self._store = store
        self._membership = membership
        self._connected = connected
        self._take_over = take_over
        self._seen = seen
        self._clock = clock
        self._due = Instant(0)
        self._told = 0

    async def run_once(self) -> bool:
        now = self._clock.now()
        if now < self._due:
            return False
        self._due = Instant(now + LOOK_INTERVAL_MS)
        living, gone = await self._work.read(self._membership.look)
        self._membership.others = living
        self._seen([node.name for node in living])
        me = self._membership.me
        for node in gone:
            if node.role is not Role.GATEWAY:
                await self._work.run(lambda tx, name=node.name: self._store.remove(tx, name))  # type: ignore[misc]
            elif me.role is Role.GATEWAY:
                await self._take_over(node.name)
                logger.info("took over from a gateway that is gone", node=node.name)
        count = self._connected()
        if count != self._told:
            await self._work.run(lambda tx: self._store.set_connected(tx, me.name, count))
            self._told = count
        return False


class SharedOutbox:
    """The outbox of a server with several gateways: each hears every row, in order, and a row goes once all have heard it.

    A ``workers.Worker`` of gateways. What it has handed on stands in the node's own row, so whoever takes over from it knows
    what its sessions haven't got.
    """

    name: Final = "outbox"

    def __init__(
        self,
        *,
        work: Work,
        store: NodeStore,
        membership: Membership,
        deliver: Callable[[Notice, int], Awaitable[None]],
        alone: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """``alone``: entered for each batch; no session comes from another gateway meanwhile."""
        self._work = work
        self._store = store
        self._membership = membership
        self._deliver = deliver
        self._alone = alone
        self.position = membership.me.heard_to or 0
        """The last row that was handed to the sessions here."""

    async def run_once(self) -> bool:
        """Deliver one batch, oldest first. True when there was something."""
        rows = await self._work.read(lambda tx: self._store.notices(tx, after=self.position, limit=BATCH_NOTICES_MAX))
        if not rows:
            return False
        before = self.position
        try:
            async with self._alone():
                for number, notice in rows:
                    await self._deliver(notice, number)
                    self.position = number
        finally:
            handed = self.position
            if handed != before:
                me = self._membership.me.name
                await self._work.run(lambda tx: self._store.heard(tx, me, handed))
        return True


class UnheardOutbox:
    """A ``workers.Worker`` of processes that are no gateways: while no gateway lives, what is announced to devices waits for
    one no longer than a session does, and in no more than ``UNHEARD_MAX`` rows."""

    name: Final = "unheard-outbox"

    def __init__(
        self,
        *,
        work: Work,
        store: NodeStore,
        membership: Membership,
        session_expiry_ms: int,
        clock: Clock,
        unheard_max: int = UNHEARD_MAX,
    ) -> None:
        self._work = work
        self._store = store
        self._membership = membership
        self._session_expiry_ms = session_expiry_ms
        self._clock = clock
        self._unheard_max = unheard_max
        self._due = Instant(0)

    async def run_once(self) -> bool:
        """Forget one batch. True when there may be more."""
        now = self._clock.now()
        if now < self._due:
            return False
        if not await self._work.read(self._nobody_hears):
            self._due = Instant(now + UNHEARD_INTERVAL_MS)
            return False

        def unit(tx: Tx) -> int:
            # A gateway that joins begins to hear after us or before us; what goes is too old for it either way.
            before = Instant(now - self._session_expiry_ms)
            return self._store.forget_unheard(tx, before=before, keep=self._unheard_max, limit=FORGOTTEN_AT_ONCE_MAX)

        forgotten = await self._work.run(unit)
        if forgotten:
            logger.warning("no gateway is up: notices to devices were dropped", notices=forgotten)
        if forgotten == FORGOTTEN_AT_ONCE_MAX:
            return True
        self._due = Instant(now + UNHEARD_INTERVAL_MS)
        return False

    def _nobody_hears(self, tx: Tx) -> bool:
        living, _ = self._membership.look(tx)
        return not any(node.role is Role.GATEWAY for node in living)
