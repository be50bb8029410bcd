"""The qualification's bad images: none of them ever runs for good, and the execution says why."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.code_signing import credential
from tests.support.qualification import (
    Board,
    Operator,
    Way,
    image,
    image_without_network,
    later,
    progress_reports,
    scenario,
    with_one_bit_flipped,
)

SIGNATURE_CHECK_FAILED = "0x000000e3: 0x00000000"
NO_SUCH_SIGNER = "0x000000e7: 0x00000000"
NO_FILE_NAME = "0x000000e4: 0x00000000"
NOT_AN_IMAGE = "0x000000e8: 0x00000001"
OTHER_HARDWARE = "0x000000e8: 0x00000002"
DOWNGRADE = "rejected: 0x0000000f"
SAME_VERSION = "rejected: 0x00000010"
ROLLED_BACK = "rejected: 0x00000011"


def updates_of_a_trial_that_broke_off(content: bytes) -> range:
    """The download's, ready, active of the new image if it could still say so, active of the old one, and the end."""
    least = progress_reports(len(content)) + 3
    return range(least, least + 2)


@scenario("SameVersion")
def test_same_version(board: Board, way: Way) -> None:
    board.refuses(image(board.version), SAME_VERSION)


@scenario("PreviousVersion")
def test_previous_version(board: Board, way: Way) -> None:
    board.refuses(image("0.8.9"), DOWNGRADE)


@scenario("UnsignedImage")
def test_unsigned_image(board: Board, way: Way) -> None:
    board.refuses(image(later(board.version)), SIGNATURE_CHECK_FAILED, code_signing={}, fetched=False)


@scenario("UntrustedCertificate")
def test_untrusted_certificate(board: Board, way: Way) -> None:
    """Signed by a certificate that the server holds and the board doesn't trust, under the trusted one's name."""
    stranger = credential(name="Somebody else")
    signing = board.operator.signing_by(stranger.certificate_pem, stranger.key_pem, "AmazonFreeRTOS-Default")
    board.refuses(image(later(board.version)), SIGNATURE_CHECK_FAILED, code_signing=signing)


@scenario("IncorrectSigningAlgorithm")
def test_incorrect_signing_algorithm(board: Board, way: Way) -> None:
    """Rightly signed, by RSA over SHA-1, for a board that verifies ECDSA over SHA-256."""
    signer = credential(kind="rsa-2048", name="For another board")
    signing = board.operator.signing_by(signer.certificate_pem, signer.key_pem, "AmazonFreeRTOS-TI-CC3220SF")
    board.refuses(image(later(board.version)), SIGNATURE_CHECK_FAILED, code_signing=signing)


@scenario("IncorrectPlatform")
def test_incorrect_platform(board: Board, way: Way) -> None:
    """A signature that is none, said to be another platform's, by a signer whom nobody knows."""
    signing = board.operator.signed_elsewhere(
        b"IAmVeryTrusted", anchor="VeryTrustworthyOrganization", hashing="SHA1", signing="RSA"
    )
    board.refuses(image(later(board.version)), NO_SUCH_SIGNER, code_signing=signing)
    board.refuses(image(later(board.version), hardware_id="another-board"), OTHER_HARDWARE)


@scenario("IncorrectPlatform", over=["cbor"])
def test_a_certificate_that_is_none_is_refused_at_the_call(board: Board, way: Way) -> None:
    """The same recipe with its certificate inline, which the server reads and the cloud's doesn't."""
    signing = board.operator.signed_elsewhere(b"IAmVeryTrusted", anchor="VeryTrustworthyOrganization")
    signing["customCodeSigning"]["certificateChain"]["inlineDocument"] = "TrustUs"
    with pytest.raises(ClientError, match="can't check the signature"):
        board.send(image(later(board.version)), code_signing=signing)


@scenario("CorruptImageBeforeSigning")
def test_corrupt_image_before_signing(board: Board, way: Way) -> None:
    board.refuses(b"the end is never " * 2500, NOT_AN_IMAGE)


@scenario("SingleByteImage")
def test_single_byte_image(board: Board, way: Way) -> None:
    board.refuses(b"a", NOT_AN_IMAGE)


@scenario("CorruptImageAfterSigning", briefly=("cbor", "json", "http"))
def test_corrupt_image_after_signing(board: Board, way: Way) -> None:
    content = image(later(board.version))
    signing = board.operator.signed_elsewhere(board.operator.signature_of(content))
    board.refuses(with_one_bit_flipped(content), SIGNATURE_CHECK_FAILED, code_signing=signing)


@scenario("CorruptSignature")
def test_corrupt_signature(board: Board, way: Way) -> None:
    """Still a signature in its form: two whole numbers in DER, one of which is off by a bit."""
    content = image(later(board.version))
    signature = bytearray(board.operator.signature_of(content))
    signature[-1] ^= 1
    board.refuses(content, SIGNATURE_CHECK_FAILED, code_signing=board.operator.signed_elsewhere(bytes(signature)))


@scenario("CorruptImageAfterSigning", over=["cbor"])
@pytest.mark.parametrize("member", ["payload", "signature"])
def test_a_signed_object_that_was_changed_makes_no_update(board: Board, way: Way, member: str) -> None:
    """AWS's own recipe: the object that the signer wrote is changed in its bucket, and streamed."""
    iot, storage, endpoints = board.operator.client("iot"), board.operator.client("s3"), board.server.endpoints
    bucket = endpoints["bucket"]
    job, key = board.operator.sign(image(later(board.version)))
    document = json.loads(storage.get_object(Bucket=bucket, Key=key)["Body"].read())
    value = bytearray(base64.b64decode(document[member]))
    value[-1] ^= 1
    document[member] = base64.b64encode(value).decode()
    storage.put_object(Bucket=bucket, Key=key, Body=json.dumps(document).encode())
    stream, update = f"stream-{secrets.token_hex(4)}", f"q-{secrets.token_hex(8)}"
    iot.create_stream(
        streamId=stream,
        files=[{"fileId": 0, "s3Location": {"bucket": bucket, "key": key}}],
        roleArn=endpoints["ota_role_arn"],
    )
    iot.create_ota_update(
        otaUpdateId=update,
        targets=[iot.describe_thing(thingName=board.name)["thingArn"]],
        roleArn=endpoints["ota_role_arn"],
        files=[
            {
                "fileName": "firmware",
                "fileLocation": {"stream": {"streamId": stream, "fileId": 0}},
                "codeSigning": {"awsSignerJobId": job},
            }
        ],
    )

    def settled() -> dict[str, Any] | None:
        info = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
        return dict(info) if info["otaUpdateStatus"] in ("CREATE_COMPLETE", "CREATE_FAILED") else None

    info = board.operator.asks_until(settled)
    assert (info["otaUpdateStatus"], info["errorInfo"]["code"]) == ("CREATE_FAILED", "InvalidRequestException")
    executions = iot.list_job_executions_for_thing(thingName=board.name)["executionSummaries"]
    assert all(each["jobId"] != f"AFR_OTA-{update}" for each in executions), "no device is given it"


@scenario("MissingFilename")
def test_missing_filename(board: Board, way: Way) -> None:
    board.refuses(image(later(board.version)), NO_FILE_NAME, file_name=None, fetched=False)


@scenario("ImageCrashed")
def test_image_crashed(board: Board, way: Way) -> None:
    """It dies in its self-test; the old image finds the self-test open, and says so as the C agent does."""
    content = image(later(board.version), self_test="crash")
    board.rolls_back_from(content, ROLLED_BACK, updates=updates_of_a_trial_that_broke_off(content))


@scenario("HungSelfTest")
def test_hung_self_test(new_board: Callable[..., Board], operator: Operator, way: Way) -> None:
    """It never comes back from its self-test; the boot loader, as a watchdog would, ends it."""
    board = new_board(operator, way, self_test_timeout_s=4)
    content = image(later(board.version), self_test="hang")
    board.rolls_back_from(content, ROLLED_BACK, updates=updates_of_a_trial_that_broke_off(content))


@scenario("RollbackIfUnableToConnectAfterUpdate")
def test_rollback_if_unable_to_connect_after_update(new_board: Callable[..., Board], operator: Operator, way: Way) -> None:
    """The new image reaches nobody and gives itself up; its self-test was never even begun."""
    board = new_board(operator, way, self_test_response_timeout_s=2)
    content = image_without_network(later(board.version))
    board.rolls_back_from(content, ROLLED_BACK, updates=progress_reports(len(content)) + 1 + 1 + 1)
