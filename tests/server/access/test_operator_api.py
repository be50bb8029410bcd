"""IAM and STS as boto3 uses them, through the real door: signatures, permissions, codes, audit records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from overair.basics.arn import Place
from overair.basics.clock import SettableClock, WallClock, as_datetime
from overair.basics.ids import AccessKeyId
from overair.basics.redacted import Redacted
from overair.server.access.model import NewKeys
from overair.server.storage.work import SqlWork
from tests.support.signed_door import SignedDoor, signed_door

ACCOUNT = "123456789012"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}],
}
OTA_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonFreeRTOSOTAUpdate"


def document(*actions: str) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}


@pytest.fixture
def door(work: SqlWork, place: Place) -> Iterator[SignedDoor]:
    with signed_door(work, place, SettableClock(WallClock().now())) as running:
        yield running


def code(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**members)
    return str(caught.value.response["Error"]["Code"])


def status(call: Any, **members: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def keys_from(answer: dict[str, Any]) -> NewKeys:
    key = answer.get("AccessKey") or answer["Credentials"]
    token = key.get("SessionToken")
    return NewKeys(
        key_id=AccessKeyId(key["AccessKeyId"]),
        secret=Redacted(key["SecretAccessKey"]),
        created=WallClock().now(),
        token=Redacted(token) if token else None,
    )


def test_users_and_their_keys(door: SignedDoor) -> None:
    iam = door.client("iam")
    user = iam.create_user(UserName="ann", Path="/eng/", Tags=[{"Key": "team", "Value": "ota"}])["User"]
    assert user["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/eng/ann"
    assert abs(user["CreateDate"] - as_datetime(WallClock().now())) < timedelta(minutes=1)
    assert iam.get_user(UserName="ann")["User"] == user
    assert status(iam.create_user, UserName="ann") == ("EntityAlreadyExists", 409)
    assert status(iam.get_user, UserName="ben") == ("NoSuchEntity", 404)
    assert code(iam.create_user, UserName="a b") == "ValidationError"
    ann = keys_from(iam.create_access_key(UserName="ann"))
    identity = door.client("sts", ann).get_caller_identity()
    assert (identity["Account"], identity["Arn"], identity["UserId"]) == (ACCOUNT, user["Arn"], user["UserId"])
    assert [key["AccessKeyId"] for key in iam.list_access_keys(UserName="ann")["AccessKeyMetadata"]] == [ann.key_id]
    assert status(iam.delete_user, UserName="ann") == ("DeleteConflict", 409)
    iam.update_access_key(UserName="ann", AccessKeyId=ann.key_id, Status="Inactive")
    assert status(door.client("sts", ann).get_caller_identity) == ("InvalidClientTokenId", 403)
    iam.delete_access_key(UserName="ann", AccessKeyId=ann.key_id)
    iam.delete_user(UserName="ann")
    assert code(iam.delete_user, UserName="ann") == "NoSuchEntity"
    assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_lists_go_on_where_they_ended(door: SignedDoor) -> None:
    iam = door.client("iam")
    for number in range(5):
        iam.create_user(UserName=f"u{number}")
        iam.create_policy(PolicyName=f"p{number}", PolicyDocument=json.dumps(document("iot:*")))
    pages = list(iam.get_paginator("list_users").paginate(PaginationConfig={"PageSize": 2}))
    assert [[user["UserName"] for user in page["Users"]] for page in pages] == [["u0", "u1"], ["u2", "u3"], ["u4"]]
    listed = iam.get_paginator("list_policies").paginate(PaginationConfig={"PageSize": 4}).build_full_result()["Policies"]
    names = [policy["PolicyName"] for policy in listed]
    assert names[:5] == [f"p{number}" for number in range(5)]
    assert {"AdministratorAccess", "AmazonFreeRTOSOTAUpdate", "AWSIoTThingsRegistration"} < set(names)
    assert len(set(names)) == len(names)
    assert [policy["PolicyName"] for policy in iam.list_policies(Scope="Local", MaxItems=2)["Policies"]] == ["p0", "p1"]
    assert code(iam.list_users, Marker="nonsense") == "ValidationError"


def test_roles_and_their_policies(door: SignedDoor) -> None:
    iam = door.client("iam")
    role = iam.create_role(
        RoleName="ota",
        Path="/service-role/",
        AssumeRolePolicyDocument=json.dumps(TRUST),
        Description="d",
        MaxSessionDuration=7200,
    )["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/service-role/ota"
    assert role["AssumeRolePolicyDocument"] == TRUST
    assert role["MaxSessionDuration"] == 7200
    iam.attach_role_policy(RoleName="ota", PolicyArn=OTA_POLICY)
    iam.attach_role_policy(RoleName="ota", PolicyArn=OTA_POLICY)
    attached = iam.list_attached_role_policies(RoleName="ota")["AttachedPolicies"]
    assert attached == [{"PolicyName": "AmazonFreeRTOSOTAUpdate", "PolicyArn": OTA_POLICY}]
    assert status(iam.attach_role_policy, RoleName="ota", PolicyArn=OTA_POLICY + "X") == ("NoSuchEntity", 404)
    inline = document("s3:GetObject")
    iam.put_role_policy(RoleName="ota", PolicyName="bucket", PolicyDocument=json.dumps(inline))
    assert iam.get_role_policy(RoleName="ota", PolicyName="bucket")["PolicyDocument"] == inline
    assert iam.list_role_policies(RoleName="ota")["PolicyNames"] == ["bucket"]
    assert status(iam.put_role_policy, RoleName="ota", PolicyName="x", PolicyDocument='{"a":1}') == (
        "MalformedPolicyDocument",
        400,
    )
    assert code(iam.create_role, RoleName="bad", AssumeRolePolicyDocument="{") == "MalformedPolicyDocument"
    narrower = {**TRUST, "Statement": [{**TRUST["Statement"][0], "Principal": {"Service": "iot.amazonaws.com"}}]}  # type: ignore[dict-item]
    iam.update_assume_role_policy(RoleName="ota", PolicyDocument=json.dumps(narrower))
    assert iam.get_role(RoleName="ota")["Role"]["AssumeRolePolicyDocument"] == narrower
    assert [listed["RoleName"] for listed in iam.list_roles(PathPrefix="/service-role/")["Roles"]] == ["ota"]
    assert status(iam.delete_role, RoleName="ota") == ("DeleteConflict", 409)
    iam.detach_role_policy(RoleName="ota", PolicyArn=OTA_POLICY)
    assert code(iam.detach_role_policy, RoleName="ota", PolicyArn=OTA_POLICY) == "NoSuchEntity"
    iam.delete_role_policy(RoleName="ota", PolicyName="bucket")
    iam.delete_role(RoleName="ota")
    assert status(iam.get_role, RoleName="ota") == ("NoSuchEntity", 404)


def test_managed_policies_and_versions(door: SignedDoor) -> None:
    iam = door.client("iam")
    arn = iam.create_policy(PolicyName="p", PolicyDocument=json.dumps(document("iot:ListThings")), Description="d")["Policy"][
        "Arn"
    ]
    got = iam.get_policy(PolicyArn=arn)["Policy"]
    assert (got["DefaultVersionId"], got["AttachmentCount"], got["Description"]) == ("v1", 0, "d")
    made = iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(document("iot:ListJobs")), SetAsDefault=True)
    assert (made["PolicyVersion"]["VersionId"], made["PolicyVersion"]["IsDefaultVersion"]) == ("v2", True)
    versions = iam.list_policy_versions(PolicyArn=arn)["Versions"]
    assert [(version["VersionId"], version["IsDefaultVersion"]) for version in versions] == [("v2", True), ("v1", False)]
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v2")["PolicyVersion"]["Document"] == document("iot:ListJobs")
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v1"
    assert code(iam.delete_policy_version, PolicyArn=arn, VersionId="v1") == "DeleteConflict"
    assert code(iam.delete_policy, PolicyArn=arn) == "DeleteConflict"
    iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    iam.delete_policy(PolicyArn=arn)
    assert code(iam.get_policy, PolicyArn=arn) == "NoSuchEntity"
    assert iam.get_policy_version(PolicyArn=OTA_POLICY, VersionId="v1")["PolicyVersion"]["Document"]["Version"] == "2012-10-17"


def test_a_user_may_what_his_policies_say_and_hears_so_in_known_words(door: SignedDoor) -> None:
    root = door.client("iam")
    root.create_user(UserName="ann")
    root.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=json.dumps(document("iam:GetRole", "iam:ListRoles")))
    assert root.get_user_policy(UserName="ann", PolicyName="p")["PolicyDocument"] == document("iam:GetRole", "iam:ListRoles")
    assert root.list_user_policies(UserName="ann")["PolicyNames"] == ["p"]
    ann = door.client("iam", keys_from(root.create_access_key(UserName="ann")))
    ann.list_roles()
    with pytest.raises(ClientError) as caught:
        ann.create_user(UserName="eve")
    error = caught.value.response["Error"]
    assert error["Code"] == "AccessDenied"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert error["Message"] == (
        f"User: arn:aws:iam::{ACCOUNT}:user/ann is not authorized to perform: iam:CreateUser on resource: "
        f"arn:aws:iam::{ACCOUNT}:user/eve because no identity-based policy allows the iam:CreateUser action"
    )
    root.attach_user_policy(UserName="ann", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    ann.create_user(UserName="eve")
    assert len(root.list_attached_user_policies(UserName="ann")["AttachedPolicies"]) == 1
    root.detach_user_policy(UserName="ann", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    assert code(ann.create_user, UserName="mallory") == "AccessDenied"
    root.delete_user_policy(UserName="ann", PolicyName="p")
    assert root.list_user_policies(UserName="ann")["PolicyNames"] == []
    assert code(ann.list_roles) == "AccessDenied"
    assert code(root.delete_user_policy, UserName="ann", PolicyName="p") == "NoSuchEntity"


def test_the_simulator_says_what_the_door_would(door: SignedDoor) -> None:
    iam = door.client("iam")
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.attach_role_policy(RoleName="r", PolicyArn=OTA_POLICY)
    answers = iam.simulate_principal_policy(
        PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:role/r",
        ActionNames=["iot:CreateStream", "s3:GetObject"],
        ResourceArns=["arn:aws:s3:::afr-ota-1/k", "arn:aws:s3:::other/k"],
    )["EvaluationResults"]
    assert [(a["EvalActionName"], a["EvalResourceName"], a["EvalDecision"]) for a in answers] == [
        ("iot:CreateStream", "arn:aws:s3:::afr-ota-1/k", "allowed"),
        ("iot:CreateStream", "arn:aws:s3:::other/k", "allowed"),
        ("s3:GetObject", "arn:aws:s3:::afr-ota-1/k", "allowed"),
        ("s3:GetObject", "arn:aws:s3:::other/k", "implicitDeny"),
    ]


def test_a_role_is_taken_on_with_temporary_keys(door: SignedDoor) -> None:
    iam, sts = door.client("iam"), door.client("sts")
    arn = iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=json.dumps(document("iam:ListRoles")))
    taken = sts.assume_role(RoleArn=arn, RoleSessionName="s1", DurationSeconds=900)
    assert taken["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s1"
    assert taken["Credentials"]["AccessKeyId"].startswith("ASIA")
    session = keys_from(taken)
    assert door.client("sts", session).get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s1"
    door.client("iam", session).list_roles()
    assert code(door.client("iam", session).list_users) == "AccessDenied"
    assert status(sts.assume_role, RoleArn=arn + "x", RoleSessionName="s1") == ("AccessDenied", 403)
    assert code(sts.assume_role, RoleArn=arn, RoleSessionName="s1", DurationSeconds=7200) == "ValidationError"


@pytest.mark.parametrize(
    ("service", "call", "codes"),
    [
        ("iot", "list_things", ("UnrecognizedClientException", "InvalidSignatureException", "InvalidSignatureException")),
        ("acm", "list_certificates", ("UnrecognizedClientException", "InvalidSignatureException", "InvalidSignatureException")),
        ("sts", "get_caller_identity", ("InvalidClientTokenId", "SignatureDoesNotMatch", "RequestExpired")),
        ("s3", "list_buckets", ("InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed")),
    ],
)
def test_each_plane_tells_a_bad_signature_in_its_own_code(
    door: SignedDoor, service: str, call: str, codes: tuple[str, str, str]
) -> None:
    def refused(client: Any) -> tuple[str, int]:
        return status(getattr(client, call))

    unknown, wrong, late = codes
    refusal = 400 if service == "acm" else 403  # JSON 1.1 has one status for every error
    assert refused(door.client(service, aws_access_key_id="AKIAUNKNOWNUNKNOWN00")) == (unknown, refusal)
    assert refused(door.client(service, aws_secret_access_key="x" * 40)) == (wrong, refusal)
    door.room.clock.advance(milliseconds=16 * 60_000)
    assert refused(door.client(service)) == (late, refusal)


def test_another_region_is_refused_naming_ours(door: SignedDoor) -> None:
    with pytest.raises(ClientError) as caught:
        door.client("iot", region_name="eu-west-1").list_things()
    assert "us-east-1" in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_every_change_leaves_a_record_without_secrets_and_reading_leaves_none(door: SignedDoor) -> None:
    iam = door.client("iam")
    iam.create_user(UserName="ann")
    keys = keys_from(iam.create_access_key(UserName="ann"))
    iam.list_users()
    code(iam.create_user, UserName="ann")
    records = door.room.work.read_blocking(lambda tx: door.audit.newest(tx, door.room.place.account))
    assert sorted((record.operation, record.resource) for record in records) == [
        ("CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/ann"),
        ("CreateUser", f"arn:aws:iam::{ACCOUNT}:user/ann"),
    ]
    assert {record.principal_arn for record in records} == {f"arn:aws:iam::{ACCOUNT}:root"}
    assert {record.access_key_id for record in records} == {door.root.key_id}
    assert {record.source_ip for record in records} == {"127.0.0.1"}
    assert keys.secret.reveal() not in repr(records)
