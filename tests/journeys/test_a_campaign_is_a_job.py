"""A campaign is a job: vehicles as aktualizr, operators over plain REST and with boto3, one rollout engine below both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.device_process import wait_until
from tests.support.fleet_pki import FleetAuthority
from tests.support.operator_rest import OperatorRest, RestReply
from tests.support.server_process import ServerProcess
from tests.support.uptane_road import HARDWARE_ID, UptaneRoad

DIRECTOR = "/api/v1/director"
SECONDARY_HARDWARE_ID = "cluster-s32"


class Road(UptaneRoad):
    """With images, updates and groups, each under a name of its own."""

    def __init__(self, server: ServerProcess, folder: Any) -> None:
        super().__init__(server, folder)
        self.iot: Any = server.client("iot")
        self.authority: FleetAuthority = self.fleet()

    def vehicle(self, *, group: str | None = None, secondaries: Any = ()) -> Aktualizr:
        """One that has polled once."""
        device = self.own_pki_device(self.authority, self.name("car"), secondaries=secondaries)
        assert device.cycle() is Outcome.NO_UPDATES, (device.refusal, device.last_error)
        if group is not None:
            self.iot.add_thing_to_thing_group(thingGroupName=group, thingName=device.device_id)
        return device

    def group(self) -> str:
        name = self.name("group")
        self.iot.create_thing_group(thingGroupName=name)
        return name

    def image(self, *hardware_ids: str, target_name: str = "") -> dict[str, Any]:
        """An uploaded image, as a multi-target update names it."""
        name, data = self.name("image"), self.name("content").encode() * 100
        query = {
            "name": target_name or name,
            "version": self.name("v"),
            "hardwareIds": ",".join(hardware_ids or (HARDWARE_ID,)),
            "targetFormat": "BINARY",
        }
        self.rest.expect((200, 204), "PUT", f"/api/v1/user_repo/targets/{name}", body=data, query=query)
        listed = json.loads(self.rest.expect(200, "GET", "/api/v1/user_repo/targets.json").body)["signed"]["targets"][name]
        return {
            "target": name,
            "checksum": {"method": "sha256", "hash": listed["hashes"]["sha256"]},
            "targetLength": listed["length"],
        }

    def update(self, **by_hardware: Any) -> str:
        """A multi-target update; by default a new image for the Primary."""
        targets = by_hardware or {HARDWARE_ID: self.image()}
        body = {"targets": {hardware: {"from": None, "to": to} for hardware, to in targets.items()}}
        return str(self.rest.expect(201, "POST", f"{DIRECTOR}/multi_target_updates", json_body=body).json)

    def campaign(self, update: str, group: str, **more: Any) -> str:
        body = {"name": self.name("campaign"), "update": update, "groups": [group], **more}
        return str(self.rest.expect(201, "POST", "/api/v1/campaigns", json_body=body).json)

    def execution(self, job: str, device: Aktualizr) -> dict[str, Any]:
        return dict(self.iot.describe_job_execution(jobId=job, thingName=device.device_id)["execution"])

    def assign(self, update: str, *devices: Aktualizr, **more: Any) -> RestReply:
        body = {"mtuId": update, "devices": [device.device_id for device in devices], **more}
        return self.rest.ask("POST", f"{DIRECTOR}/assignments", json_body=body)

    def assigned(self, device: Aktualizr) -> list[dict[str, Any]]:
        return list(self.rest.expect(200, "GET", f"{DIRECTOR}/assignments/{device.device_id}").json)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder = tmp_path_factory.mktemp("campaigns")
    with ServerProcess(folder / "data") as server:
        yield Road(server, folder / "devices")


def test_boto3_shows_a_campaigns_execution_from_its_launch_to_its_end(road: Road) -> None:
    group = road.group()
    car, other = road.vehicle(group=group), road.vehicle(group=group)
    campaign = road.campaign(road.update(), group)
    job = road.rest.expect(200, "POST", f"/api/v1/campaigns/{campaign}/launch").json["jobId"]
    assert road.execution(job, car)["status"] == "QUEUED"

    assert car.cycle() is Outcome.INSTALLED, car.last_error
    ended = road.execution(job, car)
    assert ended["status"] == "SUCCEEDED"
    details = ended["statusDetails"]["detailsMap"]
    assert details["resultCode"] == "OK"
    assert details["correlationId"] == f"urn:here-ota:campaign:{campaign}"

    assert other.cycle() is Outcome.INSTALLED
    assert road.iot.describe_job(jobId=job)["job"]["status"] == "COMPLETED"
    shown = road.rest.expect(200, "GET", f"/api/v1/campaigns/{campaign}").json
    assert (shown["status"], shown["jobId"]) == ("finished", job)
    stats = road.rest.expect(200, "GET", f"/api/v1/campaigns/{campaign}/stats").json
    assert (stats["affected"], stats["successful"], stats["failed"]) == (2, 2, 0)


def test_one_image_reaches_primary_and_secondary(road: Road) -> None:
    secondary = road.secondary(road.name("dash"), SECONDARY_HARDWARE_ID)
    car = road.vehicle(secondaries=[secondary])
    image = road.image(HARDWARE_ID, SECONDARY_HARDWARE_ID)
    update = road.update(**{HARDWARE_ID: image, SECONDARY_HARDWARE_ID: image})
    assert road.assign(update, car).status == 201
    assert car.cycle() is Outcome.INSTALLED, car.last_error
    assert car.cycle() is Outcome.NO_UPDATES
    ecus = road.rest.expect(200, "GET", f"{DIRECTOR}/admin/devices/{car.device_id}").json
    assert {ecu["id"]: ecu["image"]["filepath"] for ecu in ecus} == dict.fromkeys(
        (car.serial, secondary.serial), image["target"]
    )


def test_a_dry_run_tells_each_devices_reason_and_changes_nothing(road: Road) -> None:
    fit, done, busy = road.vehicle(), road.vehicle(), road.vehicle()
    update = road.update()
    assert road.assign(update, done).status == 201
    assert done.cycle() is Outcome.INSTALLED
    assert road.assign(road.update(), busy).status == 201
    reply = road.assign(update, fit, done, busy, dryRun=True)
    assert reply.status == 200
    assert reply.json["affected"] == [fit.device_id]
    reasons = {device: next(iter(ecus.values()))["code"] for device, ecus in reply.json["notAffected"].items()}
    assert reasons == {
        done.device_id: "installed_target_is_update",
        busy.device_id: "not_affected_running_assignment",
    }
    assert road.assigned(fit) == []

    foreign = road.update(**{"another-board": road.image("another-board")})
    refused = road.assign(foreign, fit)
    assert refused.status == 400
    assert refused.json["notAffected"][fit.device_id][fit.serial]["code"] == "device_no_compatible_hardware"


def test_an_assignment_in_flight_is_cancelled_by_force_alone_and_never_installed(road: Road) -> None:
    car = road.vehicle()
    assert road.assign(road.update(), car).status == 201
    assert car.cycle() is Outcome.INSTALLED
    runs = car.installed_image()
    assert road.assign(road.update(), car).status == 201
    check = car.check_updates()
    assert len(check.updates) == 1
    assert [each["inFlight"] for each in road.assigned(car)] == [True]
    job = road.assigned(car)[0]["jobId"]

    path = f"{DIRECTOR}/assignments/{car.device_id}"
    assert road.rest.expect(409, "PATCH", path).code == "assignment_in_flight"
    road.rest.expect(204, "PATCH", path, headers={"x-trx-force": "true"})

    assert road.execution(job, car)["status"] == "CANCELED"
    assert car.cycle() is Outcome.NO_UPDATES, car.last_error
    assert car.restart().cycle() is Outcome.NO_UPDATES
    assert car.installed_image() == runs


def test_cancelled_before_its_first_update_the_vehicle_drops_it_for_a_new_root(road: Road) -> None:
    car = road.vehicle()
    assert road.assign(road.update(), car).status == 201
    assert len(car.check_updates().updates) == 1
    road.rest.expect(204, "PATCH", f"{DIRECTOR}/assignments/{car.device_id}", headers={"x-trx-force": "true"})
    assert car.cycle() is Outcome.NO_UPDATES, car.last_error
    assert car.installed_image() is None


def test_a_device_that_fails_shows_its_code_and_a_retry_takes_it_up(road: Road) -> None:
    group = road.group()
    car = road.vehicle(group=group)
    campaign = road.campaign(road.update(), group)
    job = road.rest.expect(200, "POST", f"/api/v1/campaigns/{campaign}/launch").json["jobId"]
    car.package_manager.fetch_target = lambda target, curl: False  # type: ignore[method-assign]
    assert car.cycle() is Outcome.DOWNLOAD_FAILED
    failed = road.execution(job, car)
    assert failed["status"] == "FAILED"
    assert failed["statusDetails"]["detailsMap"]["resultCode"] == "DOWNLOAD_FAILED"
    [failure] = road.rest.expect(200, "GET", f"/api/v1/campaigns/{campaign}/stats").json["failures"]
    assert failure == {"code": "DOWNLOAD_FAILED", "count": 1, "retryStatus": "not_launched"}
    listed = road.rest.expect(200, "GET", f"/api/v1/campaigns/{campaign}/failed-installations.csv").body.decode()
    assert listed.splitlines()[1].startswith(f"{car.device_id};DOWNLOAD_FAILED;")

    retry = road.rest.expect(
        201, "POST", f"/api/v1/campaigns/{campaign}/retry-failed", json_body={"failureCode": "DOWNLOAD_FAILED"}
    ).json
    assert car.restart().cycle() is Outcome.INSTALLED
    shown = road.rest.expect(200, "GET", f"/api/v1/campaigns/{retry}").json
    assert (shown["status"], shown["mainCampaignId"]) == ("finished", campaign)


def post_event(car: Aktualizr, kind: str, campaign: str) -> None:
    event = {
        "id": f"{kind}-{campaign}",
        "deviceTime": "2026-05-01T10:00:03Z",
        "eventType": {"id": kind, "version": 0},
        "event": {"campaignId": campaign},
    }
    answer = car.curl.post(f"{car.server_url}/events", jsoncpp.bytes_of([event]))
    assert 200 <= answer.status < 300


def waiting(car: Aktualizr) -> list[dict[str, Any]]:
    answer = car.curl.get(f"{car.server_url}/campaigner/campaigns", size_bytes_max=65536)
    return list(json.loads(answer.body)["campaigns"])


def test_a_campaign_that_needs_approval_waits_for_the_drivers_word(road: Road) -> None:
    group = road.group()
    willing, unwilling = road.vehicle(group=group), road.vehicle(group=group)
    metadata = [{"type": "DESCRIPTION", "value": "Fewer squeaks."}]
    campaign = road.campaign(road.update(), group, approvalNeeded=True, metadata=metadata)
    job = road.rest.expect(200, "POST", f"/api/v1/campaigns/{campaign}/launch").json["jobId"]

    assert willing.cycle() is Outcome.NO_UPDATES
    [shown] = waiting(willing)
    assert (shown["id"], shown["autoAccept"], shown["metadata"]) == (campaign, False, metadata)
    assert shown["size"] > 0
    post_event(willing, "campaign_postponed", campaign)
    assert willing.cycle() is Outcome.NO_UPDATES
    assert len(waiting(willing)) == 1
    post_event(willing, "campaign_accepted", campaign)
    assert waiting(willing) == []
    assert willing.cycle() is Outcome.INSTALLED

    post_event(unwilling, "campaign_declined", campaign)
    assert road.execution(job, unwilling)["status"] == "REJECTED"
    assert unwilling.cycle() is Outcome.NO_UPDATES
    assert road.rest.expect(200, "GET", f"/api/v1/campaigns/{campaign}").json["status"] == "finished"


def test_a_job_of_boto3_reaches_vehicles_and_things_each_on_its_own_road(road: Road) -> None:
    group = road.group()
    car = road.vehicle(group=group)
    plain = road.name("esp")
    road.iot.create_thing(thingName=plain)
    road.iot.add_thing_to_thing_group(thingGroupName=group, thingName=plain)
    job = road.name("mixed")
    arn = road.iot.describe_thing_group(thingGroupName=group)["thingGroupArn"]
    document = {"operation": "update", "uptane": {"multiTargetUpdate": road.update()}}
    road.iot.create_job(jobId=job, targets=[arn], document=json.dumps(document))
    assert car.cycle() is Outcome.INSTALLED
    data: Any = road.server.client("iot-jobs-data")
    assert data.get_pending_job_executions(thingName=plain)["queuedJobs"][0]["jobId"] == job
    data.update_job_execution(jobId=job, thingName=plain, status="SUCCEEDED")
    described = road.iot.describe_job(jobId=job)["job"]
    assert described["status"] == "COMPLETED"
    assert described["jobProcessDetails"]["numberOfSucceededThings"] == 2


def test_nobody_says_over_the_jobs_api_how_a_vehicles_update_went(road: Road) -> None:
    car = road.vehicle()
    assert road.assign(road.update(), car).status == 201
    job = road.assigned(car)[0]["jobId"]
    data: Any = road.server.client("iot-jobs-data")
    with pytest.raises(data.exceptions.InvalidRequestException, match="signed manifest"):
        data.update_job_execution(jobId=job, thingName=car.device_id, status="SUCCEEDED")


def test_a_new_file_of_a_target_name_is_assigned_by_itself(road: Road) -> None:
    car = road.vehicle()
    target_name = road.name("firmware")
    road.image(target_name=target_name)
    path = f"{DIRECTOR}/admin/devices/{car.device_id}/ecus/{car.serial}/auto_update"
    road.rest.expect(204, "PUT", f"{path}/{target_name}")
    assert road.rest.expect(200, "GET", path).json == [target_name]
    assert car.cycle() is Outcome.NO_UPDATES, "what was there before isn't new"
    image = road.image(target_name=target_name)
    wait_until(lambda: road.assigned(car), what=lambda: "nobody assigned it")
    assert car.cycle() is Outcome.INSTALLED
    assert car.installed_image() == image["target"]


def test_what_a_vehicle_tells_is_shown_and_secrets_are_not(road: Road) -> None:
    car = road.vehicle()
    path = f"/api/v1/devices/{car.device_id}"
    record = road.rest.expect(200, "GET", path).json
    assert (record["deviceId"], record["deviceStatus"]) == (car.device_id, "UpToDate")
    assert record["lastSeen"]
    by_id = road.rest.expect(200, "GET", f"/api/v1/devices/{record['uuid']}").json
    assert by_id == record
    road.rest.expect(200, "PUT", path, json_body={"notes": "the blue one"})
    assert road.rest.expect(200, "GET", path).json["notes"] == "the blue one"
    network = road.rest.expect(200, "GET", f"{path}/system_info/network").json
    assert set(network) == {"hostname", "local_ipv4", "mac"}
    toml = b'[provision]\np12_password = "hunter2"\nprovision_path = "/var/sota"\n'
    answer = car.curl.post(f"{car.server_url}/system_info/config", toml)
    assert 200 <= answer.status < 300
    config = road.rest.expect(200, "GET", f"{path}/system_info/config").json
    assert config["provision"] == {"p12_password": "(redacted)", "provision_path": "/var/sota"}
    kept = [path for path in road.server.data.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert kept == []


def test_rights_to_one_vehicle_reach_no_other_whatever_it_is_called(road: Road) -> None:
    mine, other = road.vehicle(), road.vehicle()
    iam, user = road.server.client("iam"), road.name("user")
    iam.create_user(UserName=user)
    arn = road.iot.describe_thing(thingName=mine.device_id)["thingArn"]
    actions = ["overair:DescribeUptaneDevice", "overair:DescribeAssignments", "overair:AssignMultiTargetUpdate"]
    # Written as the engine sees labels: the UUID of either vehicle passes the first look, and must fail at the second.
    resources = [arn, *[arn.replace(mine.device_id, uuid_of(road, car)) for car in (mine, other)]]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": resources}]}
    iam.put_user_policy(UserName=user, PolicyName="one", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    limited = OperatorRest(
        road.server.endpoints["operator_url"],
        road.server.endpoints["ca_file"],
        client_id=key["AccessKeyId"],
        client_secret=key["SecretAccessKey"],
    )
    for said in (mine.device_id, uuid_of(road, mine)):
        limited.expect(200, "GET", f"/api/v1/devices/{said}")
        limited.expect(200, "GET", f"{DIRECTOR}/assignments/{said}")
    for said in (other.device_id, uuid_of(road, other)):
        for path in (f"/api/v1/devices/{said}", f"{DIRECTOR}/assignments/{said}", f"{DIRECTOR}/vehicles/{said}"):
            assert limited.ask("GET", path).code == "access_denied", path
    update = road.update()
    for said in (other.device_id, uuid_of(road, other)):
        body = {"mtuId": update, "devices": [mine.device_id, said]}
        assert limited.ask("POST", f"{DIRECTOR}/assignments", json_body=body).code == "access_denied"
    assert road.assigned(mine) == road.assigned(other) == []
    limited.expect(201, "POST", f"{DIRECTOR}/assignments", json_body={"mtuId": update, "devices": [mine.device_id]})


def uuid_of(road: Road, car: Aktualizr) -> str:
    return str(road.rest.expect(200, "GET", f"/api/v1/devices/{car.device_id}").json["uuid"])
