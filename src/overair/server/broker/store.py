"""The broker's tables: what persistent sessions are owed, and retained messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, ClientId
from overair.basics.work import Tx
from overair.server.broker.model import QueuedMessage, RetainedMessage, RetainedSummary, StoredSession
from overair.server.broker.notices import properties_in
from overair.server.gateway.model import Message
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import HotStatement, sql
from overair.wire.mqtt.packets import Properties
from overair.wire.mqtt.properties import encode_properties

CLIENT_ID_LENGTH = 128

sessions = Table(
    "mqtt_sessions",
    metadata,
    account_column(),
    Column("client_id", String(CLIENT_ID_LENGTH), primary_key=True),
    instant_column("expires", nullable=True),
    # Which gateway holds it, where there are several (``nodes``); nobody's name where there is one.
    Column("node", String(32), nullable=False, server_default=""),
    # The last notice of the outbox that stands in its queue: a new holder neither repeats nor skips one.
    Column("heard_to", BigInteger, nullable=False, server_default="0"),
    # How long it outlives its connection; without one, as long as the account's sessions do.
    Column("expiry_ms", BigInteger, nullable=True),
)

subscriptions = Table(
    "mqtt_subscriptions",
    metadata,
    account_column(),
    Column("client_id", String(CLIENT_ID_LENGTH), primary_key=True),
    Column("topic_filter", Text, primary_key=True),
    Column("qos", Integer, nullable=False),
    # What MQTT 5 says beside the QoS, as its octet has it.
    Column("options", Integer, nullable=False, server_default="0"),
)

queue = Table(
    "mqtt_queue",
    metadata,
    account_column(),
    Column("client_id", String(CLIENT_ID_LENGTH), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("topic", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    # As MQTT 5 writes them; none where there are none.
    Column("properties", LargeBinary, nullable=True),
    instant_column("expires", nullable=True),
)

retained = Table(
    "mqtt_retained",
    metadata,
    account_column(),
    Column("topic", Text, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    Column("qos", Integer, nullable=False),
    instant_column("last_modified"),
    Column("properties", LargeBinary, nullable=True),
    instant_column("expires", nullable=True),
    # Looked at each half minute, and most of many never expire.
    Index(None, "expires"),
)

_enqueue = HotStatement(insert(queue))
_acknowledge = HotStatement(
    delete(queue).where(
        queue.c.account == bindparam("b_account"),
        queue.c.client_id == bindparam("b_client_id"),
        queue.c.position == bindparam("b_position"),
    )
)


def _ends(now: Instant, expiry_ms: int) -> ColumnElement[int]:
    return now + func.coalesce(sessions.c.expiry_ms, expiry_ms)


def kept_properties(properties: Properties) -> bytes | None:
    """As a row holds them."""
    return encode_properties(properties) if properties else None


class BrokerStore:
    """SQL for sessions, subscriptions, queues and retained messages.

    Where a server has several gateways, a session has one holder among them, and only its holder changes it.
    """

    def __init__(self, node: str = "") -> None:
        """``node``: the gateway that asks; nameless where it is alone."""
        self._node = node

    def sessions(self, tx: Tx) -> Sequence[tuple[AccountId, StoredSession]]:
        """Every persistent session that this gateway holds, for start-up."""
        return self._stored(tx, sessions.c.node == self._node)

    def _stored(self, tx: Tx, *which: ColumnElement[bool]) -> Sequence[tuple[AccountId, StoredSession]]:
        of_these = select(sessions.c.account, sessions.c.client_id).where(*which).subquery()
        filters: dict[tuple[str, str], list[tuple[str, int]]] = {}
        chosen = select(subscriptions).join(
            of_these,
            (of_these.c.account == subscriptions.c.account) & (of_these.c.client_id == subscriptions.c.client_id),
        )
        for row in sql(tx).execute(chosen.order_by(subscriptions.c.topic_filter)):
            filters.setdefault((row.account, row.client_id), []).append((row.topic_filter, row.qos | row.options))
        queued: dict[tuple[str, str], tuple[int, int, int]] = {
            (row.account, row.client_id): (row.messages, row.size, row.last)
            for row in sql(tx).execute(
                select(
                    queue.c.account,
                    queue.c.client_id,
                    func.count().label("messages"),
                    func.sum(func.length(queue.c.payload)).label("size"),
                    func.max(queue.c.position).label("last"),
                )
                .join(of_these, (of_these.c.account == queue.c.account) & (of_these.c.client_id == queue.c.client_id))
                .group_by(queue.c.account, queue.c.client_id)
            )
        }
        found = []
        for row in sql(tx).execute(select(sessions).where(*which)):
            count, size, last = queued.get((row.account, row.client_id), (0, 0, 0))
            session = StoredSession(
                client_id=ClientId(row.client_id),
                expires=None if row.expires is None else Instant(row.expires),
                subscriptions=tuple(filters.get((row.account, row.client_id), ())),
                queued_count=int(count),
                queued_size_bytes=int(size),
                last_position=int(last),
                heard_to=row.heard_to,
                expiry_ms=row.expiry_ms,
            )
            found.append((AccountId(row.account), session))
        return found

    def keep_session(
        self, tx: Tx, account: AccountId, client_id: ClientId, expires: Instant | None, expiry_ms: int | None
    ) -> None:
        """Insert a session, or set when it expires. Another gateway's stays as it is."""
        key = (sessions.c.account == account, sessions.c.client_id == client_id)
        mine = (*key, sessions.c.node == self._node)
        values = {"expires": expires, "expiry_ms": expiry_ms}
        if sql(tx).execute(update(sessions).where(*mine).values(values)).rowcount == 0 and self.owns(
            tx, account, client_id, unless_held=True
        ):
            sql(tx).execute(insert(sessions).values(account=account, client_id=client_id, node=self._node, **values))

    def owns(self, tx: Tx, account: AccountId, client_id: ClientId, *, unless_held: bool = False) -> bool:
        """Whether this gateway holds a session (or nobody does, where that counts too). A gateway alone isn't asked."""
        if not self._node:
            return True
        holder = self.holder(tx, account, client_id)
        return holder == self._node or (unless_held and holder is None)

    def may_queue(self, tx: Tx, account: AccountId, client_id: ClientId, number: int) -> bool:
        """Note that a notice of the outbox is being queued for a session. False where another gateway holds the session, or the
        notice is in its queue already. A gateway alone isn't asked."""
        if not self._node:
            return True
        mine = (sessions.c.account == account, sessions.c.client_id == client_id, sessions.c.node == self._node)
        noted = sql(tx).execute(update(sessions).where(*mine, sessions.c.heard_to < number).values(heard_to=number))
        return bool(noted.rowcount)

    def holder(self, tx: Tx, account: AccountId, client_id: ClientId) -> str | None:
        """The gateway that holds a stored session; None where there is no such session."""
        key = (sessions.c.account == account, sessions.c.client_id == client_id)
        return sql(tx).execute(select(sessions.c.node).where(*key)).scalar_one_or_none()

    def take(self, tx: Tx, account: AccountId, client_id: ClientId) -> StoredSession | None:
        """Become the holder of a session."""
        key = (sessions.c.account == account, sessions.c.client_id == client_id)
        sql(tx).execute(update(sessions).where(*key).values(node=self._node))
        found = self._stored(tx, *key)
        return found[0][1] if found else None

    def take_all_of(self, tx: Tx, holder: str, now: Instant, expiry_ms: int) -> Sequence[tuple[AccountId, StoredSession]]:
        """Become the holder of what another one held; nobody of these is connected any more."""
        theirs = sessions.c.node == holder
        ends = _ends(now, expiry_ms)
        sql(tx).execute(update(sessions).where(theirs, sessions.c.expires.is_(None)).values(expires=ends))
        taken = self._stored(tx, theirs)
        sql(tx).execute(update(sessions).where(theirs).values(node=self._node))
        return taken

    def held(self, tx: Tx) -> Collection[tuple[AccountId, ClientId]]:
        """The sessions that this gateway holds, by account and client id."""
        rows = sql(tx).execute(select(sessions.c.account, sessions.c.client_id).where(sessions.c.node == self._node))
        return {(AccountId(row.account), ClientId(row.client_id)) for row in rows}

    def take_everything(self, tx: Tx) -> None:
        """There is one gateway now, and it holds every session."""
        sql(tx).execute(update(sessions).where(sessions.c.node != self._node).values(node=self._node))

    def expire_connected(self, tx: Tx, account: AccountId, now: Instant, expiry_ms: int) -> None:
        """After a restart nobody is connected: the time of every such session runs from now. ``expiry_ms``: of those that have
        no time of their own."""
        connected = (sessions.c.account == account, sessions.c.expires.is_(None), sessions.c.node == self._node)
        sql(tx).execute(update(sessions).where(*connected).values(expires=_ends(now, expiry_ms)))

    def delete_session(self, tx: Tx, account: AccountId, client_id: ClientId) -> None:
        """Forget a session with its subscriptions and its queue."""
        for table in (sessions, subscriptions, queue):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.client_id == client_id))

    def subscribe(self, tx: Tx, account: AccountId, client_id: ClientId, filters: Iterable[tuple[str, int]]) -> None:
        """Hold subscriptions, in place of those with the same filters."""
        for topic_filter, octet in filters:
            values = {"qos": octet & 3, "options": octet & ~3}
            key = (
                subscriptions.c.account == account,
                subscriptions.c.client_id == client_id,
                subscriptions.c.topic_filter == topic_filter,
            )
            if sql(tx).execute(update(subscriptions).where(*key).values(values)).rowcount == 0:
                named = {"account": account, "client_id": client_id, "topic_filter": topic_filter}
                sql(tx).execute(insert(subscriptions).values({**named, **values}))

    def unsubscribe(self, tx: Tx, account: AccountId, client_id: ClientId, filters: Iterable[str]) -> None:
        """Forget subscriptions."""
        for topic_filter in filters:
            sql(tx).execute(
                delete(subscriptions).where(
                    subscriptions.c.account == account,
                    subscriptions.c.client_id == client_id,
                    subscriptions.c.topic_filter == topic_filter,
                )
            )

    def enqueue(self, tx: Tx, account: AccountId, client_id: ClientId, position: int, message: Message) -> None:
        """Keep a message until it is acknowledged."""
        _enqueue.run(
            tx,
            account=account,
            client_id=client_id,
            position=position,
            topic=message.topic,
            payload=message.payload,
            properties=kept_properties(message.properties),
            expires=message.expires,
        )

    def acknowledge(self, tx: Tx, account: AccountId, client_id: ClientId, position: int) -> None:
        """A message was acknowledged, or must not be delivered any more."""
        _acknowledge.run(tx, b_account=account, b_client_id=client_id, b_position=position)

    def queued(self, tx: Tx, account: AccountId, client_id: ClientId, *, after: int, limit: int) -> Sequence[QueuedMessage]:
        """Messages behind a position, in order."""
        rows = sql(tx).execute(
            select(queue.c.position, queue.c.topic, queue.c.payload, queue.c.properties, queue.c.expires)
            .where(queue.c.account == account, queue.c.client_id == client_id, queue.c.position > after)
            .order_by(queue.c.position)
            .limit(limit)
        )
        return [
            QueuedMessage(
                position=row.position,
                topic=row.topic,
                payload=bytes(row.payload),
                properties=properties_in(bytes(row.properties or b"")),
                expires=None if row.expires is None else Instant(row.expires),
            )
            for row in rows
        ]

    def retain(self, tx: Tx, account: AccountId, message: Message, now: Instant) -> None:
        """Keep a topic's last message; an empty one forgets it."""
        key = (retained.c.account == account, retained.c.topic == message.topic)
        if not message.payload:
            sql(tx).execute(delete(retained).where(*key))
            return
        values = {
            "payload": message.payload,
            "qos": message.qos,
            "last_modified": now,
            "properties": kept_properties(message.properties),
            "expires": message.expires,
        }
        if sql(tx).execute(update(retained).where(*key).values(values)).rowcount == 0:
            sql(tx).execute(insert(retained).values(account=account, topic=message.topic, **values))

    def expired_retained(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[tuple[AccountId, str]]:
        """Topics whose retained message is over."""
        rows = sql(tx).execute(select(retained.c.account, retained.c.topic).where(retained.c.expires <= now).limit(limit))
        return [(AccountId(row.account), row.topic) for row in rows]

    def forget_retained(self, tx: Tx, account: AccountId, topic: str, now: Instant) -> bool:
        """Forget a topic's retained message if it is over; whether it was."""
        over = (retained.c.account == account, retained.c.topic == topic, retained.c.expires <= now)
        return bool(sql(tx).execute(delete(retained).where(*over)).rowcount)

    def retained(self, tx: Tx, account: AccountId, topic: str) -> RetainedMessage | None:
        """A topic's retained message."""
        row = sql(tx).execute(select(retained).where(retained.c.account == account, retained.c.topic == topic)).one_or_none()
        if row is None:
            return None
        return RetainedMessage(
            topic=row.topic,
            payload=bytes(row.payload),
            qos=row.qos,
            last_modified=Instant(row.last_modified),
            properties=properties_in(bytes(row.properties or b"")),
            expires=None if row.expires is None else Instant(row.expires),
        )

    def list_retained(self, tx: Tx, account: AccountId, *, after: str, limit: int) -> Sequence[RetainedSummary]:
        """Retained messages by topic, behind ``after``."""
        rows = sql(tx).execute(
            select(retained.c.topic, func.length(retained.c.payload).label("size"), retained.c.qos, retained.c.last_modified)
            .where(retained.c.account == account, retained.c.topic > after)
            .order_by(retained.c.topic)
            .limit(limit)
        )
        return [
            RetainedSummary(topic=row.topic, payload_size_bytes=row.size, qos=row.qos, last_modified=Instant(row.last_modified))
            for row in rows
        ]

    def retained_topics(self, tx: Tx) -> Sequence[tuple[AccountId, str]]:
        """Every topic with a retained message, for start-up."""
        rows = sql(tx).execute(select(retained.c.account, retained.c.topic))
        return [(AccountId(row.account), row.topic) for row in rows]
