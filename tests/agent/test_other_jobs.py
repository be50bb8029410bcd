"""Jobs that are no OTA updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.agent.other_jobs import NO_HANDLER, JobOutcome, OtherJob
from overair.agent.reports import ExecutionId
from overair.wire.job_messages import ExecutionStatus
from tests.support.device import Signer, cached_image
from tests.support.machine import Machine

SIGNER = Signer()
STARTED = ("IN_PROGRESS", {"step": "started"})


def ended(machine: Machine, document: str = '{"operation":"reboot","in":[1,{"s":5}]}') -> list[tuple[str, dict[str, str]]]:
    execution = machine.cloud.queue("job", document)
    machine.run()
    return [(update.status.value, dict(update.status_details or {})) for update in execution.history]


def test_without_a_handler_it_is_rejected_with_the_reason(tmp_path: Path) -> None:
    assert ended(Machine(tmp_path / "d", SIGNER)) == [("REJECTED", {"reason": NO_HANDLER})]


def test_a_handler_is_given_the_document_and_what_it_says_is_told(tmp_path: Path) -> None:
    machine, given = Machine(tmp_path / "d", SIGNER), []

    def handler(job: OtherJob) -> JobOutcome:
        given.append(job)
        return JobOutcome.accepted(rebooted="yes")

    machine.on_job = handler
    assert ended(machine) == [STARTED, ("SUCCEEDED", {"rebooted": "yes"})]
    document = {"operation": "reboot", "in": [1, {"s": 5}]}
    assert given == [OtherJob(execution=ExecutionId(job_id="job", number=1), document=document)]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (JobOutcome.rejected("not on this model", model="b"), ("REJECTED", {"reason": "not on this model", "model": "b"})),
        (JobOutcome.failed("no space"), ("FAILED", {"reason": "no space"})),
        (
            JobOutcome.accepted(**{"a key with blanks": "x"}),
            ("SUCCEEDED", {"reason": "the handler's details break the rules of statusDetails"}),
        ),
    ],
)
def test_a_handler_rejects_fails_or_says_what_cannot_be_told(
    tmp_path: Path, outcome: JobOutcome, told: tuple[str, dict[str, str]]
) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    machine.on_job = lambda job: outcome
    assert ended(machine) == [STARTED, told]


def test_a_handler_that_raises_fails_its_job_and_the_agent_lives(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    machine.on_job = lambda job: 1 / 0
    assert ended(machine) == [STARTED, ("FAILED", {"reason": "the handler failed: ZeroDivisionError"})]
    image = cached_image("2.0.0")
    update = machine.cloud.ship("update", (SIGNER.file(image), image))
    machine.run()
    assert (machine.version, update.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)


def test_a_job_whose_end_was_not_acknowledged_is_not_done_twice(tmp_path: Path) -> None:
    machine, calls = Machine(tmp_path / "d", SIGNER), []

    def handler(job: OtherJob) -> JobOutcome:
        calls.append(job.status)
        machine.cloud.online = False
        return JobOutcome.accepted()

    machine.on_job = handler
    execution = machine.cloud.queue("job", '{"operation":"count"}')
    machine.run()
    assert execution.status is ExecutionStatus.IN_PROGRESS
    machine.cloud.online = True
    machine.run()
    assert (execution.status, calls) == (ExecutionStatus.SUCCEEDED, [ExecutionStatus.QUEUED])
