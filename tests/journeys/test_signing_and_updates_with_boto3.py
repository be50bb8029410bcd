"""Signer, OTA updates and "why?" through boto3 against a server that is a process of its own."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.wire.image_signature import SignatureAlgorithm, load_signer_certificate, verify_image_signature
from tests.support.code_signing import credential
from tests.support.server_process import ServerProcess

IMAGE = b"an image of boto3 " * 2000


def unique(name: str) -> str:
    return f"{name}_{uuid.uuid4().hex[:8]}"


def upload(server: ServerProcess, image: bytes = IMAGE) -> dict[str, str]:
    bucket, key = server.endpoints["bucket"], unique("fw")
    version = server.client("s3").put_object(Bucket=bucket, Key=key, Body=image)["VersionId"]
    return {"bucket": bucket, "key": key, "version": version}


def make_thing(server: ServerProcess) -> tuple[str, str]:
    name = unique("dev")
    return name, server.client("iot").create_thing(thingName=name)["thingArn"]


def ended(read: Any, going_on: set[str]) -> Any:
    """Ask until a status is left behind; no call tells of the end by itself."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status, answer = read()
        if status not in going_on:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"still {going_on} after 20 s")


def refused(code: str, status: int, call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**request)
    assert error.value.response["Error"]["Code"] == code
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    return str(error.value.response["Error"]["Message"])


def test_a_signing_job_is_followed_to_an_object_that_devices_verify(server: ServerProcess) -> None:
    signer_key, signer = credential(), server.client("signer")
    arn = server.client("acm").import_certificate(Certificate=signer_key.certificate_pem, PrivateKey=signer_key.key_pem)[
        "CertificateArn"
    ]
    name = unique("profile")
    made = signer.put_signing_profile(
        profileName=name,
        platformId="AmazonFreeRTOS-Default",
        signingMaterial={"certificateArn": arn},
        signingParameters={"certname": "/anchor.pem"},
        tags={"team": "boot"},
    )
    assert made["arn"].endswith(f":/signing-profiles/{name}")
    assert made["profileVersionArn"] == f"{made['arn']}/{made['profileVersion']}"
    source = upload(server)
    started = signer.start_signing_job(
        source={"s3": {"bucketName": source["bucket"], "key": source["key"], "version": source["version"]}},
        destination={"s3": {"bucketName": source["bucket"], "prefix": "signed/"}},
        profileName=name,
    )

    def read() -> tuple[str, Any]:
        job = signer.describe_signing_job(jobId=started["jobId"])
        return job["status"], job

    job = ended(read, {"InProgress"})
    assert job["status"] == "Succeeded"
    assert job["signedObject"]["s3"]["key"] == f"signed/{started['jobId']}"
    signed = json.loads(
        server.client("s3").get_object(Bucket=source["bucket"], Key=job["signedObject"]["s3"]["key"])["Body"].read()
    )
    assert base64.b64decode(signed["payload"]) == IMAGE
    verify_image_signature(
        [IMAGE],
        signature=base64.b64decode(signed["signature"]),
        algorithm=SignatureAlgorithm.ECDSA_SHA256,
        signer=load_signer_certificate(signer_key.certificate_pem),
    )
    assert signer.list_tags_for_resource(resourceArn=made["arn"])["tags"] == {"team": "boot"}
    listed = [
        profile["profileName"]
        for page in signer.get_paginator("list_signing_profiles").paginate()
        for profile in page["profiles"]
    ]
    assert name in listed
    refused("ResourceInUseException", 400, server.client("acm").delete_certificate, CertificateArn=arn)
    signer.cancel_signing_profile(profileName=name)
    assert signer.get_signing_profile(profileName=name)["status"] == "Canceled"


def test_what_was_revoked_is_told_to_whoever_verifies(server: ServerProcess) -> None:
    signer_key, signer = credential(), server.client("signer", config=Config(inject_host_prefix=False))
    acm, name = server.client("acm"), unique("profile")
    arn = acm.import_certificate(Certificate=signer_key.certificate_pem, PrivateKey=signer_key.key_pem)["CertificateArn"]
    made = signer.put_signing_profile(
        profileName=name, platformId="AmazonFreeRTOS-Default", signingMaterial={"certificateArn": arn}
    )
    job = signer.sign_payload(profileName=name, payload=b"x" * 32, payloadFormat="raw")["jobId"]
    signed_at = signer.describe_signing_job(jobId=job)["completedAt"]
    asked = {
        "signatureTimestamp": signed_at,
        "platformId": "AmazonFreeRTOS-Default",
        "profileVersionArn": made["profileVersionArn"],
        "jobArn": made["arn"].replace(f"/signing-profiles/{name}", f"/signing-jobs/{job}"),
        "certificateHashes": ["00" * 32],
    }
    assert signer.get_revocation_status(**asked)["revokedEntities"] == []
    signer.revoke_signature(jobId=job, reason="a bad build")
    assert signer.get_revocation_status(**asked)["revokedEntities"] == [asked["jobArn"]]
    signer.revoke_signing_profile(
        profileName=name, profileVersion=made["profileVersion"], reason="stolen", effectiveTime=signed_at
    )
    assert signer.get_revocation_status(**asked)["revokedEntities"] == [asked["profileVersionArn"], asked["jobArn"]]
    refused("ValidationException", 400, signer.sign_payload, profileName=name, payload=b"x", payloadFormat="raw")
    for wrong in ({"jobArn": asked["jobArn"] + "x"}, {"platformId": "AmazonFreeRTOS-TI-CC3220SF"}):
        refused("ValidationException", 400, signer.get_revocation_status, **{**asked, **wrong})


def test_signer_refuses_with_its_own_codes(server: ServerProcess) -> None:
    signer = server.client("signer")
    refused("ResourceNotFoundException", 404, signer.get_signing_profile, profileName="nobody_here")
    refused("ResourceNotFoundException", 404, signer.describe_signing_job, jobId="none")
    refused("ResourceNotFoundException", 404, signer.get_signing_platform, platformId="none")
    message = refused(
        "ValidationException",
        400,
        signer.put_signing_profile,
        profileName=unique("profile"),
        platformId="Pager",
        signingMaterial={"certificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/x"},
    )
    assert "AmazonFreeRTOS-Default" in message


@pytest.mark.parametrize("spelling", ["raw", "base64 text"])
def test_a_custom_signature_is_checked_with_the_certificate_given_inline(server: ServerProcess, spelling: str) -> None:
    signer, iot = credential(), server.client("iot")
    assert isinstance(signer.key, ec.EllipticCurvePrivateKey)
    _, thing_arn = make_thing(server)

    def create(update: str, image: bytes) -> Any:
        signature = signer.key.sign(image, ec.ECDSA(hashes.SHA256()))
        return iot.create_ota_update(
            otaUpdateId=update,
            targets=[thing_arn],
            files=[
                {
                    "fileName": "fw",
                    "fileLocation": {"s3Location": upload(server)},
                    "codeSigning": {
                        "customCodeSigning": {
                            "signature": {"inlineDocument": signature if spelling == "raw" else base64.b64encode(signature)},
                            "certificateChain": {
                                "certificateName": "/c.pem",
                                "inlineDocument": signer.certificate_pem.decode(),
                            },
                            "hashAlgorithm": "SHA256",
                            "signatureAlgorithm": "ECDSA",
                        }
                    },
                }
            ],
            roleArn=server.endpoints["ota_role_arn"],
        )

    update = unique("rel")
    create(update, IMAGE)

    def read() -> tuple[str, Any]:
        info = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
        return info["otaUpdateStatus"], info

    info = ended(read, {"CREATE_PENDING", "CREATE_IN_PROGRESS"})
    assert info["otaUpdateStatus"] == "CREATE_COMPLETE", info
    document = json.loads(iot.get_job_document(jobId=info["awsIotJobId"])["document"])["afr_ota"]
    verify_image_signature(
        [IMAGE],
        signature=base64.b64decode(document["files"][0]["sig-sha256-ecdsa"]),
        algorithm=SignatureAlgorithm.ECDSA_SHA256,
        signer=load_signer_certificate(signer.certificate_pem),
    )
    with pytest.raises(ClientError, match="doesn't verify") as error:
        create(unique("rel"), IMAGE[:-1])
    assert error.value.response["Error"]["Code"] == "InvalidRequestException"


def test_an_update_is_listed_explained_and_deleted(server: ServerProcess) -> None:
    iot, overair = server.client("iot"), server.client("overair")
    thing, thing_arn = make_thing(server)
    update = unique("rel")
    answer = iot.create_ota_update(
        otaUpdateId=update,
        targets=[thing_arn],
        files=[{"fileName": "fw", "fileLocation": {"s3Location": upload(server)}}],
        roleArn=server.endpoints["ota_role_arn"],
        tags=[{"Key": "stage", "Value": "test"}],
    )
    assert answer["otaUpdateStatus"] == "CREATE_PENDING"

    def read() -> tuple[str, Any]:
        info = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
        return info["otaUpdateStatus"], info

    info = ended(read, {"CREATE_PENDING", "CREATE_IN_PROGRESS"})
    assert info["otaUpdateStatus"] == "CREATE_COMPLETE"
    assert info["additionalParameters"] == {"overair:unsigned": "true"}
    assert iot.list_tags_for_resource(resourceArn=answer["otaUpdateArn"])["tags"] == [{"Key": "stage", "Value": "test"}]
    reasons = overair.explain_thing(thingName=thing)["reasons"]
    assert reasons[0].startswith(f"{thing} has not started job AFR_OTA-{update}")
    assert any("UNSIGNED" in reason for reason in reasons)
    assert "No certificate is attached" in reasons[-1]
    refused("ResourceNotFoundException", 404, overair.explain_thing, thingName="nobody-here")
    listed = [each["otaUpdateId"] for page in iot.get_paginator("list_ota_updates").paginate() for each in page["otaUpdates"]]
    assert update in listed
    refused("InvalidRequestException", 400, iot.delete_ota_update, otaUpdateId=update)
    iot.delete_ota_update(otaUpdateId=update, forceDeleteAWSJob=True, deleteStream=True)
    refused("ResourceNotFoundException", 404, iot.get_ota_update, otaUpdateId=update)
    refused("ResourceNotFoundException", 404, iot.describe_job, jobId=f"AFR_OTA-{update}")


def operator_without_pass_role(server: ServerProcess) -> Any:
    """An ``iot`` client of a user who may do everything in IoT and nothing else."""
    iam, name = server.client("iam"), unique("op")
    iam.create_user(UserName=name)
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
    iam.put_user_policy(UserName=name, PolicyName="iot", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return server.client("iot", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])


def test_the_codes_of_the_2018_guide_as_the_control_plane_spells_them(server: ServerProcess) -> None:
    iot = server.client("iot")
    thing, thing_arn = make_thing(server)
    update = unique("rel")
    request = {
        "otaUpdateId": update,
        "targets": [thing_arn],
        "files": [{"fileName": "fw", "fileLocation": {"s3Location": upload(server)}}],
        "roleArn": server.endpoints["ota_role_arn"],
    }
    iot.create_ota_update(**request)
    refused("ResourceAlreadyExistsException", 409, iot.create_ota_update, **request)
    refused("ResourceNotFoundException", 404, iot.get_ota_update, otaUpdateId=unique("none"))
    stream = {"stream": {"streamId": unique("none"), "fileId": 0}}
    elsewhere = {**request, "otaUpdateId": unique("rel"), "files": [{"fileName": "fw", "fileLocation": stream}]}
    refused("ResourceNotFoundException", 404, iot.create_ota_update, **elsewhere)
    refused("InvalidRequestException", 400, iot.create_ota_update, **{**request, "otaUpdateId": "x" * 57})
    stranger = operator_without_pass_role(server)
    message = refused("AccessDeniedException", 403, stranger.create_ota_update, **{**request, "otaUpdateId": unique("rel")})
    assert "iam:PassRole" in message

    def read() -> tuple[str, Any]:
        status = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]["otaUpdateStatus"]
        return status, status

    assert ended(read, {"CREATE_PENDING", "CREATE_IN_PROGRESS"}) == "CREATE_COMPLETE"
    refused(
        "VersionConflictException",
        409,
        iot.cancel_job_execution,
        jobId=f"AFR_OTA-{update}",
        thingName=thing,
        expectedVersion=99,
    )
