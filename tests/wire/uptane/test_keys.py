from __future__ import annotations

import contextlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.uptane.keys import Flavour, KeyType, UnknownKey, public_key_of, read_public_key
from overair.wire.uptane.refusals import MetadataRefused, Reason

ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
KEYS = {KeyType.ED25519: ED25519, KeyType.RSA: RSA, KeyType.ECDSA: P256}


@pytest.mark.parametrize(
    ("kind", "flavour"),
    [(kind, flavour) for kind in KeyType for flavour in Flavour if (kind, flavour) != (KeyType.ECDSA, Flavour.UPTANE)],
)
def test_a_key_comes_back_as_it_was_written(kind: KeyType, flavour: Flavour) -> None:
    key = public_key_of(KEYS[kind].public_key())
    assert read_public_key(key.to_json(flavour), flavour) == key
    assert (key.type, len(key.id)) == (kind, 64)


def test_ecdsa_is_a_key_of_tufs_clients_alone() -> None:
    key = public_key_of(P256.public_key())
    with pytest.raises(UnknownKey, match="RSA and ED25519"):
        read_public_key(key.to_json(Flavour.UPTANE), Flavour.UPTANE)


def test_case_of_types_and_digits_and_space_round_a_pem_do_not_matter() -> None:
    small = public_key_of(ED25519.public_key())
    digits = ED25519.public_key().public_bytes_raw().hex().upper()
    assert read_public_key({"keytype": "Ed25519", "keyval": {"public": digits}}) == small
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for spelt in (pem, pem.strip(), f"\n{pem}\n"):
        assert read_public_key({"keytype": "rsa", "keyval": {"public": spelt}}) == public_key_of(RSA.public_key())


@pytest.mark.parametrize("salt", [0, 32, 20, 222])
def test_a_pss_signature_verifies_with_a_salt_of_any_length(salt: int) -> None:
    signature = RSA.sign(b"words", padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())
    key = public_key_of(RSA.public_key())
    assert key.verifies(signature, b"words")
    assert not key.verifies(signature, b"other words")


@pytest.mark.parametrize(
    "signature",
    [
        RSA.sign(b"words", padding.PKCS1v15(), hashes.SHA256()),
        RSA.sign(b"words", padding.PSS(padding.MGF1(hashes.SHA1()), 20), hashes.SHA256()),
        RSA.sign(b"words", padding.PSS(padding.MGF1(hashes.SHA512()), 64), hashes.SHA512()),
        b"",
    ],
    ids=["pkcs1", "mgf1-sha1", "sha512", "empty"],
)
def test_other_paddings_and_hashes_do_not_verify(signature: bytes) -> None:
    assert not public_key_of(RSA.public_key()).verifies(signature, b"words")


@pytest.mark.parametrize(
    ("kind", "sign"),
    [(KeyType.ED25519, ED25519.sign), (KeyType.ECDSA, lambda data: P256.sign(data, ec.ECDSA(hashes.SHA256())))],
)
def test_signatures_of_the_other_kinds_verify(kind: KeyType, sign: Any) -> None:
    key = public_key_of(KEYS[kind].public_key())
    assert key.verifies(sign(b"words"), b"words")
    assert not key.verifies(sign(b"words"), b"Words")


@given(signature=st.binary(max_size=300), kind=st.sampled_from(KeyType))
def test_arbitrary_bytes_are_no_signature_and_no_error(signature: bytes, kind: KeyType) -> None:
    assert not public_key_of(KEYS[kind].public_key()).verifies(signature, b"words")


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())], ids=["rsa-1024", "p-384"]
)
def test_keys_that_clients_can_not_use_are_refused(key: Any) -> None:
    with pytest.raises(MetadataRefused) as caught:
        public_key_of(key.public_key())
    assert caught.value.reason is Reason.UNSUPPORTED_METHOD


def pem_of(key: Any) -> str:
    found: str = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return found


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        ({"keytype": "unknown", "keyval": {"public": ""}}, Reason.UNSUPPORTED_METHOD, "key.keytype"),
        (
            {"keytype": "RSA", "keyval": {"public": pem_of(rsa.generate_private_key(65537, 1024))}},
            Reason.UNSUPPORTED_METHOD,
            "key.keyval.public",
        ),
        ({"keytype": "RSA", "keyval": {"public": pem_of(P256)}}, Reason.INVALID_METADATA, "key.keyval.public"),
        (
            {"keytype": "RSA", "keyval": {"public": pem_of(dsa.generate_private_key(1024))}},
            Reason.INVALID_METADATA,
            "key.keyval.public",
        ),
        ({"keytype": "RSA", "keyval": {"public": "-----BEGIN"}}, Reason.INVALID_METADATA, "key.keyval.public"),
        ({"keytype": "RSA", "keyval": {"public": " " * 5000 + pem_of(RSA)}}, Reason.INVALID_METADATA, "key.keyval.public"),
        ({"keytype": "ED25519", "keyval": {"public": "ab"}}, Reason.INVALID_METADATA, "key.keyval.public"),
        ({"keytype": "ED25519", "keyval": {"public": "zz" * 32}}, Reason.INVALID_METADATA, "key.keyval.public"),
        ({"keytype": "ED25519", "keyval": "ab"}, Reason.INVALID_METADATA, "key"),
        ({"keytype": 7, "keyval": {"public": "ab"}}, Reason.INVALID_METADATA, "key"),
        ([], Reason.INVALID_METADATA, "key"),
    ],
)
def test_a_key_that_can_not_be_read_is_refused_with_its_place(value: object, reason: Reason, field: str) -> None:
    with pytest.raises(MetadataRefused) as caught:
        read_public_key(value)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_in_the_tuf_flavour_a_scheme_must_be_known() -> None:
    key = public_key_of(ED25519.public_key()).to_json(Flavour.TUF)
    with pytest.raises(UnknownKey):
        read_public_key({**key, "scheme": "ed448"}, Flavour.TUF)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["keytype", "keyval", "public", "scheme"]), inner),
    max_leaves=8,
)


@given(value=JSON, flavour=st.sampled_from(Flavour), kind=st.sampled_from(["rsa", "ed25519", "ecdsa"]), public=st.text())
def test_arbitrary_values_are_a_key_or_our_own_error(value: object, flavour: Flavour, kind: str, public: str) -> None:
    for each in (value, {"keytype": kind, "scheme": "ed25519", "keyval": {"public": public}}):
        with contextlib.suppress(MetadataRefused):
            read_public_key(each, flavour)
