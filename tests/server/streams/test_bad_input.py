"""Whatever a device publishes below its streams, it gets blocks, a description or one refusal."""

from __future__ import annotations

import json

import cbor2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.streams_room import StreamsRoom

SUFFIXES = ["get/cbor", "get/json", "get", "describe/cbor", "describe/json", "describe", "x", "get/cbor/x", "data/cbor"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([256, 4096, 131072, 131073, 98304, 98305, 65536, 2**32, 2**70, 0])
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
)
MEMBERS = st.dictionaries(st.sampled_from("cfslonbvtx"), SCALARS, max_size=6)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    stream=st.sampled_from(["s", "t", "", "a b", "x" * 200, "\x00"]),
    payload=st.binary(max_size=40) | MEMBERS.map(cbor2.dumps) | MEMBERS.map(lambda members: json.dumps(members).encode()),
)
async def test_whatever_comes_is_answered_and_never_by_an_internal_error(
    room: StreamsRoom, suffix: str, stream: str, payload: bytes
) -> None:
    if not room.buckets.versions:
        room.of(bytes(300_000))
    replies = await room.say(suffix, payload, stream=stream)
    assert sum(len(reply.payload) for reply in replies) <= 600 * 1024
    for reply in replies:
        assert not reply.implicit
        assert b"Internal" not in reply.payload
        if "/rejected" in reply.topic:
            assert len(replies) == 1
