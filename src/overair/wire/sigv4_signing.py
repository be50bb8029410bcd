"""Signing with AWS Signature Version 4: the other direction of ``sigv4``, for clients and presigned links. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from overair.wire.sigv4 import (
    ALGORITHM,
    PRESIGNED_EXPIRES_S_MAX,
    UNSIGNED_PAYLOAD,
    Scope,
    SignableRequest,
    canonical_request,
    header_values,
    signature_of,
    string_to_sign,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningCredentials:
    """A key pair, with a token where it belongs to a session."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"SigningCredentials({self.access_key_id})"


def sign_header(
    request: SignableRequest,
    credentials: SigningCredentials,
    *,
    scope: Scope,
    timestamp: str,
    payload: str,
    normalise: bool = True,
    sign_token: bool = True,
    except_headers: Iterable[str] = (),
) -> list[tuple[bytes, bytes]]:
    """The header fields to add: X-Amz-Security-Token and X-Amz-Date where absent, and Authorization last.

    Every header of the request is signed but those in ``except_headers`` and, with ``sign_token=False``, the token.
    """
    added: list[tuple[bytes, bytes]] = []
    if credentials.session_token is not None:
        added.append((b"x-amz-security-token", credentials.session_token.encode("ascii")))
    if not header_values(request.headers, b"x-amz-date"):
        added.append((b"x-amz-date", timestamp.encode("ascii")))
    whole = SignableRequest(method=request.method, path=request.path, query=request.query, headers=[*request.headers, *added])
    skipped = {"authorization", *except_headers}
    if not sign_token:
        skipped.add("x-amz-security-token")
    names = sorted({name.decode("latin-1") for name, _ in whole.headers} - skipped)
    canonical = canonical_request(whole, signed_headers=names, payload=payload, normalise=normalise, in_query=False)
    text = string_to_sign(canonical, timestamp=timestamp, scope=scope)
    signature = signature_of(text, secret=credentials.secret_access_key, scope=scope)
    value = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return [*added, (b"authorization", value.encode("latin-1"))]


def presign(
    request: SignableRequest,
    credentials: SigningCredentials,
    *,
    scope: Scope,
    timestamp: str,
    expires_s: int,
    payload: str = UNSIGNED_PAYLOAD,
    normalise: bool = True,
    sign_token: bool = True,
) -> bytes:
    """The whole query of the presigned request: what was there, then the X-Amz- parameters, X-Amz-Signature last."""
    if not 1 <= expires_s <= PRESIGNED_EXPIRES_S_MAX:
        raise ValueError(f"A presigned request lives for 1 to {PRESIGNED_EXPIRES_S_MAX} s.")
    names = sorted({name.decode("latin-1") for name, _ in request.headers})
    parameters = [
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", f"{credentials.access_key_id}/{scope}"),
        ("X-Amz-Date", timestamp),
        ("X-Amz-SignedHeaders", ";".join(names)),
        ("X-Amz-Expires", str(expires_s)),
    ]
    token = [] if credentials.session_token is None else [("X-Amz-Security-Token", credentials.session_token)]
    signed = _joined(request.query, parameters + (token if sign_token else []))
    canonical = canonical_request(
        SignableRequest(method=request.method, path=request.path, query=signed, headers=request.headers),
        signed_headers=names,
        payload=payload,
        normalise=normalise,
        in_query=True,
    )
    text = string_to_sign(canonical, timestamp=timestamp, scope=scope)
    signature = signature_of(text, secret=credentials.secret_access_key, scope=scope)
    return _joined(signed, [*([] if sign_token else token), ("X-Amz-Signature", signature)])


def _joined(query: bytes, parameters: Sequence[tuple[str, str]]) -> bytes:
    added = [f"{name}={quote_from_bytes(value.encode('utf-8'), safe='-._~')}".encode("ascii") for name, value in parameters]
    return b"&".join([query, *added] if query else added)
