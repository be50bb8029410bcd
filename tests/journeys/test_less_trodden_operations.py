"""Operations that no other journey needs, each with real boto3 and with what it is for."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.server_process import ServerProcess


def unique(stem: str) -> str:
    return f"{stem}_{uuid.uuid4().hex[:8]}"


def code(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as refusal:
        call(**arguments)
    return str(refusal.value.response["Error"]["Code"])


def test_platforms_are_listed_page_by_page_and_told_one_by_one(server: ServerProcess) -> None:
    signer = server.client("signer")
    first = signer.list_signing_platforms(maxResults=1)
    assert len(first["platforms"]) == 1
    pages = signer.get_paginator("list_signing_platforms").paginate()
    platforms = {platform["platformId"]: platform for page in pages for platform in page["platforms"]}
    assert {"AmazonFreeRTOS-Default", "AmazonFreeRTOS-TI-CC3220SF"} <= set(platforms)
    for name in platforms:
        told = signer.get_signing_platform(platformId=name)
        assert told["platformId"] == name
        assert told["signingConfiguration"]["hashAlgorithmOptions"]["defaultValue"] in ("SHA1", "SHA256")
    assert code(signer.get_signing_platform, platformId="Nothing-Like-It") in {"ResourceNotFoundException"}


def test_a_payload_is_signed_at_once_with_the_profiles_key(server: ServerProcess) -> None:
    signer, name = server.client("signer"), server.endpoints["signing_profile"]
    certificate = x509.load_pem_x509_certificate(Path(server.endpoints["signer_certificate_file"]).read_bytes())
    answer = signer.sign_payload(profileName=name, payload=b"what a device trusts", payloadFormat="Raw")
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(answer["signature"], b"what a device trusts", ec.ECDSA(hashes.SHA256()))
    assert answer["jobId"]
    assert code(signer.sign_payload, profileName="no_such_profile", payload=b"x", payloadFormat="Raw") == (
        "ResourceNotFoundException"
    )


def test_a_revoked_signature_and_profile_say_so_and_sign_no_more(server: ServerProcess) -> None:
    signer, s3 = server.client("signer"), server.client("s3")
    profile = signer.get_signing_profile(profileName=server.endpoints["signing_profile"])
    name, bucket = unique("revoked"), server.endpoints["bucket"]
    made = signer.put_signing_profile(
        profileName=name,
        platformId=profile["platformId"],
        signingMaterial=profile["signingMaterial"],
        signingParameters=profile["signingParameters"],
    )
    version = s3.put_object(Bucket=bucket, Key=name, Body=b"image")["VersionId"]
    job = {
        "source": {"s3": {"bucketName": bucket, "key": name, "version": version}},
        "destination": {"s3": {"bucketName": bucket, "prefix": "signed/"}},
        "profileName": name,
    }
    signed = signer.start_signing_job(**job)["jobId"]
    signer.get_waiter("successful_signing_job").wait(jobId=signed, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    signer.revoke_signature(jobId=signed, reason="the image was bad")
    record = signer.describe_signing_job(jobId=signed)["revocationRecord"]
    assert record["reason"] == "the image was bad"
    when = record["revokedAt"]
    signer.revoke_signing_profile(
        profileName=name, profileVersion=made["profileVersion"], reason="the key got out", effectiveTime=when
    )
    assert signer.get_signing_profile(profileName=name)["status"] == "Revoked"
    assert code(signer.start_signing_job, **job) == "ValidationException"


def test_a_remote_command_that_cannot_be_there_is_not_found_and_its_target_is_looked_at_first(server: ServerProcess) -> None:
    start = server.client("iot-jobs-data").start_command_execution
    thing = server.client("iot").create_thing(thingName=unique("commanded"))["thingArn"]
    stem = thing.rpartition(":")[0]
    for refusal, target, command in (
        ("ResourceNotFoundException", thing, f"{stem}:command/reboot"),
        ("ResourceNotFoundException", f"{stem}:thing/never-made", f"{stem}:command/reboot"),
        ("ValidationException", thing, f"{stem}:job/reboot"),
        ("ValidationException", thing, "reboot"),
        ("ValidationException", f"{stem}:thinggroup/all", f"{stem}:command/reboot"),
        ("ValidationException", thing.replace("iot:us-east-1", "iot:eu-west-1"), f"{stem}:command/reboot"),
    ):
        assert code(start, targetArn=target, commandArn=command) == refusal


def test_the_registry_is_listed_from_every_side(server: ServerProcess) -> None:
    iot = server.client("iot")
    thing, group, policy = unique("thing"), unique("group"), unique("policy")
    thing_arn = iot.create_thing(thingName=thing)["thingArn"]
    iot.create_thing_group(thingGroupName=group)
    certificate = iot.create_keys_and_certificate(setAsActive=True)["certificateArn"]
    document = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'
    iot.create_policy(policyName=policy, policyDocument=document)
    iot.attach_thing_principal(thingName=thing, principal=certificate)
    iot.attach_policy(policyName=policy, target=certificate)
    iot.add_thing_to_thing_group(thingArn=thing_arn, thingGroupName=group)
    assert [each["groupName"] for each in iot.list_thing_groups(namePrefixFilter=group)["thingGroups"]] == [group]
    assert iot.list_principal_things(principal=certificate)["things"] == [thing]
    assert iot.list_principal_things_v2(principal=certificate)["principalThingObjects"][0]["thingName"] == thing
    assert iot.list_thing_principals_v2(thingName=thing)["thingPrincipalObjects"][0]["principal"] == certificate
    assert iot.list_targets_for_policy(policyName=policy)["targets"] == [certificate]
    assert iot.list_policy_principals(policyName=policy)["principals"] == [certificate]
    iot.create_job(jobId=thing, targets=[thing_arn], document="{}")

    def executions() -> list[str]:
        summaries = iot.list_job_executions_for_thing(thingName=thing)["executionSummaries"]
        return [each["jobId"] for each in summaries]

    data = server.client("iot-jobs-data")
    while not data.get_pending_job_executions(thingName=thing)["queuedJobs"]:
        pass
    assert executions() == [thing]
    iot.update_thing_groups_for_thing(thingName=thing, thingGroupsToRemove=[group])
    assert iot.list_things_in_thing_group(thingGroupName=group)["things"] == []


def test_the_old_list_of_objects_goes_on_by_marker(server: ServerProcess) -> None:
    s3, bucket, prefix = server.client("s3"), server.endpoints["bucket"], unique("old")
    for number in range(3):
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{number}", Body=b"")
    first = s3.list_objects(Bucket=bucket, Prefix=f"{prefix}/", MaxKeys=2)
    assert first["IsTruncated"]
    rest = s3.list_objects(Bucket=bucket, Prefix=f"{prefix}/", Marker=first["Contents"][-1]["Key"])
    keys = [each["Key"] for each in (*first["Contents"], *rest["Contents"])]
    assert keys == [f"{prefix}/{number}" for number in range(3)]


UNSERVED = [
    ("iot", "create_topic_rule", {"ruleName": "r", "topicRulePayload": {"sql": "s", "actions": []}}, 400),
    ("iot", "list_fleet_metrics", {}, 400),
    ("iot-data", "get_thing_shadow", {"thingName": "t"}, 400),
    ("acm", "get_account_configuration", {}, 400),
    ("s3", "put_bucket_website", {"Bucket": "bkt", "WebsiteConfiguration": {}}, 400),
    ("iam", "list_account_aliases", {}, 400),
    ("sts", "get_federation_token", {"Name": "nn"}, 400),
]
"""One or more operations of every service that we don't have; Signer's are all here."""


@pytest.mark.parametrize(("service", "call", "arguments", "status"), UNSERVED, ids=[f"{row[0]}-{row[1]}" for row in UNSERVED])
def test_an_operation_that_is_not_served_says_so_by_name_and_is_no_empty_success(
    server: ServerProcess, service: str, call: str, arguments: dict[str, Any], status: int
) -> None:
    with pytest.raises(ClientError) as refusal:
        getattr(server.client(service), call)(**arguments)
    answer = refusal.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] in (status, 501)
    assert answer["Error"]["Code"].startswith("NotImplemented")
    assert "".join(part.title() for part in call.split("_")) in answer["Error"]["Message"]


def test_a_package_is_deployed_by_a_job_downloaded_and_told_of_the_thing(server: ServerProcess) -> None:
    iot, data, endpoints = server.client("iot"), server.client("iot-jobs-data"), server.endpoints
    thing, package, role = unique("thing"), unique("package"), endpoints["ota_role_arn"]
    arn = iot.create_thing(thingName=thing)["thingArn"]
    version = server.client("s3").put_object(Bucket=endpoints["bucket"], Key=f"{package} 1.bin", Body=b"firmware")["VersionId"]
    where = {"s3Location": {"bucket": endpoints["bucket"], "key": f"{package} 1.bin", "version": version}}
    package_arn = iot.create_package(packageName=package, tags={"team": "x"})["packageArn"]
    assert iot.list_tags_for_resource(resourceArn=package_arn)["tags"] == [{"Key": "team", "Value": "x"}]
    this = {"packageName": package, "versionName": "1.0"}
    made = iot.create_package_version(**this, attributes={"slot": "b"}, artifact=where, tags={"built": "today"})
    iot.tag_resource(resourceArn=made["packageVersionArn"], tags=[{"Key": "by", "Value": "us"}])
    assert len(iot.list_tags_for_resource(resourceArn=made["packageVersionArn"])["tags"]) == 2
    iot.update_package_configuration(versionUpdateByJobsConfig={"enabled": True, "roleArn": role})
    placeholder = "${aws:iot:package::version::"
    document = {"install": placeholder + "attributes}", "url": placeholder + "artifact:s3-presigned-url}"}
    job = {
        "jobId": thing,
        "targets": [arn],
        "document": json.dumps(document),
        "presignedUrlConfig": {"roleArn": role, "expiresInSec": 300},
        "destinationPackageVersions": [f"{package_arn}/version/$default"],
    }
    assert code(iot.create_job, **job) == "InvalidRequestException"
    iot.update_package_version(**this, action="PUBLISH")
    iot.update_package(packageName=package, defaultVersionName="1.0")
    iot.create_job(**job)
    assert iot.describe_job(jobId=thing)["job"]["destinationPackageVersions"] == [made["packageVersionArn"]]
    asked = iot.describe_job(jobId=thing, beforeSubstitution=True)["job"]["destinationPackageVersions"]
    assert asked == job["destinationPackageVersions"]
    assert json.loads(iot.get_job_document(jobId=thing)["document"])["install"] == {"slot": "b"}
    assert json.loads(iot.get_job_document(jobId=thing, beforeSubstitution=True)["document"]) == document
    execution = data.describe_job_execution(jobId=thing, thingName=thing, includeJobDocument=True)["execution"]
    told = json.loads(execution["jobDocument"])
    assert told["install"] == {"slot": "b"}
    assert urllib3.PoolManager(ca_certs=endpoints["ca_file"]).request("GET", told["url"]).data == b"firmware"
    data.update_job_execution(jobId=thing, thingName=thing, status="SUCCEEDED")
    shadow = json.loads(server.client("iot-data").get_thing_shadow(thingName=thing, shadowName="$package")["payload"].read())
    assert shadow["state"]["reported"] == {package: {"version": "1.0"}}
