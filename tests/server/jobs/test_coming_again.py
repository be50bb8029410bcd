"""CONTINUOUS jobs come once more to a device that isn't what it was."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from overair.basics.errors import NotFound
from overair.basics.ids import GroupName, ThingName
from overair.server.jobs.model import FailureType, JobSettings, RetryCriterion, TargetSelection
from overair.server.jobs.resets import accepted_version, running_version
from overair.wire.job_messages import ExecutionStatus
from tests.server.jobs.test_planning import counts, joins, leaves, report
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus
CONTINUOUS = TargetSelection.CONTINUOUS


async def tell(room: JobsRoom, thing: str, job: str, status: str, **details: str) -> None:
    await room.told(f"$aws/things/{thing}/jobs/{job}/update", {"status": status, "statusDetails": details})


def stands(room: JobsRoom, thing: str, job: str) -> tuple[int, ExecutionStatus]:
    execution = room.execution(thing, job)
    return execution.number, execution.status


async def done(room: JobsRoom, thing: str = "a") -> None:
    """Two CONTINUOUS jobs of its groups and a SNAPSHOT are done."""
    room.add_things(thing, group="g")
    room.add_things(thing, group="h")
    room.create("C1", room.group_arn("g"), room.group_arn("h"), selection=CONTINUOUS)
    room.create("C2", room.group_arn("h"), selection=CONTINUOUS)
    room.create("S", room.group_arn("g"))
    await tell(room, thing, "C1", "SUCCEEDED", reason="accepted  v1.2.0", updatedBy="  v1.0.0")
    await tell(room, thing, "C2", "SUCCEEDED", reason="accepted  v1.3.0", updatedBy="  v1.2.0")
    await tell(room, thing, "S", "SUCCEEDED", reason="accepted  v1.4.0", updatedBy="  v1.3.0")


def came_again_once(room: JobsRoom) -> None:
    assert stands(room, "a", "C1") == (2, S.QUEUED)
    assert stands(room, "a", "C2") == (2, S.QUEUED)
    assert stands(room, "a", "S") == (1, S.SUCCEEDED)
    assert counts(room, "C1") == counts(room, "C2") == {"QUEUED": 1}


async def test_to_one_that_was_reset_and_reports_an_older_version(room: JobsRoom) -> None:
    await done(room)
    room.create("N", room.thing_arn("a"))
    await tell(room, "a", "N", "IN_PROGRESS", receive="64/128")
    assert stands(room, "a", "C1") == (1, S.SUCCEEDED)
    await tell(room, "a", "N", "IN_PROGRESS", self_test="ready", updatedBy="0x01000000")
    came_again_once(room)
    assert stands(room, "a", "N") == (1, S.IN_PROGRESS)
    await tell(room, "a", "N", "SUCCEEDED", reason="accepted  v1.5.0", updatedBy="  v1.0.0")
    await report(room, "a", "C1", "SUCCEEDED")
    await report(room, "a", "C2", "SUCCEEDED")
    assert stands(room, "a", "C1") == (2, S.SUCCEEDED)


async def test_and_not_to_one_that_goes_on_from_where_it_was(room: JobsRoom) -> None:
    await done(room)
    room.create("N", room.thing_arn("a"))
    await tell(room, "a", "N", "IN_PROGRESS", self_test="ready", updatedBy="0x01040000")
    await tell(room, "a", "N", "IN_PROGRESS", self_test="active", updatedBy="0x01050000")
    await tell(room, "a", "N", "SUCCEEDED", reason="accepted  v1.5.0", updatedBy="  v1.4.0")
    assert stands(room, "a", "C1") == (1, S.SUCCEEDED)
    assert counts(room, "C2") == {"SUCCEEDED": 1}


async def test_to_one_that_was_deleted_and_made_again(room: JobsRoom) -> None:
    await done(room)
    for group in ("g", "h"):
        leaves(room, "a", group)
    room.registry.things.remove("a")
    room.work.run_blocking(lambda tx: room.jobs.thing_deleted(tx, room.place.account, ThingName("a")))
    assert stands(room, "a", "C1") == (1, S.SUCCEEDED)
    joins(room, "a", "g")
    joins(room, "a", "h")
    came_again_once(room)


async def test_to_one_that_was_provisioned_again(room: JobsRoom) -> None:
    await done(room)
    again = room.jobs.provisioned_again
    room.work.run_blocking(lambda tx: again(tx, room.place.account, ThingName("a")))
    came_again_once(room)
    # What is pending isn't doubled, whatever happens meanwhile.
    room.work.run_blocking(lambda tx: again(tx, room.place.account, ThingName("a")))
    room.work.run_blocking(lambda tx: room.jobs.joined(tx, room.place.account, ThingName("a"), GroupName("g")))
    came_again_once(room)
    await report(room, "a", "C1", "SUCCEEDED")
    room.work.run_blocking(lambda tx: room.jobs.joined(tx, room.place.account, ThingName("a"), GroupName("g")))
    assert stands(room, "a", "C1") == (2, S.SUCCEEDED)


async def test_to_one_that_an_operator_names_and_what_comes_is_told(room: JobsRoom) -> None:
    await done(room)
    room.create("P", room.group_arn("g"), selection=CONTINUOUS)

    def resend() -> Sequence[str]:
        return room.work.run_blocking(lambda tx: room.jobs.resend(tx, room.place.account, ThingName("a")))

    assert sorted(resend()) == ["C1", "C2"]
    came_again_once(room)
    assert stands(room, "a", "P") == (1, S.QUEUED), "it was pending and stays as it was"
    assert list(resend()) == []
    came_again_once(room)


def test_a_thing_that_is_not_there_is_refused_by_name(room: JobsRoom) -> None:
    with pytest.raises(NotFound, match="nobody"):
        room.work.run_blocking(lambda tx: room.jobs.resend(tx, room.place.account, ThingName("nobody")))


def test_not_to_one_that_has_done_nothing_yet(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    room.create("C", room.group_arn("g"), selection=CONTINUOUS)
    room.work.run_blocking(lambda tx: room.jobs.provisioned_again(tx, room.place.account, ThingName("a")))
    assert stands(room, "a", "C") == (1, S.QUEUED)


async def test_who_comes_again_has_all_its_retries_before_it(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    retry = JobSettings(retry=(RetryCriterion(failure_type=FailureType.FAILED, retries=1),))
    room.create("C", room.group_arn("g"), selection=CONTINUOUS, settings=retry)
    await report(room, "a", "C", "FAILED")
    await report(room, "a", "C", "FAILED")
    assert stands(room, "a", "C") == (2, S.FAILED)
    room.work.run_blocking(lambda tx: room.jobs.provisioned_again(tx, room.place.account, ThingName("a")))
    assert stands(room, "a", "C") == (3, S.QUEUED)
    await report(room, "a", "C", "FAILED")
    assert stands(room, "a", "C") == (4, S.QUEUED)
    await report(room, "a", "C", "FAILED")
    assert stands(room, "a", "C") == (4, S.FAILED)
    assert counts(room, "C") == {"FAILED": 1}


@pytest.mark.parametrize(
    ("details", "version"),
    [
        ({"updatedBy": "0x01020003", "self_test": "ready"}, (1, 2, 3)),
        ({"updatedBy": "  v1.2.3"}, (1, 2, 3)),
        ({"updatedBy": "0x01020003", "self_test": "active"}, None),
        ({"updatedBy": "  v0.0.0"}, None),
        ({"updatedBy": "0x1020003"}, None),
        ({"updatedBy": "v999999.0.0"}, None),
        ({}, None),
    ],
)
def test_the_version_that_ran_before_an_update(details: dict[str, str], version: tuple[int, int, int] | None) -> None:
    assert running_version(details) == version


@pytest.mark.parametrize(
    ("reason", "version"),
    [("accepted  v1.2.3", (1, 2, 3)), ("accepted  v0.0.7", None), ("rejected: 0x00000010", None), ("", None)],
)
def test_the_version_that_was_accepted(reason: str, version: tuple[int, int, int] | None) -> None:
    assert accepted_version({"reason": reason}) == version
