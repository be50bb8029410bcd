"""Images signed by a certificate whose private key isn't in the records."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.basics.errors import Conflict, InvalidRequest
from overair.basics.redacted import Redacted
from overair.server.certificates.acm_operator_api import AcmOperatorApi
from overair.server.keyring.holders import HolderSettings, KeyHolders
from overair.server.keyring.keys import verifies
from overair.server.keyring.model import SignatureAlgorithm
from tests.support.code_signing import Credential, credential
from tests.support.signing_road import SigningRoad
from tests.support.soft_token import LIBRARY, PIN, needs_a_token, put_on_token, softhsm

IMAGE = b"an image" * 5000


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_text(PIN)
    return path


@pytest.fixture
def desk(road: SigningRoad, pin_file: Path) -> Iterator[SigningRoad]:
    """The road, on a machine with a token."""
    softhsm()
    road.holders = KeyHolders(HolderSettings(home=road.account, pkcs11_module=Path(str(LIBRARY)), pkcs11_pin_file=pin_file))
    road.compose()
    yield road
    road.holders.close()


def on_token(signer: Credential, folder: Path) -> str:
    label = f"signer-{uuid.uuid4().hex[:8]}"
    put_on_token(signer.key_pem, label, folder)
    return f"pkcs11:token=overair;object={label}"


async def import_held(road: SigningRoad, signer: Credential, uri: str, arn: str | None = None) -> str:
    """ImportCertificate, with the URI where the private key would be."""
    api = AcmOperatorApi(work=road.work, acm=road.acm)
    request = {"Certificate": signer.certificate_pem, "PrivateKey": uri.encode(), "CertificateArn": arn}
    answer = await api.import_certificate(road.caller(), request)
    return str(answer["CertificateArn"])


@needs_a_token
@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", ["ec", "rsa-2048"])
async def test_an_image_is_signed_by_a_key_on_a_token(desk: SigningRoad, tmp_path: Path, kind: str) -> None:
    signer = credential(kind=kind)
    arn = await import_held(desk, signer, on_token(signer, tmp_path))
    await desk.make_profile("profile", arn)
    job_id = await desk.start("profile", await desk.upload("image.bin", IMAGE))
    await desk.signing_worker.run_once()
    answer = await desk.signer_api.describe_signing_job(desk.caller(), {"jobId": job_id})
    assert answer["status"] == "Succeeded"
    job = desk.work.read_blocking(lambda tx: desk.signing.job(tx, desk.account, job_id))  # type: ignore[arg-type]
    assert job.signed is not None
    algorithm = SignatureAlgorithm.ECDSA_SHA256 if kind == "ec" else SignatureAlgorithm.RSA_PKCS1_SHA256
    signature = base64.b64decode(job.signed.signature)
    assert verifies(signer.key.public_key(), signature, IMAGE, algorithm=algorithm)


@needs_a_token
@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
async def test_a_token_that_is_gone_fails_the_job_in_words_and_leaves_no_object(
    desk: SigningRoad, tmp_path: Path, pin_file: Path
) -> None:
    signer = credential()
    arn = await import_held(desk, signer, on_token(signer, tmp_path))
    await desk.make_profile("profile", arn)
    job_id = await desk.start("profile", await desk.upload("image.bin", IMAGE))
    assert desk.holders is not None
    desk.holders.close()
    pin_file.unlink()
    await desk.signing_worker.run_once()
    answer = await desk.signer_api.describe_signing_job(desk.caller(), {"jobId": job_id})
    assert answer["status"] == "Failed"
    assert "The PIN file" in answer["statusReason"]
    assert not await desk.versions(f"SignedImages/{job_id}")
    with pytest.raises(Conflict, match="The PIN file"):
        await desk.signer_api.sign_payload(desk.caller(), {"profileName": "profile", "payload": b"x", "payloadFormat": "blob"})


@needs_a_token
@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
async def test_only_the_certificate_s_own_key_is_taken_and_a_refusal_changes_nothing(desk: SigningRoad, tmp_path: Path) -> None:
    signer, other = credential(), credential()
    with pytest.raises(Conflict, match="another key than the certificate's"):
        await import_held(desk, signer, on_token(other, tmp_path))
    with pytest.raises(Conflict, match="holds no key"):
        await import_held(desk, signer, "pkcs11:token=overair;object=nowhere")
    with pytest.raises(InvalidRequest, match="takes no key"):
        await import_held(desk, signer, "awskms:alias/x")
    assert desk.work.read_blocking(lambda tx: desk.keyring.list(tx, desk.account)) == []
    # A certificate whose key was here is renewed by one whose key lies on the token, under the same ARN.
    arn = desk.import_certificate(other)
    assert await import_held(desk, signer, on_token(signer, tmp_path), arn) == arn
    (key,) = desk.work.read_blocking(lambda tx: desk.keyring.list(tx, desk.account))
    assert key.holder.startswith("pkcs11:token=overair;object=signer-")


@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
async def test_a_certificate_whose_key_is_offline_makes_no_profile_and_says_who_signs(road: SigningRoad) -> None:
    signer = credential()
    arn = await import_held(road, signer, "offline:release%20team")
    with pytest.raises(Conflict, match=r"offline by release team.*overair sign image"):
        await road.make_profile("profile", arn)
    given = road.acm.read(road.place, certificate_pem=signer.certificate_pem, private_key=Redacted(signer.key_pem), arn=arn)
    road.work.run_blocking(lambda tx: road.acm.import_certificate(tx, road.place, given))
    await road.make_profile("profile", arn)
