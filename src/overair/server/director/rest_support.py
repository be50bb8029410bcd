"""What this room's routes share: whom a label names, pages, moments, and the members of bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, GroupName, ThingName
from overair.basics.work import Tx
from overair.server.aws_protocol.operations import Caller
from overair.server.rest.operations import RestRequest
from overair.wire.uptane.metadata_writing import expires_text

PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 1_000
OFFSET_MAX: Final = 10_000_000

Row = TypeVar("Row")


class CallerRights(Protocol):
    """What these doors ask of the callers' policies (``access.service.AccessService``)."""

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None: ...


class ThingNames(Protocol):
    """Things by name or UUID (``devices.service.DevicesService``)."""

    def name_of(self, tx: Tx, account: AccountId, name_or_id: str) -> ThingName: ...


class GroupNames(Protocol):
    """Groups by name or UUID (``devices.service.ThingGroupsService``)."""

    def name_of(self, tx: Tx, account: AccountId, name_or_id: str) -> GroupName: ...


class Labels:
    """Finds whom a path or body means. The engine asked for the right to what the path says; where that is another word for the
    thing (its UUID), or stands in a body, the right to the thing itself is asked for here."""

    def __init__(self, *, things: ThingNames, groups: GroupNames, rights: CallerRights) -> None:
        self._things = things
        self._groups = groups
        self._rights = rights

    def thing(self, tx: Tx, caller: Caller, said: str, action: str, *, in_path: bool = True) -> ThingName:
        """Raises NotFound (subject ``thing``), AccessDenied."""
        name = self._things.name_of(tx, caller.account, said)
        if not in_path or name != said:
            self._rights.require(tx, caller, action, caller.place.iot("thing", name))
        return name

    def group(self, tx: Tx, caller: Caller, said: str, action: str, *, in_path: bool = True) -> GroupName:
        """Raises NotFound (subject ``thing-group``), AccessDenied."""
        name = self._groups.name_of(tx, caller.account, said)
        if not in_path or name != said:
            self._rights.require(tx, caller, action, caller.place.iot("thinggroup", name))
        return name

    def has_group(self, tx: Tx, account: AccountId, group: GroupName) -> bool:
        """Whether a group is still there."""
        try:
            return self._groups.name_of(tx, account, group) == group
        except NotFound:
            return False

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None:
        """Raises AccessDenied."""
        self._rights.require(tx, caller, action, resource)


# Pages --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    offset: int
    limit: int

    def of(self, total: int, rows: Sequence[Row], shown: Callable[[Row], object]) -> dict[str, object]:
        """The list as OTA Connect's tools read it."""
        return {
            "values": [shown(row) for row in rows],
            "total": total,
            "offset": self.offset,
            "limit": self.limit,
        }

    def cut(self, rows: Sequence[Row], shown: Callable[[Row], object]) -> dict[str, object]:
        """The same, of a list that is there whole."""
        return self.of(len(rows), rows[self.offset : self.offset + self.limit], shown)


def page_of(request: RestRequest) -> Page:
    """``offset`` and ``limit``. Raises InvalidRequest, subject ``page``."""
    return Page(
        offset=number(request, "offset", default=0, minimum=0, maximum=OFFSET_MAX),
        limit=min(number(request, "limit", default=PAGE_SIZE_DEFAULT, minimum=1, maximum=OFFSET_MAX), PAGE_SIZE_MAX),
    )


def number(request: RestRequest, name: str, *, default: int, minimum: int, maximum: int) -> int:
    """A query parameter that counts. Raises InvalidRequest, subject ``page``."""
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not minimum <= int(text[:10]) <= maximum or len(text) > 10:
        raise InvalidRequest(f"{name} is a number from {minimum} to {maximum}.", subject="page", details={"field": name})
    return int(text)


def flag(request: RestRequest, name: str) -> bool:
    """A query parameter that is true or, by default, false. Raises InvalidRequest, subject ``page``."""
    text = request.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name} is true or false.", subject="page", details={"field": name})
    return text == "true"


def moment(instant: Instant | None) -> str | None:
    """ISO 8601 in UTC."""
    return None if instant is None else expires_text(instant)


# Bodies -------------------------------------------------------------------------------------------------------------------


def member(members: Mapping[str, object], name: str, kind: type[Row], *, default: Any = ...) -> Row:
    """One member of a body, of one type; with a default it may be absent or null.

    Raises:
        InvalidRequest: subject ``member``; ``details["field"]`` is its name.
    """
    value = members.get(name)
    if value is None and default is not ...:
        return cast("Row", default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequest(f"{name} must be {_WORDS[kind]}.", subject="member", details={"field": name})
    return value


def texts(value: object, name: str, *, most: int) -> tuple[str, ...]:
    """A list of words.

    Raises:
        InvalidRequest: subject ``member``.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) and 0 < len(item) <= 256 for item in value):
        raise InvalidRequest(f"{name} must be a list of names.", subject="member", details={"field": name})
    if len(value) > most:
        raise InvalidRequest(f"{name} has at most {most} entries.", subject="member", details={"field": name})
    return tuple(dict.fromkeys(cast("list[str]", value)))


_WORDS: Final[Mapping[type, str]] = {str: "text", bool: "true or false", dict: "an object", list: "a list", int: "a number"}
