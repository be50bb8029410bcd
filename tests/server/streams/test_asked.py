"""What devices ask of streams is remembered, within a bound: asked again, and begun again."""

from __future__ import annotations

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import AccountId, StreamId, ThingName
from overair.basics.work import News
from overair.server.storage.work import SqlWork
from overair.server.streams.asked import REMEMBERED_MAX, AskedBlocks
from overair.server.streams.worker import TOLD_AT_ONCE_MAX, TOLD_EVERY_MS, OddDownloads
from overair.wire.blocks import bitmap_for
from overair.wire.stream_client import encode_get_stream
from overair.wire.stream_messages import Dialect, GetStreamRequest
from tests.support.streams_room import StreamsRoom

ACCOUNT = AccountId("123456789012")


def request(first: int, *, count: int = 4, total: int = 16) -> GetStreamRequest:
    """As the C agent asks: offset 0, and what is missing in the bitmap."""
    return GetStreamRequest(file_id=0, block_size_bytes=256, bitmap=bitmap_for(range(first, total)), block_count=count)


def seen(asked: AskedBlocks, stream: str = "s") -> tuple[int, int, int]:
    (only,) = asked.of(ACCOUNT, ThingName("dev-1"), StreamId(stream))
    return only.first, only.repeats, only.rounds


def test_a_plain_download_is_one_round_without_repeats() -> None:
    asked = AskedBlocks()
    for first in (0, 4, 8, 12):
        asked.note(ACCOUNT, "dev-1", "s", request(first), first)
    assert seen(asked) == (12, 0, 1)


def test_the_very_same_request_counts_as_a_repeat_until_another_comes() -> None:
    asked = AskedBlocks()
    for _ in range(3):
        asked.note(ACCOUNT, "dev-1", "s", request(0), 0)
    assert seen(asked) == (0, 2, 1), "block 0 asked for again is no new round"
    asked.note(ACCOUNT, "dev-1", "s", request(4), 4)
    assert seen(asked) == (4, 0, 1)


def test_beginning_again_counts_as_a_round() -> None:
    asked = AskedBlocks()
    for _ in range(4):
        for first in (0, 4):
            asked.note(ACCOUNT, "dev-1", "s", request(first), first)
    assert seen(asked) == (4, 0, 4)


def test_the_memory_is_bounded_and_the_oldest_goes_first() -> None:
    asked = AskedBlocks()
    for number in range(REMEMBERED_MAX + 1):
        asked.note(ACCOUNT, f"dev-{number}", "s", request(0), 0)
    assert asked.of(ACCOUNT, ThingName("dev-0"), StreamId("s")) == ()
    assert asked.of(ACCOUNT, ThingName("dev-1"), StreamId("s"))
    assert asked.of(ACCOUNT, ThingName(f"dev-{REMEMBERED_MAX}"), StreamId("s"))


async def test_other_processes_are_told_of_odd_downloads_alone_and_of_their_end_and_of_no_more_than_so_many_at_once(
    clock: SettableClock,
) -> None:
    serving, elsewhere, told = AskedBlocks(), AskedBlocks(), list[News]()
    worker = OddDownloads(asked=serving, tell=told.append, clock=clock)

    async def pass_on() -> None:
        clock.advance(milliseconds=TOLD_EVERY_MS)
        await worker.run_once()
        await worker.run_once()
        for news in told:
            assert news.kind == "asked-blocks"
            elsewhere.heard(news.parts)
        told.clear()

    for first in (0, 4, 8, 0, 4, 8, 8):
        serving.note(ACCOUNT, "dev-1", "s", request(first), first)
    await pass_on()
    assert elsewhere.of(ACCOUNT, ThingName("dev-1"), StreamId("s")) == ()
    for first in (0, 4, 0, 4, 4, 4, 4):
        serving.note(ACCOUNT, "dev-1", "s", request(first), first)
    await pass_on()
    assert seen(elsewhere) == seen(serving) == (4, 3, 4)
    serving.note(ACCOUNT, "dev-1", "s", request(8), 8)
    await pass_on()
    assert seen(elsewhere) == seen(serving) == (8, 0, 4)
    # What was missed drops nothing.
    elsewhere.heard(())
    assert seen(elsewhere) == (8, 0, 4)
    for number in range(2 * TOLD_AT_ONCE_MAX):
        for _ in range(4):
            serving.note(ACCOUNT, f"of-many-{number}", "s", request(0), 0)
    clock.advance(milliseconds=TOLD_EVERY_MS)
    await worker.run_once()
    await worker.run_once()
    assert len(told) == TOLD_AT_ONCE_MAX


async def test_the_door_notes_whom_it_answers_from_memory_and_from_records(
    work: SqlWork, place: Place, clock: SettableClock
) -> None:
    room = StreamsRoom(work, place, clock)
    room.of(b"x" * 4096)
    for first in (0, 0, 4):
        assert await room.say("get/cbor", encode_get_stream(request(first), Dialect.CBOR))
    (only,) = room.topics.asked.of(place.account, ThingName("dev-1"), StreamId("s"))
    assert (only.first, only.repeats, only.rounds) == (4, 0, 1)
    await room.say("get/cbor", encode_get_stream(request(0), Dialect.CBOR))
    assert only.rounds == 2
