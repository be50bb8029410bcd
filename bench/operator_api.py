"""The operator API beside peers: six calls, with a raw signed client and with boto3."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Measured, Subject, interleaved
from bench.processes import DoNothing, NotRun, Overair, Peer, Target
from bench.profiles import Profile
from bench.raw_client import IN_FLIGHT, Call, RawClient

BUCKET = "bench-bucket"
OBJECT_SIZE_BYTES = 1024 * 1024
RANGE_SIZE_BYTES = 4096
OBJECTS_COUNT = 16
TARGETS_COUNT = 32
PEER_RETRIES_MAX = 1000
_JSON = (("content-type", "application/json"),)
_CONTENT = os.urandom(OBJECT_SIZE_BYTES - 16)


def _content(number: int) -> bytes:
    # No two alike: a server that keeps equal content once must store each of these.
    return b"%016d" % number + _CONTENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call, as a raw request and through boto3."""

    name: str
    call: Callable[[Target, int], Call]
    service: str
    boto3: Callable[[Target, Any, int], object]
    count_max: int = 3000


def _thing_arn(target: Target, number: int) -> str:
    return f"arn:aws:iot:{target.region}:{_ACCOUNTS[target.url]}:thing/bench-target-{number % TARGETS_COUNT}"


_ACCOUNTS: dict[str, str] = {}


def _create_job(target: Target, number: int) -> Call:
    body = {"targets": [_thing_arn(target, number)], "document": '{"do":"it"}', "targetSelection": "SNAPSHOT"}
    return Call(service="iot", method="PUT", path=f"/jobs/raw-{number}", headers=_JSON, body=json.dumps(body).encode())


OPERATIONS: Sequence[Operation] = (
    Operation(
        name="describe_thing",
        service="iot",
        call=lambda _, number: Call(service="iot", method="GET", path=f"/things/bench-target-{number % TARGETS_COUNT}"),
        boto3=lambda _, client, number: client.describe_thing(thingName=f"bench-target-{number % TARGETS_COUNT}"),
    ),
    Operation(
        name="create_thing",
        service="iot",
        call=lambda _, number: Call(service="iot", method="POST", path=f"/things/raw-{number}", headers=_JSON, body=b"{}"),
        boto3=lambda _, client, number: client.create_thing(thingName=f"boto3-{number}"),
    ),
    Operation(
        name="create_job",
        service="iot",
        call=_create_job,
        boto3=lambda target, client, number: client.create_job(
            jobId=f"boto3-{number}",
            targets=[_thing_arn(target, number)],
            document='{"do":"it"}',
            targetSelection="SNAPSHOT",
        ),
        count_max=1000,
    ),
    Operation(
        name="put_object 1 MB",
        service="s3",
        call=lambda _, number: Call(
            service="s3", method="PUT", path=f"/{BUCKET}/put-{number % OBJECTS_COUNT}", body=_content(number)
        ),
        boto3=lambda _, client, number: client.put_object(
            Bucket=BUCKET, Key=f"put-{number % OBJECTS_COUNT}", Body=_content(number)
        ),
        count_max=300,
    ),
    Operation(
        name="get_object 1 MB",
        service="s3",
        call=lambda _, number: Call(service="s3", method="GET", path=f"/{BUCKET}/get-{number % OBJECTS_COUNT}"),
        boto3=lambda _, client, number: client.get_object(Bucket=BUCKET, Key=f"get-{number % OBJECTS_COUNT}")["Body"].read(),
        count_max=1000,
    ),
    Operation(
        name="get_object range 4 KiB",
        service="s3",
        call=lambda _, number: Call(
            service="s3",
            method="GET",
            path=f"/{BUCKET}/get-{number % OBJECTS_COUNT}",
            headers=(("range", f"bytes={number % 200 * RANGE_SIZE_BYTES}-{(number % 200 + 1) * RANGE_SIZE_BYTES - 1}"),),
            expect=206,
        ),
        boto3=lambda _, client, number: client.get_object(
            Bucket=BUCKET,
            Key=f"get-{number % OBJECTS_COUNT}",
            Range=f"bytes={number % 200 * RANGE_SIZE_BYTES}-{(number % 200 + 1) * RANGE_SIZE_BYTES - 1}",
        )["Body"].read(),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorResults:
    """What was measured, by operation, and what wasn't, with the reason."""

    raw: dict[str, list[Measured]]
    boto3: dict[str, list[Measured]]
    not_run: list[str]
    retries: dict[str, int]
    """Answers with a 5xx that the raw client asked again, by subject."""


async def measure_operator_api(profile: Profile, work: Path) -> OperatorResults:
    """Start every server, measure, end every server."""
    with ExitStack() as stack:
        overair = Overair(work / "operator")
        stack.callback(overair.stop)
        overair.start()
        nothing = DoNothing(work)
        stack.callback(nothing.stop)
        nothing.start()
        targets = [overair.target(tls=True), overair.target(tls=False)]
        not_run: list[str] = []
        retries: dict[str, int] = {}
        for name in profile.peers:
            try:
                peer = Peer(name, work)
            except NotRun as reason:
                not_run.append(str(reason))
                continue
            stack.callback(peer.stop)
            targets.append(peer.start())
        for target in targets:
            _furnish(target)
        return OperatorResults(
            raw=await _with_raw_clients(profile, targets, [nothing.target(tls=True), nothing.target(tls=False)], retries),
            retries=retries,
            boto3=await _with_boto3(profile, targets),
            not_run=not_run,
        )


def _furnish(target: Target) -> None:
    """What the calls need: things to target, a bucket with objects."""
    if target.url in _ACCOUNTS:
        return
    iot, s3 = target.client("iot"), target.client("s3")
    name = "bench-target-0"
    try:
        # The second address of our own server finds everything made.
        _ACCOUNTS[target.url] = str(iot.describe_thing(thingName=name)["thingArn"].split(":")[4])
        return
    except iot.exceptions.ResourceNotFoundException:
        pass
    for number in range(TARGETS_COUNT):
        arn = iot.create_thing(thingName=f"bench-target-{number}")["thingArn"]
    _ACCOUNTS[target.url] = arn.split(":")[4]
    s3.create_bucket(Bucket=BUCKET)
    for number in range(OBJECTS_COUNT):
        s3.put_object(Bucket=BUCKET, Key=f"get-{number}", Body=_content(number))


async def _with_raw_clients(
    profile: Profile, targets: Sequence[Target], nothing: Sequence[Target], retries: dict[str, int]
) -> dict[str, list[Measured]]:
    clients: list[tuple[Target, RawClient]] = []
    for target in (*targets, *nothing):
        client = RawClient(
            target.url,
            region=target.region,
            key_id=target.key_id,
            secret=target.secret,
            ca_file=target.ca_file,
            # Peers that fail now and then under concurrent calls are asked again; we may not fail.
            retries_max=PEER_RETRIES_MAX if target.is_peer else 0,
        )
        # Names that were made under one address are taken under the other.
        client.numbers_from(len(clients) * 1_000_000)
        await client.open()
        clients.append((target, client))
    results = {
        operation.name: await interleaved(
            [_raw_subject(operation, target, client) for target, client in clients if target in targets],
            rounds=profile.rounds,
            seconds=profile.seconds,
        )
        for operation in OPERATIONS
    }
    results["do nothing"] = await interleaved(
        [_raw_subject(OPERATIONS[0], target, client) for target, client in clients if target in nothing],
        rounds=profile.rounds,
        seconds=profile.seconds,
    )
    for target, client in clients:
        client.close()
        if client.retries:
            retries[target.name] = client.retries
    return results


def _raw_subject(operation: Operation, target: Target, client: RawClient) -> Subject:
    async def prepare(count: int) -> None:
        await client.prepare(count, lambda number: operation.call(target, number))

    return Subject(
        name=target.name, pid=target.pid, prepare=prepare, run=client.run, first_count=IN_FLIGHT, count_max=operation.count_max
    )


async def _with_boto3(profile: Profile, targets: Sequence[Target]) -> dict[str, list[Measured]]:
    subjects: dict[str, list[Subject]] = {operation.name: [] for operation in OPERATIONS}
    for place, target in enumerate(targets):
        clients = {service: target.client(service) for service in ("iot", "s3")}
        for operation in OPERATIONS:
            subjects[operation.name].append(_boto3_subject(operation, target, clients[operation.service], place * 1_000_000))
    return {
        name: await interleaved(each, rounds=profile.rounds, seconds=profile.boto3_seconds) for name, each in subjects.items()
    }


def _boto3_subject(operation: Operation, target: Target, client: Any, first_number: int) -> Subject:
    state = {"count": 0, "next": first_number}

    async def prepare(count: int) -> None:
        state["count"] = count

    def calls() -> int:
        for _ in range(state["count"]):
            operation.boto3(target, client, state["next"])
            state["next"] += 1
        return state["count"]

    def run() -> Awaitable[int]:
        return asyncio.to_thread(calls)

    return Subject(name=target.name, pid=target.pid, prepare=prepare, run=run, first_count=4, count_max=500)
