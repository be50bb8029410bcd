"""What a request says about its own Version 4 signature, read strictly; nothing of it is proved here. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote_to_bytes

ALGORITHM: Final = "AWS4-HMAC-SHA256"
PRESIGNED_EXPIRES_S_MAX: Final = 604_800
"""A presigned request lives for 1 s to 7 days."""
CREDENTIAL_LENGTH_MAX: Final = 512
SIGNED_HEADERS_MAX: Final = 100
QUERY_PARAMETERS_MAX: Final = 1000
SECURITY_TOKEN_LENGTH_MAX: Final = 4096

Headers = Sequence[tuple[bytes, bytes]]
"""Header fields in the order of arrival, names in lower case."""


class MalformedSignature(ValueError):
    """The request carries something that was meant as a Version 4 signature and can't be read as one.

    ``subject`` says what is wrong where the object store has a code of its own for it: ``malformed-query`` (the parameters of a
    presigned request), ``two-signatures``, ``unsigned-headers`` (``host`` isn't covered), ``undated`` or ``signature`` (it
    covers what isn't there).
    """

    def __init__(self, message: str, *, subject: str = "malformed-signature") -> None:
        super().__init__(message)
        self.subject = subject


@dataclass(frozen=True, slots=True, kw_only=True)
class SignableRequest:
    """The parts of an HTTP request that a signature can cover."""

    method: str
    path: bytes
    """As sent: still percent-encoded, without the query."""
    query: bytes
    """As sent, without the question mark."""
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a signing key is good: one day, one region, one service."""

    date: str
    """``YYYYMMDD``."""
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a request says about its own signature; nothing of it is proved yet."""

    access_key_id: str
    scope: Scope
    timestamp: str
    """``YYYYMMDDTHHMMSSZ``."""
    signed_headers: tuple[str, ...]
    signature: str
    """64 lower-case hexadecimal digits."""
    security_token: str | None
    in_query: bool
    expires_s: int | None
    """Presigned requests only: seconds from ``timestamp``."""

    def signed_at(self) -> datetime:
        """The timestamp as an aware datetime (its form was checked when it was read)."""
        return read_timestamp(self.timestamp)


_TIMESTAMP: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^,\s]+)\s*,\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([^,\s]+)\s*"
)


def read_timestamp(text: str) -> datetime:
    """``YYYYMMDDTHHMMSSZ`` as an aware datetime.

    Raises:
        MalformedSignature: another form, or no such moment.
    """
    if not _TIMESTAMP.fullmatch(text):
        raise MalformedSignature(f"The date {text[:40]!r} of the signature must read YYYYMMDDTHHMMSSZ.")
    try:
        # By hand: strptime takes five times as long, and this is on the path of every request.
        day = (int(text[0:4]), int(text[4:6]), int(text[6:8]))
        return datetime(*day, int(text[9:11]), int(text[11:13]), int(text[13:15]), tzinfo=UTC)
    except ValueError:
        raise MalformedSignature(f"The date {text!r} of the signature is no moment in time.") from None


def format_timestamp(moment: datetime) -> str:
    """An aware datetime as ``YYYYMMDDTHHMMSSZ``."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


# Reading a claim -----------------------------------------------------------------------------------------------------


def header_values(headers: Headers, name: bytes) -> list[bytes]:
    """Every value of one field, in the order of arrival."""
    return [value for field, value in headers if field == name]


def read_claim(request: SignableRequest) -> Claim | None:
    """Find the signature of a request, in its header or its query; None where there is none of Version 4.

    Raises:
        MalformedSignature: it is there, but it can't be read, or it stands in both places.
    """
    authorization = header_values(request.headers, b"authorization")
    marked = b"&" + request.query
    in_query = b"&X-Amz-Algorithm=" in marked
    if (in_query and (authorization or b"&AWSAccessKeyId=" in marked)) or (authorization and b"&AWSAccessKeyId=" in marked):
        raise MalformedSignature(
            "Only one auth mechanism allowed: a request is signed either in its Authorization header or in its query, and "
            "there by one version.",
            subject="two-signatures",
        )
    if in_query:
        try:
            return _claim_in_query(request)
        except MalformedSignature as error:
            if error.subject != "malformed-signature":
                raise
            raise MalformedSignature(str(error), subject="malformed-query") from None
    if not authorization:
        return None
    if len(authorization) > 1:
        raise MalformedSignature("A request carries one Authorization header, not several.")
    text = authorization[0].decode("latin-1")
    if not text.startswith(ALGORITHM):
        return None
    found = _AUTHORIZATION.fullmatch(text)
    if found is None:
        raise MalformedSignature(
            "The Authorization header must read AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…."
        )
    credential, signed_headers, signature = found.groups()
    timestamp = header_values(request.headers, b"x-amz-date")
    if len(timestamp) > 1:
        raise MalformedSignature("A request carries one X-Amz-Date header, not several.")
    tokens = header_values(request.headers, b"x-amz-security-token")
    if len(tokens) > 1:
        raise MalformedSignature("A request carries one X-Amz-Security-Token header, not several.")
    return _claim(
        credential=credential,
        signed_headers=signed_headers,
        signature=signature,
        timestamp=timestamp[0].decode("latin-1").strip() if timestamp else _date_header(request.headers),
        token=tokens[0].decode("latin-1").strip() if tokens else None,
        in_query=False,
        expires=None,
    )


def _date_header(headers: Headers) -> str:
    values = header_values(headers, b"date")
    if not values:
        raise MalformedSignature(
            "A signed request carries X-Amz-Date (or Date), the moment at which it was signed.", subject="undated"
        )
    text = values[0].decode("latin-1").strip()
    if _TIMESTAMP.fullmatch(text):
        return text
    try:
        return format_timestamp(datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC))
    except ValueError:
        raise MalformedSignature(
            f"The Date header {text[:60]!r} is neither YYYYMMDDTHHMMSSZ nor an HTTP date.", subject="undated"
        ) from None


def _claim_in_query(request: SignableRequest) -> Claim:
    values: dict[bytes, str] = {}
    for name, value in query_pairs(request.query):
        if name.startswith(b"X-Amz-") and name in _QUERY_NAMES:
            if name in values:
                raise MalformedSignature(f"{name.decode()} stands in the query more than once.")
            values[name] = value.decode("utf-8", "replace")
    for required in (b"X-Amz-Algorithm", b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-SignedHeaders", b"X-Amz-Signature"):
        if not values.get(required):
            raise MalformedSignature(f"A query that is signed names {required.decode()}.")
    if values[b"X-Amz-Algorithm"] != ALGORITHM:
        raise MalformedSignature(f"X-Amz-Algorithm must be {ALGORITHM}.")
    return _claim(
        credential=values[b"X-Amz-Credential"],
        signed_headers=values[b"X-Amz-SignedHeaders"],
        signature=values[b"X-Amz-Signature"],
        timestamp=values[b"X-Amz-Date"],
        token=values.get(b"X-Amz-Security-Token"),
        in_query=True,
        expires=values.get(b"X-Amz-Expires"),
    )


_QUERY_NAMES: Final = frozenset(
    {
        b"X-Amz-Algorithm",
        b"X-Amz-Credential",
        b"X-Amz-Date",
        b"X-Amz-Expires",
        b"X-Amz-SignedHeaders",
        b"X-Amz-Signature",
        b"X-Amz-Security-Token",
    }
)


def _claim(
    *,
    credential: str,
    signed_headers: str,
    signature: str,
    timestamp: str,
    token: str | None,
    in_query: bool,
    expires: str | None,
) -> Claim:
    # A key id may not hold a slash, so the scope is what the last four slashes cut off.
    parts = credential.rsplit("/", 4)
    if len(credential) > CREDENTIAL_LENGTH_MAX or len(parts) != 5 or not all(parts):
        raise MalformedSignature("A Credential reads KEYID/YYYYMMDD/region/service/aws4_request.")
    access_key_id, date, region, service, terminator = parts
    if "/" in access_key_id:
        raise MalformedSignature("A Credential reads KEYID/YYYYMMDD/region/service/aws4_request; a key id holds no slash.")
    if terminator != "aws4_request":
        raise MalformedSignature("A Credential ends with /aws4_request.")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise MalformedSignature(
            f"The date {timestamp[:40]!r} of the signature must read YYYYMMDDTHHMMSSZ.",
            subject="malformed-query" if in_query else "undated",
        )
    if date != timestamp[:8]:
        raise MalformedSignature(
            f"The Credential is for {date[:20]}, the request is dated {timestamp}: the days must be the same."
        )
    if not _SIGNATURE.fullmatch(signature):
        raise MalformedSignature("A Signature is 64 lower-case hexadecimal digits.")
    names = tuple(signed_headers.split(";"))
    if len(names) > SIGNED_HEADERS_MAX or list(names) != sorted(set(names)) or signed_headers != signed_headers.lower():
        raise MalformedSignature("SignedHeaders names each header once, in lower case, in order, separated by semicolons.")
    if "host" not in names:
        raise MalformedSignature(
            "There were headers present in the request which were not signed: SignedHeaders must name host.",
            subject="unsigned-headers",
        )
    if token is not None and len(token) > SECURITY_TOKEN_LENGTH_MAX:
        raise MalformedSignature(f"A security token has at most {SECURITY_TOKEN_LENGTH_MAX} characters.")
    expires_s: int | None = None
    if expires is not None:
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 7 and 1 <= int(expires) <= PRESIGNED_EXPIRES_S_MAX):
            raise MalformedSignature(f"X-Amz-Expires is a number of seconds from 1 to {PRESIGNED_EXPIRES_S_MAX}.")
        expires_s = int(expires)
    return Claim(
        access_key_id=access_key_id,
        scope=Scope(date=date, region=region, service=service),
        timestamp=timestamp,
        signed_headers=names,
        signature=signature,
        security_token=token,
        in_query=in_query,
        expires_s=expires_s,
    )


def query_pairs(query: bytes) -> list[tuple[bytes, bytes]]:
    """Decoded (name, value) pairs of a raw query. A plus sign is a plus sign.

    Raises:
        MalformedSignature: more than ``QUERY_PARAMETERS_MAX`` parameters.
    """
    if not query:
        return []
    parts = query.split(b"&")
    if len(parts) > QUERY_PARAMETERS_MAX:
        raise MalformedSignature(f"A query has at most {QUERY_PARAMETERS_MAX} parameters.")
    pairs = []
    for part in parts:
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return pairs
