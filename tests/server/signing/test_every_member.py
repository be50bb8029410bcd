"""No member of a Signer operation is ignored in silence: with it, something else comes of the request than without it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import OverairError
from overair.basics.ids import SeededIds
from overair.server.aws_protocol.operations import operations_of
from overair.server.signing.store import jobs, permissions, profiles
from overair.server.storage.work import open_sqlite, sql
from tests.support.code_signing import Credential, credential
from tests.support.signing_road import BUCKET, SigningRoad

Values = Mapping[str, Any]
PROFILE = "arn:aws:signer:us-east-1:123456789012:/signing-profiles/pp"
JOBS = "arn:aws:signer:us-east-1:123456789012:/signing-jobs/"
PAGES: Values = {"maxResults": 1, "nextToken": "not one of ours"}
OTHER_PLATFORM = "AmazonFreeRTOS-TI-CC3220SF"
SOURCE = {"bucketName": BUCKET, "key": "fw.bin", "version": "VERSION"}

# By operation: the scene, the request without the member, and values for each member (a list: several, each by itself).
# What stands in capitals is filled in from the scene.
CASES: Mapping[str, tuple[str, Values, Values]] = {
    "PutSigningProfile": (
        "certificate",
        {"profileName": "qq", "platformId": OTHER_PLATFORM, "signingMaterial": {"certificateArn": "CERTIFICATE"}},
        {
            "profileName": "rr",
            "platformId": "AmazonFreeRTOS-Default",
            "signingMaterial": {"certificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/none"},
            "signatureValidityPeriod": [{"value": 3, "type": "DAYS"}, {"value": 3, "type": "YEARS"}],
            "signingParameters": {"certname": "/c.pem"},
            "overrides": [
                {"signingConfiguration": {"encryptionAlgorithm": "ECDSA"}},
                {"signingConfiguration": {"hashAlgorithm": "SHA256"}},
                {"signingImageFormat": "JSONDetached"},
            ],
            "tags": {"k": "v"},
        },
    ),
    "GetSigningProfile": ("profile", {"profileName": "pp"}, {"profileName": "none", "profileOwner": "999999999999"}),
    "ListSigningProfiles": (
        "profiles",
        {},
        {**PAGES, "includeCanceled": True, "platformId": OTHER_PLATFORM, "statuses": ["Revoked"]},
    ),
    "CancelSigningProfile": ("profile", {"profileName": "pp"}, {"profileName": "none"}),
    "RevokeSigningProfile": (
        "profile",
        {"profileName": "pp", "profileVersion": "PROFILE_VERSION", "reason": "r", "effectiveTime": 1},
        {"profileName": "none", "profileVersion": "0000000000", "reason": "s", "effectiveTime": 2},
    ),
    "AddProfilePermission": (
        "profile",
        {
            "profileName": "pp",
            "statementId": "s",
            "action": "signer:SignPayload",
            "principal": "222222222222",
        },
        {
            "profileName": "none",
            "profileVersion": ["PROFILE_VERSION", "0000000000"],
            "action": "signer:StartSigningJob",
            "principal": "arn:aws:iam::222222222222:role/r",
            "revisionId": "another",
            "statementId": "t",
        },
    ),
    "RemoveProfilePermission": (
        "permission",
        {"profileName": "pp", "statementId": "s", "revisionId": "REVISION"},
        {"profileName": "none", "statementId": "t", "revisionId": "another"},
    ),
    "ListProfilePermissions": ("permission", {"profileName": "pp"}, {"profileName": "none", "nextToken": "not one of ours"}),
    "StartSigningJob": (
        "source",
        {
            "profileName": "pp",
            "source": {"s3": SOURCE},
            "destination": {"s3": {"bucketName": BUCKET, "prefix": "a/"}},
            "clientRequestToken": "t",
        },
        {
            "profileName": "none",
            "source": [{"s3": {**SOURCE, "key": "none"}}, {"s3": {**SOURCE, "version": "none"}}],
            "destination": [{"s3": {"bucketName": "none", "prefix": "a/"}}, {"s3": {"bucketName": BUCKET, "prefix": "b/"}}],
            "clientRequestToken": "u",
            "profileOwner": "999999999999",
        },
    ),
    "DescribeSigningJob": ("job", {"jobId": "JOB"}, {"jobId": "none"}),
    "ListSigningJobs": (
        "job",
        {},
        {
            **PAGES,
            "status": "Failed",
            "platformId": OTHER_PLATFORM,
            "requestedBy": "arn:aws:iam::123456789012:user/nobody",
            "isRevoked": True,
            "signatureExpiresBefore": 1,
            "signatureExpiresAfter": 2**52,
            "jobInvoker": "999999999999",
        },
    ),
    "RevokeSignature": (
        "job",
        {"jobId": "JOB", "reason": "r"},
        {"jobId": "none", "reason": "s", "jobOwner": "999999999999"},
    ),
    "GetRevocationStatus": (
        "revoked",
        {
            "signatureTimestamp": 2**50,
            "platformId": "AmazonFreeRTOS-Default",
            "profileVersionArn": PROFILE + "/PROFILE_VERSION",
            "jobArn": JOBS + "JOB",
            "certificateHashes": [],
        },
        {
            "signatureTimestamp": 1,
            "platformId": OTHER_PLATFORM,
            "profileVersionArn": PROFILE + "/0000000000",
            "jobArn": JOBS + "none",
        },
    ),
    "SignPayload": (
        "profile",
        {"profileName": "pp", "payload": b"x", "payloadFormat": "raw"},
        {"profileName": "none", "profileOwner": "999999999999", "payload": b"y"},
    ),
    "GetSigningPlatform": ("nothing", {"platformId": OTHER_PLATFORM}, {"platformId": "AmazonFreeRTOS-Default"}),
    "ListSigningPlatforms": (
        "nothing",
        {},
        {**PAGES, "category": "AWS", "partner": "TexasInstruments", "target": "CC3220SF"},
    ),
    "TagResource": (
        "profile",
        {"resourceArn": PROFILE, "tags": {"k": "v"}},
        {"resourceArn": PROFILE + "qq", "tags": {"k": "w"}},
    ),
    "UntagResource": (
        "profile",
        {"resourceArn": PROFILE, "tagKeys": ["team"]},
        {"resourceArn": PROFILE + "qq", "tagKeys": ["none"]},
    ),
    "ListTagsForResource": ("profile", {"resourceArn": PROFILE}, {"resourceArn": PROFILE + "qq"}),
}
WITHOUT_EFFECT: Mapping[tuple[str, str], str] = {
    ("SignPayload", "payloadFormat"): "a payload's bytes are signed as they are, whatever they are said to be",
    ("GetRevocationStatus", "certificateHashes"): (
        "no certificate is revoked by itself: imported ones can't be, as with AWS; a signer is revoked by its profile's version"
    ),
}


@cache
def signer() -> Credential:
    """RSA, whose signatures over the same bytes are the same."""
    return credential(kind="rsa-2048")


class World:
    """The signing road with its door, without a port."""

    def __init__(self, road: SigningRoad) -> None:
        self.road = road
        self.words: dict[str, str] = {}
        self.handlers = {name: handler for _, name, handler in operations_of(road.signer_api)}

    async def prepare(self, scene: str) -> None:
        road = self.road
        if scene == "nothing":
            return
        self.words["CERTIFICATE"] = road.import_certificate(signer())
        if scene == "certificate":
            return
        made = await road.make_profile("pp", self.words["CERTIFICATE"], tags={"team": "boot"})
        self.words["PROFILE_VERSION"] = made["profileVersion"]
        if scene == "profiles":
            await road.make_profile("oo", self.words["CERTIFICATE"])
            await road.make_profile("gone", self.words["CERTIFICATE"])
            await road.signer_api.cancel_signing_profile(road.caller(), {"profileName": "gone"})
        if scene == "permission":
            request = {"profileName": "pp", "statementId": "s", "action": "signer:SignPayload", "principal": "222222222222"}
            added = await road.signer_api.add_profile_permission(road.caller(), request)
            self.words["REVISION"] = added["revisionId"]
        if scene in ("source", "job", "revoked"):
            road.make_bucket()
            source = await road.upload("fw.bin", b"image")
            self.words["VERSION"] = str(source.version_id)
        if scene in ("job", "revoked"):
            self.words["JOB"] = await road.start("pp", source)
            await road.signing_worker.run_once()
            await road.start("pp", source, token="t-2")
        if scene == "revoked":
            revoked = {"profileName": "pp", "profileVersion": self.words["PROFILE_VERSION"], "reason": "r"}
            await road.signer_api.revoke_signing_profile(road.caller(), {**revoked, "effectiveTime": road.clock.now()})
            await road.signer_api.revoke_signature(road.caller(), {"jobId": self.words["JOB"], "reason": "r"})

    def filled(self, value: Any) -> Any:
        if isinstance(value, str):
            for word, meant in sorted(self.words.items(), key=lambda each: -len(each[0])):
                value = value.replace(word, meant)
            return value
        if isinstance(value, Mapping):
            return {key: self.filled(item) for key, item in value.items()}
        return value

    async def outcome(self, operation: str, request: Values) -> str:
        """What is answered and what stands in the records after it."""
        try:
            answer: Any = await self.handlers[operation](self.road.caller(), self.filled(request))
        except OverairError as error:
            answer = (type(error).__name__, error.message)
        rows = self.road.work.read_blocking(
            lambda tx: [[list(row) for row in sql(tx).execute(table.select())] for table in (profiles, jobs, permissions)]
        )
        return json.dumps([answer, rows], default=str)


@pytest.fixture
def worlds(
    place: Place, clock: SettableClock, tmp_path: Path, sqlite_template: Callable[[], Path]
) -> Iterator[Callable[[], World]]:
    opened: list[SigningRoad] = []
    numbers = itertools.count()

    def world() -> World:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        shutil.copyfile(sqlite_template(), folder / "records.sqlite3")
        work = open_sqlite(folder / "records.sqlite3", clock=clock, readers=1)
        opened.append(SigningRoad(work, clock, SeededIds(1), place, folder))
        return World(opened[-1])

    yield world
    for road in opened:
        road.contents.close()
        road.work.close()


def modelled() -> dict[str, frozenset[str]]:
    model = botocore.session.get_session().get_service_model("signer")
    shapes = {name: model.operation_model(name).input_shape for name in model.operation_names}
    return {name: frozenset(shape.members if shape is not None else ()) for name, shape in shapes.items()}


def test_every_operation_and_member_of_signer_is_walked() -> None:
    walked = {name: frozenset(members) for name, (_, _, members) in CASES.items()}
    for operation, member in WITHOUT_EFFECT:
        walked[operation] |= {member}
    assert walked == modelled()


@pytest.mark.parametrize("operation", list(CASES))
async def test_no_member_is_ignored_in_silence(operation: str, worlds: Callable[[], World]) -> None:
    scene, base, members = CASES[operation]
    world = worlds()
    await world.prepare(scene)
    without = await world.outcome(operation, base)
    again = worlds()
    await again.prepare(scene)
    assert await again.outcome(operation, base) == without, "the same again is the same"
    for member, values in members.items():
        for value in values if isinstance(values, list) and member not in ("statuses", "tagKeys") else [values]:
            world = worlds()
            await world.prepare(scene)
            assert await world.outcome(operation, {**base, member: value}) != without, (member, value)
