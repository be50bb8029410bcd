from __future__ import annotations

import contextlib
import json
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.blocks import StreamBlock
from overair.wire.stream_client import (
    MalformedStreamMessage,
    decode_block,
    decode_description,
    decode_refusal,
    encode_describe_stream,
    encode_get_stream,
)
from overair.wire.stream_messages import (
    BlockEncoder,
    DescribeStreamRequest,
    Dialect,
    Echo,
    GetStreamRequest,
    RefusalCode,
    StreamDescription,
    StreamFile,
    StreamRequestRefused,
    decode_describe_stream,
    decode_get_stream,
    encode_description,
    encode_refusal,
)

C_AGENT_REQUEST = bytes.fromhex("a6 6163 63726479 6166 00 616c 191000 616f 00 6162 42ff1f 616e 01")
DIALECTS = st.sampled_from(list(Dialect))
ECHOES = st.builds(Echo, client_token=st.none() | st.text(st.characters(codec="ascii"), max_size=64))
REQUESTS = st.builds(
    GetStreamRequest,
    file_id=st.integers(0, 255),
    block_size_bytes=st.integers(256, 131_072),
    block_offset=st.integers(0, 98_304),
    block_count=st.none() | st.integers(0, 98_304),
    bitmap=st.none() | st.binary(max_size=200),
    stream_version=st.none() | st.integers(0, 65_535),
    echo=ECHOES,
)


def refused(payload: bytes, dialect: Dialect = Dialect.JSON) -> StreamRequestRefused:
    with pytest.raises(StreamRequestRefused) as caught:
        decode_get_stream(payload, dialect)
    return caught.value


@given(REQUESTS, DIALECTS)
def test_a_request_comes_back_as_it_was_written(request: GetStreamRequest, dialect: Dialect) -> None:
    assert decode_get_stream(encode_get_stream(request, dialect), dialect) == request


@given(st.integers(0, 255), st.integers(0, 200_000), st.binary(max_size=600), DIALECTS, ECHOES)
def test_a_block_comes_back_as_it_was_written(file_id: int, number: int, data: bytes, dialect: Dialect, echo: Echo) -> None:
    encoder = BlockEncoder(dialect=dialect, file_id=file_id, block_size_bytes=512, echo=echo)
    payload = encoder.write(number, data)
    assert decode_block(payload, dialect) == StreamBlock(file_id=file_id, number=number, data=data)
    if dialect is Dialect.CBOR:
        members: dict[str, Any] = {"f": file_id, "i": number, "l": len(data), "p": data}
        members |= {} if echo.client_token is None else {"c": echo.client_token}
        assert payload == cbor2.dumps(members)


def test_the_c_agents_request_is_read_and_written_byte_for_byte() -> None:
    request = GetStreamRequest(
        file_id=0, block_size_bytes=4096, bitmap=b"\xff\x1f", block_count=1, echo=Echo(client_token="rdy")
    )
    assert decode_get_stream(C_AGENT_REQUEST, Dialect.CBOR) == request
    assert encode_get_stream(request, Dialect.CBOR) == C_AGENT_REQUEST


def test_the_oldest_agents_request_without_a_count_is_read() -> None:
    payload = bytes.fromhex("a5 6163 63726479 6166 00 616c 190400 616f 00 6162 42ff1f")
    request = decode_get_stream(payload, Dialect.CBOR)
    assert request.block_count is None
    assert list(request.blocks_to_send(13 * 1024)) == list(range(13))


def test_the_downloaders_requests_are_read() -> None:
    assert decode_get_stream(b'{"s": 1,"f": 0,"l": 4096,"o": 7,"n": 1}', Dialect.JSON) == GetStreamRequest(
        file_id=0, block_size_bytes=4096, block_offset=7, block_count=1, stream_version=1
    )
    members = {"c": "rdy", "f": 0, "l": 4096, "o": 7, "b": b"MQ==", "n": 1}
    assert list(decode_get_stream(cbor2.dumps(members), Dialect.CBOR).blocks_to_send(8 * 4096)) == [7]


def test_a_data_message_in_cbor_is_what_the_c_parsers_demand() -> None:
    encoder = BlockEncoder(dialect=Dialect.CBOR, file_id=0, block_size_bytes=4096, echo=Echo(client_token="rdy"))
    assert encoder.write(300, bytes(4096)) == (
        bytes.fromhex("a5 6166 00 6169 19012c 616c 191000 6170 591000") + bytes(4096) + bytes.fromhex("6163 63726479")
    )


@pytest.mark.parametrize(
    ("text", "bitmap"),
    [("0x130080", b"\x13\x00\x80"), ("130080", b"\x13\x00\x80"), ("0XFF", b"\xff"), ("MQ==", b"1"), ("", b"")],
)
def test_a_bitmap_in_json_is_hexadecimal_and_base64_is_tolerated(text: str, bitmap: bytes) -> None:
    assert decode_get_stream(json.dumps({"f": 0, "l": 256, "b": text}).encode(), Dialect.JSON).bitmap == bitmap


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"l": 256}, RefusalCode.INVALID_REQUEST),
        ({"f": 0}, RefusalCode.INVALID_REQUEST),
        ({"f": None, "l": 256}, RefusalCode.INVALID_REQUEST),
        ({"f": 256, "l": 256}, RefusalCode.INVALID_REQUEST),
        ({"f": True, "l": 256}, RefusalCode.INVALID_REQUEST),
        ({"f": 0, "l": "256"}, RefusalCode.INVALID_REQUEST),
        ({"f": 0, "l": 256.0}, RefusalCode.INVALID_REQUEST),
        ({"f": 0, "l": 256, "s": 65_536}, RefusalCode.INVALID_REQUEST),
        ({"f": 0, "l": 256, "c": 5}, RefusalCode.INVALID_REQUEST),
        ({"f": 0, "l": 256, "c": "é" * 33}, RefusalCode.INVALID_REQUEST),
        ({"f": 0, "l": 256, "b": "0xQQ"}, RefusalCode.INVALID_REQUEST),
        ({"f": 0, "l": 256, "b": 1}, RefusalCode.INVALID_REQUEST),
        ({"f": 0, "l": 255}, RefusalCode.BLOCK_SIZE_OUT_OF_BOUNDS),
        ({"f": 0, "l": 131_073}, RefusalCode.BLOCK_SIZE_OUT_OF_BOUNDS),
        ({"f": 0, "l": -1}, RefusalCode.BLOCK_SIZE_OUT_OF_BOUNDS),
        ({"f": 0, "l": 256, "o": 98_305}, RefusalCode.OFFSET_OUT_OF_BOUNDS),
        ({"f": 0, "l": 256, "o": -1}, RefusalCode.OFFSET_OUT_OF_BOUNDS),
        ({"f": 0, "l": 256, "n": 98_305}, RefusalCode.BLOCK_COUNT_LIMIT_EXCEEDED),
        ({"f": 0, "l": 256, "b": "00" * 12_288}, RefusalCode.BLOCK_BITMAP_LIMIT_EXCEEDED),
    ],
)
def test_a_request_out_of_bounds_is_refused_with_its_code(members: dict[str, Any], code: RefusalCode) -> None:
    assert refused(json.dumps(members).encode()).code is code


@pytest.mark.parametrize(
    ("payload", "dialect", "code"),
    [
        (b"{", Dialect.JSON, RefusalCode.INVALID_JSON),
        (b"", Dialect.JSON, RefusalCode.INVALID_JSON),
        (b"[]", Dialect.GUIDE_2018, RefusalCode.INVALID_JSON),
        (b"\xff\xfe", Dialect.JSON, RefusalCode.INVALID_JSON),
        (b"\xa1", Dialect.CBOR, RefusalCode.INVALID_CBOR),
        (b"\x80", Dialect.CBOR, RefusalCode.INVALID_CBOR),
        (C_AGENT_REQUEST + b"\x00", Dialect.CBOR, RefusalCode.INVALID_CBOR),
        (cbor2.dumps({"f": 0, "l": 256, "b": "MQ=="}), Dialect.CBOR, RefusalCode.INVALID_REQUEST),
        (b" " * 40_000, Dialect.JSON, RefusalCode.INVALID_JSON),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_code(payload: bytes, dialect: Dialect, code: RefusalCode) -> None:
    assert refused(payload, dialect).code is code


@given(st.binary(max_size=300), DIALECTS)
def test_arbitrary_bytes_are_a_message_or_our_own_refusal(payload: bytes, dialect: Dialect) -> None:
    for decode in (decode_get_stream, decode_describe_stream):
        with contextlib.suppress(StreamRequestRefused):
            decode(payload, dialect)
    for decode_answer in (decode_block, decode_description, decode_refusal):
        with contextlib.suppress(MalformedStreamMessage):
            decode_answer(payload, dialect)


def test_the_token_is_echoed_in_a_refusal_unless_it_was_the_fault() -> None:
    assert refused(b'{"f":0,"l":1,"c":"t-1"}').echo == Echo(client_token="t-1")
    assert refused(json.dumps({"f": 0, "l": 1, "c": "x" * 65}).encode()).echo == Echo()


def test_a_refusal_is_spelt_as_its_dialect_spells_it() -> None:
    refusal = StreamRequestRefused(RefusalCode.ETAG_MISMATCH, "It changed.", Echo(client_token="t", message_version=1))
    assert encode_refusal(refusal, Dialect.JSON) == b'{"c":"t","o":"ETagMismatch","m":"It changed."}'
    assert cbor2.loads(encode_refusal(refusal, Dialect.CBOR)) == {"c": "t", "o": "ETagMismatch", "m": "It changed."}
    assert encode_refusal(refusal, Dialect.GUIDE_2018) == (
        b'{"v":1,"t":"t","code":"StreamingFileConflict","message":"It changed."}'
    )
    for dialect in Dialect:
        assert decode_refusal(encode_refusal(refusal, dialect), dialect).message == "It changed."


@pytest.mark.parametrize(
    ("code", "spelling"),
    [
        (RefusalCode.VERSION_MISMATCH, "VersionConflict"),
        (RefusalCode.INTERNAL_ERROR, "InternalFailure"),
        (RefusalCode.BLOCK_SIZE_OUT_OF_BOUNDS, "InvalidRequest"),
        (RefusalCode.RESOURCE_NOT_FOUND, "ResourceNotFound"),
        (RefusalCode.UNAUTHORIZED, "Unauthorized"),
    ],
)
def test_each_code_has_its_word_of_2018(code: RefusalCode, spelling: str) -> None:
    assert json.loads(encode_refusal(StreamRequestRefused(code, "m"), Dialect.GUIDE_2018))["code"] == spelling


def test_the_2018_words_are_read_and_echoed() -> None:
    request = decode_get_stream(b'{"v":1,"t":"tok","s":1,"f":7,"l":512,"o":2,"n":1}', Dialect.GUIDE_2018)
    assert request.stream_version == 1
    assert json.loads(
        BlockEncoder(dialect=Dialect.GUIDE_2018, file_id=7, block_size_bytes=512, echo=request.echo).write(2, b"ab")
    ) == {
        "v": 1,
        "t": "tok",
        "f": 7,
        "i": 2,
        "l": 2,
        "p": "YWI=",
    }
    described = decode_describe_stream(b'{"v":1,"t":"tok","s":3}', Dialect.GUIDE_2018)
    assert (described.stream_version, described.echo) == (3, Echo(client_token="tok", message_version=1))


@given(DIALECTS, ECHOES)
def test_a_description_comes_back_as_it_was_written(dialect: Dialect, echo: Echo) -> None:
    files = (StreamFile(file_id=0, size_bytes=409_600), StreamFile(file_id=7, size_bytes=812))
    description = StreamDescription(stream_version=1, description="free text", files=files, echo=echo)
    assert decode_description(encode_description(description, dialect), dialect) == description
    asked = DescribeStreamRequest(echo=echo)
    assert decode_describe_stream(encode_describe_stream(asked, dialect), dialect) == asked


def test_an_offset_beyond_the_end_is_not_found() -> None:
    request = GetStreamRequest(file_id=0, block_size_bytes=256, block_offset=4)
    with pytest.raises(StreamRequestRefused) as caught:
        request.blocks_to_send(1024)
    assert caught.value.code is RefusalCode.RESOURCE_NOT_FOUND
    assert list(request.blocks_to_send(1025)) == [4]


@pytest.mark.parametrize(
    "members",
    [
        {"f": 0, "i": 0, "l": 3, "p": b"ab"},
        {"f": 0, "i": 0, "l": 2, "p": "ab"},
        {"f": 0, "i": 2**31, "l": 2, "p": b"ab"},
        {"f": 0, "i": 0, "l": 2},
        {"f": 0, "i": -1, "l": 2, "p": b"ab"},
        {"f": 0, "i": True, "l": 2, "p": b"ab"},
        {"f": cbor2.CBORTag(24, 0), "i": 0, "l": 2, "p": b"ab"},
    ],
)
def test_a_block_that_the_c_agents_would_fail_is_refused_by_ours(members: dict[str, Any]) -> None:
    with pytest.raises(MalformedStreamMessage):
        decode_block(cbor2.dumps(members), Dialect.CBOR)
