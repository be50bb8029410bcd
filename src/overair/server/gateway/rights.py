"""What one connection may do, with every verdict remembered until its policy or its subscriptions change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from overair.server.gateway.authority import DevicePolicy
from overair.server.gateway.handlers import TopicHandler
from overair.server.gateway.limits import ROUTES_COUNT_MAX, GatewayLimits
from overair.server.gateway.model import REASON_CODES, DisconnectReason
from overair.server.gateway.reserved_topics import ReservedTopics
from overair.wire.mqtt.packets import MalformedPacket, Publish, encode_text
from overair.wire.mqtt.reasons import Reason
from overair.wire.mqtt.session import ServerSession
from overair.wire.shared_subscriptions import NAME_SIZE_MAX, PREFIX, filter_in, read_shared
from overair.wire.topics import matches

ABSENT: Final = {
    "shadow": "device shadows aren't here: keep state in retained messages, or ask the registry",
    "rules": "rules and Basic Ingest aren't here: publish to the topic itself, and subscribe to it",
}
"""What AWS has below ``$aws`` and this server doesn't."""


class Refused(Exception):
    """Nothing of the packet was done, and the connection must be closed; of MQTT 5, only where no answer can say so.

    ``code`` is what a peer that speaks MQTT 5 is told; ``text``, if any, in words.
    """

    def __init__(self, why: str, reason: DisconnectReason, *, code: Reason | None = None, text: str = "") -> None:
        super().__init__(why)
        self.reason = reason
        self.code = code or REASON_CODES[reason]
        self.text = text

    @classmethod
    def malformed(cls, error: MalformedPacket) -> Refused:
        """The refusal of a peer that broke the protocol."""
        return cls(str(error), DisconnectReason.CLIENT_ERROR, code=error.reason, text=str(error))


def absent(name: str) -> str | None:
    """Why a topic or a filter leads to nothing here that leads to something in AWS, or None."""
    if name.startswith("$aws/rules/"):
        return ABSENT["rules"]
    levels = name.split("/")
    return ABSENT["shadow"] if levels[:2] == ["$aws", "things"] and levels[3:4] == ["shadow"] else None


class Route:
    """What a publish to one topic means; made only where policy allows the publish."""

    __slots__ = ("handler", "parameters", "retain_allowed")

    def __init__(self, handler: TopicHandler | None, parameters: Mapping[str, str], retain_allowed: bool) -> None:
        self.handler = handler
        """None: an ordinary topic."""
        self.parameters = parameters
        self.retain_allowed = retain_allowed


def check_name(name: str, limits: GatewayLimits) -> None:
    """Hold a topic or a filter to its limits.

    Raises:
        Refused: it is too long or too deep, or shared in a way that isn't one.
    """
    if name.startswith(PREFIX):
        shared = read_shared(name)
        if shared is None:
            why = f"a shared subscription reads $share/NAME/FILTER, with a name of 1 to {NAME_SIZE_MAX} bytes without / + #"
            raise Refused(why, DisconnectReason.CLIENT_ERROR, code=Reason.TOPIC_FILTER_INVALID, text=why)
        name = shared.topic_filter
    slashes = name.count("/") - (3 if name.startswith("$aws/rules/") else 0)
    if len(name.encode()) > limits.topic_size_bytes_max or slashes > limits.topic_slashes_max:
        bounds = f"{limits.topic_size_bytes_max} bytes or {limits.topic_slashes_max} slashes"
        why = f"a topic is over {bounds}"
        raise Refused(why, DisconnectReason.CLIENT_ERROR, code=Reason.TOPIC_NAME_INVALID, text=why)


class Rights:
    """A policy applied to one session."""

    __slots__ = ("_denied", "_limits", "_policy", "_receivable", "_replies", "_routes", "_session", "_suspended", "_topics")

    def __init__(
        self,
        *,
        policy: DevicePolicy,
        limits: GatewayLimits,
        topics: ReservedTopics,
        session: ServerSession[int | None],
        denied: Callable[[str, str, str], None],
    ) -> None:
        """``denied`` hears of what the policy forbids: (action, kind and name of the resource). Of what is to be received it
        hears once for each topic that is remembered, not for each message."""
        self._denied = denied
        self._limits = limits
        self._topics = topics
        self._session = session
        self.renew(policy)

    def renew(self, policy: DevicePolicy) -> None:
        """Go on under another policy. What it suspends gives nothing while it lasts, and isn't forgotten."""
        self._policy = policy
        # Made when first used: most of many connections are idle.
        self._routes: dict[str, Route] | None = None
        self._replies: dict[str, tuple[bytes, int]] | None = None
        self._receivable: dict[str, bool] | None = None
        self._suspended = frozenset(name for name in self._session.subscriptions if not policy.allows_subscribe(name))

    def _forbidden(self, action: str, kind: str, name: str) -> Refused:
        self._denied(action, kind, name)
        why = f"no policy allows iot:{action} on {kind}/{name}"
        return Refused(why, DisconnectReason.AUTH_ERROR, text=why)

    # -- publishing -----------------------------------------------------------------------------------------------------

    def judge_publish(self, packet: Publish) -> Route:
        """What a PUBLISH means.

        Raises:
            Refused: policy or a limit forbids it, or it goes to a reserved topic that nobody answers.
        """
        route = self._routes.get(packet.topic) if self._routes is not None else None
        if route is None:
            route = self._find_route(packet.topic)
        if len(packet.payload) > self._limits.payload_size_bytes_max:
            sizes = f"{len(packet.payload)} bytes; {self._limits.payload_size_bytes_max} are allowed"
            why = f"a payload of {sizes}"
            raise Refused(why, DisconnectReason.CLIENT_ERROR, code=Reason.PACKET_TOO_LARGE, text=why)
        if packet.qos == 2:
            why = "QoS 2 is not served here; publish with QoS 0 or 1"
            raise Refused(why, DisconnectReason.CLIENT_ERROR, code=Reason.QOS_NOT_SUPPORTED, text=why)
        if packet.retain and not route.retain_allowed:
            raise self._forbidden("RetainPublish", "topic", packet.topic)
        return route

    def _find_route(self, topic: str) -> Route:
        check_name(topic, self._limits)
        if not self._policy.allows_publish(topic):
            raise self._forbidden("Publish", "topic", topic)
        if topic.startswith("$"):
            found = self._topics.find(topic)
            if found is None:
                why = f"{topic} is not a topic to publish to"
                known = absent(topic)
                why = why if known is None else f"{why}: {known}"
                raise Refused(why, DisconnectReason.FORBIDDEN_ACCESS, code=Reason.TOPIC_NAME_INVALID, text=why)
            route = Route(found[0], found[1], False)
        else:
            route = Route(None, {}, self._policy.allows_retain(topic))
        if self._routes is None or len(self._routes) >= ROUTES_COUNT_MAX:
            self._routes = {}
        self._routes[topic] = route
        return route

    # -- subscribing ----------------------------------------------------------------------------------------------------

    def judge_filters(self, filters: Sequence[tuple[str, int]], *, one_by_one: bool = False) -> tuple[int, ...]:
        """Grant what a SUBSCRIBE asks for: its reason codes. ``one_by_one``: what a filter may not be is said of that filter.

        Raises:
            Refused: a filter isn't allowed, or the packet breaks a limit: then nothing is granted (checklist 39).
        """
        limits = self._limits
        if len(filters) > limits.filters_per_subscribe_max:
            why = f"a SUBSCRIBE of {len(filters)} filters; {limits.filters_per_subscribe_max} are allowed"
            raise Refused(why, DisconnectReason.CLIENT_ERROR, code=Reason.QUOTA_EXCEEDED, text=why)
        refused: dict[str, Reason] = {}
        for name, _ in filters:
            try:
                self._check_filter(name)
            except Refused as refusal:
                if not one_by_one:
                    raise
                refused[name] = Reason.TOPIC_FILTER_INVALID if refusal.code is Reason.TOPIC_NAME_INVALID else refusal.code
        codes: list[int] = []
        held = self._session.subscriptions
        for name, qos in filters:
            if name in refused:
                codes.append(refused[name])
            elif absent(name) is not None:
                # Granted, it would stay silent for ever.
                codes.append(Reason.TOPIC_FILTER_INVALID)
            elif name not in held and len(held) >= limits.subscriptions_count_max:
                codes.append(Reason.QUOTA_EXCEEDED)
            else:
                codes.append(self._session.grant(name, qos))
        self.subscriptions_changed(name for name, _ in filters)
        return tuple(codes)

    def _check_filter(self, name: str) -> None:
        check_name(name, self._limits)
        if not self._policy.allows_subscribe(name):
            raise self._forbidden("Subscribe", "topicfilter", name)

    def subscriptions_changed(self, names: Iterable[str]) -> None:
        """These filters were granted or given up under the present policy."""
        self._replies = None
        if self._suspended:
            self._suspended = self._suspended.difference(names)

    # -- receiving ------------------------------------------------------------------------------------------------------

    def may_receive(self, topic: str) -> bool:
        """Whether policy allows ``iot:Receive`` on a topic."""
        known = self._receivable
        if known is None or len(known) >= ROUTES_COUNT_MAX:
            known = self._receivable = {}
        allowed = known.get(topic)
        if allowed is None:
            allowed = known[topic] = self._policy.allows_receive(topic)
            if not allowed:
                self._denied("Receive", "topic", topic)
        return allowed

    def accepts(self, topic: str, topic_filter: str | None) -> bool:
        """See ``broker.model.Link.accepts``."""
        if self._suspended:
            if topic_filter is None:
                names = self._session.subscriptions
                found = [name for name in names if matches(filter_in(name), topic, parent_level=False)]
                if found and self._suspended.issuperset(found):
                    return False
            elif topic_filter in self._suspended:
                return False
        return self.may_receive(topic)

    def reply_route(self, topic: str) -> tuple[bytes, int]:
        """(encoded topic as the connection's dialect has it at QoS 0, QoS of the best subscription that matches it or -1); no
        topic where Receive isn't allowed."""
        known = self._replies
        if known is None:
            known = self._replies = {}
        route = known.get(topic)
        if route is not None:
            return route
        if len(known) >= ROUTES_COUNT_MAX:
            known.clear()
        route = (b"", -1)
        if self.may_receive(topic):
            granted = -1
            for name, qos in self._session.subscriptions.items():
                if qos > granted and name not in self._suspended and matches(name, topic, parent_level=False):
                    granted = qos
            route = (encode_text(topic) + self._session.dialect.after_topic, granted)
        known[topic] = route
        return route
