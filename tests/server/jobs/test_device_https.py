"""Jobs over HTTPS under a device's certificate: the door by itself, with an authority that says what a test needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.errors import Unavailable
from overair.basics.ids import CertificateId, ClientId, RandomIds
from overair.server.gateway.authority import DeviceIdentity, Refusal, RefusalCode
from overair.server.jobs.device_https import ACTIONS, DeviceJobsDoor
from overair.server.jobs.jobs_data_api import JobsDataOperations
from overair.server.policy_language.iot import BoundPolicySet, PolicySet
from tests.support.denials import Denials
from tests.support.jobs_room import JobsRoom

T = 1767225600
CERTIFICATE = CertificateId("ab" * 32)


@dataclass
class Policy:
    """A real policy set; its topics are nobody's business here."""

    bound: BoundPolicySet

    def allows(self, action: str, resource: str) -> bool:
        return self.bound.allows(action, resource)

    def allows_connect(self, client_id: str) -> bool:
        raise AssertionError("HTTPS never connects")

    allows_publish = allows_retain = allows_subscribe = allows_receive = allows_connect


@dataclass
class Verdicts:
    """A ``DeviceAuthority`` that knows one certificate."""

    place: Place
    actions: Sequence[str] = tuple(ACTIONS.values())
    resources: Sequence[str] = ("thing/dev-1",)
    refusal: Refusal | None = None
    asked: list[tuple[bytes, object, Sequence[bytes]]] = field(default_factory=list)

    async def admit(
        self,
        peer_der: bytes,
        client_id: ClientId | None,
        username: str | None,
        source_ip: str,
        chain_der: Sequence[bytes] = (),
        domain_name: str = "",
    ) -> DeviceIdentity | Refusal:
        self.asked.append((peer_der, client_id, chain_der))
        if self.refusal is not None:
            return self.refusal
        arns = [f"arn:aws:iot:{self.place.region}:{self.place.account}:{name}" for name in self.resources]
        statement = {"Effect": "Allow", "Action": list(self.actions), "Resource": arns}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        policy: Any = Policy(PolicySet.parse([document]).bind({}))
        return DeviceIdentity(place=self.place, certificate_id=CERTIFICATE, policy=policy)


class Door:
    def __init__(self, room: JobsRoom) -> None:
        self.room = room
        self.authority = Verdicts(room.place)
        operations = JobsDataOperations(work=room.work, jobs=room.jobs.device, clock=room.clock)
        self.denials = Denials()
        self.app = DeviceJobsDoor(
            authority=self.authority, operations=operations, clock=room.clock, ids=RandomIds(), denials=self.denials
        )

    async def ask(
        self, method: str, path: str, body: dict[str, Any] | bytes = b"", *, query: bytes = b"", peer: bytes | None = b"leaf"
    ) -> tuple[int, dict[str, str], Any]:
        raw = json.dumps(body).encode() if isinstance(body, dict) else body
        scope = {
            "type": "http",
            "method": method,
            "path": path.replace("%24", "$"),
            "raw_path": path.encode(),
            "query_string": query,
            "headers": [(b"content-length", b"%d" % len(raw))] if raw else [],
            "client": ("127.0.0.1", 1),
            "state": {"peer_der": peer, "peer_chain_der": (peer, b"issuer") if peer else ()},
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        await self.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        whole = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], headers, json.loads(whole) if whole else None

    async def told(self, method: str, path: str, body: dict[str, Any] | bytes = b"", *, query: bytes = b"") -> Any:
        status, headers, answer = await self.ask(method, path, body, query=query)
        assert (status, headers["content-type"]) == (200, "application/json")
        return answer

    async def refused(self, method: str, path: str, body: dict[str, Any] | bytes = b"", **more: Any) -> tuple[int, str]:
        status, headers, answer = await self.ask(method, path, body, **more)
        assert answer["message"]
        return status, headers["x-amzn-errortype"]


@pytest.fixture
def door(room: JobsRoom) -> Door:
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"), document='{"do":"it"}')
    room.heard()
    return Door(room)


async def test_an_expected_version_may_be_a_number_or_its_digits(door: Door) -> None:
    for position, version in enumerate((1, "2", 3, "4"), start=2):
        body = {"status": "IN_PROGRESS", "expectedVersion": version, "includeJobExecutionState": True}
        assert (await door.told("POST", "/things/dev-1/jobs/A", body))["executionState"]["versionNumber"] == position
    for wrong in ("", "x", "5.0", " 5", "5" * 30, 5.5, True, [5]):
        body = {"status": "IN_PROGRESS", "expectedVersion": wrong}
        assert await door.refused("POST", "/things/dev-1/jobs/A", body) == (400, "InvalidRequestException"), wrong
    assert await door.refused("POST", "/things/dev-1/jobs/A", {"status": "FAILED", "expectedVersion": "4"}) == (
        400,
        "InvalidRequestException",
    )
    assert door.room.execution("dev-1", "A").version == 5


async def test_a_device_does_a_job_over_https_from_the_list_to_its_end(door: Door) -> None:
    queued = {"jobId": "A", "queuedAt": T, "lastUpdatedAt": T, "executionNumber": 1, "versionNumber": 1}
    assert await door.told("GET", "/things/dev-1/jobs") == {"inProgressJobs": [], "queuedJobs": [queued]}
    execution = (await door.told("GET", "/things/dev-1/jobs/$next"))["execution"]
    assert execution == {**queued, "thingName": "dev-1", "status": "QUEUED", "jobDocument": '{"do":"it"}'}
    assert (await door.told("GET", "/things/dev-1/jobs/%24next"))["execution"] == execution
    named = await door.told("GET", "/things/dev-1/jobs/A", query=b"includeJobDocument=false&executionNumber=1")
    assert named["execution"] == {key: value for key, value in execution.items() if key != "jobDocument"}

    started = await door.told("PUT", "/things/dev-1/jobs/$next", {"statusDetails": {"a": "b"}, "stepTimeoutInMinutes": 5})
    assert started["execution"] == {
        **execution,
        "status": "IN_PROGRESS",
        "statusDetails": {"a": "b"},
        "startedAt": T,
        "versionNumber": 2,
        "approximateSecondsBeforeTimedOut": 300,
    }
    asked = {
        "status": "IN_PROGRESS",
        "statusDetails": {"c": "d"},
        "expectedVersion": 2,
        "executionNumber": 1,
        "stepTimeoutInMinutes": -1,
        "includeJobExecutionState": True,
        "includeJobDocument": True,
    }
    assert await door.told("POST", "/things/dev-1/jobs/A", asked) == {
        "executionState": {"status": "IN_PROGRESS", "statusDetails": {"c": "d"}, "versionNumber": 3},
        "jobDocument": '{"do":"it"}',
    }
    assert await door.told("POST", "/things/dev-1/jobs/A", {"status": "SUCCEEDED"}) == {}
    assert await door.told("GET", "/things/dev-1/jobs") == {"inProgressJobs": [], "queuedJobs": []}
    assert await door.told("GET", "/things/dev-1/jobs/$next") == {}
    assert await door.told("PUT", "/things/dev-1/jobs/$next") == {}
    assert (await door.refused("GET", "/things/dev-1/jobs/A")) == (410, "TerminalStateException")
    assert door.room.kinds() == [("dev-1", "notify"), ("dev-1", "notify-next")]


CALLS = {
    "GetPendingJobExecutions": ("GET", "/things/dev-1/jobs", {}),
    "DescribeJobExecution": ("GET", "/things/dev-1/jobs/$next", {}),
    "StartNextPendingJobExecution": ("PUT", "/things/dev-1/jobs/$next", {}),
    "UpdateJobExecution": ("POST", "/things/dev-1/jobs/A", {"status": "FAILED"}),
}


@pytest.mark.parametrize("operation", sorted(CALLS))
async def test_each_operation_has_an_action_of_its_own_on_the_thing(door: Door, operation: str) -> None:
    method, path, body = CALLS[operation]
    door.authority.actions = [action for name, action in ACTIONS.items() if name != operation] + ["iot:Publish"]
    assert await door.refused(method, path, body) == (403, "AccessDeniedException")
    assert door.room.execution("dev-1", "A").version == 1
    assert door.room.heard() == []
    assert door.denials.told() == [(operation, "thing/dev-1")]
    door.authority.actions = [ACTIONS[operation]]
    await door.told(method, path, body)
    assert door.authority.asked[-1] == (b"leaf", None, (b"issuer",))


async def test_a_policy_for_one_thing_opens_no_other(door: Door) -> None:
    door.room.add_things("dev-2")
    assert await door.refused("GET", "/things/dev-2/jobs") == (403, "AccessDeniedException")
    door.authority.resources = ["thing/*"]
    assert await door.told("GET", "/things/dev-2/jobs") == {"inProgressJobs": [], "queuedJobs": []}
    assert await door.refused("GET", "/things/nobody/jobs") == (404, "ResourceNotFoundException")


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (RefusalCode.CERTIFICATE_UNKNOWN, (400, "CertificateValidationException")),
        (RefusalCode.INACTIVE, (400, "CertificateValidationException")),
        (RefusalCode.BLOCKED, (400, "CertificateValidationException")),
        (RefusalCode.UNAVAILABLE, (503, "ServiceUnavailableException")),
    ],
)
async def test_a_certificate_that_may_not_speak_learns_nothing_else(
    door: Door, code: RefusalCode, answer: tuple[int, str]
) -> None:
    door.authority.refusal = Refusal(reason="for the log alone", code=code)
    for path in ("/things/dev-1/jobs", "/things/nobody/jobs", "/things/dev-1/shadow"):
        status, headers, body = await door.ask("GET", path)
        assert (status, headers["x-amzn-errortype"]) == answer
        assert "log alone" not in body["message"]


async def test_without_a_certificate_nothing_is_answered(door: Door) -> None:
    assert await door.refused("GET", "/things/dev-1/jobs", peer=None) == (403, "MissingAuthenticationTokenException")
    assert door.authority.asked == []


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        ("POST", "/things/dev-1/jobs/A", {}, (400, "InvalidRequestException")),
        ("POST", "/things/dev-1/jobs/A", b"{", (400, "InvalidRequestException")),
        ("POST", "/things/dev-1/jobs/A", b"[]", (400, "InvalidRequestException")),
        ("POST", "/things/dev-1/jobs/A", {"status": "DONE"}, (400, "InvalidRequestException")),
        ("POST", "/things/dev-1/jobs/A", {"status": "FAILED", "statusDetails": {"a b": "c"}}, (400, "InvalidRequestException")),
        ("POST", "/things/dev-1/jobs/A", {"status": "FAILED", "statusDetails": {"a": 1}}, (400, "InvalidRequestException")),
        ("POST", "/things/dev-1/jobs/A", {"status": "FAILED", "expectedVersion": 7}, (400, "InvalidRequestException")),
        (
            "POST",
            "/things/dev-1/jobs/A",
            {"status": "IN_PROGRESS", "stepTimeoutInMinutes": 0},
            (400, "InvalidRequestException"),
        ),
        ("POST", "/things/dev-1/jobs/A", {"status": "QUEUED"}, (409, "InvalidStateTransitionException")),
        ("POST", "/things/dev-1/jobs/A", {"status": "CANCELED"}, (409, "InvalidStateTransitionException")),
        ("POST", "/things/dev-1/jobs/A", {"status": "FAILED", "executionNumber": 2}, (404, "ResourceNotFoundException")),
        ("POST", "/things/dev-1/jobs/B", {"status": "FAILED"}, (404, "ResourceNotFoundException")),
        ("POST", "/things/dev-1/jobs/$next", {"status": "FAILED"}, (400, "InvalidRequestException")),
        ("POST", "/things/dev-1/jobs/a.b", {"status": "FAILED"}, (400, "InvalidRequestException")),
        ("PUT", "/things/dev-1/jobs/$next", {"stepTimeoutInMinutes": -1}, (400, "InvalidRequestException")),
        ("PUT", "/things/dev-1/jobs/A", {}, (404, "UnknownOperationException")),
        ("GET", "/things/dev-1/jobs/B", {}, (404, "ResourceNotFoundException")),
        ("GET", "/things/dev-1/shadow", {}, (404, "UnknownOperationException")),
        ("DELETE", "/things/dev-1/jobs/A", {}, (404, "UnknownOperationException")),
        ("GET", "/things/dev%201/jobs", {}, (403, "AccessDeniedException")),
    ],
)
async def test_what_is_refused_has_the_code_of_the_model_and_changes_nothing(
    door: Door, method: str, path: str, body: dict[str, Any] | bytes, answer: tuple[int, str]
) -> None:
    assert await door.refused(method, path, body) == answer
    assert door.room.execution("dev-1", "A").version == 1
    assert door.room.heard() == []


async def test_a_body_over_the_limit_is_refused_before_it_is_held(door: Door) -> None:
    large = b'{"status":"FAILED","statusDetails":{"a":"' + b"x" * (256 * 1024) + b'"}}'
    status, code = await door.refused("POST", "/things/dev-1/jobs/A", large)
    assert (status, code) == (413, "RequestEntityTooLargeException")


async def test_a_fault_of_the_server_tells_only_where_its_log_has_it(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(door.room.jobs.device, "pending", break_down)
    status, headers, answer = await door.ask("GET", "/things/dev-1/jobs")
    assert (status, headers["x-amzn-errortype"]) == (500, "InternalServerException")
    assert "secret" not in answer["message"]
    assert headers["x-amzn-requestid"] in answer["message"]

    def be_away(*_: object, **__: object) -> None:
        raise Unavailable("the records are away", subject="records")

    monkeypatch.setattr(door.room.jobs.device, "pending", be_away)
    assert await door.refused("GET", "/things/dev-1/jobs") == (503, "ServiceUnavailableException")
