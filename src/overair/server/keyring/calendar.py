"""The calendar of what ends when, and who was told. Rooms above say what they have; each step of a countdown is told once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from overair.basics.clock import Clock
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.keyring.endings import Ending, Told, forgets, is_news, soonest_first
from overair.server.keyring.service import Keyring


class Endings(Protocol):
    """A room that has things which end."""

    def endings(self, tx: Tx, account: AccountId) -> Iterable[Ending]: ...


class NoticeStore(Protocol):
    """What was told, by name."""

    def told(self, tx: Tx, account: AccountId) -> Sequence[Told]: ...

    def put_told(self, tx: Tx, account: AccountId, told: Told) -> None:
        """Insert, or replace the one of the same name."""
        ...

    def forget_told(self, tx: Tx, account: AccountId, name: str) -> None: ...


class ExpiryTrail(Protocol):
    """``audit.service.AuditTrail``."""

    def expiring(self, tx: Tx, account: AccountId, *, kind: str, name: str, days: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An ending with who holds its key."""

    ending: Ending
    holder: str


class Calendar:
    """Of every account."""

    def __init__(self, store: NoticeStore, keyring: Keyring, *, trail: ExpiryTrail, clock: Clock) -> None:
        self._store = store
        self._keyring = keyring
        self._trail = trail
        self._clock = clock
        self._rooms: list[Endings] = []

    def told_by(self, *rooms: Endings) -> None:
        """Register, at composition, who has things that end."""
        self._rooms += rooms

    def endings(self, tx: Tx, account: AccountId) -> list[Ending]:
        """All of an account, the soonest first."""
        return soonest_first([ending for room in self._rooms for ending in room.endings(tx, account)])

    def entries(self, tx: Tx, account: AccountId) -> list[Entry]:
        """The same with who holds each key."""
        holders = {key.key_id: key.holder for key in self._keyring.list(tx, account)}
        return [
            Entry(ending=ending, holder=ending.holder if ending.key_id is None else holders.get(ending.key_id, ""))
            for ending in self.endings(tx, account)
        ]

    def needs_telling(self, tx: Tx, account: AccountId, endings: Iterable[Ending]) -> bool:
        """Whether ``tell`` would do anything: asked by a reader, so that the writer is left alone."""
        told, now = self._told(tx, account), self._clock.now()
        return any(
            is_news(ending, told.get(ending.name), now) or (ending.name in told and forgets(ending, told[ending.name], now))
            for ending in endings
        )

    def tell(self, tx: Tx, account: AccountId, endings: Iterable[Ending]) -> list[tuple[Ending, int]]:
        """Note each step that was reached since, with its row in the audit. What is to be told to people, once this has
        committed: of several processes that look at once, one gets it."""
        told, now = self._told(tx, account), self._clock.now()
        news: list[tuple[Ending, int]] = []
        for ending in endings:
            before, step = told.get(ending.name), ending.step(now)
            if step is not None and is_news(ending, before, now):
                self._note(tx, account, ending, step)
                self._trail.expiring(tx, account, kind=ending.kind.value, name=ending.name, days=step)
                news.append((ending, step))
            elif before is not None and forgets(ending, before, now):
                if step is None:
                    self._store.forget_told(tx, account, ending.name)
                else:
                    self._note(tx, account, ending, step)
        return news

    def _note(self, tx: Tx, account: AccountId, ending: Ending, step: int) -> None:
        self._store.put_told(tx, account, Told(name=ending.name, expires=ending.expires, step=step))

    def _told(self, tx: Tx, account: AccountId) -> dict[str, Told]:
        return {told.name: told for told in self._store.told(tx, account)}
