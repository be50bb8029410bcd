"""What ends when is told in time, and each step once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import AccountId, RandomIds
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.audit.model import AuditKind
from overair.server.audit.service import AuditService, AuditTrail
from overair.server.audit.store import SqlAuditStore
from overair.server.keyring.calendar import Calendar
from overair.server.keyring.calendar_worker import INTERVAL_MS, ExpiryWarnings
from overair.server.keyring.endings import ALARM_DAYS, DAY_MS, Ending, EndingKind, Told, countdown, forgets, is_news
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore, SqlNoticeStore
from overair.server.keyring.wrapping import SecretBox
from overair.server.storage.work import SqlWork

ACCOUNT = AccountId("123456789012")
OTHER = AccountId("210987654321")


@dataclass
class Room:
    """Whatever ends in a test."""

    of: dict[AccountId, list[Ending]] = field(default_factory=dict)

    def endings(self, tx: Tx, account: AccountId) -> Iterator[Ending]:
        yield from self.of.get(account, [])


def ending(expires: int, name: str = "signer", **more: object) -> Ending:
    known = {"kind": EndingKind.SIGNER_CERTIFICATE, "what": name, "todo": "Renew it.", **more}
    return Ending(name=name, expires=Instant(expires), **known)  # type: ignore[arg-type]


@dataclass
class Desk:
    """A server's calendar and its worker, begun anew as a restart would."""

    work: SqlWork
    clock: SettableClock
    room: Room = field(default_factory=Room)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        keyring = Keyring(SqlKeyStore(), SecretBox(Redacted(bytes(32)), RandomIds()), clock=self.clock, ids=RandomIds())
        trail = AuditTrail(SqlAuditStore(), clock=self.clock, ids=RandomIds())
        self.keyring = keyring
        self.calendar = Calendar(SqlNoticeStore(), keyring, trail=trail, clock=self.clock)
        self.calendar.told_by(self.room)
        self.worker = ExpiryWarnings(
            work=self.work, calendar=self.calendar, accounts=lambda tx: [ACCOUNT, OTHER], clock=self.clock
        )

    async def days(self, count: float) -> list[tuple[str, int]]:
        """What is warned of after so many days more."""
        self.clock.advance(milliseconds=int(count * DAY_MS))
        with structlog.testing.capture_logs() as logs:
            assert await self.worker.run_once() is False
        return [(log["name"], log["days"]) for log in logs]

    def audited(self, account: AccountId = ACCOUNT) -> list[tuple[str, str]]:
        audit = AuditService(SqlAuditStore())
        rows = self.work.read_blocking(lambda tx: audit.newest(tx, account, kinds=(AuditKind.EXPIRY,)))
        return [(row.operation, row.resource) for row in reversed(rows)]


@pytest.fixture
def desk(work: SqlWork, clock: SettableClock) -> Desk:
    return Desk(work, clock)


async def test_each_step_is_told_once_and_a_restart_repeats_none(desk: Desk) -> None:
    desk.room.of[ACCOUNT] = [ending(desk.clock.now() + 40 * DAY_MS)]
    told = []
    for _ in range(45):
        told += await desk.days(1)
        desk.restart()
    assert told == [("signer", days) for days in (30, 14, 7, 3, 1, 0)]
    assert desk.audited() == [(f"ExpiresIn{days}Days", "signer-certificate/signer") for days in (30, 14, 7, 3, 1, 0)]
    assert desk.audited(OTHER) == []


async def test_what_was_renewed_is_counted_down_anew(desk: Desk) -> None:
    desk.room.of[ACCOUNT] = [ending(desk.clock.now() + 2 * DAY_MS)]
    assert await desk.days(0) == [("signer", 3)]
    desk.room.of[ACCOUNT] = [ending(desk.clock.now() + 100 * DAY_MS)]
    assert await desk.days(1) == []
    assert await desk.days(70) == [("signer", 30)]


async def test_a_server_that_slept_tells_the_step_that_is_reached_and_not_those_before(desk: Desk) -> None:
    desk.room.of[ACCOUNT] = [ending(desk.clock.now() + 40 * DAY_MS)]
    assert await desk.days(38) == [("signer", 3)]
    assert await desk.days(5) == [("signer", 0)]
    assert await desk.days(5) == []


async def test_what_the_server_renews_by_itself_is_told_only_once_that_is_overdue(desk: Desk) -> None:
    mine = ending(desk.clock.now() + DAY_MS, "image-timestamp", renewed_before_ms=DAY_MS // 2)
    desk.room.of[ACCOUNT] = [mine]
    assert await desk.days(0.6) == []
    assert await desk.days(0.2) == [("image-timestamp", 1)]


async def test_of_many_that_end_one_after_the_other_each_step_is_told_once(desk: Desk) -> None:
    def first(days: float) -> list[Ending]:
        return [ending(int(desk.clock.now() + days * DAY_MS), "devices", is_summary=True)]

    desk.room.of[ACCOUNT] = first(20)
    assert await desk.days(0) == [("devices", 30)]
    for _ in range(3):
        desk.room.of[ACCOUNT] = first(20)  # the first one has renewed; the next one is as near
        assert await desk.days(1) == []
    desk.room.of[ACCOUNT] = first(2)
    assert await desk.days(0.5) == [("devices", 3)]
    desk.room.of[ACCOUNT] = first(20)
    assert await desk.days(1) == []
    desk.room.of[ACCOUNT] = first(2)
    assert await desk.days(0.5) == [("devices", 3)]
    desk.room.of[ACCOUNT] = first(50)
    assert await desk.days(1) == []
    desk.room.of[ACCOUNT] = first(25)
    assert await desk.days(0.1) == [("devices", 30)]


async def test_two_processes_that_look_at_once_tell_it_once(desk: Desk) -> None:
    desk.room.of[ACCOUNT] = [ending(desk.clock.now() + 2 * DAY_MS)]
    endings = desk.room.of[ACCOUNT]
    first = await desk.work.run(lambda tx: desk.calendar.tell(tx, ACCOUNT, endings))
    second = await desk.work.run(lambda tx: desk.calendar.tell(tx, ACCOUNT, endings))
    assert ([step for _, step in first], second) == ([3], [])


async def test_it_is_looked_now_and_then_and_counted_for_the_metrics(desk: Desk) -> None:
    soon = desk.clock.now() + 2 * DAY_MS
    desk.room.of = {ACCOUNT: [ending(soon), ending(soon + 1, "b")], OTHER: [ending(soon - 5, "c")]}
    assert len(await desk.days(0)) == 3
    desk.room.of[ACCOUNT].append(ending(desk.clock.now(), "late"))
    desk.clock.advance(milliseconds=INTERVAL_MS - 1)
    assert await desk.days(0) == []
    desk.clock.advance(milliseconds=1)
    assert await desk.days(0) == [("late", 0)]
    assert desk.worker.warnings == {("signer-certificate", 3): 3, ("signer-certificate", 0): 1}
    assert desk.worker.ends == {"signer-certificate": (soon - 2 * DAY_MS) / 1000}


async def test_the_soonest_comes_first_with_who_holds_its_key(desk: Desk) -> None:
    now = desk.clock.now()
    prepared = replace(desk.keyring.prepare("ec-p256"), holder="pkcs11:token=a;object=b")
    key = await desk.work.run(lambda tx: desk.keyring.keep(tx, ACCOUNT, prepared, "acm"))
    desk.room.of[ACCOUNT] = [ending(now + 9, "b", key_id=key), ending(now + 9, "a", holder="offline:x"), ending(now - 1, "z")]
    entries = await desk.work.read(lambda tx: desk.calendar.entries(tx, ACCOUNT))
    assert [(entry.ending.name, entry.holder) for entry in entries] == [
        ("z", ""),
        ("a", "offline:x"),
        ("b", "pkcs11:token=a;object=b"),
    ]
    assert [entry.ending.days_left(now) for entry in entries] == [-1, 0, 0]


@given(days=st.floats(-5, 60), elapsed=st.floats(0, 70), summary=st.booleans())
def test_no_step_is_told_twice_and_none_is_left_out_for_ever(days: float, elapsed: float, summary: bool) -> None:
    now = Instant(10**12)
    subject = ending(int(now + days * DAY_MS), is_summary=summary)
    later = Instant(int(now + elapsed * DAY_MS))
    step = subject.step(now)
    told = None if step is None else Told(name="signer", expires=subject.expires, step=step)
    assert is_news(subject, None, now) == (step is not None)
    assert not is_news(subject, told, now) or told is None
    after = subject.step(later)
    assert is_news(subject, told, later) == (after is not None and (step is None or after < step))
    assert told is None or not forgets(subject, told, later)
    assert after is None or after in (*ALARM_DAYS, 0)
    assert countdown(subject.expires, later, renewed_before_ms=None) == after
