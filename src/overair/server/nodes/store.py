"""The nodes that make up a server, and how far each gateway has heard the outbox."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Column, Integer, String, Table, delete, func, insert, select, text, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Notice, Tx
from overair.server.nodes.model import Node, Role
from overair.server.storage.outbox_rows import notice_of
from overair.server.storage.schema import account_column, instant_column, metadata, outbox
from overair.server.storage.work import sql

NODE_NAME_LENGTH = 32

nodes = Table(
    "nodes",
    metadata,
    account_column(),
    Column("name", String(NODE_NAME_LENGTH), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("lock_key", BigInteger, nullable=False),
    instant_column("began"),
    instant_column("life_began"),
    Column("heard_to", BigInteger, nullable=True),
    Column("connected", Integer, nullable=False),
)


class SqlNodeStore:
    """SQL of the nodes of one account's server (the account that the state directory names)."""

    def __init__(self, account: AccountId) -> None:
        self._account = account

    def all(self, tx: Tx) -> Sequence[Node]:
        """By the time that they began."""
        rows = sql(tx).execute(select(nodes).where(nodes.c.account == self._account).order_by(nodes.c.began, nodes.c.name))
        return [
            Node(
                name=row.name,
                role=Role(row.role),
                lock_key=row.lock_key,
                began=Instant(row.began),
                life_began=Instant(row.life_began),
                heard_to=row.heard_to,
                connected=row.connected,
            )
            for row in rows
        ]

    def is_dead(self, tx: Tx, node: Node) -> bool:
        """Whether nobody holds a node's lock. True keeps it from coming back to life before this unit ends."""
        return bool(sql(tx).execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": node.lock_key}).scalar_one())

    def add(self, tx: Tx, node: Node) -> None:
        sql(tx).execute(
            insert(nodes).values(
                account=self._account,
                name=node.name,
                role=node.role.value,
                lock_key=node.lock_key,
                began=node.began,
                life_began=node.life_began,
                heard_to=node.heard_to,
                connected=node.connected,
            )
        )

    def remove(self, tx: Tx, name: str) -> None:
        sql(tx).execute(delete(nodes).where(nodes.c.account == self._account, nodes.c.name == name))

    def remove_all(self, tx: Tx) -> None:
        """One process has the records to itself: nobody else is there."""
        sql(tx).execute(delete(nodes).where(nodes.c.account == self._account))

    def set_connected(self, tx: Tx, name: str, count: int) -> None:
        sql(tx).execute(update(nodes).where(nodes.c.account == self._account, nodes.c.name == name).values(connected=count))

    def heard_to(self, tx: Tx, name: str) -> int | None:
        """How far a gateway has said that it heard; None of one that isn't listed."""
        query = select(nodes.c.heard_to).where(nodes.c.account == self._account, nodes.c.name == name)
        return sql(tx).execute(query).scalar_one_or_none()

    def strike_if_dead(self, tx: Tx, name: str) -> bool:
        """Take a node off the list. False where it lives, or is off the list already."""
        node = next((each for each in self.all(tx) if each.name == name), None)
        if node is None or not self.is_dead(tx, node):
            return False
        self.remove(tx, name)
        return True

    # The outbox, as several gateways hear it ------------------------------------------------------------------------------

    def newest(self, tx: Tx) -> int:
        """The last row that there is; 0 where there is none."""
        return int(sql(tx).execute(select(func.coalesce(func.max(outbox.c.id), 0))).scalar_one())

    def notices(self, tx: Tx, *, after: int, to: int | None = None, limit: int) -> Sequence[tuple[int, Notice]]:
        """Rows behind one, in their order."""
        query = select(outbox).where(outbox.c.id > after).order_by(outbox.c.id).limit(limit)
        if to is not None:
            query = query.where(outbox.c.id <= to)
        return [
            (row.id, notice_of(row.account, row.topic, row.payload, row.qos, row.properties, row.expires))
            for row in sql(tx).execute(query)
        ]

    def forget_unheard(self, tx: Tx, *, before: Instant, keep: int, limit: int) -> int:
        """Delete some of the oldest rows: those from before a time, and those beyond the ``keep`` newest. How many went."""
        oldest = sql(tx).execute(select(outbox.c.id, outbox.c.created).order_by(outbox.c.id).limit(limit)).all()
        beyond = self.newest(tx) - keep
        last = 0
        for row in oldest:
            if row.created >= before and row.id > beyond:
                break
            last = row.id
        return int(sql(tx).execute(delete(outbox).where(outbox.c.id <= last)).rowcount) if last else 0

    def heard(self, tx: Tx, name: str, position: int) -> None:
        """A gateway has handed on everything up to a row; rows that every gateway has heard go."""
        mine = (nodes.c.account == self._account, nodes.c.name == name)
        sql(tx).execute(update(nodes).where(*mine).values(heard_to=position))
        everybody = select(func.min(nodes.c.heard_to)).where(nodes.c.account == self._account).scalar_subquery()
        sql(tx).execute(delete(outbox).where(outbox.c.id <= everybody))
