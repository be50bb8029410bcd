from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.wire.uptane.events import EVENTS_MAX, EVENTS_SIZE_BYTES_MAX, Event, EventKind, events_body, read_events
from overair.wire.uptane.refusals import MetadataRefused, Reason

ROW: dict[str, Any] = {
    "id": "0b8f6f0e",
    "deviceTime": "2026-05-01T10:00:03Z",
    "eventType": {"id": "EcuDownloadCompleted", "version": 0},
    "event": {"correlationId": "urn:x", "ecu": "a1b2", "success": True},
}


def read(*rows: object) -> tuple[list[Event], int]:
    batch = read_events(json.dumps(rows).encode())
    return list(batch.events), batch.unreadable


def test_what_aktualizr_posts_is_read() -> None:
    ((event,), unreadable) = read(ROW)
    assert (event.id, event.kind, event.version, unreadable) == ("0b8f6f0e", EventKind.DOWNLOAD_COMPLETED, 0, 0)
    assert (event.correlation_id, event.ecu, event.success, event.campaign_id) == ("urn:x", "a1b2", True, "")
    assert event.device_time == 1_777_629_603_000
    assert event.members == ROW["event"]


def test_a_campaigns_answer_names_the_campaign() -> None:
    ((event,), _) = read({**ROW, "eventType": {"id": "campaign_accepted"}, "event": {"campaignId": "c1"}})
    assert (event.kind, event.campaign_id, event.success) == (EventKind.CAMPAIGN_ACCEPTED, "c1", None)


def test_kinds_that_nobody_knows_and_numbers_of_any_sort_are_kept() -> None:
    ((event,), _) = read({**ROW, "eventType": {"id": "Acme", "version": "x"}, "event": {"load": 0.5}})
    assert (event.kind, event.version, event.members) == ("Acme", 0, {"load": 0.5})


@pytest.mark.parametrize(
    "row",
    [
        7,
        {**ROW, "id": ""},
        {**ROW, "id": "x" * 65},
        {**ROW, "id": "a\u0000b"},
        {**ROW, "id": None},
        {**ROW, "eventType": "EcuDownloadStarted"},
        {**ROW, "eventType": {}},
        {**ROW, "eventType": {"id": "x" * 65}},
        {**ROW, "event": []},
    ],
)
def test_an_event_that_can_not_be_understood_is_counted_and_holds_up_no_other(row: object) -> None:
    events, unreadable = read(ROW, row, ROW)
    assert (len(events), unreadable) == (2, 1)


@pytest.mark.parametrize("time", ["yesterday", None, 7, "9" * 41, "0001-01-01T00:00:00+23:59"])
def test_a_clock_that_can_not_be_read_is_no_reason_to_lose_the_event(time: object) -> None:
    ((event,), unreadable) = read({**ROW, "deviceTime": time})
    assert unreadable == 0
    assert event.device_time is None or event.device_time < 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{}", Reason.INVALID_METADATA),
        (b"[", Reason.INVALID_METADATA),
        (b'[{"id":"a","id":"b"}]', Reason.INVALID_METADATA),
        (b"[" + b"1," * EVENTS_MAX + b"1]", Reason.OVERSIZED),
        (b" " * (EVENTS_SIZE_BYTES_MAX + 1), Reason.OVERSIZED),
    ],
)
def test_what_is_no_batch_or_too_large_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(MetadataRefused) as caught:
        read_events(data)
    assert caught.value.reason is reason


EVENTS = st.builds(
    Event,
    id=st.text("ab-1", min_size=1, max_size=8),
    kind=st.sampled_from(EventKind).map(str),
    version=st.integers(0, 3),
    device_time=st.integers(0, 4_000_000_000).map(lambda seconds: Instant(seconds * 1000)),
    members=st.dictionaries(st.text(max_size=4), st.booleans() | st.text(max_size=4), max_size=2),
)


@given(st.lists(EVENTS, max_size=4))
def test_events_come_back_as_they_were_written(events: list[Event]) -> None:
    batch = read_events(events_body(events))
    assert (list(batch.events), batch.unreadable) == (events, 0)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_our_own_error_alone(data: bytes) -> None:
    with contextlib.suppress(MetadataRefused):
        read_events(data)
