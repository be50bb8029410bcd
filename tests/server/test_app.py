"""The composition: every operation that is promised has a meaning, a rule of who may, and a test with real boto3."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import uvloop
from botocore import xform_name

from overair.basics.clock import WallClock
from overair.basics.ids import RandomIds
from overair.server.access.actions import operation_table
from overair.server.app import build_server
from overair.server.audit.service import AuditedWork
from overair.server.config import load_settings
from overair.server.rest.door import SERVICE
from overair.server.rest.operations import Route
from overair.server.storage.work import SqlWork

PROMISED = {
    "iot": """
        CreateThing DescribeThing UpdateThing DeleteThing ListThings AttachThingPrincipal DetachThingPrincipal
        ListThingPrincipals ListPrincipalThings
        CreateThingType DescribeThingType UpdateThingType DeleteThingType DeprecateThingType ListThingTypes
        CreateThingGroup DescribeThingGroup UpdateThingGroup DeleteThingGroup ListThingGroups AddThingToThingGroup
        RemoveThingFromThingGroup UpdateThingGroupsForThing ListThingsInThingGroup ListThingGroupsForThing
        CreateKeysAndCertificate CreateCertificateFromCsr RegisterCertificateWithoutCA DescribeCertificate ListCertificates
        UpdateCertificate DeleteCertificate
        CreatePolicy GetPolicy DeletePolicy ListPolicies CreatePolicyVersion GetPolicyVersion ListPolicyVersions
        DeletePolicyVersion SetDefaultPolicyVersion AttachPolicy DetachPolicy ListAttachedPolicies ListTargetsForPolicy
        AttachPrincipalPolicy DetachPrincipalPolicy ListPrincipalPolicies ListPolicyPrincipals
        DescribeEndpoint TagResource UntagResource ListTagsForResource
        CreateStream DescribeStream ListStreams UpdateStream DeleteStream
        CreateOTAUpdate GetOTAUpdate ListOTAUpdates DeleteOTAUpdate
        CreateJob DescribeJob ListJobs CancelJob DeleteJob GetJobDocument DescribeJobExecution ListJobExecutionsForJob
        ListJobExecutionsForThing CancelJobExecution DeleteJobExecution""",
    "iot-jobs-data": """
        DescribeJobExecution GetPendingJobExecutions StartNextPendingJobExecution UpdateJobExecution StartCommandExecution""",
    "iot-data": "Publish GetRetainedMessage ListRetainedMessages",
    "acm": "ImportCertificate DescribeCertificate GetCertificate ListCertificates DeleteCertificate",
    "signer": """
        PutSigningProfile GetSigningProfile ListSigningProfiles CancelSigningProfile StartSigningJob DescribeSigningJob
        ListSigningJobs GetSigningPlatform ListSigningPlatforms SignPayload""",
    "s3": """
        CreateBucket HeadBucket DeleteBucket ListBuckets GetBucketLocation PutBucketVersioning GetBucketVersioning
        PutBucketPolicy GetBucketPolicy DeleteBucketPolicy GetBucketPolicyStatus
        GetPublicAccessBlock PutPublicAccessBlock DeletePublicAccessBlock
        GetBucketAcl PutBucketAcl GetObjectAcl PutObjectAcl GetBucketOwnershipControls PutBucketOwnershipControls
        PutObject GetObject HeadObject DeleteObject DeleteObjects CopyObject ListObjects ListObjectsV2 ListObjectVersions
        CreateMultipartUpload UploadPart UploadPartCopy CompleteMultipartUpload AbortMultipartUpload ListParts
        ListMultipartUploads""",
    "iam": """
        CreateUser GetUser DeleteUser ListUsers CreateAccessKey ListAccessKeys UpdateAccessKey DeleteAccessKey
        CreateRole GetRole DeleteRole ListRoles UpdateAssumeRolePolicy PutRolePolicy GetRolePolicy DeleteRolePolicy
        ListRolePolicies AttachRolePolicy DetachRolePolicy ListAttachedRolePolicies
        PutUserPolicy GetUserPolicy DeleteUserPolicy ListUserPolicies AttachUserPolicy DetachUserPolicy
        ListAttachedUserPolicies CreatePolicy GetPolicy DeletePolicy ListPolicies CreatePolicyVersion GetPolicyVersion
        DeletePolicyVersion ListPolicyVersions SetDefaultPolicyVersion""",
    "sts": "GetCallerIdentity AssumeRole",
    "overair": "ExplainThing ExplainDeviceRights DescribeRollout DescribeServer ListAuditRecords ResendContinuousJobs",
}
"""The operations of the first issue, and our own."""


REAL_CLIENT = re.compile(r"\.client\(\"|iot: Any|acm: Any|door\.client\(")
"""How tests come by a client of boto3's."""


@pytest.fixture(scope="module")
def routes() -> list[tuple[Route, Any]]:
    """Of plain REST, with the methods that are their meanings; filled with the handlers."""
    return []


@pytest.fixture(scope="module")
def handlers(routes: list[tuple[Route, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """What the composed server has a meaning for, and the method that is it."""

    async def compose() -> dict[tuple[str, str], Any]:
        folder = tmp_path_factory.mktemp("composed") / "data"
        flags = {"data": folder, "operator_port": 0, "mqtt_port": 0, "device_port": 0}
        server = build_server(load_settings(flags, environment={}), clock=WallClock(), ids=RandomIds())
        try:
            await server.start()
            services = server.joined.operator_door.services.values()
            found = {(service.name, name): bound.handler for service in services for name, bound in service.bound.items()}
            routes.extend((route, handler) for route, handler in server.joined.rest_door.bound)
            return found
        finally:
            await server.stop(drain_timeout_s=2)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(compose())


@pytest.fixture(scope="module")
def bound(handlers: dict[tuple[str, str], Any]) -> set[tuple[str, str]]:
    return set(handlers)


@pytest.fixture(scope="module")
def doors(handlers: dict[tuple[str, str], Any], routes: list[tuple[Route, Any]]) -> list[object]:
    """The objects that hold the meanings, each once, with the parts that they hand operations on to."""
    found: dict[int, object] = {}
    for handler in (*handlers.values(), *[handler for _, handler in routes]):
        found[id(handler.__self__)] = handler.__self__
    return list(found.values())


@pytest.mark.parametrize("service", sorted(PROMISED))
def test_every_promised_operation_has_a_meaning(bound: set[tuple[str, str]], service: str) -> None:
    assert {(service, name) for name in PROMISED[service].split()} - bound == set()


def test_every_operation_has_a_rule_of_who_may_and_no_rule_is_idle(bound: set[tuple[str, str]]) -> None:
    assert bound - set(operation_table()) == set()


def test_every_route_of_plain_rest_has_a_rule_of_who_may(handlers: object, routes: list[tuple[Route, Any]]) -> None:
    assert {(SERVICE, route.operation) for route, _ in routes} - set(operation_table()) == set()


def test_every_operation_is_called_with_a_real_client_somewhere(bound: set[tuple[str, str]]) -> None:
    """By name, in a test that holds a client of boto3's: a meaning that no real client was ever tried on is no meaning."""
    folder = Path(__file__).parents[1]
    texts = [path.read_text() for path in folder.rglob("test_*.py")]
    clients = "\n".join(text for text in texts if "boto3" in text or REAL_CLIENT.search(text))
    missing = []
    for service, operation in sorted(bound):
        name = xform_name(operation)
        if not re.search(rf"\.{name}\b|[\"']{name}[\"']", clients):
            missing.append(f"{service} {operation}")
    assert not missing


def test_no_operators_door_holds_a_way_to_the_records_that_leaves_no_audit_record(doors: list[object]) -> None:
    """Units of operators run through ``AuditedWork`` alone; what doors are made of below them has no work of its own."""
    held = [(type(door).__name__, name) for door in doors for name, value in vars(door).items() if isinstance(value, SqlWork)]
    assert held == []
    assert sum(isinstance(value, AuditedWork) for door in doors for value in vars(door).values()) >= 15
