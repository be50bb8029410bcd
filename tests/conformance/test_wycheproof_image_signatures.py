"""Wycheproof: ECDSA P-256 with SHA-256 in DER, as images and metadata are signed, and RSA-2048 PKCS #1 v1.5 with SHA-256, as
images are."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from overair.wire.image_signature import PublicKey, SignatureAlgorithm, digest_is_signed
from overair.wire.uptane.keys import public_key_of
from tests.support.vectors import vectors

FOLDER = vectors("wycheproof")
FILES = {
    "ecdsa_secp256r1_sha256_test.json": SignatureAlgorithm.ECDSA_SHA256,
    "rsa_signature_2048_sha256_test.json": SignatureAlgorithm.RSA_SHA256,
}
DECISIONS = {
    ("rsa_signature_2048_sha256_test.json", 8): False,  # the digest info lacks its NULL: RFC 8017 §9.2 writes it, so refused
}
"""Each ``acceptable`` case: whether we accept it."""


@pytest.mark.parametrize("name", FILES)
def test_every_vector_is_judged_as_the_collection_says(name: str) -> None:
    suite: dict[str, Any] = json.loads((FOLDER / name).read_text())
    judged: Counter[str] = Counter()
    for group in suite["testGroups"]:
        key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
        assert isinstance(key, PublicKey)
        for case in group["tests"]:
            digest = hashlib.sha256(bytes.fromhex(case["msg"])).digest()
            expected = DECISIONS[name, case["tcId"]] if case["result"] == "acceptable" else case["result"] == "valid"
            signed = digest_is_signed(key, digest=digest, signature=bytes.fromhex(case["sig"]), algorithm=FILES[name])
            assert signed is expected, (name, case["tcId"], case["comment"])
            judged[case["result"]] += 1
    assert judged["valid"]
    assert judged["invalid"]
    assert sum(judged.values()) == suite["numberOfTests"]


def test_metadata_signed_with_ecdsa_is_judged_as_the_collection_says() -> None:
    suite: dict[str, Any] = json.loads((FOLDER / "ecdsa_secp256r1_sha256_test.json").read_text())
    judged: Counter[str] = Counter()
    for group in suite["testGroups"]:
        key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        verifier = public_key_of(key)
        for case in group["tests"]:
            signed = verifier.verifies(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
            assert signed is (case["result"] == "valid"), (case["tcId"], case["comment"])
            judged[case["result"]] += 1
    assert judged.keys() == {"valid", "invalid"}
    assert sum(judged.values()) == suite["numberOfTests"]


def test_raw_signatures_of_ecdsa_are_no_signatures_here_however_good_they_are() -> None:
    suite: dict[str, Any] = json.loads((FOLDER / "ecdsa_secp256r1_sha256_p1363_test.json").read_text())
    for group in suite["testGroups"]:
        key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            digest = hashlib.sha256(message).digest()
            assert not digest_is_signed(key, digest=digest, signature=signature, algorithm=SignatureAlgorithm.ECDSA_SHA256)
            assert not public_key_of(key).verifies(signature, message)
