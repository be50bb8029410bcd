"""``overair sign image``: keys in files and on a token, and what isn't signed."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from overair.wire.custom_signature import read_custom_signature
from overair.wire.image_signature import verify_image_signature
from tests.cli.sign.conftest import PASSPHRASE, Signer
from tests.support.code_signing import Credential, credential
from tests.support.soft_token import PIN, needs_a_token

IMAGE = hashlib.shake_256(b"an image").digest(1_500_000)
KINDS = ["ec", "rsa-2048"]


@pytest.fixture
def somebody(person: Callable[[str], Signer]) -> Signer:
    """Somebody without a tree and without a server."""
    return person("bob")


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest) -> Credential:
    return credential(kind=request.param)


def sealed(pair: Credential) -> bytes:
    how = serialization.BestAvailableEncryption(PASSPHRASE.encode())
    return pair.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def check(out: Path, image: bytes, pair: Credential) -> None:
    """As a device does."""
    found = read_custom_signature(out.read_bytes())
    verify_image_signature([image], signature=found.signature, algorithm=found.algorithm, signer=found.signer)
    assert found.certificate_pem.encode() == pair.certificate_pem


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_key_in_a_file_signs_an_image(somebody: Signer, pair: Credential, encrypted: bool) -> None:
    image = somebody.file("fw.bin", IMAGE)
    key = somebody.file("release.key", sealed(pair) if encrypted else pair.key_pem)
    certificate = somebody.file("release.pem", pair.certificate_pem)
    told = somebody("image", image, "--key", key, "--certificate", certificate).json
    out = image.with_name("fw.bin.sig.json")
    assert told["signature"] == str(out)
    assert told["sha256"] == hashlib.sha256(IMAGE).hexdigest()
    assert told["certificate_name"] == "release.pem"
    check(out, IMAGE, pair)
    members = json.loads(out.read_bytes())["customCodeSigning"]
    assert members["hashAlgorithm"] == "SHA256"
    assert members["signatureAlgorithm"] == ("ECDSA" if told["algorithm"].endswith("ecdsa") else "RSA")


@needs_a_token
def test_a_key_on_a_token_signs_an_image(somebody: Signer, pair: Credential, token: str, pin: Path) -> None:
    image, certificate = somebody.file("fw.bin", IMAGE), somebody.file("release.pem", pair.certificate_pem)
    name = f"image-{type(pair.key).__name__}"
    import_key(somebody, pair, name)
    out = somebody.path.parent / "out.json"
    words = ["--key", "pkcs11:" + token.format(name), "--certificate", certificate, "--certificate-name", "/certs/fleet"]
    told = somebody("image", image, *words, "--out", out).json
    assert told["certificate_name"] == "/certs/fleet"
    check(out, IMAGE, pair)
    missing = somebody("image", image, "--key", "pkcs11:" + token.format("nobody"), "--certificate", certificate, code=3)
    assert "holds no" in missing.err
    pin.write_text("0000")
    assert "PIN" in somebody("image", image, *words, code=1).err
    assert not image.with_name("fw.bin.sig.json").exists()


def import_key(somebody: Signer, pair: Credential, name: str) -> None:
    key = somebody.file("token.key", pair.key_pem)
    words = ["softhsm2-util", "--import", str(key), "--token", "overair", "--label", name, "--id", name.encode().hex()]
    subprocess.run([*words, "--pin", PIN], check=True, capture_output=True)
    key.unlink()


def test_what_devices_would_refuse_is_written_by_nobody(somebody: Signer) -> None:
    pair, other, weak = credential(), credential(), credential(kind="ec-p384")
    image, empty = somebody.file("fw.bin", b"image"), somebody.file("empty.bin", b"")
    key = somebody.file("release.key", sealed(pair))
    certificate = somebody.file("release.pem", pair.certificate_pem)
    foreign = somebody.file("other.pem", other.certificate_pem)
    unfit = somebody.file("p384.pem", weak.certificate_pem)
    no_key = somebody.file("no.key", b"-----BEGIN PRIVATE KEY-----\nbm8=\n-----END PRIVATE KEY-----\n")
    assert "another key's certificate" in somebody("image", image, "--key", key, "--certificate", foreign, code=4).err
    assert "P-256" in somebody("image", image, "--key", key, "--certificate", unfit, code=1).err
    assert "empty" in somebody("image", empty, "--key", key, "--certificate", certificate, code=1).err
    assert "no private key" in somebody("image", image, "--key", no_key, "--certificate", certificate, code=1).err
    assert "can't be read" in somebody("image", image, "--key", "/nowhere.key", "--certificate", certificate, code=1).err
    somebody.passphrase_file.write_text("another one altogether\n")
    wrong = somebody("image", image, "--key", key, "--certificate", certificate, code=1)
    assert "passphrase" in wrong.err
    assert list(somebody.path.parent.glob("*.sig.json")) == []
    assert not any(PASSPHRASE in text or "PRIVATE KEY" in text for text in somebody.said)
