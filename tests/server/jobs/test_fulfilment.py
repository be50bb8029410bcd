"""Things that a document doesn't reach: chosen, started and ended by ``Fulfilment``, counted like everybody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from overair.basics.errors import InvalidRequest, InvalidStateTransition, NotFound
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import (
    AbortCriterion,
    Execution,
    FailureType,
    Job,
    JobPlan,
    JobSettings,
    JobStatus,
    Report,
    RetryCriterion,
    RolloutConfig,
    TargetSelection,
)
from overair.server.jobs.service import Chosen
from overair.wire.job_messages import ExecutionStatus
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus
UPDATE = "mtu-1"


@dataclass
class Director:
    """Brings one multi-target update to the things in ``with_ecus``, but for those that ``unfit`` names."""

    with_ecus: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    heard: list[tuple[str, str, ExecutionStatus, bool]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def require(self, tx: Tx, account: AccountId, fulfilment: str) -> None:
        if fulfilment != UPDATE:
            raise NotFound(f"There is no multi-target update {fulfilment}.", subject="multi-target-update")

    def may_queue(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> Chosen:
        self.asked.append((job.id, tuple(things)))
        return Chosen(
            by_document=[thing for thing in things if thing not in self.with_ecus],
            fulfilled=[thing for thing in things if thing in self.with_ecus - self.unfit],
        )

    def queued(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> None:
        self.waiting.extend(things)

    def ended(self, tx: Tx, job: Job, execution: Execution) -> None:
        self.heard.append((execution.thing, execution.job, execution.status, execution.started_at is not None))

    def forget(self, tx: Tx, account: AccountId, job: JobId) -> None:
        self.forgotten.append(job)


@pytest.fixture
def director(room: JobsRoom) -> Director:
    director = Director()
    room.jobs.fulfilled_by(director)
    return director


def create(
    room: JobsRoom,
    job: str,
    *targets: str,
    settings: JobSettings | None = None,
    selection: str = "SNAPSHOT",
    document: str = "{}",
) -> Job:
    plan = JobPlan(
        id=JobId(job),
        targets=targets,
        document=document,
        settings=settings or JobSettings(),
        target_selection=TargetSelection(selection),
        fulfilment=UPDATE,
    )
    return room.work.run_blocking(lambda tx: room.jobs.create(tx, room.place, plan))


def start(room: JobsRoom, thing: str) -> Execution:
    def unit(tx: Tx) -> Execution:
        execution = room.jobs.device.fulfilled_next(tx, room.place.account, ThingName(thing))
        assert execution is not None
        return room.jobs.device.start_fulfilled(tx, room.place, execution)

    return room.work.run_blocking(unit)


def fulfil(room: JobsRoom, thing: str, job: str, status: ExecutionStatus, **details: str) -> Execution:
    report = Report(status=status, status_details=details or None)
    return room.work.run_blocking(lambda tx: room.jobs.device.fulfil(tx, room.place, ThingName(thing), JobId(job), report))


def counts(room: JobsRoom, job: str) -> dict[str, int]:
    return {status.value: count for status, count in room.job(job).counts.items() if count}


async def test_one_job_covers_a_mixed_group_and_each_thing_takes_its_own_road(room: JobsRoom, director: Director) -> None:
    director.with_ecus, director.unfit = {"car-1", "car-2"}, {"car-2"}
    room.add_things("car-1", "car-2", "esp-1", group="fleet")
    create(room, "A", room.group_arn("fleet"))

    assert director.asked == [("A", ("car-1", "car-2", "esp-1"))], "asked once for the whole piece"
    assert counts(room, "A") == {"QUEUED": 2}, "who is left out has no execution"
    assert director.waiting == ["car-1"]
    assert room.execution("car-1", "A").fulfilled
    assert not room.execution("esp-1", "A").fulfilled

    assert start(room, "car-1").status is S.IN_PROGRESS
    await room.told("$aws/things/esp-1/jobs/A/update", {"status": "SUCCEEDED"})
    ended = fulfil(room, "car-1", "A", S.SUCCEEDED, resultCode="OK")

    assert ended.status_details == {"resultCode": "OK"}
    assert director.heard == [("car-1", "A", S.SUCCEEDED, True)]
    assert room.job("A").status is JobStatus.COMPLETED


def test_a_document_names_what_is_to_be_fulfilled(room: JobsRoom, director: Director) -> None:
    room.add_things("car-1")
    job = room.create("A", room.thing_arn("car-1"), document='{"uptane":{"multiTargetUpdate":"mtu-1"}}')
    assert job.fulfilment == UPDATE
    assert room.job("A").fulfilment == UPDATE


@pytest.mark.parametrize("document", ['{"uptane":{"multiTargetUpdate":7}}', '{"uptane":{"multiTargetUpdate":"a b"}}'])
def test_a_document_that_names_no_possible_update_is_refused(room: JobsRoom, director: Director, document: str) -> None:
    room.add_things("car-1")
    with pytest.raises(InvalidRequest, match="multiTargetUpdate"):
        room.create("A", room.thing_arn("car-1"), document=document)


def test_a_document_with_a_word_of_its_own_for_uptane_is_left_alone(room: JobsRoom, director: Director) -> None:
    room.add_things("car-1")
    assert room.create("A", room.thing_arn("car-1"), document='{"uptane":"yes"}').fulfilment is None


def test_an_update_that_is_not_there_makes_no_job(room: JobsRoom, director: Director) -> None:
    room.add_things("car-1")
    with pytest.raises(NotFound):
        room.create("A", room.thing_arn("car-1"), document='{"uptane":{"multiTargetUpdate":"mtu-2"}}')


def test_without_a_director_nothing_can_be_fulfilled(room: JobsRoom) -> None:
    room.add_things("car-1")
    with pytest.raises(NotFound, match="no Director"):
        create(room, "A", room.thing_arn("car-1"))


async def test_no_report_over_the_jobs_api_counts_for_what_the_director_brings(room: JobsRoom, director: Director) -> None:
    director.with_ecus = {"car-1"}
    room.add_things("car-1")
    create(room, "A", room.thing_arn("car-1"))

    for payload in ({"status": "SUCCEEDED"}, {"status": "IN_PROGRESS", "statusDetails": {"a": "b"}}):
        refused = await room.refused("$aws/things/car-1/jobs/A/update", payload)
        assert refused["code"] == "InvalidRequest"
        assert "signed manifest" in refused["message"]
    assert (await room.refused("$aws/things/car-1/jobs/start-next"))["code"] == "InvalidRequest"
    assert room.execution("car-1", "A").status is S.QUEUED

    start(room, "car-1")
    await room.refused("$aws/things/car-1/jobs/A/update", {"status": "IN_PROGRESS", "statusDetails": {"a": "b"}})
    assert room.execution("car-1", "A").status_details == {}
    described = await room.told("$aws/things/car-1/jobs/$next/get")
    assert described["execution"]["jobId"] == "A", "it is told of like every other"


def test_only_the_next_execution_is_the_directors_to_bring(room: JobsRoom, director: Director) -> None:
    director.with_ecus = {"car-1"}
    room.add_things("car-1")

    def following() -> str | None:
        account = room.place.account
        found = room.work.read_blocking(lambda tx: room.jobs.device.fulfilled_next(tx, account, ThingName("car-1")))
        return None if found is None else found.job

    assert following() is None
    create(room, "A", room.thing_arn("car-1"))
    create(room, "B", room.thing_arn("car-1"))
    assert following() == "A"
    start(room, "car-1")
    fulfil(room, "car-1", "A", S.FAILED)
    assert following() == "B"


def test_whoever_ends_a_fulfilled_execution_the_director_hears_of_it(room: JobsRoom, director: Director) -> None:
    director.with_ecus = {"car-1", "car-2", "car-3", "car-4"}
    room.add_things("car-1", "car-2", "car-3", "car-4", group="fleet")
    create(room, "A", room.group_arn("fleet"), settings=JobSettings(in_progress_timeout_minutes=1))
    account = room.place.account
    for thing in ("car-1", "car-2"):
        start(room, thing)

    room.work.run_blocking(lambda tx: room.jobs.executions.cancel(tx, account, ThingName("car-1"), JobId("A"), force=True))
    room.clock.advance(milliseconds=61_000)
    room.work.run_blocking(lambda tx: room.jobs.executions.time_out_overdue(tx, now=room.clock.now()))
    room.work.run_blocking(lambda tx: room.jobs.executions.delete(tx, account, ThingName("car-3"), JobId("A"), 1, force=True))
    room.work.run_blocking(lambda tx: room.jobs.thing_deleted(tx, account, ThingName("car-4")))

    assert director.heard == [
        ("car-1", "A", S.CANCELED, True),
        ("car-2", "A", S.TIMED_OUT, True),
        ("car-3", "A", S.REMOVED, False),
        ("car-4", "A", S.REMOVED, False),
    ]


def test_a_deleted_job_is_forgotten(room: JobsRoom, director: Director) -> None:
    director.with_ecus = {"car-1"}
    room.add_things("car-1")
    create(room, "A", room.thing_arn("car-1"))
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, room.place.account, JobId("A"), force=True))
    assert director.forgotten == ["A"]
    assert director.heard == [("car-1", "A", S.REMOVED, False)]


def test_a_retry_is_fulfilled_too(room: JobsRoom, director: Director) -> None:
    director.with_ecus = {"car-1"}
    room.add_things("car-1")
    settings = JobSettings(retry=(RetryCriterion(failure_type=FailureType.FAILED, retries=1),))
    create(room, "A", room.thing_arn("car-1"), settings=settings)
    start(room, "car-1")
    fulfil(room, "car-1", "A", S.FAILED)
    again = room.execution("car-1", "A")
    assert (again.number, again.status, again.fulfilled) == (2, S.QUEUED, True)


def test_what_fails_by_the_director_counts_for_the_abort_rule(room: JobsRoom, director: Director) -> None:
    director.with_ecus = {"car-1", "car-2"}
    room.add_things("car-1", "car-2", "esp-1", group="fleet")
    criterion = AbortCriterion(failure_type=FailureType.FAILED, threshold_percentage=50, things_executed_min=1)
    create(room, "A", room.group_arn("fleet"), settings=JobSettings(abort=(criterion,)))
    start(room, "car-1")
    fulfil(room, "car-1", "A", S.FAILED)
    assert room.job("A").status is JobStatus.CANCELED


async def test_who_is_left_out_takes_nobodys_turn_in_a_metered_rollout(room: JobsRoom, director: Director) -> None:
    director.with_ecus, director.unfit = {"car-1", "car-2", "car-3"}, {"car-1", "car-2"}
    room.add_things("car-1", "car-2", "car-3", "esp-1", group="fleet")
    settings = JobSettings(rollout=RolloutConfig(maximum_per_minute=1))
    create(room, "A", room.group_arn("fleet"), settings=settings)
    assert room.execution("car-3", "A").status is S.QUEUED
    room.clock.advance(milliseconds=60_000)
    while await room.planner.run_once():
        pass
    assert counts(room, "A") == {"QUEUED": 2}


def test_who_joins_a_group_is_chosen_like_the_others(room: JobsRoom, director: Director) -> None:
    director.with_ecus, director.unfit = {"car-1", "car-2"}, {"car-2"}
    room.add_things(group="fleet")
    room.registry.groups["fleet"] = set()
    create(room, "A", room.group_arn("fleet"), selection="CONTINUOUS")
    room.add_things("car-1", "car-2", group="fleet")
    for thing in ("car-1", "car-2"):
        room.work.run_blocking(lambda tx, thing=thing: room.jobs.joined(tx, room.place.account, ThingName(thing), "fleet"))  # type: ignore[misc]
    assert counts(room, "A") == {"QUEUED": 1}
    assert room.execution("car-1", "A").fulfilled


def test_a_report_that_the_table_does_not_allow_is_refused_to_the_director_too(room: JobsRoom, director: Director) -> None:
    director.with_ecus = {"car-1"}
    room.add_things("car-1")
    create(room, "A", room.thing_arn("car-1"))
    start(room, "car-1")
    fulfil(room, "car-1", "A", S.SUCCEEDED)
    with pytest.raises(InvalidStateTransition):
        fulfil(room, "car-1", "A", S.FAILED)
