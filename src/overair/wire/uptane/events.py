"""What a vehicle tells while it works: the body of ``POST /events`` (Uptane reference §6.2).

Delivery is at least once, so events are told apart by their ids. A client that is answered with an error sends the same batch
again for ever: an event that can't be understood is therefore counted and passed over, and never refuses the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, cast

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.wire import strict_json
from overair.wire.uptane.refusals import MetadataRefused, Reason

EVENTS_SIZE_BYTES_MAX: Final = 256 * 1024
EVENTS_MAX: Final = 1000
ID_LENGTH_MAX: Final = 64
KIND_LENGTH_MAX: Final = 64


class EventKind(StrEnum):
    """The kinds that aktualizr sends; others may come and are kept."""

    DOWNLOAD_STARTED = "EcuDownloadStarted"
    DOWNLOAD_COMPLETED = "EcuDownloadCompleted"
    INSTALLATION_STARTED = "EcuInstallationStarted"
    INSTALLATION_APPLIED = "EcuInstallationApplied"
    """Written; takes effect with the next boot."""
    INSTALLATION_COMPLETED = "EcuInstallationCompleted"
    PAUSED = "DevicePaused"
    RESUMED = "DeviceResumed"
    CAMPAIGN_ACCEPTED = "campaign_accepted"
    CAMPAIGN_DECLINED = "campaign_declined"
    CAMPAIGN_POSTPONED = "campaign_postponed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened on a vehicle."""

    id: str
    kind: str
    """An ``EventKind``, or another word."""
    version: int = 0
    device_time: Instant | None = None
    """By the vehicle's clock; None where it can't be read."""
    members: Mapping[str, Any] = field(default_factory=dict)
    """``event`` as it came."""

    @property
    def correlation_id(self) -> str:
        return self._text("correlationId")

    @property
    def ecu(self) -> str:
        return self._text("ecu")

    @property
    def campaign_id(self) -> str:
        return self._text("campaignId")

    @property
    def success(self) -> bool | None:
        value = self.members.get("success")
        return value if isinstance(value, bool) else None

    def _text(self, name: str) -> str:
        value = self.members.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """What came in one call."""

    events: tuple[Event, ...]
    unreadable: int
    """How many events couldn't be understood."""


def read_events(data: bytes) -> EventBatch:
    """Read a batch.

    Raises:
        MetadataRefused: OVERSIZED (too many bytes or events: a client sends half of them next); INVALID_METADATA (no JSON
            array).
    """
    if len(data) > EVENTS_SIZE_BYTES_MAX:
        raise MetadataRefused(Reason.OVERSIZED, f"The batch has {len(data)} bytes; at most {EVENTS_SIZE_BYTES_MAX} are read.")
    try:
        rows = strict_json.decode(data, size_bytes_max=EVENTS_SIZE_BYTES_MAX)
    except strict_json.MalformedJson as error:
        raise MetadataRefused(Reason.INVALID_METADATA, str(error)) from None
    if not isinstance(rows, list):
        raise MetadataRefused(Reason.INVALID_METADATA, "A batch of events is an array.")
    if len(rows) > EVENTS_MAX:
        raise MetadataRefused(Reason.OVERSIZED, f"A batch has at most {EVENTS_MAX} events, not {len(rows)}.")
    found = [_read(row) for row in rows]
    return EventBatch(events=tuple(event for event in found if event is not None), unreadable=found.count(None))


def events_body(events: Iterable[Event]) -> bytes:
    """What a vehicle posts."""
    rows = [
        {
            "id": event.id,
            "deviceTime": _time_text(event.device_time or Instant(0)),
            "eventType": {"id": event.kind, "version": event.version},
            "event": dict(event.members),
        }
        for event in events
    ]
    return json.dumps(rows, separators=(",", ":"), allow_nan=False).encode("ascii")


def _read(row: object) -> Event | None:
    if not isinstance(row, Mapping):
        return None
    id_, kind, members = row.get("id"), row.get("eventType"), row.get("event")
    if not isinstance(kind, Mapping) or not isinstance(members, Mapping):
        return None
    name, version = kind.get("id"), kind.get("version", 0)
    if not _is_word(id_, ID_LENGTH_MAX) or not _is_word(name, KIND_LENGTH_MAX):
        return None
    return Event(
        id=cast("str", id_),
        kind=cast("str", name),
        version=version if isinstance(version, int) and not isinstance(version, bool) else 0,
        device_time=_time(row.get("deviceTime")),
        members=cast("Mapping[str, Any]", members),
    )


def _is_word(value: object, length_max: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= length_max and value.isprintable()


def _time(value: object) -> Instant | None:
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return from_datetime(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def _time_text(moment: Instant) -> str:
    return as_datetime(moment).strftime("%Y-%m-%dT%H:%M:%SZ")
