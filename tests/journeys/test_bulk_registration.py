"""Many devices at once: a file in a bucket, a template, and reports behind links, with boto3."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.field_device import own_topics_policy
from tests.support.paho_device import PahoDevice
from tests.support.server_process import ServerProcess

PATIENCE_S = 90


def request_for(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def ended(iot: Any, task: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        told: dict[str, Any] = iot.describe_thing_registration_task(taskId=task)
        if told["status"] not in ("InProgress", "Cancelling"):
            return told
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


def report(server: ServerProcess, iot: Any, task: str, type: str) -> list[dict[str, Any]]:
    answer = iot.list_thing_registration_task_reports(taskId=task, reportType=type)
    [link] = answer["resourceLinks"]
    assert answer["reportType"] == type
    with urllib3.PoolManager(ca_certs=server.endpoints["ca_file"], timeout=60) as http:
        fetched = http.request("GET", link)
        assert fetched.status == 200, fetched.data
        assert http.request("GET", link + "x").status == 401
    return [json.loads(line) for line in fetched.data.splitlines()]


def test_a_file_of_devices_is_registered_and_reported_line_by_line(server: ServerProcess, tmp_path: Path) -> None:
    iot, s3, unique = server.client("iot"), server.client("s3"), uuid.uuid4().hex[:8]
    bucket = server.endpoints["bucket"]
    document = own_topics_policy(server.endpoints["region"], server.endpoints["account"])
    iot.create_policy(policyName=f"bulk-{unique}", policyDocument=document)
    template = {
        "Parameters": {"ThingName": {"Type": "String"}, "CSR": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "ThingName"}}},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": f"bulk-{unique}"}},
        },
    }
    key = ec.generate_private_key(ec.SECP256R1())
    names = [f"bulk-{unique}-{number}" for number in range(3)]
    lines = [json.dumps({"ThingName": name, "CSR": request_for(key, name)}) for name in names]
    lines.insert(1, json.dumps({"ThingName": "has no request"}))
    s3.put_object(Bucket=bucket, Key=f"{unique}.jsonl", Body="\n".join(lines))
    given = {
        "templateBody": json.dumps(template),
        "inputFileBucket": bucket,
        "inputFileKey": f"{unique}.jsonl",
        "roleArn": server.endpoints["ota_role_arn"],
    }
    task = iot.start_thing_registration_task(**given)["taskId"]
    told = ended(iot, task)
    assert (told["status"], told["successCount"], told["failureCount"], told["percentageProgress"]) == ("Completed", 3, 1, 100)
    assert task in iot.list_thing_registration_tasks(status="Completed")["taskIds"]
    [error] = report(server, iot, task, "ERRORS")
    assert (error["lineNumber"], error["errorCode"]) == (2, "InvalidRequestException")
    results = report(server, iot, task, "RESULTS")
    assert [(each["lineNumber"], each["thingName"]) for each in results] == list(zip((1, 3, 4), names, strict=True))

    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    certificate = {"certificatePem": results[0]["certificatePem"], "keyPair": {"PrivateKey": private}}
    with PahoDevice(server.endpoints, tmp_path, names[0], certificate) as device:
        assert device.subscribe(f"$aws/things/{names[0]}/jobs/notify-next") == 1

    with pytest.raises(ClientError, match="Completed already"):
        iot.stop_thing_registration_task(taskId=task)
    with pytest.raises(ClientError) as missing:
        iot.describe_thing_registration_task(taskId=str(uuid.uuid4()))
    assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"
    with pytest.raises(ClientError) as refused:
        iot.start_thing_registration_task(**{**given, "inputFileKey": "is-not-there"})
    assert refused.value.response["Error"]["Code"] == "InvalidRequestException"
