"""Where a file's blocks come from: a stream over MQTT, or a presigned URL (wire reference §4, §7.7)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto
from itertools import groupby
from typing import Final, Protocol

from overair.agent.download import FileDownload
from overair.agent.states import Event
from overair.agent.transport import Transport
from overair.wire.blocks import ANSWER_SIZE_BYTES_MAX, block_length, blocks_named
from overair.wire.stream_client import encode_get_stream
from overair.wire.stream_messages import BlockEncoder, Dialect, Echo, GetStreamRequest

LOG = logging.getLogger("overair.agent")

CLIENT_TOKEN: Final = "rdy"  # noqa: S105  no secret: an echo, constant as the C agent's


RANGE_SIZE_BYTES_MAX: Final = 512 * 1024
"""Of one range: a request costs little beside so many bytes, and they cost a device little memory."""


class Asked(Enum):
    """What became of a request for blocks."""

    SENT = auto()
    NOT_SENT = auto()
    """There is no connection: ask again later; it doesn't count."""
    JOB_NEEDED = auto()
    """The URL is no longer good: the job must be asked for a new one."""


class BlockSource(Protocol):
    """One way for blocks to come. They arrive as data messages with ``Event.RECEIVED_FILE_BLOCK``."""

    @property
    def dialect(self) -> Dialect:
        """How its messages are written."""
        ...

    @property
    def answer_size_bytes_max(self) -> int:
        """What one request may be answered with, all blocks together."""
        ...

    def open(self) -> None:
        """Make ready; also after the connection was lost."""
        ...

    def ask(self, download: FileDownload) -> Asked:
        """Ask for what is missing in the window."""
        ...

    def meaning(self, topic: str) -> Event | None:
        """What a message on this topic is to this source; None if nothing."""
        ...


class StreamSource:
    """A stream over MQTT: in CBOR, as the C agent uses it, or in JSON."""

    answer_size_bytes_max = ANSWER_SIZE_BYTES_MAX

    def __init__(self, transport: Transport, *, thing: str, stream: str, dialect: Dialect = Dialect.CBOR) -> None:
        self._transport = transport
        self._base = f"$aws/things/{thing}/streams/{stream}"
        self.dialect = dialect

    def open(self) -> None:
        for operation in ("data", "rejected"):
            self._transport.subscribe(f"{self._base}/{operation}/{self.dialect.value}", qos=0)

    def ask(self, download: FileDownload) -> Asked:
        wanted = download.wanted()
        request = GetStreamRequest(
            file_id=download.context.file.file_id,
            block_size_bytes=download.context.block_size_bytes,
            block_offset=wanted.offset,
            bitmap=wanted.bitmap,
            block_count=wanted.count,
            echo=Echo(client_token=CLIENT_TOKEN),
        )
        topic = f"{self._base}/get/{self.dialect.value}"
        sent = self._transport.publish(topic, encode_get_stream(request, self.dialect), qos=0)
        return Asked.SENT if sent else Asked.NOT_SENT

    def meaning(self, topic: str) -> Event | None:
        if topic == f"{self._base}/data/{self.dialect.value}":
            return Event.RECEIVED_FILE_BLOCK
        return Event.STREAM_REFUSED if topic == f"{self._base}/rejected/{self.dialect.value}" else None


class UrlNoLongerGood(Exception):
    """The server answered 400, 403 or 404: the signature has expired, or the object is gone."""


class RangeUnavailable(Exception):
    """No answer, or one that isn't exactly the range; it may be another time."""


class Ranges(Protocol):
    """Fetches parts of files by URL."""

    def fetch(self, url: str, first_byte: int, last_byte: int) -> bytes:
        """Exactly the bytes ``first_byte..last_byte``, both included.

        Raises:
            UrlNoLongerGood, RangeUnavailable
        """
        ...


class UrlSource:
    """A presigned URL, range by range: missing blocks that are neighbours are asked for in one. Each block is handed on as the
    data message that a stream would have sent."""

    dialect = Dialect.CBOR
    answer_size_bytes_max = RANGE_SIZE_BYTES_MAX

    def __init__(self, ranges: Ranges, *, url: str, deliver: Callable[[bytes], None]) -> None:
        self._ranges = ranges
        self._url = url
        self._deliver = deliver

    def open(self) -> None:
        return

    def ask(self, download: FileDownload) -> Asked:
        file, size = download.context.file, download.context.block_size_bytes
        encoder = BlockEncoder(dialect=self.dialect, file_id=file.file_id, block_size_bytes=size)
        wanted = download.wanted()
        numbers = enumerate(blocks_named(wanted.bitmap, wanted.offset))
        for _, group in groupby(numbers, key=lambda entry: entry[1] - entry[0]):
            run = [number for _, number in group]
            last_byte = run[-1] * size + block_length(file.size_bytes, size, run[-1]) - 1
            try:
                data = self._ranges.fetch(self._url, run[0] * size, last_byte)
            except UrlNoLongerGood as error:
                LOG.info("the download address is no longer good: %s", error)
                return Asked.JOB_NEEDED
            except RangeUnavailable as error:
                LOG.warning("a range can't be fetched: %s", error)
                return Asked.SENT
            for index, number in enumerate(run):
                self._deliver(encoder.write(number, data[index * size : (index + 1) * size]))
        return Asked.SENT

    def meaning(self, topic: str) -> Event | None:
        return None
