"""Whatever a device publishes below its jobs, it gets one answer, and never a server's fault."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.jobs_room import FakeConnection, JobsRoom, answer

LEVELS = st.sampled_from(["A", "B", "", "$next", "get", "update", "start-next", "notify", "x" * 300, "a b", "ä", "\x01"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, 2**64, -(2**63), 0, -1, 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["IN_PROGRESS", "SUCCEEDED", "QUEUED", "1", "\x00", "é\u2028", "x" * 2000])
)
MEMBERS = st.dictionaries(
    st.sampled_from(
        [
            "clientToken",
            "status",
            "statusDetails",
            "expectedVersion",
            "executionNumber",
            "includeJobDocument",
            "includeJobExecutionState",
            "stepTimeoutInMinutes",
            "other",
        ]
    ),
    SCALARS | st.dictionaries(st.text(max_size=5), SCALARS, max_size=3) | st.lists(SCALARS, max_size=2),
)
PAYLOADS = st.binary(max_size=60) | MEMBERS.map(lambda members: json.dumps(members).encode())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    thing=st.sampled_from(["dev-1", "nobody", "", "a b", "x" * 200]),
    levels=st.lists(LEVELS, min_size=1, max_size=3),
    payload=PAYLOADS,
)
async def test_whatever_comes_is_answered_and_never_by_an_internal_error(
    room: JobsRoom, thing: str, levels: list[str], payload: bytes
) -> None:
    if not room.registry.things:
        room.add_things("dev-1")
        room.create("A", room.thing_arn("dev-1"))
    topic = f"$aws/things/{thing}/jobs/{'/'.join(levels)}"
    (reply,) = await answer(room.topics, FakeConnection(place=room.place), topic, payload)
    assert reply.topic in (f"{topic}/accepted", f"{topic}/rejected")
    body = json.loads(reply.payload)
    assert type(body["timestamp"]) is int
    if reply.topic.endswith("/rejected"):
        assert body["code"] != "InternalError", body
