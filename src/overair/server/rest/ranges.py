"""Answers of files: the whole, or the one range that was asked for, streamed. Reference: RFC 9110 §14."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from overair.server.aws_protocol.ranges import byte_range
from overair.server.rest.operations import RestAnswer, RestRequest

Read = Callable[[int, int], AsyncIterator[bytes]]
"""(offset, size in bytes) → exactly these bytes, in pieces. Not called for HEAD."""


def ranged_answer(
    request: RestRequest,
    *,
    size_bytes: int,
    read: Read,
    content_type: str = "application/octet-stream",
    etag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> RestAnswer:
    """200 with the whole, or 206 with one range. Several ranges, another unit or nonsense get the whole, and so does an
    ``If-Range`` that names another version. ``etag``: without its quotes.

    Raises:
        InvalidRequest: the range begins behind the end (416); subject ``range``.
    """
    told = {"accept-ranges": "bytes", **(headers or {})}
    if etag is not None:
        told["etag"] = f'"{etag}"'
    is_head = request.method == "HEAD"
    unless_changed = request.headers.get("if-range")
    wants_part = not is_head and (unless_changed is None or unless_changed == told.get("etag"))
    part = byte_range(request.headers.get("range"), size_bytes) if wants_part else None
    if part is None:
        stream = None if is_head else read(0, size_bytes)
        return RestAnswer(content_type=content_type, headers=told, stream=stream, length_bytes=size_bytes)
    told["content-range"] = part.content_range(size_bytes)
    return RestAnswer(
        status=206,
        content_type=content_type,
        headers=told,
        stream=read(part.offset_bytes, part.size_bytes),
        length_bytes=part.size_bytes,
    )
