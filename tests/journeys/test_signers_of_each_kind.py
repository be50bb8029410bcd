"""Each kind of code-signing certificate from ACM to a device that boots what it signed; and what is none signs nothing."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from overair.agent.image_builder import build_image
from overair.wire.image_signature import SignatureAlgorithm, load_signer_certificate, verify_image_signature
from tests.support.code_signing import Credential, credential, version_1_certificate_pem
from tests.support.device_process import DeviceProcess, command
from tests.support.server_process import ServerProcess

PLATFORM = "AmazonFreeRTOS-Default"


def import_certificate(server: ServerProcess, signer: Credential) -> str:
    members: dict[str, Any] = {"Certificate": signer.certificate_pem, "PrivateKey": signer.key_pem}
    if signer.chain_pem:
        members["CertificateChain"] = signer.chain_pem
    return str(server.client("acm").import_certificate(**members)["CertificateArn"])


def put_profile(server: ServerProcess, certificate_arn: str) -> str:
    name = f"p_{uuid.uuid4().hex[:8]}"
    server.client("signer").put_signing_profile(
        profileName=name,
        platformId=PLATFORM,
        signingMaterial={"certificateArn": certificate_arn},
        signingParameters={"certname": "/certificates/own.pem"},
    )
    return name


SIGNERS = {
    "ecdsa": lambda: credential(),
    "rsa-2048": lambda: credential(kind="rsa-2048"),
    "rsa-3072": lambda: credential(kind="rsa-3072"),
    "issued-leaf": lambda: credential(name="Leaf", issuer=credential(name="Authority", authority=True)),
}


@pytest.mark.parametrize("kind", ["ecdsa", "rsa-2048", pytest.param("rsa-3072", marks=pytest.mark.long), "issued-leaf"])
def test_an_image_signed_by_each_kind_of_certificate_is_booted(server: ServerProcess, tmp_path: Path, kind: str) -> None:
    signer = SIGNERS[kind]()
    profile = put_profile(server, import_certificate(server, signer))
    name = f"signed-{kind}"
    first, second = (build_image("signed", version, "posix", payload=os.urandom(9_000)) for version in ("1.0.0", "2.0.0"))
    device = DeviceProcess(server, name, tmp_path / name).enroll(first)
    (device.directory.trust / "own.pem").write_bytes(signer.certificate_pem)
    try:
        device.boot()
        job = device.ship(second, "--profile", profile)
        assert device.wait_for_end(job)["status"] == "SUCCEEDED", device.log()
        assert device.status()["version"] == "2.0.0"
    finally:
        device.stop()
    document = json.loads(server.client("iot").get_job_document(jobId=job)["document"])["afr_ota"]
    [file] = document["files"]
    assert ("sig-sha256-rsa" if kind.startswith("rsa") else "sig-sha256-ecdsa") in file
    assert file["certfile"] == "/certificates/own.pem"

    # Whoever signed for themselves shows as good for testing only, in status and in ship.
    status = json.loads(command("overair.cli.main", "status", "--json", "--data", server.data))
    shown = {entry["name"]: entry["testing_only"] for entry in status["image_signing"]["profiles"]}
    assert shown[profile] is (kind != "issued-leaf")
    image = tmp_path / "image.zip"
    image.write_bytes(second)
    dry = ("ship", image, "--to", name, "--profile", profile, "--dry-run", "--json", "--data", server.data)
    assert json.loads(command("overair.cli.main", *dry))["signer_testing_only"] is (kind != "issued-leaf")


def test_a_certificate_of_version_1_is_imported_but_signs_nothing(server: ServerProcess) -> None:
    signer = credential()
    arn = server.client("acm").import_certificate(Certificate=version_1_certificate_pem(signer), PrivateKey=signer.key_pem)
    with pytest.raises(ClientError, match="version 3") as error:
        put_profile(server, arn["CertificateArn"])
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({"digital_signature": None}, "digitalSignature"),
        ({"digital_signature": False}, "digitalSignature"),
        ({"purposes": None}, "codeSigning"),
    ],
    ids=["no key usage", "another key usage", "no extended key usage"],
)
def test_a_certificate_that_is_not_for_code_is_imported_but_signs_nothing(
    server: ServerProcess, missing: dict[str, Any], words: str
) -> None:
    arn = import_certificate(server, credential(**missing))
    with pytest.raises(ClientError, match=words) as error:
        put_profile(server, arn)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_an_expired_certificate_and_one_of_another_key_are_not_imported(server: ServerProcess) -> None:
    expired = credential(born=datetime.now(UTC) - timedelta(days=30), days=20)
    with pytest.raises(ClientError, match="not valid now") as error:
        import_certificate(server, expired)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="private key") as error:
        server.client("acm").import_certificate(Certificate=credential().certificate_pem, PrivateKey=credential().key_pem)
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_a_certificate_is_renewed_under_its_arn_and_one_not_for_code_does_not_take_its_place(server: ServerProcess) -> None:
    acm, signer = server.client("acm"), server.client("signer")
    arn = import_certificate(server, credential())
    profile = put_profile(server, arn)
    for other, words in (({"purposes": None}, "CODE_SIGNING"), ({"digital_signature": None}, "DIGITAL_SIGNATURE")):
        unfit = credential(**other)
        with pytest.raises(ClientError, match=words):
            acm.import_certificate(CertificateArn=arn, Certificate=unfit.certificate_pem, PrivateKey=unfit.key_pem)
    renewed = credential(name="The next one")
    acm.import_certificate(CertificateArn=arn, Certificate=renewed.certificate_pem, PrivateKey=renewed.key_pem)
    assert acm.describe_certificate(CertificateArn=arn)["Certificate"]["Subject"] == "CN=The next one"
    signed = signer.sign_payload(
        profileName=profile, payload=b"x" * 32, payloadFormat="application/vnd.cncf.notary.payload.v1+json"
    )
    verify_image_signature(
        [b"x" * 32],
        signature=signed["signature"],
        algorithm=SignatureAlgorithm.ECDSA_SHA256,
        signer=load_signer_certificate(renewed.certificate_pem),
    )
