"""Looks into the calendar and warns: in the log, in the audit, in the numbers. Each step once, whatever restarts meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from overair.basics.clock import Clock, Instant, as_datetime
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.keyring.calendar import Calendar
from overair.server.keyring.endings import Ending

INTERVAL_MS: Final = 10 * 60 * 1000
"""How often it is looked: the shortest step is a day."""

logger = structlog.get_logger("overair.keyring")


class ExpiryWarnings:
    """A ``workers.Worker``. What was told stands in the records; memory holds numbers for metrics alone."""

    name = "expiry-warnings"

    def __init__(self, *, work: Work, calendar: Calendar, accounts: Callable[[Tx], Sequence[AccountId]], clock: Clock) -> None:
        """``accounts``: of this server."""
        self._work = work
        self._calendar = calendar
        self._accounts = accounts
        self._clock = clock
        self._due = Instant(0)
        self._ends: dict[AccountId, dict[str, Instant]] = {}
        self._warnings: dict[tuple[str, int], int] = {}

    @property
    def ends(self) -> Mapping[str, float]:
        """When the first of each kind ends, in seconds since the epoch; of all accounts. For metrics."""
        found: dict[str, float] = {}
        for kinds in self._ends.values():
            for kind, expires in kinds.items():
                found[kind] = min(expires / 1000, found.get(kind, float("inf")))
        return found

    @property
    def warnings(self) -> Mapping[tuple[str, int], int]:
        """How many warnings of each kind and step this process has given. For metrics."""
        return self._warnings

    async def run_once(self) -> bool:
        """Look at one account after the other, once in ``INTERVAL_MS``; False until the next look."""
        now = self._clock.now()
        if now < self._due:
            return False
        accounts = await self._work.read(self._accounts)
        for account in accounts:
            await self._look(account)
        for gone in self._ends.keys() - set(accounts):
            del self._ends[gone]
        self._due = Instant(now + INTERVAL_MS)
        return False

    async def _look(self, account: AccountId) -> None:
        def look(tx: Tx) -> tuple[list[Ending], bool]:
            endings = self._calendar.endings(tx, account)
            return endings, self._calendar.needs_telling(tx, account, endings)

        endings, needs_telling = await self._work.read(look)
        kinds: dict[str, Instant] = {}
        for ending in endings:
            kinds.setdefault(ending.kind.value, ending.expires)
        self._ends[account] = kinds
        if not needs_telling:
            return
        for ending, step in await self._work.run(lambda tx: self._calendar.tell(tx, account, endings)):
            key = (ending.kind.value, step)
            self._warnings[key] = self._warnings.get(key, 0) + 1
            tell = logger.error if step <= 1 else logger.warning
            tell(
                "it has ended" if step == 0 else "it ends soon",
                account=account,
                kind=ending.kind.value,
                name=ending.name,
                what=ending.what,
                expires=as_datetime(ending.expires).isoformat(timespec="seconds"),
                days=step,
                do=ending.todo,
            )
