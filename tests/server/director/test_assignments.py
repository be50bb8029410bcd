"""Assignments and campaigns as operators ask for them (Uptane reference §11)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overair.basics.errors import Conflict, InvalidRequest, InvalidStateTransition, NotFound
from overair.basics.ids import CampaignId, GroupName, ThingName
from overair.server.director.assignments import DEVICES_MAX, Affected
from overair.server.director.campaign_model import ApprovalState, Campaign, CampaignStatus, MetadataType
from overair.server.director.campaigns import CampaignPlan, Failures
from overair.server.director.model import DeviceStatus
from overair.server.director.multi_target_update import MultiTargetUpdate, NotAffected
from overair.server.jobs.model import FailureType, JobSettings, RetryCriterion
from overair.wire.job_messages import ExecutionStatus
from tests.support.director_room import DirectorRoom, Vehicle, target_members

S = ExecutionStatus


def assign(room: DirectorRoom, update: MultiTargetUpdate, *things: str, correlation_id: str = "urn:here-ota:mtu:1") -> Affected:
    named = [ThingName(thing) for thing in things]
    return room.work.run_blocking(
        lambda tx: room.director.assignments.assign(tx, room.place, update.id, named, correlation_id=correlation_id)
    )


def cancel(room: DirectorRoom, thing: str, *, force: bool = False) -> bool:
    return room.work.run_blocking(lambda tx: room.director.assignments.cancel(tx, room.account, ThingName(thing), force=force))


def codes(affected: Affected) -> dict[str, list[NotAffected]]:
    return {thing: [reason.code for reason in reasons.values()] for thing, reasons in affected.not_affected.items()}


def test_an_assignment_is_a_job_under_the_operators_correlation_id(room: DirectorRoom) -> None:
    car = room.vehicle("car-1", gw="imx8")
    affected = assign(room, room.update(imx8=room.images.add("gateway-2", "imx8")), "car-1", correlation_id="urn:mine")
    assert affected.things == ("car-1",)
    car.refresh()
    assert car.correlation_id == "urn:mine"
    [assignment] = room.facts("car-1").assignments
    assert car.execution(assignment.job).status is S.IN_PROGRESS
    assert assignment.job.startswith("assignment-")


def test_each_thing_that_is_not_affected_has_its_reason(room: DirectorRoom) -> None:
    image = room.images.add("gateway-2", "imx8")
    for name in ("car-fit", "car-busy", "car-done"):
        room.vehicle(name, gw="imx8")
    room.vehicle("car-foreign", gw="other")
    room.add_things("esp")
    done = room.images.add("gateway-3", "imx8")
    assign(room, room.update(imx8=done), "car-busy")
    update = room.update(imx8=image)
    assign(room, update, "car-done")
    cancel(room, "car-done")
    affected = assign(room, update, "car-fit", "car-busy", "car-done", "car-foreign", "esp")
    assert affected.things == ("car-fit", "car-done")
    assert codes(affected) == {
        "car-busy": [NotAffected.RUNNING],
        "car-foreign": [NotAffected.NO_COMPATIBLE_HARDWARE],
        "esp": [NotAffected.NO_ECUS],
    }


def test_many_things_are_assigned_in_jobs_of_a_hundred(room: DirectorRoom) -> None:
    things = [f"car-{number:03}" for number in range(101)]
    for thing in things:
        room.vehicle(thing, gw="imx8")
    affected = assign(room, room.update(imx8=room.images.add("gateway-2", "imx8")), *things)
    assert len(affected.things) == 101
    jobs = room.work.read_blocking(lambda tx: room.jobs.page(tx, room.account, limit=10))
    assert sorted(sum(job.counts.values()) for job in jobs) == [1, 100]


@pytest.mark.parametrize("correlation_id", ["", "x" * 257, "a\nb"])
def test_a_correlation_id_is_never_empty(room: DirectorRoom, correlation_id: str) -> None:
    """Without one a vehicle doesn't report failures before the installation (§4.4)."""
    room.vehicle("car-1", gw="imx8")
    update = room.update(imx8=room.images.add("gateway-2", "imx8"))
    with pytest.raises(InvalidRequest, match="correlationId"):
        assign(room, update, "car-1", correlation_id=correlation_id)


def test_one_request_names_a_bounded_number_of_things(room: DirectorRoom) -> None:
    update = room.update(imx8=room.images.add("gateway-2", "imx8"))
    with pytest.raises(InvalidRequest, match="campaign"):
        assign(room, update, *(f"car-{number}" for number in range(DEVICES_MAX + 1)))


def test_an_update_that_is_not_there_assigns_nothing(room: DirectorRoom) -> None:
    with pytest.raises(NotFound):
        room.work.read_blocking(lambda tx: room.director.assignments.affected(tx, room.account, "no such/update", []))


def test_a_target_that_says_otherwise_than_the_image_repository_makes_no_update(room: DirectorRoom) -> None:
    image = room.images.add("gateway-2", "imx8")
    wrong = {**target_members(image), "targetLength": 1}
    for hardware, to, why in (("imx8", wrong, "Image repository"), ("s32", target_members(image), "signed for hardware imx8")):
        with pytest.raises(InvalidRequest, match=why):
            room.work.run_blocking(
                lambda tx, hardware=hardware, to=to: room.director.assignments.create_update(  # type: ignore[misc]
                    tx, room.account, {"targets": {hardware: {"to": to}}}
                )
            )


def test_what_is_assigned_is_told_before_and_after_it_is_fetched(room: DirectorRoom) -> None:
    car = room.vehicle("car-1", gw="imx8")
    assign(room, room.update(imx8=room.images.add("gateway-2", "imx8")), "car-1", correlation_id="urn:mine")

    def queue() -> list[tuple[str, bool, list[str]]]:
        found = room.work.read_blocking(lambda tx: room.director.assignments.of(tx, room.account, ThingName("car-1")))
        return [(each.correlation_id, each.in_flight, [image.name for image, _ in each.targets.values()]) for each in found]

    assert queue() == [("urn:mine", False, ["gateway-2"])]
    car.refresh()
    assert queue() == [("urn:mine", True, ["gateway-2"])]
    car.install()
    car.send(report=car.report())
    assert queue() == []


def test_what_is_in_flight_is_cancelled_by_force_alone(room: DirectorRoom) -> None:
    car = room.vehicle("car-1", gw="imx8")
    update = room.update(imx8=room.images.add("gateway-2", "imx8"))
    assign(room, update, "car-1")
    assert cancel(room, "car-1")
    assert not cancel(room, "car-1"), "there is nothing left"
    assign(room, update, "car-1")
    car.refresh()
    with pytest.raises(Conflict) as refused:
        cancel(room, "car-1")
    assert refused.value.subject == "assignment-in-flight"
    assert cancel(room, "car-1", force=True)
    car.refresh()
    assert car.would_install() == {}


# Campaigns ----------------------------------------------------------------------------------------------------------------


def plan(update: MultiTargetUpdate, *groups: str, name: str = "spring", approval: bool = False) -> CampaignPlan:
    return CampaignPlan(
        name=name,
        update=update.id,
        groups=tuple(GroupName(group) for group in groups),
        metadata={MetadataType.DESCRIPTION: "Fewer squeaks."},
        approval_needed=approval,
    )


def create(room: DirectorRoom, wanted: CampaignPlan) -> Campaign:
    return room.work.run_blocking(lambda tx: room.director.campaigns.create(tx, room.account, wanted))


def launch(room: DirectorRoom, campaign: Campaign) -> Campaign:
    return room.work.run_blocking(lambda tx: room.director.campaigns.launch(tx, room.place, campaign.id))


def status(room: DirectorRoom, campaign: Campaign) -> CampaignStatus:
    campaigns = room.director.campaigns

    def query(tx: object) -> CampaignStatus:
        return campaigns.status(tx, room.account, campaigns.find(tx, room.account, campaign.id))  # type: ignore[arg-type]

    return room.work.read_blocking(query)


def decide(room: DirectorRoom, car: Vehicle, campaign: Campaign, state: ApprovalState) -> None:
    approvals = room.director.campaigns.approvals
    room.work.run_blocking(lambda tx: approvals.decide(tx, room.place, car.thing, CampaignId(campaign.id), state))


@pytest.fixture
def update(room: DirectorRoom) -> MultiTargetUpdate:
    return room.update(imx8=room.images.add("gateway-2", "imx8"))


def test_a_campaign_is_what_its_job_is(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    car = room.vehicle("car-1", group="fleet", gw="imx8")
    campaign = create(room, plan(update, "fleet"))
    assert status(room, campaign) is CampaignStatus.PREPARED
    campaign = launch(room, campaign)
    assert status(room, campaign) is CampaignStatus.LAUNCHED
    assert campaign.job is not None
    car.refresh()
    assert car.correlation_id == f"urn:here-ota:campaign:{campaign.id}"
    car.install()
    car.send(report=car.report())
    assert car.execution(campaign.job).status is S.SUCCEEDED
    assert status(room, campaign) is CampaignStatus.FINISHED
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, room.account, campaign.job))  # type: ignore[arg-type]
    assert status(room, campaign) is CampaignStatus.FINISHED


def test_what_was_launched_or_cancelled_is_not_launched_again(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    room.vehicle("car-1", group="fleet", gw="imx8")
    campaign = create(room, plan(update, "fleet"))
    launch(room, campaign)
    with pytest.raises(InvalidStateTransition):
        launch(room, campaign)
    other = create(room, plan(update, "fleet", name="autumn"))
    campaigns = room.director.campaigns
    room.work.run_blocking(lambda tx: campaigns.cancel(tx, room.account, other.id))
    assert status(room, other) is CampaignStatus.CANCELLED
    for attempt in (
        lambda: launch(room, other),
        lambda: room.work.run_blocking(lambda tx: campaigns.cancel(tx, room.account, other.id)),
    ):
        with pytest.raises(InvalidStateTransition):
            attempt()


def test_cancelling_a_campaign_takes_back_what_vehicles_have_fetched(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    car = room.vehicle("car-1", group="fleet", gw="imx8")
    campaign = launch(room, create(room, plan(update, "fleet")))
    car.refresh()
    room.work.run_blocking(lambda tx: room.director.campaigns.cancel(tx, room.account, campaign.id))
    assert status(room, campaign) is CampaignStatus.CANCELLED
    car.refresh()
    assert car.would_install() == {}


def test_one_vehicle_is_taken_out_of_a_campaign(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    cars = [room.vehicle(f"car-{number}", group="fleet", gw="imx8") for number in range(2)]
    campaign = launch(room, create(room, plan(update, "fleet")))
    assert campaign.job is not None
    campaigns = room.director.campaigns
    room.work.run_blocking(lambda tx: campaigns.cancel_device(tx, room.account, campaign.id, cars[0].thing))
    assert cars[0].execution(campaign.job).status is S.CANCELED
    assert cars[1].execution(campaign.job).status is S.QUEUED


def test_a_campaign_counts_its_vehicles_and_their_failures_by_code(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    cars = [room.vehicle(f"car-{number}", group="fleet", gw="imx8") for number in range(4)]
    room.vehicle("car-foreign", group="fleet", gw="other")
    campaign = launch(room, create(room, plan(update, "fleet")))
    campaigns = room.director.campaigns
    for car in cars[:3]:
        car.refresh()
    cars[0].install()
    cars[0].send(report=cars[0].report())
    cars[1].fail("DOWNLOAD_FAILED")
    cars[2].fail("DOWNLOAD_FAILED")
    stats = room.work.read_blocking(lambda tx: campaigns.stats(tx, room.account, campaign.id))
    assert (stats.processed, stats.affected, stats.successful, stats.failed, stats.cancelled, stats.finished) == (
        5,
        4,
        1,
        2,
        0,
        3,
    )
    assert stats.failures == [Failures(code="DOWNLOAD_FAILED", count=2, retry=None)]

    retry = room.work.run_blocking(lambda tx: campaigns.retry_failed(tx, room.place, campaign.id, "DOWNLOAD_FAILED"))
    assert retry.main_campaign == campaign.id
    assert sorted(room.registry.groups[retry.groups[0]]) == ["car-1", "car-2"]
    with pytest.raises(InvalidStateTransition, match="already"):
        room.work.run_blocking(lambda tx: campaigns.retry_failed(tx, room.place, campaign.id, "DOWNLOAD_FAILED"))
    stats = room.work.read_blocking(lambda tx: campaigns.stats(tx, room.account, campaign.id))
    assert stats.failures[0].retry is CampaignStatus.LAUNCHED
    with pytest.raises(NotFound, match="INSTALL_FAILED"):
        room.work.run_blocking(lambda tx: campaigns.retry_failed(tx, room.place, campaign.id, "INSTALL_FAILED"))


def test_a_vehicle_that_succeeded_at_its_second_attempt_has_not_failed(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    car = room.vehicle("car-1", group="fleet", gw="imx8")
    campaign = launch(room, create(room, plan(update, "fleet")))
    assert campaign.job is not None
    settings = JobSettings(retry=(RetryCriterion(failure_type=FailureType.FAILED, retries=1),))
    room.work.run_blocking(lambda tx: room.jobs.change(tx, room.account, campaign.job, lambda _: settings))  # type: ignore[arg-type]
    car.refresh()
    car.fail()
    car.refresh()
    car.install()
    car.send(report=car.report())
    stats = room.work.read_blocking(lambda tx: room.director.campaigns.stats(tx, room.account, campaign.id))
    assert (stats.successful, stats.failed, stats.failures) == (1, 0, [])


def test_with_approval_nothing_is_assigned_before_the_driver_has_accepted(
    room: DirectorRoom, update: MultiTargetUpdate
) -> None:
    car = room.vehicle("car-1", group="fleet", gw="imx8")
    campaign = launch(room, create(room, plan(update, "fleet", approval=True)))
    approvals = room.director.campaigns.approvals

    def waiting() -> list[tuple[str, int]]:
        found = room.work.read_blocking(lambda tx: approvals.awaiting(tx, room.account, car.thing))
        return [(each.campaign.id, each.size_bytes) for each in found]

    before = car.refresh()
    assert car.would_install() == {}
    assert room.device("car-1").status is DeviceStatus.UPDATE_SCHEDULED
    assert waiting() == [(campaign.id, len(b"gateway-2"))]
    assert car.refresh() == before, "waiting costs no signature"

    decide(room, car, campaign, ApprovalState.POSTPONED)
    car.refresh()
    assert car.would_install() == {}
    assert waiting()

    decide(room, car, campaign, ApprovalState.ACCEPTED)
    assert waiting() == []
    car.refresh()
    assert car.would_install() == {"gw": "gateway-2"}


def test_what_the_driver_declines_is_rejected(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    car = room.vehicle("car-1", group="fleet", gw="imx8")
    campaign = launch(room, create(room, plan(update, "fleet", approval=True)))
    assert campaign.job is not None
    car.refresh()
    decide(room, car, campaign, ApprovalState.DECLINED)
    execution = car.execution(campaign.job)
    assert execution.status is S.REJECTED
    assert execution.status_details["resultCode"] == "DECLINED"
    assert status(room, campaign) is CampaignStatus.FINISHED
    decide(room, car, campaign, ApprovalState.ACCEPTED)
    car.refresh()
    assert car.would_install() == {}, "a late word changes nothing"


def test_a_word_on_a_campaign_that_asks_nobody_changes_nothing(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    car = room.vehicle("car-1", group="fleet", gw="imx8")
    campaign = launch(room, create(room, plan(update, "fleet")))
    assert campaign.job is not None
    decide(room, car, campaign, ApprovalState.DECLINED)
    decide(room, car, replace(campaign, id=CampaignId("nowhere")), ApprovalState.DECLINED)
    assert car.execution(campaign.job).status is S.QUEUED


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"groups": ()}, "groups"),
        ({"metadata": {MetadataType.DESCRIPTION: ""}}, "metadata"),
    ],
)
def test_what_makes_no_campaign_is_refused_with_the_member(
    room: DirectorRoom, update: MultiTargetUpdate, changes: dict[str, object], field: str
) -> None:
    room.registry.groups["fleet"] = set()
    wanted = plan(update, "fleet")
    with pytest.raises(InvalidRequest) as refused:
        create(room, replace(wanted, **changes))  # type: ignore[arg-type]
    assert refused.value.details["field"] == field


def test_campaigns_are_listed_by_status_and_name(room: DirectorRoom, update: MultiTargetUpdate) -> None:
    room.vehicle("car-1", group="fleet", gw="imx8")
    made = []
    for name in ("spring", "autumn", "winter"):
        room.clock.advance(milliseconds=1)
        made.append(create(room, plan(update, "fleet", name=name)))
    launch(room, made[0])
    campaigns = room.director.campaigns

    def names(status: CampaignStatus | None = None, text: str = "", by_name: bool = False) -> list[str]:
        _, found = room.work.read_blocking(
            lambda tx: campaigns.page(tx, room.account, status=status, name_contains=text, by_name=by_name, offset=0, limit=10)
        )
        return [campaign.name for campaign in found]

    assert names() == ["winter", "autumn", "spring"]
    assert names(by_name=True) == ["autumn", "spring", "winter"]
    assert names(CampaignStatus.PREPARED, by_name=True) == ["autumn", "winter"]
    assert names(CampaignStatus.LAUNCHED) == ["spring"]
    assert names(text="TUM") == ["autumn"]
    counted = room.work.read_blocking(lambda tx: campaigns.count_by_status(tx, room.account))
    assert {status.value: count for status, count in counted.items() if count} == {"prepared": 2, "launched": 1}
