"""Rights that depend on tags: of the resources of each service that has any, and of what a request brings along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.actions import operation_table, tag_context
from overair.server.access.policies import Policies
from overair.server.access.resource_tags import TagsOfServices
from overair.server.aws_protocol.models import SERVICES, load_model
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room

pytestmark = pytest.mark.parametrize("work", ["sqlite"], indirect=True)

ACCOUNT = AccountId("123456789012")
PROFILE = "arn:aws:signer:us-east-1:123456789012:/signing-profiles/"
TAGGED: Mapping[str, tuple[str, str, str, dict[str, Any]]] = {
    # (service, operation, ARN up to the name, request: by ARN or by name)
    "a certificate": ("acm", "DescribeCertificate", "arn:aws:acm:us-east-1:123456789012:certificate/", {"CertificateArn": "@"}),
    "a profile": ("signer", "GetSigningProfile", PROFILE, {"profileName": "+"}),
    "a profile by ARN": ("signer", "TagResource", PROFILE, {"resourceArn": "@"}),
    "a stream": ("iot", "DescribeStream", "arn:aws:iot:us-east-1:123456789012:stream/", {"streamId": "+"}),
    "a policy": ("iam", "GetPolicy", "arn:aws:iam::123456789012:policy/", {"PolicyArn": "@"}),
}


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> AccessRoom:
    return build_access_room(work, place, clock)


def document(condition: dict[str, Any]) -> str:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.parametrize("what", TAGGED)
def test_a_right_may_depend_on_the_tags_of(room: AccessRoom, what: str) -> None:
    service, operation, stem, members = TAGGED[what]
    room.tags.by_arn = {f"{stem}mine": {"team": "ota"}, f"{stem}yours": {"team": "web"}}
    room.user("ann", p=document({"StringEquals": {"aws:ResourceTag/team": "ota"}}))

    def ask(name: str) -> str:
        request = {member: f"{stem}{name}" if value == "@" else name for member, value in members.items()}
        return asyncio.run(room.authoriser.authorise(room.caller("ann"), service, operation, request))

    ask("mine")
    for name in ("yours", "untagged"):
        with pytest.raises(AccessDenied):
            ask(name)


def test_iams_own_word_for_a_policys_tags_is_known(room: AccessRoom) -> None:
    arn = "arn:aws:iam::123456789012:policy/mine"
    room.tags.by_arn = {arn: {"team": "ota"}}
    room.user("ann", p=document({"StringEquals": {"iam:ResourceTag/team": "ota"}}))
    asyncio.run(room.authoriser.authorise(room.caller("ann"), "iam", "GetPolicy", {"PolicyArn": arn}))
    with pytest.raises(AccessDenied):
        asyncio.run(room.authoriser.authorise(room.caller("ann"), "iam", "GetPolicy", {"PolicyArn": arn + "x"}))


def test_a_policys_tags_are_its_own_alone(room: AccessRoom) -> None:
    policies: Policies = room.policies
    text = document({})

    def make(tx: Tx) -> str:
        return policies.create(tx, ACCOUNT, "p", text, path="/deep/", tags={"team": "ota"}).arn

    arn = room.work.run_blocking(make)

    def told(wanted: str, account: AccountId = ACCOUNT) -> Mapping[str, str]:
        return room.work.read_blocking(lambda tx: policies.tags_of(tx, account, wanted))

    assert told(arn) == {"team": "ota"}
    assert told(arn.replace("/deep", "")) == told(arn.replace("policy/", "user/")) == told("p") == {}
    assert told(arn, AccountId("999999999999")) == {}


@dataclass
class One:
    tags: dict[str, str]

    def tags_of(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]:
        return self.tags


def test_each_service_is_asked_about_its_own_resources(work: SqlWork) -> None:
    nobody: Any = None
    tags = TagsOfServices({"iot": One({"a": "iot"}), "acm": One({"a": "acm"})})
    for arn, found in (
        ("arn:aws:iot:us-east-1:1:thing/x", {"a": "iot"}),
        ("arn:aws:acm:us-east-1:1:certificate/x", {"a": "acm"}),
        ("arn:aws:s3:::b", {}),
        ("*", {}),
        ("", {}),
    ):
        assert tags.tags_of(nobody, ACCOUNT, arn) == found


EXEMPT = {
    "Tagging": "an object's tags aren't kept: the member is refused by name",
    "TaggingDirective": "the same",
    "TransitiveTagKeys": "its keys must be among Tags; it has a condition key of its own",
}


def test_whatever_brings_tags_along_is_known_by_their_keys(work: SqlWork) -> None:
    """Every operation of ours whose request has a member for tags gives ``aws:TagKeys``, however its service spells it."""
    known, seen = operation_table(), 0
    for service in SERVICES:
        model = load_model(service)
        for name, operation in model.operations.items():
            if (service, name) not in known or operation.input_shape is None:
                continue
            for member, reference in model.shapes[operation.input_shape].get("members", {}).items():
                if "tag" not in member.lower() or "etag" in member.lower() or member in EXEMPT:
                    continue
                shape = model.shapes[reference["shape"]]
                if shape["type"] == "map":
                    value: Any = {"k": "v"}
                else:
                    item = model.shapes[shape["member"]["shape"]]
                    value = ["k"] if item["type"] == "string" else [{"Key": "k", "Value": "v"}]
                assert tag_context({member: value})["aws:TagKeys"] == ("k",), f"{service}:{name} {member}"
                seen += 1
    assert seen >= 30
