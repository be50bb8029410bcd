"""An image signed with a key that the server never sees, from the signer's desk to the running device."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.image_builder import build_image
from tests.support.code_signing import Credential, credential
from tests.support.device_process import DeviceProcess
from tests.support.server_process import ServerProcess, overair
from tests.support.soft_token import LIBRARY, PIN, needs_a_token

PASSPHRASE = "four words in a row"
HARDWARE = "posix"


@dataclass
class Desk:
    """Whoever signs: a folder that no server knows."""

    folder: Path
    pair: Credential

    def run(self, *arguments: str | Path, code: int = 0, **environment: str) -> str:
        ended = overair(*arguments, **environment)
        assert ended.returncode == code, f"{arguments}: {ended.returncode}\n{ended.stderr}\n{ended.stdout}"
        return ended.stderr if code else ended.stdout

    def image(self, version: str) -> Path:
        path = self.folder / f"app-{version}.zip"
        path.write_bytes(build_image("app", version, HARDWARE))
        return path

    def sign(self, image: Path) -> Path:
        """With the key in a file, under a passphrase."""
        words = ["--key", self.folder / "release.key", "--certificate", self.folder / "release.pem"]
        told = self.run("sign", "image", image, *words, "--passphrase-file", self.folder / "passphrase", "--json")
        return Path(json.loads(told)["signature"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder, pair = tmp_path_factory.mktemp("desk"), credential(name="Release")
    how = serialization.BestAvailableEncryption(PASSPHRASE.encode())
    key = pair.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    (folder / "release.key").write_bytes(key)
    (folder / "release.pem").write_bytes(pair.certificate_pem)
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    return Desk(folder, pair)


@pytest.fixture(scope="module")
def token(desk: Desk) -> dict[str, str]:
    """A token that holds the same key: where its configuration and PIN lie, as variables."""
    (desk.folder / "tokens").mkdir()
    (desk.folder / "softhsm.conf").write_text(f"directories.tokendir = {desk.folder / 'tokens'}\n")
    (desk.folder / "pin").write_text(PIN + "\n")
    plain = desk.folder / "plain.key"
    plain.write_bytes(desk.pair.key_pem)
    environment = {
        "SOFTHSM2_CONF": str(desk.folder / "softhsm.conf"),
        "OVERAIR_SIGN_PIN_FILE": str(desk.folder / "pin"),
    }
    for words in (
        ["--init-token", "--free", "--label", "desk", "--so-pin", "98765"],
        ["--import", str(plain), "--token", "desk", "--label", "release", "--id", "a1"],
    ):
        command = ["softhsm2-util", *words, "--pin", PIN]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    plain.unlink()
    return environment


@pytest.fixture(scope="module")
def device(server: ServerProcess, desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceProcess]:
    """Trusts the desk's certificate and no other, least of all the server's."""
    name = f"trusting-{uuid.uuid4().hex[:8]}"
    process = DeviceProcess(server, name, tmp_path_factory.mktemp("device") / name)
    process.enroll(desk.image("1.0.0").read_bytes())
    for anchor in process.directory.trust.glob("*.pem"):
        anchor.unlink()
    (process.directory.trust / "release.pem").write_bytes(desk.pair.certificate_pem)
    process.boot()
    yield process
    process.stop()


def ship(desk: Desk, server: ServerProcess, device: DeviceProcess, image: Path, *flags: str | Path, code: int = 0) -> str:
    return desk.run(
        "ship", image, "--to", device.name, "--watch", *flags, "--json", "--data", server.data, "--timeout", "90", code=code
    )


def test_an_image_signed_with_a_key_in_a_file_runs_and_a_server_signed_one_does_not(
    server: ServerProcess, desk: Desk, device: DeviceProcess
) -> None:
    image = desk.image("2.0.0")
    shipped = json.loads(ship(desk, server, device, image, "--signature", desk.sign(image)))
    assert shipped["counts"] == {"SUCCEEDED": 1}
    assert device.status()["version"] == "2.0.0"
    ship(desk, server, device, desk.image("2.1.0"), code=3)
    assert device.status()["version"] == "2.0.0"
    assert_no_key(server, desk)


@needs_a_token
def test_an_image_signed_with_a_key_on_a_token_runs(
    server: ServerProcess, desk: Desk, device: DeviceProcess, token: dict[str, str]
) -> None:
    image = desk.image("3.0.0")
    uri = f"pkcs11:token=desk;object=release?module-path={LIBRARY}"
    out = desk.folder / "by-token.json"
    words = ["--key", uri, "--certificate", desk.folder / "release.pem", "--out", out]
    desk.run("sign", "image", image, *words, **token)
    shipped = json.loads(ship(desk, server, device, image, "--signature", out))
    assert shipped["counts"] == {"SUCCEEDED": 1}
    assert device.status()["version"] == "3.0.0"
    assert_no_key(server, desk)


def test_a_signature_of_other_bytes_never_leaves_the_desk(server: ServerProcess, desk: Desk) -> None:
    signature = desk.sign(desk.image("4.0.0"))
    words = ["--signature", signature, "--to", "nobody", "--data", server.data]
    assert "isn't a signature of" in desk.run("ship", desk.image("4.0.1"), *words, code=2)
    assert "--profile" in desk.run("ship", desk.image("4.0.0"), *words, "--profile", "p", code=1)
    assert "no signature" in desk.run(
        "ship", desk.image("4.0.0"), "--signature", desk.folder / "release.pem", *words[2:], code=1
    )


def test_a_group_takes_only_what_was_signed_away_from_the_server(
    server: ServerProcess, desk: Desk, device: DeviceProcess
) -> None:
    iot, group = server.client("iot"), f"offline-{uuid.uuid4().hex[:8]}"
    rule = {"attributePayload": {"attributes": {"overair:image-signing": "offline"}}}
    iot.create_thing_group(thingGroupName=group, thingGroupProperties=rule)
    iot.add_thing_to_thing_group(thingGroupName=group, thingName=device.name)
    image, to = desk.image("5.0.0"), ["--data", server.data, "--to"]
    for target in (f"group:{group}", device.name):
        refused = desk.run("ship", image, *to, target, code=2)
        assert f"thing group {group}" in refused
        assert "is to be signed by this server" in refused
    location = {"bucket": server.endpoints["bucket"], "key": "unsigned"}
    server.client("s3").put_object(Bucket=location["bucket"], Key="unsigned", Body=b"unsigned")
    with pytest.raises(iot.exceptions.InvalidRequestException, match="is unsigned"):
        iot.create_ota_update(
            otaUpdateId=f"unsigned-{group}",
            targets=[iot.describe_thing_group(thingGroupName=group)["thingGroupArn"]],
            files=[{"fileName": "fw", "fileLocation": {"s3Location": location}}],
            roleArn=server.endpoints["ota_role_arn"],
        )
    shipped = desk.run("ship", image, *to, f"group:{group}", "--signature", desk.sign(image), "--watch", "--json")
    assert json.loads(shipped)["counts"] == {"SUCCEEDED": 1}
    assert device.status()["version"] == "5.0.0"
    iot.delete_thing_group(thingGroupName=group)


def assert_no_key(server: ServerProcess, desk: Desk) -> None:
    """Neither the server's records, nor what it stores, nor what it has logged holds the key or its passphrase."""
    key = desk.pair.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    secrets = [scalar, scalar.hex().encode(), PASSPHRASE.encode(), *desk.pair.key_pem.splitlines()[1:3]]
    certificate = desk.pair.certificate_pem.splitlines()[2]
    has_certificate = False
    for path in [*server.data.rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            has_certificate |= certificate in content
            assert not any(secret in content for secret in secrets), path
    assert has_certificate  # so that one is known to look in the right place
    log = (server.data.parent / f"{server.data.name}.log").read_bytes()
    assert log
    assert not any(secret in log for secret in secrets)
