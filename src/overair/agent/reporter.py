"""Tells the server how a job goes, and sees to it that a final word arrives."""

from __future__ import annotations

import logging

from overair.agent.platform import Platform, PlatformImageState
from overair.agent.reports import ExecutionId, Report, StoredReport, parse_stored_report
from overair.agent.transport import Transport
from overair.wire.job_messages import update_topic

LOG = logging.getLogger("overair.agent")


class Reporter:
    """Sends reports. A final one is kept by the platform until it is acknowledged, over restarts too."""

    def __init__(self, platform: Platform, transport: Transport, *, thing: str, acknowledgement_timeout_s: float) -> None:
        self._platform = platform
        self._transport = transport
        self._thing = thing
        self._timeout_s = acknowledgement_timeout_s
        self.last: Report | None = None

    def send(self, job_id: str, report: Report, *, wait: bool = False) -> bool:
        """Send a report; with ``wait``, whether its acknowledgement came in time."""
        self.last = report
        LOG.info("%s %s %s", job_id, report.status.value, dict(report.details))
        timeout_s = self._timeout_s if wait else 0
        return self._transport.publish(update_topic(self._thing, job_id), report.to_json(), qos=report.qos, timeout_s=timeout_s)

    def keep(self, execution: ExecutionId, report: Report) -> None:
        """Keep a final report before anything else can happen. Said again it may come late, so it names its execution: a
        retry that the server has begun meanwhile is not what it speaks of."""
        kept = StoredReport(
            job=execution.job_id,
            execution_number=execution.number,
            payload=report.to_json(execution.number).decode(),
            running_version=str(self._platform.running_image.version),
        )
        self._platform.store_report(kept.to_bytes())

    def finish(self, execution: ExecutionId, report: Report) -> bool:
        """Keep a final report, send it, and forget it once acknowledged. Where the disk is full it is sent all the same.

        Returns whether it was acknowledged in time; if not, ``repeat`` says it again.
        """
        try:
            self.keep(execution, report)
        except OSError as error:
            LOG.warning("the final report can't be kept until it is acknowledged: %s", error)
        acknowledged = self.send(execution.job_id, report, wait=True)
        if acknowledged:
            self._platform.store_report(None)
        return acknowledged

    def owes(self, execution: ExecutionId) -> bool:
        """Whether this execution is done and only the server doesn't know yet."""
        data = self._platform.stored_report()
        stored = None if data is None else parse_stored_report(data)
        return stored is not None and stored.job == execution.job_id and stored.execution_number in (None, execution.number)

    def repeat(self) -> bool:
        """Say again what the server may not have heard. False: it is still owed.

        What an image on trial said, or one that was rolled back since, doesn't hold and is forgotten.
        """
        data = self._platform.stored_report()
        if data is None:
            return True
        stored = parse_stored_report(data)
        on_trial = self._platform.image_state() is PlatformImageState.PENDING_COMMIT
        if stored is None or on_trial or stored.running_version != str(self._platform.running_image.version):
            self._platform.store_report(None)
            return True
        topic = update_topic(self._thing, stored.job)
        acknowledged = self._transport.publish(topic, stored.payload.encode(), qos=1, timeout_s=self._timeout_s)
        if acknowledged:
            self._platform.store_report(None)
        return acknowledged
