"""Sessions with tags of their own, and a user's temporary keys, as boto3 uses them through the real door."""

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
from overair.server.access.model import NewKeys
from overair.server.storage.work import SqlWork
from tests.support.signed_door import SignedDoor, signed_door

pytestmark = pytest.mark.parametrize("work", ["sqlite"], indirect=True)

ACCOUNT = "123456789012"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
TEAM = [{"Key": "team", "Value": "ota"}]


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(*actions: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), **more}


def trust(*actions: str, **more: Any) -> str:
    return document(allow(*actions, Principal={"AWS": ROOT}, **more))


TAGGING = ("sts:AssumeRole", "sts:TagSession")


@pytest.fixture
def door(work: SqlWork, place: Place) -> Iterator[SignedDoor]:
    with signed_door(work, place, SettableClock(WallClock().now())) as running:
        yield running


def keys(answer: dict[str, Any]) -> NewKeys:
    key = answer.get("AccessKey") or answer["Credentials"]
    token = key.get("SessionToken")
    return NewKeys(
        key_id=AccessKeyId(key["AccessKeyId"]),
        secret=Redacted(key["SecretAccessKey"]),
        created=WallClock().now(),
        token=Redacted(token) if token else None,
    )


def code(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**members)
    return str(caught.value.response["Error"]["Code"])


def role(door: SignedDoor, name: str, trust_document: str, *statements: dict[str, Any], tags: Any = ()) -> dict[str, str]:
    """What AssumeRole is asked for."""
    iam = door.client("iam")
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust_document, Tags=list(tags))["Role"]["Arn"]
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(*statements))
    return {"RoleArn": arn, "RoleSessionName": "s1"}


def own_team(*actions: str) -> dict[str, Any]:
    return allow(*actions, Resource="*", Condition={"StringEquals": {"aws:PrincipalTag/team": "ota"}})


def test_a_sessions_tags_outweigh_its_roles_and_decide(door: SignedDoor) -> None:
    wanted = role(door, "r", trust(*TAGGING), own_team("iam:ListUsers"), tags=[{"Key": "Team", "Value": "web"}])
    sts = door.client("sts")
    door.client("iam", keys(sts.assume_role(**wanted, Tags=TEAM))).list_users()
    assert code(door.client("iam", keys(sts.assume_role(**wanted))).list_users) == "AccessDenied"
    assert code(door.client("iam", keys(sts.assume_role(**wanted, Tags=[{"Key": "team", "Value": "x"}]))).list_users) == (
        "AccessDenied"
    )


def test_giving_tags_is_a_permission_of_its_own_with_its_conditions(door: SignedDoor) -> None:
    sts = door.client("sts")
    untagged = role(door, "untagged", trust("sts:AssumeRole"))
    sts.assume_role(**untagged)
    assert code(sts.assume_role, **untagged, Tags=TEAM) == "AccessDenied"
    condition = {
        "StringEquals": {"aws:RequestTag/team": "ota"},
        "ForAllValues:StringEquals": {"aws:TagKeys": ["team", "cost"], "sts:TransitiveTagKeys": ["team"]},
    }
    both = document(
        allow("sts:AssumeRole", Principal={"AWS": ROOT}),
        allow("sts:TagSession", Principal={"AWS": ROOT}, Condition=condition),
    )
    wanted = role(door, "both", both)
    sts.assume_role(**wanted, Tags=TEAM, TransitiveTagKeys=["team"])
    for tags, transitive in (
        ([{"Key": "team", "Value": "web"}], []),
        ([*TEAM, {"Key": "more", "Value": ""}], []),
        ([*TEAM, {"Key": "cost", "Value": "1"}], ["cost"]),
    ):
        assert code(sts.assume_role, **wanted, Tags=tags, TransitiveTagKeys=transitive) == "AccessDenied"


def test_transitive_tags_go_on_to_the_next_role_and_cant_be_changed_there(door: SignedDoor) -> None:
    first = role(door, "first", trust(*TAGGING), allow("sts:AssumeRole", "sts:TagSession", Resource="*"))
    second = role(door, "second", trust(*TAGGING), own_team("iam:ListUsers"))
    third = role(door, "third", trust(*TAGGING), own_team("iam:ListUsers"))
    iam = door.client("iam")
    iam.put_role_policy(
        RoleName="second",
        PolicyName="on",
        PolicyDocument=document(allow("sts:AssumeRole", "sts:TagSession", Resource="*")),
    )
    sts = door.client("sts")
    tags = [*TEAM, {"Key": "cost", "Value": "1"}]
    begun = door.client("sts", keys(sts.assume_role(**first, Tags=tags, TransitiveTagKeys=["team"])))
    on = keys(begun.assume_role(**second, Tags=[{"Key": "stage", "Value": "2"}]))
    door.client("iam", on).list_users()
    further = keys(door.client("sts", on).assume_role(**third))
    door.client("iam", further).list_users()
    assert code(begun.assume_role, **second, Tags=[{"Key": "Team", "Value": "web"}]) == "ValidationError"
    # What isn't transitive ends with its session.
    plain = door.client("sts", keys(sts.assume_role(**first, Tags=TEAM)))
    assert code(door.client("iam", keys(plain.assume_role(**second))).list_users) == "AccessDenied"


@pytest.mark.parametrize(
    ("tags", "transitive"),
    [
        ([{"Key": "a", "Value": "1"}, {"Key": "A", "Value": "2"}], []),
        (TEAM, ["other"]),
        ([], ["team"]),
        ([{"Key": f"k{number}", "Value": ""} for number in range(51)], []),
    ],
)
def test_tags_that_break_a_rule_are_refused(door: SignedDoor, tags: Any, transitive: Any) -> None:
    wanted = role(door, "r", trust(*TAGGING))
    assert code(door.client("sts").assume_role, **wanted, Tags=tags, TransitiveTagKeys=transitive) == "ValidationError"


def test_a_users_temporary_keys_are_the_user_but_for_identities(door: SignedDoor) -> None:
    iam = door.client("iam")
    iam.create_user(UserName="ann", Tags=TEAM)
    iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=document(allow("iam:*", "sts:*", Resource="*")))
    wanted = role(door, "r", trust("sts:AssumeRole"))
    ann = keys(iam.create_access_key(UserName="ann"))
    sts = door.client("sts", ann)
    own = keys(sts.get_session_token(DurationSeconds=900))
    assert own.key_id.startswith("ASIA")
    temporary = door.client("sts", own)
    assert temporary.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/ann"
    temporary.assume_role(**wanted)
    assert code(temporary.get_session_token) == "AccessDenied"
    assert code(door.client("iam", own).list_users) == "AccessDenied"
    assert code(sts.get_session_token, DurationSeconds=129_601) == "ValidationError"
    without = NewKeys(key_id=own.key_id, secret=own.secret, created=own.created)
    assert code(door.client("sts", without).get_caller_identity) == "InvalidClientTokenId"

    iam.update_user(UserName="ann", NewUserName="anna")
    assert temporary.get_caller_identity()["Arn"].endswith("user/anna")
    # Whoever takes the name later is another one.
    iam.delete_access_key(UserName="anna", AccessKeyId=ann.key_id)
    iam.delete_user_policy(UserName="anna", PolicyName="p")
    iam.delete_user(UserName="anna")
    iam.create_user(UserName="anna")
    assert code(temporary.get_caller_identity) == "InvalidClientTokenId"


def test_the_roots_temporary_keys_last_an_hour_at_most_and_end(door: SignedDoor) -> None:
    sts = door.client("sts")
    assert code(sts.get_session_token, DurationSeconds=3601) == "ValidationError"
    own = keys(sts.get_session_token())
    temporary = door.client("sts", own)
    assert temporary.get_caller_identity()["Arn"] == ROOT
    assert code(door.client("iam", own).list_users) == "AccessDenied"
    assert code(sts.get_session_token, SerialNumber="arn:aws:iam::123456789012:mfa/x", TokenCode="123456") == ("NotImplemented")
