"""When a scheduled job may roll out (wire reference §3.7). Pure. Times are UTC, in whole minutes on the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.jobs.cron import parse_cron
from overair.server.jobs.model import MINUTE_MS, MaintenanceWindow, Schedule, TargetSelection

AHEAD_MIN_MS: Final = 30 * MINUTE_MS
DAY_MS: Final = 24 * 60 * MINUTE_MS
START_AHEAD_MAX_MS: Final = 366 * DAY_MS
END_AHEAD_MAX_MS: Final = 2 * 366 * DAY_MS
ROLLOUTS_SHOWN: Final = 7
WINDOWS_MAX: Final = 20
WINDOW_MINUTES_MAX: Final = 1430
_TIME: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})[ T](\d{2}):(\d{2})(?::\d{2}(?:\.\d{1,6})?)?(?:Z|\+00:00)?")


def read_time(text: str, *, name: str) -> Instant:
    """``2026-01-31 18:00``, as the guide writes it; with a ``T``, seconds or a ``Z`` too, as other clients do.

    Raises:
        InvalidRequest: it is no time. Subject ``schedule``.
    """
    found = _TIME.fullmatch(text.strip())
    try:
        if found is not None:
            year, month, day, hour, minute = (int(part) for part in found.groups())
            return from_datetime(datetime(year, month, day, hour, minute, tzinfo=UTC))
    except ValueError:
        pass
    raise InvalidRequest(f"{name} {text[:64]!r} is no time: write YYYY-MM-DD HH:MM, in UTC.", subject="schedule")


def write_time(at: Instant) -> str:
    return as_datetime(at).strftime("%Y-%m-%d %H:%M")


def check_schedule(schedule: Schedule, selection: TargetSelection, *, now: Instant) -> None:
    """Whether a job may be made with this schedule.

    Raises:
        InvalidRequest: its times are too near, too far or the wrong way round; or its windows never open, or aren't a
            CONTINUOUS job's. Subject ``schedule``.
    """
    starts_at, ends_at = schedule.starts_at, schedule.ends_at
    if starts_at is not None and not now + AHEAD_MIN_MS <= starts_at <= now + START_AHEAD_MAX_MS:
        raise _refused("startTime is at least 30 minutes and at most a year ahead")
    if ends_at is not None and not now + AHEAD_MIN_MS <= ends_at <= now + END_AHEAD_MAX_MS:
        raise _refused("endTime is at least 30 minutes and at most two years ahead")
    if starts_at is not None and ends_at is not None and ends_at - starts_at < AHEAD_MIN_MS:
        raise _refused("endTime is at least 30 minutes after startTime")
    check_windows(schedule.windows, now=now)
    if schedule.windows and selection is not TargetSelection.CONTINUOUS:
        raise _refused("maintenanceWindows are for CONTINUOUS jobs")


def check_windows(windows: tuple[MaintenanceWindow, ...], *, now: Instant) -> None:
    """Raises InvalidRequest, subject ``schedule``: one of them can't be read, or never opens."""
    if len(windows) > WINDOWS_MAX:
        raise _refused(f"a job has at most {WINDOWS_MAX} maintenanceWindows")
    for window in windows:
        if not 1 <= window.duration_minutes <= WINDOW_MINUTES_MAX:
            raise _refused(f"durationInMinutes is 1 to {WINDOW_MINUTES_MAX}")
        if parse_cron(window.starts).next_at(now) is None:
            raise _refused(f"the maintenance window {window.starts[:80]!r} never opens again")


def opens_at(schedule: Schedule, *, now: Instant) -> Instant | None:
    """``now`` where the job may roll out at once, else the next time when it may; None when it never may again."""
    earliest = now if schedule.starts_at is None else max(now, schedule.starts_at)
    if schedule.windows:
        openings = [_window_opens_at(window, earliest) for window in schedule.windows]
        known = [opening for opening in openings if opening is not None]
        if not known:
            return None
        earliest = min(known)
    if schedule.ends_at is not None and earliest >= schedule.ends_at:
        return None
    return earliest


def next_rollouts(schedule: Schedule, *, now: Instant) -> tuple[Instant, ...]:
    """The next starts of its windows, at most seven; without windows its own start, while that is ahead."""
    if not schedule.windows:
        ahead = schedule.starts_at is not None and schedule.starts_at > now
        return (schedule.starts_at,) if ahead and schedule.starts_at is not None else ()
    found: list[Instant] = []
    at = Instant(max(now, schedule.starts_at or now) + 1)
    while len(found) < ROLLOUTS_SHOWN:
        starts = [parse_cron(window.starts).next_at(at) for window in schedule.windows]
        known = [start for start in starts if start is not None]
        if not known or (schedule.ends_at is not None and min(known) >= schedule.ends_at):
            break
        found.append(min(known))
        at = Instant(min(known) + 1)
    return tuple(found)


def _window_opens_at(window: MaintenanceWindow, at: Instant) -> Instant | None:
    """``at`` while the window is open, else its next start."""
    # A window that is open has started less than its duration ago.
    start = parse_cron(window.starts).next_at(Instant(at - window.duration_minutes * MINUTE_MS + 1))
    return None if start is None else max(at, start)


def _refused(rule: str) -> InvalidRequest:
    return InvalidRequest(f"The schedule can't be kept: {rule}.", subject="schedule")
