"""The file in a form that is being uploaded (RFC 7578), as OTA Connect's clients send images. It streams: nothing waits for the
end of the form."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from overair.basics.errors import InvalidRequest

HEADERS_SIZE_BYTES_MAX: Final = 8 * 1024
_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of ``multipart/form-data``; None for every other type.

    Raises:
        InvalidRequest: with subject ``form``: the type is a form's and names no boundary.
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return None
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise InvalidRequest("The form's Content-Type names no boundary.", subject="form")
    return (found[1] or found[2]).encode("latin-1")


async def file_in(chunks: AsyncIterable[bytes], boundary: bytes) -> AsyncIterator[bytes]:
    """The bytes of the first field that is a file; whatever follows it is read to the end and left aside.

    Raises:
        InvalidRequest: with subject ``form``: it has no file, or ends before the file does.
    """
    delimiter = b"\r\n--" + boundary
    # A form may begin with its first boundary, without the line end that precedes the others.
    held = b"\r\n"
    is_in_file = is_done = False
    async for chunk in chunks:
        if is_done:
            continue
        held += chunk
        while not is_done:
            if is_in_file:
                end = held.find(delimiter)
                if end >= 0:
                    if end:
                        yield held[:end]
                    is_done = True
                    break
                safe = len(held) - len(delimiter)
                if safe > 0:
                    yield held[:safe]
                    held = held[safe:]
                break
            begin = held.find(delimiter)
            if begin < 0:
                held = held[-len(delimiter) :]
                break
            headers_end = held.find(b"\r\n\r\n", begin + len(delimiter))
            if headers_end < 0:
                if len(held) - begin > HEADERS_SIZE_BYTES_MAX:
                    raise _malformed(f"A field's headers have more than {HEADERS_SIZE_BYTES_MAX} bytes.")
                held = held[begin:]
                break
            is_in_file = b"filename=" in held[begin:headers_end].lower()
            # The two bytes before the content may begin the next delimiter: an empty field.
            held = held[headers_end + 4 :] if is_in_file else held[headers_end + 2 :]
    if not is_done:
        raise _malformed("It ends before a file does." if is_in_file else "It has no field with a file.")


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"The form can't be read. {why}", subject="form", details={"field": "file"})
