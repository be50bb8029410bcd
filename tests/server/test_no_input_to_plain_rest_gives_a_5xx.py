"""A walk over every route of the composed server, operators' and devices': it fails on no request, right or wrong."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import uvloop

from overair.basics.arn import Place
from overair.basics.clock import WallClock
from overair.basics.ids import AccountId, CertificateId, RandomIds, ThingName
from overair.server.app import build_server
from overair.server.aws_protocol.operations import Caller
from overair.server.config import load_settings
from overair.server.rest.device_door import DeviceDoor
from overair.server.rest.operations import DeviceCaller
from overair.server.rest.templates import _LABEL

PLACE = Place("us-east-1", AccountId("123456789012"))
WORDS = (
    "",
    " ",
    "a",
    "walker",
    "1",
    "0",
    "-1",
    "1.root",
    "2147483648",
    "99999999999999999999",
    "root.json",
    "targets.json",
    "a/b",
    "../..",
    "\x00",
    "\x7f",
    "%00",
    "ü💥\u202e",
    "x" * 300,
    "x" * 3000,
    "00000000-0000-4000-8000-000000000001",
    "sha256",
    "true",
    "BINARY",
    "ED25519",
    "2026-01-01T00:00:00Z",
    "https://example.com/x",
    "{not json",
)
VALUES: tuple[Any, ...] = (*WORDS, -1, 0, 2**31, 2**63, -(2**63) - 1, 1.5, 1e308, True, None, [], {}, [[[]]], [None], {"a": 1})
MEMBERS = (
    "affected deviceId deviceIds devices ttl primary_ecu_serial ecus ecu_serial hardware_identifier clientKey keytype keyval "
    "public signed signatures keyid method sig _type version expires targets delegations keys roles custom hashes length "
    "ecu_version_manifests installation_report report correlation_id correlationId result items name packages hardwareIds "
    "hostname local_ipv4 mac id deviceTime eventType event success from to target checksum hash targetLength uri targetFormat "
    "mtuId dryRun expireAt comment uptane tuf root groups metadata approvalNeeded update keyType threshold paths terminating"
)
NAMES = MEMBERS.split()
HEADERS = ("x-ats-role-checksum", "x-trx-force", "range", "if-match", "content-type", "content-md5", "if-none-match")


class Walker:
    """Draws requests."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def path(self, template: str) -> str:
        return _LABEL.sub(
            lambda found: quote(self.chance.choice(WORDS), safe="/" if found[2] and self.chance.random() < 0.5 else ""),
            template,
        )

    def query(self) -> str:
        if self.chance.random() < 0.5:
            return ""
        return urlencode([(self.chance.choice(NAMES), self.chance.choice(WORDS)) for _ in range(self.chance.randint(1, 3))])

    def headers(self) -> list[tuple[bytes, bytes]]:
        if self.chance.random() < 0.7:
            return []
        value = self.chance.choice((*WORDS, "bytes=0-1", "bytes=9-", "*", "a" * 64)).encode("utf-8", "replace")
        return [(self.chance.choice(HEADERS).encode(), value.translate(None, b"\r\n\x00"))]

    def body(self) -> bytes:
        drawn = self.chance.random()
        if drawn < 0.15:
            return b""
        if drawn < 0.3:
            return self.chance.choice([b"\xff\xfe", b"{", b"[" * 5000, b'{"a":1,"a":2}', b"NaN", b"x" * 100_000, bytes(64)])
        return json.dumps(self.value(4)).encode()

    def value(self, depth: int) -> Any:
        drawn = self.chance.random()
        if depth == 0 or drawn < 0.4:
            return self.chance.choice(VALUES)
        if drawn < 0.55:
            return [self.value(depth - 1) for _ in range(self.chance.randint(0, 2))]
        return {self.chance.choice(NAMES): self.value(depth - 1) for _ in range(self.chance.randint(0, 6))}


class Everything:
    """Allows whatever is asked."""

    def allows(self, action: str, resource: str) -> bool:
        return True


class Walking:
    """Admits whoever knocks: the walker, or the holder of a shared credential."""

    def __init__(self) -> None:
        self.is_shared = False

    async def admit(self, chain_der: tuple[bytes, ...], source_ip: str, request_id: str, domain_name: str = "") -> DeviceCaller:
        return DeviceCaller(
            place=PLACE,
            thing=ThingName("" if self.is_shared else "walker"),
            certificate_id=CertificateId("0" * 64),
            source_ip=source_ip,
            now=WallClock().now(),
            request_id=request_id,
            credential_id="walkers" if self.is_shared else None,
            policy=Everything(),
        )


@dataclass
class Walk:
    """What became of it."""

    routes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    async def send(self, door: Any, method: str, walker: Walker, template: str, token: str) -> None:
        path, query, body = walker.path(template), walker.query(), walker.body()
        headers = [(b"authorization", f"Bearer {token}".encode()), *walker.headers()]
        status, answer = await asked(door, method, path, query, headers, b"" if method in ("GET", "HEAD") else body)
        self.statuses[status] += 1
        if status >= 500:
            self.failures.append(
                f"{status} {method} {path[:200]}?{query[:200]} {body[:300]!r} {headers[1:]} -> {answer[:300]!r}"
            )
        elif status >= 400 and method != "HEAD":
            told = json.loads(answer)
            assert {"code", "description", "cause", "errorId"} <= set(told), (template, told)


async def asked(
    door: Any, method: str, path: str, query: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> tuple[int, bytes]:
    """One request to a door, without a port in between."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [*headers, (b"content-length", b"%d" % len(body))],
        "state": {"peer_chain_der": (b"walker",)},
        "scheme": "https",
    }
    status, answer = 0, bytearray()
    bodies = iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        message = next(bodies, None)
        return message if message is not None else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        answer.extend(message.get("body", b""))

    await door(scope, receive, send)
    return status, bytes(answer)


async def walk_all(folder: Path, requests_per_route: int) -> Walk:
    flags = {"data": folder, "account": PLACE.account, "operator_port": 0, "mqtt_port": 0, "device_port": 0}
    server = build_server(load_settings(flags, environment={}), clock=WallClock(), ids=RandomIds())
    walk, walker = Walk(), Walker(random.Random(20261127))
    try:
        await server.start()
        joined, key = server.joined, json.loads((folder / "root-key.json").read_text())
        grant = {
            "grant_type": "client_credentials",
            "client_id": key["access_key_id"],
            "client_secret": key["secret_access_key"],
        }
        form = [(b"content-type", b"application/x-www-form-urlencoded")]
        status, answer = await asked(joined.rest_door, "POST", "/oauth2/token", "", form, urlencode(grant).encode())
        assert status == 200
        token = json.loads(answer)["access_token"]
        root = Caller(
            place=PLACE, principal_arn=PLACE.iam("root"), user_id="", access_key_id="", now=WallClock().now(), is_root=True
        )
        await joined.operator_door.services["iot"].bound["CreateThing"].handler(root, {"thingName": "walker"})
        devices = Walking()
        device_door = DeviceDoor(devices, ids=RandomIds())
        device_door.add(*{id(handler.__self__): handler.__self__ for _, handler in joined.device_door.bound}.values())  # type: ignore[attr-defined]
        for route, _ in joined.rest_door.bound:
            walk.routes += 1
            for _ in range(requests_per_route):
                await walk.send(joined.rest_door, route.method, walker, route.template, token)
        for device_route, _ in device_door.bound:
            walk.routes += 1
            devices.is_shared = device_route.for_shared_credential
            for _ in range(requests_per_route):
                await walk.send(device_door, device_route.method, walker, device_route.template, token)
    finally:
        await server.stop(drain_timeout_s=2)
    return walk


@pytest.mark.timeout(300)
@pytest.mark.parametrize("requests_per_route", [20, pytest.param(40, marks=pytest.mark.long)])
def test_no_input_to_plain_rest_gives_a_5xx(tmp_path: Path, requests_per_route: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        walk = runner.run(walk_all(tmp_path / "data", requests_per_route))
    print(walk.routes, dict(walk.statuses))
    assert not walk.failures, f"{len(walk.failures)} of {walk.statuses.total()}:\n" + "\n".join(walk.failures[:20])
    assert walk.routes >= 8
    assert walk.statuses[401] == walk.statuses[403] == 0, "the walk never got past the door"
