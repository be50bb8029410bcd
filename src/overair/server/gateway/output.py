"""What one connection has to say, gathered so that a burst of packets is one write to the transport."""

from __future__ import annotations

import asyncio
from typing import Final

GATHERED_SIZE_BYTES_MAX: Final = 256 * 1024
"""Then it is handed over at once, so that the transport can say that the peer is slow."""


class Output:
    """Gathers packets until the end of the current step of the event loop."""

    __slots__ = ("_flush_wanted", "_loop", "_pieces", "_size_bytes", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport: asyncio.Transport | None = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._flush_wanted = False

    def write(self, data: bytes, more: bytes = b"") -> None:
        """Say this; it goes out soon, in order. Never split between two calls: a packet stays whole."""
        self._pieces.append(data)
        self._size_bytes += len(data)
        if more:
            self._pieces.append(more)
            self._size_bytes += len(more)
        if self._size_bytes > GATHERED_SIZE_BYTES_MAX:
            self.flush()
        elif not self._flush_wanted:
            self._flush_wanted = True
            self._loop.call_soon(self._flush_soon)

    def begin(self) -> bool:
        """What follows belongs together and will be flushed by ``end``; pass on to it what this returns."""
        wanted, self._flush_wanted = self._flush_wanted, True
        return wanted

    def end(self, wanted: bool) -> None:
        """The end of what belongs together."""
        self._flush_wanted = wanted
        self.flush()

    def flush(self) -> None:
        """Hand everything to the transport now."""
        pieces = self._pieces
        if pieces and self._transport is not None:
            self._pieces = []
            self._size_bytes = 0
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        """Nothing more can be said."""
        self._transport = None
        self._pieces = []

    def _flush_soon(self) -> None:
        self._flush_wanted = False
        self.flush()
