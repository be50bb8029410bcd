"""Units of work, as every room sees them.

A door hands a function to the store and awaits it: ``await work.run(lambda tx: jobs.report(tx, …))``. The function runs on
the writer thread inside a savepoint and may be run again, so it has no effect outside the transaction but through ``tx``.
Nothing holds a transaction across an await; a service never begins or commits one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from overair.basics.clock import Instant
from overair.basics.ids import AccountId

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that others must hear once this unit has committed: an MQTT message for whoever subscribed."""

    account: AccountId
    topic: str
    payload: bytes
    qos: int = 1
    properties: bytes = b""
    """What MQTT 5 says beside the payload, as it writes that."""
    expires: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeToMany:
    """The same said on several topics: as many notices, but written at once. A job over many things says the same to most."""

    account: AccountId
    topics: Sequence[str]
    payload: bytes
    qos: int = 1


@dataclass(frozen=True, slots=True)
class News:
    """Something that the other processes of this server must hear once this unit has committed. Unlike a ``Notice`` it is kept
    nowhere: it speaks of what the records hold, and whoever may have missed some looks at the records again."""

    kind: str
    """Says who listens (``server.nodes.switchboard``)."""
    parts: tuple[str, ...] = ()


class Tx(Protocol):
    """One unit of work. Services pass it on; only a room's ``store`` looks inside (``storage.work.SqlTx``)."""

    def publish(self, notice: Notice | NoticeToMany) -> None:
        """Add a row to the outbox, or one for each topic: heard after the commit, in order, at least once; not at all if the
        unit fails."""
        ...

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call ``action`` on the event loop once committed and before whoever awaits the unit is told.

        For evicting caches and waking loops; it must be short, must not fail and must not be needed for correctness
        after a restart.
        """
        ...

    def tell_nodes(self, news: News) -> None:
        """Have the server's other processes hear this after the commit; not at all if the unit fails.

        Whoever evicts a cache of this process with ``after_commit`` says here what the others evict.
        """
        ...


class Work(Protocol):
    """The store's front: runs units of work."""

    async def run(self, unit: Callable[[Tx], T]) -> T:
        """Run ``unit`` as a writer; returns after its commit is durable. Its exception, if any, is raised here and the
        unit leaves nothing behind."""
        ...

    async def read(self, query: Callable[[Tx], T]) -> T:
        """Run ``query`` on a reader thread against a consistent snapshot. Writing there is an error."""
        ...
