"""Things, certificates and policies made with boto3 decide at once what a device may do on its live connection."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.paho_device import PahoDevice
from tests.support.server_process import ServerProcess

WITHIN_S = 1.0
"""A revoked certificate and a detached policy take effect on live sessions within a second."""


def own_topics(region: str, account: str) -> dict[str, Any]:
    """What a device of the fleet may do: connect as its thing, and everything below its own name."""
    stem = f"arn:aws:iot:{region}:{account}"
    thing = "${iot:Connection.Thing.ThingName}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{stem}:client/{thing}"},
            {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": f"{stem}:topic/devices/{thing}/*"},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": f"{stem}:topicfilter/devices/{thing}/*"},
        ],
    }


@dataclass
class Enrolled:
    """A thing with its certificate and policy."""

    thing: str
    policy: str
    certificate: dict[str, Any]

    @property
    def arn(self) -> str:
        return str(self.certificate["certificateArn"])


@pytest.fixture
def iot(server: ServerProcess) -> Any:
    return server.client("iot")


@pytest.fixture
def enrolled(server: ServerProcess, iot: Any) -> Enrolled:
    name = f"dev-{uuid.uuid4().hex[:8]}"
    document = own_topics(server.endpoints["region"], server.endpoints["account"])
    iot.create_thing(thingName=name)
    certificate = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_policy(policyName=f"policy-of-{name}", policyDocument=json.dumps(document))
    iot.attach_policy(policyName=f"policy-of-{name}", target=certificate["certificateArn"])
    iot.attach_thing_principal(thingName=name, principal=certificate["certificateArn"])
    return Enrolled(thing=name, policy=f"policy-of-{name}", certificate=certificate)


@pytest.fixture
def device(server: ServerProcess, enrolled: Enrolled, tmp_path: Path) -> Iterator[PahoDevice]:
    with PahoDevice(server.endpoints, tmp_path, enrolled.thing, enrolled.certificate) as device:
        assert device.subscribe(f"devices/{enrolled.thing}/#") == 1
        device.publish(f"devices/{enrolled.thing}/state", b"1")
        assert device.message() == (f"devices/{enrolled.thing}/state", b"1")
        yield device


def assert_cut_within_a_second(device: PahoDevice, begun_s: float) -> None:
    assert device.cut.wait(10)
    assert time.monotonic() - begun_s < WITHIN_S + 1.0  # a second of grace for a busy machine
    assert not device.connect()


def is_delivered(device: PahoDevice, enrolled: Enrolled) -> bool:
    """Whether a device now receives what it publishes. The server answers in order: what is delivered comes before the answer
    to the subscription that was asked for after it."""
    marker = uuid.uuid4().hex.encode()
    device.publish(f"devices/{enrolled.thing}/state", marker)
    assert device.subscribe(f"devices/{enrolled.thing}/barrier") == 1
    seen = []
    while not device.messages.empty():
        seen.append(device.messages.get_nowait()[1])
    return marker in seen


def assert_delivery_becomes(device: PahoDevice, enrolled: Enrolled, expected: bool) -> None:
    begun_s = time.monotonic()
    while is_delivered(device, enrolled) is not expected:
        assert time.monotonic() - begun_s < WITHIN_S + 1.0


def test_a_device_speaks_for_the_thing_that_it_is_attached_to_and_no_other(
    server: ServerProcess, iot: Any, enrolled: Enrolled, tmp_path: Path
) -> None:
    iot.create_thing(thingName=f"{enrolled.thing}-other")
    assert not PahoDevice(server.endpoints, tmp_path, f"{enrolled.thing}-other", enrolled.certificate).connect()
    with PahoDevice(server.endpoints, tmp_path, enrolled.thing, enrolled.certificate) as device:
        device.publish("devices/somebody-else/state", b"1")
        assert device.cut.wait(10)  # an unauthorised publish closes the connection


def test_revoking_a_certificate_cuts_its_live_session(iot: Any, enrolled: Enrolled, device: PahoDevice) -> None:
    begun_s = time.monotonic()
    iot.update_certificate(certificateId=enrolled.certificate["certificateId"], newStatus="REVOKED")
    assert_cut_within_a_second(device, begun_s)


def test_detaching_the_policy_cuts_a_session_that_may_no_longer_connect(
    iot: Any, enrolled: Enrolled, device: PahoDevice
) -> None:
    begun_s = time.monotonic()
    iot.detach_policy(policyName=enrolled.policy, target=enrolled.arn)
    assert_cut_within_a_second(device, begun_s)


def test_detaching_the_thing_takes_its_name_and_so_the_session(iot: Any, enrolled: Enrolled, device: PahoDevice) -> None:
    begun_s = time.monotonic()
    iot.detach_thing_principal(thingName=enrolled.thing, principal=enrolled.arn)
    assert_cut_within_a_second(device, begun_s)


def test_a_new_default_version_narrows_a_session_that_goes_on(
    server: ServerProcess, iot: Any, enrolled: Enrolled, device: PahoDevice
) -> None:
    document = own_topics(server.endpoints["region"], server.endpoints["account"])
    document["Statement"][1]["Action"] = "iot:Publish"
    iot.create_policy_version(policyName=enrolled.policy, policyDocument=json.dumps(document), setAsDefault=True)
    assert_delivery_becomes(device, enrolled, False)
    assert not device.cut.is_set()
    iot.set_default_policy_version(policyName=enrolled.policy, policyVersionId="1")
    assert_delivery_becomes(device, enrolled, True)


def test_a_policy_of_a_group_reaches_the_devices_in_it(
    server: ServerProcess, iot: Any, enrolled: Enrolled, device: PahoDevice
) -> None:
    group, forbidding = f"group-{enrolled.thing}", f"forbidding-{enrolled.thing}"
    group_arn = iot.create_thing_group(thingGroupName=group)["thingGroupArn"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "iot:Connect", "Resource": "*"}]}
    iot.create_policy(policyName=forbidding, policyDocument=json.dumps(document))
    iot.attach_policy(policyName=forbidding, target=group_arn)
    begun_s = time.monotonic()
    iot.add_thing_to_thing_group(thingGroupName=group, thingName=enrolled.thing)
    assert_cut_within_a_second(device, begun_s)
    iot.remove_thing_from_thing_group(thingGroupName=group, thingName=enrolled.thing)
    assert device.connect()


def test_lists_go_through_boto3s_own_paginators(iot: Any) -> None:
    prefix = f"page-{uuid.uuid4().hex[:8]}"
    names = [f"{prefix}-{number}" for number in range(7)]
    for name in names:
        iot.create_thing(thingName=name, attributePayload={"attributes": {"batch": prefix}})
        iot.create_thing_group(thingGroupName=name)
    iot.create_thing_group(thingGroupName=prefix)
    for name in names:
        iot.add_thing_to_thing_group(thingGroupName=prefix, thingName=name)

    def collect(operation: str, key: str, **arguments: Any) -> list[Any]:
        pages = list(iot.get_paginator(operation).paginate(**arguments, PaginationConfig={"PageSize": 3}))
        assert [len(page[key]) for page in pages[:2]] == [3, 3]
        return [row for page in pages for row in page[key]]

    things = collect("list_things", "things", attributeName="batch", attributeValue=prefix)
    assert [row["thingName"] for row in things] == names
    groups = collect("list_thing_groups", "thingGroups", namePrefixFilter=f"{prefix}-")
    assert [row["groupName"] for row in groups] == names
    assert collect("list_things_in_thing_group", "things", thingGroupName=prefix) == names


def test_an_operator_without_the_permission_changes_nothing(server: ServerProcess, iot: Any) -> None:
    iam = server.client("iam")
    user = f"reader-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=user)
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Describe*", "Resource": "*"}]}
    iam.put_user_policy(UserName=user, PolicyName="read", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    reader = server.client("iot", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    name = f"thing-of-{user}"
    with pytest.raises(ClientError) as refused:
        reader.create_thing(thingName=name)
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    assert "iot:CreateThing on resource" in refused.value.response["Error"]["Message"]
    iot.create_thing(thingName=name)
    assert reader.describe_thing(thingName=name)["version"] == 1
