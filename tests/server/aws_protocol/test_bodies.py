"""Bodies on their way in: aws-chunked framing, signatures of chunks, checksums, lengths."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.errors import InvalidRequest, NotAuthenticated, OverairError, Unavailable
from overair.server.aws_protocol import body as body_module
from overair.server.aws_protocol.authentication import Authentication
from overair.server.aws_protocol.aws_chunked import ChunkedDecoder
from overair.server.aws_protocol.body import ClientGone, StreamedBody, Unproved, read_streamed, read_whole
from overair.server.aws_protocol.checksums import checksum
from overair.wire.sigv4 import ChunkSignatures, Scope, signing_key
from tests.support.engine_door import CALLER

SCOPE = Scope(date="20260101", region="us-east-1", service="s3")


def chain() -> ChunkSignatures:
    key = signing_key("secret", "20260101", "us-east-1", "s3")
    return ChunkSignatures(seed_signature="0" * 64, key=key, timestamp="20260101T000000Z", scope=SCOPE)


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def signed_stream(chunks: Sequence[bytes], *, trailer: bytes | None = None) -> bytes:
    """A body as an SDK signs it."""
    signatures, out = chain(), b""
    for chunk in (*chunks, b""):
        out += b"%x;chunk-signature=%s\r\n" % (len(chunk), signatures.next(hashlib.sha256(chunk).hexdigest()).encode())
        out += chunk + b"\r\n" if chunk else b""
    if trailer is not None:
        out += trailer + b"\r\nx-amz-trailer-signature:" + signatures.trailer(trailer + b"\n").encode() + b"\r\n"
    return out + b"\r\n"


def received(pieces: Sequence[bytes], *, cut: bool = False) -> Any:
    messages = [
        {"type": "http.request", "body": piece, "more_body": cut or index + 1 < len(pieces)}
        for index, piece in enumerate(pieces or (b"",))
    ]
    if cut:
        messages.append({"type": "http.disconnect"})
    waiting = iter(messages)

    async def receive() -> Any:
        return next(waiting)

    return receive


def split(data: bytes, at: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({min(each, len(data)) for each in at}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def body_of(data: bytes, *, payload: str, chunks: Any = None, at: Sequence[int] = (), **headers: str) -> StreamedBody:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    authentication = Authentication(caller=CALLER, service="s3", payload=payload, chunks=chunks)
    return StreamedBody(received(split(data, at)), named, authentication)


def whole(body: StreamedBody) -> bytes:
    return asyncio.run(read_streamed(body, size_bytes_max=1 << 20))


CHUNKS = st.lists(st.binary(min_size=1, max_size=300), max_size=5)
CUTS = st.lists(st.integers(0, 3000), max_size=12)


@given(chunks=CHUNKS, at=CUTS)
def test_a_signed_stream_is_decoded_however_it_is_cut(chunks: list[bytes], at: list[int]) -> None:
    data = b"".join(chunks)
    body = body_of(
        signed_stream(chunks),
        payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        chunks=chain(),
        at=at,
        x_amz_decoded_content_length=str(len(data)),
    )
    assert whole(body) == data


@given(chunks=CHUNKS, at=CUTS)
def test_trailing_checksums_are_verified_and_told(chunks: list[bytes], at: list[int]) -> None:
    data = b"".join(chunks)
    trailer = b"x-amz-checksum-crc32:" + crc32(data).encode()
    body = body_of(
        signed_stream(chunks, trailer=trailer),
        payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        chunks=chain(),
        at=at,
        x_amz_decoded_content_length=str(len(data)),
        x_amz_trailer="x-amz-checksum-crc32",
    )
    assert body.checksums == {}
    assert whole(body) == data
    assert body.checksums == {"crc32": crc32(data)}


@given(position=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_signed_stream_with_a_changed_byte_never_passes(position: int, value: int) -> None:
    data = b"hello, firmware" * 20
    stream = bytearray(signed_stream([data[:100], data[100:]], trailer=b"x-amz-checksum-crc32:" + crc32(data).encode()))
    stream[position % (len(stream) - 2)] ^= value
    body = body_of(
        bytes(stream),
        payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        chunks=chain(),
        x_amz_decoded_content_length=str(len(data)),
        x_amz_trailer="x-amz-checksum-crc32",
    )
    try:
        passed = whole(body)
    except OverairError:
        return
    # Only what says the same may pass: a digit of a size or the name of a header in the other case.
    assert passed == data
    assert (
        bytes(stream).lower()
        == signed_stream([data[:100], data[100:]], trailer=b"x-amz-checksum-crc32:" + crc32(data).encode()).lower()
    )


@given(data=st.binary(max_size=400), at=CUTS)
def test_a_decoder_meets_anything_and_refuses_in_its_own_words(data: bytes, at: list[int]) -> None:
    decoder = ChunkedDecoder()
    try:
        for piece in split(data, at):
            decoder.feed(piece)
    except InvalidRequest as refused:
        if refused.subject not in ("incomplete-body", "malformed-trailer"):
            raise


def test_nothing_may_follow_the_end_of_a_stream() -> None:
    """Else it would pile up in memory, unread."""
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\n\r\n")
    assert decoder.finished
    with pytest.raises(InvalidRequest) as refused:
        decoder.feed(b"more")
    assert refused.value.subject == "incomplete-body"


def test_an_unsigned_stream_needs_no_signatures() -> None:
    stream = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + crc32(b"hello").encode() + b"\r\n\r\n"
    body = body_of(
        stream,
        payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        x_amz_decoded_content_length="5",
        x_amz_trailer="x-amz-checksum-crc32",
    )
    assert whole(body) == b"hello"


@pytest.mark.parametrize(
    ("stream", "subject"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", "malformed-trailer"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", "digest"),
        (b"5\r\nhello\r\n", "incomplete-body"),
        (b"6\r\nhello!\r\n0\r\n\r\n", "incomplete-body"),
        (b"4\r\nhello\r\n0\r\n\r\n", "incomplete-body"),
        (b"zz\r\n", "incomplete-body"),
        (b"f" * 2000, "incomplete-body"),
    ],
)
def test_a_broken_stream_is_refused(stream: bytes, subject: str) -> None:
    body = body_of(
        stream,
        payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        x_amz_decoded_content_length="5",
        x_amz_trailer="x-amz-checksum-crc32",
    )
    with pytest.raises(InvalidRequest) as caught:
        whole(body)
    assert caught.value.subject == subject


def test_a_chunk_without_its_signature_is_refused() -> None:
    body = body_of(b"0\r\n\r\n", payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD", chunks=chain(), x_amz_decoded_content_length="0")
    with pytest.raises(NotAuthenticated):
        whole(body)


def test_trailers_left_unsigned_are_refused() -> None:
    body = body_of(
        signed_stream([b"hello"]),
        payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        chunks=chain(),
        x_amz_decoded_content_length="5",
    )
    with pytest.raises(NotAuthenticated):
        whole(body)


@pytest.mark.parametrize(
    ("headers", "subject"),
    [
        ({"content_length": "6"}, "incomplete-body"),
        ({"content_length": "4"}, "incomplete-body"),
        ({"content_length": str(6 * 1024**3)}, "too-large"),
        ({"content_length": "5", "content_md5": base64.b64encode(bytes(16)).decode()}, "digest"),
        ({"content_length": "5", "content_md5": "!"}, "invalid-digest"),
        ({"content_length": "5", "x_amz_checksum_sha256": "AAAA"}, "argument"),
        ({"content_length": "5", "x_amz_checksum_crc32": "AAAAAA=="}, "digest"),
    ],
)
def test_what_headers_say_of_a_body_must_hold(headers: dict[str, str], subject: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        whole(body_of(b"hello", payload="UNSIGNED-PAYLOAD", **headers))
    assert caught.value.subject == subject


def test_a_checksum_that_we_lack_is_said_to_be_so() -> None:
    with pytest.raises(OverairError, match="xxhash64"):
        body_of(b"hello", payload="UNSIGNED-PAYLOAD", content_length="5", x_amz_checksum_xxhash64="AAAA")


def test_the_signed_sha256_is_the_bodys() -> None:
    good = hashlib.sha256(b"hello").hexdigest()
    assert whole(body_of(b"hello", payload=good, content_length="5")) == b"hello"
    with pytest.raises(InvalidRequest) as caught:
        whole(body_of(b"hellp", payload=good, content_length="5"))
    assert caught.value.subject == "body-sha256"


def test_a_whole_body_is_refused_at_its_limit_and_a_lost_client_is_told() -> None:
    headers = {"transfer-encoding": "chunked"}
    assert asyncio.run(read_whole(received([b"ab", b"c"]), headers, size_bytes_max=3)) == b"abc"
    with pytest.raises(InvalidRequest):
        asyncio.run(read_whole(received([b"ab", b"cd"]), headers, size_bytes_max=3))
    with pytest.raises(InvalidRequest):
        asyncio.run(read_whole(received([]), {"content-length": "4"}, size_bytes_max=3))
    with pytest.raises(ClientGone):
        asyncio.run(read_whole(received([b"a"], cut=True), headers, size_bytes_max=3))


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("crc32", "cbf43926"),
        ("crc32c", "e3069283"),
        ("crc64nvme", "ae8b14860a799888"),
        ("sha1", hashlib.sha1(b"123456789").hexdigest()),
    ],
)
def test_checksums_of_the_usual_nine_digits(algorithm: str, expected: str) -> None:
    running = checksum(algorithm)
    running.update(b"1234")
    running.update(b"56789")
    assert running.digest().hex() == expected


@given(pieces=st.lists(st.binary(max_size=50), max_size=8), algorithm=st.sampled_from(["crc32c", "crc64nvme"]))
def test_a_checksum_is_the_same_however_the_data_is_cut(pieces: list[bytes], algorithm: str) -> None:
    in_pieces, at_once = checksum(algorithm), checksum(algorithm)
    for piece in pieces:
        in_pieces.update(piece)
    at_once.update(b"".join(pieces))
    assert in_pieces.digest() == at_once.digest()


def test_bodies_of_unproved_senders_fill_no_memory() -> None:
    unproved = Unproved(10)

    async def piece() -> dict[str, Any]:
        return {"type": "http.request", "body": b"12345678", "more_body": False}

    async def nothing_more() -> dict[str, Any]:
        assert unproved.size_bytes == 8
        with pytest.raises(Unavailable):
            await read_whole(piece, {"content-length": "8"}, size_bytes_max=100, unproved=unproved)
        assert unproved.size_bytes == 8
        return {"type": "http.disconnect"}

    pieces = iter([piece(), nothing_more()])

    async def receive() -> dict[str, Any]:
        message = await next(pieces)
        return {**message, "more_body": True}

    with pytest.raises(ClientGone):
        asyncio.run(read_whole(receive, {"content-length": "16"}, size_bytes_max=100, unproved=unproved))
    assert unproved.size_bytes == 0
    assert asyncio.run(read_whole(piece, {"content-length": "8"}, size_bytes_max=100, unproved=unproved)) == b"12345678"


def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "WHOLE_TIMEOUT_S", 0.02)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"", "more_body": True}

    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(read_whole(receive, {"content-length": "16"}, size_bytes_max=100))
    assert refused.value.subject == "incomplete-body"
