from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from overair.basics.ids import SeededIds
from overair.server.gateway import http_publish
from overair.server.gateway.denials import HTTPS
from overair.server.gateway.handlers import Connection, Replies, topic
from overair.server.gateway.http_publish import HttpPublish
from overair.wire.mqtt.packets import Publish
from tests.support.gateway_world import PLACE, Patterns, World, certificate_of


async def ask(
    world: World,
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    query: bytes = b"",
    certificate: bytes | None = b"c1",
    chunks: int = 1,
    declared: bytes | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, Any]:
    """One request to the application, its body in so many events: (status, JSON)."""
    size = -(-len(body) // chunks) or 1
    events = [
        {"type": "http.request", "body": body[start : start + size], "more_body": start + size < len(body)}
        for start in range(0, max(len(body), 1), size)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [*headers, *([(b"content-length", declared)] if declared is not None else [])],
        "client": ("127.0.0.1", 1),
        "state": {"peer_der": certificate},
    }
    await HttpPublish(gateway=world.gateway, ids=SeededIds(1))(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


async def test_a_publish_over_https_reaches_subscribers(world: World) -> None:
    listener = await world.client("listener")
    await listener.subscribe(("a/b c", 1))
    status, answer = await ask(world, "/topics/a%2Fb%20c", b"hello", query=b"qos=1", chunks=3)
    assert (status, answer["message"]) == (200, "OK")
    assert len(answer["traceId"]) == 36
    assert await listener.next() == Publish(topic="a/b c", payload=b"hello", qos=1, packet_id=1)
    assert (await ask(world, "/topics/a/b%20c", b"unescaped slash"))[0] == 200
    assert await listener.next() == Publish(topic="a/b c", payload=b"unescaped slash")
    assert world.authority.asked[-1] == (b"c1", None, None, "127.0.0.1")


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/topics/mine", {"certificate": None}, 403),
        ("/topics/mine", {"certificate": b"c9"}, 403),
        ("/topics/yours", {}, 403),
        ("/topics/mine", {"query": b"retain=true"}, 403),
        ("/topics/$aws/things/x/nonsense", {}, 403),
        ("/topics/mine", {"query": b"qos=2"}, 400),
        ("/topics/mine", {"query": b"retain=maybe"}, 400),
        ("/topics/", {}, 400),
        ("/topics/a/+", {}, 400),
        ("/topics/%ff", {}, 400),
        ("/topics/" + "x" * 1025, {}, 400),
        ("/elsewhere", {}, 404),
        ("/topics/mine", {"method": "GET"}, 405),
        ("/topics/mine", {"declared": b"99999999"}, 413),
        ("/topics/mine", {"declared": b"-1"}, 413),
        ("/topics/mine", {"query": b"a&" * 30}, 400),
        ("/topics/mine", {"body": bytes(1024 * 1024 + 1), "chunks": 4}, 413),
    ],
)
async def test_what_may_not_be_published_is_refused(world: World, path: str, options: dict[str, Any], status: int) -> None:
    world.authority.refused.add(b"c9")
    world.authority.policies[b"c1"] = Patterns(publish=["mine", "$aws/*", "xxx*"], retain=[])
    answered, answer = await ask(world, path, **options)
    assert (answered, set(answer)) == (status, {"message", "traceId"})
    # A wrong request is no denial, and what isn't there is denied to nobody in particular.
    assert bool(world.denials.heard) is (status == 403 and "nonsense" not in path)


async def test_what_is_denied_over_https_is_told_to_the_auditor(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(publish=["mine"], retain=[])
    world.authority.refused.add(b"c9")
    principal = PLACE.iot("cert", certificate_of(b"c1"))
    assert (await ask(world, "/topics/yours"))[0] == (await ask(world, "/topics/mine", query=b"retain=true"))[0] == 403
    assert world.denials.heard == [
        (PLACE.account, principal, HTTPS, operation, PLACE.iot("topic", topic), "127.0.0.1")
        for operation, topic in (("Publish", "yours"), ("RetainPublish", "mine"))
    ]
    world.denials.heard.clear()
    for stranger in (None, b"c9"):
        assert (await ask(world, "/topics/mine", certificate=stranger))[0] == 403
    assert world.denials.heard == [(None, None, HTTPS, "Publish", "topic/mine", "127.0.0.1")] * 2


async def test_what_is_said_beside_the_payload_reaches_listeners_that_speak_5(world: World) -> None:
    listener = await world.client("listener", level=5)
    await listener.subscribe(("a", 1))
    pairs = (b"x-amz-mqtt5-user-properties", base64.b64encode(b'[{"k": "v"}]'))
    query = b"qos=1&contentType=text%2Fplain&responseTopic=b&messageExpiry=9"
    assert (await ask(world, "/topics/a", b"x", query=query, headers=[pairs]))[0] == 200
    said = ((0x03, "text/plain"), (0x08, "b"), (0x26, ("k", "v")), (0x02, 9))
    assert await listener.next() == Publish(topic="a", payload=b"x", qos=1, packet_id=1, properties=said)
    for query, headers in (
        (b"messageExpiry=x", []),
        (b"responseTopic=%2B", []),
        (b"", [(b"x-amz-mqtt5-user-properties", b"%")]),
        (b"", [(b"x-amz-mqtt5-payload-format-indicator", b"x")]),
    ):
        assert (await ask(world, "/topics/a", b"x", query=query, headers=headers))[0] == 400


async def test_a_reserved_topic_is_handled_for_its_effect(world: World) -> None:
    seen = []

    class Door:
        @topic("$aws/things/{thing}/jobs/{job}/update")
        async def update(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
            seen.append((connection.account, dict(parameters), payload))
            return ()

    world.topics.register(Door())
    assert (await ask(world, "/topics/$aws/things/t/jobs/j/update", b"{}", query=b"qos=1"))[0] == 200
    assert seen == [("123456789012", {"thing": "t", "job": "j"}, b"{}")]


async def test_a_body_that_stops_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_publish, "STALL_TIMEOUT_S", 0.01)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.get_running_loop().create_future()

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/topics/a",
        "query_string": b"",
        "headers": [(b"content-length", b"9")],
        "state": {"peer_der": b"c1"},
    }
    await HttpPublish(gateway=world.gateway, ids=SeededIds(1))(scope, receive, send)
    assert sent[0]["status"] == 408
