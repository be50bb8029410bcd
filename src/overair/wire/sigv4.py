"""AWS Signature Version 4: what a request must say, and what the keyed hash over it is. Pure: no clock, no key store.

Both directions use the same canonical request, so a signer (CLI, agent, presigned download links) and the verifier can't
drift apart. Paths come as they stand on the wire. *Ordinary* services sign the path normalised (dot segments and doubled
slashes removed) and encoded once more than it was sent; the *object store* signs the key encoded exactly once and never
normalised, because ``a/../b`` is a key of its own there. Reference: "Create a signed AWS API request" (canonical request,
string to sign, signing key) and "Signature calculations: transferring a payload in multiple chunks" of the S3 API reference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from overair.wire.sigv4_claim import (
    ALGORITHM,
    PRESIGNED_EXPIRES_S_MAX,
    QUERY_PARAMETERS_MAX,
    Claim,
    Headers,
    MalformedSignature,
    Scope,
    SignableRequest,
    format_timestamp,
    header_values,
    query_pairs,
    read_claim,
    read_timestamp,
)

__all__ = [
    "ALGORITHM",
    "EMPTY_SHA256",
    "PRESIGNED_EXPIRES_S_MAX",
    "STREAMING_PAYLOADS",
    "STREAMING_SIGNED",
    "STREAMING_SIGNED_TRAILER",
    "STREAMING_UNSIGNED_TRAILER",
    "UNSIGNED_PAYLOAD",
    "ChunkSignatures",
    "Claim",
    "Headers",
    "MalformedSignature",
    "Scope",
    "SignableRequest",
    "canonical_path",
    "canonical_query",
    "canonical_request",
    "chunk_signatures",
    "format_timestamp",
    "header_values",
    "is_signed_by",
    "query_pairs",
    "read_claim",
    "read_timestamp",
    "signature_of",
    "signing_key",
    "string_to_sign",
]

UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
STREAMING_UNSIGNED_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING_SIGNED: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_PAYLOADS: Final = frozenset({STREAMING_UNSIGNED_TRAILER, STREAMING_SIGNED, STREAMING_SIGNED_TRAILER})
EMPTY_SHA256: Final = sha256(b"").hexdigest()


_PLAIN_QUERY: Final = re.compile(rb"[A-Za-z0-9\-._~]*")
_PLAIN_PATH: Final = re.compile(rb"[A-Za-z0-9\-._~/]*")
_NEEDS_NORMALISING: Final = re.compile(rb"//|/\.")
_SPACES: Final = re.compile(rb" {2,}")


# Canonical request ---------------------------------------------------------------------------------------------------


def canonical_query(query: bytes, *, without: frozenset[bytes] = frozenset()) -> bytes:
    """The query with every part encoded anew and sorted by encoded name, then value; ``without`` drops names."""
    if not query:
        return b""
    parts = query.split(b"&")
    if len(parts) > QUERY_PARAMETERS_MAX:
        raise MalformedSignature(f"A query has at most {QUERY_PARAMETERS_MAX} parameters.")
    pairs = []
    for part in parts:
        if not part:
            continue
        name, _, value = part.partition(b"=")
        name = _encoded_once(name)
        if name in without:
            continue
        pairs.append((name, _encoded_once(value)))
    pairs.sort()
    return b"&".join([name + b"=" + value for name, value in pairs])


def _encoded_once(part: bytes) -> bytes:
    if _PLAIN_QUERY.fullmatch(part):
        return part
    return quote_from_bytes(unquote_to_bytes(part), safe="-._~").encode("ascii")


def canonical_path(path: bytes, *, normalise: bool) -> bytes:
    """The path as it is signed. ``normalise`` is True for every service but the object store."""
    if not path:
        return b"/"
    if not normalise:
        if _PLAIN_PATH.fullmatch(path):
            return path
        # Segment by segment: a slash that was sent encoded belongs to the key and stays encoded.
        segments = [quote_from_bytes(unquote_to_bytes(segment), safe="-._~") for segment in path.split(b"/")]
        return "/".join(segments).encode("ascii")
    if _NEEDS_NORMALISING.search(path):
        path = _without_dot_segments(path)
    if _PLAIN_PATH.fullmatch(path):
        return path
    return quote_from_bytes(path, safe="/-._~").encode("ascii")


def _without_dot_segments(path: bytes) -> bytes:
    kept: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    tail = b"/" if kept and segments[-1] in (b"", b".", b"..") else b""
    return b"/" + b"/".join(kept) + tail


def canonical_request(
    request: SignableRequest, *, signed_headers: Sequence[str], payload: str, normalise: bool, in_query: bool
) -> bytes:
    """The bytes whose SHA-256 is signed.

    ``payload`` is the body's SHA-256 in hexadecimal, ``UNSIGNED-PAYLOAD`` or one of the streaming words. Values of a field
    that arrived several times are joined with commas in the order of arrival, outer spaces cut, inner runs of spaces made one.

    Raises:
        MalformedSignature: a signed header isn't there, or the query has too many parameters.
    """
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        by_name.setdefault(name, []).append(value)
    lines = [
        request.method.encode("latin-1"),
        canonical_path(request.path, normalise=normalise),
        canonical_query(request.query, without=_SIGNATURE_PARAMETER if in_query else _NOTHING),
    ]
    for signed in signed_headers:
        key = signed.encode("latin-1", "replace")
        values = by_name.get(key)
        if values is None:
            raise MalformedSignature(
                f"The signature covers the header {signed[:100]!r}, which the request doesn't have.", subject="signature"
            )
        lines.append(key + b":" + b",".join([_trimmed(value) for value in values]))
    lines.append(b"")
    lines.append(";".join(signed_headers).encode("latin-1", "replace"))
    lines.append(payload.encode("latin-1", "replace"))
    return b"\n".join(lines)


_NOTHING: Final[frozenset[bytes]] = frozenset()
_SIGNATURE_PARAMETER: Final = frozenset({b"X-Amz-Signature"})


def _trimmed(value: bytes) -> bytes:
    value = value.strip(b" \t")
    return _SPACES.sub(b" ", value) if b"  " in value else value


# Keyed hashes --------------------------------------------------------------------------------------------------------


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac_digest(key, data, "sha256")


@lru_cache(maxsize=4096)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The 32-byte key for one day, region and service. Derived once and remembered, within a bound."""
    key = _hmac(b"AWS4" + secret.encode("utf-8"), date.encode("utf-8"))
    return _hmac(_hmac(_hmac(key, region.encode("utf-8")), service.encode("utf-8")), b"aws4_request")


def string_to_sign(canonical: bytes, *, timestamp: str, scope: Scope) -> bytes:
    """The four lines over which the keyed hash is taken."""
    return f"{ALGORITHM}\n{timestamp}\n{scope}\n{sha256(canonical).hexdigest()}".encode()


def signature_of(text: bytes, *, secret: str, scope: Scope) -> str:
    """64 lower-case hexadecimal digits."""
    return _hmac(signing_key(secret, scope.date, scope.region, scope.service), text).hex()


def is_signed_by(request: SignableRequest, claim: Claim, *, secret: str, payload: str, normalise: bool) -> bool:
    """Whether ``claim`` was made over this request with this secret; compared in constant time.

    A session token of the query that was added after signing (as some services have it) is accepted as well.
    """
    canonical = canonical_request(
        request, signed_headers=claim.signed_headers, payload=payload, normalise=normalise, in_query=claim.in_query
    )
    if _matches(canonical, claim, secret):
        return True
    if not claim.in_query or claim.security_token is None:
        return False
    bare = b"&".join(part for part in request.query.split(b"&") if not part.startswith(b"X-Amz-Security-Token="))
    without_token = SignableRequest(method=request.method, path=request.path, query=bare, headers=request.headers)
    return _matches(
        canonical_request(
            without_token, signed_headers=claim.signed_headers, payload=payload, normalise=normalise, in_query=True
        ),
        claim,
        secret,
    )


def _matches(canonical: bytes, claim: Claim, secret: str) -> bool:
    text = string_to_sign(canonical, timestamp=claim.timestamp, scope=claim.scope)
    return compare_digest(signature_of(text, secret=secret, scope=claim.scope), claim.signature)


# Chunks --------------------------------------------------------------------------------------------------------------


class ChunkSignatures:
    """The chain of signatures over the chunks of a ``STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER]`` body.

    Each chunk's signature covers the one before it, the first covers the request's own (the seed).
    """

    def __init__(self, *, seed_signature: str, key: bytes, timestamp: str, scope: Scope) -> None:
        self._previous = seed_signature
        self._key = key
        self._head = f"{timestamp}\n{scope}\n"

    def next(self, data_sha256: str) -> str:
        """The signature due for the next chunk, told by the SHA-256 of its data (the last chunk is empty)."""
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self._head}{self._previous}\n{EMPTY_SHA256}\n{data_sha256}"
        self._previous = _hmac(self._key, text.encode("ascii")).hex()
        return self._previous

    def trailer(self, lines: bytes) -> str:
        """The signature due for the trailing headers: ``name:value\\n`` lines, as sent but with bare line feeds."""
        text = f"AWS4-HMAC-SHA256-TRAILER\n{self._head}{self._previous}\n{sha256(lines).hexdigest()}"
        self._previous = _hmac(self._key, text.encode("ascii")).hex()
        return self._previous


def chunk_signatures(claim: Claim, *, secret: str) -> ChunkSignatures:
    """The chain that begins with a verified request."""
    key = signing_key(secret, claim.scope.date, claim.scope.region, claim.scope.service)
    return ChunkSignatures(seed_signature=claim.signature, key=key, timestamp=claim.timestamp, scope=claim.scope)
