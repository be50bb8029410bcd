"""What every HTTP engine reads of an ASGI scope before it knows what the request is about."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

from overair.server.aws_protocol.body import Receive, content_length

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]
Observe = Callable[[str, str, int, float], None]
"""(service, operation or ``-``, status, seconds): called after each answer."""

UNREAD_BODY_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024
"""A body left unread up to this size is swallowed, never held: who still sends it can then hear the refusal, which a closed
connection would cut off. Behind a larger one the connection is closed."""

_SCOPE: Final = re.compile(r"Credential=[^/,\s]+/\d{8}/[^/,\s]*/([^/,\s]{1,64})/aws4_request")
_QUERY_SCOPE: Final = re.compile(
    rb"(?:^|&)X-Amz-Credential=[^&]*?(?:%2[Ff]|/)([A-Za-z0-9-]{1,64})(?:%2[Ff]|/)aws4_request(?:&|$)"
)
_QUERY_SIGNED_V2: Final = re.compile(rb"(?:^|&)AWSAccessKeyId=")


def header_fields(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header fields by lower-case name: UTF-8 where it is that, else Latin-1; repeated ones joined by commas."""
    result: dict[str, str] = {}
    for name, value in pairs:
        key = name.decode("latin-1")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        result[key] = f"{result[key]},{text}" if key in result else text
    return result


def raw_path_of(scope: Scope) -> bytes:
    """The path as it stands on the wire, without the query."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8")
    return raw.partition(b"?")[0]


def claimed_service(authorization: str | None, query_string: bytes) -> str | None:
    """The signing name of the service that a request says it is signed for, in header or query (``s3`` for Version 2); not
    believed until it is authenticated. None where it claims nothing of the kind."""
    if authorization is not None:
        found = _SCOPE.search(authorization)
        if found is not None:
            return found[1]
        return "s3" if authorization.startswith("AWS ") else None
    if not query_string:
        return None
    in_query = _QUERY_SCOPE.search(query_string)
    if in_query is not None:
        return in_query[1].decode("ascii")
    return "s3" if _QUERY_SIGNED_V2.search(query_string) else None


def leaves_too_much(headers: Mapping[str, str]) -> bool:
    """Whether a body that stays unread is too large, or of unknown size, to be swallowed."""
    declared = content_length(headers)
    if declared is None:
        return "transfer-encoding" in headers
    return declared > UNREAD_BODY_SIZE_BYTES_MAX
