"""The devices' door over TLS with real certificates and an authenticator of the test's own."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import NotFound, Unavailable
from overair.basics.ids import AccountId, CertificateId, SeededIds, ThingName
from overair.server.gateway.denials import HTTPS
from overair.server.listeners.demultiplexer import speak_http
from overair.server.listeners.http import HttpService
from overair.server.rest.device_door import DeviceDoor
from overair.server.rest.operations import DeviceCaller, DeviceRefusal, RestAnswer, RestRequest, device_route
from tests.support.denials import Denials
from tests.support.listening import (
    EventLoopThread,
    Identity,
    client_context,
    context_of,
    loop_thread,
    new_identity,
    tls_listener,
)

PLACE = Place("us-east-1", AccountId("123456789012"))
SERVER = new_identity("server")
CAR, TRUCK, CREDENTIAL, REVOKED, FOREIGN = (new_identity(name) for name in ("car", "truck", "credential", "revoked", "foreign"))
SECRET = "the-inside-of-the-server"  # what no answer may hold
MANIFEST_SIZE_BYTES_MAX = 1000


@dataclass
class Policy:
    allowed: set[tuple[str, str]]

    def allows(self, action: str, resource: str) -> bool:
        return (action, resource) in self.allowed


@dataclass
class Fleet:
    """Who is known, by leaf; ``asked`` for every request."""

    policies: dict[str, Policy]
    asked: list[tuple[tuple[bytes, ...], str, str]] = field(default_factory=list)
    failure: Exception | None = None

    async def admit(
        self, chain_der: tuple[bytes, ...], source_ip: str, request_id: str, domain_name: str = ""
    ) -> DeviceCaller | DeviceRefusal:
        self.asked.append((chain_der, source_ip, request_id))
        if self.failure is not None:
            raise self.failure
        leaf = chain_der[0]
        if leaf == REVOKED.certificate_der:
            return DeviceRefusal(
                code="certificate_revoked", message="This certificate was revoked.", hint="Enrol the device anew."
            )
        if leaf == FOREIGN.certificate_der:
            return DeviceRefusal(code="foreign_certificate_authority", message="Nobody here trusts its issuer.", status=401)
        names = {CAR.certificate_der: "car", TRUCK.certificate_der: "truck", CREDENTIAL.certificate_der: ""}
        name = names[leaf]
        return DeviceCaller(
            place=PLACE,
            thing=ThingName(name),
            certificate_id=CertificateId("c" * 64),
            source_ip=source_ip,
            now=Instant(0),
            request_id=request_id,
            credential_id=None if name else "cred-1",
            **({"policy": self.policies[name]} if name else {}),  # type: ignore[arg-type]
        )


class Director:
    """A room of the test's own."""

    def __init__(self) -> None:
        self.called: list[tuple[str, str, bytes]] = []

    @device_route(
        "PUT", "/director/manifest", action="overair:DirectorPutManifest", body_size_bytes_max=MANIFEST_SIZE_BYTES_MAX
    )
    async def put_manifest(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        self.called.append((device.thing, request.headers["user-agent"], request.body))
        return RestAnswer(json={})

    @device_route("GET", "/director/{version}.root.json", action="overair:DirectorGetMetadata")
    async def get_root(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        if request.labels["version"] != "1":
            raise NotFound("There is no such root.", subject="root-role")
        return RestAnswer(body=b'{"signed":{}}', content_type="application/json")

    @device_route("GET", "/director/failing.json", action="overair:DirectorGetMetadata")
    async def fail(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        raise RuntimeError(SECRET)

    @device_route("POST", "/devices", for_shared_credential=True)
    async def provision(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        assert device.credential_id is not None
        return RestAnswer(body=b"p12", content_type="application/x-pkcs12", headers={"x-credential": device.credential_id})


@dataclass
class World:
    fleet: Fleet
    director: Director
    folder: Path
    port: int = 0
    observed: list[tuple[str, str, int]] = field(default_factory=list)
    denials: Denials = field(default_factory=Denials)

    def connect(self, identity: Identity | None) -> http.client.HTTPSConnection:
        files = None
        if identity is not None:
            folder = self.folder / str(abs(hash(identity.certificate_der)))
            folder.mkdir(exist_ok=True)
            files = identity.write(folder)
        context: ssl.SSLContext = client_context(files=files)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)

    def ask(
        self, identity: Identity | None, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        connection = self.connect(identity)
        try:
            return answered(connection, method, path, body, **headers)
        finally:
            connection.close()


def answered(
    connection: http.client.HTTPSConnection, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    connection.request(method, path, body=body, headers={"User-Agent": "Aktualizr/2025.10", **headers})
    answer = connection.getresponse()
    data = answer.read()
    told = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, json.loads(data) if data[:1] == b"{" else data, told


@pytest.fixture(scope="module")
def thread() -> Iterator[EventLoopThread]:
    with loop_thread() as running:
        yield running


@pytest.fixture(scope="module")
def running(thread: EventLoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(Fleet({}), Director(), tmp_path_factory.mktemp("devices"))

    def observe(service: str, operation: str, status: int, _seconds: float) -> None:
        world.observed.append((service, operation, status))

    door = DeviceDoor(world.fleet, ids=SeededIds(1), observe=observe, denials=world.denials)
    door.add(world.director)
    service = HttpService(door)
    thread.call(service.start)
    with tls_listener(thread, context_of(SERVER), speak_http(service)) as listener:
        world.port = listener.port
        yield world
    thread.run(service.drain(1.0))


@pytest.fixture
def world(running: World) -> World:
    """Car and truck may do everything; a test takes away what it is about."""
    everything = ("overair:DirectorPutManifest", "overair:DirectorGetMetadata")
    running.fleet.policies = {
        name: Policy({(action, PLACE.iot("thing", name)) for action in everything}) for name in ("car", "truck")
    }
    running.fleet.asked.clear()
    running.fleet.failure = None
    running.director.called.clear()
    running.observed.clear()
    running.denials.heard.clear()
    return running


def test_a_device_calls_its_paths_with_nothing_but_its_certificate(world: World) -> None:
    status, told, headers = world.ask(CAR, "PUT", "/director/manifest", b'{"signed":{}}')
    assert (status, told, headers["content-type"]) == (200, {}, "application/json")
    assert world.director.called == [("car", "Aktualizr/2025.10", b'{"signed":{}}')]
    ((chain, source_ip, request_id),) = world.fleet.asked
    assert (chain, source_ip, request_id) == ((CAR.certificate_der,), "127.0.0.1", headers["x-request-id"])
    status, _, headers = world.ask(CAR, "GET", "/director/1.root.json")
    assert (status, headers["content-length"]) == (200, "13")


def test_what_is_denied_is_told_to_the_auditor(world: World) -> None:
    world.fleet.policies["car"] = Policy(set())
    car = PLACE.iot("cert", "c" * 64)
    assert world.ask(CAR, "PUT", "/director/manifest", b"{}")[0] == 403
    assert world.ask(CAR, "POST", "/devices", b"{}")[0] == 403
    assert world.ask(CREDENTIAL, "GET", "/director/1.root.json")[0] == 403
    assert world.ask(FOREIGN, "GET", "/director/1.root.json")[0] == 401
    assert world.ask(None, "GET", "/director/1.root.json")[0] == 401
    assert world.denials.heard == [
        (PLACE.account, car, HTTPS, "DirectorPutManifest", PLACE.iot("thing", "car"), "127.0.0.1"),
        (PLACE.account, car, HTTPS, "/devices", "/devices", "127.0.0.1"),
        (PLACE.account, car, HTTPS, "-", "/director/1.root.json", "127.0.0.1"),
        (None, None, HTTPS, "-", "/director/1.root.json", "127.0.0.1"),
        (None, None, HTTPS, "-", "/director/1.root.json", "127.0.0.1"),
    ]
    world.denials.heard.clear()
    assert world.ask(TRUCK, "GET", "/director/9.root.json")[0] == 404
    assert world.denials.heard == []


def test_an_idle_poll_over_one_connection_asks_who_it_is_for_every_request(world: World) -> None:
    connection = world.connect(CAR)
    try:
        for _ in range(3):
            assert answered(connection, "PUT", "/director/manifest", b"{}")[0] == 200
            assert answered(connection, "GET", "/director/2.root.json")[:1] == (404,)
        connection.sock.getpeername()  # still the same one
    finally:
        connection.close()
    assert len(world.fleet.asked) == 6
    assert world.observed == [("device", "DirectorPutManifest", 200), ("device", "DirectorGetMetadata", 404)] * 3


@pytest.mark.parametrize(
    ("who", "method", "path", "status", "code"),
    [
        ("nobody", "PUT", "/director/manifest", 401, "certificate_required"),
        ("nobody", "GET", "/director/no/such/path", 401, "certificate_required"),
        ("revoked", "PUT", "/director/manifest", 403, "certificate_revoked"),
        ("revoked", "POST", "/devices", 403, "certificate_revoked"),
        ("foreign", "PUT", "/director/manifest", 401, "foreign_certificate_authority"),
        ("credential", "PUT", "/director/manifest", 403, "credential_not_allowed_here"),
        ("credential", "GET", "/director/1.root.json", 403, "credential_not_allowed_here"),
        ("credential", "GET", "/director/no/such/path", 403, "credential_not_allowed_here"),
        ("credential", "GET", "/devices", 403, "credential_not_allowed_here"),
        ("car", "POST", "/devices", 403, "device_certificate_not_allowed_here"),
        ("car", "GET", "/director/2.root.json", 404, "root_role_not_found"),
        ("car", "GET", "/director/no/such/path", 404, "unknown_path"),
        ("car", "POST", "/director/manifest", 405, "method_not_allowed"),
    ],
)
def test_every_refusal_has_its_code_and_is_json(world: World, who: str, method: str, path: str, status: int, code: str) -> None:
    identity = {"nobody": None, "revoked": REVOKED, "foreign": FOREIGN, "credential": CREDENTIAL, "car": CAR}[who]
    answer_status, told, headers = world.ask(identity, method, path, b"{}" if method != "GET" else None)
    assert (answer_status, told["code"], headers["content-type"]) == (status, code, "application/json")
    assert {"code", "description", "cause", "errorId"} <= set(told)
    assert told["errorId"] == headers["x-request-id"]
    assert len(told["description"]) > 20
    assert world.director.called == []


def test_a_refusal_may_say_what_to_do_and_another_method_which_there_are(world: World) -> None:
    assert world.ask(REVOKED, "GET", "/director/1.root.json")[1]["hint"] == "Enrol the device anew."
    assert world.ask(CAR, "POST", "/director/manifest", b"{}")[2]["allow"] == "PUT"
    assert world.ask(CAR, "PATCH", "/director/1.root.json", b"{}")[2]["allow"] == "GET, HEAD"


def test_a_shared_credential_gets_a_device_its_certificate(world: World) -> None:
    status, data, headers = world.ask(CREDENTIAL, "POST", "/devices", b'{"deviceId":"x"}')
    assert (status, data, headers["content-type"]) == (200, b"p12", "application/x-pkcs12")
    assert headers["x-credential"] == "cred-1"


def test_a_policy_is_asked_for_the_routes_action_on_the_devices_own_thing(world: World) -> None:
    world.fleet.policies["car"].allowed.discard(("overair:DirectorPutManifest", PLACE.iot("thing", "car")))
    world.fleet.policies["car"].allowed.add(("overair:DirectorPutManifest", PLACE.iot("thing", "truck")))
    status, told, _ = world.ask(CAR, "PUT", "/director/manifest", b"{}")
    assert (status, told["code"]) == (403, "access_denied")
    assert told["cause"] == {"action": "overair:DirectorPutManifest", "resource": PLACE.iot("thing", "car")}
    assert world.director.called == []
    assert world.ask(CAR, "GET", "/director/1.root.json")[0] == 200
    assert world.ask(TRUCK, "PUT", "/director/manifest", b"{}")[0] == 200


def test_what_is_taken_from_a_device_is_missing_on_the_connection_that_it_keeps(world: World) -> None:
    connection = world.connect(CAR)
    try:
        assert answered(connection, "PUT", "/director/manifest", b"{}")[0] == 200
        world.fleet.policies["car"].allowed.clear()
        assert answered(connection, "PUT", "/director/manifest", b"{}")[0] == 403
    finally:
        connection.close()


def test_a_body_is_bounded_before_it_is_read(world: World) -> None:
    assert world.ask(CAR, "PUT", "/director/manifest", b"x" * MANIFEST_SIZE_BYTES_MAX)[0] == 200
    status, told, _ = world.ask(CAR, "PUT", "/director/manifest", b"x" * (MANIFEST_SIZE_BYTES_MAX + 1))
    assert (status, told["code"]) == (413, "entity_too_large")
    assert [len(body) for _, _, body in world.director.called] == [MANIFEST_SIZE_BYTES_MAX]


def test_an_unforeseen_failure_tells_the_device_nothing(world: World) -> None:
    status, told, _ = world.ask(CAR, "GET", "/director/failing.json")
    assert (status, told["code"]) == (500, "internal_server_error")
    assert SECRET not in json.dumps(told)
    world.fleet.failure = Unavailable("The records can't be read now.", subject="records")
    assert world.ask(CAR, "GET", "/director/1.root.json")[1]["code"] == "temporarily_unavailable"
    world.fleet.failure = RuntimeError(SECRET)
    assert SECRET not in json.dumps(world.ask(CAR, "GET", "/director/1.root.json")[1])


def test_who_it_is_cannot_be_said_in_a_header(world: World) -> None:
    """Headers of the gateway that OTA Connect had are a stranger's words here (Uptane reference §1.2)."""
    spoofed = {"x-ats-device-uuid": "truck", "x-ats-namespace": "other", "x-forwarded-for": "10.0.0.1"}
    assert world.ask(CAR, "PUT", "/director/manifest", b"{}", **spoofed)[0] == 200
    assert world.director.called[0][0] == "car"
    assert world.fleet.asked[0][1] == "127.0.0.1"


@pytest.mark.parametrize("marks", [{}, {"action": "overair:X", "for_shared_credential": True}])
def test_a_route_without_an_action_or_with_one_that_nobody_could_have_is_refused_at_start_up(marks: dict[str, Any]) -> None:
    class Wrong:
        @device_route("GET", "/x", **marks)
        async def get(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
            return RestAnswer()

    with pytest.raises(RuntimeError, match="names an action"):
        DeviceDoor(Fleet({}), ids=SeededIds(1)).add(Wrong())
