"""Stream topics, byte for byte (wire reference §4, checklist 26 to 33)."""

from __future__ import annotations

import base64
import json
import threading

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overair.basics.ids import StreamId
from overair.server.gateway.handlers import Reply
from overair.server.objects.model import ContentId
from overair.server.streams.model import StreamChange
from tests.support.streams_room import StreamsRoom, source

IMAGE = bytes(range(256)) * 40  # 10,240 bytes: two blocks of 4096 and one of 2048
C_AGENT_REQUEST = bytes.fromhex("a6 6163 63726479 6166 00 616c 191000 616f 00 6162 4107 616e 01")
"""What the C agent sends for a file of three blocks: c="rdy", f=0, l=4096, o=0, b=h'07', n=1."""


def numbers(replies: list[Reply]) -> list[int]:
    return [cbor2.loads(reply.payload)["i"] for reply in replies]


async def get(room: StreamsRoom, **members: object) -> list[Reply]:
    return list(await room.say("get/cbor", cbor2.dumps({"f": 0, "l": 4096, **members})))


async def test_the_c_agents_request_is_answered_with_one_block_byte_for_byte(room: StreamsRoom) -> None:
    room.of(IMAGE)
    (reply,) = await room.say("get/cbor", C_AGENT_REQUEST)
    assert reply.topic == "$aws/things/dev-1/streams/s/data/cbor"
    assert not reply.implicit
    head = bytes.fromhex("a5 6166 00 6169 00 616c 191000 6170 591000")
    assert reply.payload == head + IMAGE[:4096] + bytes.fromhex("6163 63726479")


async def test_blocks_come_ascending_exactly_as_many_as_asked_and_the_last_is_short(room: StreamsRoom) -> None:
    room.of(IMAGE)
    replies = await get(room, b=b"\x06")
    blocks = [cbor2.loads(reply.payload) for reply in replies]
    assert [(block["f"], block["i"], block["l"], block["p"]) for block in blocks] == [
        (0, 1, 4096, IMAGE[4096:8192]),
        (0, 2, 2048, IMAGE[8192:]),
    ]
    assert all(set(block) == {"f", "i", "l", "p"} for block in blocks)


async def test_n_caps_the_bitmap_and_bits_beyond_the_end_are_ignored(room: StreamsRoom) -> None:
    room.of(IMAGE)
    assert numbers(await get(room, b=b"\xff\xff", n=2)) == [0, 1]
    assert numbers(await get(room, b=b"\xff\xff")) == [0, 1, 2]
    assert numbers(await get(room, b=b"MQ==", o=1, n=1)) == [1]
    assert await get(room, b=b"\x00\x01") == []


async def test_without_a_bitmap_n_counts_from_the_offset_and_without_both_128_kib_go_out(room: StreamsRoom) -> None:
    room.of(bytes(200_000))
    assert numbers(await get(room, o=3, n=2)) == [3, 4]
    assert numbers(await get(room)) == list(range(32))
    assert numbers(await get(room, n=98304)) == list(range(32))
    assert [len(cbor2.loads(reply.payload)["p"]) for reply in await get(room, l=131072)] == [131072]
    assert [len(cbor2.loads(reply.payload)["p"]) for reply in await get(room, l=256, o=780)] == [256, 64]


async def test_each_request_may_use_another_block_size(room: StreamsRoom) -> None:
    room.of(IMAGE)
    for size in (256, 1000, 4096, 131072):
        whole = b""
        while len(whole) < len(IMAGE):
            (reply,) = await get(room, l=size, o=len(whole) // size, n=1)
            whole += cbor2.loads(reply.payload)["p"]
        assert whole == IMAGE


async def test_the_downloaders_json_is_answered_in_json(room: StreamsRoom) -> None:
    room.of(IMAGE)
    (reply,) = await room.say("get/json", b'{"s": 1,"f": 0,"l": 4096,"o": 2,"n": 1}')
    assert reply.topic == "$aws/things/dev-1/streams/s/data/json"
    data = base64.b64encode(IMAGE[8192:]).decode()
    assert json.loads(reply.payload) == {"f": 0, "i": 2, "l": 2048, "p": data}
    (reply,) = await room.say("get/json", b'{"f":0,"l":256,"o":20,"n":1,"b":"0x130080","c":"t"}')
    assert json.loads(reply.payload)["i"] == 20
    assert json.loads(reply.payload)["c"] == "t"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"l": 255}, "BlockSizeOutOfBounds"),
        ({"l": 131073}, "BlockSizeOutOfBounds"),
        ({"o": 98305}, "OffsetOutOfBounds"),
        ({"o": -1}, "OffsetOutOfBounds"),
        ({"n": 98305}, "BlockCountLimitExceeded"),
        ({"b": bytes(12288)}, "BlockBitmapLimitExceeded"),
        ({"f": 1}, "ResourceNotFound"),
        ({"f": 256}, "InvalidRequest"),
        ({"f": "0"}, "InvalidRequest"),
        ({"o": 3}, "ResourceNotFound"),
        ({"s": 2}, "VersionMismatch"),
        ({"c": "x" * 65}, "InvalidRequest"),
    ],
)
async def test_refusals_go_to_subscribers_alone_with_the_code_of_the_reference(
    room: StreamsRoom, members: dict[str, object], code: str
) -> None:
    room.of(IMAGE)
    token = {} if "c" in members else {"c": "tok"}
    (reply,) = await get(room, **{**token, **members})
    assert reply.topic == "$aws/things/dev-1/streams/s/rejected/cbor"
    assert not reply.implicit
    refusal = cbor2.loads(reply.payload)
    assert refusal.pop("m")
    assert refusal == {"o": code, **token}


@pytest.mark.parametrize(
    ("suffix", "payload", "code"),
    [
        ("get/json", b"{", "InvalidJson"),
        ("get/json", b'{"l":4096}', "InvalidRequest"),
        ("describe/json", b"[]", "InvalidJson"),
        ("describe/json", b'{"c":5}', "InvalidRequest"),
        ("get/xml", b"{}", "InvalidTopic"),
        ("put/json", b"{}", "InvalidTopic"),
        ("get/json/more", b"{}", "InvalidTopic"),
    ],
)
async def test_json_refusals(room: StreamsRoom, suffix: str, payload: bytes, code: str) -> None:
    room.of(IMAGE)
    (reply,) = await room.say(suffix, payload)
    assert reply.topic == "$aws/things/dev-1/streams/s/rejected/json"
    assert json.loads(reply.payload)["o"] == code


async def test_undecodable_cbor_is_refused_in_cbor(room: StreamsRoom) -> None:
    (reply,) = await room.say("get/cbor", b"\xff")
    assert cbor2.loads(reply.payload)["o"] == "InvalidCbor"


@pytest.mark.parametrize("stream", ["nothing", "not a name", "x" * 129, ""])
async def test_an_unknown_stream_is_not_found(room: StreamsRoom, stream: str) -> None:
    for suffix, payload in (("get/json", b'{"f":0,"l":256,"c":"t"}'), ("describe/json", b'{"c":"t"}')):
        (reply,) = await room.say(suffix, payload, stream=stream)
        refusal = json.loads(reply.payload)
        assert (refusal["o"], refusal["c"]) == ("ResourceNotFound", "t")


async def test_a_description_names_files_and_sizes(room: StreamsRoom) -> None:
    room.buckets.put("b", "one", bytes(409600))
    room.buckets.put("b", "two", bytes(812))
    room.create("s", source(0, "b", "one"), source(7, "b", "two"), description="free text")
    (reply,) = await room.say("describe/json", b'{"c":"token"}')
    assert reply.topic == "$aws/things/dev-1/streams/s/description/json"
    assert not reply.implicit
    assert reply.payload == b'{"c":"token","s":1,"d":"free text","r":[{"f":0,"z":409600},{"f":7,"z":812}]}'
    (reply,) = await room.say("describe/cbor", b"")
    assert reply.topic == "$aws/things/dev-1/streams/s/description/cbor"
    assert cbor2.loads(reply.payload) == {"s": 1, "d": "free text", "r": [{"f": 0, "z": 409600}, {"f": 7, "z": 812}]}


# The words of 2018 ----------------------------------------------------------------------------------------------------


async def test_the_2018_topics_answer_in_their_own_words(room: StreamsRoom) -> None:
    room.of(IMAGE)
    (reply,) = await room.say("describe", b'{"v":1,"t":"tok","s":1}')
    assert reply.topic == "$aws/things/dev-1/streams/s"
    assert json.loads(reply.payload) == {"v": 1, "t": "tok", "s": 1, "d": "", "r": [{"f": 0, "z": 10240}]}
    replies = await room.say("get", b'{"v":1,"t":"tok","s":1,"f":0,"l":4096,"o":1,"n":2}')
    assert {reply.topic for reply in replies} == {"$aws/things/dev-1/streams/s"}
    blocks = [json.loads(reply.payload) for reply in replies]
    assert [(block["v"], block["t"], block["i"], block["l"]) for block in blocks] == [(1, "tok", 1, 4096), (1, "tok", 2, 2048)]


async def test_the_2018_refusals_have_their_own_codes_topic_and_members(room: StreamsRoom) -> None:
    room.of(IMAGE)
    for suffix, payload, code in (
        ("describe", b'{"v":1,"t":"tok","s":2}', "VersionConflict"),
        ("get", b'{"v":1,"t":"tok","s":2,"f":0,"l":4096}', "VersionConflict"),
        ("get", b'{"v":1,"t":"tok","f":9,"l":4096}', "ResourceNotFound"),
        ("get", b'{"v":1,"t":"tok","f":0,"l":1}', "InvalidRequest"),
    ):
        (reply,) = await room.say(suffix, payload)
        assert reply.topic == f"$aws/things/dev-1/streams/s/{suffix}/json/rejected"
        refusal = json.loads(reply.payload)
        assert refusal.pop("message")
        assert refusal == {"v": 1, "t": "tok", "code": code}


async def test_a_changed_file_is_a_streaming_file_conflict_in_2018_and_an_etag_mismatch_today(room: StreamsRoom) -> None:
    room.buckets.put("b", "k", IMAGE, versioned=False)
    room.create("s", source(0, "b", "k"))
    room.buckets.put("b", "k", IMAGE, versioned=False)
    (reply,) = await room.say("get", b'{"f":0,"l":4096}')
    assert json.loads(reply.payload)["code"] == "StreamingFileConflict"
    (reply,) = await get(room)
    assert cbor2.loads(reply.payload)["o"] == "ETagMismatch"


async def test_a_vanished_file_is_a_streaming_file_conflict_in_2018_and_not_found_today(room: StreamsRoom) -> None:
    room.of(IMAGE)
    room.buckets.versions.clear()
    (reply,) = await room.say("get", b'{"t":"tok","f":0,"l":4096}')
    assert json.loads(reply.payload)["code"] == "StreamingFileConflict"
    (reply,) = await room.say("get", b'{"t":"tok","f":1,"l":4096}')
    assert json.loads(reply.payload)["code"] == "ResourceNotFound"
    (reply,) = await get(room)
    assert cbor2.loads(reply.payload)["o"] == "ResourceNotFound"


# Caching and taking away ----------------------------------------------------------------------------------------------


async def test_a_block_is_served_without_asking_the_records_again(room: StreamsRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    room.of(IMAGE)
    await get(room)

    async def never(query: object) -> None:
        raise AssertionError("the records were asked")

    monkeypatch.setattr(room.work, "read", never)
    assert numbers(await get(room)) == [0, 1, 2]
    assert numbers(await get(room, b=b"\x02")) == [1]
    (refused,) = await get(room, s=9)
    assert cbor2.loads(refused.payload)["o"] == "VersionMismatch"


async def test_a_deleted_stream_stops_before_its_deletion_is_acknowledged(room: StreamsRoom) -> None:
    room.of(IMAGE)
    await get(room)
    await room.work.run(lambda tx: room.streams.delete(tx, room.place, StreamId("s")))
    (reply,) = await get(room)
    assert cbor2.loads(reply.payload)["o"] == "ResourceNotFound"


async def test_a_new_version_of_the_stream_is_served_at_once(room: StreamsRoom) -> None:
    room.of(IMAGE)
    await get(room)
    room.buckets.put("b", "other", b"new")
    change = StreamChange(files=(source(0, "b", "other"),))
    await room.work.run(lambda tx: room.streams.change(tx, room.place, StreamId("s"), change))
    (reply,) = await get(room, s=2)
    assert cbor2.loads(reply.payload)["p"] == b"new"
    (reply,) = await get(room, s=1)
    assert cbor2.loads(reply.payload)["o"] == "VersionMismatch"


async def test_a_deleted_object_version_is_gone_and_the_other_file_goes_on(room: StreamsRoom) -> None:
    kept = room.buckets.put("b", "kept", IMAGE)
    lost = room.buckets.put("b", "lost", IMAGE)
    room.create("s", source(0, "b", "kept", kept), source(1, "b", "lost", lost))
    await get(room)
    version = room.buckets.versions[("b", "lost")].pop(lost)
    await room.work.run(lambda tx: room.descriptors.object_gone(tx, version))
    (reply,) = await get(room, f=1)
    assert cbor2.loads(reply.payload)["o"] == "ResourceNotFound"
    assert numbers(await get(room, f=0)) == [0, 1, 2]


@pytest.mark.parametrize("how", ["role", "trust", "bucket policy"])
async def test_a_grant_that_is_taken_away_stops_the_download(room: StreamsRoom, how: str) -> None:
    room.of(IMAGE)
    await get(room)
    if how == "role":
        room.grants.actions = ()
    elif how == "trust":
        room.grants.assumable = False
    else:
        room.buckets.policies["b"] = "deny"
    if how == "bucket policy":
        await room.work.run(lambda tx: room.descriptors.bucket_policy_changed(tx, room.place.account, "b"))  # type: ignore[arg-type]
    else:
        await room.work.run(lambda tx: tx.after_commit(room.descriptors.evict))
    (reply,) = await get(room, c="t")
    refusal = cbor2.loads(reply.payload)
    assert (refusal["o"], refusal["c"]) == ("Unauthorized", "t")
    # Given back, it works again without anybody's word.
    room.grants.actions, room.grants.assumable = ("s3:GetObject", "s3:GetObjectVersion"), True
    room.buckets.policies.clear()
    assert numbers(await get(room)) == [0, 1, 2]


async def test_what_was_read_before_an_eviction_is_not_kept_after_it(
    room: StreamsRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.of(IMAGE)
    read = room.work.read
    times = 0

    async def late(query: object) -> object:
        nonlocal times
        result = await read(query)  # type: ignore[arg-type]
        times += 1
        if times == 1:
            room.descriptors.evict()
        return result

    monkeypatch.setattr(room.work, "read", late)
    assert numbers(await get(room)) == [0, 1, 2]
    assert times == 2


async def test_bytes_that_are_not_in_memory_are_read_in_a_thread_and_an_eviction_meanwhile_counts(
    room: StreamsRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.of(IMAGE)
    await get(room)
    room.buckets.warm.clear()
    read = room.buckets.read
    threads: list[bool] = []

    def slow(content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        if len(threads) == 1:
            room.grants.actions = ()
            room.descriptors.evict()
        return read(content_id, offset_bytes, size_bytes)

    monkeypatch.setattr(room.buckets, "read", slow)
    (reply,) = await get(room, b=b"\x01")
    assert cbor2.loads(reply.payload)["o"] == "Unauthorized"
    room.grants.actions = ("s3:GetObjectVersion",)
    assert numbers(await get(room)) == [0, 1, 2]
    assert threads
    assert not any(threads)


@pytest.mark.parametrize(("taken_away", "sent"), [("s", []), ("another", [0])])
async def test_a_stream_that_is_taken_away_during_each_read_sends_nothing_and_others_do_not_matter(
    room: StreamsRoom, monkeypatch: pytest.MonkeyPatch, taken_away: str, sent: list[int]
) -> None:
    room.of(IMAGE)
    room.of(IMAGE, "another")
    await get(room)
    room.buckets.warm.clear()
    read = room.buckets.read

    def slow(content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes:
        found = next(iter(room.buckets.versions["b", taken_away].values()))
        room.work.run_blocking(lambda tx: room.descriptors.object_gone(tx, found))
        room.buckets.warm.clear()
        return read(content_id, offset_bytes, size_bytes)

    monkeypatch.setattr(room.buckets, "read", slow)
    assert numbers(await get(room, b=b"\x01")) == sent


async def test_short_content_never_becomes_a_block(room: StreamsRoom) -> None:
    room.of(IMAGE)
    content = ContentId(next(iter(room.buckets.contents)))
    room.buckets.contents[content] = IMAGE[:-1]
    assert numbers(await get(room, b=b"\x01")) == [0]
    (reply,) = await get(room)
    assert cbor2.loads(reply.payload)["o"] == "ResourceNotFound"
    del room.buckets.contents[content]
    (reply,) = await get(room, b=b"\x01")
    assert cbor2.loads(reply.payload)["o"] == "ResourceNotFound"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_is_asked_only_true_blocks_come_each_once(room: StreamsRoom, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 3000))
    block = data.draw(st.integers(256, 1024))
    image = data.draw(st.binary(min_size=size, max_size=size))
    room.buckets.versions.clear()
    version = room.buckets.put("b", "s", image)
    key = f"s{room.buckets._count}"
    room.create(key, source(0, "b", "s", version))
    request = {"f": 0, "l": block}
    for name, values in (
        ("o", st.integers(0, 20)),
        ("n", st.integers(0, 20)),
        ("b", st.binary(max_size=4)),
    ):
        if data.draw(st.booleans()):
            request[name] = data.draw(values)
    replies = list(await room.say("get/cbor", cbor2.dumps(request), stream=key))
    blocks = [cbor2.loads(reply.payload) for reply in replies]
    if blocks and "o" in blocks[0]:
        assert request.get("o", 0) * block >= size
        return
    asked = [item["i"] for item in blocks]
    assert asked == sorted(set(asked))
    for item in blocks:
        assert item["p"] == image[item["i"] * block : (item["i"] + 1) * block]
        assert item["l"] == len(item["p"]) > 0
    assert len(asked) <= request.get("n", 10**6)
    if "b" in request:
        offset = request.get("o", 0)
        named = {offset + 8 * j + i for j, byte in enumerate(request["b"]) for i in range(8) if byte >> i & 1}
        assert set(asked) <= named
