"""Vehicles of another server: whole or not at all, each by itself, and as good as if they had registered here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.basics.clock import SettableClock, WallClock
from overair.wire.uptane.ecus import Ecu, registration_body
from tests.support.aktualizr.configuration import Configuration
from tests.support.aktualizr.curl import Call
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.fleet_pki import FleetAuthority
from tests.support.uptane_repository import KeyHolder
from tests.support.whole_server import DEVICE_URL, WholeServer

PATH = "/api/v1/director/import/devices"
FIRST_IMAGE = {"filepath": "gateway-1", "fileinfo": {"length": 11, "hashes": {"sha256": "ab" * 32}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    """One for all tests; each has vehicles of its own. Certificates of tests' own authorities hold from now on."""
    server = WholeServer(tmp_path_factory.mktemp("importing") / "data", SettableClock(WallClock().now()))
    yield server
    server.close()


def vehicle(device_id: str, *, certificates: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """One vehicle of a Primary and a Secondary, as an export describes it."""
    ecus = [
        Ecu(serial=f"{device_id}-primary", hardware_id="gw-imx8", key=KeyHolder().public_key),
        Ecu(serial=f"{device_id}-dash", hardware_id="cluster-s32", key=KeyHolder().public_key),
    ]
    return {
        "deviceId": device_id,
        "certificates": certificates or [],
        "ecus": json.loads(registration_body(f"{device_id}-primary", ecus)),
        "installed": {f"{device_id}-primary": FIRST_IMAGE},
        **more,
    }


def take(server: WholeServer, *devices: dict[str, Any], dry_run: bool = False) -> list[dict[str, Any]]:
    query = {"dryRun": "true"} if dry_run else {}
    reply = server.operator("POST", PATH, json_body={"devices": list(devices)}, query=query)
    assert reply.status == 200, reply.body
    return list(reply.json["devices"])


def outcomes(told: list[dict[str, Any]]) -> dict[str, str]:
    return {each["deviceId"]: each["outcome"] for each in told}


def certificate(authority: FleetAuthority, name: str, *, days: int = 3650) -> str:
    return authority.device(name, days=days).chain_pem.decode()


def test_a_vehicle_is_there_with_its_ecus_their_keys_and_what_runs_on_them(server: WholeServer) -> None:
    authority = FleetAuthority()
    asked = vehicle("car-10", certificates=[certificate(authority, "car-10")], deviceName="the red one", deviceType="Vehicle")
    assert outcomes(take(server, asked)) == {"car-10": "imported"}
    ecus = server.operator("GET", "/api/v1/director/admin/devices/car-10").json
    assert {(ecu["id"], ecu["hardwareId"], ecu["primary"]) for ecu in ecus} == {
        ("car-10-primary", "gw-imx8", True),
        ("car-10-dash", "cluster-s32", False),
    }
    (installed,) = [ecu["image"] for ecu in ecus if ecu["image"] is not None]
    assert (installed["filepath"], installed["size"]) == ("gateway-1", 11)
    key = server.operator("GET", "/api/v1/director/admin/devices/car-10/ecus/car-10-dash/public_key").json
    assert key == asked["ecus"]["ecus"][1]["clientKey"]
    record = server.operator("GET", "/api/v1/devices/car-10").json
    assert (record["deviceName"], record["deviceType"]) == ("the red one", "Vehicle")
    pem = server.operator("GET", "/api/v1/devices/car-10/public_credentials").json["credentials"]
    assert pem in asked["certificates"][0]


def test_the_same_import_again_changes_nothing(server: WholeServer) -> None:
    asked = vehicle("car-20", certificates=[certificate(FleetAuthority(), "car-20")])
    take(server, asked)
    assert outcomes(take(server, asked)) == {"car-20": "unchanged"}
    renewed = {**asked, "certificates": [*asked["certificates"], certificate(FleetAuthority(), "car-20")]}
    assert outcomes(take(server, renewed)) == {"car-20": "imported"}
    assert outcomes(take(server, renewed)) == {"car-20": "unchanged"}


def test_a_rehearsal_tells_the_same_and_leaves_nothing(server: WholeServer) -> None:
    asked = vehicle("car-30", certificates=[certificate(FleetAuthority(), "car-30")])
    assert outcomes(take(server, asked, dry_run=True)) == {"car-30": "imported"}
    assert server.operator("GET", "/api/v1/devices/car-30").status == 404
    assert outcomes(take(server, asked)) == {"car-30": "imported"}


def test_a_refused_vehicle_keeps_no_other_from_coming_and_leaves_nothing_of_itself(server: WholeServer) -> None:
    authority = FleetAuthority()
    twin = vehicle("refusal-2", certificates=[certificate(authority, "refusal-2"), certificate(authority, "refusal-3")])
    keyless = vehicle("refusal-4")
    keyless["ecus"]["ecus"][0]["clientKey"]["keytype"] = "unknown"
    unlisted = vehicle("refusal-5")
    unlisted["ecus"]["primary_ecu_serial"] = "another"
    secret = vehicle("refusal-6", certificates=["-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----"])
    told = take(server, twin, vehicle("refusal.7"), keyless, unlisted, secret, vehicle("refusal-8"))
    assert outcomes(told) == {
        **dict.fromkeys(["refusal-2", "refusal.7", "refusal-4", "refusal-5", "refusal-6"], "refused"),
        "refusal-8": "imported",
    }
    assert all(each["errors"] for each in told if each["outcome"] == "refused")
    values = server.operator("GET", "/api/v1/devices", query={"nameContains": "refusal-"}).json["values"]
    assert [each["deviceId"] for each in values] == ["refusal-8"]


def test_a_certificate_of_somebody_elses_is_refused(server: WholeServer) -> None:
    pem = certificate(FleetAuthority(), "car-50")
    take(server, vehicle("car-50", certificates=[pem]))
    server.operator("DELETE", "/api/v1/devices/car-50")
    (told,) = take(server, vehicle("car-50", certificates=[pem]))
    assert told["outcome"] == "refused"
    assert "blocked" in told["errors"][0]


def test_a_certificate_that_has_expired_is_left_out_and_told(server: WholeServer) -> None:
    pem = certificate(FleetAuthority(), "car-60", days=-1)
    (told,) = take(server, vehicle("car-60", certificates=[pem]))
    assert told["outcome"] == "imported"
    assert any("expired" in warning for warning in told["warnings"])
    assert any("without a certificate" in warning for warning in told["warnings"])


def test_a_vehicle_that_was_kept_out_over_there_is_kept_out_here_too(server: WholeServer) -> None:
    asked = {**vehicle("thief-1", certificates=[]), "keptOut": True}
    for _ in range(2):
        assert outcomes(take(server, asked)) == {"thief-1": "blocked"}
    assert server.operator("GET", "/api/v1/devices/thief-1").status == 404
    pem = certificate(FleetAuthority(), "thief-1")
    (told,) = take(server, vehicle("thief-1", certificates=[pem]))
    assert told["outcome"] == "refused"


def test_a_vehicle_without_ecus_is_expected(server: WholeServer) -> None:
    asked = {"deviceId": "car-70", "certificates": [certificate(FleetAuthority(), "car-70")]}
    assert outcomes(take(server, asked)) == {"car-70": "imported"}
    assert outcomes(take(server, asked)) == {"car-70": "unchanged"}
    assert server.operator("GET", "/api/v1/devices/car-70").json["deviceStatus"] == "NotSeen"
    # Its ECUs may come with a later export.
    assert outcomes(take(server, vehicle("car-70", certificates=asked["certificates"]))) == {"car-70": "imported"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body", [{}, {"devices": []}, {"devices": [1]}, {"devices": [{"deviceId": 7}]}, {"devices": [{"deviceId": ""}]}]
)
def test_what_names_no_vehicle_is_refused_as_a_whole(server: WholeServer, body: object) -> None:
    assert server.operator("POST", PATH, json_body=body).status == 400


def test_an_imported_vehicle_goes_on_without_registering_anew(server: WholeServer, tmp_path: Path) -> None:
    """It registered with the other server; here it sends manifests and is given targets as if it had registered here."""
    authority = FleetAuthority()
    issued = authority.device("car-90", days=3650)
    (tmp_path / "ca.pem").write_text(authority.pem.decode())
    configuration = Configuration(
        server_url=DEVICE_URL,
        credentials=issued.files(tmp_path / "car-90", tmp_path / "ca.pem"),
        hardware_id="gw-imx8",
        key_type="ED25519",
    )
    calls: list[Call] = []
    device = Aktualizr(configuration, connect=lambda tls: server.connect(tls, calls))
    device.storage.ecus = [(device.serial, "gw-imx8")]  # as it registered over there
    ecus = {
        "primary_ecu_serial": device.serial,
        "ecus": [
            {
                "ecu_serial": device.serial,
                "hardware_identifier": "gw-imx8",
                "clientKey": device.provisioner.key.public.to_uptane(),
            }
        ],
    }
    take(server, {"deviceId": "car-90", "certificates": [issued.chain_pem.decode()], "ecus": ecus})
    assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    assert [call.path for call in calls if call.path == "/director/ecus"] == []
    assert [call.status for call in calls if call.path == "/director/manifest"] == [200]
