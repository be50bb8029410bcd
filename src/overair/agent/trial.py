"""An image on trial: its self-test is run, its word is told, and it stays or goes (wire reference §7.5)."""

from __future__ import annotations

import logging
from typing import Final

from overair.agent import reports
from overair.agent.platform import ImageState, Platform
from overair.agent.reporter import Reporter
from overair.agent.reports import AgentErrorCode, Report
from overair.agent.self_test import SelfTestVerdict, judge
from overair.agent.settings import Application
from overair.agent.update_job import UpdateJob
from overair.wire.image import ImageVersion

LOG = logging.getLogger("overair.agent")

REFUSED: Final = {
    SelfTestVerdict.SAME_VERSION: AgentErrorCode.SAME_FIRMWARE_VERSION,
    SelfTestVerdict.LOWER_VERSION: AgentErrorCode.DOWNGRADE_NOT_ALLOWED,
    SelfTestVerdict.STATE_MISMATCH: AgentErrorCode.IMAGE_STATE_MISMATCH,
}
"""What is reported of a self-test that isn't even begun."""


def conduct(job: UpdateJob, *, platform: Platform, application: Application, reporter: Reporter) -> tuple[Report, bool]:
    """Run the trial; (the final report, whether the image stays). The caller sends the report, then resets if it doesn't."""
    running = platform.running_image
    verdict = judge(
        image_state=platform.image_state(),
        self_test=job.self_test,
        updated_by=job.updated_by,
        running=running,
        is_firmware=job.installs_firmware,
    )
    if verdict is SelfTestVerdict.RUN:
        platform.set_image_state(ImageState.TESTING)
    if verdict in (SelfTestVerdict.RUN, SelfTestVerdict.STATE_MISMATCH):
        reporter.send(job.job_id, reports.self_test_active(running.version))
    if verdict in REFUSED:
        platform.set_image_state(ImageState.REJECTED)
        return reports.rejected(REFUSED[verdict]), False
    if not _passes(application):
        platform.set_image_state(ImageState.REJECTED)
        return reports.rejected(AgentErrorCode.NONE), False
    report = reports.accepted(running.version, ImageVersion.from_word(job.updated_by or 0))
    # Kept before the commit and believed only after it: a power cut between the two rolls back, and the report with it.
    reporter.keep(job.execution, report)
    platform.set_image_state(ImageState.ACCEPTED)
    return report, True


def _passes(application: Application) -> bool:
    """Run the image's own test; an exception is a no."""
    try:
        return application.self_test()
    except Exception:
        LOG.exception("the self-test failed")
        return False
