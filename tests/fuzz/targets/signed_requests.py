"""Requests signed by Version 4. Input: lines: method, path, query, then header fields; an empty one ends them, the rest is a
body.

Held: a claim that arrives is read or refused with ``MalformedSignature``; what botocore signs, we canonicalise alike; what we
sign we verify, by header and by query, and nothing of it may be changed.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from overair.wire import sigv4, sigv4_signing
from tests.fuzz.refusals import says_why

OURS: Final = sigv4_signing.SigningCredentials(access_key_id="AKIDEXAMPLE", secret_access_key="s" * 40)
THEIRS: Final = Credentials("AKIDEXAMPLE", "s" * 40)
TIMESTAMP: Final = "20260101T120000Z"
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
SCOPE: Final = sigv4.Scope(date="20260101", region="us-east-1", service="iot")


def fuzz_one(data: bytes) -> None:
    head, _, body = data.partition(b"\n\n")
    lines = head.split(b"\n")[:40]
    method, path, query = [*lines, b"", b"", b""][:3]
    fields = [line.partition(b":")[::2] for line in lines[3:]]
    headers = [(name.lower(), value) for name, value in fields if _TOKEN.fullmatch(name)]  # HTTP lets no others through
    request = sigv4.SignableRequest(
        method=method.decode("latin-1"), path=b"/" + path.lstrip(b"/"), query=query, headers=headers
    )
    try:
        claim = sigv4.read_claim(request)
        if claim is not None:
            assert not sigv4.is_signed_by(request, claim, secret="another", payload="x", normalise=True)
    except sigv4.MalformedSignature as refused:
        says_why(refused)
    sign_and_verify(request, body)
    as_botocore_does(request, body)


def sign_and_verify(request: sigv4.SignableRequest, body: bytes) -> None:
    bare = [(name, value) for name, value in request.headers if not name.startswith((b"authorization", b"x-amz-"))]
    query = b"&".join(part for part in request.query.split(b"&") if not part.startswith((b"X-Amz-", b"AWSAccessKeyId=")))
    plain = sigv4.SignableRequest(method=request.method, path=request.path, query=query, headers=[*bare, (b"host", b"h")])
    payload = sha256(body).hexdigest()
    for normalise in (True, False):
        try:
            added = sigv4_signing.sign_header(
                plain, OURS, scope=SCOPE, timestamp=TIMESTAMP, payload=payload, normalise=normalise
            )
        except sigv4.MalformedSignature:
            return  # beyond a bound
        signed = sigv4.SignableRequest(
            method=plain.method, path=plain.path, query=plain.query, headers=[*plain.headers, *added]
        )
        try:
            claim = sigv4.read_claim(signed)
        except sigv4.MalformedSignature:
            return  # names of header fields that no request may have
        assert claim is not None
        assert verified(signed, claim, payload, normalise)
        assert not verified(signed, claim, payload[::-1], normalise) or payload == payload[::-1]
        for changed in (
            {"method": plain.method + "X"},
            {"path": plain.path + b"x"},
            {"query": plain.query + b"&x=y"},
            {"headers": [*signed.headers, (b"host", b"i")]},
        ):
            members = {"method": signed.method, "path": signed.path, "query": signed.query, "headers": signed.headers}
            other = sigv4.SignableRequest(**(members | changed))  # type: ignore[arg-type]
            assert not verified(other, claim, payload, normalise), changed


def verified(request: sigv4.SignableRequest, claim: sigv4.Claim, payload: str, normalise: bool) -> bool:
    secret = OURS.secret_access_key
    try:
        return sigv4.is_signed_by(request, claim, secret=secret, payload=payload, normalise=normalise)
    except sigv4.MalformedSignature:
        return False


def as_botocore_does(request: sigv4.SignableRequest, body: bytes) -> None:
    """Where botocore can be asked at all: a path and parameters that it has quoted itself."""
    path, query = request.path, request.query
    if quote(unquote_to_bytes(path), safe="/~").encode() != path:
        return
    if path.rpartition(b"/")[2] in (b".", b".."):
        return  # RFC 3986 leaves the slash before it, and so do we; botocore drops it
    pairs = [part.partition(b"=") for part in query.split(b"&")] if query else []
    if any(
        not sign or quote(unquote_to_bytes(part), safe="-_.~").encode() != part
        for name, sign, value in pairs
        for part in (name, value)
    ):
        return
    url = f"https://h{path.decode()}" + (f"?{query.decode()}" if query else "")
    asked = AWSRequest(method="GET", url=url, headers={"host": "h"}, data=body)
    asked.context["timestamp"] = TIMESTAMP
    payload = sha256(body).hexdigest()
    asked.context["payload_signing_enabled"] = True
    for auth, normalise in ((SigV4Auth, True), (S3SigV4Auth, False)):
        signer = auth(THEIRS, "iot", "us-east-1")
        theirs = signer._normalize_url_path(path.decode()), signer.canonical_query_string(asked)
        ours = sigv4.canonical_path(path, normalise=normalise).decode(), sigv4.canonical_query(query).decode()
        assert ours == theirs, (path, query, payload)
