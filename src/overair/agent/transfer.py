"""The file that is on its way: where its blocks come from, and how often they were asked for in vain."""

from __future__ import annotations

from collections.abc import Callable

from overair.agent.backoff import Backoff
from overair.agent.download import FileDownload, block_size_for
from overair.agent.platform import FileContext, Platform
from overair.agent.settings import AgentSettings
from overair.agent.sources import Asked, BlockSource, Ranges, StreamSource, UrlSource
from overair.agent.states import Event
from overair.agent.transport import Transport
from overair.agent.update_job import UpdateJob
from overair.wire.image_signature import VerifiedImage
from overair.wire.stream_client import Refusal, decode_refusal


class Transfer:
    """One file at a time, from either source, into the platform."""

    def __init__(
        self,
        platform: Platform,
        transport: Transport,
        settings: AgentSettings,
        *,
        ranges: Ranges | None,
        backoff: Backoff,
        deliver: Callable[[bytes], None],
    ) -> None:
        """``ranges``: how files come by URL; None: they can't. ``deliver``: takes blocks that came so, as data messages."""
        self._platform = platform
        self._transport = transport
        self._settings = settings
        self._ranges = ranges
        self._backoff = backoff
        self._deliver = deliver
        self._source: BlockSource | None = None
        self._file: FileDownload | None = None
        self._momentum = 0
        """Requests since the last block that was new."""

    @property
    def file(self) -> FileDownload | None:
        """What is being received."""
        return self._file

    @property
    def is_complete(self) -> bool:
        return self._under_way.complete

    @property
    def is_given_up(self) -> bool:
        """Too many requests in a row brought nothing."""
        return self._momentum >= self._settings.request_momentum_max

    def can_bring(self, job: UpdateJob) -> bool:
        """Whether there is a way to the job's files."""
        return job.stream_name is not None or self._ranges is not None

    def forgive(self) -> None:
        """Other work begins: what stayed unanswered before is nothing to it."""
        self._momentum = 0

    def begin(self, job: UpdateJob) -> bool:
        """Open the job's first file, where an earlier download of it stood. False: it is larger than all blocks together.

        Raises:
            PlatformError: the platform can't take it.
        """
        block_size = block_size_for(job.file.size_bytes, self._settings.block_size_bytes)
        if block_size is None:
            return False
        self._source = self._source_for(job)
        self._file = FileDownload(
            self._platform,
            job.file,
            block_size_bytes=block_size,
            answer_size_bytes_max=self._source.answer_size_bytes_max,
        )
        self._source.open()
        return True

    def widen(self) -> None:
        """Keep what came, before it is asked for again. Raises PlatformError."""
        self._under_way.widen()

    def ask(self) -> tuple[Asked, float]:
        """Ask for what is missing; (what became of it, how much longer than usual to wait for it)."""
        assert self._source is not None
        asked = self._source.ask(self._under_way)
        wait_s = self._backoff.wait_s(self._momentum)
        if asked is not Asked.NOT_SENT:
            self._momentum += 1
        return asked, wait_s

    def take(self, payload: bytes) -> tuple[bool, bool]:
        """Take one data message; (it brought something new, its window is finished and durable).

        Raises:
            MalformedStreamMessage, UnexpectedBlock, PlatformError: as ``FileDownload.take``.
        """
        assert self._source is not None
        new, window_finished = self._under_way.take(payload, self._source.dialect)
        if new:
            self._momentum = 0
        return new, window_finished

    def refusal(self, payload: bytes) -> Refusal:
        """What the stream refuses with. Raises MalformedStreamMessage."""
        assert self._source is not None
        return decode_refusal(payload, self._source.dialect)

    def meaning(self, topic: str) -> Event | None:
        """What a message on this topic is to the source; None if nothing."""
        return None if self._source is None else self._source.meaning(topic)

    def close(self) -> tuple[FileContext, VerifiedImage]:
        """The last block is there: have the file verified.

        Raises:
            PlatformError, VersionNotRising: it is refused, and still to be abandoned.
        """
        context = self._under_way.context
        image = self._platform.close_file(context)
        self._file = None
        return context, image

    def let_go(self) -> None:
        """Think of it no more; what is on the disk stays, so that it can be gone on with."""
        self._file = None

    def abandon(self) -> None:
        """Give it up, with what is on the disk."""
        if self._file is not None:
            self._platform.abort(self._file.context)
            self._file = None

    @property
    def _under_way(self) -> FileDownload:
        assert self._file is not None
        return self._file

    def _source_for(self, job: UpdateJob) -> BlockSource:
        if job.stream_name is not None:
            thing, dialect = self._settings.thing_name, self._settings.stream_format
            return StreamSource(self._transport, thing=thing, stream=job.stream_name, dialect=dialect)
        assert self._ranges is not None
        return UrlSource(self._ranges, url=job.file.url or "", deliver=self._deliver)
