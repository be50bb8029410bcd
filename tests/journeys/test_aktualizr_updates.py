"""Updates of unmodified aktualizr over mutual TLS: assigned over plain REST, fetched, installed, reported, told of as jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.credentials import OwnPki
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.aktualizr.errors import TargetMismatch
from tests.support.authority import Authority
from tests.support.fleet_pki import FleetAuthority
from tests.support.scripted_https import Answer, ScriptedHttps
from tests.support.server_process import ServerProcess
from tests.support.uptane_road import DIRECTOR, HARDWARE_ID, USER_REPO, UptaneRoad


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UptaneRoad]:
    folder = tmp_path_factory.mktemp("updates")
    with ServerProcess(folder / "data") as server:
        yield UptaneRoad(server, folder / "devices")


@pytest.fixture(scope="module")
def fleet(road: UptaneRoad) -> FleetAuthority:
    return road.fleet()


def paths(device: Aktualizr, since: int = 0) -> list[str]:
    return [f"{call.method} {call.path} {call.status}" for call in device.calls[since:]]


def reports(road: UptaneRoad, device: Aktualizr) -> list[dict[str, object]]:
    return list(road.rest.expect(200, "GET", f"/api/v1/devices/{device.device_id}/installation_reports").json["values"])


@pytest.mark.parametrize("key_type", ["ED25519", "RSA2048", "RSA3072"])
def test_a_primary_is_updated_and_the_job_says_so(road: UptaneRoad, fleet: FleetAuthority, key_type: str) -> None:
    device = road.own_pki_device(fleet, f"car-{key_type}", key_type=key_type)
    assert device.cycle() is Outcome.NO_UPDATES, device.refusal
    name, data = road.new_image()
    correlation_id = road.assign(road.multi_target_update({HARDWARE_ID: (name, data)}), device.device_id)
    since = len(device.calls)

    assert device.cycle() is Outcome.INSTALLED, device.last_error

    assert paths(device, since) == [
        "PUT /director/manifest 200",
        f"GET /director/{max(device.storage.director.roots) + 1}.root.json 404",
        "GET /director/targets.json 200",
        "GET /repo/1.root.json 200",
        "GET /repo/2.root.json 404",
        "GET /repo/timestamp.json 200",
        "GET /repo/snapshot.json 200",
        "GET /repo/targets.json 200",
        f"GET /repo/targets/{name} 200",
        "POST /events 204",
        "POST /events 204",
        "PUT /director/manifest 200",
    ]
    assert device.package_manager.file_of(device.storage.installed[device.serial]) == data
    execution = road.execution(device, correlation_id)
    assert execution["status"] == "SUCCEEDED"
    assert road.assignments(device) == []
    (ecu,) = road.rest.expect(200, "GET", f"{DIRECTOR}/admin/devices/{device.device_id}").json
    assert ecu["image"]["filepath"] == name
    assert device.cycle() is Outcome.NO_UPDATES


def test_the_journal_and_the_history_tell_of_an_update(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-journal")
    device.cycle()
    name, data = road.new_image()
    correlation_id = road.assign(road.multi_target_update({HARDWARE_ID: (name, data)}), device.device_id)
    assert device.cycle() is Outcome.INSTALLED

    events = road.rest.expect(200, "GET", f"/api/v1/devices/{device.device_id}/events").json
    kinds = [event["eventType"]["id"] for event in (events["values"] if isinstance(events, dict) else events)]
    assert sorted(kinds) == [
        "EcuDownloadCompleted",
        "EcuDownloadStarted",
        "EcuInstallationCompleted",
        "EcuInstallationStarted",
    ]
    (report,) = reports(road, device)
    assert report["correlationId"] == correlation_id
    history = road.rest.expect(200, "GET", f"/api/v1/devices/{device.device_id}/installation_history").json["values"]
    assert name in json.dumps(history)


def test_what_a_device_tells_of_itself_is_there_to_be_read(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-talks")
    device.cycle()
    base = f"/api/v1/devices/{device.device_id}"
    assert road.rest.expect(200, "GET", f"{base}/system_info").json["class"] == "system"
    assert road.rest.expect(200, "GET", f"{base}/system_info/network").json["local_ipv4"] == "192.0.2.7"
    assert "polling_sec" in road.rest.expect(200, "GET", f"{base}/system_info/config").body.decode()
    (package,) = road.rest.expect(200, "GET", f"{base}/packages").json["values"]
    assert package["packageId"] == {"name": "fake-package", "version": "1.0"}


def test_one_image_goes_to_a_primary_and_its_secondary(road: UptaneRoad, fleet: FleetAuthority) -> None:
    secondary = road.secondary("dash-both", "cluster-s32")
    device = road.own_pki_device(fleet, "car-both", secondaries=[secondary])
    device.cycle()
    name, data = road.send(device, HARDWARE_ID, "cluster-s32")

    assert device.cycle() is Outcome.INSTALLED, device.last_error

    assert secondary.image == data
    assert [device.installed_image(), device.installed_image("dash-both")] == [name, name]
    assert paths(device).count(f"GET /repo/targets/{name} 200") == 1
    assert device.cycle() is Outcome.NO_UPDATES


def test_two_ecus_get_two_images_in_one_update_and_a_failure_of_one_is_told_by_its_hardware(
    road: UptaneRoad, fleet: FleetAuthority
) -> None:
    secondary = road.secondary("dash-two", "cluster-s32")
    device = road.own_pki_device(fleet, "car-two", secondaries=[secondary])
    device.cycle()
    images = {HARDWARE_ID: road.new_image(HARDWARE_ID), "cluster-s32": road.new_image("cluster-s32")}
    correlation_id = road.assign(road.multi_target_update(images), device.device_id)
    secondary.fails_with = "INSTALL_FAILED"

    assert device.cycle() is Outcome.INSTALL_FAILED

    execution = road.execution(device, correlation_id)
    assert execution["status"] == "FAILED"
    assert execution["statusDetails"]["detailsMap"]["resultCode"] == "cluster-s32:INSTALL_FAILED"
    assert device.installed_image() == images[HARDWARE_ID][0]
    assert device.cycle() is Outcome.NO_UPDATES


def test_an_update_that_needs_a_reboot_ends_after_it(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-reboots")
    device.cycle()
    name, data = road.new_image()
    correlation_id = road.assign(road.multi_target_update({HARDWARE_ID: (name, data)}), device.device_id)
    device.package_manager.needs_reboot = True
    assert device.cycle() is Outcome.NEEDS_REBOOT
    assert road.execution(device, correlation_id)["status"] == "IN_PROGRESS"

    device = device.restart()
    assert device.cycle() is Outcome.NO_UPDATES
    assert road.execution(device, correlation_id)["status"] == "SUCCEEDED"
    assert device.installed_image() == name


# What can't be installed.


def test_an_update_for_other_hardware_reaches_nobody_and_says_why(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-hardware")
    device.cycle()
    update = road.multi_target_update({"another-board": road.new_image("another-board")})
    body = {"correlationId": "urn:x:1", "devices": [device.device_id], "mtuId": update, "dryRun": True}

    dry = road.rest.expect(200, "POST", f"{DIRECTOR}/assignments", json_body=body).json
    real = road.rest.expect(400, "POST", f"{DIRECTOR}/assignments", json_body={**body, "dryRun": False}).json

    assert dry["affected"] == []
    assert real["affected"] == []
    (reason,) = dry["notAffected"][device.device_id].values()
    assert reason["code"]
    assert reason["description"]
    assert device.cycle() is Outcome.NO_UPDATES


def test_an_image_that_lost_its_hardware_after_it_was_assigned_is_refused_by_the_device_and_told(
    road: UptaneRoad, fleet: FleetAuthority
) -> None:
    device = road.own_pki_device(fleet, "car-mismatch")
    device.cycle()
    name, data = road.new_image()
    correlation_id = road.assign(road.multi_target_update({HARDWARE_ID: (name, data)}), device.device_id)
    check = device.check_updates()
    assert [target.name for target in check.updates] == [name]
    road.rest.expect(200, "PATCH", f"{USER_REPO}/targets/{name}", json_body={"hardwareIds": ["another-board"]})

    assert device.cycle() is Outcome.CHECK_FAILED

    assert isinstance(device.last_error, TargetMismatch)
    execution = road.execution(device, correlation_id)
    assert execution["status"] == "FAILED"
    assert execution["statusDetails"]["detailsMap"]["resultCode"] == "VERIFICATION_FAILED"
    assert device.cycle() is Outcome.NO_UPDATES


# Downloads.


def test_an_interrupted_download_is_gone_on_with_by_range(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-resumes")
    device.cycle()
    image = road.new_image(content=bytes(range(256)) * 4096)
    road.assign(road.multi_target_update({HARDWARE_ID: image}), device.device_id)
    device.package_manager.cut_after_bytes = [300_000, 200_000]

    assert device.cycle() is Outcome.INSTALLED

    asked = [call for call in device.calls if call.path == f"/repo/targets/{image[0]}"]
    assert [call.status for call in asked] == [200, 206, 206]
    assert b"\r\nRange: bytes=" in asked[2].request
    assert device.package_manager.file_of(device.storage.installed[device.serial]) == image[1]


@pytest.mark.parametrize("name", ["gateway 2.1+ä.bin", "a~b_c-d.e/f/g"])
def test_names_are_found_as_aktualizr_escapes_them(road: UptaneRoad, fleet: FleetAuthority, name: str) -> None:
    if not name.isascii():
        query = {"name": "x", "version": "1", "hardwareIds": HARDWARE_ID, "targetFormat": "BINARY"}
        refused = road.rest.ask("PUT", f"{USER_REPO}/targets/gateway%202.1%2B%C3%A4.bin", body=b"x", query=query)
        assert refused.status == 400
        name = name.replace("ä", "a")
    device = road.own_pki_device(fleet, road.name("car-escapes"))
    device.cycle()
    data = name.encode() * 100
    road.upload(name, data, HARDWARE_ID)
    road.assign(road.multi_target_update({HARDWARE_ID: (name, data)}), device.device_id)
    assert device.cycle() is Outcome.INSTALLED, device.last_error


def test_an_image_that_lies_elsewhere_is_fetched_there_and_its_old_address_redirects(
    road: UptaneRoad, fleet: FleetAuthority, tmp_path: Path
) -> None:
    device = road.own_pki_device(fleet, "car-external")
    device.cycle()
    data = b"lies elsewhere " * 1000
    elsewhere = Authority()
    with ScriptedHttps(elsewhere, lambda _: Answer(200, data), asks_certificate=False) as host:
        body = {
            "uri": f"{host.url}/images/external-1.0",
            "checksum": {"method": "sha256", "hash": hashlib.sha256(data).hexdigest()},
            "length": len(data),
            "name": "external",
            "version": "1.0",
            "hardwareIds": [HARDWARE_ID],
            "targetFormat": "BINARY",
        }
        road.rest.expect(200, "POST", f"{USER_REPO}/targets/external-1.0", json_body=body)
        trusted = device.configuration.credentials
        assert isinstance(trusted, OwnPki)
        trusted.anchors.write_text(trusted.anchors.read_text() + elsewhere.pem.decode())
        device = device.restart()
        road.assign(road.multi_target_update({HARDWARE_ID: ("external-1.0", data)}), device.device_id)

        assert device.cycle() is Outcome.INSTALLED, device.last_error
        assert [received.path for received in host.received] == ["/images/external-1.0"]

        taken: list[bytes] = []
        device.curl.download(f"{road.device_url}/repo/targets/external-1.0", lambda each: not taken.append(each))
        assert b"".join(taken) == data
        assert paths(device)[-2:] == ["GET /repo/targets/external-1.0 302", "GET /images/external-1.0 200"]


# Cancelling.


def test_an_assignment_that_was_never_fetched_is_cancelled_by_empty_targets(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-before")
    device.cycle()
    road.send(device)
    assert road.cancel(device).status in (200, 204)
    assert device.cycle() is Outcome.NO_UPDATES
    assert device.installed_image() is None


def test_an_assignment_that_was_fetched_is_cancelled_by_force_and_the_device_stays_with_what_it_has(
    road: UptaneRoad, fleet: FleetAuthority
) -> None:
    secondary = road.secondary("dash-stays", "cluster-s32")
    device = road.own_pki_device(fleet, "car-after", secondaries=[secondary])
    device.cycle()
    first, _ = road.send(device, HARDWARE_ID, "cluster-s32")
    assert device.cycle() is Outcome.INSTALLED
    name, data = road.new_image(HARDWARE_ID)
    correlation_id = road.assign(road.multi_target_update({HARDWARE_ID: (name, data)}), device.device_id)
    assert [target.name for target in device.check_updates().updates] == [name]

    refused = road.cancel(device)
    assert (refused.status, refused.code) == (409, "assignment_in_flight")
    assert road.cancel(device, force=True).status in (200, 204)

    assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    assert device.installed_image() == first
    assert road.execution(device, correlation_id)["status"] == "CANCELED"


def test_a_device_that_never_told_what_it_runs_drops_a_cancelled_assignment_since_the_director_has_a_new_root(
    road: UptaneRoad, fleet: FleetAuthority
) -> None:
    device = road.own_pki_device(fleet, "car-unknown")
    device.cycle()
    name, _ = road.send(device)
    assert [target.name for target in device.check_updates().updates] == [name]
    newest = max(device.storage.director.roots)

    assert road.cancel(device, force=True).status in (200, 204)

    # Empty targets alone would leave what is stored in force (Uptane reference §5.4).
    assert device.cycle() is Outcome.NO_UPDATES
    assert device.installed_image() is None
    assert max(device.storage.director.roots) == newest + 1


# Reports.


def test_a_manifest_that_is_played_again_is_refused_and_noted(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-replay")
    device.cycle()
    recorded = next(call for call in device.calls if call.path == "/director/manifest").request.partition(b"\r\n\r\n")[2]

    answer = device.curl.put(f"{road.device_url}/director/manifest", recorded)

    assert answer.status == 400
    assert jsoncpp.parse(answer.body)["code"]
    assert jsoncpp.parse(answer.body)["field"].endswith("report_counter")
    assert device.cycle() is Outcome.NO_UPDATES
    assert device.calls[-3].status == 200


def test_a_manifest_signed_by_another_key_is_refused(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device, other = road.own_pki_device(fleet, "car-signs"), road.own_pki_device(fleet, "car-forges")
    device.cycle()
    other.cycle()
    forged = other.provisioner.key.signed(device.manifest()["signed"])  # type: ignore[arg-type]
    answer = device.curl.put(f"{road.device_url}/director/manifest", jsoncpp.bytes_of(forged))
    assert (answer.status, jsoncpp.parse(answer.body)["code"]) == (400, "signature_not_valid")


def test_a_report_whose_answer_was_lost_comes_twice_and_counts_once(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-twice")
    device.cycle()
    name, data = road.new_image()
    correlation_id = road.assign(road.multi_target_update({HARDWARE_ID: (name, data)}), device.device_id)
    check = device.check_updates()
    assert device.download(check.updates) is Outcome.INSTALLED
    device.install(check.updates)
    kept = (device.storage.device_result, dict(device.storage.ecu_results))
    assert device.put_manifest()
    device.storage.device_result, device.storage.ecu_results = kept
    assert device.put_manifest()

    assert len(reports(road, device)) == 1
    assert road.execution(device, correlation_id)["status"] == "SUCCEEDED"


def test_events_that_come_twice_stand_in_the_journal_once(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-events")
    device.cycle()
    road.send(device)
    device.cycle()
    posted = [call.request.partition(b"\r\n\r\n")[2] for call in device.calls if call.path == "/events"]
    for body in posted:
        assert device.curl.post(f"{road.device_url}/events", body).status == 204
    events = road.rest.expect(200, "GET", f"/api/v1/devices/{device.device_id}/events").json
    assert len(events["values"] if isinstance(events, dict) else events) == 4


def test_too_many_events_at_once_are_halved_until_they_are_taken(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-away")
    device.cycle()
    for number in range(6000):
        device._queue.enqueue("DevicePaused", correlation_id=f"urn:long-away:{number:0>80}")
    statuses = []
    while (status := device.flush_events()) is not None:
        statuses.append(status)
    assert statuses[0] == 413
    assert statuses[-1] == 204
    assert set(statuses) == {204, 413}


# ECUs.


def test_a_secondary_that_was_replaced_is_registered_anew_and_its_serial_never_comes_back(
    road: UptaneRoad, fleet: FleetAuthority
) -> None:
    old, new = road.secondary("dash-old", "cluster-s32"), road.secondary("dash-new", "cluster-s32")
    device = road.own_pki_device(fleet, "car-workshop", secondaries=[old])
    device.cycle()
    device = device.restart(secondaries=[new])
    assert device.cycle() is Outcome.NO_UPDATES, device.refusal
    assert paths(device)[0] == "POST /director/ecus 200"
    _, data = road.send(device, "cluster-s32")
    assert device.cycle() is Outcome.INSTALLED
    assert new.image == data

    device = device.restart(secondaries=[old])
    assert device.cycle() is Outcome.NOT_PROVISIONED
    assert device.refusal is not None
    assert (device.refusal.status, device.refusal.code) == (409, "ecu_reuse_not_allowed")


def test_ecus_are_not_replaced_while_an_assignment_runs(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-busy")
    device.cycle()
    road.send(device)
    assert device.check_updates().updates
    device = device.restart(secondaries=[road.secondary("dash-late", "cluster-s32")])
    assert device.cycle() is Outcome.NOT_PROVISIONED
    assert device.refusal is not None
    assert (device.refusal.status, device.refusal.code) == (412, "replace_ecu_assignment_exists")


def test_another_key_for_a_known_ecu_waits_for_an_operators_word(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-rekeyed", primary_serial="gw-rekeyed")
    device.cycle()
    device.storage.primary_key, device.storage.ecus = None, []
    device = device.restart()
    assert device.cycle() is Outcome.NOT_PROVISIONED
    assert device.refusal is not None
    assert device.refusal.status == 409

    approval = f"{DIRECTOR}/admin/devices/{device.device_id}/ecus/gw-rekeyed/public_key/approval"
    road.rest.expect(200, "PUT", approval)
    assert device.restart().cycle() is Outcome.NO_UPDATES


# Campaigns.


def test_a_campaign_waits_for_the_drivers_word(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-driver")
    device.cycle()
    group = road.name("group")
    made = road.rest.expect((200, 201), "POST", "/api/v1/device_groups", json_body={"name": group, "groupType": "static"}).json
    identity = made if isinstance(made, str) else made["id"]
    road.rest.expect((200, 204), "POST", f"/api/v1/device_groups/{identity}/devices/{device.device_id}")
    name, data = road.new_image()
    body = {
        "name": "spring update",
        "update": road.multi_target_update({HARDWARE_ID: (name, data)}),
        "groups": [identity],
        "metadata": [{"type": "DESCRIPTION", "value": "Brakes better."}],
        "approvalNeeded": True,
    }
    made = road.rest.expect(201, "POST", "/api/v1/campaigns", json_body=body).json
    campaign = made if isinstance(made, str) else made["id"]
    road.rest.expect((200, 204), "POST", f"/api/v1/campaigns/{campaign}/launch")

    assert device.cycle() is Outcome.NO_UPDATES
    (waiting,) = device.campaigns()
    assert waiting["name"] == "spring update"
    assert waiting["metadata"] == [{"type": "DESCRIPTION", "value": "Brakes better."}]
    assert device.decide_campaign(str(waiting["id"]), "accepted") == 204
    assert device.cycle() is Outcome.INSTALLED
    assert device.campaigns() == []
