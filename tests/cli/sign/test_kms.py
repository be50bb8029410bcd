"""Keys in a key service, through securesystemslib's signers: one registered for these tests, and the real ones' refusals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, SecretsHandler, Signature, Signer

from overair.wire.uptane.metadata import Role
from tests.cli.sign.conftest import Signer as Person
from tests.support.signing_server import SigningServer


class FakeService(Signer):
    """A cloud that holds keys by name. ``spoils``: makes signatures that aren't; ``is_down``: doesn't answer."""

    keys: dict[str, CryptoSigner] = {}  # noqa: RUF012
    spoils = False
    is_down = False

    def __init__(self, name: str, public_key: Key) -> None:
        self.name = name
        self._public_key = public_key

    @property
    def public_key(self) -> Key:
        return self._public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> FakeService:
        return cls(priv_key_uri.partition(":")[2], public_key)

    def sign(self, payload: bytes) -> Signature:
        if self.is_down:
            raise ConnectionError("no route")
        made = self.keys[self.name].sign(payload)
        return Signature(made.keyid, "00" * 64) if self.spoils else made


@pytest.fixture
def service() -> Iterator[type[FakeService]]:
    FakeService.keys = {name: CryptoSigner.generate_ed25519() for name in ("root", "targets")}
    FakeService.keys["rsa"] = CryptoSigner.generate_rsa(size=3072)
    FakeService.spoils = FakeService.is_down = False
    SIGNER_FOR_URI_SCHEME["fakekms"] = FakeService
    yield FakeService
    del SIGNER_FOR_URI_SCHEME["fakekms"]


def _public(person: Person, key: Any, name: str) -> Path:
    private = key._private_key if isinstance(key, CryptoSigner) else key
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return person.file(name, pem)


def test_keys_in_a_service_sign_root_and_targets(signer: Person, server: SigningServer, service: type[FakeService]) -> None:
    for name, role in (("root", "root"), ("rsa", "targets")):
        public = _public(signer, service.keys[name], f"{name}.pem")
        (row,) = signer("keys", "new", name, "--role", role, "--kms", f"fakekms:{name}", "--public", public).json["keys"]
        assert row["holder"] == f"fakekms:{name}"
    signer("take-offline", "--yes")
    assert {role for role, _ in server.image.private.values()} == {Role.SNAPSHOT, Role.TIMESTAMP}
    signer("verify", "--as-client")


def test_a_service_that_holds_another_key_is_found_out_at_once(signer: Person, service: type[FakeService]) -> None:
    public = _public(signer, service.keys["targets"], "other.pem")
    outcome = signer("keys", "new", "k", "--role", "root", "--kms", "fakekms:root", "--public", public, code=4)
    assert "doesn't verify" in outcome.err
    assert signer("keys", "list").json["keys"] == []


def test_a_service_that_fails_on_the_day_publishes_nothing(
    signer: Person, server: SigningServer, service: type[FakeService]
) -> None:
    for name in ("root", "targets"):
        public = _public(signer, service.keys[name], f"{name}.pem")
        signer("keys", "new", name, "--role", name, "--kms", f"fakekms:{name}", "--public", public)
    service.spoils = True
    assert "doesn't verify" in signer("take-offline", "--yes", code=4).err
    service.spoils, service.is_down = False, True
    assert "doesn't answer" in signer("take-offline", "--yes", code=5).err
    assert server.image.root.version == 1
    service.is_down = False
    signer("take-offline", "--yes")
    assert server.image.root.version == 2


def test_a_service_that_cannot_be_asked_needs_the_public_key(signer: Person, service: type[FakeService]) -> None:
    assert "--public FILE" in signer("keys", "new", "k", "--role", "root", "--kms", "fakekms:root", code=1).err
    short = _public(signer, rsa.generate_private_key(65537, 2048), "short.pem")
    refused = signer("keys", "new", "k", "--role", "root", "--kms", "fakekms:rsa", "--public", short, code=4)
    assert "at least 3072" in refused.err


@pytest.mark.parametrize(
    ("uri", "code", "said"),
    [
        ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", 1, "google-cloud-kms"),
        ("hv:signing/1", 1, "hvac"),
        ("azurekms://vault/keys/k/1", 4, "ECDSA"),
        ("nowhere:k", 1, "No key service answers"),
        ("gnupg:", 1, "No key service answers"),
        ("file2:/etc/passwd", 1, "No key service answers"),
    ],
)
def test_what_is_missing_for_a_service_is_named(signer: Person, uri: str, code: int, said: str) -> None:
    assert said in signer("keys", "new", "k", "--role", "root", "--kms", uri, code=code).err


def test_without_the_extra_the_refusal_names_it(signer: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "securesystemslib", None)
    assert "overair[kms]" in signer("keys", "new", "k", "--role", "root", "--kms", "awskms:k", code=1).err
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    uri = "pkcs11:token=a;object=b?module-path=/x"
    assert "overair[pkcs11]" in signer("keys", "new", "k", "--role", "root", "--pkcs11", uri, code=1).err


def test_amazons_service_is_asked_for_its_key(signer: Person, monkeypatch: pytest.MonkeyPatch, server: SigningServer) -> None:
    """securesystemslib's own signer for AWS, over a client that stands in for the network alone."""
    import hashlib

    import boto3
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, utils

    private = rsa.generate_private_key(65537, 3072)

    class Kms:
        def get_public_key(self, KeyId: str) -> dict[str, Any]:
            der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            return {"KeyId": KeyId, "PublicKey": der, "SigningAlgorithms": ["RSASSA_PSS_SHA_256"], "KeyUsage": "SIGN_VERIFY"}

        def sign(self, *, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str) -> dict[str, Any]:
            assert (MessageType, SigningAlgorithm) == ("DIGEST", "RSASSA_PSS_SHA_256")
            assert len(Message) == hashlib.sha256().digest_size
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            return {"Signature": private.sign(Message, pss, utils.Prehashed(hashes.SHA256()))}

    monkeypatch.setattr(boto3, "client", lambda name: Kms())
    (row,) = signer("keys", "new", "cloud", "--role", "root", "--kms", "awskms:alias/root").json["keys"]
    assert row["kind"] == "rsa-3072"
    signer("keys", "new", "targets-1", "--role", "targets")
    signer("take-offline", "--yes")
    assert server.image.root.version == 2
