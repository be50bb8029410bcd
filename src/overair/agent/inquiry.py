"""Asking for the next job, as often and as patiently as nobody answers; and first, once for each connection, saying which
encrypted images this device can read, so that no job comes that it can't do."""

from __future__ import annotations

import logging

from overair.agent.backoff import Backoff
from overair.agent.transport import Transport
from overair.wire.decryption_messages import Declaration, declare_topic
from overair.wire.job_messages import DescribeRequest, accepted, describe_topic, notify_next_topic, rejected

LOG = logging.getLogger("overair.agent")


class JobInquiry:
    """What there is to do for one thing."""

    def __init__(self, transport: Transport, *, thing: str, backoff: Backoff, declaration: Declaration | None = None) -> None:
        """``declaration``: of the keys that images may be encrypted to; None: nothing is said of them."""
        self._transport = transport
        self._thing = thing
        self._backoff = backoff
        self._asked = 0
        self._unanswered = 0
        self._declaration = declaration
        self._undeclared = declaration is not None

    def connected(self) -> None:
        """It is another connection, maybe to another server: what was said before must be said again. From any thread."""
        self._undeclared = self._declaration is not None

    def ask(self) -> float:
        """Ask, and have it told when another job comes to be the next. Returns how much longer than usual to wait."""
        if self._declaration is not None and self._undeclared:
            self._transport.publish(declare_topic(self._thing), self._declaration.to_json(), qos=1)
        self._transport.subscribe(notify_next_topic(self._thing), qos=1)
        request = DescribeRequest(client_token=f"{self._asked}:{self._thing[:53]}").to_json()
        self._asked += 1
        self._transport.publish(describe_topic(self._thing), request, qos=1)
        wait_s = self._backoff.wait_s(self._unanswered)
        self._unanswered += 1
        return wait_s

    def is_declared_by(self, topic: str) -> bool:
        """Whether this is the answer to what was declared. A refusal isn't argued with: images come unencrypted, or not."""
        asked = declare_topic(self._thing)
        if topic == rejected(asked):
            LOG.warning("the server doesn't take what this device says of its decryption keys")
        if topic not in (accepted(asked), rejected(asked)):
            return False
        self._undeclared = False
        return True

    def is_answered_on(self, topic: str) -> bool:
        """Whether a job, or that there is none, comes there."""
        return topic in (accepted(describe_topic(self._thing)), notify_next_topic(self._thing))

    def answered(self) -> None:
        """Something came: the next question starts patient again."""
        self._unanswered = 0
