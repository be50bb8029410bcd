"""Signature Version 4 beyond the published suite: laws, chunks, and input that was never meant as a signature."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.wire import sigv2, sigv4, sigv4_signing

CREDENTIALS = sigv4_signing.SigningCredentials(access_key_id="AKIDEXAMPLE", secret_access_key="s" * 40)
SCOPE = sigv4.Scope(date="20260101", region="us-east-1", service="iot")
TIMESTAMP = "20260101T120000Z"
PATHS = st.text(alphabet="/.ab%2F0 é~*'+", max_size=20).map(lambda text: ("/" + text).encode())
QUERIES = st.lists(st.text(alphabet="ab=%2F+ é~*.", max_size=8), max_size=4).map(lambda parts: "&".join(parts).encode())
VALUES = st.text(alphabet="ab  \t,;=é", max_size=12).map(lambda text: text.encode())
NAMES = st.sampled_from([b"my-a", b"my-b", b"x-amz-meta-c", b"content-type"])


def request(path: bytes = b"/", query: bytes = b"", headers: sigv4.Headers = ()) -> sigv4.SignableRequest:
    return sigv4.SignableRequest(method="PUT", path=path, query=query, headers=[(b"host", b"h"), *headers])


def extended(
    given_request: sigv4.SignableRequest, headers: sigv4.Headers = (), query: bytes | None = None
) -> sigv4.SignableRequest:
    return sigv4.SignableRequest(
        method=given_request.method,
        path=given_request.path,
        query=given_request.query if query is None else query,
        headers=[*given_request.headers, *headers],
    )


@settings(max_examples=300)
@given(path=PATHS, query=QUERIES, headers=st.lists(st.tuples(NAMES, VALUES), max_size=4), normalise=st.booleans())
def test_what_is_signed_verifies_by_header_and_by_query(
    path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], normalise: bool
) -> None:
    plain = request(path, query, headers)
    added = sigv4_signing.sign_header(plain, CREDENTIALS, scope=SCOPE, timestamp=TIMESTAMP, payload="p", normalise=normalise)
    signed = extended(plain, added)
    claim = sigv4.read_claim(signed)
    assert claim is not None
    secret = CREDENTIALS.secret_access_key
    assert sigv4.is_signed_by(signed, claim, secret=secret, payload="p", normalise=normalise)
    assert not sigv4.is_signed_by(signed, claim, secret=secret, payload="q", normalise=normalise)
    presigned = extended(
        plain,
        query=sigv4_signing.presign(plain, CREDENTIALS, scope=SCOPE, timestamp=TIMESTAMP, expires_s=60, normalise=normalise),
    )
    claim = sigv4.read_claim(presigned)
    assert claim is not None
    assert (claim.expires_s, claim.in_query) == (60, True)
    assert sigv4.is_signed_by(presigned, claim, secret=secret, payload=sigv4.UNSIGNED_PAYLOAD, normalise=normalise)


@settings(max_examples=300)
@given(
    authorization=st.binary(max_size=80) | st.text(alphabet="AWS4-HMCSHA256 redntial=/,;SgxHs0f", max_size=120).map(str.encode),
    query=st.binary(max_size=80) | QUERIES.map(lambda query: b"X-Amz-Algorithm=AWS4-HMAC-SHA256&" + query),
    date=st.binary(max_size=20),
)
def test_arbitrary_bytes_are_no_signature_and_nothing_worse(authorization: bytes, query: bytes, date: bytes) -> None:
    for given_request in (
        request(headers=[(b"authorization", b"AWS4-HMAC-SHA256 " + authorization), (b"x-amz-date", date)]),
        request(headers=[(b"authorization", authorization), (b"date", date)]),
        request(query=query),
    ):
        try:
            claim = sigv4.read_claim(given_request)
            sigv2.read_claim(given_request)
        except sigv4.MalformedSignature:
            continue
        assert claim is None


def headers(**changed: str) -> list[tuple[bytes, bytes]]:
    parts = {
        "credential": f"AKID/{SCOPE}",
        "signed": "host;x-amz-date",
        "signature": "0" * 64,
        "date": TIMESTAMP,
        **changed,
    }
    value = (
        f"AWS4-HMAC-SHA256 Credential={parts['credential']}, SignedHeaders={parts['signed']}, Signature={parts['signature']}"
    )
    return [(b"authorization", value.encode()), (b"x-amz-date", parts["date"].encode())]


@pytest.mark.parametrize(
    "changed",
    [
        {"credential": "AKID"},
        {"credential": "AKID/20260101/us-east-1/iot/aws5_request"},
        {"credential": "/20260101/us-east-1/iot/aws4_request"},
        {"credential": f"{'x' * 600}/{SCOPE}"},
        {"credential": "AKID/20260102/us-east-1/iot/aws4_request"},
        {"signed": "x-amz-date"},
        {"signed": "x-amz-date;host"},
        {"signed": "Host;x-amz-date"},
        {"signed": "host;host"},
        {"signed": ";".join(["host", *(f"z{number:03d}" for number in range(100))])},
        {"signature": "0" * 63},
        {"signature": "G" * 64},
        {"signature": "A" * 64},
        {"date": "20260101"},
        {"date": "２０２６0101T120000Z"},
    ],
)
def test_a_claim_that_breaks_a_rule_is_refused(changed: dict[str, str]) -> None:
    assert sigv4.read_claim(request(headers=headers())) is not None
    with pytest.raises(sigv4.MalformedSignature):
        sigv4.read_claim(request(headers=headers(**changed)))


def test_a_day_that_is_none_is_refused_when_it_is_read() -> None:
    claim = sigv4.read_claim(
        request(headers=headers(credential="AKID/20260231/us-east-1/iot/aws4_request", date="20260231T000000Z"))
    )
    assert claim is not None
    with pytest.raises(sigv4.MalformedSignature):
        claim.signed_at()


def test_a_signature_in_two_places_or_twice_is_refused() -> None:
    for more in (headers(), [*headers(), (b"x-amz-date", b"20260101T120001Z")]):
        with pytest.raises(sigv4.MalformedSignature):
            sigv4.read_claim(request(headers=[*headers(), *more]))
    with pytest.raises(sigv4.MalformedSignature):
        sigv4.read_claim(request(query=b"X-Amz-Algorithm=AWS4-HMAC-SHA256", headers=headers()))


def test_a_plain_http_date_serves_where_there_is_no_amazon_one() -> None:
    fields = [*headers()[:1], (b"date", b"Thu, 01 Jan 2026 12:00:00 GMT")]
    claim = sigv4.read_claim(request(headers=fields))
    assert claim is not None
    assert claim.timestamp == TIMESTAMP


def test_a_signed_header_that_is_missing_is_refused() -> None:
    claim = sigv4.read_claim(request(headers=headers(signed="host;missing;x-amz-date")))
    assert claim is not None
    with pytest.raises(sigv4.MalformedSignature, match="missing"):
        sigv4.is_signed_by(request(headers=headers()), claim, secret="s", payload="", normalise=True)


def test_a_token_added_after_signing_is_accepted_in_the_query() -> None:
    session = sigv4_signing.SigningCredentials(access_key_id="A", secret_access_key="s", session_token="t/+=")
    for sign_token in (True, False):
        query = sigv4_signing.presign(
            request(), session, scope=SCOPE, timestamp=TIMESTAMP, expires_s=60, payload="p", sign_token=sign_token
        )
        signed = request(query=query)
        claim = sigv4.read_claim(signed)
        assert claim is not None
        assert claim.security_token == "t/+="
        assert sigv4.is_signed_by(signed, claim, secret="s", payload="p", normalise=True)


def test_chunks_are_signed_in_a_chain_as_in_the_published_example() -> None:
    """The object store's guide, "Signature calculations for the Authorization header: multiple chunks", example."""
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    scope = sigv4.Scope(date="20130524", region="us-east-1", service="s3")
    put = sigv4.SignableRequest(
        method="PUT",
        path=b"/examplebucket/chunkObject.txt",
        query=b"",
        headers=[
            (b"host", b"s3.amazonaws.com"),
            (b"x-amz-date", b"20130524T000000Z"),
            (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
            (b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            (b"content-encoding", b"aws-chunked"),
            (b"x-amz-decoded-content-length", b"66560"),
            (b"content-length", b"66824"),
        ],
    )
    keys = sigv4_signing.SigningCredentials(access_key_id="AKIAIOSFODNN7EXAMPLE", secret_access_key=secret)
    added = sigv4_signing.sign_header(
        put, keys, scope=scope, timestamp="20130524T000000Z", payload=sigv4.STREAMING_SIGNED, normalise=False
    )
    claim = sigv4.read_claim(extended(put, added))
    assert claim is not None
    assert claim.signature == "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    chain = sigv4.chunk_signatures(claim, secret=secret)
    assert [chain.next(sha256(data).hexdigest()) for data in (b"a" * 65536, b"a" * 1024, b"")] == [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ]


@pytest.mark.parametrize(
    ("path", "ordinary", "object_store"),
    [
        (b"", b"/", b"/"),
        (b"/a//b/./../c/", b"/a/c/", b"/a//b/./../c/"),
        (b"/a%20b", b"/a%2520b", b"/a%20b"),
        (b"/a%2Fb*", b"/a%252Fb%2A", b"/a%2Fb%2A"),
        (b"/$next", b"/%24next", b"/%24next"),
        (b"/..", b"/", b"/.."),
    ],
)
def test_a_path_is_signed_in_two_ways(path: bytes, ordinary: bytes, object_store: bytes) -> None:
    assert sigv4.canonical_path(path, normalise=True) == ordinary
    assert sigv4.canonical_path(path, normalise=False) == object_store


def test_too_many_parameters_are_refused_before_they_are_sorted() -> None:
    query = b"&".join([b"a=1"] * 1001)
    with pytest.raises(sigv4.MalformedSignature):
        sigv4.canonical_query(query)
    with pytest.raises(sigv4.MalformedSignature):
        sigv4.query_pairs(query)


def test_version_2_signs_the_published_example() -> None:
    """The guide's "Query string request authentication alternative"."""
    get = sigv4.SignableRequest(
        method="GET", path=b"/johnsmith/photos/puppy.jpg", query=b"", headers=[(b"host", b"s3.us-west-1.amazonaws.com")]
    )
    query = sigv2.presign(
        get, access_key_id="AKIAIOSFODNN7EXAMPLE", secret="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", expires_epoch_s=1175139620
    )
    signed = extended(get, query=query)
    claim = sigv2.read_claim(signed)
    assert claim is not None
    assert claim.expires_epoch_s == 1175139620
    assert sigv2.is_signed_by(signed, claim, secret="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    assert b"Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D" in query
