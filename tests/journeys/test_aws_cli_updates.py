"""The ``aws`` command line signs and sends updates as the guide's examples do."""

from __future__ import annotations

import base64
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.wire.image_signature import SignatureAlgorithm, load_signer_certificate, verify_image_signature
from tests.journeys.test_aws_cli_streams import AWS, CommandLine
from tests.support.code_signing import credential
from tests.support.server_process import ServerProcess

IMAGE = b"an image of the command line " * 500


@pytest.fixture
def aws(server: ServerProcess, tmp_path: Path) -> CommandLine:
    if not AWS.exists():
        pytest.skip("not run: the aws command line isn't installed")
    return CommandLine(server, tmp_path)


def wait_until_created(aws: CommandLine, update: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        info: dict[str, Any] = aws.run("iot", "get-ota-update", "--ota-update-id", update)["otaUpdateInfo"]
        if info["otaUpdateStatus"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            return info
    raise AssertionError(f"{update} is still being created after 30 s")


def test_a_custom_signature_as_base64_text_is_understood_whatever_the_command_line_wraps_round_it(
    server: ServerProcess, aws: CommandLine
) -> None:
    signer, update = credential(), f"cli-{uuid.uuid4().hex[:8]}"
    assert isinstance(signer.key, ec.EllipticCurvePrivateKey)
    text = base64.b64encode(signer.key.sign(IMAGE, ec.ECDSA(hashes.SHA256()))).decode()
    (aws.folder / "image.bin").write_bytes(IMAGE)
    thing = aws.run("iot", "create-thing", "--thing-name", update)
    put = ("--bucket", server.endpoints["bucket"], "--key", f"{update}.bin", "--body", "image.bin")
    version = aws.run("s3api", "put-object", *put)["VersionId"]
    location = {"bucket": server.endpoints["bucket"], "key": f"{update}.bin", "version": version}
    signing = {
        "signature": {"inlineDocument": text},
        "certificateChain": {"certificateName": "/c.pem", "inlineDocument": signer.certificate_pem.decode()},
        "hashAlgorithm": "SHA256",
        "signatureAlgorithm": "ECDSA",
    }
    request = {
        "otaUpdateId": update,
        "targets": [thing["thingArn"]],
        "files": [
            {
                "fileName": "firmware.bin",
                "fileLocation": {"s3Location": location},
                "codeSigning": {"customCodeSigning": signing},
            }
        ],
        "roleArn": server.endpoints["ota_role_arn"],
    }
    (aws.folder / "update.json").write_text(json.dumps(request))
    answer = aws.run("iot", "create-ota-update", "--cli-input-json", "file://update.json")
    assert (answer["awsIotJobId"], answer["otaUpdateStatus"]) == (f"AFR_OTA-{update}", "CREATE_PENDING")
    info = wait_until_created(aws, update)
    assert info["otaUpdateStatus"] == "CREATE_COMPLETE", info
    document = json.loads(aws.run("iot", "get-job-document", "--job-id", answer["awsIotJobId"])["document"])
    verify_image_signature(
        [IMAGE],
        signature=base64.b64decode(document["afr_ota"]["files"][0]["sig-sha256-ecdsa"]),
        algorithm=SignatureAlgorithm.ECDSA_SHA256,
        signer=load_signer_certificate(signer.certificate_pem),
    )

    request["otaUpdateId"] = f"{update}-tampered"
    signing["signature"] = {
        "inlineDocument": base64.b64encode(signer.key.sign(IMAGE + b"!", ec.ECDSA(hashes.SHA256()))).decode()
    }
    (aws.folder / "update.json").write_text(json.dumps(request))
    refused = aws.refused("iot", "create-ota-update", "--cli-input-json", "file://update.json")
    assert "InvalidRequestException" in refused
    assert "doesn't verify" in refused
