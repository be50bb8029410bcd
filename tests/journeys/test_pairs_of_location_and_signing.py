"""The guide's six pairs of location and signing, several files, and no signature at all: each document byte for byte.

The expected texts are written out here, not by our own writer: they are what the C agents search (wire reference §5.1, §5.2).
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.code_signing import Credential, credential
from tests.support.device_process import wait_until
from tests.support.field_device import Device, Identity, enroll
from tests.support.server_process import ServerProcess, overair

IMAGE = hashlib.shake_256(b"an image of each pair").digest(9_001)
BLOCK_SIZE_BYTES = 4096


@dataclass
class Shop:
    """An operator with a signer of their own, and one device."""

    server: ServerProcess
    identity: Identity
    signer: Credential
    certificate_arn: str

    @property
    def bucket(self) -> str:
        return str(self.server.endpoints["bucket"])

    def store(self, image: bytes = IMAGE) -> dict[str, str]:
        key = f"fw-{uuid.uuid4().hex[:8]}"
        version = self.server.client("s3").put_object(Bucket=self.bucket, Key=key, Body=image)["VersionId"]
        return {"bucket": self.bucket, "key": key, "version": version}

    def make_stream(self, location: dict[str, str], file_id: int) -> str:
        stream = f"own-{uuid.uuid4().hex[:8]}"
        self.server.client("iot").create_stream(
            streamId=stream, files=[{"fileId": file_id, "s3Location": location}], roleArn=self.server.endpoints["ota_role_arn"]
        )
        return stream

    def profile(self, certificate_path: str) -> str:
        name = f"p_{uuid.uuid4().hex[:8]}"
        self.server.client("signer").put_signing_profile(
            profileName=name,
            platformId="AmazonFreeRTOS-Default",
            signingMaterial={"certificateArn": self.certificate_arn},
            signingParameters={"certname": certificate_path},
        )
        return name

    def signed_before(self, certificate_path: str, location: dict[str, str]) -> str:
        """A finished signing job."""
        signer = self.server.client("signer")
        job = str(
            signer.start_signing_job(
                source={"s3": {"bucketName": self.bucket, "key": location["key"], "version": location["version"]}},
                destination={"s3": {"bucketName": self.bucket, "prefix": "SignedImages/"}},
                profileName=self.profile(certificate_path),
                clientRequestToken=uuid.uuid4().hex,
            )["jobId"]
        )
        wait_until(lambda: signer.describe_signing_job(jobId=job)["status"] == "Succeeded", what=self.server.log)
        return job

    def custom(self, certificate_path: str, image: bytes = IMAGE) -> dict[str, Any]:
        assert isinstance(self.signer.key, ec.EllipticCurvePrivateKey)
        return {
            "customCodeSigning": {
                "signature": {"inlineDocument": self.signer.key.sign(image, ec.ECDSA(hashes.SHA256()))},
                "certificateChain": {
                    "certificateName": certificate_path,
                    "inlineDocument": self.signer.certificate_pem.decode(),
                },
                "hashAlgorithm": "SHA256",
                "signatureAlgorithm": "ECDSA",
            }
        }

    def update(self, *files: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A finished update of these files."""
        iot, update = self.server.client("iot"), f"rel-{uuid.uuid4().hex[:8]}"
        made = iot.create_ota_update(
            otaUpdateId=update,
            targets=[self.identity.thing_arn],
            files=list(files),
            roleArn=self.server.endpoints["ota_role_arn"],
            **more,
        )
        assert made["awsIotJobId"] == f"AFR_OTA-{update}"

        def whole() -> dict[str, Any] | None:
            info: dict[str, Any] = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
            assert info["otaUpdateStatus"] != "CREATE_FAILED", info
            return info if info["otaUpdateStatus"] == "CREATE_COMPLETE" else None

        return dict(wait_until(whole, what=self.server.log))

    def check_signature(self, text: str, image: bytes = IMAGE) -> None:
        assert isinstance(self.signer.key, ec.EllipticCurvePrivateKey)
        self.signer.key.public_key().verify(base64.b64decode(text), image, ec.ECDSA(hashes.SHA256()))


@pytest.fixture(scope="module")
def shop(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    signer = credential()
    arn = server.client("acm").import_certificate(Certificate=signer.certificate_pem, PrivateKey=signer.key_pem)[
        "CertificateArn"
    ]
    identity = enroll(server, tmp_path_factory.mktemp("pairs"), f"pairs-{uuid.uuid4().hex[:8]}")
    return Shop(server=server, identity=identity, signer=signer, certificate_arn=arn)


def stream_and_signer_job(shop: Shop) -> dict[str, Any]:
    location = shop.store()
    job = shop.signed_before("/certificates/a.pem", location)
    stream = shop.make_stream(location, 7)
    return {"fileLocation": {"stream": {"streamId": stream, "fileId": 7}}, "codeSigning": {"awsSignerJobId": job}}


def stream_and_custom(shop: Shop) -> dict[str, Any]:
    stream = shop.make_stream(shop.store(), 7)
    return {"fileLocation": {"stream": {"streamId": stream, "fileId": 7}}, "codeSigning": shop.custom("/certificates/a.pem")}


def object_and_new_profile(shop: Shop) -> dict[str, Any]:
    signing = {
        "signingProfileName": f"p_{uuid.uuid4().hex[:8]}",
        "signingProfileParameter": {
            "certificateArn": shop.certificate_arn,
            "platform": "AmazonFreeRTOS-Default",
            "certificatePathOnDevice": "/certificates/a.pem",
        },
        "destination": {"s3Destination": {"bucket": shop.bucket, "prefix": "SignedImages/"}},
    }
    return {"fileLocation": {"s3Location": shop.store()}, "codeSigning": {"startSigningJobParameter": signing}}


def object_and_profile(shop: Shop) -> dict[str, Any]:
    signing = {"signingProfileName": shop.profile("/certificates/a.pem")}
    return {"fileLocation": {"s3Location": shop.store()}, "codeSigning": {"startSigningJobParameter": signing}}


def signer_job_alone(shop: Shop) -> dict[str, Any]:
    return {"codeSigning": {"awsSignerJobId": shop.signed_before("/certificates/a.pem", shop.store())}}


def object_and_custom(shop: Shop) -> dict[str, Any]:
    return {"fileLocation": {"s3Location": shop.store()}, "codeSigning": shop.custom("/certificates/a.pem")}


@pytest.mark.parametrize(
    "pair",
    [
        stream_and_signer_job,
        stream_and_custom,
        object_and_new_profile,
        object_and_profile,
        signer_job_alone,
        object_and_custom,
    ],
)
def test_each_pair_of_location_and_signing_gives_the_c_agents_document(
    shop: Shop, pair: Callable[[Shop], dict[str, Any]]
) -> None:
    file = pair(shop)
    info = shop.update({"fileName": "/device/updates", "fileType": 0, **file})
    text = document_of(shop, info)
    read = json.loads(text)["afr_ota"]
    signature, stream = read["files"][0]["sig-sha256-ecdsa"], read["streamname"]
    own = file.get("fileLocation", {}).get("stream")
    file_id = own["fileId"] if own else 0
    assert text == (
        f'{{"afr_ota":{{"protocols":["MQTT"],"streamname":"{stream}","files":[{{"filepath":"/device/updates",'
        f'"filesize":9001,"fileid":{file_id},"certfile":"/certificates/a.pem","fileType":0,"sig-sha256-ecdsa":"{signature}"}}]}}}}'
    )
    assert stream == own["streamId"] if own else stream.startswith("AFR_OTA-")
    assert len(stream) <= 44
    shop.check_signature(signature)
    with Device(shop.server, shop.identity) as device:
        assert received_document(device, info["awsIotJobId"]) == text.encode()
        assert download(device, stream, file_id) == IMAGE
    signing = info["otaUpdateFiles"][0]["codeSigning"]
    assert ("awsSignerJobId" in signing) == ("customCodeSigning" not in signing)
    assert "overair:unsigned" not in info.get("additionalParameters", {})
    finish(shop, info)


def test_several_files_stand_in_one_document_and_one_stream(shop: Shop) -> None:
    other = b"a second file"
    info = shop.update(
        {"fileName": "fw", **object_and_profile(shop)},
        {
            "fileName": "extra",
            "fileType": 2,
            "fileLocation": {"s3Location": shop.store(other)},
            "codeSigning": shop.custom("b", other),
        },
    )
    text = document_of(shop, info)
    read = json.loads(text)["afr_ota"]
    first, second = (file["sig-sha256-ecdsa"] for file in read["files"])
    assert text == (
        f'{{"afr_ota":{{"protocols":["MQTT"],"streamname":"{read["streamname"]}","files":['
        f'{{"filepath":"fw","filesize":9001,"fileid":0,"certfile":"/certificates/a.pem","sig-sha256-ecdsa":"{first}"}},'
        f'{{"filepath":"extra","filesize":13,"fileid":1,"certfile":"b","fileType":2,"sig-sha256-ecdsa":"{second}"}}]}}}}'
    )
    shop.check_signature(first)
    shop.check_signature(second, other)
    with Device(shop.server, shop.identity) as device:
        assert (download(device, read["streamname"], 0), download(device, read["streamname"], 1)) == (IMAGE, other)
    finish(shop, info)


def test_an_unsigned_update_is_marked_wherever_it_is_told_of(shop: Shop) -> None:
    info = shop.update(
        {"fileName": "fw", "fileLocation": {"s3Location": shop.store()}, "attributes": {"never": "sent"}},
        additionalParameters={"mine": "kept"},
    )
    assert info["additionalParameters"] == {"mine": "kept", "overair:unsigned": "true"}
    read = json.loads(document_of(shop, info))["afr_ota"]
    assert document_of(shop, info) == (
        f'{{"afr_ota":{{"protocols":["MQTT"],"streamname":"{read["streamname"]}","files":['
        f'{{"filepath":"fw","filesize":9001,"fileid":0,"certfile":""}}]}}}}'
    )
    why = shop.server.client("overair").explain_thing(thingName=shop.identity.thing)["reasons"]
    assert any("UNSIGNED" in reason and info["awsIotJobId"] in reason for reason in why), why
    warnings = shop.server.client("overair").describe_server()["warnings"]
    assert any(info["otaUpdateId"] in warning for warning in warnings), warnings
    finish(shop, info)
    for flags, marked in ((["--json"], '"unsigned": true'), ([], "UNSIGNED")):
        watched = overair("watch", info["otaUpdateId"], "--data", shop.server.data, *flags)
        assert (watched.returncode, marked in watched.stdout) == (3, True), watched


def document_of(shop: Shop, info: dict[str, Any]) -> str:
    return str(shop.server.client("iot").get_job_document(jobId=info["awsIotJobId"])["document"])


def received_document(device: Device, job: str) -> bytes:
    """The document's bytes inside the raw answer, as a C agent's search sees them."""
    topic = device.jobs(f"{job}/get")
    device.publish(topic, {"clientToken": "0:x"})
    _, raw = device.next_message(f"{topic}/accepted")
    assert raw.count(b'"jobDocument":') == 1
    return raw.split(b'"jobDocument":', 1)[1].removesuffix(b"}}")


def download(device: Device, stream: str, file_id: int) -> bytes:
    """A file, asked for as the C agent asks: one block at a time by a bitmap of all that is missing."""
    base = f"$aws/things/{device.identity.thing}/streams/{stream}"
    device.subscribe(f"{base}/data/cbor", qos=0)
    device.publish(f"{base}/get/cbor", cbor2.dumps({"f": file_id, "l": BLOCK_SIZE_BYTES, "o": 0, "n": 32}))
    blocks: dict[int, bytes] = {}
    while True:
        block = cbor2.loads(device.next_message(f"{base}/data/cbor")[1])
        assert block["f"] == file_id
        blocks[block["i"]] = block["p"]
        if block["l"] < BLOCK_SIZE_BYTES:
            return b"".join(blocks[number] for number in sorted(blocks))


def finish(shop: Shop, info: dict[str, Any]) -> None:
    """The next pair's job must be the first in the queue."""
    shop.server.client("iot").cancel_job(jobId=info["awsIotJobId"], force=True)
