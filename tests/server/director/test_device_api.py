"""Vehicles' paths as they are called: names of documents, refusals by their codes, and what they tell of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from overair.basics.clock import as_datetime
from tests.support.aktualizr.curl import Response
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.director_room import EcuKey
from tests.support.uptane_world import HARDWARE_ID, UptaneWorld
from tests.support.whole_server import Template

EVENT = {
    "id": "e-1",
    "deviceTime": "2026-01-01T00:00:00Z",
    "eventType": {"id": "campaign_postponed", "version": 0},
    "event": {"campaignId": "no-such-campaign"},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def world(template: Template, tmp_path: Path) -> Iterator[UptaneWorld]:
    server = template.open(tmp_path / "data")
    yield UptaneWorld(server, tmp_path)
    server.close()


@pytest.fixture
def car(world: UptaneWorld) -> Aktualizr:
    device = world.device("car")
    assert device.cycle() is Outcome.NO_UPDATES, (device.refusal, device.last_error)
    return device


def said(response: Response) -> tuple[int, str]:
    """Status and code."""
    return response.status, str(json.loads(response.body).get("code", "")) if response.body else ""


def get(car: Aktualizr, path: str) -> Response:
    return car.curl.get(f"{car.server_url}{path}", size_bytes_max=1 << 20)


def put(car: Aktualizr, path: str, body: object) -> Response:
    return car.curl.put(f"{car.server_url}{path}", body if isinstance(body, bytes) else json.dumps(body).encode())


def post(car: Aktualizr, path: str, body: object) -> Response:
    return car.curl.post(f"{car.server_url}{path}", body if isinstance(body, bytes) else json.dumps(body).encode())


def test_documents_stand_behind_plain_names_and_behind_their_versions(car: Aktualizr) -> None:
    for role in ("root", "targets", "snapshot", "timestamp"):
        plain = get(car, f"/director/{role}.json")
        version = json.loads(plain.body)["signed"]["version"]
        assert get(car, f"/director/{version}.{role}.json").body == plain.body
        assert said(get(car, f"/director/{version + 1}.{role}.json"))[0] == 404
    assert json.loads(get(car, "/director/targets.json").body)["signed"]["custom"]["deviceId"] == "car"


def test_only_a_root_that_isnt_there_is_no_root(car: Aktualizr) -> None:
    assert said(get(car, "/director/1.root.json")) == (200, "")
    for version in ("2", "0", "9999999999"):
        assert said(get(car, f"/director/{version}.root.json")) == (404, "root_role_not_found")
    for name in ("12345678901.root.json", "keys.json", "1.targets.json.gz", "-1.root.json"):
        assert said(get(car, f"/director/{name}")) == (404, "role_not_found"), name


def test_what_is_served_is_signed_once_and_not_at_every_poll(car: Aktualizr) -> None:
    assert len({get(car, "/director/timestamp.json").body for _ in range(5)}) == 1


def registration(*ecus: tuple[str, str], primary: str, keys: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "primary_ecu_serial": primary,
        "ecus": [
            {
                "ecu_serial": serial,
                "hardware_identifier": hardware_id,
                "clientKey": (keys or {}).get(serial) or EcuKey().public_key.to_json(),
            }
            for serial, hardware_id in ecus
        ],
    }


def test_registrations_are_refused_by_the_codes_that_clients_know(world: UptaneWorld, car: Aktualizr) -> None:
    path = "/director/ecus"
    key = json.loads(world.ask("GET", f"/api/v1/director/admin/devices/car/ecus/{car.serial}/public_key").body)
    mine = {car.serial: key}
    same = registration((car.serial, HARDWARE_ID), primary=car.serial, keys=mine)
    assert said(post(car, path, same)) == (200, "")
    unlisted = registration((car.serial, HARDWARE_ID), primary="other", keys=mine)
    assert said(post(car, path, unlisted)) == (400, "primary_is_not_listed_for_device")
    unknown = registration((car.serial, HARDWARE_ID), primary=car.serial)
    unknown["ecus"][0]["clientKey"] = {"keytype": "DSA", "keyval": {"public": "00"}}
    assert said(post(car, path, unknown)) == (400, "ecu_key_not_supported")
    for body in (b"", b"[]", b"{", {"primary_ecu_serial": "x"}, {**same, "ecus": []}):
        assert post(car, path, body).status == 400
    with_dash = registration((car.serial, HARDWARE_ID), ("dash", "s32"), primary=car.serial, keys=mine)
    assert said(post(car, path, with_dash)) == (200, "")
    assert said(post(car, path, same)) == (200, "")
    assert said(post(car, path, with_dash)) == (409, "ecu_reuse_not_allowed")
    image = world.upload()
    assert world.assign({HARDWARE_ID: image}, "car").status == 201
    assert car.check_updates().updates
    other = registration((car.serial, HARDWARE_ID), ("radio", "s32"), primary=car.serial, keys=mine)
    assert said(post(car, path, other)) == (412, "replace_ecu_assignment_exists")


def test_manifests_are_refused_by_the_codes_that_clients_know(world: UptaneWorld, car: Aktualizr) -> None:
    manifest = car.manifest()
    assert said(put(car, "/director/manifest", manifest)) == (200, "")
    with capture_logs() as logged:
        assert said(put(car, "/director/manifest", manifest)) == (400, "manifest_replayed")
    assert [(entry["event"], entry["thing"], entry["why"]) for entry in logged] == [
        ("manifest refused", "car", "manifest-replay")
    ]
    forged = car.manifest()
    forged["signatures"][0]["sig"] = "A" * 86 + "=="  # type: ignore[index]
    assert said(put(car, "/director/manifest", forged)) == (400, "signature_not_valid")
    for body in (b"", b"{}", b"[]", {"signatures": [], "signed": {}}):
        assert put(car, "/director/manifest", body).status == 400
    assert said(put(car, "/director/manifest", b" " * (2 << 20)))[0] == 413


def test_a_vehicle_without_ecus_is_told_to_register_them_first(world: UptaneWorld, car: Aktualizr) -> None:
    issued = world.authority.device("bare", now=as_datetime(world.server.clock.now()))
    chain = tuple(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(issued.chain_pem))
    body = json.dumps(car.manifest()).encode()
    for method, path in (("PUT", "/director/manifest"), ("GET", "/director/targets.json"), ("GET", "/director/timestamp.json")):
        refused = world.server.device(chain, method, path, body if method == "PUT" else b"")
        assert (refused.status, refused.code) == (404, "device_missing_primary_ecu")
    assert world.server.device(chain, "GET", "/director/root.json").status == 200


def test_every_name_of_what_a_vehicle_tells_leads_to_the_same_record(world: UptaneWorld, car: Aktualizr) -> None:
    records = "/api/v1/devices/car"
    packages = [{"name": "bash", "version": "5.1"}, {"name": "zlib", "version": "1.2"}]
    assert put(car, "/core/installed", packages).status == 204
    listed = world.ask("GET", f"{records}/packages", query={"nameContains": "BA"}).json
    assert [each["packageId"] for each in listed["values"]] == [{"name": "bash", "version": "5.1"}]
    for path, value in (("/system_info", {"id": "one"}), ("/core/system_info", {"id": "two"})):
        assert put(car, path, value).status == 204
        assert world.ask("GET", f"{records}/system_info").json == value
    for path, host in (("/system_info/network", "one"), ("/core/system_info/network", "two")):
        assert put(car, path, {"hostname": host, "local_ipv4": "10.0.0.1", "mac": "00:11"}).status == 204
        assert world.ask("GET", f"{records}/system_info/network").json["hostname"] == host
    for method, value in ((post, "one"), (put, "two")):
        assert method(car, "/system_info/config", f'[pacman]\ntype = "{value}"\n'.encode()).status == 204
        assert world.ask("GET", f"{records}/system_info/config").json == {"pacman": {"type": value}}
    for path, bad in (
        ("/core/installed", {"a": 1}),
        ("/core/installed", [{"name": "x"}]),
        ("/system_info", "text"),
        ("/system_info/network", {"hostname": 5}),
        ("/system_info/config", b"= no toml"),
    ):
        assert put(car, path, bad).status == 400, path
    assert put(car, "/system_info/config", b"#" * (65 * 1024)).status == 413


def test_events_are_taken_once_and_too_many_are_sent_in_halves(world: UptaneWorld, car: Aktualizr) -> None:
    assert post(car, "/events", [EVENT, EVENT]).status == 204
    assert post(car, "/events", [EVENT]).status == 204
    kept = world.ask("GET", "/api/v1/devices/car/events").json
    assert [event["id"] for event in kept if event["eventType"]["id"] == "campaign_postponed"] == ["e-1"]
    assert post(car, "/events", []).status == 204
    assert post(car, "/events", b"{}").status == 400
    many = [{**EVENT, "id": f"e-{number}", "event": {"campaignId": "x" * 2000}} for number in range(2000)]
    assert said(post(car, "/events", many)) == (413, "entity_too_large")
    assert json.loads(get(car, "/campaigner/campaigns").body) == {"campaigns": []}
