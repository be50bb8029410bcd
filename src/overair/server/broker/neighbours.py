"""A broker among others: what the gateways of one server tell each other, so that clients needn't know which one they meet.

Three ways, each for what may become of it. What must not be lost (QoS 1, retained, notices of jobs) goes through the outbox,
which every gateway hears to its end. What may be lost (QoS 0, presence) goes over the bus alone. Who holds which session stands
in the session's own record; the bus only says that it changed, in the one order in which all hear it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Final
from weakref import WeakValueDictionary

import structlog

from overair.basics.clock import Clock, Instant
from overair.basics.errors import OverairError, Unavailable
from overair.basics.ids import AccountId, CertificateId, ClientId, IdSource
from overair.basics.work import News, Notice, Tx, Work
from overair.server.broker.gate import Gate
from overair.server.broker.model import StoredSession
from overair.server.broker.neighbour_ports import Key, Sessions, SharedRecords, Shelf
from overair.server.broker.notices import message_of, properties_in
from overair.server.gateway.model import Link, Message
from overair.wire.mqtt.properties import encode_properties
from overair.wire.topics import matches

QOS_0_SIZE_BYTES_MAX: Final = 4_000
"""A message that a notice of the bus holds with its envelope; a larger one goes through the outbox."""
UNTOLD_MAX: Final = 10_000
"""Pieces of news that wait for their commit; more than that is dropped, as QoS 0 may be."""
HELD_AT_ONCE_MAX: Final = 1_000
CATCH_UP_NOTICES_MAX: Final = 10_000

CONNECTED: Final = "client-connected"
GONE: Final = "client-gone"
HELD: Final = "client-held"
WHO_IS_THERE: Final = "who-is-there"
PASSING: Final = "publish"
RETAINED: Final = "retained"

logger = structlog.get_logger("overair.broker")


@dataclass(slots=True, eq=False)
class _Claim:
    """A client id that a connection here has taken."""

    token: str
    link: Link
    is_heard: bool = False
    """The bus has said so: whoever is heard to take it after that takes it from us."""
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A client that is connected to another gateway."""

    node: str
    certificate_id: CertificateId


class Neighbours:
    """Tells and hears for one broker. On the event loop."""

    def __init__(
        self,
        *,
        name: str,
        work: Work,
        records: SharedRecords,
        shelf: Shelf,
        rejoin: Callable[[Tx], bool],
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._name = name
        self._work = work
        self._records = records
        self._shelf = shelf
        self._rejoin = rejoin
        self._clock = clock
        self._ids = ids
        self._sessions: Sessions
        self._claims: dict[Key, _Claim] = {}
        # Each lives as long as a connection that takes the client id holds it or waits for it.
        self._taking: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._elsewhere: dict[Key, Elsewhere] = {}
        self._gone: dict[Key, Instant] = {}
        self._untold: list[News] = []
        self._telling = False
        self._looking = False
        self._look_due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.gate = Gate()
        """Passed alone while notices are handed out, together while sessions come from elsewhere: neither sees half of both."""
        self.position: Callable[[], int] = lambda: 0
        """The last row of the outbox that was handed out here."""

    def serve(self, sessions: Sessions) -> None:
        """Register, at composition, the broker."""
        self._sessions = sessions

    async def idle(self) -> None:
        """What was begun has ended."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)

    # Messages -------------------------------------------------------------------------------------------------------------

    def publish(self, account: AccountId, message: Message, work: Work) -> Awaitable[None] | None:
        """A message that was published here, to subscribers wherever they are. See ``Broker.publish``."""
        properties = encode_properties(message.properties) if message.properties else b""
        size_bytes = len(message.topic.encode()) + len(message.payload) + len(properties)
        if not message.qos and not message.retain and size_bytes <= QOS_0_SIZE_BYTES_MAX:
            self._sessions.hand_out_here(account, message)
            payload = base64.b85encode(message.payload).decode("ascii")
            said = base64.b85encode(properties).decode("ascii")
            expires = "" if message.expires is None else str(message.expires)
            salt = self._ids.token(8, "0123456789abcdef")
            self.tell(News(PASSING, (account, message.topic, payload, said, expires, salt)))
            return None
        now = self._clock.now()

        def unit(tx: Tx) -> None:
            if message.retain:
                self._records.retain(tx, account, message, now)
                is_there = bool(message.payload)
                tx.after_commit(lambda: self._sessions.retained_topics.now(account, message.topic, is_there=is_there))
                tx.tell_nodes(News(RETAINED, (account, message.topic, "1" if is_there else "")))
            tx.publish(
                Notice(
                    account=account,
                    topic=message.topic,
                    payload=message.payload,
                    qos=message.qos,
                    properties=properties,
                    expires=message.expires,
                )
            )

        return work.run(unit)

    # Sessions -------------------------------------------------------------------------------------------------------------

    async def claim(self, link: Link, *, clean_session: bool) -> None:
        """A client connects here: whoever else holds its id lets go, and what is stored of it comes here.

        Raises:
            Unavailable: it has connected elsewhere meanwhile; or the records can't be reached.
        """
        key = (link.account, link.client_id)
        lock = self._taking.get(key)
        if lock is None:
            lock = self._taking[key] = asyncio.Lock()
        async with lock:
            claim = self._claims[key] = _Claim(self._ids.uuid(), link)
            if clean_session or self._sessions.knows(*key):
                await self._work.run(lambda tx: self._told(tx, key, claim, clean_session=clean_session))
            else:
                async with self.gate.together():
                    await self._fetch(key, claim)
            if claim.is_lost:
                raise Unavailable("The client has connected to another gateway meanwhile.", subject="client-id")
            self._elsewhere.pop(key, None)

    def detached(self, link: Link) -> None:
        """A connection has ended."""
        key = (link.account, link.client_id)
        claim = self._claims.get(key)
        if claim is not None and claim.link is link:
            del self._claims[key]
            self.tell(News(GONE, (*key, str(self._clock.now()))))

    async def take_over(self, node: str, *, expiry_ms: int) -> None:
        """A gateway is gone: its sessions are ours from now on, with what they hadn't got yet. ``expiry_ms``: how long those
        last that were connected and have no time of their own."""
        now = self._clock.now()
        async with self.gate.together():
            to = self.position()

            def unit(tx: Tx) -> Sequence[tuple[AccountId, StoredSession]]:
                heard_to = self._shelf.heard_to(tx, node)
                if node and not self._shelf.strike_if_dead(tx, node):
                    return ()
                after = to if heard_to is None else heard_to
                taken = self._records.take_all_of(tx, node, now, expiry_ms)
                return [(account, self._caught_up(tx, account, each, after=after, to=to)) for account, each in taken]

            for account, stored in await self._work.run(unit):
                if not self._sessions.knows(account, stored.client_id):
                    self._sessions.install(account, stored)

    async def _fetch(self, key: Key, claim: _Claim) -> None:
        account, client_id = key
        to = self.position()

        def unit(tx: Tx) -> StoredSession | None:
            self._told(tx, key, claim, clean_session=False)
            holder = self._records.holder(tx, account, client_id)
            if holder is None:
                return None
            heard_to = self._shelf.heard_to(tx, holder)
            after = to if heard_to is None else heard_to
            stored = self._records.take(tx, account, client_id)
            return None if stored is None else self._caught_up(tx, account, stored, after=after, to=to)

        found = await self._work.run(unit)
        if found is not None and not self._sessions.knows(*key):
            self._sessions.install(account, found)

    def _told(self, tx: Tx, key: Key, claim: _Claim, *, clean_session: bool) -> None:
        tx.tell_nodes(News(CONNECTED, (*key, claim.token, claim.link.certificate_id)))
        if clean_session and not self._records.owns(tx, *key):
            self._records.delete_session(tx, *key)

    def _caught_up(self, tx: Tx, account: AccountId, stored: StoredSession, *, after: int, to: int) -> StoredSession:
        """Queue what the former holder hadn't handed to a session and we have already passed."""
        after = max(after, stored.heard_to)
        count, size, last = stored.queued_count, stored.queued_size_bytes, stored.last_position
        if after < to and stored.subscriptions:
            for number, notice in self._shelf.notices(tx, after=after, to=to, limit=CATCH_UP_NOTICES_MAX):
                if notice.account != account or not notice.qos or not _is_heard(stored, notice.topic):
                    continue
                if self._records.may_queue(tx, account, stored.client_id, number):
                    last, count, size = last + 1, count + 1, size + len(notice.payload)
                    message = message_of(notice, qos=1)
                    self._records.enqueue(tx, account, stored.client_id, last, message)
        return replace(
            stored, queued_count=count, queued_size_bytes=size, last_position=last, heard_to=max(after, to, stored.heard_to)
        )

    # Who is where ---------------------------------------------------------------------------------------------------------

    def is_elsewhere(self, account: AccountId, client_id: ClientId) -> bool:
        """Whether a client of that id is connected to another gateway."""
        return (account, client_id) in self._elsewhere

    def any_elsewhere(self, account: AccountId, certificates: Collection[CertificateId]) -> bool:
        """Whether a client with one of these certificates is."""
        return any(owner == account and at.certificate_id in certificates for (owner, _), at in self._elsewhere.items())

    def gone_since(self, account: AccountId, client_id: ClientId) -> Instant | None:
        """When a client left another gateway, as far as it was heard."""
        return self._gone.get((account, client_id))

    def living(self, nodes: Collection[str]) -> None:
        """These nodes are there: nobody is connected to any other."""
        for key in [key for key, at in self._elsewhere.items() if at.node not in nodes]:
            del self._elsewhere[key]

    # What is heard --------------------------------------------------------------------------------------------------------

    def heard_connected(self, teller: str, parts: Sequence[str]) -> None:
        """A client id was taken, here or elsewhere."""
        account, client_id, token, certificate = AccountId(parts[0]), ClientId(parts[1]), parts[2], CertificateId(parts[3])
        key = (account, client_id)
        claim = self._claims.get(key)
        if teller == self._name:
            if claim is not None and claim.token == token:
                claim.is_heard = True
            return
        if claim is not None and not claim.is_heard:
            # Ours is said after this one: it is they who let go.
            return
        if claim is not None:
            claim.is_lost = True
        self._elsewhere[key] = Elsewhere(teller, certificate)
        self._gone.pop(key, None)
        self._sessions.let_go(account, client_id)

    def heard_gone(self, teller: str, parts: Sequence[str]) -> None:
        """A client has left a gateway."""
        key = (AccountId(parts[0]), ClientId(parts[1]))
        at = self._elsewhere.get(key)
        if at is not None and at.node == teller:
            del self._elsewhere[key]
            self._gone[key] = Instant(int(parts[2]))
            while len(self._gone) > UNTOLD_MAX:
                del self._gone[next(iter(self._gone))]

    def heard_held(self, teller: str, parts: Sequence[str]) -> None:
        """Another gateway says whom it holds, since it can't know what it missed."""
        if teller == self._name:
            return
        key = (AccountId(parts[0]), ClientId(parts[1]))
        link = self._sessions.link_of(*key)
        if link is None:
            self._elsewhere[key] = Elsewhere(teller, CertificateId(parts[2]))
            return
        claim = self._claims.get(key)
        if claim is not None and claim.link is link and claim.is_heard:
            # Both hold it: one of the two hasn't heard of the other. We were heard, so whoever holds on hears it again.
            claim.is_heard = False
            claim.token = self._ids.uuid()
            self.tell(News(CONNECTED, (*key, claim.token, link.certificate_id)))

    def heard_passing(self, parts: Sequence[str]) -> None:
        """A message of QoS 0 was published elsewhere."""
        if parts:
            message = Message(
                topic=parts[1],
                payload=base64.b85decode(parts[2]),
                qos=0,
                properties=properties_in(base64.b85decode(parts[3])),
                expires=Instant(int(parts[4])) if parts[4] else None,
            )
            self._sessions.hand_out_here(AccountId(parts[0]), message)

    def heard_retained(self, parts: Sequence[str]) -> None:
        """What is retained has changed elsewhere."""
        if parts:
            self._sessions.retained_topics.now(AccountId(parts[0]), parts[1], is_there=bool(parts[2]))
        else:
            self._spawn(self._look_again())

    def heard_who_is_there(self, _: Sequence[str]) -> None:
        """Somebody has just come, or was deaf; we too, if there are no parts and nobody asked."""
        self._spawn(self._say_whom_we_hold())

    async def _say_whom_we_hold(self) -> None:
        """All of them, some to a commit."""
        links = list(self._sessions.links())
        try:
            for first in range(0, len(links), HELD_AT_ONCE_MAX):
                # Who has left meanwhile has said so already, and mustn't seem to be back.
                some = [
                    link
                    for link in links[first : first + HELD_AT_ONCE_MAX]
                    if self._sessions.link_of(link.account, link.client_id) is link
                ]
                told = [News(HELD, (link.account, link.client_id, link.certificate_id)) for link in some]

                def unit(tx: Tx, told: Sequence[News] = tuple(told)) -> None:
                    for news in told:
                        tx.tell_nodes(news)

                await self._work.run(unit)
        except OverairError as error:
            logger.warning("the other gateways can't be told now", error=str(error))

    async def _look_again(self) -> None:
        """The bus was away: see what became of what we hold. While the records are away too, there is nothing to see."""
        self._look_due = True
        if self._looking:
            return
        self._looking = True
        try:
            while self._look_due:
                self._look_due = False
                await self._look()
        finally:
            self._looking = False

    async def _look(self) -> None:
        try:
            kept = list(self._sessions.kept())

            def unit(tx: Tx) -> tuple[Collection[Key], Sequence[tuple[AccountId, str]]]:
                self._rejoin(tx)
                tx.tell_nodes(News(WHO_IS_THERE))
                return self._records.held(tx), self._records.retained_topics(tx)

            held, topics = await self._work.run(unit)
            self._sessions.retained_topics.are(topics)
            for key in kept:
                if key not in held:
                    self._sessions.let_go(*key)
            self.heard_who_is_there(())
        except OverairError as error:
            logger.info("sessions can't be looked at now", error=str(error))

    # Telling --------------------------------------------------------------------------------------------------------------

    def tell(self, news: News) -> None:
        """Say something that belongs to no unit of work: with the next commit, or never if that fails."""
        if len(self._untold) < UNTOLD_MAX:
            self._untold.append(news)
        if not self._telling:
            self._telling = True
            self._spawn(self._tell_all())

    async def _tell_all(self) -> None:
        """One unit for all that came during the last one."""
        try:
            while self._untold:
                told, self._untold = self._untold, []

                def unit(tx: Tx, told: Sequence[News] = tuple(told)) -> None:
                    for news in told:
                        tx.tell_nodes(news)

                await self._work.run(unit)
        except OverairError as error:
            logger.warning("the other gateways can't be told now", error=str(error))
        finally:
            self._telling = False

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task among gateways failed", exc_info=task.exception())


def _is_heard(stored: StoredSession, topic: str) -> bool:
    heard = (topic_filter for topic_filter, octet in stored.subscriptions if octet & 3)
    return any(matches(topic_filter, topic, parent_level=False) for topic_filter in heard)
