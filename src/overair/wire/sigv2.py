"""AWS Signature Version 2 in the query, as default boto3 presigns object downloads and uploads against a custom endpoint.

Old and weak in form (HMAC-SHA1 over few fields), so it is read for GET, HEAD and PUT of one object alone and can be switched
off. Pure. Reference: "Signing and authenticating REST requests (AWS signature version 2)", query string alternative.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final
from urllib.parse import quote_from_bytes

from overair.wire.sigv4 import Headers, MalformedSignature, SignableRequest, header_values, query_pairs

METHODS: Final = frozenset({"GET", "HEAD", "PUT"})

SIGNED_PARAMETERS: Final = frozenset(
    {
        b"acl",
        b"cors",
        b"defaultObjectAcl",
        b"delete",
        b"lifecycle",
        b"location",
        b"logging",
        b"notification",
        b"partNumber",
        b"policy",
        b"requestPayment",
        b"response-cache-control",
        b"response-content-disposition",
        b"response-content-encoding",
        b"response-content-language",
        b"response-content-type",
        b"response-expires",
        b"restore",
        b"tagging",
        b"torrent",
        b"uploadId",
        b"uploads",
        b"versionId",
        b"versioning",
        b"versions",
        b"website",
    }
)
"""Parameters that name a part or a version of the resource and so belong to what is signed."""


_OF_THE_SIGNATURE: Final = frozenset({b"AWSAccessKeyId", b"Signature", b"Expires"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a presigned request of Version 2 says about itself."""

    access_key_id: str
    signature: bytes
    """20 bytes of HMAC-SHA1."""
    expires_epoch_s: int
    security_token: str | None


def read_claim(request: SignableRequest) -> Claim | None:
    """The signature in the query, or None where it has none of Version 2.

    Raises:
        MalformedSignature: it is there and can't be read.
    """
    marked = b"&" + request.query
    if b"&AWSAccessKeyId=" not in marked or b"&X-Amz-Algorithm=" in marked:
        return None
    values: dict[bytes, str] = {}
    for name, value in query_pairs(request.query):
        if name in (b"AWSAccessKeyId", b"Signature", b"Expires", b"x-amz-security-token"):
            if name in values:
                raise MalformedSignature(f"{name.decode()} stands in the query more than once.")
            values[name] = value.decode("utf-8", "replace")
    expires = values.get(b"Expires", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        raise MalformedSignature("Expires is a moment in seconds since 1970.")
    try:
        signature = base64.b64decode(values.get(b"Signature", ""), validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if len(signature) != 20 or not values.get(b"AWSAccessKeyId"):
        raise MalformedSignature("A presigned request of Version 2 names AWSAccessKeyId, Expires and a Base64 Signature.")
    return Claim(
        access_key_id=values[b"AWSAccessKeyId"],
        signature=signature,
        expires_epoch_s=int(expires),
        security_token=values.get(b"x-amz-security-token"),
    )


def uncovered_parameter(request: SignableRequest) -> str | None:
    """A parameter of the query that the signature says nothing about, and so anybody may have added; None if there is none."""
    for name, _ in query_pairs(request.query):
        if name in SIGNED_PARAMETERS or name in _OF_THE_SIGNATURE or name.lower().startswith(b"x-amz-"):
            continue
        return name.decode("utf-8", "replace")
    return None


def string_to_sign(request: SignableRequest, *, expires_epoch_s: int) -> bytes:
    """Method, Content-MD5, Content-Type, Expires, x-amz- headers, and the resource with its signed parameters."""
    lines = [
        request.method.encode("ascii"),
        _first(request.headers, b"content-md5"),
        _first(request.headers, b"content-type"),
        str(expires_epoch_s).encode("ascii"),
    ]
    pairs = query_pairs(request.query)
    amazon: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        if name.startswith(b"x-amz-"):
            amazon.setdefault(name, []).append(b" ".join(value.split()))
    for name, value in pairs:
        if name.lower().startswith(b"x-amz-"):
            amazon.setdefault(name.lower(), []).append(value)
    lines.extend(name + b":" + b",".join(amazon[name]) for name in sorted(amazon))
    signed = sorted((name, value) for name, value in pairs if name in SIGNED_PARAMETERS)
    resource = request.path
    if signed:
        resource += b"?" + b"&".join(name + b"=" + value if value else name for name, value in signed)
    lines.append(resource)
    return b"\n".join(lines)


def _first(headers: Headers, name: bytes) -> bytes:
    values = header_values(headers, name)
    return values[0].strip() if values else b""


def is_signed_by(request: SignableRequest, claim: Claim, *, secret: str) -> bool:
    """Whether the claim was made over this request with this secret; compared in constant time."""
    text = string_to_sign(request, expires_epoch_s=claim.expires_epoch_s)
    return compare_digest(hmac_digest(secret.encode("utf-8"), text, "sha1"), claim.signature)


def presign(request: SignableRequest, *, access_key_id: str, secret: str, expires_epoch_s: int) -> bytes:
    """The whole query of the presigned request."""
    text = string_to_sign(request, expires_epoch_s=expires_epoch_s)
    signature = base64.b64encode(hmac_digest(secret.encode("utf-8"), text, "sha1"))
    added = b"&".join(
        [
            b"AWSAccessKeyId=" + access_key_id.encode("ascii"),
            b"Signature=" + quote_from_bytes(signature, safe="").encode("ascii"),
            b"Expires=" + str(expires_epoch_s).encode("ascii"),
        ]
    )
    return request.query + b"&" + added if request.query else added
