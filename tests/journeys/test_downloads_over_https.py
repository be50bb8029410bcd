"""The HTTP data path: links in job documents, good on the device port until they expire or the role loses its right."""

from __future__ import annotations

import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess

IMAGE = secrets.token_bytes(300_000)


def fetch(server: ServerProcess, url: str, *, first: int, last: int) -> tuple[int, bytes]:
    """One range, as an agent without a client certificate asks for it."""
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    request = urllib.request.Request(url, headers={"Range": f"bytes={first}-{last}"})
    try:
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def test_a_link_is_good_until_it_expires_and_the_next_reading_of_the_job_renews_it(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server(driven=True).start()
    identity = enroll(server, tmp_path, "dev-1")
    bucket = server.endpoints["bucket"]
    version = server.client("s3").put_object(Bucket=bucket, Key="app.bin", Body=IMAGE)["VersionId"]
    server.client("s3").put_object(Bucket=bucket, Key="app.bin", Body=b"a newer version that nobody asked for")
    server.client("iot").create_ota_update(
        otaUpdateId="over-https",
        targets=[identity.thing_arn],
        protocols=["HTTP"],
        roleArn=server.endpoints["ota_role_arn"],
        awsJobPresignedUrlConfig={"expiresInSec": 120},
        files=[
            {
                "fileName": "app.bin",
                "fileLocation": {"s3Location": {"bucket": bucket, "key": "app.bin", "version": version}},
                "codeSigning": {
                    "customCodeSigning": {
                        "signature": {"inlineDocument": b"\x30\x06\x02\x01\x01\x02\x01\x01"},
                        "certificateChain": {"certificateName": "own.pem"},
                        "hashAlgorithm": "SHA256",
                        "signatureAlgorithm": "ECDSA",
                    }
                },
            }
        ],
    )
    wait_until_created(server, "over-https")
    with Device(server, identity) as device:
        file = _file_of_next(device)
        assert file["auth_scheme"] == "aws.s3.presigned"
        assert file["filesize"] == len(IMAGE)
        assert len(file["update_data_url"]) <= 1500
        assert fetch(server, file["update_data_url"], first=4096, last=8191) == (206, IMAGE[4096:8192])

        server.tell(advance_ms=121_000)
        status, body = fetch(server, file["update_data_url"], first=0, last=4095)
        assert status == 403
        assert b"Request has expired" in body

        renewed = _file_of_next(device)
        assert renewed["update_data_url"] != file["update_data_url"]
        assert fetch(server, renewed["update_data_url"], first=0, last=len(IMAGE) - 1) == (206, IMAGE)

    role = server.endpoints["ota_role_arn"].rsplit("/", 1)[1]
    iam = server.client("iam")
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        iam.delete_role_policy(RoleName=role, PolicyName=name)
    status, body = fetch(server, renewed["update_data_url"], first=0, last=4095)
    assert status == 403
    assert b"AccessDenied" in body


@pytest.mark.parametrize("change", ["key", "signature"])
def test_a_link_that_was_changed_opens_nothing(server: ServerProcess, change: str) -> None:
    bucket = server.endpoints["bucket"]
    server.client("s3").put_object(Bucket=bucket, Key="linked.bin", Body=IMAGE)
    link = server.client("s3", endpoint_url=server.endpoints["device_url"]).generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "linked.bin"}
    )
    assert fetch(server, link, first=0, last=9) == (206, IMAGE[:10])
    before, mark, after = link.partition("Signature=")
    changed_signature = before + mark + ("B" if after[0] == "A" else "A") + after[1:]
    changed = link.replace("linked.bin", "other.bin") if change == "key" else changed_signature
    assert fetch(server, changed, first=0, last=9)[0] == 403


def wait_until_created(server: ServerProcess, update: str) -> None:
    """Ask until the saga is through; GetOTAUpdate is the only way to learn it."""
    deadline = time.monotonic() + 20
    while (status := server.client("iot").get_ota_update(otaUpdateId=update)["otaUpdateInfo"]["otaUpdateStatus"]) != (
        "CREATE_COMPLETE"
    ):
        assert status != "CREATE_FAILED"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _file_of_next(device: Device) -> dict[str, object]:
    answer = device.ask(device.jobs("$next/get"))
    document = answer["execution"]["jobDocument"]
    assert json.dumps(document)
    file: dict[str, object] = document["afr_ota"]["files"][0]
    return file
