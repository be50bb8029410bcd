"""Who subscribed to what, of every account, and who therefore gets a message."""

from __future__ import annotations

from overair.basics.ids import AccountId
from overair.server.broker.deliveries import Deliveries
from overair.server.broker.sessions import SessionRecord
from overair.server.broker.shared import SharedSubscriptions
from overair.server.gateway.model import Message
from overair.wire.mqtt.decoder5 import NO_LOCAL, RETAIN_AS_PUBLISHED
from overair.wire.shared_subscriptions import is_shared
from overair.wire.topics import SubscriptionTrie

Trie = SubscriptionTrie[SessionRecord, tuple[str, int]]
"""Whoever subscribed, with the filter and what was granted: the QoS in the two low bits, MQTT 5's options above them."""


class Subscriptions:
    """Plain and shared ones; shared ones cost nothing where nobody has any."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries
        self._tries: dict[AccountId, Trie] = {}
        self._shared: dict[AccountId, SharedSubscriptions] = {}

    def add(self, record: SessionRecord, topic_filter: str, octet: int) -> None:
        """Hold a subscription of a session, in place of one with the same filter."""
        account = record.account
        if is_shared(topic_filter):
            self._shared.setdefault(account, SharedSubscriptions()).add(topic_filter, record, octet)
            return
        trie = self._tries.get(account)
        if trie is None:
            trie = self._tries[account] = SubscriptionTrie(parent_level=False)
        trie.add(topic_filter, record, (topic_filter, octet))

    def remove(self, record: SessionRecord, topic_filter: str) -> None:
        """Forget one; nothing there: no effect."""
        held = self._shared.get(record.account) if is_shared(topic_filter) else None
        if held is not None:
            held.remove(topic_filter, record)
        elif record.account in self._tries:
            self._tries[record.account].remove(topic_filter, record)

    def is_heard(self, account: AccountId, topic: str) -> bool:
        """Whether anybody has subscribed to this topic."""
        trie, shared = self._tries.get(account), self._shared.get(account)
        if trie is not None and next(trie.match(topic), None) is not None:
            return True
        return shared is not None and next(shared.match(topic), None) is not None

    def hand_out(self, account: AccountId, message: Message) -> list[SessionRecord]:
        """Deliver to whoever gets it without a commit; the sessions that are owed it durably, one as often as it is owed it."""
        owed: list[SessionRecord] = []
        trie, shared = self._tries.get(account), self._shared.get(account)
        if trie:
            self._hand_out_to_all(trie, message, owed)
        if shared:
            self._hand_out_in_turn(shared, message, owed)
        return owed

    def _hand_out_to_all(self, trie: Trie, message: Message, owed: list[SessionRecord]) -> None:
        found: dict[SessionRecord, int] = {}
        topic = message.topic
        for record, (topic_filter, octet) in trie.match(topic):
            # Who is just connecting has no rights yet: what a persistent session is owed waits, and is judged on its way out.
            link = record.link
            may_hear = link is None or (record.persistent and not record.ready) or link.accepts(topic, topic_filter)
            if not may_hear or (octet & NO_LOCAL and message.publisher == record.client_id):
                continue
            known = found.get(record)
            if known is None or known & 3 < octet & 3:
                found[record] = octet
        for record, octet in found.items():
            self._deliver(record, octet, message, owed)

    def _hand_out_in_turn(self, shared: SharedSubscriptions, message: Message, owed: list[SessionRecord]) -> None:
        """To one of each group. A member that is owed the message anyway may be owed it twice: these are two subscriptions."""

        def may_hear(record: SessionRecord, name: str) -> bool:
            return record.link is not None and record.link.accepts(message.topic, name)

        for group in shared.match(message.topic):
            chosen = group.next_of(may_hear, is_kept=message.qos > 0)
            if chosen is None:
                self._deliveries.dropped_count += 1
            else:
                self._deliver(chosen[0], chosen[1], message, owed)

    def _deliver(self, record: SessionRecord, octet: int, message: Message, owed: list[SessionRecord]) -> None:
        link = record.link
        retain = message.retain and bool(octet & RETAIN_AS_PUBLISHED)
        if message.qos and octet & 3:
            if record.persistent:
                owed.append(record)
            elif link is not None:
                self._deliveries.send(record, link, message, None, retain=retain)
        elif link is not None and record.ready:
            if link.is_slow:
                self._deliveries.dropped_count += 1
            else:
                link.send(message, retain=retain)
