from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.ids import BucketName, ObjectKey, VersionId
from overair.server.signing.model import Algorithm, Encryption, Hash, ObjectLocation
from overair.server.signing.signed_object import detached, embedded

ECDSA_SHA256 = Algorithm(encryption=Encryption.ECDSA, hash=Hash.SHA256)


async def chunked(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@given(chunks=st.lists(st.binary(max_size=20), max_size=8))
async def test_an_embedded_image_is_one_base64_string_however_it_was_read(chunks: list[bytes]) -> None:
    image = b"".join(chunks)
    body = await whole(embedded(chunked(chunks), size_bytes=len(image), signature="MEUC/+==", algorithm=ECDSA_SHA256))
    assert json.loads(body) == {
        "rawPayloadSize": len(image),
        "signature": "MEUC/+==",
        "signatureAlgorithm": "SHA256withECDSA",
        "payload": base64.b64encode(image).decode(),
    }


async def test_an_image_shorter_than_it_was_said_to_be_is_never_signed_away() -> None:
    with pytest.raises(RuntimeError, match="4 bytes but 3"):
        await whole(embedded(chunked([b"abc"]), size_bytes=4, signature="", algorithm=ECDSA_SHA256))


async def test_a_detached_object_names_where_the_image_stands() -> None:
    source = ObjectLocation(bucket=BucketName("b"), key=ObjectKey('fw "1".bin'), version=VersionId("v1"))
    body = await whole(detached(source=source, size_bytes=7, signature="AA==", algorithm=ECDSA_SHA256))
    assert json.loads(body) == {
        "rawPayloadSize": 7,
        "signature": "AA==",
        "signatureAlgorithm": "SHA256withECDSA",
        "payloadLocation": {"s3": {"bucketName": "b", "key": 'fw "1".bin', "version": "v1"}},
    }
