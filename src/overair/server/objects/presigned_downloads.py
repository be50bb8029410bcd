"""The device port's one path without a certificate: GET and HEAD of an object under a presigned signature.

The link's signature is the proof. Answers are small (C agents read headers into 1024 bytes) and say only what a download
needs; refusals are S3's, since agents tell 403 from the rest (wire reference §7.7, §10.7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from email.utils import formatdate, parsedate_to_datetime
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

import structlog

from overair.basics.clock import Instant, from_datetime
from overair.basics.errors import AccessDenied, InvalidRequest, NotAuthenticated, OverairError, Unsupported
from overair.basics.ids import IdSource
from overair.server.aws_protocol.asgi import Observe
from overair.server.aws_protocol.authentication import Authenticator, Authoriser, CurrentOperation, HttpRequest, Witness
from overair.server.aws_protocol.operations import Answer, Caller, Request
from overair.server.error_codes import HTTP_STATUSES, INTERNAL_FAILURE, code_for

HEADERS_SIZE_BYTES_MAX: Final = 1000
"""Of all our response headers together; the server adds its date."""
TARGET_SIZE_BYTES_MAX: Final = 8192

logger = structlog.get_logger("overair.downloads")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

_QUERY_MEMBERS: Final = {
    "versionId": "VersionId",
    "response-content-type": "ResponseContentType",
    "response-content-language": "ResponseContentLanguage",
    "response-content-disposition": "ResponseContentDisposition",
    "response-content-encoding": "ResponseContentEncoding",
    "response-cache-control": "ResponseCacheControl",
    "response-expires": "ResponseExpires",
}
_SIGNATURE_PARAMETERS: Final = frozenset({"awsaccesskeyid", "signature", "expires", "x-id"})
_HEADER_MEMBERS: Final = {
    b"range": "Range",
    b"if-match": "IfMatch",
    b"if-none-match": "IfNoneMatch",
    b"if-modified-since": "IfModifiedSince",
    b"if-unmodified-since": "IfUnmodifiedSince",
}
# In the order of need: what would make the answer too long is left out from the end.
_ANSWER_HEADERS: Final = {
    "ContentRange": b"content-range",
    "AcceptRanges": b"accept-ranges",
    "ETag": b"etag",
    "ContentType": b"content-type",
    "LastModified": b"last-modified",
    "VersionId": b"x-amz-version-id",
    "CacheControl": b"cache-control",
    "ContentEncoding": b"content-encoding",
    "ContentDisposition": b"content-disposition",
    "ContentLanguage": b"content-language",
    "Expires": b"expires",
}


class Downloads(Protocol):
    """Who knows what the operations mean (``operator_objects.ObjectOperations``)."""

    async def get_object(self, caller: Caller, request: Request) -> Answer: ...
    async def head_object(self, caller: Caller, request: Request) -> Answer: ...


class PresignedDownloads:
    """An ASGI application."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        authoriser: Authoriser,
        downloads: Downloads,
        ids: IdSource,
        observe: Observe | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._authoriser = authoriser
        self._downloads = downloads
        self._ids = ids
        self._observe = observe
        self._witness = witness

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            raise RuntimeError("Downloads are served over HTTP only.")
        begun_s = asyncio.get_running_loop().time()
        status = await self._serve(scope, receive, send)
        if self._observe is not None:
            operation = "HeadObject" if scope["method"] == "HEAD" else "GetObject"
            self._observe("s3", operation, status, asyncio.get_running_loop().time() - begun_s)

    async def _serve(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> int:
        """Answer; the status that was sent."""
        request_id = self._ids.uuid()
        is_head = scope["method"] == "HEAD"
        try:
            answer = await self._answer(scope, request_id)
        except Exception as error:
            status, headers, body = _refusal(error, request_id)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if is_head else body})
            return status
        headers = _headers(answer.members, request_id)
        status = answer.status_code or 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if is_head or answer.stream is None:
            await send({"type": "http.response.body", "body": b""})
            return status
        gone = asyncio.create_task(_until_gone(receive))
        try:
            async for piece in answer.stream:
                if gone.done():
                    return status
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b""})
        return status

    async def _answer(self, scope: Scope, request_id: str) -> Answer:
        method: str = scope["method"]
        if method not in ("GET", "HEAD"):
            raise Unsupported("This port serves downloads alone: GET or HEAD of an object under a presigned link.")
        raw_path: bytes = scope.get("raw_path") or b""
        query: bytes = scope["query_string"]
        if len(raw_path) + len(query) > TARGET_SIZE_BYTES_MAX:
            raise InvalidRequest(f"A link has at most {TARGET_SIZE_BYTES_MAX} bytes.", subject="argument")
        client = scope.get("client")
        request_of_link = HttpRequest(
            method=method,
            raw_path=raw_path,
            query_string=query,
            headers=scope["headers"],
            body_sha256=None,
            source_ip=client[0] if client else "",
            secure=scope.get("scheme") == "https",
            request_id=request_id,
        )
        caller: Caller | None = None
        operation = "HeadObject" if method == "HEAD" else "GetObject"
        try:
            authentication = await self._authenticator.authenticate(request_of_link)
            if not authentication.presigned or authentication.service != "s3":
                raise NotAuthenticated(
                    "This port takes presigned links to objects; every other request goes to the operator's port.",
                    subject="missing-token",
                )
            caller = authentication.caller
            request = _request(raw_path, query, scope["headers"])
            resource = await self._authoriser.authorise(caller, "s3", operation, request)
        except NotAuthenticated:
            self._tell_stranger(operation, request_of_link)
            raise
        except AccessDenied:
            self._tell(caller, operation, raw_path.decode("latin-1"), denied=True)
            raise
        self._tell(caller, operation, resource, denied=False)
        if method == "HEAD":
            return await self._downloads.head_object(caller, request)
        return await self._downloads.get_object(caller, request)

    def _tell(self, caller: Caller | None, operation: str, resource: str, *, denied: bool) -> None:
        if self._witness is not None and caller is not None:
            current = CurrentOperation(caller=caller, service="s3", operation=operation, resource=resource)
            self._witness.downloaded(current, denied=denied)

    def _tell_stranger(self, operation: str, request: HttpRequest) -> None:
        if self._witness is not None:
            self._witness.denied(
                None,
                service="s3",
                operation=operation,
                path=request.raw_path,
                request_id=request.request_id,
                source_ip=request.source_ip,
            )


def _request(raw_path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The operation's members.

    Raises:
        InvalidRequest: the path names no object.
        Unsupported: the query asks for something else than the object's bytes.
    """
    try:
        # Split while it is still encoded, as the operator's port does: nobody sees another bucket in it than who signed it.
        encoded_bucket, _, encoded_key = raw_path.decode("ascii").removeprefix("/").partition("/")
        bucket, key = unquote(encoded_bucket, errors="strict"), unquote(encoded_key, errors="strict")
        parameters = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise InvalidRequest("The link can't be read: it is no percent-encoded UTF-8.", subject="argument") from None
    if not bucket or not key:
        raise InvalidRequest("The link names no object: its path reads /BUCKET/KEY.", subject="key")
    request: dict[str, Any] = {"Bucket": bucket, "Key": key}
    for name, value in parameters:
        if name in _QUERY_MEMBERS:
            request[_QUERY_MEMBERS[name]] = value
        elif not (name.lower().startswith("x-amz-") or name.lower() in _SIGNATURE_PARAMETERS):
            raise Unsupported(f"The parameter {name[:60]!r} isn't served on this port: links are to objects themselves.")
    for header, text in headers:
        member = _HEADER_MEMBERS.get(header)
        if member is not None:
            decoded = text.decode("latin-1")
            request[member] = _moment(decoded) if member.endswith("Since") else decoded
    # A date that can't be read is no condition.
    return {member: value for member, value in request.items() if value is not None}


def _moment(text: str) -> Instant | None:
    try:
        return from_datetime(parsedate_to_datetime(text))
    except (ValueError, TypeError):
        return None


def _headers(members: Mapping[str, Any], request_id: str) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-amz-request-id", request_id.encode())]
    if "ContentLength" in members:
        headers.append((b"content-length", b"%d" % members["ContentLength"]))
    for member, name in _ANSWER_HEADERS.items():
        value = members.get(member)
        if value is None:
            continue
        text = formatdate(value // 1000, usegmt=True) if member == "LastModified" else str(value)
        # An override comes from the link, so nothing in it may end the header.
        encoded = text.encode("latin-1", "replace").translate(None, b"\r\n\x00")
        if sum(len(a) + len(b) + 4 for a, b in headers) + len(name) + len(encoded) + 4 <= HEADERS_SIZE_BYTES_MAX:
            headers.append((name, encoded))
    return headers


def _refusal(error: Exception, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    code = code_for("s3", error)
    if isinstance(error, OverairError) and code != INTERNAL_FAILURE["s3"]:
        message = error.message
    else:
        logger.error("download failed", request_id=request_id, exc_info=error)
        message = "We encountered an internal error. Please try again."
    status = HTTP_STATUSES.get(code, 500 if code == INTERNAL_FAILURE["s3"] else 400)
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(code)}</Code><Message>{escape(_printable(message))}</Message>"
        f"<RequestId>{request_id}</RequestId></Error>"
    ).encode("utf-8", "replace")
    headers = [
        (b"x-amz-request-id", request_id.encode()),
        (b"content-type", b"application/xml"),
        (b"content-length", b"%d" % len(body)),
    ]
    return status, headers, body


def _printable(text: str) -> str:
    """XML can't hold control characters, not even as references."""
    return "".join(character if character >= " " else "\ufffd" for character in text)


async def _until_gone(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
