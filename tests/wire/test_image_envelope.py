"""Encrypted images: what comes out went in, and nothing else ever does."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.wire.image_envelope import (
    COSE_SIZE_BYTES_MAX,
    LEADER_SIZE_BYTES,
    MAGIC,
    SEGMENT_SIZE_BYTES_MIN,
    TAG_SIZE_BYTES,
    Envelope,
    MalformedEnvelope,
    SegmentRefused,
    Segments,
    head_size_bytes,
    is_encrypted,
    make_envelope,
    read_head,
)
from overair.wire.job_document import RECIPIENTS_MAX
from overair.wire.key_wrapping import key_id_of, unwrap

SEGMENT = SEGMENT_SIZE_BYTES_MIN
READER = ec.derive_private_key(0xC0FFEE, ec.SECP256R1())
CONTENT_KEY, IV = bytes(range(32)), bytes(range(100, 112))


def envelope_for(size_bytes: int, *, iv: bytes = IV, segment: int = SEGMENT, readers: int = 1) -> Envelope:
    pairs = [(READER.public_key(), ec.derive_private_key(7, ec.SECP256R1()))]
    pairs += [(ec.derive_private_key(n, ec.SECP256R1()).public_key(), pairs[0][1]) for n in range(9, 8 + readers)]
    return make_envelope(plain_size_bytes=size_bytes, content_key=CONTENT_KEY, iv=iv, readers=pairs, segment_size_bytes=segment)


def sealed(image: bytes, **how: Any) -> tuple[Envelope, list[bytes]]:
    envelope = envelope_for(len(image), **how)
    segments = Segments(envelope, CONTENT_KEY)
    step = envelope.segment_size_bytes
    return envelope, [segments.seal(n, image[n * step : (n + 1) * step]) for n in range(envelope.segments)]


def opened(envelope: Envelope, parts: list[bytes]) -> bytes:
    key = unwrap(envelope.recipients[0], READER)
    segments = Segments(envelope, key)
    return b"".join(segments.open(number, part) for number, part in enumerate(parts))


@settings(max_examples=30)
@given(size=st.integers(1, 5 * SEGMENT + 3), seed=st.integers(0, 9))
def test_what_was_encrypted_comes_out_and_lies_where_it_is_said_to(size: int, seed: int) -> None:
    image = Random(seed).randbytes(size)
    envelope, parts = sealed(image)
    whole = envelope.head + b"".join(parts)
    assert len(whole) == envelope.size_bytes
    assert is_encrypted(whole)
    assert head_size_bytes(whole[:LEADER_SIZE_BYTES]) == len(envelope.head)
    read = read_head(whole[: len(envelope.head)])
    assert read == envelope
    cut = [
        whole[read.sealed_offset_bytes(n) : read.sealed_offset_bytes(n) + read.sealed_length_bytes(n)]
        for n in range(read.segments)
    ]
    assert opened(read, cut) == image
    assert image[:16] not in whole or size < 16


def test_an_envelope_of_fixed_keys_has_these_bytes() -> None:
    """Our own figures: whoever writes a reader in another language begins here. Private key 0xc0ffee, ephemeral key 7."""
    envelope, parts = sealed(b"overair " * 1025)
    whole = envelope.head + b"".join(parts)
    assert len(envelope.head) == 272
    assert envelope.key_ids == ("128715f96c5bf1b7213a17175ea06acb0eb580f2db6ac9afa98f28a6616524c6",)
    assert envelope.recipients[0].wrapped.hex() == (
        "27fde4c21b387f6be7162417f78c4f388f9408ffd0c1ddc9e5f8187a0a80f8af78eee0c478f7650a"
    )
    assert [part[-TAG_SIZE_BYTES:].hex() for part in parts] == [
        "3486a66a7f78ee21b4e399d436a8d659",
        "68dd080323f5f5c3855b366e766aea64",
        "cb7232bcc295add464fd58bcf0ea67f0",
    ]
    assert hashlib.sha256(whole).hexdigest() == "c414b0329cebd79d96d2f3cd5fbdd832aec86fdac098d2024dbe445f62ef57a7"
    assert opened(envelope, parts) == b"overair " * 1025


def test_the_head_is_a_cose_encrypt_that_only_who_knows_segments_may_read() -> None:
    envelope = envelope_for(10_000)
    tagged = cbor2.loads(envelope.head[LEADER_SIZE_BYTES:])
    assert isinstance(tagged, cbor2.CBORTag)
    assert tagged.tag == 96
    protected, unprotected, ciphertext, recipients = tagged.value
    said = cbor2.loads(protected)
    assert said[1] == 3  # AES-256-GCM
    assert said[2] == ["overair-segments"]  # critical
    assert said["overair-segments"] == [SEGMENT, 10_000]
    assert (unprotected, ciphertext, len(recipients)) == ({}, None, 1)


def test_a_segment_is_plain_aes_gcm_with_the_nonce_that_the_page_states() -> None:
    envelope, parts = sealed(b"\x11" * (SEGMENT + 5))
    associated = cbor2.dumps(["Encrypt", envelope.protected, MAGIC])
    cipher = AESGCM(CONTENT_KEY)
    first = IV[:7] + bytes([IV[7], IV[8], IV[9], IV[10], IV[11]])
    last = IV[:10] + bytes([IV[10] ^ 1, IV[11] ^ 1])
    assert cipher.decrypt(first, parts[0], associated) == b"\x11" * SEGMENT
    assert cipher.decrypt(last, parts[1], associated) == b"\x11" * 5
    with pytest.raises(InvalidTag):
        cipher.decrypt(first, parts[0], b"")


@settings(max_examples=40)
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_a_segment_is_refused(data: st.DataObject) -> None:
    envelope, parts = sealed(b"\x5a" * (2 * SEGMENT + 100))
    number = data.draw(st.integers(0, 2))
    bit = data.draw(st.integers(0, 8 * len(parts[number]) - 1))
    changed = bytearray(parts[number])
    changed[bit // 8] ^= 1 << bit % 8
    parts[number] = bytes(changed)
    with pytest.raises(SegmentRefused):
        opened(envelope, parts)


def test_segments_can_not_be_swapped_repeated_left_out_or_taken_from_another_image() -> None:
    image = b"".join(bytes([n]) * SEGMENT for n in range(4))
    envelope, parts = sealed(image)
    other, foreign = sealed(image, iv=bytes(12))
    longer, tail = sealed(image + b"\4" * SEGMENT)
    shorter, head = sealed(image[: 3 * SEGMENT])
    for wrong in (
        [parts[1], parts[0], *parts[2:]],
        [parts[0], parts[0], *parts[2:]],
        [parts[0], parts[2], parts[3]],
        [foreign[0], *parts[1:]],
        [*parts[:3], tail[3]],
        [*parts, tail[4]],
    ):
        with pytest.raises(SegmentRefused):
            opened(envelope, wrong)
    # The size is a promise: a shorter or longer head opens none of these segments.
    for changed in (shorter, longer, other):
        with pytest.raises(SegmentRefused):
            opened(changed, parts[:3])
    assert len(head) == 3


def test_the_last_segment_is_known_as_the_last() -> None:
    """Cut at a segment's border: without the flag in the nonce the rest would look whole."""
    envelope, parts = sealed(b"\7" * (3 * SEGMENT))
    short = read_head(_with_protected(envelope, segments=[SEGMENT, 2 * SEGMENT]))
    with pytest.raises(SegmentRefused):
        opened(short, parts[:2])


def _with_protected(envelope: Envelope, **changes: Any) -> bytes:
    protected, *rest = cbor2.loads(envelope.head[LEADER_SIZE_BYTES + 2 :])
    said = cbor2.loads(protected)
    for name, value in changes.items():
        key = {"alg": 1, "crit": 2, "type": 3, "iv": 5, "segments": "overair-segments"}.get(name, name)
        said[key] = value
        if value is None:
            del said[key]
    return _head(b"\xd8\x60" + cbor2.dumps([cbor2.dumps(said), *rest]))


def _head(cose: bytes) -> bytes:
    return MAGIC + len(cose).to_bytes(4, "big") + cose


@pytest.mark.parametrize(
    "change",
    [
        {"alg": 1},
        {"crit": []},
        {"crit": None},
        {"type": "text/plain"},
        {"iv": bytes(11)},
        {"iv": None},
        {"segments": [SEGMENT - 1, 100]},
        {"segments": [2**20, 100]},
        {"segments": [SEGMENT, 0]},
        {"segments": [SEGMENT, 2**32]},
        {"segments": [SEGMENT, True]},
        {"segments": [SEGMENT]},
        {"another": 1},
    ],
)
def test_a_head_that_says_something_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedEnvelope):
        read_head(_with_protected(envelope_for(100), **change))


def test_heads_of_another_shape_are_refused() -> None:
    envelope = envelope_for(100, readers=2)
    protected, unprotected, ciphertext, recipients = cbor2.loads(envelope.head[LEADER_SIZE_BYTES + 2 :])
    whole = [protected, unprotected, ciphertext, recipients]
    bodies = [
        b"\xd8\x60" + cbor2.dumps(body)
        for body in (
            whole[:3],
            [protected, {1: 3}, None, recipients],
            [protected, {}, b"here", recipients],
            [protected, {}, None, []],
            [protected, {}, None, [recipients[0], recipients[0]]],
            [protected, {}, None, recipients * (RECIPIENTS_MAX // 2 + 1)],
            [{}, {}, None, recipients],
            {},
        )
    ]
    bodies += [cbor2.dumps(whole), b"\xd8\x61" + cbor2.dumps(whole), b"\xd8\x60" + cbor2.dumps(whole) + b"\0", b"\xd8\x60\xff"]
    for body in bodies:
        with pytest.raises(MalformedEnvelope):
            read_head(_head(body))
    for head in (
        envelope.head[:-1],
        envelope.head + b"\0",
        b"",
        MAGIC[:5],
        MAGIC + b"\0\0",
        MAGIC + bytes(4),
        MAGIC + (COSE_SIZE_BYTES_MAX + 1).to_bytes(4, "big"),
        MAGIC[:-1] + b"\2" + envelope.head[8:],
        b"PK\3\4" + bytes(40),
    ):
        with pytest.raises(MalformedEnvelope):
            read_head(head)


@settings(max_examples=60)
@given(data=st.data())
def test_any_head_is_read_or_refused_by_name(data: st.DataObject) -> None:
    head = bytearray(envelope_for(100).head)
    for _ in range(data.draw(st.integers(1, 4))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_head(bytes(head))
    except MalformedEnvelope:
        return
    assert read.plain_size_bytes >= 1


def test_every_reader_finds_the_same_key() -> None:
    envelope = envelope_for(100, readers=3)
    assert key_id_of(READER.public_key()).hex() in envelope.key_ids
    assert len(set(envelope.key_ids)) == 3
    assert unwrap(envelope.recipients[2], ec.derive_private_key(10, ec.SECP256R1())) == CONTENT_KEY
    with pytest.raises(SegmentRefused):
        Segments(envelope, b"short")
