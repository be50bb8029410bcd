"""How a room says what a reserved topic means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from overair.basics.arn import Place
from overair.basics.ids import AccountId, CertificateId, ClientId


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One message back to the connection whose request is being answered. It never passes through the broker."""

    topic: str
    payload: bytes
    implicit: bool = False
    """True: delivered whether or not the connection subscribed (Jobs' accepted and rejected, wire reference §8.4).
    False: delivered only if it did (streams' description, data and rejected). ``iot:Receive`` is evaluated either way."""


class Connection(Protocol):
    """The connection that made a request, as a topic handler sees it."""

    place: Place
    client_id: ClientId
    certificate_id: CertificateId
    source_ip: str

    @property
    def account(self) -> AccountId: ...


Replies = Sequence[Reply]
TopicHandler = Callable[[Connection, Mapping[str, str], bytes], Awaitable[Replies] | Replies]
"""(connection, topic parameters, payload) → replies. A plain function is called on the event loop and must not block;
a coroutine function may await the store."""

Method = TypeVar("Method", bound=Callable[..., Any])

_MARK = "__overair_topics__"


def topic(pattern: str) -> Callable[[Method], Method]:
    """Mark a method as the handler of publishes to a reserved topic.

    ``pattern`` is a topic whose ``{name}`` levels each match exactly one level, an empty one included
    (``$aws/things/{thing}/jobs//update`` arrives in the field, checklist 63); a last level ``{name+}`` matches one or more.
    Literal levels win over parameters. A message to a topic below ``$aws`` that no pattern matches is refused by the gateway.
    """

    def mark(method: Method) -> Method:
        setattr(method, _MARK, (*getattr(method, _MARK, ()), pattern))
        return method

    return mark


def topics_of(door: object) -> Iterator[tuple[str, TopicHandler]]:
    """Every (pattern, bound handler) that a room's door has marked."""
    for attribute in dir(type(door)):
        method = getattr(type(door), attribute)
        for pattern in getattr(method, _MARK, ()):
            yield pattern, getattr(door, attribute)
