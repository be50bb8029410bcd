"""Operators' routes of the Director on the whole server, with vehicles that are aktualizr: what the journeys don't walk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.director_room import EcuKey
from tests.support.uptane_world import HARDWARE_ID, SECOND_HARDWARE_ID, UptaneWorld
from tests.support.whole_server import Template

DIRECTOR = "/api/v1/director"
ADMIN = f"{DIRECTOR}/admin/devices"
DEVICES = "/api/v1/devices"
GROUPS = "/api/v1/device_groups"
CAMPAIGNS = "/api/v1/campaigns"
FORCED = {"x-trx-force": "true"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def world(template: Template, tmp_path: Path) -> Iterator[UptaneWorld]:
    server = template.open(tmp_path / "data")
    yield UptaneWorld(server, tmp_path)
    server.close()


def polled(world: UptaneWorld, name: str, **options: Any) -> Aktualizr:
    device = world.device(name, **options)
    assert device.cycle() is Outcome.NO_UPDATES, (device.refusal, device.last_error)
    return device


def got(world: UptaneWorld, path: str, **options: Any) -> Any:
    return world.expect(200, "GET", path, **options).json


def update(world: UptaneWorld, *hardware_ids: str) -> str:
    """A new image for all of these, as a multi-target update."""
    hardware_ids = hardware_ids or (HARDWARE_ID,)
    name, _ = world.upload(*hardware_ids)
    listed = got(world, "/api/v1/user_repo/targets.json")["signed"]["targets"][name]
    to = {
        "target": name,
        "checksum": {"method": "sha256", "hash": listed["hashes"]["sha256"]},
        "targetLength": listed["length"],
    }
    body = {"targets": {hardware_id: {"from": None, "to": to} for hardware_id in hardware_ids}}
    return str(world.expect(201, "POST", f"{DIRECTOR}/multi_target_updates", json_body=body).json)


def group_of(world: UptaneWorld, name: str, *devices: Aktualizr) -> str:
    """A new group's id."""
    group = str(world.expect(201, "POST", GROUPS, json_body={"name": name, "groupType": "static"}).json)
    for device in devices:
        world.expect(200, "POST", f"{GROUPS}/{group}/devices/{device.device_id}")
    return group


# Multi-target updates and assignments ----------------------------------------------------------------------------------------


def test_a_multi_target_update_is_shown_as_it_was_given_without_its_wrapper(world: UptaneWorld) -> None:
    made = update(world)
    shown = got(world, f"{DIRECTOR}/multi_target_updates/{made}")
    assert list(shown) == [HARDWARE_ID]
    assert shown[HARDWARE_ID]["to"]["target"] == "image-1"
    assert shown[HARDWARE_ID]["from"] is None
    missing = world.ask("GET", f"{DIRECTOR}/multi_target_updates/00000000-0000-0000-0000-000000000000")
    assert (missing.status, missing.code) == (404, "missing_entity")


def test_a_multi_target_update_that_names_nothing_is_refused(world: UptaneWorld) -> None:
    for body in (
        {},
        {"targets": {}},
        {"targets": {"gw": {}}},
        {"targets": {"gw": {"to": {"target": "x", "checksum": {"method": "md5", "hash": "00"}, "targetLength": 1}}}},
        {"targets": []},
    ):
        refused = world.ask("POST", f"{DIRECTOR}/multi_target_updates", json_body=body)
        assert (refused.status, refused.code) == (400, "invalid_mtu"), body


def test_assignments_of_several_devices_are_listed_and_cancelled_together(world: UptaneWorld) -> None:
    first, second, third = (polled(world, name) for name in ("car-a", "car-b", "car-c"))
    made = update(world)
    ids = ",".join(device.device_id for device in (first, second, third))
    assert got(world, f"{DIRECTOR}/assignments/devices", query={"mtuId": made, "ids": ids}) == ids.split(",")
    body = {"mtuId": made, "devices": [first.device_id, second.device_id]}
    world.expect(201, "POST", f"{DIRECTOR}/assignments", json_body=body)
    listed = got(world, f"{DIRECTOR}/assignments", query={"ids": ids})
    assert {device: len(rows) for device, rows in listed.items()} == {"car-a": 1, "car-b": 1, "car-c": 0}
    assert listed["car-a"][0]["targets"][first.serial]["image"]["filepath"] == "image-1"
    assert got(world, f"{DIRECTOR}/assignments/devices", query={"mtuId": made, "ids": ids}) == ["car-c"]

    assert len(second.check_updates().updates) == 1
    refused = world.ask("PATCH", f"{DIRECTOR}/assignments", json_body=ids.split(","))
    assert (refused.status, refused.code) == (409, "assignment_in_flight")
    assert len(got(world, f"{DIRECTOR}/assignments/car-a")) == 1, "all or none"
    cancelled = world.expect(200, "PATCH", f"{DIRECTOR}/assignments", json_body=ids.split(","), headers=FORCED).json
    assert cancelled == ["car-a", "car-b"]
    missing = world.ask("DELETE", f"{DIRECTOR}/assignments/car-a")
    assert (missing.status, missing.code) == (404, "missing_entity")
    bad = world.ask("PATCH", f"{DIRECTOR}/assignments/car-a", headers={"x-trx-force": "perhaps"})
    assert bad.status == 400


def test_what_is_no_assignment_is_refused_member_by_member(world: UptaneWorld) -> None:
    polled(world, "car")
    made = update(world)
    for body, status in (
        ([], 400),
        ({"devices": ["car"]}, 400),
        ({"mtuId": made, "devices": "car"}, 400),
        ({"mtuId": made, "devices": ["car"], "dryRun": "yes"}, 400),
        ({"mtuId": made, "devices": ["car"], "correlationId": ""}, 400),
        ({"mtuId": made, "devices": ["nobody"]}, 404),
        ({"mtuId": "no-such-update", "devices": ["car"]}, 404),
    ):
        assert world.ask("POST", f"{DIRECTOR}/assignments", json_body=body).status == status, body
    assert got(world, f"{DIRECTOR}/assignments/car") == []


# One vehicle -----------------------------------------------------------------------------------------------------------------


def test_one_answer_tells_everything_of_a_vehicle_and_the_way_its_assignment_was_taken_back(world: UptaneWorld) -> None:
    car = polled(world, "car", with_secondary=True)
    path = f"{DIRECTOR}/vehicles/car"
    shown = got(world, path)
    assert (shown["status"], shown["primary"], shown["cancelled"]) == ("UpToDate", car.serial, None)
    assert {ecu["serial"]: ecu["hardwareId"] for ecu in shown["ecus"]} == {
        car.serial: HARDWARE_ID,
        "car-dash": SECOND_HARDWARE_ID,
    }

    ways = []
    for fetches, installs_first in ((False, False), (True, False), (True, True)):
        if installs_first:
            world.expect(201, "POST", f"{DIRECTOR}/assignments", json_body={"mtuId": update(world), "devices": ["car"]})
            assert car.cycle() is Outcome.INSTALLED
            world.server.clock.advance(milliseconds=1000)
        both = update(world, HARDWARE_ID, SECOND_HARDWARE_ID) if not installs_first else update(world)
        world.expect(201, "POST", f"{DIRECTOR}/assignments", json_body={"mtuId": both, "devices": ["car"]})
        if fetches:
            assert car.check_updates().updates
        world.expect(204, "PATCH", f"{DIRECTOR}/assignments/car", headers=FORCED)
        assert car.cycle() is Outcome.NO_UPDATES, car.last_error
        ways.append(got(world, path)["cancelled"]["way"])
        world.server.clock.advance(milliseconds=1000)
    assert ways == ["never-fetched", "root-rotation", "stay"]
    shown = got(world, path)
    assert shown["told"]["targets"] == "stay"
    assert shown["told"]["rootVersion"] == 2
    assert [each["outcome"] for each in shown["assignments"]] == ["cancelled", "installed", "cancelled"]
    assert got(world, f"{DEVICES}/{got(world, f'{DEVICES}/car')['uuid']}")["deviceId"] == "car"
    by_uuid = got(world, f"{DIRECTOR}/vehicles/{got(world, f'{DEVICES}/car')['uuid']}")
    assert by_uuid == shown


def test_a_thing_without_ecus_is_no_vehicle(world: UptaneWorld) -> None:
    world.server.call("iot", "POST", "/things/plain", {})
    refused = world.ask("GET", f"{DIRECTOR}/vehicles/plain")
    assert refused.status == 404
    assert "registered no ECUs" in refused.json["description"]


def test_what_is_told_is_signed_anew_on_an_operators_word(world: UptaneWorld) -> None:
    car = polled(world, "car")
    before = got(world, f"{DIRECTOR}/vehicles/car")["told"]["version"]
    world.server.clock.advance(milliseconds=2000)
    world.expect(202, "PUT", f"{ADMIN}/car/targets.json")
    assert car.cycle() is Outcome.NO_UPDATES
    assert got(world, f"{DIRECTOR}/vehicles/car")["told"]["version"] > before


def test_an_ecu_shows_its_key_and_another_key_waits_for_an_operators_word(world: UptaneWorld) -> None:
    car = polled(world, "car")
    ecu = f"{ADMIN}/car/ecus/{car.serial}"
    assert got(world, f"{ecu}/public_key")["keytype"] == "ED25519"
    assert world.ask("GET", f"{ADMIN}/car/ecus/nobody/public_key").status == 404

    assert world.ask("PUT", f"{ecu}/public_key/approval").status == 404, "none waits"
    body = {
        "primary_ecu_serial": car.serial,
        "ecus": [
            {
                "ecu_serial": car.serial,
                "hardware_identifier": HARDWARE_ID,
                "clientKey": EcuKey().public_key.to_json(),
            }
        ],
    }
    assert register(car, body) == (409, "ecu_key_change_not_approved")
    shown = got(world, f"{DIRECTOR}/vehicles/car")
    assert [each["serial"] for each in shown["keysAwaitingApproval"]] == [car.serial]
    assert "key-change" in {anomaly["kind"] for anomaly in shown["anomalies"]}
    found = got(world, DEVICES, query={"anomalies": "true"})
    assert [each["deviceId"] for each in found["values"]] == ["car"]

    world.expect(204, "DELETE", f"{ecu}/public_key/approval")
    assert got(world, f"{DIRECTOR}/vehicles/car")["keysAwaitingApproval"] == []
    assert register(car, body)[0] == 409
    approved = world.expect(200, "PUT", f"{ecu}/public_key/approval").json
    assert approved["publicKey"] == body["ecus"][0]["clientKey"]  # type: ignore[index]
    assert register(car, body)[0] == 200

    world.expect(204, "DELETE", f"{ADMIN}/car/anomalies")
    assert got(world, DEVICES, query={"anomalies": "true"})["values"] == []


def register(car: Aktualizr, body: object) -> tuple[int, str]:
    answer = car.curl.post(f"{car.server_url}/director/ecus", json.dumps(body).encode())
    return answer.status, str(json.loads(answer.body).get("code", ""))


def test_a_counter_begins_again_only_on_an_operators_word(world: UptaneWorld) -> None:
    car = polled(world, "car")
    assert car.put_manifest()
    car.storage.report_counter = 0
    assert not car.put_manifest()
    assert got(world, f"{DIRECTOR}/vehicles/car")["anomalies"][0]["kind"] == "replay"
    world.expect(204, "DELETE", f"{ADMIN}/car/report_counter")
    car.storage.report_counter = 0
    assert car.put_manifest()


def test_fleets_are_listed_by_vehicle_by_hardware_and_by_what_runs(world: UptaneWorld) -> None:
    first, second = polled(world, "car-a", with_secondary=True), polled(world, "car-b")
    listed = got(world, ADMIN, query={"limit": "1"})
    assert (listed["total"], listed["offset"], listed["limit"]) == (2, 0, 1)
    assert [(each["id"], each["primaryEcu"]) for each in listed["values"]] == [("car-a", first.serial)]
    assert got(world, ADMIN, query={"offset": "1"})["values"][0]["id"] == "car-b"
    assert got(world, f"{ADMIN}/hardware_identifiers")["values"] == [SECOND_HARDWARE_ID, HARDWARE_ID]
    made = update(world)
    for device in (first, second):
        world.expect(201, "POST", f"{DIRECTOR}/assignments", json_body={"mtuId": made, "devices": [device.device_id]})
        assert device.cycle() is Outcome.INSTALLED
        assert device.cycle() is Outcome.NO_UPDATES
    counted = world.expect(
        200, "POST", f"{DIRECTOR}/admin/images/installed_count", json_body={"filepaths": ["image-1", "other"]}
    )
    assert counted.json == {"image-1": 2, "other": 0}
    assert world.ask("GET", ADMIN, query={"limit": "none"}).status == 400


def test_automatic_updates_are_set_listed_and_taken_away(world: UptaneWorld) -> None:
    car = polled(world, "car")
    rules = f"{ADMIN}/car/ecus/{car.serial}/auto_update"
    for target in ("firmware", "maps"):
        world.expect(204, "PUT", f"{rules}/{target}")
    assert got(world, rules) == ["firmware", "maps"]
    world.expect(204, "DELETE", f"{rules}/maps")
    assert got(world, rules) == ["firmware"]
    world.expect(204, "DELETE", rules)
    assert got(world, rules) == []
    assert world.ask("PUT", f"{ADMIN}/car/ecus/nobody/auto_update/firmware").status == 404


# Records ---------------------------------------------------------------------------------------------------------------------


def test_a_device_is_expected_comes_is_found_and_goes(world: UptaneWorld) -> None:
    body = {"deviceId": "car", "deviceName": "The first", "deviceType": "Vehicle"}
    made = world.expect(201, "POST", DEVICES, json_body=body)
    record = got(world, f"{DEVICES}/{made.json}")
    assert (record["deviceId"], record["deviceName"], record["deviceStatus"]) == ("car", "The first", "NotSeen")
    assert world.ask("POST", DEVICES, json_body=body).status == 409
    assert world.ask("POST", DEVICES, json_body={"deviceId": "not a name"}).status == 400
    assert world.ask("POST", DEVICES, json_body={"deviceId": "x", "deviceType": "Boat"}).status == 400

    car = polled(world, "car")
    polled(world, "bus")
    group = group_of(world, "fleet", car)
    for query, found in (
        ({}, ["bus", "car"]),
        ({"sortDirection": "desc"}, ["car", "bus"]),
        ({"nameContains": "FIRST"}, ["car"]),
        ({"deviceId": "bus"}, ["bus"]),
        ({"status": "UpToDate"}, ["bus", "car"]),
        ({"status": "Error"}, []),
        ({"groupId": group}, ["car"]),
        ({"hardwareIds": "other-board"}, []),
        ({"notSeenSinceHours": "1"}, []),
    ):
        shown = got(world, DEVICES, query=query)
        assert [each["deviceId"] for each in shown["values"]] == found, query
    for query in ({"status": "Lost"}, {"sortBy": "colour"}, {"anomalies": "some"}, {"groupId": "no-such"}):
        assert world.ask("GET", DEVICES, query=query).status in (400, 404)

    world.expect(200, "PATCH", f"{DEVICES}/car", json_body={"deviceName": "renamed"})
    assert got(world, f"{DEVICES}/car")["deviceName"] == "renamed"
    assert got(world, f"{DEVICES}/car/groups")["values"] == [group]
    world.expect(202, "DELETE", f"{DEVICES}/car")
    assert world.ask("GET", f"{DEVICES}/car").status == 404
    assert car.restart().cycle() is not Outcome.NO_UPDATES, "its name is kept out"


def test_history_reports_and_statistics_follow_what_was_installed(world: UptaneWorld) -> None:
    car = polled(world, "car", with_secondary=True)
    both = update(world, HARDWARE_ID, SECOND_HARDWARE_ID)
    body = {"mtuId": both, "devices": ["car"], "correlationId": "urn:here-ota:mtu:mine"}
    world.expect(201, "POST", f"{DIRECTOR}/assignments", json_body=body)
    assert car.cycle() is Outcome.INSTALLED
    assert car.cycle() is Outcome.NO_UPDATES
    assert car.flush_events() in (None, 204)

    history = got(world, f"{DEVICES}/car/installation_history")
    named = {row["ecu"]: row["filepath"] for row in history["values"] if row["correlationId"] == "urn:here-ota:mtu:mine"}
    assert named == {car.serial: "image-1", "car-dash": "image-1"}
    of_dash = got(world, f"{DEVICES}/car/ecus/car-dash/installation_history")
    assert of_dash["values"][0]["filepath"] == "image-1"
    [report] = got(world, f"{DEVICES}/car/installation_reports")["values"]
    assert (report["correlationId"], report["result"]["success"]) == ("urn:here-ota:mtu:mine", True)
    assert set(report["ecuReports"]) == {car.serial, "car-dash"}
    query = {"correlationId": "urn:here-ota:mtu:mine"}
    assert got(world, f"{DEVICES}/stats", query=query) == [{"resultCode": "OK", "total": 1, "success": True}]
    assert got(world, f"{DEVICES}/stats", query={**query, "reportLevel": "ecu"})[0]["total"] == 2
    kinds = {event["eventType"]["id"] for event in got(world, f"{DEVICES}/car/events", query=query)}
    assert {"EcuDownloadStarted", "EcuInstallationCompleted"} <= kinds
    assert got(world, f"{DEVICES}/car/events", query={"correlationId": "another"}) == []


# Groups ----------------------------------------------------------------------------------------------------------------------


def test_a_device_group_is_a_thing_group(world: UptaneWorld) -> None:
    car = polled(world, "car")
    group = group_of(world, "fleet", car)
    shown = got(world, f"{GROUPS}/{group}")
    assert (shown["id"], shown["groupName"], shown["groupType"]) == (group, "fleet", "static")
    assert got(world, f"{GROUPS}/fleet") == shown
    assert [each["id"] for each in got(world, GROUPS, query={"nameContains": "FLEE"})["values"]] == [group]
    assert got(world, f"{GROUPS}/{group}/count") == 1
    assert got(world, f"{GROUPS}/{group}/devices")["values"] == [got(world, f"{DEVICES}/car")["uuid"]]
    thing = world.server.call("iot", "GET", "/thing-groups/fleet/things", {}).json
    assert thing["things"] == ["car"]
    world.expect(200, "DELETE", f"{GROUPS}/{group}/devices/car")
    assert got(world, f"{GROUPS}/{group}/count") == 0
    world.expect(204, "DELETE", f"{GROUPS}/{group}")
    assert world.ask("GET", f"{GROUPS}/{group}").status == 404
    assert world.ask("POST", GROUPS, query={"groupName": "older", "type": "static"}).status == 201


def test_dynamic_groups_and_new_names_are_refused_by_name(world: UptaneWorld) -> None:
    dynamic = {"name": "reds", "groupType": "dynamic", "expression": "deviceid contains red"}
    refused = world.ask("POST", GROUPS, json_body=dynamic)
    assert (refused.status, refused.code) == (400, "not_supported")
    assert "Dynamic groups" in refused.json["description"]
    group = group_of(world, "fleet")
    renamed = world.ask("PUT", f"{GROUPS}/{group}/rename", json_body={"name": "other"})
    assert (renamed.status, renamed.code) == (400, "not_supported")
    for body in ({"name": "a b"}, {"name": "x", "groupType": "round"}, {"groupType": "static"}):
        assert world.ask("POST", GROUPS, json_body=body).status == 400


# Campaigns -------------------------------------------------------------------------------------------------------------------


def test_a_campaign_is_changed_counted_cancelled_for_one_and_for_all(world: UptaneWorld) -> None:
    first, second = polled(world, "car-a"), polled(world, "car-b")
    group = group_of(world, "fleet", first, second)
    body = {"name": "spring", "update": update(world), "groups": [group]}
    campaign = world.expect(201, "POST", CAMPAIGNS, json_body=body).json
    path = f"{CAMPAIGNS}/{campaign}"
    metadata = [{"type": "DESCRIPTION", "value": "All new."}]
    world.expect(200, "PUT", path, json_body={"name": "summer", "metadata": metadata})
    shown = got(world, path)
    assert (shown["name"], shown["status"], shown["metadata"], shown["groups"]) == ("summer", "prepared", metadata, [group])
    assert got(world, CAMPAIGNS, query={"nameContains": "SUM"})["values"] == [campaign]
    assert got(world, CAMPAIGNS, query={"status": "launched"})["values"] == []
    assert got(world, f"{CAMPAIGNS}/count")["prepared"] == 1

    job = world.expect(200, "POST", f"{path}/launch").json["jobId"]
    assert world.ask("POST", f"{path}/launch").status == 409
    world.server.work_off()
    assert got(world, f"{CAMPAIGNS}/count")["launched"] == 1
    world.expect(204, "DELETE", f"{path}/devices/car-a")
    assert got(world, f"{DIRECTOR}/assignments/car-a") == []
    assert got(world, f"{path}/stats")["cancelled"] == 1
    assert second.check_updates().updates
    world.expect(200, "POST", f"{path}/cancel")
    world.server.work_off()
    assert got(world, path)["status"] == "cancelled"
    assert world.server.call("iot", "GET", f"/jobs/{job}", {}).json["job"]["status"] == "CANCELED"
    assert second.cycle() is Outcome.NO_UPDATES, second.last_error
    assert second.installed_image() is None


def test_what_is_no_campaign_is_refused(world: UptaneWorld) -> None:
    group_of(world, "fleet")
    body: dict[str, object] = {"name": "spring", "update": update(world), "groups": ["fleet"]}
    changes: list[dict[str, object]] = [
        {"name": ""},
        {"name": None},
        {"update": "no-such-update"},
        {"groups": []},
        {"groups": ["no-such-group"]},
        {"metadata": [{"type": "COLOUR", "value": "red"}]},
        {"metadata": "red"},
        {"approvalNeeded": "yes"},
    ]
    for change in changes:
        assert world.ask("POST", CAMPAIGNS, json_body={**body, **change}).status in (400, 404), change
    assert got(world, CAMPAIGNS)["total"] == 0


def test_left_out_things_are_told_page_by_page(world: UptaneWorld) -> None:
    cars = [polled(world, f"car-{letter}") for letter in "abc"]
    group = group_of(world, "fleet", *cars)
    foreign = update(world, "other-board")
    body = {"name": "spring", "update": foreign, "groups": [group]}
    campaign = world.expect(201, "POST", CAMPAIGNS, json_body=body).json
    job = world.expect(200, "POST", f"{CAMPAIGNS}/{campaign}/launch").json["jobId"]
    world.server.work_off()
    first = got(world, f"{DIRECTOR}/jobs/{job}/left_out", query={"limit": "2"})
    assert [each["thing"] for each in first["values"]] == ["car-a", "car-b"]
    rest = got(world, f"{DIRECTOR}/jobs/{job}/left_out", query={"limit": "2", "after": first["next"]})
    assert [(each["thing"], each["code"]) for each in rest["values"]] == [("car-c", "device_no_compatible_hardware")]
    assert rest["next"] is None
    assert got(world, f"{DIRECTOR}/vehicles/car-a")["leftOut"][0]["jobId"] == job
