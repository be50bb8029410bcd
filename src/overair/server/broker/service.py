"""The broker: who gets what was published, now or when they come back.

It lives on the event loop. What a persistent session is owed and what is retained goes to the store first: a QoS 1 publish is
acknowledged after that commit. ``publish`` and its kin return None when everything is done, or an awaitable that ends with
the commit, so that the common case costs no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Coroutine, Sequence
from typing import Final

import msgspec
import structlog

from overair.basics.clock import Clock, Instant
from overair.basics.errors import OverairError
from overair.basics.ids import AccountId, CertificateId, ClientId, IdSource
from overair.basics.work import Notice, Tx, Work
from overair.server.broker.deliveries import LOAD_COUNT, Deliveries
from overair.server.broker.model import ClientPresence, StoredSession
from overair.server.broker.neighbours import Neighbours
from overair.server.broker.notices import message_of
from overair.server.broker.ports import PresenceWatcher, Records
from overair.server.broker.presence import Presence
from overair.server.broker.retained import RetainedTopics
from overair.server.broker.sessions import LimitsFor, SessionCounts, SessionRecord
from overair.server.broker.stored_sessions import StoredSessions
from overair.server.broker.subscriptions import Subscriptions
from overair.server.broker.wills import DelayedWills
from overair.server.gateway.model import DisconnectReason, LastWord, Link, Message, SessionWish
from overair.wire.mqtt.outgoing import properties_size_bytes

__all__ = ["Broker", "Records", "SessionRecord"]

EXPIRED_AT_ONCE_MAX: Final = 200

logger = structlog.get_logger("overair.broker")


class Broker:
    """Sessions, subscriptions and delivery of every account on this server.

    Attributes:
        retained_topics: Which topics hold a retained message.
    """

    def __init__(self, *, work: Work, store: Records, clock: Clock, ids: IdSource, limits_for: LimitsFor) -> None:
        self._work = work
        self._store = store
        self._clock = clock
        self._limits_for = limits_for
        self._sessions: dict[tuple[AccountId, ClientId], SessionRecord] = {}
        self.retained_topics = RetainedTopics(work=work, store=store, clock=clock)
        self._stored = StoredSessions(store)
        self._counts = SessionCounts()
        self._wills = DelayedWills(self.publish_soon)
        self._deliveries = Deliveries(work=work, store=store, clock=clock, spawn=self._spawn)
        self._subscriptions = Subscriptions(self._deliveries)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: list[PresenceWatcher] = []
        self._presence = Presence(clock=clock, ids=ids, publish=self._publish_event, is_heard=self._may_be_heard)
        self._neighbours: Neighbours | None = None

    def among(self, neighbours: Neighbours) -> None:
        """Register, at composition, the other gateways of a server that has several processes."""
        self._neighbours = neighbours
        neighbours.serve(self)

    def watched_by(self, watcher: PresenceWatcher) -> None:
        """Register, at composition, a room above that must know who comes and goes."""
        self._watchers.append(watcher)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what the store remembers. To be awaited before the first connection is accepted."""
        now = self._clock.now()

        def load(tx: Tx) -> tuple[Sequence[tuple[AccountId, StoredSession]], Sequence[tuple[AccountId, str]]]:
            return self._store.sessions(tx), self._store.retained_topics(tx)

        connected: dict[AccountId, int] = {}
        stored, topics = await self._work.read(load)
        for account, each in stored:
            self.install(account, each)
            if each.expires is None:
                connected[account] = self._limits_for(account).session_expiry_ms
        if connected:
            await self._work.run(self._stored.expire_connected(now, connected))
        self.retained_topics.are(topics)

    def install(self, account: AccountId, stored: StoredSession) -> None:
        """Hold a stored session whose client is away."""
        limits = self._limits_for(account)
        record = SessionRecord(account=account, client_id=stored.client_id, persistent=True, limits=limits)
        if stored.expiry_ms is not None:
            record.expiry_ms = stored.expiry_ms
        record.expires = Instant(self._clock.now() + record.expiry_ms) if stored.expires is None else stored.expires
        record.queued_count, record.queued_size_bytes = stored.queued_count, stored.queued_size_bytes
        record.last_position = stored.last_position
        record.behind = True
        record.heard_to = stored.heard_to
        self._sessions[account, stored.client_id] = record
        for topic_filter, octet in stored.subscriptions:
            record.session.grant(topic_filter, octet & 3)
            self._subscriptions.add(record, topic_filter, octet)

    async def stop(self) -> None:
        """The gateway has stopped: wills that wait are said now, since nobody will be here later; then all is ``idle``."""
        self._wills.say_all()
        await self.idle()

    async def idle(self) -> None:
        """Everything that was begun has ended: to be awaited at the stop, after the gateway's."""
        if self._neighbours is not None:
            await self._neighbours.idle()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # Since Python 3.12 waiting for what has ended is no turn of the loop; a task leaves the set in one of its own.
            await asyncio.sleep(0)

    async def expire_sessions(self) -> int:
        """Forget persistent sessions whose time is over, ``EXPIRED_AT_ONCE_MAX`` at most; how many."""
        now = self._clock.now()
        over = [
            record
            for record in self._sessions.values()
            if record.link is None and record.expires is not None and record.expires <= now
        ][:EXPIRED_AT_ONCE_MAX]
        for record in over:
            self._drop(record)
            await self._work.run(self._stored.delete(record))
        self._presence.forget_long_gone()
        return len(over)

    @property
    def dropped_count(self) -> int:
        """Messages that a full queue or a slow reader cost, since the start."""
        return self._deliveries.dropped_count

    @property
    def session_count(self) -> int:
        """Sessions held, live and waiting."""
        return len(self._sessions)

    def is_connected(self, account: AccountId, client_id: ClientId) -> bool:
        """Whether a client of that id is connected."""
        record = self._sessions.get((account, client_id))
        if record is not None and record.link is not None:
            return True
        return self._neighbours is not None and self._neighbours.is_elsewhere(account, client_id)

    def connected_clients(self, account: AccountId) -> list[ClientId]:
        """Every client that is connected now."""
        return [client for (owner, client), record in self._sessions.items() if owner == account and record.link is not None]

    def presence_of(self, account: AccountId, client_id: ClientId, certificates: Collection[CertificateId]) -> ClientPresence:
        """Whether a client of that id, or one with one of these certificates, is connected."""
        if self.is_connected(account, client_id):
            return ClientPresence(connected=True)
        for other in self._sessions.values():
            if other.account == account and other.link is not None and other.link.certificate_id in certificates:
                return ClientPresence(connected=True)
        gone_since = self._presence.gone_since(account, client_id)
        if self._neighbours is not None:
            if self._neighbours.any_elsewhere(account, certificates):
                return ClientPresence(connected=True)
            gone_since = max(gone_since or Instant(0), self._neighbours.gone_since(account, client_id) or Instant(0)) or None
        return ClientPresence(connected=False, gone_since=gone_since)

    # -- connections --------------------------------------------------------------------------------------------------

    async def attach(self, link: Link, wish: SessionWish) -> tuple[SessionRecord, bool]:
        """A client has connected: (its session, whether it existed). A live connection with the same id is closed first.

        Nothing is delivered before ``begin``. If another connection takes the id over meanwhile, ``link.close`` was called.
        Raises LimitExceeded.
        """
        account, client_id = key = (link.account, link.client_id)
        if self._neighbours is not None:
            await self._neighbours.claim(link, clean_session=wish.clean_start)
        record = self._sessions.get(key)
        if record is not None and record.link is not None:
            record.link.close(DisconnectReason.DUPLICATE_CLIENTID)
            record = self._sessions.get(key)
        expired = record is not None and record.expires is not None and record.expires <= self._clock.now()
        old = record if record is not None and (wish.clean_start or expired) else None
        present = record is not None and old is None
        self._wills.came_back(account, client_id, to_its_session=present)
        if record is None or old is not None:
            record = self._counts.new(link, self._limits_for(account), persistent=wish.expiry_ms > 0)
            if old is not None:
                self._drop(old)
            self._sessions[key] = record
        record.link, record.ready, record.expires, record.expiry_ms = link, False, None, wish.expiry_ms
        self._presence.connected(record, link)
        for watcher in self._watchers:
            watcher.connected(account, client_id)
        if old is not None or record.persistent:
            unit = self._stored.take_up(
                account, client_id, forget=old is not None, keep=record.persistent, expiry_ms=record.expiry_ms
            )
            await self._work.run(unit)
        return record, present

    def begin(self, link: Link) -> None:
        """CONNACK is written: send again what is unacknowledged, then what waits in the store."""
        if (record := self._held_by(link)) is None:
            return
        record.ready = True
        if not record.persistent:
            return
        session = record.session
        refused = []
        for packet_id, topic, token in session.in_flight_topics():
            if not link.accepts(topic, None):
                refused.append(packet_id)
                self._deliveries.settle(record, token)
        session.forget(refused)
        in_flight = [token for token in session.undelivered() if token is not None]
        record.loaded_to = max(in_flight, default=0)
        again = session.resume(self._clock.now())
        if again:
            link.write(again)
        self._deliveries.settle_spoiled(record)
        if record.queued_count > len(in_flight):
            self._deliveries.start(record)
        else:
            record.behind = False

    def outlive(self, link: Link, expiry_ms: int) -> None:
        """A client that leaves says how long its session is to outlive it."""
        if (record := self._held_by(link)) is not None:
            record.expiry_ms = min(expiry_ms, self._limits_for(record.account).session_expiry_ms_max)

    def detach(self, link: Link, reason: DisconnectReason, will: LastWord | None) -> None:
        """A connection has ended. ``will`` is what is to be published for it, already judged by its policy."""
        if self._neighbours is not None:
            self._neighbours.detached(link)
        if (record := self._held_by(link)) is None:
            return
        record.link, record.ready = None, False
        if record.expiry_ms:
            record.session.drop_pending()
            record.behind = True
            record.expires = Instant(self._clock.now() + record.expiry_ms)
            self._spawn(_done(self._work.run(self._stored.keep(record))))
        else:
            self._drop(record)
            if record.persistent:
                self._spawn(_done(self._work.run(self._stored.delete(record))))
        self._presence.disconnected(record, link, reason)
        for watcher in self._watchers:
            watcher.disconnected(record.account, record.client_id, reason.value)
        if will is not None:
            self._wills.due(record.account, record.client_id, will, session_ends_ms=record.expiry_ms)

    def narrowed(self, link: Link) -> None:
        """The connection's policy has changed: what waits for it and may no longer be received is dropped."""
        if (record := self._held_by(link)) is None:
            return
        topics = {topic for topic in record.session.pending_topics() if not link.accepts(topic, None)}
        if topics:
            for token in record.session.filter_pending(topics):
                self._deliveries.settle(record, token)

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def subscribe(self, link: Link, filters: Sequence[tuple[str, int]]) -> Awaitable[None] | None:
        """Hold subscriptions, each with the QoS it was granted, and MQTT 5's options above that."""
        if (record := self._held_by(link)) is None:
            return None
        for topic_filter, octet in filters:
            self._subscriptions.add(record, topic_filter, octet)
        self._presence.subscribed(record, [topic_filter for topic_filter, _ in filters])
        if not record.persistent:
            return None
        return self._work.run(self._stored.subscribe(record, tuple(filters)))

    def unsubscribe(self, link: Link, filters: Sequence[str]) -> Awaitable[None] | None:
        """Forget subscriptions; those that aren't held have no effect."""
        if (record := self._held_by(link)) is None:
            return None
        for topic_filter in filters:
            record.session.subscriptions.pop(topic_filter, None)
            self._subscriptions.remove(record, topic_filter)
        self._presence.unsubscribed(record, filters)
        if not record.persistent:
            return None
        return self._work.run(self._stored.unsubscribe(record, tuple(filters)))

    def has_retained(self, account: AccountId, topic: str) -> bool:
        """Whether something is retained for exactly this topic."""
        return self.retained_topics.holds(account, topic)

    async def send_retained(self, link: Link, filters: Sequence[tuple[str, int]]) -> None:
        """Deliver what is retained on new subscriptions that name one topic exactly (wire reference §8.3)."""
        for topic, qos in filters:
            try:
                message = await self.retained_topics.message(link.account, topic)
            except OverairError as error:
                logger.warning("a retained message can't be read now", topic=topic, error=str(error))
                return
            record = self._held_by(link)
            if message is None or record is None or not link.accepts(topic, topic):
                continue
            greeting = Message(
                topic=topic,
                payload=message.payload,
                qos=min(qos, message.qos),
                properties=message.properties,
                expires=message.expires,
            )
            if greeting.qos:
                self._deliveries.send(record, link, greeting, None, retain=True)
            elif link.is_slow:
                self._deliveries.dropped_count += 1
            else:
                link.send(greeting, retain=True)

    def is_heard(self, account: AccountId, topic: str) -> bool:
        """Whether anybody has subscribed to this topic."""
        return self._subscriptions.is_heard(account, topic)

    # -- messages -----------------------------------------------------------------------------------------------------

    def publish(self, account: AccountId, message: Message, *, work: Work | None = None) -> Awaitable[None] | None:
        """Hand a message to every subscriber. None: done. Otherwise await it: only then is the message safe.

        Args:
            work: Runs the unit that keeps the message, in place of the broker's own (an operator's is audited).

        Raises:
            LimitExceeded: the account retains as many messages as it may. Also from the awaitable: Unavailable.
        """
        if message.retain:
            self.retained_topics.require_room(account, message, count_max=self._limits_for(account).retained_count_max)
        if self._neighbours is not None:
            return self._neighbours.publish(account, message, work or self._work)
        return self._publish_here(account, message, work or self._work)

    def _publish_here(
        self, account: AccountId, message: Message, work: Work, *, number: int = 0
    ) -> Coroutine[None, None, None] | None:
        """To the sessions of this gateway. ``number``: of the outbox; who has heard it elsewhere doesn't hear it again."""
        owed = self._subscriptions.hand_out(account, message)
        if number:
            owed = [record for record in owed if record.heard_to < number]
        if not owed and not message.retain:
            return None
        return self._commit(account, message, owed, work, number)

    def publish_soon(self, account: AccountId, message: Message) -> None:
        """Publish what nobody waits for: events and wills."""
        try:
            pending = self.publish(account, message)
        except OverairError as error:
            logger.warning("an event or a will can't be published", topic=message.topic, error=str(error))
            return
        if pending is not None:
            self._spawn(_done(pending))

    def _publish_event(self, account: AccountId, message: Message) -> None:
        """Tell of a client. Among several gateways that goes over the bus, and may be lost like anything of QoS 0."""
        self.publish_soon(account, message if self._neighbours is None else msgspec.structs.replace(message, qos=0))

    def _may_be_heard(self, account: AccountId, topic: str) -> bool:
        return self._neighbours is not None or self.is_heard(account, topic)

    async def deliver(self, notice: Notice, number: int = 0) -> None:
        """Hand a notice of the outbox to the sessions here: returns once whoever must still get it after a crash has it in the
        store."""
        message = message_of(notice, qos=min(notice.qos, 1))
        pending = self._publish_here(notice.account, message, self._work, number=number)
        if pending is not None:
            await pending

    def acknowledged(self, link: Link, token: int | None) -> None:
        """The client has acknowledged a delivery."""
        if (record := self._held_by(link)) is None:
            return
        self._deliveries.settle(record, token)
        self._deliveries.settle_spoiled(record)
        if record.behind and record.session.undelivered_count < LOAD_COUNT // 2:
            self._deliveries.start(record)

    async def _commit(
        self, account: AccountId, message: Message, owed: Sequence[SessionRecord], work: Work, number: int
    ) -> None:
        size = len(message.topic) + len(message.payload) + properties_size_bytes(message.properties)
        limits = self._limits_for(account)
        places: list[tuple[SessionRecord, int]] = []
        for record in owed:
            if record.has_room(size, limits):
                # Positions are given in the same step that hands the unit to the writer, so commits follow their order.
                places.append((record, record.queue(size)))
            else:
                self._deliveries.dropped_count += 1
        now = self._clock.now()

        def unit(tx: Tx) -> None:
            for record, position in places:
                # Also where another gateway has taken it: that one hears the same notice.
                if record.dropped or not self._store.may_queue(tx, account, record.client_id, number):
                    continue
                self._store.enqueue(tx, account, record.client_id, position, message)
            if message.retain:
                self._store.retain(tx, account, message, now)

        try:
            await work.run(unit)
        except BaseException:
            for record, position in places:
                record.unqueue(position)
            raise
        if message.retain:
            self.retained_topics.now(account, message.topic, is_there=bool(message.payload))
        for record, position in places:
            self._deliveries.hand_over(record, position, message)

    def _held_by(self, link: Link) -> SessionRecord | None:
        """The session of a connection; None once another connection has taken it."""
        record = self._sessions.get((link.account, link.client_id))
        return record if record is not None and record.link is link else None

    # -- what the other gateways let happen (neighbours.Sessions) -------------------------------------------------------

    def links(self) -> Collection[Link]:
        """The clients that are connected here."""
        return [record.link for record in self._sessions.values() if record.link is not None]

    def kept(self) -> Collection[tuple[AccountId, ClientId]]:
        """The persistent sessions that are held here."""
        return [key for key, record in self._sessions.items() if record.persistent]

    def link_of(self, account: AccountId, client_id: ClientId) -> Link | None:
        """A client's connection here."""
        record = self._sessions.get((account, client_id))
        return None if record is None else record.link

    def knows(self, account: AccountId, client_id: ClientId) -> bool:
        """Whether a client has a session here."""
        return (account, client_id) in self._sessions

    def let_go(self, account: AccountId, client_id: ClientId) -> None:
        """Another gateway has the client now: close its connection here, and forget its session without touching its record."""
        record = self._sessions.get((account, client_id))
        if record is not None and record.link is not None:
            record.link.close(DisconnectReason.DUPLICATE_CLIENTID)
        if (record := self._sessions.get((account, client_id))) is not None:
            self._drop(record)

    def hand_out_here(self, account: AccountId, message: Message) -> None:
        """A message of QoS 0 to whoever is connected here."""
        self._subscriptions.hand_out(account, message)

    # -- small parts --------------------------------------------------------------------------------------------------

    def _drop(self, record: SessionRecord) -> None:
        self._counts.ended(record)
        for topic_filter in record.session.subscriptions:
            self._subscriptions.remove(record, topic_filter)
        if self._sessions.get((record.account, record.client_id)) is record:
            del self._sessions[record.account, record.client_id]

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the broker failed", exc_info=task.exception())


async def _done(pending: Awaitable[None]) -> None:
    try:
        await pending
    except OverairError as error:
        logger.warning("a session, an event or a will can't be stored now", error=str(error))
