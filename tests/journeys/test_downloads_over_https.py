"""The HTTP data path: links in job documents, good on the device port until they expire or the role loses its right."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import secrets
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from overair.agent.image_builder import build_image
from tests.support.device_process import DeviceProcess
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
    create_update(
        server,
        "over-https",
        identity.thing_arn,
        key="app.bin",
        version=version,
        protocols=["HTTP"],
        awsJobPresignedUrlConfig={"expiresInSec": 120},
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


def test_an_update_by_both_protocols_names_stream_and_link_and_both_give_the_version_that_was_named(
    server: ServerProcess, tmp_path: Path
) -> None:
    identity = enroll(server, tmp_path, f"both-{uuid.uuid4().hex}")
    bucket, key, update = server.endpoints["bucket"], f"{identity.thing}.bin", f"both-{identity.thing[5:25]}"
    version = server.client("s3").put_object(Bucket=bucket, Key=key, Body=IMAGE)["VersionId"]
    server.client("s3").put_object(Bucket=bucket, Key=key, Body=b"a newer version that nobody asked for")
    create_update(server, update, identity.thing_arn, key=key, version=version, protocols=["HTTP", "MQTT"])
    wait_until_created(server, update)
    server.client("s3").delete_object(Bucket=bucket, Key=key)
    with Device(server, identity) as device:
        document = device.ask(device.jobs("$next/get"))["execution"]["jobDocument"]["afr_ota"]
        assert sorted(document["protocols"]) == ["HTTP", "MQTT"]
        file = document["files"][0]
        stream = f"$aws/things/{identity.thing}/streams/{document['streamname']}"
        device.subscribe(f"{stream}/data/json", qos=0)
        request = {"s": 1, "f": file["fileid"], "l": 4096, "o": 0, "n": 1}
        device.publish(f"{stream}/get/json", request)
        _, block = device.next_message(f"{stream}/data/json")
        assert base64.b64decode(json.loads(block)["p"]) == IMAGE[:4096]
        assert fetch(server, file["update_data_url"], first=0, last=len(IMAGE) - 1) == (206, IMAGE)


def test_ranges_come_one_after_another_on_one_connection_and_a_refusal_does_not_end_it(server: ServerProcess) -> None:
    bucket = server.endpoints["bucket"]
    server.client("s3").put_object(Bucket=bucket, Key="kept.bin", Body=IMAGE)
    link = server.client("s3", endpoint_url=server.endpoints["device_url"]).generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "kept.bin"}
    )
    parts = urllib.parse.urlsplit(link)
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context, timeout=20)
    connection.connect()
    socket_before = connection.sock

    def ask(wanted: str, *, path: str = f"{parts.path}?{parts.query}") -> tuple[int, str | None, bytes]:
        connection.request("GET", path, headers={"Range": wanted})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Range"], answer.read()

    size = len(IMAGE)
    for first in range(0, size, 64 * 1024):
        last = min(first + 64 * 1024, size) - 1
        assert ask(f"bytes={first}-{last}") == (206, f"bytes {first}-{last}/{size}", IMAGE[first : last + 1])
    assert ask(f"bytes={size - 10}-") == (206, f"bytes {size - 10}-{size - 1}/{size}", IMAGE[-10:])
    assert ask("bytes=-10") == (206, f"bytes {size - 10}-{size - 1}/{size}", IMAGE[-10:])
    assert ask(f"bytes={size - 10}-{size + 10}")[0] == 206, "an end beyond the end means the end"
    assert ask(f"bytes={size}-{size + 10}")[0] == 416
    assert ask("bytes=0-9", path=f"{parts.path}?{parts.query}0")[0] == 403
    assert ask("bytes=0-9") == (206, f"bytes 0-9/{size}", IMAGE[:10])
    assert connection.sock is socket_before, "nothing of this needed another handshake"
    connection.close()


@pytest.mark.timeout(600)
def test_an_image_comes_from_another_store_whose_authority_the_device_trusts_for_images(
    server: ServerProcess, new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    elsewhere = new_server(name="elsewhere").start()
    thing = f"elsewhere-{uuid.uuid4().hex[:12]}"
    device = DeviceProcess(server, thing, tmp_path / thing).enroll(build_image("journey", "1.0.0", "posix"))
    shipped = build_image("journey", "2.0.0", "posix", payload=IMAGE)
    iot, bucket = server.client("iot"), server.endpoints["bucket"]
    version = server.client("s3").put_object(Bucket=bucket, Key=f"{thing}.zip", Body=shipped)["VersionId"]
    # Signed here, for a group that has nobody in it; its bytes then lie elsewhere.
    group = iot.create_thing_group(thingGroupName=f"nobody-{thing}")["thingGroupArn"]
    destination = {"s3Destination": {"bucket": bucket, "prefix": "SignedImages/"}}
    signing = {"signingProfileName": server.endpoints["signing_profile"], "destination": destination}
    create_update(
        server,
        thing,
        group,
        key=f"{thing}.zip",
        version=version,
        protocols=["HTTP"],
        signing={"startSigningJobParameter": signing},
        file_type=0,
    )
    wait_until_created(server, thing)
    job = iot.get_ota_update(otaUpdateId=thing)["otaUpdateInfo"]["awsIotJobId"]
    document = json.loads(iot.get_job_document(jobId=job, beforeSubstitution=True)["document"])
    elsewhere.client("s3").put_object(Bucket=elsewhere.endpoints["bucket"], Key="there.zip", Body=shipped)
    store = elsewhere.client("s3", endpoint_url=elsewhere.endpoints["device_url"], config=Config(signature_version="s3v4"))
    named = {"Bucket": elsewhere.endpoints["bucket"], "Key": "there.zip"}
    document["afr_ota"]["files"][0]["update_data_url"] = store.generate_presigned_url("get_object", Params=named)
    device.change_settings(images_ca_file=elsewhere.endpoints["ca_file"])
    arn = iot.describe_thing(thingName=thing)["thingArn"]
    iot.create_job(jobId=thing, targets=[arn], document=json.dumps(document, separators=(",", ":")))
    device.boot()
    try:
        execution = device.wait_for_end(thing, timeout_s=300)
        assert execution["status"] == "SUCCEEDED", (execution, device.log())
        assert device.status()["sha256"] == hashlib.sha256(shipped).hexdigest()
    finally:
        device.stop()


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


OWN_SIGNATURE = {
    "customCodeSigning": {
        "signature": {"inlineDocument": b"\x30\x06\x02\x01\x01\x02\x01\x01"},
        "certificateChain": {"certificateName": "own.pem"},
        "hashAlgorithm": "SHA256",
        "signatureAlgorithm": "ECDSA",
    }
}


def create_update(
    server: ServerProcess,
    update: str,
    target: str,
    *,
    key: str,
    version: str,
    protocols: list[str],
    signing: dict[str, Any] = OWN_SIGNATURE,
    file_type: int | None = None,
    **more: Any,
) -> None:
    """One file of the server's bucket, in exactly this version."""
    location = {"s3Location": {"bucket": server.endpoints["bucket"], "key": key, "version": version}}
    file = {"fileName": "app.bin", "fileLocation": location, "codeSigning": signing}
    server.client("iot").create_ota_update(
        otaUpdateId=update,
        targets=[target],
        protocols=protocols,
        roleArn=server.endpoints["ota_role_arn"],
        files=[file if file_type is None else {**file, "fileType": file_type}],
        **more,
    )


def wait_until_created(server: ServerProcess, update: str) -> None:
    """Ask until the saga is through; GetOTAUpdate is the only way to learn it."""
    deadline = time.monotonic() + 60
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
