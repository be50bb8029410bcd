"""What operators ask about keys: operations of our own service model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.keyring.calendar import Calendar, Entry
from overair.server.keyring.model import FILE, WrappedKey
from overair.server.keyring.rotation import Rotations
from overair.server.keyring.service import Keyring


class NamesOffline(Protocol):
    """A room that knows keys which the server has the public half of, and no record in the keyring."""

    def offline_keys(self, tx: Tx, account: AccountId) -> Iterable[tuple[str, str, str]]:
        """(name, id, kind) of each."""
        ...


class KeyOperations:
    """Lists of endings and of keys, and rotation by name."""

    def __init__(
        self,
        *,
        work: Work,
        keyring: Keyring,
        calendar: Calendar,
        rotations: Rotations,
        offline: NamesOffline,
        erase: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        """``erase`` leaves nothing of a forgotten key in the files of the records."""
        self._work = work
        self._keyring = keyring
        self._calendar = calendar
        self._rotations = rotations
        self._offline = offline
        self._erase = erase
        self._clock = clock

    @operation("overair", "ListExpiries")
    async def list_expiries(self, caller: Caller, request: Request) -> Members:
        """What of the caller's account ends when, the soonest first.

        Raises:
            InvalidRequest: ``nextToken`` isn't one of ours. Subject ``page-token``.
        """
        position = read_page_token(request.get("nextToken"), tuple[int, str])
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        entries: Sequence[Entry] = await self._work.read(lambda tx: self._calendar.entries(tx, caller.account))
        if position is not None:
            entries = [entry for entry in entries if (entry.ending.expires, entry.ending.name) > position]
        page, token = cut(entries[: limit + 1], limit, lambda entry: (entry.ending.expires, entry.ending.name))
        now = self._clock.now()
        return {"expiries": [_expiry(entry, now) for entry in page], "nextToken": token}

    @operation("overair", "ListKeys")
    async def list_keys(self, caller: Caller, request: Request) -> Members:
        """Which keys the caller's account has, who holds each, and which are rotated by their name."""

        def find(tx: Tx) -> tuple[Sequence[WrappedKey], Sequence[tuple[str, str, str]]]:
            account = caller.account
            return self._keyring.list(tx, account), list(self._offline.offline_keys(tx, account))

        held, offline = await self._work.read(find)
        names = set(self._rotations.names())
        keys = [_key(key, rotates=key.purpose in names) for key in sorted(held, key=lambda key: (key.purpose, key.created))]
        keys += [
            {"keyName": name, "keyId": key_id, "keyKind": kind, "holder": "offline:", "rotates": False}
            for name, key_id, kind in offline
        ]
        return {"keys": keys}

    @operation("overair", "RotateKey")
    async def rotate_key(self, caller: Caller, request: Request) -> Members:
        """A new key in place of the one of this name, at the holder that is named.

        Raises:
            NotFound, InvalidRequest, Conflict: see ``Rotations``. Nothing has changed then.
        """
        name, holder = request["keyName"], request.get("holder", FILE)
        prepared = await asyncio.to_thread(
            self._rotations.prepare, caller.account, name, holder=holder, kind=request.get("keyKind")
        )
        done = await self._work.run(lambda tx: self._rotations.rotate(tx, caller.place, name, prepared))
        await self._erase()
        return {
            "keyName": name,
            "keyKind": prepared.kind.value,
            "holder": prepared.holder,
            "inForce": done.in_force,
            "message": done.told,
        }


def _expiry(entry: Entry, now: Instant) -> dict[str, Any]:
    ending = entry.ending
    step = ending.step(now)
    return {
        "kind": ending.kind.value,
        "name": ending.name,
        "what": ending.what,
        "holder": entry.holder,
        "expiresAt": ending.expires,
        "daysLeft": ending.days_left(now),
        "renewsItself": ending.renews_itself,
        "todo": ending.todo,
        **({} if step is None else {"alarmDays": step}),
    }


def _key(key: WrappedKey, *, rotates: bool) -> dict[str, Any]:
    return {
        "keyName": key.purpose,
        "keyId": key.key_id,
        "keyKind": key.kind.value,
        "holder": key.holder,
        "createdAt": key.created,
        "rotates": rotates,
    }
