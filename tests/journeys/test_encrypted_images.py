"""An image that nobody between its signer and the devices it is for can read."""

from __future__ import annotations

import json
import secrets
import ssl
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.decryption_keys import DecryptionKeys
from overair.agent.image_builder import build_image
from overair.cli.image_encryption import encrypt_file
from overair.wire.blocks import bitmap_for, block_count
from overair.wire.custom_signature import CustomSignature
from overair.wire.decryption_messages import Declaration, declare_topic
from overair.wire.image_envelope import is_encrypted
from overair.wire.image_signature import SignatureAlgorithm
from overair.wire.key_wrapping import load_public_key
from overair.wire.stream_client import decode_block, encode_get_stream
from overair.wire.stream_messages import Dialect, Echo, GetStreamRequest
from tests.journeys.test_downloads_over_https import fetch
from tests.journeys.test_images_signed_away_from_the_server import HARDWARE, Desk, desk
from tests.support.device_process import DeviceProcess, wait_until
from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess

__all__ = ["desk"]

FIRMWARE = secrets.token_bytes(200_000)
WINDOWS = [FIRMWARE[at : at + 16] for at in range(100, len(FIRMWARE), 7_001)]
BLOCK = 4096


def shows_firmware(data: bytes) -> bool:
    """Whether it holds any of some stretches of 16 bytes of the firmware."""
    return any(window in data for window in WINDOWS)


def stored(server: ServerProcess) -> Iterator[Path]:
    """Whatever the server has on its disk: records and their journals, contents, log."""
    yield from (path for path in server.data.rglob("*") if path.is_file())
    yield server.data.parent / f"{server.data.name}.log"


def files_with_firmware(server: ServerProcess) -> list[Path]:
    return [path for path in stored(server) if shows_firmware(path.read_bytes())]


@dataclass
class Fleet:
    """A device with a key of its own and its group's; the group's public key on the desk."""

    device: DeviceProcess
    group_key: Path
    group: str


@pytest.fixture(scope="module")
def fleet(server: ServerProcess, desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    name = f"secret-{uuid.uuid4().hex[:8]}"
    process = DeviceProcess(server, name, tmp_path_factory.mktemp("device") / name)
    process.enroll(desk.image("1.0.0").read_bytes())
    for anchor in process.directory.trust.glob("*.pem"):
        anchor.unlink()
    (process.directory.trust / "release.pem").write_bytes(desk.pair.certificate_pem)
    keys, group_key = DecryptionKeys(process.directory), ec.generate_private_key(ec.SECP256R1())
    keys.make()
    keys.add("fleet", group_key)
    public_file = desk.folder / f"{name}.pub.pem"
    public_file.write_text(keys.all()[1].public_pem)
    process.boot()
    iot, group = server.client("iot"), f"group-{name}"
    iot.create_thing_group(thingGroupName=group)
    iot.add_thing_to_thing_group(thingGroupName=group, thingName=name)
    wait_until(lambda: declared(server, name), what=process.log)
    yield Fleet(process, public_file, group)
    process.stop()


def signed(desk: Desk, image: Path) -> Path:
    """As ``overair sign image`` writes it."""
    key = desk.pair.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    out = image.with_name(f"{image.name}.sig.json")
    signature = CustomSignature(
        signature=key.sign(image.read_bytes(), ec.ECDSA(hashes.SHA256())),
        algorithm=SignatureAlgorithm.ECDSA_SHA256,
        certificate_pem=desk.pair.certificate_pem.decode(),
        certificate_name="release.pem",
    )
    out.write_bytes(signature.to_json())
    return out


def secret_image(desk: Desk, version: str) -> Path:
    path = desk.folder / f"secret-{version}.zip"
    path.write_bytes(build_image("secret", version, HARDWARE, payload=FIRMWARE))
    return path


def declared(server: ServerProcess, thing: str) -> list[dict[str, Any]]:
    return list(server.client("overair").list_decryption_keys(thingName=thing)["things"])


def test_mqtt_links_bucket_and_disk_show_no_byte_of_the_firmware(
    server: ServerProcess, desk: Desk, fleet: Fleet, tmp_path: Path
) -> None:
    image = secret_image(desk, "2.0.0")
    assert shows_firmware(image.read_bytes())
    words = ["--signature", signed(desk, image), "--encrypt-to", fleet.group_key, "--data", server.data, "--json"]
    shipped = json.loads(desk.run("ship", image, "--to", fleet.device.name, "--watch", *words, "--timeout", "90"))
    assert shipped["counts"] == {"SUCCEEDED": 1}
    assert fleet.device.status()["version"] == "2.0.0"
    assert fleet.device.directory.slot_file("b").read_bytes() == image.read_bytes()
    # The bucket.
    iot = server.client("iot")
    found = iot.get_ota_update(otaUpdateId=shipped["job"].removeprefix("AFR_OTA-"))["otaUpdateInfo"]
    file = found["otaUpdateFiles"][0]
    at = file["fileLocation"]["s3Location"]
    body = server.client("s3").get_object(Bucket=at["bucket"], Key=at["key"], VersionId=at["version"])["Body"].read()
    assert is_encrypted(body)
    assert not shows_firmware(body)
    # What another reader of the group gets by MQTT and by a link: recorded as it leaves TLS.
    identity = enroll(server, tmp_path, f"listener-{uuid.uuid4().hex[:8]}")
    with Device(server, identity) as listener:
        reader = load_public_key(fleet.group_key.read_bytes())
        said = listener.ask(declare_topic(identity.thing), json.loads(Declaration(keys=(reader,)).to_json()))
        assert said["_topic"].endswith("/accepted"), said
        iot.create_ota_update(
            otaUpdateId=f"heard-{identity.thing}",
            targets=[identity.thing_arn],
            protocols=["MQTT", "HTTP"],
            files=[{"fileName": "fw", "fileType": 0, "fileLocation": {"s3Location": at}, "codeSigning": file["codeSigning"]}],
            roleArn=server.endpoints["ota_role_arn"],
        )
        record = [json.dumps(document := document_of(listener)).encode()]
        entry = document["afr_ota"]["files"][0]
        assert entry["encrypted"] == {"format": 1, "keyIds": [declared(server, identity.thing)[0]["keys"][0]["keyId"][:16]]}
        blocks = streamed(listener, document["afr_ota"]["streamname"], entry["filesize"], record)
        status, linked = fetch(server, entry["update_data_url"], first=0, last=entry["filesize"] - 1)
        assert (status, linked, b"".join(blocks)) == (206, body, body)
        assert not any(shows_firmware(message) for message in [*record, linked])
    # The disk; and that one looks in the right places.
    assert files_with_firmware(server) == []
    server.client("s3").put_object(Bucket=at["bucket"], Key="plain.zip", Body=image.read_bytes())
    assert files_with_firmware(server) != []


def document_of(device: Device) -> dict[str, Any]:
    """Of the next job, once there is one."""
    device.subscribe(device.jobs("notify-next"))
    execution: dict[str, Any] = device.ask(device.jobs("$next/get")).get("execution") or {}
    while not execution:
        _, data = device.next_message(device.jobs("notify-next"))
        execution = json.loads(data).get("execution") or {}
    return dict(execution["jobDocument"])


def streamed(device: Device, stream: str, size: int, record: list[bytes]) -> Iterable[bytes]:
    """All blocks of file 0, in their order; each payload is noted as it came."""
    topic = f"$aws/things/{device.identity.thing}/streams/{stream}"
    device.subscribe(f"{topic}/data/cbor", qos=0)
    blocks: dict[int, bytes] = {}
    total = block_count(size, BLOCK)
    while len(blocks) < total:
        missing = [number for number in range(total) if number not in blocks][:32]
        request = GetStreamRequest(
            file_id=0,
            block_size_bytes=BLOCK,
            block_offset=missing[0],
            bitmap=bitmap_for(missing, missing[0]),
            block_count=len(missing),
            echo=Echo(client_token="rdy"),
        )
        device.publish(f"{topic}/get/cbor", encode_get_stream(request, Dialect.CBOR))
        for _ in missing:
            _, payload = device.next_message(f"{topic}/data/cbor")
            record.append(payload)
            block = decode_block(payload, Dialect.CBOR)
            blocks[block.number] = block.data
    return [blocks[number] for number in range(total)]


def test_a_machine_that_never_had_the_image_sends_what_the_signers_machine_encrypted(
    server: ServerProcess, desk: Desk, fleet: Fleet, tmp_path: Path
) -> None:
    image = secret_image(desk, "3.0.0")
    signature, sent = signed(desk, image), tmp_path / "release.enc"
    encrypt_file(image, sent, [load_public_key(fleet.group_key.read_bytes())])
    assert not shows_firmware(sent.read_bytes())
    words = ["--to", f"group:{fleet.group}", "--version", "3.0.0", "--data", server.data]
    shipped = json.loads(desk.run("ship", sent, "--signature", signature, *words, "--watch", "--json", "--timeout", "90"))
    assert shipped["counts"] == {"SUCCEEDED": 1}
    assert fleet.device.status()["version"] == "3.0.0"


def test_whoever_could_not_read_it_is_refused_by_name_here_and_at_the_server(
    server: ServerProcess, desk: Desk, fleet: Fleet, tmp_path: Path
) -> None:
    iot, stranger = server.client("iot"), f"stranger-{uuid.uuid4().hex[:8]}"
    stranger_arn = iot.create_thing(thingName=stranger)["thingArn"]
    iot.add_thing_to_thing_group(thingGroupName=fleet.group, thingName=stranger)
    image = desk.image("4.0.0")
    words = ["--signature", signed(desk, image), "--data", server.data]
    refused = desk.run("ship", image, "--encrypt-to", fleet.group_key, "--to", f"group:{fleet.group}", *words, code=2)
    assert f"{stranger}: it has never declared that it can decrypt" in refused
    # Who comes by another way finds the server's own refusal, with the reason.
    sent = tmp_path / "by-hand.enc"
    encrypt_file(image, sent, [load_public_key(fleet.group_key.read_bytes())])
    bucket = server.endpoints["bucket"]
    server.client("s3").put_object(Bucket=bucket, Key="by-hand.enc", Body=sent.read_bytes())
    update = f"by-hand-{stranger}"
    iot.create_ota_update(
        otaUpdateId=update,
        targets=[stranger_arn],
        files=[
            {
                "fileName": "fw",
                "fileLocation": {"s3Location": {"bucket": bucket, "key": "by-hand.enc"}},
                "codeSigning": {
                    "customCodeSigning": {
                        "signature": {"inlineDocument": b"0" * 256},
                        "certificateChain": {"certificateName": "release.pem"},
                        "signatureAlgorithm": "RSA",
                    }
                },
            }
        ],
        roleArn=server.endpoints["ota_role_arn"],
    )
    job = f"AFR_OTA-{update}"
    wait_until(lambda: iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]["otaUpdateStatus"] == "CREATE_COMPLETE")
    execution = iot.describe_job_execution(jobId=job, thingName=stranger)["execution"]
    assert execution["status"] == "REJECTED"
    assert "never declared" in execution["statusDetails"]["detailsMap"]["reason"]
    why = " ".join(server.client("overair").explain_thing(thingName=stranger)["reasons"])
    assert f"{stranger} was not given job {job}" in why
    iot.remove_thing_from_thing_group(thingGroupName=fleet.group, thingName=stranger)


def test_a_device_may_declare_its_keys_over_https(server: ServerProcess, fleet: Fleet) -> None:
    directory = fleet.device.directory
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    context.load_cert_chain(directory.certificate_file, directory.private_key_file)
    said = Declaration(keys=tuple(key.public for key in DecryptionKeys(directory).all()), formats=(1, 7))
    topic = urllib.parse.quote(declare_topic(fleet.device.name), safe="")
    url = f"{server.endpoints['device_url']}/topics/{topic}?qos=1"
    request = urllib.request.Request(url, data=said.to_json(), method="POST")
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        assert answer.status == 200
    (told,) = declared(server, fleet.device.name)
    assert told["formats"] == [1, 7]
    assert len(told["keys"]) == 2
