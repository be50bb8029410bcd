"""IAM's wider operations as boto3 uses them, through the real door. Records in SQLite: the stores have tests of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from overair.basics.arn import Place
from overair.basics.clock import SettableClock, WallClock
from overair.basics.ids import AccessKeyId
from overair.basics.redacted import Redacted
from overair.server.access import simulation
from overair.server.access.model import NewKeys
from overair.server.storage.work import SqlWork
from tests.support.signed_door import SignedDoor, signed_door

pytestmark = pytest.mark.parametrize("work", ["sqlite"], indirect=True)

ACCOUNT = "123456789012"
READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}],
}


def document(*actions: str, effect: str = "Allow", **more: Any) -> dict[str, Any]:
    statement = {"Effect": effect, "Action": list(actions), "Resource": "*", **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


@pytest.fixture
def door(work: SqlWork, place: Place) -> Iterator[SignedDoor]:
    with signed_door(work, place, SettableClock(WallClock().now())) as running:
        yield running


@pytest.fixture
def iam(door: SignedDoor) -> Any:
    return door.client("iam")


def refused(call: Any, **members: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def keys(answer: dict[str, Any]) -> NewKeys:
    key = answer.get("AccessKey") or answer["Credentials"]
    token = key.get("SessionToken")
    return NewKeys(
        key_id=AccessKeyId(key["AccessKeyId"]),
        secret=Redacted(key["SecretAccessKey"]),
        created=WallClock().now(),
        token=Redacted(token) if token else None,
    )


def test_a_group_is_made_filled_given_rights_renamed_and_ended(door: SignedDoor, iam: Any) -> None:
    made = iam.create_group(GroupName="ops", Path="/teams/")["Group"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:group/teams/ops"
    assert iam.list_groups()["Groups"] == [made]
    for name in ("ann", "ben", "cat"):
        iam.create_user(UserName=name)
        iam.add_user_to_group(GroupName="ops", UserName=name)
    pages = list(iam.get_paginator("get_group").paginate(GroupName="ops", PaginationConfig={"PageSize": 2}))
    assert [[user["UserName"] for user in page["Users"]] for page in pages] == [["ann", "ben"], ["cat"]]
    assert iam.list_groups_for_user(UserName="ann")["Groups"] == [made]
    ann = door.client("iam", keys(iam.create_access_key(UserName="ann")))
    assert refused(ann.list_roles) == ("AccessDenied", 403)
    iam.put_group_policy(GroupName="ops", PolicyName="p", PolicyDocument=json.dumps(document("iam:ListRoles")))
    iam.attach_group_policy(GroupName="ops", PolicyArn=READ_ONLY)
    ann.list_roles()
    ann.list_users()
    got = iam.get_group_policy(GroupName="ops", PolicyName="p")
    assert (got["GroupName"], got["PolicyDocument"]) == ("ops", document("iam:ListRoles"))
    assert iam.list_group_policies(GroupName="ops")["PolicyNames"] == ["p"]
    attached = iam.list_attached_group_policies(GroupName="ops")["AttachedPolicies"]
    assert attached == [{"PolicyName": "ReadOnlyAccess", "PolicyArn": READ_ONLY}]
    iam.update_group(GroupName="ops", NewGroupName="operators", NewPath="/")
    iam.update_user(UserName="ben", NewUserName="benjamin")
    assert iam.get_group(GroupName="operators")["Group"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:group/operators"
    ann.list_roles()
    assert refused(iam.get_group, GroupName="ops") == ("NoSuchEntity", 404)
    assert refused(iam.create_group, GroupName="operators") == ("EntityAlreadyExists", 409)
    assert refused(iam.delete_group, GroupName="operators") == ("DeleteConflict", 409)
    iam.delete_group_policy(GroupName="operators", PolicyName="p")
    iam.detach_group_policy(GroupName="operators", PolicyArn=READ_ONLY)
    assert refused(ann.list_roles) == ("AccessDenied", 403)
    for name in ("ann", "benjamin", "cat"):
        iam.remove_user_from_group(GroupName="operators", UserName=name)
    iam.delete_group(GroupName="operators")
    assert iam.list_groups()["Groups"] == []


def test_quotas_and_sizes_have_iams_codes(iam: Any) -> None:
    iam.create_user(UserName="ann")
    for number in range(10):
        iam.create_group(GroupName=f"g{number}")
        iam.add_user_to_group(GroupName=f"g{number}", UserName="ann")
    iam.create_group(GroupName="one-more")
    assert refused(iam.add_user_to_group, GroupName="one-more", UserName="ann") == ("LimitExceeded", 409)
    long = json.dumps(document("iot:" + "a" * 2100))
    assert refused(iam.put_user_policy, UserName="ann", PolicyName="p", PolicyDocument=long) == ("LimitExceeded", 409)
    iam.put_group_policy(GroupName="g0", PolicyName="p", PolicyDocument=long)
    assert refused(iam.create_policy, PolicyName="p", PolicyDocument=json.dumps(document("iot:" + "a" * 6200))) == (
        "LimitExceeded",
        409,
    )
    tags = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
    iam.tag_user(UserName="ann", Tags=tags)
    assert refused(iam.tag_user, UserName="ann", Tags=[{"Key": "more", "Value": ""}]) == ("LimitExceeded", 409)


def test_boundaries_tags_and_who_a_policy_touches(door: SignedDoor, iam: Any) -> None:
    arn = iam.create_policy(PolicyName="within", PolicyDocument=json.dumps(document("iam:List*")))["Policy"]["Arn"]
    iam.create_user(UserName="ann", Path="/eng/")
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.create_group(GroupName="g")
    iam.put_user_permissions_boundary(UserName="ann", PermissionsBoundary=arn)
    iam.put_role_permissions_boundary(RoleName="r", PermissionsBoundary=arn)
    iam.attach_group_policy(GroupName="g", PolicyArn=arn)
    iam.attach_user_policy(UserName="ann", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    assert iam.get_user(UserName="ann")["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"] == arn
    policy = iam.get_policy(PolicyArn=arn)["Policy"]
    assert (policy["AttachmentCount"], policy["PermissionsBoundaryUsageCount"]) == (1, 2)
    bounding = iam.list_policies(PolicyUsageFilter="PermissionsBoundary")["Policies"]
    assert [each["PolicyName"] for each in bounding] == ["within"]
    entities = iam.list_entities_for_policy(PolicyArn=arn)
    assert ([g["GroupName"] for g in entities["PolicyGroups"]], entities["PolicyUsers"], entities["PolicyRoles"]) == (
        ["g"],
        [],
        [],
    )
    bounded = iam.list_entities_for_policy(PolicyArn=arn, PolicyUsageFilter="PermissionsBoundary")
    assert [user["UserName"] for user in bounded["PolicyUsers"]] == ["ann"]
    assert bounded["PolicyUsers"][0]["UserId"].startswith("AIDA")
    assert [role["RoleName"] for role in bounded["PolicyRoles"]] == ["r"]
    ann = door.client("iam", keys(iam.create_access_key(UserName="ann")))
    ann.list_users()
    assert refused(ann.get_user, UserName="ann") == ("AccessDenied", 403)
    assert refused(iam.delete_policy, PolicyArn=arn) == ("DeleteConflict", 409)
    iam.delete_user_permissions_boundary(UserName="ann")
    iam.delete_role_permissions_boundary(RoleName="r")
    ann.get_user(UserName="ann")
    assert refused(iam.delete_user_permissions_boundary, UserName="ann") == ("NoSuchEntity", 404)
    for tag, untag, tags_of, name in (
        (iam.tag_user, iam.untag_user, iam.list_user_tags, {"UserName": "ann"}),
        (iam.tag_role, iam.untag_role, iam.list_role_tags, {"RoleName": "r"}),
        (iam.tag_policy, iam.untag_policy, iam.list_policy_tags, {"PolicyArn": arn}),
    ):
        tag(**name, Tags=[{"Key": "b", "Value": "1"}, {"Key": "a", "Value": "2"}])
        tag(**name, Tags=[{"Key": "b", "Value": "3"}])
        assert tags_of(**name)["Tags"] == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
        untag(**name, TagKeys=["b", "never"])
        assert tags_of(**name)["Tags"] == [{"Key": "a", "Value": "2"}]
    iam.update_role(RoleName="r", Description="d", MaxSessionDuration=7200)
    role = iam.update_role_description(RoleName="r", Description="e")["Role"]
    assert (role["Description"], role["MaxSessionDuration"]) == ("e", 7200)


def test_the_whole_account_is_told_page_by_page_and_by_kind(iam: Any) -> None:
    own = iam.create_policy(PolicyName="own", PolicyDocument=json.dumps(document("iot:*")), Description="d")["Policy"]["Arn"]
    iam.create_policy_version(PolicyArn=own, PolicyDocument=json.dumps(document("s3:*")))
    iam.create_group(GroupName="g")
    iam.put_group_policy(GroupName="g", PolicyName="gp", PolicyDocument=json.dumps(document("acm:*")))
    for name in ("ann", "ben"):
        iam.create_user(UserName=name, Tags=[{"Key": "k", "Value": "v"}])
    iam.add_user_to_group(GroupName="g", UserName="ann")
    iam.put_user_policy(UserName="ann", PolicyName="up", PolicyDocument=json.dumps(document("iot:*")))
    iam.attach_user_policy(UserName="ann", PolicyArn=own)
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.attach_role_policy(RoleName="r", PolicyArn=READ_ONLY)
    whole = iam.get_account_authorization_details()
    ann, ben = whole["UserDetailList"]
    assert (ann["GroupList"], ann["Tags"]) == (["g"], [{"Key": "k", "Value": "v"}])
    assert ann["UserPolicyList"] == [{"PolicyName": "up", "PolicyDocument": document("iot:*")}]
    assert ann["AttachedManagedPolicies"] == [{"PolicyName": "own", "PolicyArn": own}]
    assert (ben["UserName"], ben["UserPolicyList"], ben["GroupList"]) == ("ben", [], [])
    (group,), (role,) = whole["GroupDetailList"], whole["RoleDetailList"]
    assert group["GroupPolicyList"] == [{"PolicyName": "gp", "PolicyDocument": document("acm:*")}]
    assert (role["AssumeRolePolicyDocument"], role["InstanceProfileList"]) == (TRUST, [])
    assert [(policy["PolicyName"], policy["AttachmentCount"]) for policy in whole["Policies"]] == [
        ("own", 1),
        ("ReadOnlyAccess", 1),
    ]
    versions = whole["Policies"][0]["PolicyVersionList"]
    assert [(version["VersionId"], version["IsDefaultVersion"]) for version in versions] == [("v2", False), ("v1", True)]
    assert versions[0]["Document"] == document("s3:*")
    pages = list(iam.get_paginator("get_account_authorization_details").paginate(PaginationConfig={"PageSize": 2}))
    lists = ("UserDetailList", "GroupDetailList", "RoleDetailList", "Policies")
    assert [sum(len(page[name]) for name in lists) for page in pages] == [2, 2, 2]
    assert {name: [each for page in pages for each in page[name]] for name in lists} == {name: whole[name] for name in lists}
    filtered = iam.get_account_authorization_details(Filter=["Role", "AWSManagedPolicy"])
    assert [len(filtered[name]) for name in lists] == [0, 0, 1, 1]
    summary = iam.get_account_summary()["SummaryMap"]
    assert [summary[name] for name in ("Users", "Groups", "Roles", "Policies", "AccountAccessKeysPresent")] == [2, 1, 1, 1, 1]
    assert (summary["GroupsPerUserQuota"], summary["UserPolicySizeQuota"]) == (10, 2048)


def test_a_key_is_rotated_without_a_gap_and_its_last_use_is_known(door: SignedDoor, iam: Any) -> None:
    iam.create_user(UserName="ann")
    old = keys(iam.create_access_key(UserName="ann"))
    unused = iam.get_access_key_last_used(AccessKeyId=old.key_id)
    assert unused["UserName"] == "ann"
    assert (unused["AccessKeyLastUsed"]["ServiceName"], unused["AccessKeyLastUsed"]["Region"]) == ("N/A", "N/A")
    assert "LastUsedDate" not in unused["AccessKeyLastUsed"]
    door.client("sts", old).get_caller_identity()
    new = keys(iam.create_access_key(UserName="ann"))
    assert refused(iam.create_access_key, UserName="ann") == ("LimitExceeded", 409)
    door.client("sts", new).get_caller_identity()
    iam.update_access_key(UserName="ann", AccessKeyId=old.key_id, Status="Inactive")
    used = iam.get_access_key_last_used(AccessKeyId=old.key_id)["AccessKeyLastUsed"]
    assert (used["ServiceName"], used["Region"]) == ("sts", "us-east-1")
    assert refused(door.client("sts", old).get_caller_identity) == ("InvalidClientTokenId", 403)
    assert iam.get_access_key_last_used(AccessKeyId=old.key_id)["AccessKeyLastUsed"] == used, "a refused request is no use"
    iam.delete_access_key(UserName="ann", AccessKeyId=old.key_id)
    assert refused(iam.get_access_key_last_used, AccessKeyId=old.key_id) == ("NoSuchEntity", 404)
    door.client("sts", new).get_caller_identity()


def test_a_session_is_narrowed_by_managed_policies_and_its_role_remembers_the_use(door: SignedDoor, iam: Any) -> None:
    arn = iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=json.dumps(document("iam:*")))
    sts = door.client("sts")
    narrow = {"RoleArn": arn, "RoleSessionName": "s1", "PolicyArns": [{"arn": READ_ONLY}]}
    session = door.client("iam", keys(sts.assume_role(**narrow)))
    session.list_users()
    assert refused(session.create_user, UserName="eve") == ("AccessDenied", 403)
    assert refused(sts.assume_role, **{**narrow, "PolicyArns": [{"arn": READ_ONLY + "X"}]}) == ("ValidationError", 400)
    assert iam.get_role(RoleName="r")["Role"]["RoleLastUsed"]["Region"] == "us-east-1"


def test_the_simulator_names_who_decides_and_what_it_was_not_told(iam: Any) -> None:
    iam.create_user(UserName="ann")
    iam.create_group(GroupName="g")
    iam.add_user_to_group(GroupName="g", UserName="ann")
    condition = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    iam.put_group_policy(
        GroupName="g", PolicyName="gp", PolicyDocument=json.dumps(document("iot:CreateJob", Condition=condition), indent=1)
    )
    iam.attach_user_policy(UserName="ann", PolicyArn=READ_ONLY)
    ann = f"arn:aws:iam::{ACCOUNT}:user/ann"

    def ask(*actions: str, **more: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = iam.simulate_principal_policy(PolicySourceArn=ann, ActionNames=list(actions), **more)[
            "EvaluationResults"
        ]
        return found

    (unknown,) = ask("iot:CreateJob")
    assert (unknown["EvalDecision"], unknown["MissingContextValues"]) == ("implicitDeny", ["aws:SourceIp"])
    entries = [{"ContextKeyName": "aws:SourceIp", "ContextKeyValues": ["10.1.2.3"], "ContextKeyType": "ip"}]
    allowed, listing = ask("iot:CreateJob", "iot:ListThings", ContextEntries=entries)
    assert (allowed["EvalDecision"], allowed["MissingContextValues"]) == ("allowed", [])
    (statement,) = allowed["MatchedStatements"]
    assert (statement["SourcePolicyId"], statement["SourcePolicyType"]) == ("group_g_gp", "group")
    assert statement["StartPosition"] == {"Line": 4, "Column": 3}
    assert [each["SourcePolicyType"] for each in listing["MatchedStatements"]] == ["aws-managed"]
    within = json.dumps(document("iot:CreateJob"))
    (job, things) = ask("iot:CreateJob", "iot:ListThings", ContextEntries=entries, PermissionsBoundaryPolicyInputList=[within])
    assert [each["EvalDecision"] for each in (job, things)] == ["allowed", "implicitDeny"]
    assert things["PermissionsBoundaryDecisionDetail"] == {"AllowedByPermissionsBoundary": False}
    theirs = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}}
    (bucket,) = ask("s3:GetObject", ResourceArns=["arn:aws:s3:::b/k"], ResourcePolicy=json.dumps(theirs))
    assert bucket["EvalDecision"] == "explicitDeny"
    assert {each["SourcePolicyType"] for each in bucket["MatchedStatements"]} == {"aws-managed", "resource"}
    keys_asked = iam.get_context_keys_for_principal_policy(PolicySourceArn=ann)["ContextKeyNames"]
    assert keys_asked == ["aws:SourceIp"]
    assert refused(iam.simulate_principal_policy, PolicySourceArn=ann + "x", ActionNames=["a:B"]) == ("NoSuchEntity", 404)
    elsewhere = ann.replace("user/", "user/elsewhere/")
    for ask_for in (iam.simulate_principal_policy, iam.get_context_keys_for_principal_policy):
        more = {"ActionNames": ["a:B"]} if ask_for == iam.simulate_principal_policy else {}
        assert refused(ask_for, PolicySourceArn=elsewhere, **more) == ("NoSuchEntity", 404), (
            "a right is to an ARN with its path"
        )
    assert refused(iam.simulate_principal_policy, PolicySourceArn=ann, ActionNames=["nothing"]) == ("InvalidInput", 400)


def test_a_page_of_many_long_policies_is_short(iam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "JUDGEMENTS_MAX", 4)
    two = {**document("iot:*"), "Statement": document("iot:*")["Statement"] * 2}
    asked = {"PolicyInputList": [json.dumps(two)], "ActionNames": [f"iot:A{number}" for number in range(5)]}
    pages = list(iam.get_paginator("simulate_custom_policy").paginate(**asked))
    assert [len(page["EvaluationResults"]) for page in pages] == [2, 2, 1]


def test_policies_are_tried_before_they_are_put_anywhere(iam: Any) -> None:
    texts = [json.dumps(document("iot:*")), json.dumps(document("iot:Delete*", effect="Deny"))]
    actions = [f"iot:{verb}Thing" for verb in ("Create", "Update", "Delete", "Describe")]
    asked = {"PolicyInputList": texts, "ActionNames": actions, "ResourceArns": ["arn:aws:iot:us-east-1:1:thing/a", "*"]}
    pages = list(iam.get_paginator("simulate_custom_policy").paginate(**asked, PaginationConfig={"PageSize": 3}))
    assert [len(page["EvaluationResults"]) for page in pages] == [3, 3, 2]
    results = [result for page in pages for result in page["EvaluationResults"]]
    assert {(result["EvalActionName"], result["EvalDecision"]) for result in results} == {
        ("iot:CreateThing", "allowed"),
        ("iot:UpdateThing", "allowed"),
        ("iot:DeleteThing", "explicitDeny"),
        ("iot:DescribeThing", "allowed"),
    }
    denied = next(result for result in results if result["EvalDecision"] == "explicitDeny")
    assert [each["SourcePolicyId"] for each in denied["MatchedStatements"]] == ["PolicyInputList.1", "PolicyInputList.2"]
    theirs = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}}
    custom = {"PolicyInputList": texts, "ActionNames": ["s3:GetObject"], "ResourcePolicy": json.dumps(theirs)}
    assert refused(iam.simulate_custom_policy, **custom) == ("InvalidInput", 400)
    answer = iam.simulate_custom_policy(**custom, CallerArn=f"arn:aws:iam::{ACCOUNT}:user/ann")
    assert answer["EvaluationResults"][0]["EvalDecision"] == "allowed"
    assert refused(iam.simulate_custom_policy, PolicyInputList=["{"], ActionNames=["a:B"]) == ("InvalidInput", 400)
    named = iam.get_context_keys_for_custom_policy(
        PolicyInputList=[json.dumps(document("s3:*", Condition={"StringLike": {"s3:prefix": "${aws:username}/*"}}))]
    )
    assert named["ContextKeyNames"] == ["aws:username", "s3:prefix"]
