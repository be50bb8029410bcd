"""``overair demo``: the whole road in front of your eyes. A server, three devices, three images; then a vehicle beside them."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from overair.agent.image_builder import build_image
from overair.basics.clock import WallClock, as_datetime
from overair.cli.demo_picture import Outcome, Round, print_table
from overair.cli.demo_stage import IMAGE_NAME, PAYLOAD_SIZE_BYTES, Stage, follow_update, set_up
from overair.cli.demo_uptane import second_act
from overair.cli.device import HARDWARE_ID_DEFAULT
from overair.cli.dispatch import send
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import told_plainly
from overair.cli.output import Json, print_json
from overair.cli.parcel import read_parcel

OWN_SIGNER = "demo-signer.pem"
"""The demo's own trust anchor: it signs the image that is then tampered with."""


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the demo's directory when it ends.")] = False,
    json: Json = False,
) -> None:
    """Start a server and three devices; ship a good image, one tampered with, and one that crashes. Then a vehicle joins
    them, a Uptane Primary with a Secondary, for one rollout; the keys go offline, and the next image is signed elsewhere."""
    console = Console(stderr=json, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="overair-demo-"))
    try:
        with told_plainly(), ExitStack() as stack:
            stage = set_up(stack, folder, console)
            rounds = [_good(stage), _tampered(stage), _crashing(stage)]
            rounds += second_act(stack, stage)
        for each in rounds:
            print_table(console, each)
    finally:
        if keep:
            console.print(f"The demo's directory is {folder}.")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if json:
        print_json({"rounds": [{"name": each.name, "devices": [_members(one) for one in each.outcomes]} for each in rounds]})
    wrong = [each.name for each in rounds if not each.went_as_promised]
    if wrong:
        raise CommandEnded(ExitCode.DEVICES_FAILED, f"The demo did not go as promised: {', '.join(wrong)}.")
    console.print("\nEvery device took the good image, refused the tampered one, and went back from the one that crashed.")
    console.print(
        "A vehicle updated beside them in one rollout; without its signature the next image went to nobody, with it to all."
    )


def _members(outcome: Outcome) -> dict[str, Any]:
    members = asdict(outcome)
    return {"from" if key == "from_version" else "to" if key == "to_version" else key: value for key, value in members.items()}


# The three rounds -----------------------------------------------------------------------------------------------------


def _good(stage: Stage) -> Round:
    image = _image(stage, "2.0.0")
    update = send(
        stage.operator,
        read_parcel(image, version="2.0.0", stored_as=None),
        targets=[stage.target],
        profile=stage.operator.endpoints.signing_profile,
    )
    return follow_update(stage, update, "2.0.0, signed", expected_status="SUCCEEDED", expected_version="2.0.0")


def _tampered(stage: Stage) -> Round:
    image = _image(stage, "2.1.0")
    signature = _sign_with_own_signer(stage, image.read_bytes())
    changed = bytearray(image.read_bytes())
    changed[len(changed) // 2] ^= 0x01
    uploaded = stage.operator.client("s3").put_object(
        Bucket=stage.operator.endpoints.bucket, Key="images/tampered.zip", Body=bytes(changed)
    )
    update = "demo-tampered"
    stage.operator.client("iot").create_ota_update(
        otaUpdateId=update,
        targets=[stage.target],
        roleArn=stage.operator.endpoints.ota_role_arn,
        files=[
            {
                "fileName": "demo.zip",
                "fileVersion": "2.1.0",
                "fileLocation": {
                    "s3Location": {
                        "bucket": stage.operator.endpoints.bucket,
                        "key": "images/tampered.zip",
                        "version": uploaded["VersionId"],
                    }
                },
                "codeSigning": {
                    "customCodeSigning": {
                        "signature": {"inlineDocument": signature},
                        # No certificate inline: the server would check it and refuse. The devices have it in their trust.
                        "certificateChain": {"certificateName": OWN_SIGNER},
                        "hashAlgorithm": "SHA256",
                        "signatureAlgorithm": "ECDSA",
                    }
                },
            }
        ],
    )
    return follow_update(stage, update, "2.1.0, one bit flipped", expected_status="FAILED", expected_version="2.0.0")


def _crashing(stage: Stage) -> Round:
    image = _image(stage, "3.0.0", crashes=True)
    update = send(
        stage.operator,
        read_parcel(image, version="3.0.0", stored_as=None),
        targets=[stage.target],
        profile=stage.operator.endpoints.signing_profile,
    )
    return follow_update(stage, update, "3.0.0, crashes in its self-test", expected_status="FAILED", expected_version="2.0.0")


def _image(stage: Stage, version: str, *, crashes: bool = False) -> Path:
    path = stage.folder / f"demo-{version}.zip"
    payload = os.urandom(PAYLOAD_SIZE_BYTES)
    path.write_bytes(
        build_image(IMAGE_NAME, version, HARDWARE_ID_DEFAULT, self_test="crash" if crashes else "pass", payload=payload)
    )
    return path


def _sign_with_own_signer(stage: Stage, image: bytes) -> bytes:
    """Sign as an operator with a key of their own would; each device gets the certificate as an anchor."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Demo signer")])
    now = as_datetime(WallClock().now())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(_digital_signature_only(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .sign(key, hashes.SHA256())
    )
    for device in stage.devices.values():
        device.anchor_file(OWN_SIGNER).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key.sign(image, ec.ECDSA(hashes.SHA256()))


def _digital_signature_only() -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
