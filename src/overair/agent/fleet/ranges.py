"""Ranges over HTTPS on the fleet's loop: one connection that is kept for each device, one request at a time."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

HEAD_SIZE_BYTES_MAX: Final = 16 * 1024
ANSWER_TIMEOUT_S: Final = 30.0
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3})[ \r]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]{1,10})\r\n", re.IGNORECASE)
_RANGE: Final = re.compile(rb"\r\ncontent-range: *bytes ([0-9]{1,12})-([0-9]{1,12})/", re.IGNORECASE)


class FleetRanges:
    """Implements ``device.Ranges`` for one device. As in the agent the URL's signature is the permission, so that no
    certificate is shown."""

    def __init__(self, context: ssl.SSLContext, *, gate: asyncio.Semaphore) -> None:
        self._context = context
        self._gate = gate
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self, url: str, first_byte: int, last_byte: int, deliver: Callable[[bytes | None], None]) -> None:
        if self._task is not None and not self._task.done():
            self.close()
        self._task = asyncio.get_running_loop().create_task(self._fetch(url, first_byte, last_byte, deliver))

    def close(self) -> None:
        """Drop the connection and whatever is under way."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None

    async def _fetch(self, url: str, first_byte: int, last_byte: int, deliver: Callable[[bytes | None], None]) -> None:
        data: bytes | None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                data = await self._range(url, first_byte, last_byte)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            data = None
        if data is None and self._open is not None:
            self._open[1].transport.abort()
            self._open = None
        deliver(data)

    async def _range(self, url: str, first_byte: int, last_byte: int) -> bytes | None:
        """Exactly the range, or None for any other answer."""
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname is None:
            return None
        if self._open is None:
            async with self._gate:
                self._open = await asyncio.open_connection(
                    parts.hostname, parts.port or 443, ssl=self._context, limit=HEAD_SIZE_BYTES_MAX
                )
        reader, writer = self._open
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nRange: bytes={first_byte}-{last_byte}\r\n\r\n".encode("ascii")
        )
        head = await reader.readuntil(b"\r\n\r\n")
        status, length, told = _STATUS.match(head), _LENGTH.search(head), _RANGE.search(head)
        size = last_byte - first_byte + 1
        if status is None or status[1] != b"206" or length is None or told is None:
            return None
        if (int(told[1]), int(told[2]), int(length[1])) != (first_byte, last_byte, size):
            return None
        return await reader.readexactly(size)
