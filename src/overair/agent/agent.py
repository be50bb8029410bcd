"""The agent: receives events, looks up the table, and calls what ``wire``, the platform and the network know.

One thread runs ``run``; the transport's threads only put messages on its queue. Nothing here knows how a message is spelt, how
a file is stored or how a signature is checked.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from overair.agent import reports
from overair.agent.download import FileDownload, block_size_for, stream_topic
from overair.agent.platform import (
    ImageState,
    Platform,
    PlatformError,
    PlatformErrorCode,
    PlatformImageState,
    ResetRequested,
    VersionNotRising,
)
from overair.agent.progress import NoProgress, Progress, ProgressSink
from overair.agent.reports import AgentErrorCode, ParserSubCode, Report
from overair.agent.self_test import SelfTestVerdict, judge
from overair.agent.states import TRANSITIONS, Event, State
from overair.agent.transport import Transport
from overair.agent.update_job import JobRefused, UpdateJob, read_job
from overair.wire.blocks import UnexpectedBlock
from overair.wire.image import ImageVersion
from overair.wire.job_messages import (
    DescribeRequest,
    MalformedMessage,
    accepted,
    describe_topic,
    notify_next_topic,
    update_topic,
)
from overair.wire.stream_client import MalformedStreamMessage, decode_refusal
from overair.wire.stream_messages import Dialect

LOG = logging.getLogger("overair.agent")

EXIT_STATUS_RESET = 75
"""Tells the boot loader to start the active slot again."""


class Application(Protocol):
    """What the image itself does."""

    def self_test(self) -> bool:
        """Is this image fit to stay? Called once after an update; an exception means no, a hang is ended by the boot loader."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Times and counts (wire reference §7.1)."""

    thing_name: str
    block_size_bytes: int = 4096
    request_timeout_s: float = 10
    request_momentum_max: int = 32
    """Unanswered requests for blocks before the work is given up."""
    self_test_timeout_s: float = 16
    """From the start of an image on trial until the server's word on its self-test."""
    acknowledgement_timeout_s: float = 30
    """How long a final report is waited for; it is kept and repeated after that."""


class Timer(Enum):
    REQUEST = auto()
    SELF_TEST = auto()


class Agent:
    """Sequences one device's updates."""

    def __init__(
        self,
        *,
        platform: Platform,
        transport: Transport,
        application: Application,
        settings: AgentSettings,
        monotonic: Callable[[], float],
        progress: ProgressSink | None = None,
    ) -> None:
        self.state = State.READY
        self._platform = platform
        self._transport = transport
        self._application = application
        self._settings = settings
        self._monotonic = monotonic
        self._progress = progress or NoProgress()
        self._thing = settings.thing_name
        self._inbox: SimpleQueue[tuple[Event, bytes | None] | tuple[str, bytes]] = SimpleQueue()
        self._signals: deque[tuple[Event, bytes | None]] = deque()
        self._deadlines: dict[Timer, float] = {}
        self._job: UpdateJob | None = None
        self._download: FileDownload | None = None
        self._momentum = 0
        self._requests = 0
        self._last_report: tuple[str, Report] | None = None

    # --- from outside; any thread ---

    def connected(self) -> None:
        self._inbox.put((Event.CONNECTED, None))

    def received(self, topic: str, payload: bytes) -> None:
        self._inbox.put((topic, payload))

    def signal(self, event: Event) -> None:
        """Suspend, resume, abort or shut down."""
        self._inbox.put((event, None))

    # --- the loop ---

    def run(self) -> int:
        """Work until shut down (0) or until the device must restart (75)."""
        self._inbox.put((Event.START, None))
        try:
            while self.state is not State.STOPPED:
                self.step(wait=True)
        except ResetRequested:
            return EXIT_STATUS_RESET
        finally:
            self._transport.stop()
        return 0

    def step(self, *, wait: bool = False) -> bool:
        """Handle one event, or the timers that are due; whether there was anything to do."""
        if self._signals:
            self._handle(*self._signals.popleft())
            return True
        now = self._monotonic()
        for timer, deadline in sorted(self._deadlines.items(), key=lambda item: item[1]):
            if deadline <= now:
                del self._deadlines[timer]
                self._handle(Event.REQUEST_TIMER if timer is Timer.REQUEST else Event.SELF_TEST_TIMER, None)
                return True
        try:
            timeout = min(self._deadlines.values()) - now if self._deadlines else None
            first, second = self._inbox.get(block=wait, timeout=timeout)
        except Empty:
            return False
        if isinstance(first, Event):
            self._handle(first, second)
        elif (event := self._meaning(first)) is not None:
            self._handle(event, second)
        return True

    def _meaning(self, topic: str) -> Event | None:
        if topic in (accepted(describe_topic(self._thing)), notify_next_topic(self._thing)):
            return Event.RECEIVED_JOB_DOCUMENT
        if self._job is not None and self._job.stream_name is not None:
            if topic == stream_topic(self._thing, self._job.stream_name, "data"):
                return Event.RECEIVED_FILE_BLOCK
            if topic == stream_topic(self._thing, self._job.stream_name, "rejected"):
                return Event.STREAM_REFUSED
        return None

    def _handle(self, event: Event, payload: bytes | None) -> None:
        transition = TRANSITIONS.get((self.state, event))
        if transition is None:
            return
        handler: Callable[[Any], State | None] = getattr(self, f"_{transition.handler}")
        chosen = handler(payload)
        self.state = transition.next_state if chosen is None else chosen
        self._show()

    # --- handlers: return None for the table's next state, or a state of their own choice ---

    def _start(self, _: None) -> None:
        if self._platform.image_state() is PlatformImageState.PENDING_COMMIT:
            self._set_timer(Timer.SELF_TEST, self._settings.self_test_timeout_s)
        self._transport.start(self)

    def _request_job(self, _: None) -> None:
        self._send_stored_report()
        self._transport.subscribe(notify_next_topic(self._thing), qos=1)
        token = f"{self._requests}:{self._thing[:53]}"
        self._requests += 1
        request = DescribeRequest(client_token=token).to_json()
        self._transport.publish(describe_topic(self._thing), request, qos=1)
        self._set_timer(Timer.REQUEST, self._settings.request_timeout_s)

    def _process_job(self, payload: bytes) -> State | None:
        self._clear_timer(Timer.REQUEST)
        try:
            job = read_job(payload)
        except MalformedMessage as error:
            LOG.warning("a message about jobs can't be read: %s", error.message)
            return State.WAITING_FOR_JOB
        except JobRefused as refused:
            self._forget_job()
            self._finish(refused.job_id, reports.failed(AgentErrorCode.JOB_PARSER_ERROR, refused.sub_code))
            return State.WAITING_FOR_JOB
        stored = self._stored_report()
        if job is not None and stored is not None and stored.job == job.job_id:
            self._send_stored_report()
            return State.WAITING_FOR_JOB
        verdict = judge(
            image_state=self._platform.image_state(),
            self_test=job is not None and job.self_test,
            updated_by=None if job is None else job.updated_by,
            running=self._platform.running_image,
            is_firmware=job is None or job.installs_firmware,
        )
        if verdict is SelfTestVerdict.ROLL_BACK:
            LOG.warning("this image is on trial, but the server knows of no self-test: going back")
            self._reset()
        self._clear_timer(Timer.SELF_TEST)
        if job is None:
            self._forget_job()
            return State.WAITING_FOR_JOB
        self._job = job
        if verdict is not SelfTestVerdict.NOTHING:
            self._signals.append((Event.START_SELF_TEST, None))
        elif not job.over_mqtt:
            self._finish_job(reports.failed(AgentErrorCode.INVALID_DATA_PROTOCOL))
            return State.WAITING_FOR_JOB
        else:
            self._signals.append((Event.CREATE_FILE, None))
        return None

    def _run_self_test(self, _: None) -> None:
        assert self._job is not None
        job = self._job
        running = self._platform.running_image
        verdict = judge(
            image_state=self._platform.image_state(),
            self_test=job.self_test,
            updated_by=job.updated_by,
            running=running,
            is_firmware=job.installs_firmware,
        )
        refusals = {
            SelfTestVerdict.SAME_VERSION: AgentErrorCode.SAME_FIRMWARE_VERSION,
            SelfTestVerdict.LOWER_VERSION: AgentErrorCode.DOWNGRADE_NOT_ALLOWED,
            SelfTestVerdict.STATE_MISMATCH: AgentErrorCode.IMAGE_STATE_MISMATCH,
        }
        if verdict is SelfTestVerdict.RUN:
            self._platform.set_image_state(ImageState.TESTING)
        if verdict in (SelfTestVerdict.RUN, SelfTestVerdict.STATE_MISMATCH):
            self._report(job.job_id, reports.self_test_active(running.version))
        if verdict in refusals:
            self._platform.set_image_state(ImageState.REJECTED)
            self._finish_job(reports.rejected(refusals[verdict]))
            self._reset()
        if not self._passes_self_test():
            self._platform.set_image_state(ImageState.REJECTED)
            self._finish_job(reports.rejected(AgentErrorCode.NONE))
            self._reset()
        updated_by = ImageVersion.from_word(job.updated_by or 0)
        report = reports.accepted(running.version, updated_by)
        # Kept before the commit and believed only after it: a power cut between the two rolls back, and the report with it.
        self._store_report(job.job_id, report)
        self._platform.set_image_state(ImageState.ACCEPTED)
        self._finish_job(report)

    def _passes_self_test(self) -> bool:
        try:
            return self._application.self_test()
        except Exception:
            LOG.exception("the self-test failed")
            return False

    def _create_file(self, _: None) -> State | None:
        assert self._job is not None
        file = self._job.file
        block_size = block_size_for(file.size_bytes, self._settings.block_size_bytes)
        if block_size is None:
            return self._fail(reports.failed(AgentErrorCode.JOB_PARSER_ERROR, ParserSubCode.BAD_MODEL))
        try:
            self._download = FileDownload(self._platform, file, block_size_bytes=block_size)
        except PlatformError as error:
            return self._fail_because(error)
        self._momentum = 0
        for operation in ("data", "rejected"):
            self._transport.subscribe(self._stream_topic(operation), qos=0)
        self._signals.append((Event.CLOSE_FILE if self._download.complete else Event.REQUEST_FILE_BLOCK, None))
        return None

    def _request_blocks(self, _: None) -> State | None:
        assert self._download is not None
        if self._momentum >= self._settings.request_momentum_max:
            return self._fail(reports.aborted(AgentErrorCode.MOMENTUM_ABORT))
        if self._transport.publish(self._stream_topic("get"), self._download.request(), qos=0):
            self._momentum += 1
        self._set_timer(Timer.REQUEST, self._settings.request_timeout_s)
        return None

    def _take_block(self, payload: bytes) -> State | None:
        assert self._download is not None
        assert self._job is not None
        before = self._download.received
        try:
            new, window_finished = self._download.take(payload)
        except (MalformedStreamMessage, UnexpectedBlock) as error:
            LOG.warning("a block can't be used: %s", error)
            return self._fail(reports.failed(PlatformErrorCode.UNINITIALIZED))
        except PlatformError as error:
            return self._fail_because(error)
        if not new:
            return None
        self._momentum = 0
        self._set_timer(Timer.REQUEST, self._settings.request_timeout_s)
        received = before + 1
        if received == 1 or received % reports.PROGRESS_EVERY_BLOCKS == 0:
            self._report(self._job.job_id, reports.receiving(received, self._download.total))
        if window_finished:
            self._signals.append((Event.CLOSE_FILE if self._download.complete else Event.REQUEST_FILE_BLOCK, None))
        return None

    def _stream_refused(self, payload: bytes) -> State | None:
        try:
            refusal = decode_refusal(payload, Dialect.CBOR)
        except MalformedStreamMessage as error:
            LOG.warning("a refusal can't be read: %s", error)
            return self.state
        if refusal.code == "InternalError":
            return self.state  # may pass: the timer asks again
        LOG.warning("the stream refuses: %s: %s", refusal.code, refusal.message)
        return self._fail(reports.failed(AgentErrorCode.REQUEST_FILE_BLOCK_FAILED))

    def _job_changed(self, payload: bytes) -> State | None:
        """The first pending execution may be another one now. The same one goes on; the C agent starts from zero."""
        try:
            job = read_job(payload)
        except MalformedMessage:
            return self.state
        except JobRefused:
            job = None
        if job is not None and self._job is not None and job.same_work(self._job):
            return self.state
        self._clear_timer(Timer.REQUEST)
        self._abandon_download()
        self._signals.append((Event.REQUEST_JOB_DOCUMENT, None))
        return None

    def _close_file(self, _: None) -> State | None:
        self._clear_timer(Timer.REQUEST)
        assert self._download is not None
        assert self._job is not None
        context = self._download.context
        try:
            image = self._platform.close_file(context)
        except PlatformError as error:
            return self._fail_because(error)
        except VersionNotRising as error:
            LOG.warning("refused: %s", error.message)
            code = AgentErrorCode.SAME_FIRMWARE_VERSION if error.same else AgentErrorCode.DOWNGRADE_NOT_ALLOWED
            return self._fail(reports.rejected(code))
        self._download = None
        if not context.is_firmware:
            following = self._job.without_first_file()
            if following is None:
                self._finish_job(reports.stored(context.file.file_type or 0))
                return None
            self._job = following
            self._signals.append((Event.CREATE_FILE, None))
            return State.CREATING_FILE
        ready = reports.self_test_ready(self._platform.running_image.version)
        if not self._report(self._job.job_id, ready, wait=True):
            # Without that word the server wouldn't know of the self-test, and the new image would be rolled back.
            LOG.warning("the server didn't acknowledge that the image is ready: not restarting; asking for the job again")
            self._set_timer(Timer.REQUEST, self._settings.request_timeout_s)
            return State.WAITING_FOR_JOB
        try:
            self._platform.activate(context, image)
        except PlatformError as error:
            LOG.warning("the image can't be activated: %s", error.message)
            return self._fail(reports.failed(AgentErrorCode.ACTIVATE_FAILED, error.sub_code))
        self._reset()
        return None

    def _self_test_overdue(self, _: None) -> State:
        LOG.warning("no word about the self-test in %s s: going back", self._settings.self_test_timeout_s)
        self._reset()
        return self.state

    def _suspend(self, _: None) -> None:
        self._deadlines.pop(Timer.REQUEST, None)
        self._signals.clear()
        self._download = None

    def _resume(self, _: None) -> None:
        self._signals.append((Event.REQUEST_JOB_DOCUMENT, None))

    def _user_abort(self, _: None) -> None:
        self._signals.clear()
        self._clear_timer(Timer.REQUEST)
        if self._job is not None:
            self._fail(reports.aborted(AgentErrorCode.USER_ABORT))

    def _shut_down(self, _: None) -> None:
        self._deadlines.clear()
        self._signals.clear()

    # --- what handlers share ---

    def _stream_topic(self, operation: str) -> str:
        assert self._job is not None
        return stream_topic(self._thing, self._job.stream_name or "", operation)

    def _fail_because(self, error: PlatformError) -> State:
        LOG.warning("the platform refuses: %s", error.message)
        return self._fail(reports.failed(error.code, error.sub_code))

    def _fail(self, report: Report) -> State:
        """End the job with a failure and give up its file."""
        self._clear_timer(Timer.REQUEST)
        self._abandon_download()
        self._finish_job(report)
        return State.WAITING_FOR_JOB

    def _abandon_download(self) -> None:
        if self._download is not None:
            self._platform.abort(self._download.context)
            self._download = None

    def _forget_job(self) -> None:
        self._job = None
        self._abandon_download()

    def _finish_job(self, report: Report) -> None:
        assert self._job is not None
        job_id = self._job.job_id
        self._job = None
        self._finish(job_id, report)

    def _finish(self, job_id: str, report: Report) -> None:
        """Send a final report; it is kept until the server has it."""
        self._store_report(job_id, report)
        if self._report(job_id, report, wait=True):
            self._platform.store_report(None)

    def _report(self, job_id: str, report: Report, *, wait: bool = False) -> bool:
        self._last_report = (job_id, report)
        LOG.info("%s %s %s", job_id, report.status, dict(report.details))
        self._show()
        timeout = self._settings.acknowledgement_timeout_s if wait else 0
        return self._transport.publish(update_topic(self._thing, job_id), report.to_json(), qos=report.qos, timeout_s=timeout)

    def _store_report(self, job_id: str, report: Report) -> None:
        kept = reports.StoredReport(
            job=job_id, payload=report.to_json().decode(), running_version=str(self._platform.running_image.version)
        )
        self._platform.store_report(kept.to_bytes())

    def _stored_report(self) -> reports.StoredReport | None:
        data = self._platform.stored_report()
        return None if data is None else reports.parse_stored_report(data)

    def _send_stored_report(self) -> None:
        """Repeat what the server may not have heard. What an image on trial or a rolled-back one said doesn't hold."""
        if self._platform.stored_report() is None:
            return
        stored = self._stored_report()
        holds = stored is not None and stored.running_version == str(self._platform.running_image.version)
        if stored is None or not holds or self._platform.image_state() is PlatformImageState.PENDING_COMMIT:
            self._platform.store_report(None)
            return
        timeout = self._settings.acknowledgement_timeout_s
        if self._transport.publish(update_topic(self._thing, stored.job), stored.payload.encode(), qos=1, timeout_s=timeout):
            self._platform.store_report(None)

    def _reset(self) -> None:
        self._show()
        self._platform.reset()
        raise AssertionError("Platform.reset returned; it must not.")

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        self._deadlines[timer] = self._monotonic() + seconds

    def _clear_timer(self, timer: Timer) -> None:
        self._deadlines.pop(timer, None)

    def _show(self) -> None:
        last = self._last_report
        job = self._job.job_id if self._job is not None else None
        self._progress.show(
            Progress(
                state=self.state.name.lower(),
                version=str(self._platform.running_image.version),
                job=job,
                path=self._download.context.file.path if self._download is not None else None,
                received_blocks=self._download.received if self._download is not None else 0,
                total_blocks=self._download.total if self._download is not None else 0,
                resumed_blocks=self._download.resumed_blocks if self._download is not None else 0,
                status=last[1].status.value if last is not None else None,
                reason=last[1].details.get("reason") if last is not None else None,
            )
        )
