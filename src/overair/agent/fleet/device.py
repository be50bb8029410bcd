"""One virtual device: the C agent's messages in its order, without a socket, a file or a clock.

It follows one job after another like the agent does (wire reference §1.2, §7.3), but keeps no image (``incoming_file``). What
it doesn't do is boot: after ``self_test`` ``ready`` it goes on with ``active`` at once, and runs what its image says it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Final, Protocol

from overair.agent import reports
from overair.agent.download import block_size_for
from overair.agent.fleet.final_word import FinalWord, answers_final_word
from overair.agent.fleet.incoming_file import IncomingFile
from overair.agent.fleet.running_version import STARTED_WITH
from overair.agent.fleet.tally import Tally
from overair.agent.other_jobs import OtherJob, report_of
from overair.agent.reports import AgentErrorCode, Report
from overair.agent.update_job import JobRefused, UpdateJob, read_job
from overair.wire.blocks import BlockDownload, MakeDurable, UnexpectedBlock, WriteBlock, blocks_named
from overair.wire.image import ImageVersion
from overair.wire.image_signature import SignerCertificate
from overair.wire.job_document import TransferProtocol
from overair.wire.job_message_parsing import parse_rejection, parse_update_reply
from overair.wire.job_messages import (
    MalformedMessage,
    accepted,
    describe_topic,
    notify_next_topic,
    update_topic,
)
from overair.wire.mqtt.client import ClientConnection
from overair.wire.mqtt.packets import Publish
from overair.wire.stream_client import MalformedStreamMessage, decode_block, decode_refusal, encode_get_stream
from overair.wire.stream_messages import Dialect, Echo, GetStreamRequest
from overair.wire.trust_document import TRUST_FILE_TYPE

ANSWER_TIMEOUT_S: Final = 10.0
"""An answer that hasn't come by then is asked for again; the wait doubles each time."""
RANGE_RETRY_S: Final = 1.0
MOMENTUM_MAX: Final = 8
"""Requests without an answer after which the work is given up, as the C agent does."""
_ECHO: Final = Echo(client_token="rdy")  # noqa: S106  no secret: an echo, constant as the C agent's
_ASK: Final = b'{"clientToken":"fleet"}'


class Stage(Enum):
    """Where a device stands."""

    AWAY = auto()
    IDLE = auto()
    """Connected; nothing to do, or the job was asked for."""
    RECEIVING = auto()
    REPORTING = auto()
    """A final report is out and not acknowledged."""


class Ranges(Protocol):
    """Fetches one part of a file by URL, and says later what came."""

    def ask(self, url: str, first_byte: int, last_byte: int, deliver: Callable[[bytes | None], None]) -> None:
        """``deliver`` is called once: with exactly the bytes, or None where they didn't come."""
        ...


class VirtualDevice:
    """Bytes go out by ``send``; packets, ranges and the time come in."""

    def __init__(
        self,
        thing: str,
        *,
        anchors: Mapping[str, Sequence[SignerCertificate]],
        tally: Tally,
        monotonic: Callable[[], float],
        ranges: Ranges,
        block_size_bytes: int,
        window_blocks: int,
        primary: TransferProtocol = TransferProtocol.MQTT,
        fails: bool = False,
        running: ImageVersion = STARTED_WITH,
        remember: Callable[[ImageVersion], None] = lambda _: None,
    ) -> None:
        """``anchors``: signers by the last segment of a job's ``certfile``, without ``.pem``. ``primary``: how blocks come
        where a job offers both ways. ``fails``: it refuses every image, for demonstrations. ``remember`` is told what it runs
        when that changes."""
        self.thing = thing
        self.stage = Stage.AWAY
        self.wire = ClientConnection()
        self.ended = 0
        """Jobs that it brought to an end."""
        self._send: Callable[[bytes], None] = lambda _: None
        self._anchors = anchors
        self._tally = tally
        self._monotonic = monotonic
        self._ranges = ranges
        self._block_size = block_size_bytes
        self._window = window_blocks
        self._primary = primary
        self._fails = fails
        self._running = running
        self._remember = remember
        self._job: UpdateJob | None = None
        self._incoming: IncomingFile | None = None
        self._url = ""
        self._stream = ""
        self._reported = 0
        self._final: FinalWord | None = None
        self._job_id = ""
        self._due_s = float("inf")
        self._unanswered = 0
        self._asked_at = 0

    # -- the connection -----------------------------------------------------------------------------------------------------

    def connected(self, send: Callable[[bytes], None]) -> None:
        """A session stands: subscribe, and ask what there is to do. Work under way goes on where it stood."""
        self._send = send
        send(self.wire.subscribe((notify_next_topic(self.thing), 1)))
        if self._final is not None:
            self.stage = Stage.REPORTING
            self._say_last(self._final)
            return
        self.stage = Stage.IDLE
        self._ask_for_job()

    def lost(self) -> None:
        """The connection is gone; ``connected`` follows with another."""
        self.stage = Stage.AWAY
        self._send = lambda _: None
        self._due_s = float("inf")
        self.wire = ClientConnection()

    def received(self, message: Publish) -> None:
        """A message came, subscribed or not."""
        topic = message.topic
        if topic.endswith("/data/cbor"):
            self._block(message.payload)
        elif topic in (accepted(describe_topic(self.thing)), notify_next_topic(self.thing)):
            self._told_of_job(message.payload)
        elif topic.endswith("/update/accepted"):
            self._acknowledged(message.payload)
        elif topic.endswith("/update/rejected"):
            self._refused(message.payload)
        elif topic.endswith("/rejected/cbor") and self.stage is Stage.RECEIVING:
            self._stream_refused(message.payload)

    def tick(self) -> None:
        """Ask again for what hasn't come in time. Called every second or so."""
        if self._monotonic() < self._due_s:
            return
        self._unanswered += 1
        self._wait()
        if self.stage is Stage.RECEIVING and self._unanswered > MOMENTUM_MAX:
            self._end(reports.failed(AgentErrorCode.MOMENTUM_ABORT), "requests for blocks stayed unanswered")
        elif self.stage is Stage.RECEIVING:
            self._tally.repeated_requests += 1
            if self._url:
                self._ask_for_job()  # the address may be good no longer: a new one stands in the job
            else:
                self._ask_for_blocks()
        elif self.stage is Stage.REPORTING and self._final is not None:
            self._say_last(self._final)
        elif self.stage is Stage.IDLE:
            self._ask_for_job()

    # -- jobs -----------------------------------------------------------------------------------------------------------------

    def _ask_for_job(self) -> None:
        self._send(self.wire.publish(describe_topic(self.thing), _ASK))
        self._wait()

    def _told_of_job(self, payload: bytes) -> None:
        if self.stage is Stage.REPORTING:
            return  # another one is next; it is asked for once this report is acknowledged
        try:
            job = read_job(payload, self._primary)
        except JobRefused as refusal:
            self._job, self._job_id = None, refusal.execution.job_id
            report = reports.failed(AgentErrorCode.JOB_PARSER_ERROR, refusal.sub_code)
            self._end(report, "the job could not be followed")
            return
        except MalformedMessage:
            return
        if isinstance(job, OtherJob):
            self._job, self._job_id = None, job.job_id
            self._end(report_of(job, None), "a job of another kind was rejected")
            return
        if job is None:
            self.stage, self._job, self._incoming, self._due_s = Stage.IDLE, None, None, float("inf")
            return
        if self._job is not None and self._job.same_work(job) and self._incoming is not None:
            self.stage = Stage.RECEIVING
            self._locate(job)
            self._ask_for_blocks()
            return
        self._begin(job)

    def _begin(self, job: UpdateJob) -> None:
        self._job = job
        self._job_id = job.job_id
        if job.self_test:
            # It stopped between two reports: whatever it received is gone, and it says that it runs.
            self._finish(None)
            return
        size = block_size_for(job.file.size_bytes, self._block_size)
        if size is None:
            self._end(reports.failed(AgentErrorCode.FILE_SIZE_OVERFLOW), "the file is too large")
            return
        self._incoming = IncomingFile(job.file, block_size_bytes=size, window_blocks=self._window)
        self._reported = 0
        self._locate(job)
        self.stage = Stage.RECEIVING
        if self._stream:
            self._send(self.wire.subscribe((f"{self._stream}/data/cbor", 0), (f"{self._stream}/rejected/cbor", 0)))
        self._ask_for_blocks()

    def _locate(self, job: UpdateJob) -> None:
        """Over which of the two ways the blocks come."""
        self._job = job
        self._url = "" if job.stream_name is not None else job.file.url or ""
        self._stream = f"$aws/things/{self.thing}/streams/{job.stream_name}" if job.stream_name is not None else ""

    # -- blocks ---------------------------------------------------------------------------------------------------------------

    def _ask_for_blocks(self) -> None:
        assert self._incoming is not None
        download, job = self._incoming.blocks, self._job
        assert job is not None
        wanted = download.request()
        self._tally.requests += 1
        self._asked_at += 1
        self._wait()
        if self._url:
            self._ask_for_range(blocks_named(wanted.bitmap, wanted.offset))
            return
        request = GetStreamRequest(
            file_id=job.file.file_id,
            block_size_bytes=download.block_size_bytes,
            block_offset=wanted.offset,
            bitmap=wanted.bitmap,
            block_count=wanted.count,
            echo=_ECHO,
        )
        self._send(self.wire.publish(f"{self._stream}/get/cbor", encode_get_stream(request, Dialect.CBOR)))

    def _ask_for_range(self, numbers: Sequence[int]) -> None:
        """The window as one range; blocks of it that are here already come again and change nothing."""
        incoming, asked = self._incoming, self._asked_at
        assert incoming is not None
        size = incoming.blocks.block_size_bytes
        first, end = numbers[0] * size, min((numbers[-1] + 1) * size, incoming.blocks.file_size_bytes)

        def deliver(data: bytes | None) -> None:
            if self._asked_at != asked or self._incoming is not incoming:
                return  # something else is under way
            if data is None:
                self._due_s = self._monotonic() + RANGE_RETRY_S
                return
            for offset in range(0, len(data), size):
                if self._incoming is incoming:
                    self._take(numbers[0] + offset // size, data[offset : offset + size])

        self._ranges.ask(self._url, first, end - 1, deliver)

    def _block(self, payload: bytes) -> None:
        if self.stage is not Stage.RECEIVING or self._job is None:
            return
        try:
            block = decode_block(payload, Dialect.CBOR)
        except MalformedStreamMessage:
            self._end(reports.failed(AgentErrorCode.CBOR_DECODE), "a block could not be read")
            return
        if block.file_id == self._job.file.file_id:
            self._take(block.number, block.data)

    def _take(self, number: int, data: bytes) -> None:
        incoming = self._incoming
        assert incoming is not None
        download = incoming.blocks
        try:
            effects = download.receive(number, data)
        except UnexpectedBlock:
            self._end(reports.failed(AgentErrorCode.REQUEST_FILE_BLOCK_FAILED), "a block was of no place")
            return
        if not effects:
            return
        self._unanswered = 0
        for effect in effects:
            match effect:
                case WriteBlock(data=written):
                    self._tally.blocks += 1
                    self._tally.bytes += len(written)
                    incoming.keep(number, written)
                case MakeDurable(complete=complete):
                    download.made_durable()
                    self._progress(download)
                    if complete:
                        self._verify()
                    else:
                        self._ask_for_blocks()

    def _progress(self, download: BlockDownload) -> None:
        """After the first window, and whenever another 64 blocks are there."""
        if download.complete or (self._reported and download.received < self._reported + reports.PROGRESS_EVERY_BLOCKS):
            return
        assert self._job is not None
        self._reported = download.received
        report = reports.receiving(download.received, download.total)
        self._send(self.wire.publish(update_topic(self.thing, self._job.job_id), report.to_json()))

    def _stream_refused(self, payload: bytes) -> None:
        try:
            code = decode_refusal(payload, Dialect.CBOR).code
        except MalformedStreamMessage:
            code = "in words that can't be read"
        self._end(reports.failed(AgentErrorCode.REQUEST_FILE_BLOCK_FAILED), f"the stream was refused: {code}")

    # -- the end --------------------------------------------------------------------------------------------------------------

    def _verify(self) -> None:
        job, incoming = self._job, self._incoming
        assert job is not None
        assert incoming is not None
        self._incoming = None
        signers = incoming.signers(self._anchors)
        if not signers:
            self._end(reports.failed(0xE7), f"it has no signer {job.file.certificate_path[:60]!r}")
            return
        if self._fails or not incoming.is_signed_by(signers):
            self._end(reports.failed(0xE3), "the signature does not verify")
            return
        if job.file.file_type == TRUST_FILE_TYPE:
            self._end(reports.failed(0xE4), "a virtual device trusts what its directory trusted when it started")
            return
        following = job.without_first_file()
        if following is not None:
            self._begin(following)
        elif job.installs_firmware and not incoming.may_replace(self._running):
            same = incoming.version == self._running
            code = AgentErrorCode.SAME_FIRMWARE_VERSION if same else AgentErrorCode.DOWNGRADE_NOT_ALLOWED
            self._end(reports.rejected(code), f"the image's version is {'the one that runs' if same else 'an older one'}")
        elif job.installs_firmware:
            self._report_now(reports.self_test_ready(self._running))
            self._report_now(reports.self_test_active(self._running))
            self._finish(incoming.version)
        else:
            self._end(reports.stored(job.file.file_type or 0), None)

    def _finish(self, version: ImageVersion | None) -> None:
        """It runs the new image; one that doesn't say its version counts as the next build of what ran."""
        before = self._running
        self._running = version or ImageVersion.from_word((before.word + 1) % 2**32)
        self._remember(self._running)
        self._end(reports.accepted(self._running, before), None)

    def _report_now(self, report: Report) -> None:
        assert self._job is not None
        self._send(self.wire.publish(update_topic(self.thing, self._job.job_id), report.to_json(), qos=1))

    def _end(self, report: Report, cause: str | None) -> None:
        self._incoming = None
        self._final, self.stage = FinalWord(job=self._job_id, report=report, cause=cause), Stage.REPORTING
        self._unanswered = 0
        self._say_last(self._final)

    def _say_last(self, final: FinalWord) -> None:
        self._send(self.wire.publish(update_topic(self.thing, final.job), final.payload, qos=1))
        self._wait()

    def _acknowledged(self, payload: bytes) -> None:
        if self._final is not None and answers_final_word(parse_update_reply, payload):
            self._count(self._final.cause)

    def _refused(self, payload: bytes) -> None:
        # Ended by somebody else meanwhile: cancelled, or timed out. There is nothing left to do for it.
        if self._final is not None and answers_final_word(parse_rejection, payload):
            self._count("the server took the final report no more")

    def _count(self, cause: str | None) -> None:
        if cause is None:
            self._tally.succeeded += 1
        else:
            self._tally.failures[cause] += 1
        self.ended += 1
        self._final, self._job, self.stage = None, None, Stage.IDLE
        self._ask_for_job()

    def _wait(self) -> None:
        self._due_s = self._monotonic() + ANSWER_TIMEOUT_S * 2 ** min(self._unanswered, 4)
