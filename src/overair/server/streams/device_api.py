"""Stream topics (wire reference §4.1 to §4.7): today's in JSON and CBOR, and those of the 2018 guide in its own words.

GetStream is the hottest path of the server. A plain function serves it from a descriptor and the contents' segment cache. Only
the first request for a stream, or the first after an eviction, waits for the records, and only bytes that nobody asked for
lately wait for the disk, in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final, Protocol

import structlog

from overair.basics.arn import Place
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, StreamId
from overair.basics.work import Work
from overair.server.gateway.handlers import Connection, Replies, Reply, topic
from overair.server.objects.model import ContentId
from overair.server.streams.asked import AskedBlocks
from overair.server.streams.descriptors import ClosedFile, Descriptor, Descriptors, OpenFile
from overair.server.streams.service import StreamsService
from overair.wire.stream_messages import (
    BlockEncoder,
    Dialect,
    Echo,
    GetStreamRequest,
    RefusalCode,
    StreamDescription,
    StreamFile,
    StreamRequestRefused,
    decode_describe_stream,
    decode_get_stream,
    encode_description,
    encode_refusal,
)

logger = structlog.get_logger("overair.streams")

LOAD_ATTEMPTS: Final = 3
"""How often a descriptor is read again because something was evicted meanwhile."""
REMEMBERED_MAX: Final = 4096
REMEMBERED_SIZE_BYTES_MAX: Final = 512
"""A fleet that takes one image asks the same questions in the same bytes: short requests and their encoders are remembered."""

_decoded_cbor: Final = lru_cache(REMEMBERED_MAX)(partial(decode_get_stream, dialect=Dialect.CBOR))
_decoded_json: Final = lru_cache(REMEMBERED_MAX)(partial(decode_get_stream, dialect=Dialect.JSON))


@lru_cache(REMEMBERED_MAX)
def _writer(is_cbor: bool, file_id: int, block_size_bytes: int, client_token: str | None) -> Callable[[int, bytes], bytes]:
    dialect = Dialect.CBOR if is_cbor else Dialect.JSON
    echo = Echo(client_token=client_token)
    return BlockEncoder(dialect=dialect, file_id=file_id, block_size_bytes=block_size_bytes, echo=echo).write


def _decoded(payload: bytes, dialect: Dialect) -> GetStreamRequest:
    if len(payload) <= REMEMBERED_SIZE_BYTES_MAX:
        if dialect is Dialect.CBOR:
            return _decoded_cbor(payload)
        if dialect is Dialect.JSON:
            return _decoded_json(payload)
    return decode_get_stream(payload, dialect)


def _writer_for(request: GetStreamRequest, dialect: Dialect) -> Callable[[int, bytes], bytes]:
    if dialect is Dialect.GUIDE_2018:
        return BlockEncoder(
            dialect=dialect, file_id=request.file_id, block_size_bytes=request.block_size_bytes, echo=request.echo
        ).write
    return _writer(dialect is Dialect.CBOR, request.file_id, request.block_size_bytes, request.echo.client_token)


class Contents(Protocol):
    """Where the bytes are (``objects.segments.SegmentCache``)."""

    def cached(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes | None:
        """Bytes that are in memory, without blocking; None where some aren't."""
        ...

    def read(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes:
        """The same, blocking, for a thread. Raises NotFound when the content is gone."""
        ...


class FileRefused(StreamRequestRefused):
    """A file that the stream has can't be served. 2018 has one word for one that vanished and one that changed:
    StreamingFileConflict."""


class StreamTopics:
    """The devices' door to streams. ``work`` is not the audited one: devices write no audit rows."""

    def __init__(self, *, work: Work, streams: StreamsService, descriptors: Descriptors, contents: Contents) -> None:
        self._work = work
        self._streams = streams
        self._descriptors = descriptors
        self._contents = contents
        self._cached = contents.cached
        self.asked = AskedBlocks()
        self.blocks_answered = 0
        """Since the start."""

    @topic("$aws/things/{thing}/streams/{stream}/get/cbor")
    def get_cbor(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies | Awaitable[Replies]:
        return self._get(connection, parameters["thing"], parameters["stream"], payload, Dialect.CBOR)

    @topic("$aws/things/{thing}/streams/{stream}/get/json")
    def get_json(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies | Awaitable[Replies]:
        return self._get(connection, parameters["thing"], parameters["stream"], payload, Dialect.JSON)

    @topic("$aws/things/{thing}/streams/{stream}/get")
    def get_2018(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies | Awaitable[Replies]:
        return self._get(connection, parameters["thing"], parameters["stream"], payload, Dialect.GUIDE_2018)

    @topic("$aws/things/{thing}/streams/{stream}/describe/cbor")
    async def describe_cbor(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        return await self._describe(connection, parameters["thing"], parameters["stream"], payload, Dialect.CBOR)

    @topic("$aws/things/{thing}/streams/{stream}/describe/json")
    async def describe_json(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        return await self._describe(connection, parameters["thing"], parameters["stream"], payload, Dialect.JSON)

    @topic("$aws/things/{thing}/streams/{stream}/describe")
    async def describe_2018(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        return await self._describe(connection, parameters["thing"], parameters["stream"], payload, Dialect.GUIDE_2018)

    @topic("$aws/things/{thing}/streams/{stream}/{rest+}")
    def unknown_topic(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        dialect = Dialect.CBOR if parameters["rest"].endswith("/cbor") else Dialect.JSON
        refused = StreamRequestRefused(
            RefusalCode.INVALID_TOPIC, "Streams answer on get/json, get/cbor, describe/json and describe/cbor only."
        )
        return _refusal(refused, parameters["thing"], parameters["stream"], "get", dialect)

    # GetStream ------------------------------------------------------------------------------------------------------------

    def _get(
        self, connection: Connection, thing: str, stream: str, payload: bytes, dialect: Dialect
    ) -> Replies | Awaitable[Replies]:
        try:
            request = _decoded(payload, dialect)
            descriptor = self._descriptors.get((connection.account, StreamId(stream)))
            if descriptor is not None:
                replies = self._from_memory(connection.account, descriptor, thing, request, dialect)
                if replies is not None:
                    return replies
            return self._from_records(connection.place, thing, StreamId(stream), request, dialect)
        except StreamRequestRefused as refused:
            return _refusal(refused, thing, stream, "get", dialect)

    def _from_memory(
        self, account: AccountId, descriptor: Descriptor, thing: str, request: GetStreamRequest, dialect: Dialect
    ) -> Replies | None:
        """The whole answer, or None where something must be looked up: a block's bytes, or a file that was closed and may
        have been opened again since."""
        if type(descriptor.files.get(request.file_id)) is ClosedFile:
            return None
        file, numbers = _wanted(descriptor, request)
        write = _writer_for(request, dialect)
        reply_topic = _data_topic(thing, descriptor.stream, dialect)
        size, file_size, content, cached = request.block_size_bytes, file.size_bytes, file.content_id, self._cached
        replies = []
        for number in numbers:
            offset = number * size
            wanted = min(size, file_size - offset)
            data = cached(content, offset, wanted)
            if data is None:
                return None
            if len(data) != wanted:
                raise _vanished(request)
            replies.append(Reply(topic=reply_topic, payload=write(number, data)))
        self.blocks_answered += len(replies)
        if numbers:
            self.asked.note(account, thing, descriptor.stream, request, numbers[0])
        return replies

    async def _from_records(
        self, place: Place, thing: str, stream: StreamId, request: GetStreamRequest, dialect: Dialect
    ) -> Replies:
        try:
            for _ in range(LOAD_ATTEMPTS):
                descriptor = self._descriptors.get(held := (place.account, stream))
                if descriptor is None or type(descriptor.files.get(request.file_id)) is ClosedFile:
                    descriptor = await self._load(place, stream, request)
                generation = self._descriptors.generation
                file, numbers = _wanted(descriptor, request)
                pieces = await asyncio.to_thread(self._read_all, file, request, numbers)
                # What was taken away while we read must not leave after whoever took it was answered.
                if self._descriptors.generation == generation or self._descriptors.get(held) is descriptor:
                    break
            else:
                logger.warning("a stream changes faster than it can be read: the device will ask again", stream=stream)
                return []
        except StreamRequestRefused as refused:
            return _refusal(refused, thing, stream, "get", dialect)
        write = _writer_for(request, dialect)
        reply_topic = _data_topic(thing, stream, dialect)
        self.blocks_answered += len(pieces)
        if numbers:
            self.asked.note(place.account, thing, stream, request, numbers[0])
        return [Reply(topic=reply_topic, payload=write(number, data)) for number, data in zip(numbers, pieces, strict=True)]

    def _read_all(self, file: OpenFile, request: GetStreamRequest, numbers: Sequence[int]) -> list[bytes]:
        size = request.block_size_bytes
        pieces = []
        for number in numbers:
            wanted = min(size, file.size_bytes - number * size)
            try:
                data = self._contents.read(file.content_id, number * size, wanted)
            except NotFound:
                raise _vanished(request) from None
            if len(data) != wanted:
                raise _vanished(request)
            pieces.append(data)
        return pieces

    async def _load(self, place: Place, stream: StreamId, request: GetStreamRequest | None = None) -> Descriptor:
        for _ in range(LOAD_ATTEMPTS):
            generation = self._descriptors.generation
            try:
                descriptor = await self._work.read(lambda tx: self._streams.open(tx, place, stream))
            except NotFound as error:
                refused = StreamRequestRefused(RefusalCode.RESOURCE_NOT_FOUND, error.message)
                if request is not None:
                    refused.echo = request.echo
                raise refused from None
            if self._descriptors.keep(place.account, descriptor, generation=generation):
                break
        return descriptor

    # DescribeStream -------------------------------------------------------------------------------------------------------

    async def _describe(self, connection: Connection, thing: str, stream: str, payload: bytes, dialect: Dialect) -> Replies:
        try:
            request = decode_describe_stream(payload, dialect)
            try:
                descriptor = self._descriptors.get((connection.account, StreamId(stream)))
                if descriptor is None:
                    descriptor = await self._load(connection.place, StreamId(stream))
            except StreamRequestRefused as refused:
                refused.echo = request.echo
                raise
            if request.stream_version is not None and request.stream_version != descriptor.version:
                raise StreamRequestRefused(
                    RefusalCode.VERSION_MISMATCH,
                    f"Version {request.stream_version} was expected; stream {stream} is at version {descriptor.version}.",
                    request.echo,
                )
        except StreamRequestRefused as refused:
            return _refusal(refused, thing, stream, "describe", dialect)
        description = StreamDescription(
            stream_version=descriptor.version,
            description=descriptor.description,
            files=tuple(StreamFile(file_id=file_id, size_bytes=file.size_bytes) for file_id, file in descriptor.files.items()),
            echo=request.echo,
        )
        return [Reply(topic=_description_topic(thing, stream, dialect), payload=encode_description(description, dialect))]


def _wanted(descriptor: Descriptor, request: GetStreamRequest) -> tuple[OpenFile, Sequence[int]]:
    """The file and the blocks that answer a request, ascending. Raises StreamRequestRefused."""
    version = request.stream_version
    if version is not None and version != descriptor.version:
        raise StreamRequestRefused(
            RefusalCode.VERSION_MISMATCH,
            f"Version {version} was expected; stream {descriptor.stream} is at version {descriptor.version}.",
            request.echo,
        )
    file = descriptor.files.get(request.file_id)
    if file is None:
        raise StreamRequestRefused(
            RefusalCode.RESOURCE_NOT_FOUND, f"Stream {descriptor.stream} has no file {request.file_id}.", request.echo
        )
    if isinstance(file, ClosedFile):
        raise FileRefused(file.code, file.message, request.echo)
    return file, request.blocks_to_send(file.size_bytes)


def _vanished(request: GetStreamRequest) -> StreamRequestRefused:
    logger.error("the content of a streamed file is missing or short", file_id=request.file_id)
    return FileRefused(RefusalCode.RESOURCE_NOT_FOUND, f"The content of file {request.file_id} is gone.", request.echo)


def _data_topic(thing: str, stream: str, dialect: Dialect) -> str:
    if dialect is Dialect.CBOR:
        return f"$aws/things/{thing}/streams/{stream}/data/cbor"
    if dialect is Dialect.JSON:
        return f"$aws/things/{thing}/streams/{stream}/data/json"
    return f"$aws/things/{thing}/streams/{stream}"


def _description_topic(thing: str, stream: str, dialect: Dialect) -> str:
    if dialect is Dialect.GUIDE_2018:
        return f"$aws/things/{thing}/streams/{stream}"
    return f"$aws/things/{thing}/streams/{stream}/description/{dialect.value}"


def _refusal(refused: StreamRequestRefused, thing: str, stream: str, verb: str, dialect: Dialect) -> Replies:
    """One message that only a subscriber gets: an agent that didn't subscribe would take it for a block (§4.1)."""
    if dialect is Dialect.GUIDE_2018:
        reply_topic = f"$aws/things/{thing}/streams/{stream}/{verb}/json/rejected"
        if isinstance(refused, FileRefused) and refused.code is RefusalCode.RESOURCE_NOT_FOUND:
            refused.code = RefusalCode.ETAG_MISMATCH
    else:
        reply_topic = f"$aws/things/{thing}/streams/{stream}/rejected/{dialect.value}"
    return [Reply(topic=reply_topic, payload=encode_refusal(refused, dialect))]
