"""What each operation that makes something answers when it is asked again: the same, with the same words and with other ones.

Some are repeatable by nature, some by a token, some name what is there; no repeat ever changes what the first one made.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.code_signing import credential
from tests.support.server_process import ServerProcess

Arguments = dict[str, Any]
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}]})
OTHER_POLICY = POLICY.replace("iot:Connect", "iot:Publish")
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
IOT_TAKEN = (409, "ResourceAlreadyExistsException")
IAM_TAKEN = (409, "EntityAlreadyExists")


def asked(call: Callable[..., Any], arguments: Arguments) -> tuple[int, str] | Arguments:
    """The members of an answer, or the status and code of a refusal."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


@pytest.fixture(scope="module")
def shop(server: ServerProcess) -> dict[str, str]:
    """A thing, an object and a role that the creations below name."""
    endpoints = server.endpoints
    name = f"again-{uuid.uuid4().hex[:8]}"
    thing = server.client("iot").create_thing(thingName=f"target-of-{name}")["thingArn"]
    put = server.client("s3").put_object(Bucket=endpoints["bucket"], Key=name, Body=b"image" * 1000)
    return {"name": name, "thing": thing, "version": put["VersionId"], **endpoints}


def stream_file(shop: dict[str, str]) -> Arguments:
    return {"fileId": 1, "s3Location": {"bucket": shop["bucket"], "key": shop["name"], "version": shop["version"]}}


def update_file(shop: dict[str, str]) -> Arguments:
    location = {"bucket": shop["bucket"], "key": shop["name"], "version": shop["version"]}
    destination = {"s3Destination": {"bucket": shop["bucket"], "prefix": "signed/"}}
    signing = {"signingProfileName": shop["signing_profile"], "destination": destination}
    return {
        "fileName": "f",
        "fileLocation": {"s3Location": location},
        "codeSigning": {"startSigningJobParameter": signing},
    }


def test_a_thing_is_repeatable_unless_it_would_be_another(server: ServerProcess, shop: dict[str, str]) -> None:
    create = server.client("iot").create_thing
    same = {"thingName": shop["name"], "attributePayload": {"attributes": {"a": "1"}}}
    first = asked(create, same)
    assert asked(create, same) == first
    assert asked(create, {**same, "attributePayload": {"attributes": {"a": "2"}}}) == IOT_TAKEN
    assert server.client("iot").describe_thing(thingName=shop["name"])["attributes"] == {"a": "1"}


NAMED: list[tuple[str, str, Callable[[dict[str, str]], Arguments], Callable[[dict[str, str]], Arguments], tuple[int, str]]] = [
    (
        "iot",
        "create_policy",
        lambda s: {"policyName": s["name"], "policyDocument": POLICY},
        lambda _: {"policyDocument": OTHER_POLICY},
        IOT_TAKEN,
    ),
    (
        "iot",
        "create_stream",
        lambda s: {"streamId": s["name"], "files": [stream_file(s)], "roleArn": s["ota_role_arn"]},
        lambda _: {"description": "other"},
        IOT_TAKEN,
    ),
    (
        "iot",
        "create_job",
        lambda s: {"jobId": s["name"], "targets": [s["thing"]], "document": "{}"},
        lambda _: {"document": '{"a":1}'},
        IOT_TAKEN,
    ),
    (
        "iot",
        "create_ota_update",
        lambda s: {
            "otaUpdateId": s["name"],
            "targets": [s["thing"]],
            "roleArn": s["ota_role_arn"],
            "files": [update_file(s)],
        },
        lambda _: {"description": "other"},
        IOT_TAKEN,
    ),
    ("iam", "create_user", lambda s: {"UserName": s["name"]}, lambda _: {"Path": "/other/"}, IAM_TAKEN),
    (
        "iam",
        "create_role",
        lambda s: {"RoleName": s["name"], "AssumeRolePolicyDocument": TRUST},
        lambda _: {"Description": "other"},
        IAM_TAKEN,
    ),
    (
        "iam",
        "create_policy",
        lambda s: {"PolicyName": s["name"], "PolicyDocument": POLICY},
        lambda _: {"PolicyDocument": OTHER_POLICY},
        IAM_TAKEN,
    ),
]


@pytest.mark.parametrize(
    ("service", "call", "arguments", "change", "taken"), NAMED, ids=[f"{row[0]}-{row[1]}" for row in NAMED]
)
def test_a_name_that_is_taken_is_refused_however_alike_the_repeat_is(
    server: ServerProcess,
    shop: dict[str, str],
    service: str,
    call: str,
    arguments: Callable[[dict[str, str]], Arguments],
    change: Callable[[dict[str, str]], Arguments],
    taken: tuple[int, str],
) -> None:
    create = getattr(server.client(service), call)
    first = arguments(shop)
    assert isinstance(asked(create, first), dict)
    assert asked(create, first) == taken
    assert asked(create, {**first, **change(shop)}) == taken


@pytest.mark.parametrize("call", ["create_job", "create_stream", "create_ota_update"])
def test_a_taken_id_of_jobs_streams_and_updates_names_what_is_there(
    server: ServerProcess, shop: dict[str, str], call: str
) -> None:
    (row,) = [row for row in NAMED if row[1] == call]
    arguments = row[2]({**shop, "name": shop["name"]})
    identifier = next(iter(arguments))
    arguments[identifier] = f"named-{uuid.uuid4().hex[:8]}"
    create = getattr(server.client("iot"), call)
    create(**arguments)
    with pytest.raises(ClientError) as refusal:
        create(**arguments)
    assert refusal.value.response["resourceId"] == arguments[identifier]
    assert refusal.value.response["resourceArn"].endswith(f"/{arguments[identifier]}")


def test_a_thing_type_and_a_group_are_repeatable_unless_they_would_be_others(
    server: ServerProcess, shop: dict[str, str]
) -> None:
    iot = server.client("iot")
    kind = {"thingTypeName": shop["name"], "thingTypeProperties": {"thingTypeDescription": "a"}}
    group = {"thingGroupName": shop["name"], "thingGroupProperties": {"thingGroupDescription": "a"}}
    other_kind = {**kind, "thingTypeProperties": {"thingTypeDescription": "b"}}
    other_group = {**group, "thingGroupProperties": {"thingGroupDescription": "b"}}
    for create, same, other in (
        (iot.create_thing_type, kind, other_kind),
        (iot.create_thing_group, group, other_group),
    ):
        first = asked(create, same)
        assert asked(create, same) == first
        assert asked(create, other) == IOT_TAKEN
    described = iot.describe_thing_group(thingGroupName=shop["name"])
    assert described["thingGroupProperties"]["thingGroupDescription"] == "a"


def test_policy_versions_are_new_each_time_and_at_most_five(server: ServerProcess, shop: dict[str, str]) -> None:
    iot, name = server.client("iot"), f"versions-{shop['name']}"
    iot.create_policy(policyName=name, policyDocument=POLICY)
    made = [iot.create_policy_version(policyName=name, policyDocument=POLICY)["policyVersionId"] for _ in range(4)]
    assert made == ["2", "3", "4", "5"]
    assert asked(iot.create_policy_version, {"policyName": name, "policyDocument": POLICY}) == (
        409,
        "VersionsLimitExceededException",
    )


def test_keys_certificates_and_access_keys_are_new_each_time(server: ServerProcess, shop: dict[str, str]) -> None:
    iot, iam = server.client("iot"), server.client("iam")
    ids = {iot.create_keys_and_certificate()["certificateId"] for _ in range(2)}
    assert len(ids) == 2
    iam.create_user(UserName=f"keys-{shop['name']}")
    keys = {iam.create_access_key(UserName=f"keys-{shop['name']}")["AccessKey"]["AccessKeyId"] for _ in range(2)}
    assert len(keys) == 2
    assert asked(iam.create_access_key, {"UserName": f"keys-{shop['name']}"}) == (409, "LimitExceeded")


def test_a_certificate_is_registered_once(server: ServerProcess) -> None:
    own = credential().certificate_pem.decode()
    register = server.client("iot").register_certificate_without_ca
    first = register(certificatePem=own, status="ACTIVE")
    with pytest.raises(ClientError) as refusal:
        register(certificatePem=own, status="ACTIVE")
    assert refusal.value.response["Error"]["Code"] == "ResourceAlreadyExistsException"
    assert refusal.value.response["resourceId"] == first["certificateId"]


def test_attaching_tagging_and_joining_again_change_nothing(server: ServerProcess, shop: dict[str, str]) -> None:
    iot, name = server.client("iot"), f"joined-{shop['name']}"
    thing = iot.create_thing(thingName=name)
    certificate = iot.create_keys_and_certificate()["certificateArn"]
    group = iot.create_thing_group(thingGroupName=name)
    iot.create_policy(policyName=name, policyDocument=POLICY)
    for _ in range(2):
        iot.attach_thing_principal(thingName=name, principal=certificate)
        iot.attach_policy(policyName=name, target=certificate)
        iot.add_thing_to_thing_group(thingName=name, thingGroupName=name)
        iot.tag_resource(resourceArn=group["thingGroupArn"], tags=[{"Key": "a", "Value": "b"}])
    assert iot.list_thing_principals(thingName=name)["principals"] == [certificate]
    assert iot.list_attached_policies(target=certificate)["policies"][0]["policyName"] == name
    assert iot.list_things_in_thing_group(thingGroupName=name)["things"] == [thing["thingName"]]
    assert iot.list_tags_for_resource(resourceArn=group["thingGroupArn"])["tags"] == [{"Key": "a", "Value": "b"}]


def test_a_bucket_of_ones_own_is_there_again_in_us_east_1(server: ServerProcess, shop: dict[str, str]) -> None:
    s3 = server.client("s3")
    for _ in range(2):
        assert s3.create_bucket(Bucket=shop["name"])["Location"] == f"/{shop['name']}"
    first = s3.put_object(Bucket=shop["name"], Key="k", Body=b"1")
    assert s3.put_object(Bucket=shop["name"], Key="k", Body=b"1")["ETag"] == first["ETag"]
    uploads = {s3.create_multipart_upload(Bucket=shop["name"], Key="k")["UploadId"] for _ in range(2)}
    assert len(uploads) == 2


def test_a_certificate_imported_again_without_its_arn_is_another(server: ServerProcess) -> None:
    acm, own = server.client("acm"), credential()
    files = {"Certificate": own.certificate_pem, "PrivateKey": own.key_pem}
    first, second = (acm.import_certificate(**files)["CertificateArn"] for _ in range(2))
    assert first != second
    assert acm.import_certificate(**files, CertificateArn=first)["CertificateArn"] == first


def test_a_profile_put_again_is_the_same_or_a_new_version_and_a_signing_job_is_repeatable_by_its_token(
    server: ServerProcess, shop: dict[str, str]
) -> None:
    signer = server.client("signer")
    profile = signer.get_signing_profile(profileName=shop["signing_profile"])
    plan = {
        "profileName": f"p_{shop['name'].replace('-', '_')}",
        "platformId": profile["platformId"],
        "signingMaterial": profile["signingMaterial"],
        "signingParameters": profile["signingParameters"],
    }
    first_version = asked(signer.put_signing_profile, plan)
    assert asked(signer.put_signing_profile, plan) == first_version
    changed = {**plan, "signingParameters": {"certname": "/elsewhere"}}
    assert signer.put_signing_profile(**changed)["profileVersion"] != first_version["profileVersion"]
    cancelled = {**plan, "profileName": f"{plan['profileName']}_c"}
    signer.put_signing_profile(**cancelled)
    signer.cancel_signing_profile(profileName=cancelled["profileName"])
    assert asked(signer.put_signing_profile, cancelled) == (400, "ValidationException")
    job = {
        "source": {"s3": {"bucketName": shop["bucket"], "key": shop["name"], "version": shop["version"]}},
        "destination": {"s3": {"bucketName": shop["bucket"], "prefix": "signed/"}},
        "profileName": plan["profileName"],
        "clientRequestToken": uuid.uuid4().hex,
    }
    first = signer.start_signing_job(**job)["jobId"]
    assert signer.start_signing_job(**job)["jobId"] == first
    assert signer.start_signing_job(**{**job, "clientRequestToken": uuid.uuid4().hex})["jobId"] != first
    changed = {**job, "destination": {"s3": {"bucketName": shop["bucket"], "prefix": "elsewhere/"}}}
    assert asked(signer.start_signing_job, changed) == (400, "ValidationException")
    deadline = time.monotonic() + 20
    while signer.describe_signing_job(jobId=first)["status"] == "InProgress":
        assert time.monotonic() < deadline
    assert signer.describe_signing_job(jobId=first)["status"] == "Succeeded"
