"""Content keys wrapped for readers."""

from __future__ import annotations

from base64 import urlsafe_b64decode

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.key_wrapping import (
    MalformedRecipient,
    NotUnwrapped,
    UnsuitableKey,
    key_id_of,
    load_public_key,
    public_key_der,
    read_recipient,
    unwrap,
    wrap,
)

READER, OTHER, EPHEMERAL = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
CONTENT_KEY = bytes(range(32))


def private_key(d: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(urlsafe_b64decode(d + "=")), ec.SECP256R1())


def test_the_cose_working_groups_example_is_unwrapped() -> None:
    """cose-wg/Examples, ecdh-wrap-examples/p256-wrap-256-01: ECDH-ES + A256KW for a key of 128 bits."""
    ephemeral = {
        1: 2,
        -1: 1,
        -2: bytes.fromhex("3FC1141F492FDB3B33122BE61B31BAFD860798DB190E07831FB7A2E42713F4CA"),
        -3: bytes.fromhex("FC09D3DEF88EA52953B51F48955BFAC1AC79B4286F0673519A4A71FC18B62869"),
    }
    unprotected = {-1: ephemeral, 4: b"meriadoc.brandybuck@buckland.example"}
    wrapped = bytes.fromhex("E00E25B58AEADDE5A475F1D69D2A2C199E5C1F231C5B164A")
    recipient = read_recipient([bytes.fromhex("A101381E"), unprotected, wrapped])
    reader = private_key("r_kHyZ-a06rmxM3yESK84r1otSg-aQcVStkRhA-iCM8")
    assert unwrap(recipient, reader) == bytes.fromhex("B2353161740AACF1F7163647984B522A")
    assert recipient.to_cose() == [bytes.fromhex("A101381E"), unprotected, wrapped]


def test_what_it_is_made_of_meets_the_standards_own_figures() -> None:
    # RFC 3394 §4.6: 256 bits of key data with a 256-bit key.
    kek = bytes.fromhex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
    data = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
    wrapped = bytes.fromhex("28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21")
    assert aes_key_wrap(kek, data) == wrapped
    assert aes_key_unwrap(kek, wrapped) == data
    # RFC 5869 A.3: SHA-256 without salt and info.
    derived = HKDF(algorithm=hashes.SHA256(), length=42, salt=None, info=b"").derive(b"\x0b" * 22)
    assert derived.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"


def test_only_the_reader_unwraps() -> None:
    made = wrap(CONTENT_KEY, READER.public_key(), EPHEMERAL)
    assert made.key_id == key_id_of(READER.public_key())
    assert unwrap(read_recipient(cbor2.loads(cbor2.dumps(made.to_cose()))), READER) == CONTENT_KEY
    with pytest.raises(NotUnwrapped):
        unwrap(made, OTHER)


@given(part=st.sampled_from(["x", "y", "wrapped"]), position=st.integers(0, 31), flip=st.integers(1, 255))
def test_a_changed_recipient_opens_nothing(part: str, position: int, flip: int) -> None:
    protected, unprotected, wrapped = wrap(CONTENT_KEY, READER.public_key(), EPHEMERAL).to_cose()
    ephemeral = dict(unprotected[-1])
    before = {"x": ephemeral[-2], "y": ephemeral[-3], "wrapped": wrapped}[part]
    after = bytes(byte ^ flip if index == position else byte for index, byte in enumerate(before))
    if part == "wrapped":
        wrapped = after
    else:
        ephemeral[-2 if part == "x" else -3] = after
    with pytest.raises(NotUnwrapped):
        unwrap(read_recipient([protected, {**unprotected, -1: ephemeral}, wrapped]), READER)


def test_recipients_of_another_shape_are_refused() -> None:
    protected, unprotected, wrapped = wrap(CONTENT_KEY, READER.public_key(), EPHEMERAL).to_cose()
    ephemeral = unprotected[-1]
    for value in (
        None,
        [protected, unprotected],
        [protected, unprotected, wrapped, []],
        [cbor2.dumps({1: -29}), unprotected, wrapped],
        [protected, {**unprotected, 5: b""}, wrapped],
        [protected, {-1: ephemeral}, wrapped],
        [protected, {**unprotected, -1: {**ephemeral, -1: 2}}, wrapped],
        [protected, {**unprotected, -1: {**ephemeral, -3: True}}, wrapped],
        [protected, {**unprotected, -1: {**ephemeral, -2: b"\1" * 31}}, wrapped],
        [protected, {**unprotected, 4: b""}, wrapped],
        [protected, {**unprotected, 4: "name"}, wrapped],
        [protected, unprotected, wrapped[:-1]],
    ):
        with pytest.raises(MalformedRecipient):
            read_recipient(value)


def test_keys_of_another_kind_are_refused() -> None:
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    key = READER.public_key()
    assert key_id_of(load_public_key(key.public_bytes(*pem))) == key_id_of(load_public_key(public_key_der(key)))
    for data in (
        b"",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(*pem),
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*pem),
        key.public_bytes(*pem) + b" " * 5000,
    ):
        with pytest.raises(UnsuitableKey):
            load_public_key(data)
