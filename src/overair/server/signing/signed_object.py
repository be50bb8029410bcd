"""The signed object in Signer's JSON (wire reference §6.4), written piece by piece so that no image is held in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

from overair.server.signing.model import Algorithm, ObjectLocation


def _text(value: str) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _head(*, raw_payload_size_bytes: int, signature: str, algorithm: Algorithm) -> bytes:
    return (
        b'{"rawPayloadSize":%d,"signature":' % raw_payload_size_bytes
        + _text(signature)
        + b',"signatureAlgorithm":'
        + _text(algorithm.signer_name)
    )


async def embedded(
    image: AsyncIterator[bytes], *, size_bytes: int, signature: str, algorithm: Algorithm
) -> AsyncIterator[bytes]:
    """``{"rawPayloadSize", "signature", "signatureAlgorithm", "payload"}`` with the image as one Base64 string.

    Raises:
        RuntimeError: ``image`` didn't yield exactly ``size_bytes``: the content store broke its word.
    """
    yield _head(raw_payload_size_bytes=size_bytes, signature=signature, algorithm=algorithm) + b',"payload":"'
    carried = b""
    seen_bytes = 0
    async for chunk in image:
        seen_bytes += len(chunk)
        data = carried + chunk
        whole = len(data) - len(data) % 3  # Base64 of whole triples can be joined; the rest waits for the next chunk
        carried = data[whole:]
        if whole:
            yield base64.b64encode(data[:whole])
    if seen_bytes != size_bytes:
        raise RuntimeError(f"The image was said to have {size_bytes} bytes but {seen_bytes} were read.")
    yield base64.b64encode(carried) + b'"}'


async def detached(*, source: ObjectLocation, size_bytes: int, signature: str, algorithm: Algorithm) -> AsyncIterator[bytes]:
    """The same with ``payloadLocation`` in place of the payload: what a plain job document carries under ``codesign``."""
    location = b'{"s3":{"bucketName":%s,"key":%s,"version":%s}}' % (
        _text(source.bucket),
        _text(source.key),
        _text(source.version),
    )
    head = _head(raw_payload_size_bytes=size_bytes, signature=signature, algorithm=algorithm)
    yield head + b',"payloadLocation":' + location + b"}"
