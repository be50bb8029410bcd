"""Bulk registration, cut at every step and resumed: each device once, each line in one report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, Conflict, InvalidRequest, NotFound
from overair.basics.ids import SeededIds, ThingName
from overair.server.audit.service import AuditTrail
from overair.server.audit.store import SqlAuditStore
from overair.server.objects.model import Versioning
from overair.server.provisioning.minting import new_key
from overair.server.provisioning.model import DeviceKeyType
from overair.server.provisioning.registration import Registrations
from overair.server.provisioning.registration_task_model import (
    REPORTS_KEPT_MS,
    RegistrationTask,
    ReportType,
    TaskStatus,
)
from overair.server.provisioning.registration_tasks import RegistrationTasks
from overair.server.provisioning.registration_worker import LINES_AT_ONCE, STEPS, RegistrationWorker
from overair.server.storage.work import SqlWork
from tests.support.provisioning_room import ProvisioningRoom
from tests.support.registry import Registry
from tests.support.signing_road import BUCKET, SigningRoad, policy

KEY = "devices.jsonl"
TEMPLATE = json.dumps(
    {
        "Parameters": {"Name": {"Type": "String"}, "Certificate": {"Type": "String"}},
        "Resources": {
            "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "Certificate"}}},
            "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Name"}}},
        },
    }
)
NO_CERTIFICATE = json.dumps(
    {
        "Parameters": {"Name": {"Type": "String"}},
        "Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Name"}}}},
    }
)


class Cut(BaseException):
    """The process is gone: nothing catches this."""


class BulkRoad(SigningRoad):
    """Buckets, roles and provisioning over one test's records."""

    cut_after: str | None = None

    def compose(self) -> None:
        super().compose()
        self.registry = Registry(self.work, self.clock, self.ids)
        room = self.room = ProvisioningRoom(self.registry, self.clock, self.place)
        registrations = Registrations(
            certificates=self.registry.certificates,
            devices=self.registry.devices,
            groups=self.registry.groups,
            policies=self.registry.policies,
            blocks=room.blocks,
            provisioned=room.store,
            clock=self.clock,
        )
        self.audit = SqlAuditStore()
        registrations.watched_by(AuditTrail(self.audit, clock=self.clock, ids=self.ids))
        self.tasks = RegistrationTasks(
            store=room.store,
            registrations=registrations,
            objects=self.objects,
            roles=self.access,
            clock=self.clock,
            ids=self.ids,
        )
        self.worker = RegistrationWorker(
            work=self.work, tasks=self.tasks, contents=self.contents, after_step=self.step_was_taken
        )

    def settle(self) -> None:
        self.make_bucket()
        self.role_arn = self.make_role("bulk", policy(("Allow", "s3:GetObject", f"arn:aws:s3:::{BUCKET}/*")))

    def step_was_taken(self, step: str) -> None:
        self.steps.append(step)
        if step == self.cut_after:
            raise Cut

    def restart(self) -> None:
        self.cut_after = None
        self.contents.close()
        self.compose()

    async def certificate(self) -> str:
        key = new_key(DeviceKeyType.EC_P256).public_key()
        issued = await self.work.run(lambda tx: self.registry.certificates.issue(tx, self.place, public_key=key, active=False))
        return str(issued.id)

    async def file(self, lines: Sequence[object]) -> None:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        await self.upload(KEY, text.encode())

    async def begin(self, template: str = NO_CERTIFICATE, **more: Any) -> RegistrationTask:
        given = {"bucket": BUCKET, "key": KEY, "role_arn": self.role_arn, **more}
        return await self.work.run(
            lambda tx: self.tasks.start(tx, self.place, template_body=template, source_ip="192.0.2.7", **given)
        )

    async def drive(self) -> None:
        while await self.worker.run_once():
            pass

    async def find(self, task: RegistrationTask) -> RegistrationTask:
        return await self.work.read(lambda tx: self.tasks.find(tx, self.account, task.id))

    async def report(self, task: RegistrationTask, type: ReportType) -> list[dict[str, Any]]:
        rows = await self.work.read(lambda tx: self.tasks.lines(tx, self.account, task.id, type, after=0, limit=10_000))
        return [json.loads(row.text) for row in rows]

    async def things(self) -> int:
        return await self.work.read(lambda tx: self.registry.devices.count(tx, self.account))


@pytest.fixture
def road(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> BulkRoad:
    road = BulkRoad(work, clock, ids, place, tmp_path)
    road.settle()
    return road


async def test_each_line_becomes_a_thing_or_an_error_with_its_number(road: BulkRoad) -> None:
    first, second = await road.certificate(), await road.certificate()
    lines = [
        {"Name": "dev-1", "Certificate": first},
        "",
        {"Name": "no/thing's name", "Certificate": second},
        {"Name": "dev-2", "Certificate": "f" * 64},
        {"Name": "dev-3"},
        {"Name": 4},
        "[]",
        {"Name": "dev-4", "Certificate": second, "Unused": "is no harm"},
    ]
    await road.file(lines)
    task = await road.begin(TEMPLATE)
    await road.drive()
    ended = await road.find(task)
    assert (ended.status, ended.successes, ended.failures, ended.percentage) == (TaskStatus.COMPLETED, 2, 5, 100)
    done = await road.report(task, ReportType.RESULTS)
    assert [(each["lineNumber"], each["thingName"], each["certificateId"]) for each in done] == [
        (1, "dev-1", first),
        (8, "dev-4", second),
    ]
    assert done[0]["resourceArns"]["t"] == road.place.iot("thing", "dev-1")
    errors = await road.report(task, ReportType.ERRORS)
    assert [(each["lineNumber"], each["errorCode"]) for each in errors] == [
        (3, "InvalidRequestException"),
        (4, "ResourceNotFoundException"),
        (5, "InvalidRequestException"),
        (6, "InvalidRequestException"),
        (7, "InvalidRequestException"),
    ]
    # What a line that failed had begun is gone.
    assert await road.things() == 2
    device = await road.work.read(lambda tx: road.room.provisioning.origin_of(tx, road.account, ThingName("dev-1")))
    assert device is not None
    assert (device.origin, device.source_ip) == (task.origin, "192.0.2.7")
    rows = await road.work.read(lambda tx: road.audit.in_chain_order(tx, road.account, after=None, limit=99))
    assert any(f"{road.place.iot('thing', 'dev-1')} from {task.origin}" == row.resource for row in rows)


@pytest.mark.parametrize("step", STEPS)
async def test_a_task_that_is_cut_after_a_step_goes_on_without_registering_twice(road: BulkRoad, step: str) -> None:
    await road.file([{"Name": f"dev-{number}"} for number in range(LINES_AT_ONCE + 3)])
    task = await road.begin()
    cuts = 0
    for _ in range(3):
        road.cut_after = step
        try:
            await road.drive()
        except Cut:
            cuts += 1
        road.restart()
    await road.drive()
    ended = await road.find(task)
    assert cuts >= 1
    assert (ended.status, ended.successes, ended.failures) == (TaskStatus.COMPLETED, LINES_AT_ONCE + 3, 0)
    assert await road.things() == LINES_AT_ONCE + 3
    assert [each["lineNumber"] for each in await road.report(task, ReportType.RESULTS)] == list(range(1, LINES_AT_ONCE + 4))


async def test_a_task_is_stopped_between_lines_and_what_is_registered_stays(road: BulkRoad) -> None:
    await road.file([{"Name": f"dev-{number}"} for number in range(LINES_AT_ONCE + 3)])
    task = await road.begin()
    await road.worker.run_once()
    for _ in range(2):
        await road.work.run(lambda tx: road.tasks.stop(tx, road.account, task.id))
    assert (await road.find(task)).status is TaskStatus.CANCELLING
    await road.drive()
    ended = await road.find(task)
    assert (ended.status, ended.successes, await road.things()) == (TaskStatus.CANCELLED, LINES_AT_ONCE, LINES_AT_ONCE)
    assert 0 < ended.percentage < 100
    await road.file([{"Name": "dev-0"}])
    again = await road.begin()  # an ended task makes room
    await road.drive()
    with pytest.raises(InvalidRequest, match="Completed already"):
        await road.work.run(lambda tx: road.tasks.stop(tx, road.account, again.id))


async def test_one_task_of_an_account_runs_at_a_time(road: BulkRoad) -> None:
    await road.file([{"Name": "dev-1"}])
    await road.begin()
    with pytest.raises(Conflict, match="one at a time"):
        await road.begin()


async def test_what_is_wrong_with_role_file_or_template_is_said_at_the_start(road: BulkRoad) -> None:
    await road.file([{"Name": "dev-1"}])
    with pytest.raises(InvalidRequest, match="input file"):
        await road.begin(key="another.jsonl")
    with pytest.raises(InvalidRequest, match="cannot be assumed"):
        await road.begin(role_arn=road.role_arn + "-not")
    other = road.make_role("blind", policy(("Allow", "s3:PutObject", "*")))
    with pytest.raises(AccessDenied):
        await road.begin(role_arn=other)
    with pytest.raises(InvalidRequest, match="Resources"):
        await road.begin("{}")


async def test_a_file_that_changes_or_goes_ends_its_task_and_the_version_of_the_start_is_read_meanwhile(road: BulkRoad) -> None:
    await road.file([{"Name": "dev-1"}])
    task = await road.begin()
    await road.file([{"Name": "dev-2"}])
    await road.drive()
    assert (await road.find(task)).status is TaskStatus.COMPLETED
    assert await road.work.read(lambda tx: road.registry.devices.has_thing(tx, road.account, ThingName("dev-1")))
    second = await road.begin()
    await road.work.run(lambda tx: road.objects.delete(tx, road.place, BUCKET, KEY, second.version))
    await road.drive()
    ended = await road.find(second)
    assert ended.status is TaskStatus.FAILED
    assert "input file" in ended.message

    road.make_bucket("plain", Versioning.NEVER)
    await road.upload(KEY, b'{"Name": "dev-3"}', bucket="plain")
    road.role_arn = road.make_role("plain", policy(("Allow", "s3:GetObject", "*")))
    third = await road.begin(bucket="plain")
    await road.upload(KEY, b'{"Name": "dev-4"}', bucket="plain")
    await road.drive()
    assert "has changed" in (await road.find(third)).message


async def test_a_task_and_its_reports_are_forgotten_after_thirty_days(road: BulkRoad, clock: SettableClock) -> None:
    await road.file([{"Name": "dev-1"}])
    task = await road.begin()
    await road.drive()
    clock.advance(milliseconds=REPORTS_KEPT_MS + 1)
    await road.drive()
    with pytest.raises(NotFound):
        await road.find(task)
