"""The three spellings of time on AWS wires, to and from ``Instant``: Unix seconds, ISO 8601, and HTTP dates."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

from overair.basics.clock import Instant, as_datetime, from_datetime

INSTANT_MIN: Final = -62_135_596_800_000
"""0001-01-01, the first day that a calendar date can name."""
INSTANT_MAX: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z."""
_ISO: Final = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)(?:T(\d\d):?(\d\d)(?::?(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_NUMBER: Final = re.compile(r"-?\d{1,15}(\.\d{1,9})?", re.ASCII)
_LENGTH_MAX: Final = 64


class NotATimestamp(ValueError):
    """The value names no moment."""


def from_unix_seconds(value: float) -> Instant:
    """Seconds since 1970, whole or fractional; kept to the millisecond."""
    if not INSTANT_MIN / 1000 <= value <= INSTANT_MAX / 1000:
        raise NotATimestamp
    return Instant(round(value * 1000))


def from_text(text: str) -> Instant:
    """ISO 8601 in its basic or extended form (UTC where no zone is given), an HTTP date, or Unix seconds in digits."""
    if len(text) > _LENGTH_MAX:
        raise NotATimestamp
    found = _ISO.fullmatch(text)
    if found and not (text.isdigit() and len(text) != 8):
        return _from_iso(found)
    if _NUMBER.fullmatch(text):
        return from_unix_seconds(float(text))
    try:
        moment = parsedate_to_datetime(text)
        return _bounded(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, TypeError, IndexError, OverflowError):
        raise NotATimestamp from None


def _from_iso(found: re.Match[str]) -> Instant:
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "0").ljust(6, "0")[:6]),
            tzinfo=UTC,
        )
        if zone and zone != "Z":
            minutes = int(zone[1:3]) * 60 + int(zone[-2:])
            moment -= timedelta(minutes=minutes if zone[0] == "+" else -minutes)
        return _bounded(moment)
    except (ValueError, OverflowError):
        raise NotATimestamp from None


def _bounded(moment: datetime) -> Instant:
    instant = from_datetime(moment)
    if not INSTANT_MIN <= instant <= INSTANT_MAX:
        raise NotATimestamp
    return instant


def to_unix_seconds(instant: Instant) -> float | int:
    """Whole seconds as an integer, else with the milliseconds as the fraction."""
    seconds, milliseconds = divmod(instant, 1000)
    return instant / 1000 if milliseconds else seconds


def to_iso(instant: Instant) -> str:
    """``2026-11-01T12:00:00.000Z``."""
    return f"{as_datetime(instant).isoformat()[:19]}.{instant % 1000:03d}Z"


def to_iso_short(instant: Instant) -> str:
    """As ``to_iso``, without the fraction where it is nought: how IAM and STS spell it."""
    return to_iso(instant).replace(".000Z", "Z")


def to_http_date(instant: Instant) -> str:
    """``Sun, 01 Nov 2026 12:00:00 GMT``."""
    return format_datetime(as_datetime(instant).replace(microsecond=0), usegmt=True)
