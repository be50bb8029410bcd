"""What is not what its signer signed never runs, and the server is told why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overair.agent.image_builder import build_image
from tests.support.device import Signer
from tests.support.device_process import DeviceProcess, wait_until
from tests.support.server_process import ServerProcess

HARDWARE = "posix"


@dataclass
class Road:
    """A device that trusts an operator's own signer, and that operator."""

    server: ServerProcess
    device: DeviceProcess
    signer: Signer
    sent: int = 0

    def send(self, content: bytes, code_signing: dict[str, Any] | None) -> dict[str, Any]:
        """One OTA update through boto3; the execution once it has ended."""
        self.sent += 1
        update = f"{self.device.name}-{self.sent}"
        endpoints, iot = self.server.endpoints, self.server.client("iot")
        put = self.server.client("s3").put_object(Bucket=endpoints["bucket"], Key=f"{update}.zip", Body=content)
        location = {"bucket": endpoints["bucket"], "key": f"{update}.zip", "version": put["VersionId"]}
        file: dict[str, Any] = {"fileName": "firmware", "fileLocation": {"s3Location": location}}
        if code_signing is not None:
            file["codeSigning"] = {"customCodeSigning": code_signing}
        thing = iot.describe_thing(thingName=self.device.name)["thingArn"]
        iot.create_ota_update(otaUpdateId=update, targets=[thing], roleArn=endpoints["ota_role_arn"], files=[file])

        def created() -> str | None:
            info = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
            assert info["otaUpdateStatus"] != "CREATE_FAILED", info
            return str(info["awsIotJobId"]) if info["otaUpdateStatus"] == "CREATE_COMPLETE" else None

        return self.device.wait_for_end(wait_until(created, what=self.server.log))

    def signing(self, content: bytes, *, signer: Signer | None = None, anchor: str = "own.pem") -> dict[str, Any]:
        """A custom signature with no certificate inline: the server can't check it, so the device must."""
        return {
            "signature": {"inlineDocument": (signer or self.signer).sign(content)},
            "certificateChain": {"certificateName": f"/certificates/{anchor}"},
            "hashAlgorithm": "SHA256",
            "signatureAlgorithm": "ECDSA",
        }


@pytest.fixture(scope="module")
def road(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    device = DeviceProcess(server, "bad-images", tmp_path_factory.mktemp("bad-images") / "device")
    device.enroll(build_image("journey", "1.0.0", HARDWARE))
    signer = Signer()
    (device.directory.trust / "own.pem").write_bytes(signer.certificate_pem)
    device.boot()
    yield Road(server=server, device=device, signer=signer)
    device.stop()


def image(version: str = "2.0.0", hardware: str = HARDWARE) -> bytes:
    return build_image("journey", version, hardware, payload=os.urandom(50_000))


def refused(road: Road, content: bytes, code_signing: dict[str, Any] | None) -> str:
    """The reason given for a refusal; nothing else may have changed."""
    before = road.device.status(), road.device.image_pid
    execution = road.send(content, code_signing)
    assert execution["status"] == "FAILED"
    after = road.device.status(), road.device.image_pid
    assert (after[0] | {"job": None}, after[1]) == (before[0] | {"job": None}, before[1])
    assert not list(Path(road.device.directory.slots).glob("receiving.*"))
    return str(execution["statusDetails"]["detailsMap"]["reason"])


def test_a_byte_flipped_after_signing_is_refused(road: Road) -> None:
    signed = image()
    tampered = bytearray(signed)
    tampered[len(signed) // 2] ^= 1
    assert refused(road, bytes(tampered), road.signing(signed)) == "0x000000e3: 0x00000000"


def test_another_signers_image_is_refused(road: Road) -> None:
    content = image()
    assert refused(road, content, road.signing(content, signer=Signer())) == "0x000000e3: 0x00000000"


def test_a_signer_that_the_device_does_not_know_is_refused(road: Road) -> None:
    content = image()
    assert refused(road, content, road.signing(content, anchor="stranger.pem")) == "0x000000e7: 0x00000000"


def test_an_unsigned_image_is_refused(road: Road) -> None:
    assert refused(road, image(), None) == "0x000000e3: 0x00000000"


def test_a_lower_and_an_equal_version_are_refused(road: Road) -> None:
    for version, reason in (("0.9.0", "rejected: 0x0000000f"), ("1.0.0", "rejected: 0x00000010")):
        content = image(version)
        assert refused(road, content, road.signing(content)) == reason


def test_an_image_for_other_hardware_and_bytes_that_are_none_are_refused(road: Road) -> None:
    other = image(hardware="another-board")
    assert refused(road, other, road.signing(other)) == "0x000000e8: 0x00000002"
    noise = os.urandom(5000)
    assert refused(road, noise, road.signing(noise)) == "0x000000e8: 0x00000001"


def test_the_same_device_takes_the_good_image_after_all_that(road: Road) -> None:
    content = image("2.0.0")
    execution = road.send(content, road.signing(content))
    assert execution["status"] == "SUCCEEDED", road.device.log()
    assert road.device.status()["version"] == "2.0.0"
