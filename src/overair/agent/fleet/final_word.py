"""The report that ends a job, until the server has acknowledged it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from overair.agent.reports import Report
from overair.wire.job_messages import MalformedMessage, Rejection, UpdateReply, UpdateRequest

FINAL: Final = "final"
"""The token of such a report: progress is acknowledged on the same topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalWord:
    """What a device says last of a job."""

    job: str
    report: Report
    cause: str | None
    """Why it failed, for the tally; None: it succeeded."""

    @property
    def payload(self) -> bytes:
        return UpdateRequest(status=self.report.status, status_details=self.report.details, client_token=FINAL).to_json()


def answers_final_word(read: Callable[[bytes], UpdateReply | Rejection], payload: bytes) -> bool:
    """Whether a reply, or a rejection, is about such a report."""
    try:
        return read(payload).client_token == FINAL
    except MalformedMessage:
        return False
