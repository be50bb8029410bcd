"""The ``aws-chunked`` content coding: a body in chunks with an optional signature each, and trailing headers. No IO.

    5;chunk-signature=…\\r\\n hello \\r\\n
    0;chunk-signature=…\\r\\n x-amz-checksum-crc32:…\\r\\n x-amz-trailer-signature:…\\r\\n \\r\\n

Data is handed on before its chunk's signature is known to hold: whoever takes it must wait for the end before trusting it.
Reference: S3 API reference, "Signature calculations for the Authorization header: transferring payload in multiple chunks".
"""

from __future__ import annotations

import hashlib
import re
from hmac import compare_digest
from typing import Final, Protocol

from overair.basics.errors import InvalidRequest, NotAuthenticated

LINE_LENGTH_MAX: Final = 1_024
TRAILERS_MAX: Final = 16
CHUNK_SIZE_BYTES_MAX: Final = 5 * 1024**3
_HEADER: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")


class Chain(Protocol):
    """Signatures due, one after the other."""

    def next(self, data_sha256: str) -> str: ...

    def trailer(self, lines: bytes) -> str: ...


class ChunkedDecoder:
    """Feed it what arrives; it gives data back. ``finished`` once the last line has passed."""

    def __init__(self, chain: Chain | None = None, *, trailer_expected: bool = False) -> None:
        self.finished = False
        self.trailers: dict[str, str] = {}
        """By lower-case name, once finished."""
        self._chain = chain
        self._trailer_expected = trailer_expected
        self._buffer = bytearray()
        self._step = self._read_header
        self._left = 0
        self._signature = b""
        self._hash = hashlib.sha256()
        self._signed_lines = bytearray()
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> list[bytes]:
        """Data decoded from these bytes, in pieces as they came.

        Raises:
            InvalidRequest: with subject ``incomplete-body`` or ``malformed-trailer``.
            NotAuthenticated: a chunk's signature doesn't hold; subject ``signature``.
        """
        if self.finished and received:
            raise _broken("more follows its end")
        self._buffer += received
        while not self.finished and self._step():
            pass
        if self.finished and self._buffer:
            raise _broken("more follows its end")
        data, self._data = self._data, []
        return data

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, LINE_LENGTH_MAX + 2)
        if end < 0:
            if len(self._buffer) > LINE_LENGTH_MAX:
                raise _broken("a line between its chunks is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_header(self) -> bool:
        line = self._line()
        if line is None:
            return False
        found = _HEADER.fullmatch(line)
        if found is None:
            raise _broken("a chunk doesn't begin with its size in hexadecimal digits")
        self._left = int(found[1], 16)
        if self._left > CHUNK_SIZE_BYTES_MAX:
            raise _broken("a chunk is larger than an object may be")
        if self._chain is not None and found[2] is None:
            raise NotAuthenticated("A chunk of the signed body has no chunk-signature.", subject="signature")
        self._signature = found[2] or b""
        self._hash = hashlib.sha256()
        if self._left:
            self._step = self._read_data
        else:
            self._check_chunk()
            self._step = self._read_trailer
        return True

    def _read_data(self) -> bool:
        if self._left:
            piece = bytes(self._buffer[: self._left])
            if not piece:
                return False
            del self._buffer[: len(piece)]
            self._left -= len(piece)
            if self._chain is not None:
                self._hash.update(piece)
            self._data.append(piece)
            return True
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise _broken("a chunk is longer than its size says")
        del self._buffer[:2]
        self._check_chunk()
        self._step = self._read_header
        return True

    def _check_chunk(self) -> None:
        if self._chain is not None:
            due = self._chain.next(self._hash.hexdigest()).encode("ascii")
            if not compare_digest(due, self._signature):
                raise NotAuthenticated("The signature of a chunk of the body does not match its data.", subject="signature")

    def _read_trailer(self) -> bool:
        line = self._line()
        if line is None:
            return False
        if not line:
            if self._chain is not None and self._trailer_expected:
                raise NotAuthenticated("The trailing headers carry no x-amz-trailer-signature.", subject="signature")
            self.finished = True
            return True
        name, colon, value = line.partition(b":")
        try:
            key, text = name.decode("ascii").strip().lower(), value.decode("ascii").strip()
        except UnicodeDecodeError:
            key, text = "", ""
        if not colon or not key or len(self.trailers) >= TRAILERS_MAX or key in self.trailers:
            raise InvalidRequest("The body's trailing headers can't be read.", subject="malformed-trailer")
        if key == "x-amz-trailer-signature" and self._chain is not None:
            due = self._chain.trailer(bytes(self._signed_lines)).encode("ascii")
            if not compare_digest(due, text.encode("ascii")):
                raise NotAuthenticated("The signature of the trailing headers does not match them.", subject="signature")
            self._trailer_expected = False
            return True
        self.trailers[key] = text
        self._signed_lines += name.strip().lower() + b":" + value.strip() + b"\n"
        return True


def _broken(what: str) -> InvalidRequest:
    return InvalidRequest(f"The aws-chunked body is broken: {what}.", subject="incomplete-body")
