"""``overair why``: every state of a thing has a chain of reasons, in words that name what to look at."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import NotFound
from overair.basics.ids import (
    AccountId,
    CertificateId,
    ClientId,
    GroupName,
    JobId,
    PolicyName,
    SeededIds,
    StreamId,
    ThingName,
)
from overair.basics.work import Tx
from overair.server.broker.model import ClientPresence
from overair.server.certificates.model import CertificateStatus
from overair.server.devices.model import OFFLINE_SIGNED, SIGNING_RULE_ATTRIBUTE
from overair.server.devices.thing_groups import GroupSettings
from overair.server.explain.operator_api import ExplainOperations
from overair.server.explain.rollout_api import RolloutOperations
from overair.server.explain.service import ExplainService
from overair.server.jobs.model import (
    AbortCriterion,
    FailureType,
    JobPlan,
    JobSettings,
    MaintenanceWindow,
    Report,
    RetryCriterion,
    RolloutConfig,
    Schedule,
    TargetSelection,
)
from overair.server.jobs.tallies import JobTallies
from overair.server.jobs.tally_store import SqlTallyStore
from overair.server.provisioning.model import Anomaly
from overair.server.storage.work import SqlWork
from overair.server.streams.asked import AskedBlocks
from overair.wire.job_messages import ExecutionStatus
from overair.wire.stream_messages import GetStreamRequest
from tests.support.updates_road import UpdatesRoad

DEV = ThingName("dev-1")
IMAGE = b"firmware"
NEVER_HEARD_OF = "It is not connected, and has not been since this server last started; it has never reported on a job."


class Presences:
    """A broker whose clients a test sets."""

    def __init__(self) -> None:
        self.now = ClientPresence(connected=False)
        self.asked: list[tuple[AccountId, ClientId, list[CertificateId]]] = []

    def presence_of(self, account: AccountId, client_id: ClientId, certificates: Collection[CertificateId]) -> ClientPresence:
        self.asked.append((account, client_id, list(certificates)))
        return self.now


class NoVehicles:
    """No thing here has ECUs, and nobody is blocked."""

    def facts(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        return None

    def is_blocked(self, tx: Tx, account: AccountId, thing: ThingName) -> bool:
        return False

    def anomalies_of(self, tx: Tx, account: AccountId, thing: ThingName) -> list[Anomaly]:
        return []

    def renewal_request_of(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        return None


class Room:
    """The updates' road with the question on top."""

    def __init__(self, road: UpdatesRoad) -> None:
        self.road = road
        self.presences = Presences()
        self.asked = AskedBlocks()
        self.service = ExplainService(
            devices=road.registry.devices,
            groups=road.registry.groups,
            certificates=road.registry.certificates,
            jobs=road.jobs,
            tallies=JobTallies(SqlTallyStore()),
            updates=road.updates,
            signing=road.signing,
            vehicles=NoVehicles(),
            blocks=NoVehicles(),
            identities=NoVehicles(),
            decryption=road.registry.decryption,
            clock=road.clock,
        )
        self.door = ExplainOperations(
            work=road.work,
            explain=self.service,
            presences=self.presences,
            authority=road.registry.authority,
            asked=self.asked,
            clock=road.clock,
        )

    async def why(self, thing: str = DEV) -> list[str]:
        answer = await self.door.explain_thing(self.road.caller(), {"thingName": thing})
        return list(answer["reasons"])

    async def ship(self, update: str = "rel-7", **more: object) -> None:
        file = {
            "fileName": "fw",
            "fileLocation": await self.road.stored("fw.bin", IMAGE),
            "codeSigning": self.road.signing_parameter(),
        }
        await self.road.create(file, update=update, **more)
        await self.road.drive()

    async def report(self, status: ExecutionStatus, update: str = "rel-7", **details: str) -> None:
        report = Report(status=status, status_details=details or None)
        job = JobId(f"AFR_OTA-{update}")
        await self.road.work.run(lambda tx: self.road.jobs.device.report(tx, self.road.place, DEV, job, report))

    def certificate(self, *, active: bool = True, allowed: Sequence[str] = ("iot:*",)) -> CertificateId:
        """A certificate attached to the thing, with a policy of its own."""
        road, key = self.road, ec.generate_private_key(ec.SECP256R1()).public_key()
        name = PolicyName(f"policy-{road.ids.token(8)}")
        document = json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": list(allowed), "Resource": "*"}],
            }
        )

        def unit(tx: Tx) -> CertificateId:
            issued = road.registry.certificates.issue(tx, road.place, public_key=key, active=active)
            arn = road.place.iot("cert", issued.id)
            road.registry.devices.attach(tx, road.place, DEV, arn)
            if allowed:
                road.registry.policies.create(tx, road.place, name, document)
                road.registry.policies.attach(tx, road.place, name, arn)
            return issued.id

        return road.work.run_blocking(unit)


@pytest.fixture
def room(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> Iterator[Room]:
    road = UpdatesRoad(work, clock, ids, place, tmp_path)
    road.settle()
    yield Room(road)
    road.contents.close()


async def test_a_thing_that_is_not_there_is_not_found(room: Room) -> None:
    with pytest.raises(NotFound):
        await room.why("nobody")


async def test_a_thing_without_work_and_without_certificate_says_both(room: Room) -> None:
    assert await room.why() == [
        "dev-1 has nothing to do: no job was ever given to it.",
        NEVER_HEARD_OF,
        "No certificate is attached to it, so that no device can connect as it. Enroll it, or attach one.",
    ]


async def test_a_certificate_that_may_not_connect_is_named(room: Room) -> None:
    certificate = room.certificate(active=False)
    room.presences.now = ClientPresence(connected=False, gone_since=Instant(1_767_225_600_000))
    assert (await room.why())[1:] == [
        "It is offline since 2026-01-01 00:00:00 UTC.",
        f"Its certificate {certificate[:16]}… is INACTIVE: only an ACTIVE one may connect.",
    ]
    other = room.certificate()
    assert (await room.why())[1:] == ["It is offline since 2026-01-01 00:00:00 UTC."]
    assert room.presences.asked[-1][0:2] == (room.road.account, "dev-1")
    assert sorted(room.presences.asked[-1][2]) == sorted([certificate, other])


async def test_an_expired_certificate_is_named(room: Room) -> None:
    certificate = room.certificate()
    room.road.clock.advance(milliseconds=60 * 365 * 86_400_000)
    assert (await room.why())[-1] == f"Its certificate {certificate[:16]}… has expired. Give the device a new one."


async def test_a_revoked_certificate_is_named(room: Room) -> None:
    certificate = room.certificate()
    road = room.road
    await road.work.run(
        lambda tx: road.registry.certificates.set_status(tx, road.place, certificate, CertificateStatus.REVOKED)
    )
    assert (await room.why())[-1] == f"Its certificate {certificate[:16]}… is REVOKED: only an ACTIVE one may connect."


async def test_a_queued_job_of_an_absent_device_waits_for_it(room: Room) -> None:
    room.certificate()
    await room.ship()
    assert await room.why() == [
        "dev-1 has not started job AFR_OTA-rel-7, which is queued for it since 2026-01-01 00:00:00 UTC.",
        NEVER_HEARD_OF,
    ]


async def test_a_connected_device_that_never_starts_is_explained_by_the_silence_of_agents(room: Room) -> None:
    await room.ship()
    room.presences.now = ClientPresence(connected=True)
    assert (await room.why())[-1] == "It is connected and was told a moment ago."
    room.road.clock.advance(milliseconds=61_000)
    assert "Agents drop a job without a word" in (await room.why())[-1]


async def test_work_behind_other_work_is_told_with_what_it_waits_for(room: Room) -> None:
    await room.ship()
    room.road.clock.advance(milliseconds=1)
    await room.ship("rel-8")
    reasons = await room.why()
    assert reasons[1] == "Queued behind AFR_OTA-rel-7, one at a time: AFR_OTA-rel-8."


@pytest.mark.parametrize(
    ("details", "doing"),
    [
        ({}, "no block reported yet"),
        ({"receive": "64/256"}, "64 of 256 blocks received"),
        ({"self_test": "ready", "updatedBy": "0x01000000"}, "the image is there and verified, and it restarts into it"),
        ({"self_test": "active", "updatedBy": "0x02000000"}, "it runs the new image, which tests itself"),
    ],
)
async def test_a_device_at_work_says_how_far_it_is(room: Room, details: dict[str, str], doing: str) -> None:
    await room.ship()
    await room.report(ExecutionStatus.IN_PROGRESS, **details)
    room.presences.now = ClientPresence(connected=True)
    assert await room.why() == [
        f"dev-1 is at job AFR_OTA-rel-7 since 2026-01-01 00:00:00 UTC: {doing}.",
        "It is connected and said so last at 2026-01-01 00:00:00 UTC.",
    ]


async def test_a_refusal_is_told_in_words(room: Room) -> None:
    await room.ship()
    await room.report(ExecutionStatus.IN_PROGRESS)
    await room.report(ExecutionStatus.FAILED, reason="0x000000e3: 0x00000000")
    room.presences.now = ClientPresence(connected=True)
    fingerprint = room.road.signer.certificate.fingerprint(hashes.SHA256()).hex()
    assert await room.why() == [
        "dev-1 has refused or failed job AFR_OTA-rel-7 at 2026-01-01 00:00:00 UTC, and has nothing else to do.",
        "Its own words: the image's signature does not verify [0x000000e3: 0x00000000].",
        f"It was signed by certificate {fingerprint[:16]}… of signing profile ota_profile: see that the device trusts that one "
        "as /anchor.pem. A new signer's certificate is shipped ahead (docs/signing.md).",
        "dev-1 is connected and waits.",
    ]


async def test_success_is_told_with_the_version(room: Room) -> None:
    await room.ship()
    await room.report(ExecutionStatus.SUCCEEDED, reason="accepted  v2.0.0", updatedBy="  v1.0.0")
    reasons = await room.why()
    assert reasons[0].startswith("dev-1 has done job AFR_OTA-rel-7")
    assert reasons[1] == "Its own words: accepted version 2.0.0."


async def test_a_device_that_went_away_in_the_middle_is_told_with_its_last_report(room: Room) -> None:
    await room.ship()
    room.road.clock.advance(milliseconds=60_000)
    await room.report(ExecutionStatus.IN_PROGRESS, receive="64/256")
    room.road.clock.advance(milliseconds=60_000)
    assert await room.why() == [
        "dev-1 is at job AFR_OTA-rel-7 since 2026-01-01 00:01:00 UTC: 64 of 256 blocks received.",
        "It is not connected, and has not been since this server last started; "
        "its last report came at 2026-01-01 00:01:00 UTC.",
        "No certificate is attached to it, so that no device can connect as it. Enroll it, or attach one.",
    ]


async def test_a_cancelled_job_is_no_failure_of_the_device(room: Room) -> None:
    await room.ship()
    road = room.road
    await road.work.run(lambda tx: road.jobs.cancel(tx, road.account, JobId("AFR_OTA-rel-7")))
    assert "cancelled" in (await room.why())[0]


async def test_an_update_that_came_to_nothing_is_the_reason_for_no_work(room: Room) -> None:
    room.road.role_arn = room.road.make_role("powerless", '{"Version":"2012-10-17","Statement":[]}')
    await room.ship(targets=[room.road.place.iot("thinggroup", "fleet")])
    reasons = await room.why()
    assert reasons[0] == "dev-1 has nothing to do: no job was ever given to it."
    assert reasons[1].startswith(
        "OTA update rel-7 was meant for it but is CREATE_FAILED: AccessDeniedException: User: arn:aws:sts::"
    )


async def test_an_old_failure_is_no_reason_once_the_thing_has_had_work(room: Room) -> None:
    good = room.road.role_arn
    room.road.role_arn = room.road.make_role("powerless", '{"Version":"2012-10-17","Statement":[]}')
    await room.ship()
    room.road.role_arn = good
    room.road.clock.advance(milliseconds=1000)
    await room.ship("rel-8")
    await room.report(ExecutionStatus.SUCCEEDED, "rel-8")
    assert not any("CREATE_FAILED" in reason for reason in await room.why())


async def test_an_update_still_being_created_is_told_with_its_step(room: Room) -> None:
    file = {"fileName": "fw", "fileLocation": await room.road.stored("fw.bin", IMAGE)}
    await room.road.create(file)
    assert (await room.why())[1] == (
        "OTA update rel-7 is meant for it and still being created (CREATE_PENDING): next is update.assume-role."
    )


async def test_an_unsigned_update_is_called_so(room: Room) -> None:
    file = {"fileName": "fw", "fileLocation": await room.road.stored("fw.bin", IMAGE)}
    await room.road.create(file)
    await room.road.drive()
    assert any("UNSIGNED" in reason for reason in await room.why())
    await room.report(ExecutionStatus.FAILED, reason="0x000000e3: 0x00000000")
    assert "AFR_OTA-rel-7 was UNSIGNED." in await room.why()


async def test_a_job_that_has_not_reached_the_thing_yet_is_named(room: Room) -> None:
    road = room.road
    road.make_thing("dev-0", groups=("fleet",))
    plan = JobPlan(
        id=JobId("slow"),
        targets=(road.place.iot("thinggroup", "fleet"),),
        document="{}",
        settings=JobSettings(rollout=RolloutConfig(maximum_per_minute=1)),
    )
    await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan))
    assert (await room.why())[1] == "Job slow is meant for it and goes out at a rate of 1 a minute: it is the next."
    assert "slow" in (await room.why("dev-0"))[0]


async def test_a_thing_in_the_line_of_a_rate_hears_how_many_wait_with_it(room: Room) -> None:
    road = room.road
    for name in ("a", "b", "dev-9"):
        road.make_thing(name, groups=("fleet",))
    await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan(room, rollout=RolloutConfig(maximum_per_minute=1))))
    assert (await room.why("dev-9"))[1] == (
        "Job late is meant for it and goes out at a rate of 1 a minute: 3 things wait for their turn."
    )


async def test_a_thing_that_waits_to_try_again_hears_so(room: Room) -> None:
    road = room.road
    road.make_thing("a", groups=("fleet",))
    retry = (RetryCriterion(failure_type=FailureType.FAILED, retries=1),)
    made = plan(room, settings=JobSettings(rollout=RolloutConfig(maximum_per_minute=1), retry=retry))
    await road.work.run(lambda tx: road.jobs.create(tx, road.place, made))
    failed = Report(status=ExecutionStatus.FAILED)
    await road.work.run(lambda tx: road.jobs.device.report(tx, road.place, ThingName("a"), made.id, failed))
    told = await room.why("a")
    assert told[0].startswith("a has refused or failed job late")
    assert "Job late comes to it once more: in its turn, at a rate of 1 a minute." in told


async def test_a_maintenance_window_that_is_shut_is_told_with_the_time_it_opens(room: Room) -> None:
    road = room.road
    windows = (MaintenanceWindow(starts="cron(0 3 * * ? *)", duration_minutes=60),)
    schedule = Schedule(windows=windows)
    late = plan(room, schedule=schedule, target_selection=TargetSelection.CONTINUOUS)
    await road.work.run(lambda tx: road.jobs.create(tx, road.place, late))
    assert (await room.why())[1] == (
        "Job late is meant for it and may not go out before 2026-01-01 03:00:00 UTC: that is when its window opens."
    )


async def test_an_abort_rule_is_named_by_whom_it_took_the_job_from_and_by_whom_it_never_reached(room: Room) -> None:
    road = room.road
    road.make_thing("a", groups=("fleet",))
    settings = JobSettings(
        rollout=RolloutConfig(maximum_per_minute=1),
        abort=(AbortCriterion(failure_type=FailureType.ALL, threshold_percentage=10, things_executed_min=1),),
    )
    await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan(room, settings=settings)))
    report = Report(status=ExecutionStatus.FAILED)
    await road.work.run(lambda tx: road.jobs.device.report(tx, road.place, ThingName("a"), JobId("late"), report))
    await road.drive()
    assert (await room.why())[1].startswith(
        "Job late was meant for it and was cancelled before its turn came: ABORT_CRITERIA_MET Aborted: at least 10 %"
    )


async def test_a_cancelled_job_is_told_with_the_operators_words(room: Room) -> None:
    await room.ship()
    road, job = room.road, JobId("AFR_OTA-rel-7")
    await road.work.run(
        lambda tx: road.jobs.cancel(tx, road.account, job, reason_code="WRONG_IMAGE", comment="Not for this board.")
    )
    await road.drive()
    assert (await room.why())[1] == "The job was cancelled: WRONG_IMAGE Not for this board."


async def test_a_download_that_asks_for_the_same_again_and_again_is_flagged(room: Room) -> None:
    await room.ship()
    stream = StreamId(str((await room.road.document()).stream_name))
    await room.report(ExecutionStatus.IN_PROGRESS, receive="1/64")

    def ask(first: int) -> None:
        request = GetStreamRequest(file_id=0, block_size_bytes=4096, block_offset=first, block_count=1)
        room.asked.note(room.road.account, DEV, stream, request, first)

    for _ in range(3):
        ask(7)
    assert not any("times in a row" in reason for reason in await room.why()), "a request may be lost now and then"
    ask(7)
    assert any("the same blocks, from 7 on, 4 times in a row" in reason for reason in await room.why())


async def test_a_download_that_begins_more_than_three_times_is_called_a_loop(room: Room) -> None:
    await room.ship()
    stream = StreamId(str((await room.road.document()).stream_name))
    await room.report(ExecutionStatus.IN_PROGRESS, receive="1/64")
    for round_number in range(1, 5):
        for first in (0, 8, 16):
            request = GetStreamRequest(file_id=0, block_size_bytes=4096, block_offset=first, block_count=8)
            room.asked.note(room.road.account, DEV, stream, request, first)
        reasons = await room.why()
        assert any("in a LOOP: it has begun 4 times" in reason for reason in reasons) == (round_number > 3)


def plan(room: Room, *, rollout: RolloutConfig | None = None, **more: Any) -> JobPlan:
    """A job for everybody."""
    settings = more.pop("settings", JobSettings(rollout=rollout))
    return JobPlan(
        id=JobId("late"), targets=(room.road.place.iot("thinggroup", "fleet"),), document="{}", settings=settings, **more
    )


async def test_a_certificate_without_a_policy_may_not_even_connect(room: Room) -> None:
    certificate = room.certificate(allowed=())
    assert (await room.why())[-1] == (
        f"Certificate {certificate[:16]}…: Its policies don't allow iot:Connect on client/dev-1: attach one that does."
    )


async def test_a_policy_without_receive_is_the_reason_for_silence(room: Room) -> None:
    certificate = room.certificate(allowed=("iot:Connect", "iot:Publish", "iot:Subscribe"))
    await room.ship()
    room.presences.now = ClientPresence(connected=True)
    stream = (await room.road.document()).stream_name
    assert (await room.why())[-1] == (
        f"Certificate {certificate[:16]}…: Its policies don't allow what an agent needs: "
        "iot:Receive on topic/$aws/things/dev-1/jobs/$next/get/accepted, "
        "iot:Receive on topic/$aws/things/dev-1/jobs/notify-next, "
        f"iot:Receive on topic/$aws/things/dev-1/streams/{stream}/data/cbor. Attach one that does."
    )
    room.certificate()
    assert not any(reason.startswith("Certificate") for reason in await room.why()), "another certificate is free to work"


async def test_a_revoked_signature_is_told_by_whom_it_was_given_to_and_by_the_job(room: Room) -> None:
    await room.ship()
    await room.report(ExecutionStatus.SUCCEEDED)
    signing_job = (await room.road.find()).progress[0].signing_job
    await room.road.signer_api.revoke_signature(room.road.caller(), {"jobId": signing_job, "reason": "bad build"})
    told = [link for link in await room.why() if "was revoked at" in link]
    assert len(told) == 1
    assert "bad build" in told[0]
    assert "runs it until another image is shipped" in told[0]
    rollout = RolloutOperations(
        work=room.road.work,
        jobs=room.road.jobs,
        tallies=JobTallies(SqlTallyStore()),
        connections=room.road,  # type: ignore[arg-type]
        signatures=room.service,
        clock=room.road.clock,
    )
    answer = await rollout.describe_rollout(room.road.caller(), {"jobId": "AFR_OTA-rel-7"})
    assert answer["reasons"][0] == "Job AFR_OTA-rel-7 is COMPLETED: 1 things are through with it, 0 are not."
    assert "bad build" in answer["reasons"][1]


async def test_a_certificate_that_has_ended_since_is_told_and_stops_nothing(room: Room) -> None:
    await room.ship()
    room.road.clock.advance(milliseconds=11 * 365 * 86_400_000)
    told = [link for link in await room.why() if link.startswith("The certificate that signed it")]
    assert len(told) == 1
    assert "devices look at no dates, so that what it signed before installs" in told[0]


async def test_a_thing_that_a_groups_rule_on_signatures_leaves_out_is_told_which_group_and_what_to_do(room: Room) -> None:
    road = room.road
    free, ruled = GroupName("free"), GroupName("ruled")
    rule = GroupSettings(attributes={SIGNING_RULE_ATTRIBUTE: OFFLINE_SIGNED})

    def prepare(tx: Tx) -> None:
        road.registry.groups.watched_by(road.jobs.planner)
        road.registry.groups.create(tx, road.place, free)
        road.registry.groups.create(tx, road.place, ruled, settings=rule)
        road.registry.groups.add(tx, road.account, ruled, DEV)

    await road.work.run(prepare)
    await room.ship(targets=[road.place.iot("thinggroup", free)], targetSelection="CONTINUOUS")
    assert not any("AFR_OTA-rel-7" in reason for reason in await room.why())
    # As a query or a template does, which ask nobody.
    await road.work.run(lambda tx: road.registry.groups.add(tx, road.account, free, DEV))
    (told,) = [reason for reason in await room.why() if "AFR_OTA-rel-7" in reason]
    assert told == (
        "Job AFR_OTA-rel-7 is meant for it and leaves it out: thing group ruled takes only images that were signed away from "
        "this server, and the images of this job weren't. Sign them with `overair sign image` and ship them anew with "
        "`overair ship --signature`."
    )
    await road.work.run(lambda tx: road.registry.groups.remove(tx, road.account, ruled, DEV))
    assert not any("leaves it out" in reason for reason in await room.why())
