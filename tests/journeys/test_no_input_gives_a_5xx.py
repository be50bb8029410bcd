"""A walk over the models: requests right and wrong for every operation, none of which the server fails on."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.support.model_walk import ModelWalk, signed
from tests.support.server_process import ServerProcess

KEEPS_THE_WALKER_IN = {"DeleteAccessKey", "UpdateAccessKey", "DeleteUser", "DeleteBucket", "PutBucketPolicy"}
"""Right requests for these would lock the walk itself out, or take its bucket away: they get wrong ones only."""


@pytest.fixture
def walked_server(tmp_path: Path) -> Any:
    with ServerProcess(tmp_path / "data", "--plain-http", "0") as process:
        yield process


def furnish(server: ServerProcess) -> dict[str, str]:
    """Some of everything, so that the walk gets past the first look-up."""
    iot, s3, iam = server.client("iot"), server.client("s3"), server.client("iam")
    bucket = server.endpoints["bucket"]
    iot.create_thing(thingName="walker")
    iot.create_thing_type(thingTypeName="type-1")
    iot.create_thing_group(thingGroupName="group-1")
    certificate = iot.create_keys_and_certificate(setAsActive=True)
    document = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
    iot.create_policy(policyName="policy-1", policyDocument=document)
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    iam.create_user(UserName="walker")
    role = server.endpoints["ota_role_arn"]
    iot.create_stream(streamId="stream-1", roleArn=role, files=[{"fileId": 0, "s3Location": {"bucket": bucket, "key": "k"}}])
    thing = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}:thing/walker"
    iot.create_job(jobId="job-1", targets=[thing], document="{}")
    return {
        "thingname": "walker",
        "thingtypename": "type-1",
        "thinggroupname": "group-1",
        "policyname": "policy-1",
        "policydocument": document,
        "certificateid": certificate["certificateId"],
        "principal": certificate["certificateArn"],
        "target": certificate["certificateArn"],
        "streamid": "stream-1",
        "jobid": "job-1",
        "rolearn": role,
        "rolename": role.rpartition("/")[2],
        "username": "walker",
        "bucket": bucket,
        "key": "k",
        "profilename": server.endpoints["signing_profile"],
        "resourcearn": thing,
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [5, pytest.param(12, marks=pytest.mark.long)])
def test_no_input_gives_a_5xx(walked_server: ServerProcess, rounds: int) -> None:
    chance = random.Random(20261101)
    walk = ModelWalk(furnish(walked_server), chance)
    url, key, region = (
        walked_server.endpoints["plain_http_url"],
        walked_server.root_key(),
        walked_server.endpoints["region"],
    )
    pool = urllib3.PoolManager(retries=False, maxsize=2)
    statuses: Counter[int] = Counter()
    failures: list[str] = []
    served: list[tuple[str, str]] = []

    def send(service: str, operation: str) -> bytes:
        wire = walk.request(service, operation)
        if operation in KEEPS_THE_WALKER_IN:
            wire.body, wire.query = b"", [("versionId", "x")]
            wire.path = "/nowhere-at-all/k" if service == "s3" else wire.path
        whole, headers = signed(wire, url, key, service=walk.models[service].signing_name, region=region)
        try:
            answer = pool.request(wire.method, whole, body=wire.body, headers=headers, redirect=False, timeout=20)
        except UnicodeEncodeError:
            return b""  # not even our HTTP client would send it
        statuses[answer.status] += 1
        if answer.status >= 500:
            failures.append(f"{answer.status} {service} {operation}: {wire} -> {answer.data[:300]!r}")
        return answer.data

    for service, operation in walk.operations():
        if b"NotImplemented" not in send(service, operation):
            served.append((service, operation))
    for service, operation in served * rounds:
        send(service, operation)

    total = sum(statuses.values())
    print(total, dict(statuses))
    assert not failures, f"{len(failures)} of {total}:\n" + "\n".join(failures[:20]) + "\n" + walked_server.log()
    assert total >= 2_000
    assert statuses[200] > total / 20, "the walk never got past the door"
    assert walked_server.client("sts").get_caller_identity()["Account"] == walked_server.endpoints["account"]
