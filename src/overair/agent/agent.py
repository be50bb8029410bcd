"""The agent: receives events, looks up the table, and calls what ``wire``, the platform and the network know.

One thread runs ``run``; the transport's threads only put messages on its queue. Nothing here knows how a message is spelt, how
a file is stored or how a signature is checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from overair.agent import other_jobs, reports
from overair.agent.backoff import Backoff
from overair.agent.deferral import Deferrals, Permission, Stage
from overair.agent.event_queue import EventQueue
from overair.agent.inquiry import JobInquiry
from overair.agent.other_jobs import JobHandler, OtherJob
from overair.agent.platform import (
    Platform,
    PlatformError,
    PlatformErrorCode,
    PlatformImageState,
    ResetRequested,
    VersionNotRising,
)
from overair.agent.progress import NoProgress, ProgressSink, moment
from overair.agent.reporter import Reporter
from overair.agent.reports import AgentErrorCode, ExecutionId, ParserSubCode, Report
from overair.agent.self_test import SelfTestVerdict, judge
from overair.agent.settings import EXIT_STATUS_RESET, AgentSettings, Application
from overair.agent.sources import Asked, Ranges
from overair.agent.states import TRANSITIONS, Event, State
from overair.agent.timers import Timer
from overair.agent.transfer import Transfer
from overair.agent.transport import Transport
from overair.agent.trial import conduct
from overair.agent.update_job import JobRefused, UpdateJob, read_job
from overair.wire.blocks import UnexpectedBlock
from overair.wire.decryption_messages import Declaration
from overair.wire.job_messages import MalformedMessage
from overair.wire.stream_client import MalformedStreamMessage

LOG = logging.getLogger("overair.agent")


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
        chance: Random,
        progress: ProgressSink | None = None,
        ranges: Ranges | None = None,
        permission: Permission | None = None,
        declaration: Declaration | None = None,
    ) -> None:
        self.state = State.READY
        self._platform = platform
        self._transport = transport
        self._application = application
        self._settings = settings
        self._progress = progress or NoProgress()
        self._queue = EventQueue(monotonic)
        self._signals = self._queue.signals
        self._timers = self._queue.timers
        backoff = Backoff(base_s=settings.back_off_base_s, cap_s=settings.back_off_s_max, chance=chance)
        self._inquiry = JobInquiry(transport, thing=settings.thing_name, backoff=backoff, declaration=declaration)
        self._deferrals = Deferrals(permission)
        self._job_handler: JobHandler | None = None
        self._job: UpdateJob | None = None
        self._transfer = Transfer(
            platform,
            transport,
            settings,
            ranges=ranges,
            backoff=backoff,
            deliver=lambda block: self._signals.append((Event.RECEIVED_FILE_BLOCK, block)),
        )
        self._reporter = Reporter(
            platform, transport, thing=settings.thing_name, acknowledgement_timeout_s=settings.acknowledgement_timeout_s
        )

    def on_job(self, handler: JobHandler) -> None:
        """Who does jobs that are no OTA updates. To be called before ``run``; without it they are rejected."""
        self._job_handler = handler

    # --- from outside; any thread ---

    def connected(self) -> None:
        self._inquiry.connected()
        self._queue.put(Event.CONNECTED)

    def received(self, topic: str, payload: bytes) -> None:
        self._queue.put(topic, payload)

    def signal(self, event: Event) -> None:
        """Suspend, resume, abort or shut down. Resuming also asks at once for an update that was put off."""
        self._queue.put(event)

    # --- the loop ---

    def run(self) -> int:
        """Work until shut down (0) or until the device must restart (75)."""
        self._queue.put(Event.START)
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
        taken = self._queue.take(wait=wait)
        if taken is None:
            return False
        what, payload = taken
        event = what if isinstance(what, Event) else self._meaning(what)
        if event is not None:
            self._handle(event, payload)
        return True

    def _meaning(self, topic: str) -> Event | None:
        if self._inquiry.is_answered_on(topic):
            return Event.RECEIVED_JOB_DOCUMENT
        if self._inquiry.is_declared_by(topic):
            return None
        return self._transfer.meaning(topic)

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
            self._timers.set(Timer.SELF_TEST, self._settings.self_test_timeout_s)
        self._transport.start(self)

    def _request_job(self, _: None) -> None:
        self._reporter.repeat()
        self._timers.set(Timer.REQUEST, self._settings.request_timeout_s + self._inquiry.ask())

    def _process_job(self, payload: bytes) -> State | None:
        self._timers.clear(Timer.REQUEST)
        self._timers.clear(Timer.DEFERRAL)
        self._inquiry.answered()
        try:
            found = read_job(payload, self._settings.primary_protocol)
        except MalformedMessage as error:
            LOG.warning("a message about jobs can't be read: %s", error.message)
            return State.WAITING_FOR_JOB
        except JobRefused as refused:
            LOG.warning("job %s can't be followed: %s", refused.execution.job_id, refused)
            self._forget_job()
            self._finish(refused.execution, reports.failed(AgentErrorCode.JOB_PARSER_ERROR, refused.sub_code))
            return State.WAITING_FOR_JOB
        if found is not None and self._reporter.owes(found.execution):
            if not self._reporter.repeat():
                self._ask_again_later()
            return State.WAITING_FOR_JOB
        job = found if isinstance(found, UpdateJob) else None
        verdict = judge(
            image_state=self._platform.image_state(),
            self_test=job is not None and job.self_test,
            updated_by=None if job is None else job.updated_by,
            running=self._platform.running_image,
            is_firmware=job is None or job.installs_firmware,
            waiting=self._platform.digests.waiting is not None,
        )
        if verdict is SelfTestVerdict.ROLL_BACK:
            LOG.warning("this image is on trial, but the server knows of no self-test: going back")
            self._reset()
        self._timers.clear(Timer.SELF_TEST)
        if job is None:
            self._forget_job()
            if isinstance(found, OtherJob):
                self._do_other_job(found)
            return State.WAITING_FOR_JOB
        if self._job is None or not job.same_work(self._job):
            self._transfer.forgive()
        self._job = job
        if verdict is not SelfTestVerdict.NOTHING:
            self._signals.append((Event.START_SELF_TEST, None))
        elif not self._transfer.can_bring(job):
            self._finish_job(reports.failed(AgentErrorCode.INVALID_DATA_PROTOCOL))
            return State.WAITING_FOR_JOB
        elif self._is_put_off(Stage.DOWNLOAD):
            return State.WAITING_FOR_JOB
        else:
            self._signals.append((Event.CREATE_FILE, None))
        return None

    def _run_self_test(self, _: None) -> None:
        assert self._job is not None
        report, stays = conduct(self._job, platform=self._platform, application=self._application, reporter=self._reporter)
        self._finish_job(report)
        if not stays:
            self._reset()

    def _create_file(self, _: None) -> State | None:
        assert self._job is not None
        try:
            if not self._transfer.begin(self._job):
                return self._fail(reports.failed(AgentErrorCode.JOB_PARSER_ERROR, ParserSubCode.BAD_MODEL))
        except PlatformError as error:
            return self._fail_because(error)
        self._signals.append((Event.CLOSE_FILE if self._transfer.is_complete else Event.REQUEST_FILE_BLOCK, None))
        return None

    def _request_blocks(self, _: None) -> State | None:
        if self._transfer.is_given_up:
            return self._fail(reports.aborted(AgentErrorCode.MOMENTUM_ABORT))
        try:
            self._transfer.widen()
        except PlatformError as error:
            return self._fail_because(error)
        if self._transfer.is_complete:
            self._signals.append((Event.CLOSE_FILE, None))
            return None
        asked, wait_s = self._transfer.ask()
        if asked is Asked.JOB_NEEDED:
            self._signals.append((Event.REQUEST_JOB_DOCUMENT, None))
        self._timers.set(Timer.REQUEST, self._settings.request_timeout_s + wait_s)
        return None

    def _take_block(self, payload: bytes) -> State | None:
        file = self._transfer.file
        assert file is not None
        assert self._job is not None
        before = file.received
        try:
            new, window_finished = self._transfer.take(payload)
        except (MalformedStreamMessage, UnexpectedBlock) as error:
            LOG.warning("a block can't be used: %s", error)
            return self._fail(reports.failed(PlatformErrorCode.UNINITIALIZED))
        except PlatformError as error:
            return self._fail_because(error)
        if not new:
            return None
        self._timers.set(Timer.REQUEST, self._settings.request_timeout_s)
        received = before + 1
        if received == 1 or received % reports.PROGRESS_EVERY_BLOCKS == 0:
            self._reporter.send(self._job.job_id, reports.receiving(received, file.total))
        if window_finished:
            if file.complete:
                self._signals.append((Event.CLOSE_FILE, None))
            else:
                # Behind what has come meanwhile: a job that was withdrawn isn't downloaded to its end.
                self._queue.put(Event.REQUEST_FILE_BLOCK)
        return None

    def _stream_refused(self, payload: bytes) -> State | None:
        try:
            refusal = self._transfer.refusal(payload)
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
            job = read_job(payload, self._settings.primary_protocol)
        except MalformedMessage:
            return self.state
        except JobRefused:
            job = None
        if isinstance(job, UpdateJob) and self._job is not None and job.same_work(self._job):
            return self.state
        self._timers.clear(Timer.REQUEST)
        self._transfer.abandon()
        self._signals.append((Event.REQUEST_JOB_DOCUMENT, None))
        return None

    def _close_file(self, _: None) -> State | None:
        self._timers.clear(Timer.REQUEST)
        assert self._job is not None
        try:
            context, image = self._transfer.close()
        except PlatformError as error:
            return self._fail_because(error)
        except VersionNotRising as error:
            LOG.warning("refused: %s", error.message)
            code = AgentErrorCode.SAME_FIRMWARE_VERSION if error.same else AgentErrorCode.DOWNGRADE_NOT_ALLOWED
            return self._fail(reports.rejected(code))
        if not context.is_firmware:
            following = self._job.without_first_file()
            if following is None:
                self._finish_job(reports.stored(context.file.file_type or 0))
                return None
            self._job = following
            self._signals.append((Event.CREATE_FILE, None))
            return State.CREATING_FILE
        if self._is_put_off(Stage.RESTART):
            return State.WAITING_FOR_JOB
        ready = reports.self_test_ready(self._platform.running_image.version)
        if not self._reporter.send(self._job.job_id, ready, wait=True):
            # Without that word the server wouldn't know of the self-test, and the new image would be rolled back.
            LOG.warning("the server didn't acknowledge that the image is ready: not restarting; asking for the job again")
            self._timers.set(Timer.REQUEST, self._settings.request_timeout_s)
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
        self._timers.clear(Timer.REQUEST)
        self._timers.clear(Timer.DEFERRAL)
        self._signals.clear()
        self._transfer.let_go()

    def _resume(self, _: None) -> None:
        self._signals.append((Event.REQUEST_JOB_DOCUMENT, None))

    def _user_abort(self, _: None) -> None:
        self._signals.clear()
        self._timers.clear(Timer.REQUEST)
        if self._job is not None:
            self._fail(reports.aborted(AgentErrorCode.USER_ABORT))

    def _shut_down(self, _: None) -> None:
        self._timers.clear_all()
        self._signals.clear()

    # --- what handlers share ---

    def _is_put_off(self, stage: Stage) -> bool:
        """Ask the application whether this is a good moment; if not, tell the operator and ask again later."""
        assert self._job is not None
        answer = self._deferrals.ask(self._job, stage)
        if answer is None:
            return False
        seconds, report = answer
        if report is not None:
            self._reporter.send(self._job.job_id, report)
        self._timers.set(Timer.DEFERRAL, seconds)
        return True

    def _do_other_job(self, job: OtherJob) -> None:
        if self._job_handler is not None:
            self._reporter.send(job.job_id, other_jobs.started())
        self._finish(job.execution, other_jobs.report_of(job, self._job_handler))

    def _fail_because(self, error: PlatformError) -> State:
        LOG.warning("the platform refuses: %s", error.message)
        return self._fail(reports.failed(error.code, error.sub_code))

    def _fail(self, report: Report) -> State:
        """End the job with a failure and give up its file. Of several files the report names the one that failed."""
        self._timers.clear(Timer.REQUEST)
        self._timers.clear(Timer.DEFERRAL)
        if self._job is not None and self._job.files_total > 1 and self._job.file.path.isprintable() and self._job.file.path:
            report = replace(report, details={**report.details, "file": self._job.file.path})
        self._transfer.abandon()
        self._finish_job(report)
        return State.WAITING_FOR_JOB

    def _forget_job(self) -> None:
        self._job = None
        self._transfer.abandon()

    def _finish_job(self, report: Report) -> None:
        assert self._job is not None
        execution = self._job.execution
        self._job = None
        self._finish(execution, report)

    def _finish(self, execution: ExecutionId, report: Report) -> None:
        if not self._reporter.finish(execution, report):
            self._ask_again_later()

    def _ask_again_later(self) -> None:
        """A final word wasn't acknowledged: asking for the next job says it again, and tells whether it is still owed."""
        self._timers.set(Timer.REQUEST, self._settings.request_timeout_s)

    def _reset(self) -> None:
        self._show()
        self._platform.reset()
        raise AssertionError("Platform.reset returned; it must not.")

    def _show(self) -> None:
        job = None if self._job is None else self._job.job_id
        version = self._platform.running_image.version
        self._progress.show(moment(self.state, version, job, self._transfer.file, self._reporter.last))
