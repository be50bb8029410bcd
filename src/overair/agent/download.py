"""One file on its way: stream messages on one side, the platform's file on the other."""

from __future__ import annotations

import logging

from overair.agent.platform import FileContext, Platform
from overair.wire.blocks import (
    ANSWER_SIZE_BYTES_MAX,
    BLOCK_SIZE_BYTES_MAX,
    BlockDownload,
    BlockRequest,
    MakeDurable,
    WriteBlock,
    file_size_bytes_max,
)
from overair.wire.job_document import DocumentFile
from overair.wire.stream_client import decode_block
from overair.wire.stream_messages import Dialect

LOG = logging.getLogger("overair.agent")


def block_size_for(file_size_bytes: int, preferred_bytes: int) -> int | None:
    """The preferred block size, doubled until the whole file can be asked for; None for a file beyond every size."""
    size = preferred_bytes
    while file_size_bytes > file_size_bytes_max(size):
        size *= 2
        if size > BLOCK_SIZE_BYTES_MAX:
            return None
    return size


class FileDownload:
    """Receives one file into the platform, a window of blocks at a time."""

    def __init__(
        self,
        platform: Platform,
        file: DocumentFile,
        *,
        block_size_bytes: int,
        answer_size_bytes_max: int = ANSWER_SIZE_BYTES_MAX,
    ) -> None:
        """Open the file, resuming where an interrupted download of the same one stood.

        ``answer_size_bytes_max``: of the source's answer to one request, and so of a window.

        Raises:
            PlatformError: the platform can't take it.
        """
        self.context = FileContext(file=file, block_size_bytes=block_size_bytes)
        self._platform = platform
        self._answer_size_bytes_max = answer_size_bytes_max
        bitmap = platform.create_file(self.context)
        try:
            self._blocks = self._bookkeeping(bitmap)
        except ValueError as error:
            LOG.warning("what is here of %r can't be gone on with: %s", file.path, error)
            platform.abort(self.context)
            self._blocks = self._bookkeeping(platform.create_file(self.context))
        self.resumed_blocks = self._blocks.received

    def _bookkeeping(self, durable_bitmap: bytes | None) -> BlockDownload:
        return BlockDownload(
            file_size_bytes=self.context.file.size_bytes,
            block_size_bytes=self.context.block_size_bytes,
            window_blocks=self._answer_size_bytes_max // self.context.block_size_bytes,
            durable_bitmap=durable_bitmap,
            answer_size_bytes_max=self._answer_size_bytes_max,
        )

    @property
    def received(self) -> int:
        """Blocks that are here."""
        return self._blocks.received

    @property
    def total(self) -> int:
        """Blocks of the file."""
        return self._blocks.total

    @property
    def complete(self) -> bool:
        """Every block is on the disk."""
        return self._blocks.complete

    def wanted(self) -> BlockRequest:
        """What is missing in the window."""
        return self._blocks.request()

    def widen(self) -> None:
        """Before asking again for what was lost: keep what came, so that the next request names a whole window once more.

        Raises:
            PlatformError: it couldn't be kept.
        """
        if self._blocks.written():
            self._make_durable()

    def _make_durable(self) -> None:
        self._platform.make_durable(self.context, self._blocks.durable_bitmap())
        self._blocks.made_durable()

    def take(self, payload: bytes, dialect: Dialect = Dialect.CBOR) -> tuple[bool, bool]:
        """Take one data message; (it brought something new, its window is finished and durable).

        Raises:
            MalformedStreamMessage: it is no block.
            UnexpectedBlock: it can't be one of this file's.
            PlatformError: it couldn't be written.
        """
        block = decode_block(payload, dialect)
        if block.file_id != self.context.file.file_id:
            return False, False
        effects = self._blocks.receive(block.number, block.data)
        for effect in effects:
            match effect:
                case WriteBlock(offset_bytes=offset, data=data):
                    self._platform.write_block(self.context, offset, data)
                case MakeDurable():
                    self._make_durable()
        return bool(effects), any(isinstance(effect, MakeDurable) for effect in effects)
