"""The AWS Signature Version 4 test suite: every artefact of every case, by header and by query, signed and verified."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from overair.wire import sigv4, sigv4_signing
from tests.support.vectors import vectors

FOLDER = vectors("aws-sigv4")
CASES = sorted(folder for folder in FOLDER.iterdir() if folder.is_dir())


@dataclass(frozen=True)
class Parsed:
    request: sigv4.SignableRequest
    body: bytes


def parse(text: bytes) -> Parsed:
    head, _, body = text.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, rest = first.partition(b" ")
    target = rest.rpartition(b" ")[0]
    path, _, query = target.partition(b"?")
    headers = [(name.lower(), value) for name, _, value in (line.partition(b":") for line in lines if line)]
    return Parsed(sigv4.SignableRequest(method=method.decode(), path=path, query=query, headers=headers), body)


class Case:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context: dict[str, Any] = json.loads((folder / "context.json").read_text())
        keys = self.context["credentials"]
        self.credentials = sigv4_signing.SigningCredentials(
            access_key_id=keys["access_key_id"], secret_access_key=keys["secret_access_key"], session_token=keys.get("token")
        )
        self.timestamp = self.context["timestamp"].replace("-", "").replace(":", "")
        self.scope = sigv4.Scope(date=self.timestamp[:8], region=self.context["region"], service=self.context["service"])
        self.normalise: bool = self.context["normalize"]
        self.sign_token = not self.context.get("omit_session_token", False)
        self.given = parse((folder / "request.txt").read_bytes())
        self.payload = sha256(self.given.body).hexdigest()

    def text(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def header_request(self) -> sigv4.SignableRequest:
        request = self.given.request
        added = [(b"x-amz-content-sha256", self.payload.encode())] if self.context["sign_body"] else []
        return sigv4.SignableRequest(
            method=request.method, path=request.path, query=request.query, headers=[*request.headers, *added]
        )


def test_the_suite_has_its_22_cases() -> None:
    assert len(CASES) == 22


@pytest.fixture(params=CASES, ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def by_field(headers: sigv4.Headers) -> dict[bytes, list[bytes]]:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value)
    return fields


def test_header_signing_gives_every_artefact(case: Case) -> None:
    unsigned = case.header_request()
    added = sigv4_signing.sign_header(
        unsigned,
        case.credentials,
        scope=case.scope,
        timestamp=case.timestamp,
        payload=case.payload,
        normalise=case.normalise,
        sign_token=case.sign_token,
    )
    signed = sigv4.SignableRequest(
        method=unsigned.method, path=unsigned.path, query=unsigned.query, headers=[*unsigned.headers, *added]
    )
    claim = sigv4.read_claim(signed)
    assert claim is not None
    canonical = sigv4.canonical_request(
        signed, signed_headers=claim.signed_headers, payload=case.payload, normalise=case.normalise, in_query=False
    )
    assert canonical == case.text("header-canonical-request.txt")
    text = sigv4.string_to_sign(canonical, timestamp=case.timestamp, scope=case.scope)
    assert text == case.text("header-string-to-sign.txt")
    assert claim.signature.encode() == case.text("header-signature.txt")
    theirs = parse(case.text("header-signed-request.txt"))
    assert by_field(theirs.request.headers) == by_field(signed.headers)
    assert (theirs.request.method, theirs.request.path, theirs.request.query) == (signed.method, signed.path, signed.query)


def test_query_signing_gives_every_artefact(case: Case) -> None:
    request = case.given.request
    query = sigv4_signing.presign(
        request,
        case.credentials,
        scope=case.scope,
        timestamp=case.timestamp,
        expires_s=case.context["expiration_in_seconds"],
        payload=case.payload,
        normalise=case.normalise,
        sign_token=case.sign_token,
    )
    theirs = parse(case.text("query-signed-request.txt"))
    assert query == theirs.request.query
    assert by_field(theirs.request.headers) == by_field(request.headers)
    token_free = b"&".join(p for p in query.split(b"&") if case.sign_token or not p.startswith(b"X-Amz-Security-Token="))
    signed = sigv4.SignableRequest(method=request.method, path=request.path, query=token_free, headers=request.headers)
    claim = sigv4.read_claim(signed)
    assert claim is not None
    canonical = sigv4.canonical_request(
        signed, signed_headers=claim.signed_headers, payload=case.payload, normalise=case.normalise, in_query=True
    )
    assert canonical == case.text("query-canonical-request.txt")
    text = sigv4.string_to_sign(canonical, timestamp=case.timestamp, scope=case.scope)
    assert text == case.text("query-string-to-sign.txt")
    assert claim.signature.encode() == case.text("query-signature.txt")


@pytest.mark.parametrize("form", ["header", "query"])
def test_the_signed_request_verifies_and_any_change_is_noticed(case: Case, form: str) -> None:
    parsed = parse(case.text(f"{form}-signed-request.txt"))
    payload = sha256(parsed.body).hexdigest()
    claim = sigv4.read_claim(parsed.request)
    assert claim is not None
    assert claim.access_key_id == "AKIDEXAMPLE"
    assert claim.in_query is (form == "query")
    secret = case.credentials.secret_access_key

    def holds(request: sigv4.SignableRequest = parsed.request, body: str = payload, key: str = secret) -> bool:
        return sigv4.is_signed_by(request, claim, secret=key, payload=body, normalise=case.normalise)

    r = parsed.request
    assert holds()
    assert not holds(key=secret + "x")
    assert not holds(body=sha256(b"other").hexdigest())
    assert not holds(sigv4.SignableRequest(method="PUT", path=r.path, query=r.query, headers=r.headers))
    assert not holds(sigv4.SignableRequest(method=r.method, path=r.path + b"x", query=r.query, headers=r.headers))
    assert not holds(sigv4.SignableRequest(method=r.method, path=r.path, query=r.query + b"&a=1", headers=r.headers))
    moved = [(name, b"elsewhere" if name == b"host" else value) for name, value in r.headers]
    assert not holds(sigv4.SignableRequest(method=r.method, path=r.path, query=r.query, headers=moved))
