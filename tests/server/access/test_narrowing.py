"""What narrows a right: permissions boundaries, session policies; and what a resource's own policy gives past them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.model import Owner, OwnerKind
from overair.server.access.sessions import Assumed
from overair.server.aws_protocol.operations import Caller
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room

ACCOUNT = AccountId("123456789012")
ANN = Owner(kind=OwnerKind.USER, name="ann")
ROLE = Owner(kind=OwnerKind.ROLE, name="r")
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/r"
SESSION_ARN = f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s1"


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str | list[str], **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": "*", **more}


def deny(action: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": "*", **more}


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> AccessRoom:
    return build_access_room(work, place, clock)


def authorise(room: AccessRoom, caller: Caller, service: str, operation: str, **request: Any) -> None:
    asyncio.run(room.authoriser.authorise(caller, service, operation, request))


def denial(room: AccessRoom, caller: Caller, service: str, operation: str, **request: Any) -> str:
    with pytest.raises(AccessDenied) as caught:
        authorise(room, caller, service, operation, **request)
    return caught.value.message


def managed(room: AccessRoom, name: str, *statements: dict[str, Any]) -> str:
    return room.work.run_blocking(lambda tx: room.policies.create(tx, ACCOUNT, name, document(*statements))).arn


def as_session(room: AccessRoom, assumed: Assumed) -> Caller:
    caller = room.caller("root")
    return replace(
        caller,
        principal_arn=assumed.session_arn,
        user_id=assumed.role_session_id,
        access_key_id=assumed.keys.key_id,
        is_root=False,
        session_name=assumed.session_name,
        context={"aws:PrincipalArn": (assumed.role.arn,)},
    )


def role(room: AccessRoom, trust: Any = f"arn:aws:iam::{ACCOUNT}:root", *statements: dict[str, Any]) -> None:
    trusting = document({"Effect": "Allow", "Principal": {"AWS": trust}, "Action": "sts:AssumeRole"})

    def make(tx: Tx) -> None:
        room.identities.create_role(tx, ACCOUNT, "r", trusting)
        room.policies.put_inline(tx, ACCOUNT, ROLE, "p", document(*(statements or (allow("*"),))))

    room.work.run_blocking(make)


def take_on(room: AccessRoom, caller: Caller | None = None, **more: Any) -> Assumed:
    asking = caller or room.caller("root")
    return room.work.run_blocking(lambda tx: room.sessions.assume(tx, asking, ROLE_ARN, "s1", **more))


# Boundaries -----------------------------------------------------------------------------------------------------------


def test_a_boundary_is_put_on_changed_and_taken_away(room: AccessRoom) -> None:
    room.user("ann", p=document(allow("iot:*")))
    ann = room.caller("ann")
    arn = managed(room, "b", allow("iot:List*"))
    room.work.run_blocking(lambda tx: room.identities.set_boundary(tx, ACCOUNT, ANN, arn))
    authorise(room, ann, "iot", "ListThings")
    assert denial(room, ann, "iot", "DeleteThing", thingName="t").endswith(
        "because no permissions boundary allows the iot:DeleteThing action"
    )
    with pytest.raises(Conflict):
        room.work.run_blocking(lambda tx: room.policies.delete(tx, ACCOUNT, arn))
    assert room.work.read_blocking(lambda tx: room.policies.boundary_counts(tx, ACCOUNT, [arn])) == {arn: 1}
    assert room.work.read_blocking(lambda tx: room.policies.bounded_by(tx, ACCOUNT, arn)) == [ANN]
    denying = document(allow("iot:*"), deny("iot:ListThings"))
    room.work.run_blocking(lambda tx: room.policies.add_version(tx, ACCOUNT, arn, denying, as_default=True))
    assert denial(room, ann, "iot", "ListThings").endswith("with an explicit deny in a permissions boundary")
    room.work.run_blocking(lambda tx: room.identities.set_boundary(tx, ACCOUNT, ANN, None))
    authorise(room, ann, "iot", "DeleteThing", thingName="t")
    for arn_given in (None, "arn:aws:iam::123456789012:policy/nothing", "arn:aws:iam::210987654321:policy/b"):
        with pytest.raises(NotFound):
            room.work.run_blocking(lambda tx, given=arn_given: room.identities.set_boundary(tx, ACCOUNT, ANN, given))


def test_who_may_make_users_only_within_a_boundary_can_not_make_himself_more(room: AccessRoom) -> None:
    boundary = managed(room, "b", allow("iot:*"))
    within = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
    making = ["iam:CreateUser", "iam:PutUserPolicy", "iam:AttachUserPolicy", "iam:PutUserPermissionsBoundary"]
    room.user("boss", p=document(allow(making, Condition=within), allow("iam:CreateAccessKey")))
    boss = room.caller("boss")
    authorise(room, boss, "iam", "CreateUser", UserName="ann", PermissionsBoundary=boundary)
    denial(room, boss, "iam", "CreateUser", UserName="ann")
    denial(room, boss, "iam", "CreateUser", UserName="ann", PermissionsBoundary="arn:aws:iam::aws:policy/AdministratorAccess")
    room.user("free")
    room.work.run_blocking(lambda tx: room.identities.create_user(tx, ACCOUNT, "bounded", boundary_arn=boundary))
    policy = document(allow("*"))
    authorise(room, boss, "iam", "PutUserPolicy", UserName="bounded", PolicyName="p", PolicyDocument=policy)
    denial(room, boss, "iam", "PutUserPolicy", UserName="free", PolicyName="p", PolicyDocument=policy)
    denial(room, boss, "iam", "PutUserPolicy", UserName="boss", PolicyName="p", PolicyDocument=policy)
    denial(room, boss, "iam", "DeleteUserPermissionsBoundary", UserName="bounded")
    denial(
        room,
        boss,
        "iam",
        "PutUserPermissionsBoundary",
        UserName="bounded",
        PermissionsBoundary="arn:aws:iam::aws:policy/AdministratorAccess",
    )


def test_attaching_can_be_bound_to_policies_and_changing_to_tags(room: AccessRoom) -> None:
    room.user("ann")
    room.work.run_blocking(lambda tx: room.identities.tag(tx, ACCOUNT, ANN, {"team": "ota"}))
    room.user(
        "boss",
        p=document(
            allow("iam:AttachUserPolicy", Condition={"ArnLike": {"iam:PolicyARN": "arn:aws:iam::aws:policy/Read*"}}),
            allow("iam:DeleteUser", Condition={"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}}),
        ),
    )
    boss = room.caller("boss")
    authorise(room, boss, "iam", "AttachUserPolicy", UserName="ann", PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
    denial(room, boss, "iam", "AttachUserPolicy", UserName="ann", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    denial(room, boss, "iam", "DeleteUser", UserName="ann")
    tagged = replace(boss, context={**boss.context, "aws:PrincipalTag/team": ("ota",)})
    authorise(room, tagged, "iam", "DeleteUser", UserName="ann")
    denial(room, tagged, "iam", "DeleteUser", UserName="boss")


def test_a_right_can_be_bound_to_the_tags_of_what_it_is_about(room: AccessRoom) -> None:
    mine, yours = (f"arn:aws:iot:us-east-1:{ACCOUNT}:thing/{name}" for name in ("mine", "yours"))
    room.tags.by_arn = {mine: {"team": "ota"}, yours: {"team": "web"}}
    tagged = {"StringEquals": {"aws:ResourceTag/team": "ota"}}
    room.user("ann", p=document(allow(["iot:CreateJob", "iot:DescribeThing"], Condition=tagged)))
    room.user("ben", p=document(allow("iot:*")))
    ann = room.caller("ann")
    authorise(room, ann, "iot", "DescribeThing", thingName="mine")
    denial(room, ann, "iot", "DescribeThing", thingName="yours")
    denial(room, ann, "iot", "DescribeThing", thingName="untagged")
    job = f"arn:aws:iot:us-east-1:{ACCOUNT}:job/j"
    room.tags.by_arn[job] = {"team": "ota"}
    authorise(room, ann, "iot", "CreateJob", jobId="j", targets=[mine])
    refused = denial(room, ann, "iot", "CreateJob", jobId="j", targets=[mine, f"{mine}-untagged"])
    assert f"{mine}-untagged" in refused, "one resource's tags say nothing of the next"
    read = room.tags.reads
    authorise(room, room.caller("ben"), "iot", "DescribeThing", thingName="mine")
    assert room.tags.reads == read, "whoever's policies don't depend on tags pays nothing for them"


def test_renaming_needs_the_right_to_both_names(room: AccessRoom) -> None:
    room.user("ann")
    room.user("boss", p=document({**allow("iam:UpdateUser"), "Resource": f"arn:aws:iam::{ACCOUNT}:user/a*"}))
    boss = room.caller("boss")
    authorise(room, boss, "iam", "UpdateUser", UserName="ann", NewUserName="anna")
    assert f"{ACCOUNT}:user/root-like" in denial(room, boss, "iam", "UpdateUser", UserName="ann", NewUserName="root-like")
    assert f"{ACCOUNT}:user/x/ann" in denial(room, boss, "iam", "UpdateUser", UserName="ann", NewPath="/x/")


# Sessions -------------------------------------------------------------------------------------------------------------


def test_a_session_may_what_role_document_and_managed_policies_allow_together(room: AccessRoom) -> None:
    role(room, f"arn:aws:iam::{ACCOUNT}:root", allow(["iot:*", "s3:*"]))
    reading = managed(room, "reading", allow("iot:List*"))
    whole = as_session(room, take_on(room))
    authorise(room, whole, "iot", "DeleteThing", thingName="t")
    by_document = as_session(room, take_on(room, policy_document=document(allow(["iot:DeleteThing", "acm:*"]))))
    authorise(room, by_document, "iot", "DeleteThing", thingName="t")
    assert denial(room, by_document, "iot", "ListThings").endswith("because no session policy allows the iot:ListThings action")
    denial(room, by_document, "acm", "ListCertificates")
    by_arn = as_session(room, take_on(room, policy_arns=[reading]))
    authorise(room, by_arn, "iot", "ListThings")
    denial(room, by_arn, "iot", "DeleteThing", thingName="t")
    both = as_session(room, take_on(room, policy_arns=[reading], policy_document=document(allow("iot:DeleteThing"))))
    authorise(room, both, "iot", "ListThings")
    authorise(room, both, "iot", "DeleteThing", thingName="t")
    denial(room, both, "iot", "CreateThing", thingName="t")
    denying = document(allow("*"), deny("iot:ListThings"))
    refused = denial(room, as_session(room, take_on(room, policy_document=denying)), "iot", "ListThings")
    assert refused.endswith("with an explicit deny in a session policy")


def test_a_session_policy_that_is_gone_allows_nothing(room: AccessRoom) -> None:
    role(room)
    reading = managed(room, "reading", allow("iot:List*"))
    session = as_session(room, take_on(room, policy_arns=[reading]))
    authorise(room, session, "iot", "ListThings")
    room.work.run_blocking(lambda tx: room.policies.delete(tx, ACCOUNT, reading))
    denial(room, session, "iot", "ListThings")


def test_what_a_session_asks_for_is_checked(room: AccessRoom) -> None:
    role(room)
    for asked in (
        {"policy_arns": ["arn:aws:iam::123456789012:policy/nothing"]},
        {"policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"] * 11},
        {"policy_document": "{"},
        {"policy_document": document(allow("iot:" + "a" * 2048))},
        {"duration_s": 899},
        {"duration_s": 3601},
    ):
        with pytest.raises(InvalidRequest):
            take_on(room, **asked)


def test_a_session_that_takes_on_a_role_has_it_for_an_hour_at_most(room: AccessRoom) -> None:
    role(room)
    room.work.run_blocking(lambda tx: room.identities.change_role(tx, ACCOUNT, "r", session_s_max=7200))
    first = as_session(room, take_on(room, duration_s=7200))
    with pytest.raises(InvalidRequest, match="chaining"):
        take_on(room, first, duration_s=3601)
    take_on(room, first, duration_s=3600)


def test_a_trust_policy_asks_for_the_external_id_and_the_sessions_name(room: AccessRoom) -> None:
    conditions = {"StringEquals": {"sts:ExternalId": "42", "sts:RoleSessionName": "s1"}}
    trusting = document(
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/ann"},
            "Action": "sts:AssumeRole",
            "Condition": conditions,
        }
    )
    room.work.run_blocking(lambda tx: room.identities.create_role(tx, ACCOUNT, "r", trusting))
    room.user("ann")
    ann = room.caller("ann")
    take_on(room, ann, external_id="42")
    for other in (None, "43"):
        with pytest.raises(AccessDenied):
            take_on(room, ann, external_id=other)
    with pytest.raises(AccessDenied):
        room.work.run_blocking(lambda tx: room.sessions.assume(tx, ann, ROLE_ARN, "s2", external_id="42"))


# A resource's own policy ----------------------------------------------------------------------------------------------


def bucket_policy(principal: Any, effect: str = "Allow", **more: Any) -> str:
    statement = {"Effect": effect, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*", **more}
    return document({**statement, **({} if principal is None else {"Principal": principal})})


@pytest.mark.parametrize(
    ("principal", "passes"),
    [
        ({"AWS": SESSION_ARN}, True),
        ({"AWS": ROLE_ARN}, False),
        ("*", False),
        ({"AWS": "*"}, False),
    ],
)
def test_a_bucket_gives_past_a_session_policy_only_to_that_very_session(room: AccessRoom, principal: Any, passes: bool) -> None:
    role(room, f"arn:aws:iam::{ACCOUNT}:root", allow("iot:*"))
    plain = as_session(room, take_on(room))
    narrowed = as_session(room, take_on(room, policy_document=document(allow("iot:*"))))
    room.buckets.policies["b"] = bucket_policy(principal)
    authorise(room, plain, "s3", "GetObject", Bucket="b", Key="k")
    if passes:
        authorise(room, narrowed, "s3", "GetObject", Bucket="b", Key="k")
    else:
        denial(room, narrowed, "s3", "GetObject", Bucket="b", Key="k")


def test_a_bucket_gives_to_a_named_user_whatever_his_boundary_but_not_past_its_deny(room: AccessRoom) -> None:
    arn = managed(room, "b", allow("iot:*"))
    room.work.run_blocking(lambda tx: room.identities.create_user(tx, ACCOUNT, "ann", boundary_arn=arn))
    ann = room.caller("ann")
    room.buckets.policies["b"] = bucket_policy("*")
    denial(room, ann, "s3", "GetObject", Bucket="b", Key="k")
    room.buckets.policies["b"] = bucket_policy({"AWS": f"arn:aws:iam::{ACCOUNT}:user/ann"})
    authorise(room, ann, "s3", "GetObject", Bucket="b", Key="k")
    denying = document(allow("iot:*"), deny("s3:GetObject"))
    room.work.run_blocking(lambda tx: room.policies.add_version(tx, ACCOUNT, arn, denying, as_default=True))
    denial(room, ann, "s3", "GetObject", Bucket="b", Key="k")


def test_not_principal_denies_everyone_else(room: AccessRoom) -> None:
    for name in ("ann", "ben"):
        room.user(name, p=document(allow("s3:*")))
    not_ann = {"NotPrincipal": {"AWS": [f"arn:aws:iam::{ACCOUNT}:user/ann", f"arn:aws:iam::{ACCOUNT}:root"]}}
    room.buckets.policies["b"] = bucket_policy(None, "Deny", **not_ann)
    authorise(room, room.caller("ann"), "s3", "GetObject", Bucket="b", Key="k")
    denial(room, room.caller("ben"), "s3", "GetObject", Bucket="b", Key="k")
    authorise(room, room.caller("root"), "s3", "GetObject", Bucket="b", Key="k")
    role(room)
    session = as_session(room, take_on(room))
    for named, passes in (([SESSION_ARN], False), ([ROLE_ARN], False), ([SESSION_ARN, ROLE_ARN], True)):
        room.buckets.policies["b"] = bucket_policy(None, "Deny", NotPrincipal={"AWS": named})
        if passes:
            authorise(room, session, "s3", "GetObject", Bucket="b", Key="k")
        else:
            denial(room, session, "s3", "GetObject", Bucket="b", Key="k")


def test_a_roles_boundary_narrows_what_the_service_does_with_it(room: AccessRoom) -> None:
    trusting = document({"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"})
    arn = managed(room, "b", allow("s3:GetObject"))

    def make(tx: Tx) -> None:
        room.identities.create_role(tx, ACCOUNT, "r", trusting)
        room.policies.put_inline(tx, ACCOUNT, ROLE, "p", document(allow("*")))
        room.identities.set_boundary(tx, ACCOUNT, ROLE, arn)

    room.work.run_blocking(make)

    def do(action: str, resource_policy: str | None = None) -> None:
        def run(tx: Tx) -> None:
            taken = room.service.assume_as_service(
                tx, room.place, ROLE_ARN, source_arn="arn:aws:iot:us-east-1:123456789012:job/j"
            )
            room.service.require_for_role(tx, taken, action, "arn:aws:s3:::b/k", resource_policy=resource_policy)

        room.work.read_blocking(run)

    do("s3:GetObject")
    with pytest.raises(AccessDenied, match="permissions boundary"):
        do("s3:PutObject")
    with pytest.raises(AccessDenied):
        do("s3:PutObject", bucket_policy({"AWS": ROLE_ARN}, Action="s3:PutObject"))
    do("s3:PutObject", bucket_policy({"Service": "iot.amazonaws.com"}, Action="s3:PutObject"))
