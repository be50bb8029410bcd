"""Asking for the next job, as often and as patiently as nobody answers."""

from __future__ import annotations

from overair.agent.backoff import Backoff
from overair.agent.transport import Transport
from overair.wire.job_messages import DescribeRequest, accepted, describe_topic, notify_next_topic


class JobInquiry:
    """What there is to do for one thing."""

    def __init__(self, transport: Transport, *, thing: str, backoff: Backoff) -> None:
        self._transport = transport
        self._thing = thing
        self._backoff = backoff
        self._asked = 0
        self._unanswered = 0

    def ask(self) -> float:
        """Ask, and have it told when another job comes to be the next. Returns how much longer than usual to wait."""
        self._transport.subscribe(notify_next_topic(self._thing), qos=1)
        request = DescribeRequest(client_token=f"{self._asked}:{self._thing[:53]}").to_json()
        self._asked += 1
        self._transport.publish(describe_topic(self._thing), request, qos=1)
        wait_s = self._backoff.wait_s(self._unanswered)
        self._unanswered += 1
        return wait_s

    def is_answered_on(self, topic: str) -> bool:
        """Whether a job, or that there is none, comes there."""
        return topic in (accepted(describe_topic(self._thing)), notify_next_topic(self._thing))

    def answered(self) -> None:
        """Something came: the next question starts patient again."""
        self._unanswered = 0
