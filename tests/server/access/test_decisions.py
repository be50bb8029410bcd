"""Who may do what: identity policies, boundaries, sessions, roles of services, buckets' policies, the table."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import botocore
import pytest

from overair import server
from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import AccessDenied, InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.actions import operation_table
from overair.server.access.aws_managed import AWS_MANAGED, DOCUMENTS
from overair.server.access.grants import Grants
from overair.server.access.model import AssumedRole, Owner, OwnerKind
from overair.server.access.service import judge
from overair.server.aws_protocol.operations import _MARK, Caller
from overair.server.policy_language.document import Kind, parse_policy
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Question
from overair.server.rest import door as rest
from overair.server.rest.operations import _ROUTES
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room

ACCOUNT = AccountId("123456789012")
IOT = "arn:aws:iot:us-east-1:123456789012:"
UPDATE_ARN = IOT + "otaupdate/u1"
ANN = Owner(kind=OwnerKind.USER, name="ann")


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def trust(principal: Any, **more: Any) -> str:
    return document({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more})


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> AccessRoom:
    return build_access_room(work, place, clock)


def authorise(room: AccessRoom, caller: Caller, service: str, operation: str, **request: Any) -> str:
    return asyncio.run(room.authoriser.authorise(caller, service, operation, request))


def denial(room: AccessRoom, caller: Caller, service: str, operation: str, **request: Any) -> str:
    with pytest.raises(AccessDenied) as caught:
        authorise(room, caller, service, operation, **request)
    assert caught.value.subject == "action"
    return caught.value.message


def test_a_denial_reads_as_in_the_cloud(room: AccessRoom) -> None:
    room.user("ann", p=document(deny("iot:DeleteJob")))
    ann = room.caller("ann")
    assert denial(room, ann, "iot", "CreateJob", jobId="j", targets=[]) == (
        "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: iot:CreateJob on resource: "
        f"{IOT}job/j because no identity-based policy allows the iot:CreateJob action"
    )
    assert denial(room, ann, "iot", "DeleteJob", jobId="j").endswith(
        f"iot:DeleteJob on resource: {IOT}job/j with an explicit deny in an identity-based policy"
    )


def test_a_permission_given_and_taken_counts_from_the_next_request(room: AccessRoom) -> None:
    room.user("ann")
    ann = room.caller("ann")
    denial(room, ann, "iot", "DescribeThing", thingName="t")
    grant = document(allow("iot:DescribeThing", IOT + "thing/t"))
    room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, ANN, "p", grant))
    assert authorise(room, ann, "iot", "DescribeThing", thingName="t") == IOT + "thing/t"
    denial(room, ann, "iot", "DescribeThing", thingName="t2")
    denial(room, ann, "iot", "UpdateThing", thingName="t")
    room.work.run_blocking(lambda tx: room.policies.delete_inline(tx, ACCOUNT, ANN, "p"))
    denial(room, ann, "iot", "DescribeThing", thingName="t")


def test_who_remembers_a_grant_is_told_before_the_change_is_acknowledged(room: AccessRoom) -> None:
    told: list[str] = []
    room.grants.watched_by(lambda: told.append("changed"))
    room.user("ann")
    told.clear()
    room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, ANN, "p", document(allow("iot:*"))))
    assert told == ["changed"]
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, ANN, "p", "{}"))
    assert told == ["changed"]


def test_the_root_needs_no_policy_and_an_unknown_operation_is_denied_to_it_too(room: AccessRoom) -> None:
    root = room.caller("root")
    assert authorise(room, root, "iot", "DeleteThing", thingName="t") == IOT + "thing/t"
    assert "no rule is known" in denial(room, root, "iot", "NoSuchOperation")
    assert "no rule is known" in denial(room, root, "nothing", "CreateThing")


def test_a_managed_policy_counts_while_attached_and_in_its_default_version(room: AccessRoom) -> None:
    room.user("ann")
    ann = room.caller("ann")
    policy = room.work.run_blocking(lambda tx: room.policies.create(tx, ACCOUNT, "p", document(allow("iot:ListThings"))))
    room.work.run_blocking(lambda tx: room.policies.attach(tx, ACCOUNT, ANN, policy.arn))
    authorise(room, ann, "iot", "ListThings")
    nothing = document(allow("iot:ListJobs"))
    room.work.run_blocking(lambda tx: room.policies.add_version(tx, ACCOUNT, policy.arn, nothing, as_default=True))
    denial(room, ann, "iot", "ListThings")
    room.work.run_blocking(lambda tx: room.policies.set_default_version(tx, ACCOUNT, policy.arn, "v1"))
    authorise(room, ann, "iot", "ListThings")
    room.work.run_blocking(lambda tx: room.policies.detach(tx, ACCOUNT, ANN, policy.arn))
    denial(room, ann, "iot", "ListThings")


def test_a_boundary_narrows_and_grants_nothing(room: AccessRoom) -> None:
    boundary = room.work.run_blocking(lambda tx: room.policies.create(tx, ACCOUNT, "b", document(allow("iot:List*"))))

    def make(tx: Tx) -> None:
        room.identities.create_user(tx, ACCOUNT, "ann", boundary_arn=boundary.arn)

    room.work.run_blocking(make)
    ann = room.caller("ann")
    denial(room, ann, "iot", "ListThings")
    room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, ANN, "p", document(allow("iot:*"))))
    authorise(room, ann, "iot", "ListThings")
    denial(room, ann, "iot", "DeleteThing", thingName="t")


def test_the_2018_name_of_an_update_opens_and_denies_it_too(room: AccessRoom) -> None:
    room.user("old", p=document(allow("iot:CreateDeployment")))
    room.user("new", p=document(allow("iot:CreateOTAUpdate")))
    room.user("denied", p=document(allow("iot:*"), deny("iot:CreateDeployment")))
    for name in ("old", "new"):
        assert authorise(room, room.caller(name), "iot", "CreateOTAUpdate", otaUpdateId="u1") == UPDATE_ARN
    assert "iot:CreateOTAUpdate" in denial(room, room.caller("denied"), "iot", "CreateOTAUpdate", otaUpdateId="u1")


def test_a_job_needs_its_targets_too(room: AccessRoom) -> None:
    room.user("ann", p=document(allow("iot:CreateJob", [IOT + "job/*", IOT + "thing/mine-*"])))
    ann = room.caller("ann")
    authorise(room, ann, "iot", "CreateJob", jobId="j", targets=[IOT + "thing/mine-1"])
    refused = denial(room, ann, "iot", "CreateJob", jobId="j", targets=[IOT + "thing/mine-1", IOT + "thing/yours"])
    assert f"on resource: {IOT}thing/yours " in refused


def test_moving_a_thing_between_groups_needs_each_group(room: AccessRoom) -> None:
    mine = [IOT + "thing/mine", IOT + "thinggroup/mine-*"]
    room.user("ann", p=document(allow("iot:UpdateThingGroupsForThing", mine)))
    ann = room.caller("ann")
    move = ("iot", "UpdateThingGroupsForThing")
    authorise(room, ann, *move, thingName="mine", thingGroupsToAdd=["mine-1"], thingGroupsToRemove=["mine-2"])
    refused = denial(room, ann, *move, thingName="mine", thingGroupsToAdd=["mine-1", "yours"])
    assert f"on resource: {IOT}thinggroup/yours " in refused
    refused = denial(room, ann, *move, thingName="mine", thingGroupsToRemove=["yours"])
    assert f"on resource: {IOT}thinggroup/yours " in refused
    denial(room, ann, *move, thingName="yours", thingGroupsToAdd=["mine-1"])


@pytest.mark.parametrize("operation", ["AddThingToThingGroup", "RemoveThingFromThingGroup"])
def test_a_thing_and_a_group_named_by_arn_are_judged_by_those_arns(room: AccessRoom, operation: str) -> None:
    thing, group = IOT + "thing/mine", IOT + "thinggroup/mine"
    room.user("ann", p=document(allow(f"iot:{operation}", [thing, group])))
    ann = room.caller("ann")
    authorise(room, ann, "iot", operation, thingArn=thing, thingGroupArn=group)
    authorise(room, ann, "iot", operation, thingName="mine", thingGroupArn=group)
    yours = IOT + "thinggroup/yours"
    assert f"on resource: {yours} " in denial(room, ann, "iot", operation, thingArn=thing, thingGroupArn=yours)
    denial(room, ann, "iot", operation, thingArn=IOT + "thing/yours", thingGroupArn=group)
    # Neither name nor ARN: the permission must hold for every name.
    denial(room, ann, "iot", operation, thingArn=thing)


def test_retaining_a_message_needs_a_permission_of_its_own(room: AccessRoom) -> None:
    room.user("ann", p=document(allow("iot:Publish")))
    ann = room.caller("ann")
    authorise(room, ann, "iot-data", "Publish", topic="a/b")
    assert f"iot:RetainPublish on resource: {IOT}topic/a/b " in denial(
        room, ann, "iot-data", "Publish", topic="a/b", retain=True
    )


def test_a_member_left_out_needs_the_permission_for_every_name(room: AccessRoom) -> None:
    room.user("ann", p=document(allow("iot:CreateJob", IOT + "job/a*")))
    room.user("ben", p=document(allow("iot:CreateJob", IOT + "job/*")))
    denial(room, room.caller("ann"), "iot", "CreateJob", targets=[])
    authorise(room, room.caller("ben"), "iot", "CreateJob", targets=[])


def test_tags_of_a_request_are_conditions(room: AccessRoom) -> None:
    condition = {"StringEquals": {"aws:RequestTag/env": "dev"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["env"]}}
    room.user("ann", p=document(allow("iot:CreateStream", Condition=condition)))
    ann = room.caller("ann")
    authorise(room, ann, "iot", "CreateStream", streamId="s", tags=[{"Key": "env", "Value": "dev"}])
    denial(room, ann, "iot", "CreateStream", streamId="s", tags=[{"Key": "env", "Value": "prod"}])
    denial(room, ann, "iot", "CreateStream", streamId="s", tags=[{"Key": "env", "Value": "dev"}, {"Key": "x", "Value": ""}])
    denial(room, ann, "iot", "CreateStream", streamId="s")


def test_iam_names_users_and_roles_with_their_path(room: AccessRoom) -> None:
    room.work.run_blocking(
        lambda tx: room.identities.create_role(tx, ACCOUNT, "r", trust({"Service": "iot.amazonaws.com"}), path="/team/")
    )
    team, own = "arn:aws:iam::123456789012:role/team/*", "arn:aws:iam::123456789012:user/${aws:username}"
    room.user("ann", p=document(allow("iam:GetRole", team), allow("iam:GetUser", own)))
    ann = room.caller("ann")
    assert authorise(room, ann, "iam", "GetRole", RoleName="r") == "arn:aws:iam::123456789012:role/team/r"
    denial(room, ann, "iam", "GetRole", RoleName="other")
    assert authorise(room, ann, "iam", "GetUser") == "arn:aws:iam::123456789012:user/ann"
    denial(room, ann, "iam", "GetUser", UserName="ben")
    denial(room, ann, "iam", "CreateRole", RoleName="r2", Path="/team/")
    authorise(room, ann, "sts", "GetCallerIdentity")


# Buckets --------------------------------------------------------------------------------------------------------------


def bucket_policy(effect: str, principal: Any, action: str, resource: str, **more: Any) -> str:
    return document({"Effect": effect, "Principal": principal, "Action": action, "Resource": resource, **more})


def test_a_bucket_policy_can_allow_and_can_deny(room: AccessRoom) -> None:
    room.user("ann")
    room.user("ben", p=document(allow("s3:*")))
    ann, ben, root = (room.caller(name) for name in ("ann", "ben", "root"))
    arn = {"AWS": "arn:aws:iam::123456789012:user/ann"}
    denial(room, ann, "s3", "GetObject", Bucket="b", Key="k")
    room.buckets.policies["b"] = bucket_policy("Allow", arn, "s3:GetObject", "arn:aws:s3:::b/*")
    assert authorise(room, ann, "s3", "GetObject", Bucket="b", Key="k") == "arn:aws:s3:::b/k"
    denial(room, ann, "s3", "GetObject", Bucket="b", Key="k", VersionId="v")
    denial(room, ann, "s3", "GetObject", Bucket="b2", Key="k")
    authorise(room, ben, "s3", "DeleteObject", Bucket="b", Key="k")
    room.buckets.policies["b"] = bucket_policy("Deny", "*", "s3:*", "arn:aws:s3:::b/*")
    refused = denial(room, ben, "s3", "DeleteObject", Bucket="b", Key="k")
    assert refused.endswith("with an explicit deny in a resource-based policy")
    denial(room, root, "s3", "DeleteObject", Bucket="b", Key="k")
    room.buckets.policies["b"] = bucket_policy("Deny", "*", "s3:*", "arn:aws:s3:::b")
    authorise(room, root, "s3", "DeleteBucketPolicy", Bucket="b")
    denial(room, ben, "s3", "DeleteBucketPolicy", Bucket="b")


def test_a_bucket_policy_that_names_the_account_leaves_it_to_the_account(room: AccessRoom) -> None:
    room.user("ann")
    for principal in ({"AWS": "arn:aws:iam::123456789012:root"}, {"AWS": "123456789012"}):
        room.buckets.policies["b"] = bucket_policy("Allow", principal, "s3:GetObject", "arn:aws:s3:::b/*")
        denial(room, room.caller("ann"), "s3", "GetObject", Bucket="b", Key="k")


def test_a_copy_needs_reading_the_source_and_writing_the_target(room: AccessRoom) -> None:
    room.user("ann", p=document(allow("s3:GetObject", "arn:aws:s3:::from/*"), allow("s3:PutObject", "arn:aws:s3:::to/*")))
    ann = room.caller("ann")
    authorise(room, ann, "s3", "CopyObject", Bucket="to", Key="k", CopySource="from/a%20b")
    assert "arn:aws:s3:::secret/x" in denial(room, ann, "s3", "CopyObject", Bucket="to", Key="k", CopySource="/secret/x")
    assert "s3:GetObjectVersion" in denial(room, ann, "s3", "CopyObject", Bucket="to", Key="k", CopySource="from/x?versionId=1")
    assert "s3:PutObject" in denial(room, ann, "s3", "CopyObject", Bucket="from", Key="k", CopySource="from/x")


def test_deleting_many_needs_each(room: AccessRoom) -> None:
    room.user("ann", p=document(allow("s3:DeleteObject", "arn:aws:s3:::b/mine/*")))
    ann = room.caller("ann")
    authorise(room, ann, "s3", "DeleteObjects", Bucket="b", Delete={"Objects": [{"Key": "mine/1"}, {"Key": "mine/2"}]})
    denial(room, ann, "s3", "DeleteObjects", Bucket="b", Delete={"Objects": [{"Key": "mine/1"}, {"Key": "other"}]})
    denial(room, ann, "s3", "DeleteObjects", Bucket="b", Delete={"Objects": [{"Key": "mine/1", "VersionId": "v"}]})


def test_listing_can_be_bound_to_a_prefix(room: AccessRoom) -> None:
    room.user("ann", p=document(allow("s3:ListBucket", Condition={"StringLike": {"s3:prefix": "${aws:username}/*"}})))
    ann = room.caller("ann")
    authorise(room, ann, "s3", "ListObjectsV2", Bucket="b", Prefix="ann/x")
    denial(room, ann, "s3", "ListObjectsV2", Bucket="b", Prefix="ben/x")
    denial(room, ann, "s3", "ListObjectsV2", Bucket="b")


# Roles of services ----------------------------------------------------------------------------------------------------

SERVICE = {"Service": "iot.amazonaws.com"}


def make_role(room: AccessRoom, name: str, trust_document: str, *inline: dict[str, Any]) -> str:
    def make(tx: Tx) -> str:
        role = room.identities.create_role(tx, ACCOUNT, name, trust_document)
        if inline:
            owner = Owner(kind=OwnerKind.ROLE, name=name)
            room.policies.put_inline(tx, ACCOUNT, owner, "p", document(*inline))
        return role.arn

    return room.work.run_blocking(make)


def assume(room: AccessRoom, role_arn: str, source_arn: str = UPDATE_ARN) -> AssumedRole:
    return room.work.read_blocking(lambda tx: room.service.assume_as_service(tx, room.place, role_arn, source_arn=source_arn))


def test_the_service_takes_on_a_role_that_trusts_it(room: AccessRoom) -> None:
    role = assume(room, make_role(room, "r", trust(SERVICE)))
    assert (role.role_name, role.source_arn) == ("r", UPDATE_ARN)
    conditions = {"StringEquals": {"aws:SourceAccount": ACCOUNT}, "ArnLike": {"aws:SourceArn": IOT + "*"}}
    assume(room, make_role(room, "narrow", trust(SERVICE, Condition=conditions)))
    elsewhere = {"ArnLike": {"aws:SourceArn": "arn:aws:iot:us-east-1:999999999999:*"}}
    for name, document_ in (
        ("other-service", trust({"Service": "lambda.amazonaws.com"})),
        ("other-account", trust(SERVICE, Condition={"StringEquals": {"aws:SourceAccount": "999999999999"}})),
        ("other-source", trust(SERVICE, Condition=elsewhere)),
        ("jobs-only", trust(SERVICE, Condition={"ArnLike": {"aws:SourceArn": IOT + "job/*"}})),
    ):
        arn = make_role(room, name, document_)
        with pytest.raises(InvalidRequest, match="cannot be assumed") as caught:
            assume(room, arn)
        assert caught.value.subject == "role"
    prefix = "arn:aws:iam::123456789012:"
    for arn in (prefix + "role/none", prefix + "role/x/r", "arn:aws:iam::999999999999:role/r", prefix + "user/r", "r"):
        with pytest.raises(InvalidRequest):
            assume(room, arn)


def test_a_role_may_what_its_policies_or_the_buckets_own_allow(room: AccessRoom) -> None:
    role = assume(room, make_role(room, "r", trust(SERVICE), allow("iot:CreateJob"), deny("s3:GetObject")))

    def may(action: str, resource: str, policy: str | None = None) -> None:
        room.work.read_blocking(lambda tx: room.service.require_for_role(tx, role, action, resource, resource_policy=policy))

    may("iot:CreateJob", IOT + "job/j")
    for action in ("iot:CreateStream", "s3:GetObjectVersion"):
        with pytest.raises(AccessDenied, match=action):
            may(action, "arn:aws:s3:::b/k")
    resource = "arn:aws:s3:::b/k"
    may("s3:GetObjectVersion", resource, bucket_policy("Allow", SERVICE, "s3:GetObjectVersion", "arn:aws:s3:::b/*"))
    may("s3:GetObjectVersion", resource, bucket_policy("Allow", {"AWS": role.role_arn}, "s3:Get*", "arn:aws:s3:::b/*"))
    for principal in ({"Service": "lambda.amazonaws.com"}, {"AWS": "arn:aws:iam::123456789012:user/ann"}):
        with pytest.raises(AccessDenied):
            may("s3:GetObjectVersion", resource, bucket_policy("Allow", principal, "s3:*", "arn:aws:s3:::b/*"))
    with pytest.raises(AccessDenied, match="explicit deny in an identity-based"):
        may("s3:GetObject", resource, bucket_policy("Allow", SERVICE, "s3:*", "arn:aws:s3:::b/*"))
    with pytest.raises(AccessDenied, match="explicit deny in a resource-based"):
        may("iot:CreateJob", resource, bucket_policy("Deny", SERVICE, "*", "arn:aws:s3:::b/*"))


def test_passing_a_role_is_a_permission_of_its_own(room: AccessRoom) -> None:
    arn = make_role(room, "r", trust(SERVICE))
    other = make_role(room, "r2", trust(SERVICE))
    condition = {"StringEquals": {"iam:PassedToService": "iot.amazonaws.com"}}
    room.user("ann", p=document(allow("iam:PassRole", arn, Condition=condition)))
    room.user("ben", p=document(allow("iot:*")))

    def pass_role(name: str, role_arn: str) -> None:
        room.work.read_blocking(lambda tx: room.service.require_pass_role(tx, room.caller(name), role_arn))

    pass_role("ann", arn)
    pass_role("root", other)
    with pytest.raises(AccessDenied, match=rf"iam:PassRole on resource: {other} "):
        pass_role("ann", other)
    with pytest.raises(AccessDenied, match="iam:PassRole"):
        pass_role("ben", arn)
    with pytest.raises(AccessDenied):
        pass_role("root", "arn:aws:iam::999999999999:role/r")
    with pytest.raises(InvalidRequest) as caught:
        pass_role("root", "not an arn")
    assert caught.value.subject == "role"


# Sessions -------------------------------------------------------------------------------------------------------------


def session_caller(room: AccessRoom, role: str, key_id: str, user_id: str) -> Caller:
    arn = f"arn:aws:sts::123456789012:assumed-role/{role}/s1"
    context = {"aws:PrincipalArn": (f"arn:aws:iam::123456789012:role/{role}",)}
    return Caller(
        place=room.place, principal_arn=arn, user_id=user_id, access_key_id=key_id, now=room.clock.now(), context=context
    )


def take_on(room: AccessRoom, name: str, role: str, **options: Any) -> Caller:
    arn = f"arn:aws:iam::123456789012:role/{role}"
    taken = room.work.run_blocking(lambda tx: room.sessions.assume(tx, room.caller(name), arn, "s1", **options))
    return session_caller(room, role, taken.keys.key_id, taken.role_session_id)


def test_a_role_is_taken_on_by_whom_its_trust_names(room: AccessRoom) -> None:
    room.user("ann")
    room.user("ben", p=document(allow("sts:AssumeRole")))
    room.user("eve", p=document(deny("sts:AssumeRole")))
    ann = {"AWS": ["arn:aws:iam::123456789012:user/ann", "arn:aws:iam::123456789012:user/eve"]}
    make_role(room, "named", trust(ann), allow("iot:ListThings"))
    make_role(room, "account", trust({"AWS": "arn:aws:iam::123456789012:root"}), allow("iot:ListThings"))
    make_role(room, "service", trust(SERVICE))
    authorise(room, take_on(room, "ann", "named"), "iot", "ListThings")
    authorise(room, take_on(room, "ben", "account"), "iot", "ListThings")
    take_on(room, "root", "account")
    refused = {"ben": "named", "ann": "account", "eve": "named", "root": "service"}
    for name, role in (*refused.items(), ("eve", "account"), ("ben", "none")):
        with pytest.raises(AccessDenied, match="sts:AssumeRole"):
            take_on(room, name, role)


def test_a_session_policy_narrows_that_session_alone(room: AccessRoom) -> None:
    room.user("ann")
    make_role(room, "r", trust({"AWS": "arn:aws:iam::123456789012:user/ann"}), allow("iot:List*"))
    wide = take_on(room, "ann", "r")
    narrow = take_on(room, "ann", "r", policy_document=document(allow(["iot:ListJobs", "iot:DeleteJob"])))
    authorise(room, wide, "iot", "ListThings")
    authorise(room, narrow, "iot", "ListJobs")
    denial(room, narrow, "iot", "ListThings")
    denial(room, narrow, "iot", "DeleteJob", jobId="j")


@pytest.mark.parametrize(("name", "seconds"), [("x", 3600), ("a b", 3600), ("ok", 899), ("ok", 3601)])
def test_a_session_is_named_and_bounded(room: AccessRoom, name: str, seconds: int) -> None:
    make_role(room, "r", trust({"AWS": "123456789012"}))
    arn = "arn:aws:iam::123456789012:role/r"
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: room.sessions.assume(tx, room.caller("root"), arn, name, duration_s=seconds))


# The table ------------------------------------------------------------------------------------------------------------


def model(service: str) -> dict[str, Any]:
    (path,) = sorted((Path(botocore.__file__).parent / "data" / service).glob("*/service-2.json.gz"))[-1:]
    return json.loads(gzip.decompress(path.read_bytes()))


def marked_operations() -> set[tuple[str, str]]:
    """What every door in the server's rooms marks with ``@operation`` or ``@route``."""
    found: set[tuple[str, str]] = set()
    for module in pkgutil.walk_packages(server.__path__, "overair.server."):
        name = module.name.rpartition(".")[2]
        if "operator" not in name and not name.endswith("_api"):
            continue
        for member in vars(importlib.import_module(module.name)).values():
            if isinstance(member, type) and member.__module__ == module.name:
                for method in vars(member).values():
                    found.update(getattr(method, _MARK, ()))
                    found.update((rest.SERVICE, route.operation) for route in getattr(method, _ROUTES, ()))
    return found


def test_every_operation_that_a_room_offers_has_its_row() -> None:
    offered = marked_operations()
    assert len(offered) > 150
    assert offered <= set(operation_table())


@pytest.mark.parametrize("service", sorted({service for service, _ in operation_table()} - {"overair"}))
def test_every_row_names_a_real_operation_and_real_members(service: str) -> None:
    shapes = model(service)
    for (of, name), needs in operation_table().items():
        if of != service:
            continue
        operation = shapes["operations"][name]
        members = shapes["shapes"][operation["input"]["shape"]]["members"] if "input" in operation else {}
        asked: set[str] = set()

        class Spy(dict[str, Any]):
            def get(self, member: Any, default: Any = None, asked: set[str] = asked) -> Any:
                asked.add(member)
                return {"Delete": {}, "CopySource": "b/k", "targets": []}.get(member, "x")

            def __getitem__(self, member: str) -> Any:
                return self.get(member)

        for need in needs:
            need.applies(Spy())
            need.resources(Place("us-east-1", ACCOUNT), Spy())
        assert asked - {"Path"} <= set(members), (name, asked - set(members))


@pytest.mark.parametrize(("service", "operation"), sorted(key for key, needs in operation_table().items() if needs))
def test_no_operation_is_open_to_whoever_has_permissions_elsewhere(service: str, operation: str) -> None:
    """Every need of every operation, held against a policy for foreign names of every kind: none is met."""
    elsewhere = [f"arn:aws:{name}:*:999999999999:*" for name in ("iot", "acm", "signer", "iam")] + ["arn:aws:s3:::not-yours/*"]
    grants = Grants(identity=(CompiledPolicy.parse(document(allow("*", elsewhere)), Kind.MANAGED),))
    place = Place("us-east-1", ACCOUNT)
    caller = Caller(place=place, principal_arn="arn:aws:iam::123456789012:user/a", user_id="", access_key_id="", now=Instant(0))
    for need in operation_table()[service, operation]:
        for resource in need.resources(place, {}):
            with pytest.raises(AccessDenied):
                judge(caller, grants, need.actions, resource)


def test_the_policies_that_stand_ready_are_well_formed_and_let_the_pipeline_through() -> None:
    for arn, text in DOCUMENTS.items():
        parse_policy(text, Kind.MANAGED)
        assert AWS_MANAGED[arn].arn == arn
    assert "arn:aws:iam::aws:policy/service-role/AmazonFreeRTOSOTAUpdate" in DOCUMENTS
    assert "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration" in DOCUMENTS
    assert len({policy.policy_id for policy in AWS_MANAGED.values()}) == len(DOCUMENTS)


@pytest.mark.parametrize(
    ("name", "allowed", "denied"),
    [
        (
            "AWSIoTConfigAccess",
            ["iot:CreateThing", "iot:UpdateCertificate", "iot:SearchIndex"],
            ["iot:Publish", "s3:GetObject"],
        ),
        ("AWSIoTConfigReadOnlyAccess", ["iot:ListThings", "iot:GetPolicy"], ["iot:CreateThing", "iot:Connect"]),
        ("AWSIoTDataAccess", ["iot:Publish", "iotjobsdata:UpdateJobExecution"], ["iot:CreateThing"]),
        ("service-role/AWSIoTOTAUpdate", ["iot:CreateJob"], ["iot:DeleteJob"]),
        ("IAMReadOnlyAccess", ["iam:ListUsers", "iam:SimulateCustomPolicy"], ["iam:CreateUser"]),
        ("AWSCertificateManagerReadOnly", ["acm:ListCertificates"], ["acm:ImportCertificate"]),
    ],
)
def test_ready_made_policies_grant_what_their_names_say(name: str, allowed: list[str], denied: list[str]) -> None:
    grants = Grants(identity=(CompiledPolicy.parse(DOCUMENTS[f"arn:aws:iam::aws:policy/{name}"], Kind.MANAGED),))
    decisions = {action: grants.decide(Question(action=action, resource="*", context={})) for action in (*allowed, *denied)}
    assert decisions == {**dict.fromkeys(allowed, Decision.ALLOW), **dict.fromkeys(denied, Decision.IMPLICIT_DENY)}
