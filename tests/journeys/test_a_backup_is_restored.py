"""A backup is made while the server works, the server is lost, and another folder on other ports is the server again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from overair.agent.image_builder import build_image
from tests.support.aktualizr.device import Outcome
from tests.support.device_process import DeviceProcess, command
from tests.support.server_process import ServerProcess
from tests.support.uptane_road import HARDWARE_ID, UptaneRoad


def test_devices_of_both_families_follow_a_server_that_was_backed_up_under_load_killed_and_restored_elsewhere(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    lost = new_server(name="lost").start()
    road = UptaneRoad(lost, tmp_path / "vehicles")
    vehicle = road.own_pki_device(road.fleet(), "car-restored")
    assert vehicle.cycle() is Outcome.NO_UPDATES, vehicle.last_error
    road.send(vehicle)
    assert vehicle.cycle() is Outcome.INSTALLED, vehicle.last_error
    device = DeviceProcess(lost, "board", tmp_path / "board").enroll(build_image("app", "1.0.0", "posix"))
    job = device.ship(build_image("app", "1.1.0", "posix", payload=bytes(300_000)))
    iot = lost.client("iot")
    revoked = iot.create_keys_and_certificate(setAsActive=True)["certificateId"]
    iot.update_certificate(certificateId=revoked, newStatus="REVOKED")
    head = tmp_path / "head.json"
    head.write_text(command("overair.cli.main", "audit", "head", "--data", lost.data))

    made: list[str] = []
    backed_up = threading.Event()

    def goes_on() -> None:
        s3, things = lost.client("s3"), lost.client("iot")
        while not backed_up.is_set():
            name = f"load-{len(made)}"
            try:
                s3.put_object(Bucket=lost.endpoints["bucket"], Key=name, Body=name.encode() * 1000)
                things.create_thing(thingName=name)
            except (ClientError, BotoCoreError):
                return
            made.append(name)

    load = threading.Thread(target=goes_on)
    load.start()
    file = tmp_path / "backup.tar"
    try:
        command("overair.cli.main", "backup", file, "--with-wrapping-key", "--data", lost.data)
    finally:
        backed_up.set()
        load.join()
    assert made, "nothing went on beside the backup"

    # Whatever is said after the backup is lost, but no number may stand for two documents.
    road.send(vehicle)
    assert vehicle.cycle() is Outcome.INSTALLED, vehicle.last_error
    before = json.loads(vehicle.storage.director.roles["targets"])["signed"]["version"]
    held = {role: json.loads(data)["signed"]["version"] for role, data in vehicle.storage.image.roles.items()}
    lost.kill()

    command("overair.cli.main", "backup", "verify", file)
    restored = new_server(name="restored")
    command("overair.cli.main", "restore", file, "--data", restored.data)
    restored.start()
    assert restored.endpoints["account"] == lost.endpoints["account"]

    s3, things = restored.client("s3"), {each["thingName"] for each in _things(restored)}
    for name in made:
        if name in things:
            assert s3.get_object(Bucket=restored.endpoints["bucket"], Key=name)["Body"].read() == name.encode() * 1000
    described = restored.client("iot").describe_certificate(certificateId=revoked)["certificateDescription"]
    assert described["status"] == "REVOKED"
    assert "holds" in command("overair.cli.main", "audit", "verify", "--head", head, "--data", restored.data)

    device.server = restored
    device.change_settings(mqtt_port=restored.endpoints["mqtt_port"]).boot()
    try:
        assert device.wait_for_end(job, timeout_s=120)["status"] == "SUCCEEDED", device.log()
    finally:
        device.stop()

    road = UptaneRoad(restored, road.folder)
    vehicle = road.moved(vehicle)
    assert vehicle.cycle() is Outcome.NO_UPDATES, vehicle.last_error
    road.upload("after-1", b"after the restore", HARDWARE_ID)
    road.assign(road.multi_target_update({HARDWARE_ID: ("after-1", b"after the restore")}), vehicle.device_id)
    assert vehicle.cycle() is Outcome.INSTALLED, vehicle.last_error
    assert json.loads(vehicle.storage.director.roles["targets"])["signed"]["version"] > before
    now = {role: json.loads(data)["signed"]["version"] for role, data in vehicle.storage.image.roles.items()}
    assert all(now[role] > version for role, version in held.items())


def _things(server: ServerProcess) -> list[dict[str, str]]:
    pages = server.client("iot").get_paginator("list_things").paginate()
    return [thing for page in pages for thing in page["things"]]
