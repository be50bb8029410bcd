"""Requests for blocks and descriptions, and a server's answers, in CBOR, JSON and JSON as it was in 2018. Input: an octet that
chooses the dialect, then a payload.

Held: a request is read or refused with a code, and the refusal can be written; what is read is, written again, the same; it
never asks for more blocks than there are bounds; our own device reads or refuses the same bytes as an answer.
"""

from __future__ import annotations

from overair.wire.stream_client import (
    MalformedStreamMessage,
    decode_block,
    decode_description,
    decode_refusal,
    encode_get_stream,
)
from overair.wire.stream_messages import (
    Dialect,
    StreamRequestRefused,
    decode_describe_stream,
    decode_get_stream,
    encode_refusal,
)
from tests.fuzz.refusals import says_why

DIALECTS = list(Dialect)


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    dialect, payload = DIALECTS[data[0] % len(DIALECTS)], data[1:]
    try:
        request = decode_get_stream(payload, dialect)
    except StreamRequestRefused as refused:
        says_why(refused, answer=encode_refusal(refused, dialect))
    else:
        assert decode_get_stream(encode_get_stream(request, dialect), dialect) == request
        for size_bytes in (0, 1, request.block_size_bytes, 16 * 1024 * 1024):
            try:
                blocks = list(request.blocks_to_send(size_bytes))
            except StreamRequestRefused:
                assert request.block_offset * request.block_size_bytes >= size_bytes
                continue
            assert all(number * request.block_size_bytes < size_bytes for number in blocks)
            assert blocks == sorted(set(blocks))
    try:
        decode_describe_stream(payload, dialect)
    except StreamRequestRefused as refused:
        says_why(refused, answer=encode_refusal(refused, dialect))
    for read in (decode_block, decode_description, decode_refusal):
        try:
            read(payload, dialect)
        except MalformedStreamMessage as malformed:
            says_why(malformed)
